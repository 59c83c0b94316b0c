// SPDX-License-Identifier: GPL-2.0

//! One connection of the guest, seen from the host: what a host's kernel keeps of it, and the
//! program of the host at its end.
//!
//! Nothing here touches rings or memory of the guest: packets come in by [`Conn::receive`], and
//! what the host says goes to a list. The program runs in [`Conn::settle`], after all packets of a
//! run were received, as a reader of a busy host does.

use ring::packet::{self, Header};
use std::collections::VecDeque;

/// Receive buffer of each socket of the host: the kernel's default.
pub const BUF_ALLOC: u32 = 256 * 1024;
/// With less room than this for the guest, we tell it how much it has.
const LOW_ROOM: u32 = packet::MAX_PAYLOAD as u32;
/// First word of what a program in the guest says on a new connection.
pub const COMMAND_LEN: usize = 16;

/// Whose host half is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Like {
    /// C 7.3: a credit update also whenever a reader emptied its queue, and for each record
    /// (`virtio_transport_stream_do_dequeue`, `virtio_transport_seqpacket_do_dequeue`).
    C,
    /// Ours: when a reader that waits would leave the guest too little room, or untold of an eighth
    /// of its window, and a packet with payload does not tell it anyway
    /// (`vsock_proto::credit::RxCredit::update_before_wait`).
    Ours,
}

/// The program behind a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Reads all; after the last byte it answers with one.
    Sink,
    /// Sends what it was told to send.
    Source,
    /// Answers each message with itself.
    Echo,
    /// Nothing but a connection.
    Close,
    /// Answers anything with a line of counters.
    Control,
}

impl Service {
    pub fn of_port(port: u32) -> Option<Self> {
        Some(match port {
            9000 => Self::Sink,
            9001 => Self::Source,
            9002 => Self::Echo,
            9003 => Self::Close,
            9004 => Self::Control,
            _ => return None,
        })
    }

    fn wants_command(self) -> bool {
        matches!(self, Self::Sink | Self::Source | Self::Echo)
    }
}

/// What the guest wants: its first message on a connection to a sink, a source or an echo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// Bytes of a message.
    pub size: u32,
    /// How the device is to be paced from now on: 0 at once, 1 in step with the guest.
    pub pace: u32,
    /// Messages that follow.
    pub count: u64,
}

impl Command {
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        Some(Self {
            size: word(0)?,
            pace: word(4)?,
            count: u64::from(word(8)?) | (u64::from(word(12)?) << 32),
        })
    }
}

/// A packet of the host that waits for a buffer of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub header: Header,
    pub data: Vec<u8>,
    /// Whether it is part of what is measured.
    pub counted: bool,
}

/// A connection.
pub struct Conn {
    like: Like,
    service: Service,
    /// Addresses and type of what we send.
    template: Header,
    // What the guest may take: its window, and how far it has read.
    peer_alloc: u32,
    peer_fwd: u32,
    sent: u32,
    // What we may take.
    fwd: u32,
    told: u32,
    /// The guest has asked for credit since it last sent payload.
    asked: bool,
    /// Bytes that the program has not read, and ends of records among them.
    unread: u32,
    records: u32,
    /// What the program has read and not dealt with: of a command, or of an echo's message.
    held: Vec<u8>,
    command: Option<Command>,
    /// Bytes (sink) or messages (source) that are still to come.
    left: u64,
    /// Messages that the program wants to send.
    messages: VecDeque<Vec<u8>>,
}

impl Conn {
    /// A connection that the guest asks for with this header.
    pub fn new(like: Like, service: Service, request: &Header) -> Self {
        let template = Header {
            src_cid: request.dst_cid,
            dst_cid: request.src_cid,
            src_port: request.dst_port,
            dst_port: request.src_port,
            ty: request.ty,
            buf_alloc: BUF_ALLOC,
            ..Header::default()
        };
        Self {
            like,
            service,
            template,
            peer_alloc: request.buf_alloc,
            peer_fwd: request.fwd_cnt,
            sent: 0,
            fwd: 0,
            told: 0,
            asked: false,
            unread: 0,
            records: 0,
            held: Vec::new(),
            command: None,
            left: 0,
            messages: VecDeque::new(),
        }
    }

    pub fn service(&self) -> Service {
        self.service
    }

    /// A packet of ours, which also tells the guest how far we have read.
    pub fn packet(&mut self, op: u16, flags: u32, data: Vec<u8>) -> Outgoing {
        self.told = self.fwd;
        let header = self.template.with(|header| {
            header.op = op;
            header.flags = flags;
            header.len = data.len() as u32;
            header.fwd_cnt = self.fwd;
        });
        Outgoing {
            header,
            data,
            counted: self.service != Service::Control,
        }
    }

    /// Looks at the credit that a packet of the guest carries.
    pub fn credit(&mut self, header: &Header) {
        self.peer_alloc = header.buf_alloc;
        self.peer_fwd = header.fwd_cnt;
    }

    /// The guest asks how much room it has; its writer waits.
    pub fn ask(&mut self) -> Outgoing {
        self.asked = true;
        self.packet(packet::CREDIT_UPDATE, 0, Vec::new())
    }

