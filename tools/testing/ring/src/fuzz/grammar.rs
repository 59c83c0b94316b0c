// SPDX-License-Identifier: GPL-2.0

//! Sequences of packets of the guest and of actions of the host's programs: sensible for the most
//! part, so that they get somewhere, with something wrong now and then.

use super::model::{MESSAGES, NOBODY, STREAMS};
use crate::{
    packet::{self, Header},
    rng::Rng,
};

/// How a packet is laid out in descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// As one descriptor.
    Whole,
    /// In so many.
    Pieces(u8),
    /// In some, with empty ones between.
    WithEmpty,
    /// In an indirect table.
    Indirect(u8),
    /// In an indirect table whose order is not that of the entries.
    Shuffled,
    /// With flags that have no meaning.
    ReservedFlags,
    /// Not a packet: given back.
    Short,
    Writable,
    WithWritable,
    /// No chain: the ring is broken.
    HeadOutside,
    NextOutside,
    Loop,
    AddressOutside,
    TableLength,
    TableNested,
    TableContinues,
}

impl Shape {
    /// Whether a packet in this shape is taken.
    pub fn is_good(self) -> bool {
        matches!(
            self,
            Self::Whole
                | Self::Pieces(_)
                | Self::WithEmpty
                | Self::Indirect(_)
                | Self::Shuffled
                | Self::ReservedFlags
        )
    }

    /// Whether the ring is broken by it.
    pub fn breaks(self) -> bool {
        matches!(
            self,
            Self::HeadOutside
                | Self::NextOutside
                | Self::Loop
                | Self::AddressOutside
                | Self::TableLength
                | Self::TableNested
                | Self::TableContinues
        )
    }

    fn random(rng: &mut Rng) -> Self {
        match rng.below(100) {
            0..50 => Self::Whole,
            50..65 => Self::Pieces(2 + rng.below(6) as u8),
            65..72 => Self::WithEmpty,
            72..80 => Self::Indirect(1 + rng.below(6) as u8),
            80..86 => Self::Shuffled,
            86..90 => Self::ReservedFlags,
            90..96 => rng.pick(&[Self::Short, Self::Writable, Self::WithWritable]),
            _ => match rng.below(4) {
                0 => rng.pick(&[
                    Self::HeadOutside,
                    Self::NextOutside,
                    Self::Loop,
                    Self::AddressOutside,
                    Self::TableLength,
                    Self::TableNested,
                    Self::TableContinues,
                ]),
                _ => Self::Whole,
            },
        }
    }
}

/// A step of a sequence.
#[derive(Clone, Debug)]
pub enum Step {
    /// The guest sends a packet; `payload` bytes follow the header, whatever that says.
    Packet {
        header: Header,
        payload: u32,
        shape: Shape,
    },
    /// A program of the host reads all that one of its sockets has.
    Read(u32),
    /// It sends so many bytes.
    Write(u32, u32),
    /// It closes the socket.
    Close(u32),
}

/// The longest sequence.
pub const MAX_STEPS: u64 = 12;
/// Ports of the guest in a sequence.
pub const PORTS: u32 = 3;

/// A sequence for the guest with a CID, whose ports begin at `first_port`.
pub fn sequence(rng: &mut Rng, cid: u64, first_port: u32) -> Vec<Step> {
    let steps = 1 + rng.below(MAX_STEPS);
    (0..steps)
        .map(|_| match rng.below(10) {
            0 => Step::Read(rng.below(4) as u32),
            1 => Step::Write(rng.below(4) as u32, size(rng, 100_000)),
            2 if rng.one_in(2) => Step::Close(rng.below(4) as u32),
            _ => a_packet(rng, cid, first_port),
        })
        .collect()
}

fn size(rng: &mut Rng, max: u64) -> u32 {
    match rng.below(4) {
        0 => rng.below(4) as u32,
        1 => rng.below(200) as u32,
        2 => rng.below(4096) as u32,
        _ => rng.below(max) as u32,
    }
}

fn a_packet(rng: &mut Rng, cid: u64, first_port: u32) -> Step {
    let shape = Shape::random(rng);
    let dst_port = match rng.below(16) {
        0 => NOBODY,
        1..5 => MESSAGES,
        _ => STREAMS,
    };
    let usual = if dst_port == MESSAGES {
        packet::SEQPACKET
    } else {
        packet::STREAM
    };
    let op = match rng.below(32) {
        0..8 => packet::REQUEST,
        8..18 => packet::RW,
        18..21 => packet::CREDIT_UPDATE,
        21..24 => packet::CREDIT_REQUEST,
        24..27 => packet::SHUTDOWN,
        27 => packet::RST,
        28 => packet::RESPONSE,
        29 => packet::INVALID,
        30 => 8,
        _ => rng.word() as u16,
    };
    let payload = match op {
        packet::RW => size(rng, 65_536),
        _ if rng.one_in(16) => size(rng, 4096),
        _ => 0,
    };
    let len = match rng.below(40) {
        0 => rng.word() as u32,
        1 => payload / 2,
        _ => payload,
    };
    let header = Header {
        src_cid: match rng.below(64) {
            0 => rng.below(8),
            1 => cid + (1 << 32),
            _ => cid,
        },
        dst_cid: match rng.below(64) {
            0 => rng.below(8),
            _ => packet::HOST,
        },
        src_port: first_port + rng.below(u64::from(PORTS)) as u32,
        dst_port,
        len,
        ty: match rng.below(32) {
            0 => rng.word() as u16,
            1 => 3 - usual,
            _ => usual,
        },
        op,
        flags: match op {
            packet::SHUTDOWN => rng.below(4) as u32,
            packet::RW => rng.below(4) as u32,
            _ if rng.one_in(8) => rng.word() as u32,
            _ => 0,
        },
        buf_alloc: match rng.below(8) {
            0 => 0,
            1 => u32::MAX,
            2 => rng.word() as u32,
            _ => 65_536,
        },
        fwd_cnt: match rng.below(24) {
            0 => rng.word() as u32,
            1 => rng.below(100_000) as u32,
            2 => u32::MAX - rng.below(1000) as u32,
            _ => 0,
        },
    };
    Step::Packet {
        header,
        payload,
        shape,
    }
}