    /// Takes payload of the guest. False: the guest sends more than it may.
    pub fn receive(&mut self, header: &Header, data: &[u8]) -> bool {
        let bytes = data.len() as u32;
        if bytes > BUF_ALLOC.saturating_sub(self.unread) {
            return false;
        }
        self.asked = false;
        self.unread = self.unread.saturating_add(bytes);
        if header.ty == packet::SEQPACKET && header.flags & packet::EOM != 0 {
            self.records = self.records.saturating_add(1);
        }
        let sinking = self.service == Service::Sink && self.command.is_some();
        if sinking {
            self.left = self.left.saturating_sub(u64::from(bytes));
        } else {
            self.held.extend_from_slice(data);
        }
        true
    }

    /// Bytes that the guest can still take.
    fn room(&self) -> u32 {
        let under_way = self.sent.wrapping_sub(self.peer_fwd);
        self.peer_alloc.saturating_sub(under_way)
    }

    /// The program reads all there is, and C's kernel tells the guest of the room.
    fn read(&mut self, out: &mut VecDeque<Outgoing>) {
        if self.unread == 0 && self.records == 0 {
            return;
        }
        self.fwd = self.fwd.wrapping_add(self.unread);
        self.unread = 0;
        let records = std::mem::take(&mut self.records);
        let updates = match self.like {
            Like::Ours => 0,
            Like::C if self.template.ty == packet::SEQPACKET => records,
            Like::C => 1,
        };
        for _ in 0..updates {
            let update = self.packet(packet::CREDIT_UPDATE, 0, Vec::new());
            out.push_back(update);
        }
    }

    /// The program is about to wait: ours tells the guest of the room if it must know.
    fn wait(&mut self, out: &mut VecDeque<Outgoing>) {
        let untold = self.fwd.wrapping_sub(self.told);
        if self.like == Like::C || untold == 0 {
            return;
        }
        let window = BUF_ALLOC.min(self.peer_alloc);
        let low = window.saturating_sub(untold) < LOW_ROOM;
        if self.asked || low || untold >= window / 8 {
            let update = self.packet(packet::CREDIT_UPDATE, 0, Vec::new());
            out.push_back(update);
        }
    }

    /// The program runs until it has to wait. Returns the command that it was given by this.
    pub fn settle(&mut self, counters: &str, out: &mut VecDeque<Outgoing>) -> Option<Command> {
        let mut given = None;
        self.read(out);
        if self.command.is_none() && self.service.wants_command() && self.held.len() >= COMMAND_LEN
        {
            let rest = self.held.split_off(COMMAND_LEN);
            given = Command::parse(&self.held);
            self.held = rest;
            self.command = given;
            if let Some(command) = given {
                self.left = match self.service {
                    Service::Sink => u64::from(command.size).saturating_mul(command.count),
                    _ => command.count,
                };
            }
            if self.service == Service::Sink {
                self.left = self.left.saturating_sub(self.held.len() as u64);
                self.held.clear();
            }
        }
        self.act(counters);
        self.send(out);
        self.wait(out);
        given
    }

    /// What the program does with what it has read.
    fn act(&mut self, counters: &str) {
        match (self.service, self.command) {
            (Service::Control, _) if !self.held.is_empty() => {
                self.held.clear();
                self.messages
                    .push_back(format!("{counters}\n").into_bytes());
            }
            (Service::Sink, Some(_)) if self.left == 0 => {
                self.command = None;
                self.messages.push_back(vec![1]);
            }
            (Service::Echo, Some(command)) => {
                let size = command.size.max(1) as usize;
                while self.held.len() >= size {
                    let rest = self.held.split_off(size);
                    self.messages
                        .push_back(std::mem::replace(&mut self.held, rest));
                }
            }
            _ => {}
        }
    }

    /// The next message that the program wants to send.
    fn next_message(&mut self) -> Option<Vec<u8>> {
        if let Some(message) = self.messages.pop_front() {
            return Some(message);
        }
        match (self.service, self.command) {
            (Service::Source, Some(command)) if self.left > 0 => {
                self.left -= 1;
                Some(vec![0x5a; command.size as usize])
            }
            _ => None,
        }
    }

    /// Sends what fits: parts of a message of a stream as C's `send` does, records only whole.
    fn send(&mut self, out: &mut VecDeque<Outgoing>) {
        while let Some(mut message) = self.next_message() {
            let room = (self.room() as usize).min(packet::MAX_PAYLOAD);
            let is_record = self.template.ty == packet::SEQPACKET;
            if room == 0 || (is_record && room < message.len()) {
                self.messages.push_front(message);
                return;
            }
            if message.len() > room {
                let rest = message.split_off(room);
                self.messages.push_front(rest);
            }
            self.sent = self.sent.wrapping_add(message.len() as u32);
            let flags = if is_record { packet::EOM } else { 0 };
            let packet = self.packet(packet::RW, flags, message);
            out.push_back(packet);
        }
    }
}

#[cfg(test)]
#[path = "conn_tests.rs"]
mod tests;
