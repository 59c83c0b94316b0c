// SPDX-License-Identifier: GPL-2.0

//! Small writes to a stream, which join a packet that waits for a buffer of the guest.

use super::{case, rx, Case};
use crate::{
    device::{Device, Setup, TX},
    host::{self, Peer},
    packet::{self, Packet},
    Try,
};

/// Why the C modules are not tried.
const NEVER: &str = "C sends each write in a packet of its own";

pub const CASES: &[Case] = &[
    case(
        "DT-12/small-writes-join-a-packet-that-waits",
        "streams: all bytes, all bytes; joined, joined; SHUTDOWN last; 100 messages of 32 bytes",
        |_| three(),
    )
    .not_on_c(NEVER),
    case(
        "DT-13/credit-of-writes-that-joined",
        "4000, then EAGAIN; 0 unsent; 4000, then EAGAIN; 0 unsent; all bytes",
        |_| credit(),
    ),
    case(
        "DT-14/writes-do-not-join-pages-of-a-user",
        "768 bytes, then packets of [600, 640, 64, 640]: all bytes",
        |_| beside_pages(),
    )
    .not_on_c(NEVER),
];

/// Whether a packet came for a peer.
fn is_for(packet: &Packet, peer: &Peer) -> bool {
    packet.header.dst_port == peer.guest
}

/// The payload of packets that are as they say.
fn payload<'p>(packets: impl Iterator<Item = &'p Packet>) -> Try<Vec<u8>> {
    let mut all = Vec::new();
    for packet in packets {
        if packet.header.len as usize != packet.payload.len() {
            return Err(format!("{:?}", packet.header).into());
        }
        all.extend_from_slice(&packet.payload);
    }
    Ok(all)
}

/// Two streams and messages, in turns, while the guest has two buffers.
fn three() -> Try<String> {
    let mut dev = Setup::buffers(2).open()?;
    let a = host::connect(&mut dev, libc::SOCK_STREAM, 7000)?;
    let b = host::connect(&mut dev, libc::SOCK_STREAM, 7001)?;
    let messages = host::connect(&mut dev, libc::SOCK_SEQPACKET, 7002)?;
    let bytes = rx::pattern(6400);
    for piece in bytes.chunks(64) {
        a.socket.send(piece)?;
        b.socket.send(piece)?;
        messages.socket.send(&piece[..32])?;
    }
    a.socket.shutdown()?;
    let packets = dev.recv_all()?;
    let of = |peer| packets.iter().filter(move |packet| is_for(packet, peer));
    let mut all = Vec::new();
    let mut joined = Vec::new();
    for peer in [&a, &b] {
        let data = || of(peer).filter(|packet| packet.header.op == packet::RW);
        all.push(match payload(data())? == bytes {
            true => "all bytes",
            false => "other bytes",
        });
        let largest = data().map(|packet| packet.payload.len()).max();
        let is_joined = data().count() <= 6 && largest.is_some_and(|n| n > 64 && n <= 3584);
        joined.push(if is_joined { "joined" } else { "not joined" });
    }
    let last = of(&a).next_back().map_or("nothing", Packet::name);
    let whole = of(&messages)
        .zip(bytes.chunks(64))
        .filter(|(packet, piece)| {
            packet.payload == piece[..32] && packet.header.flags & packet::EOM != 0
        })
        .count();
    if of(&messages).count() != whole {
        return Err("messages are not what was sent".into());
    }
    Ok(format!(
        "streams: {}; {}; {last} last; {whole} messages of 32 bytes",
        all.join(", "),
        joined.join(", ")
    ))
}

/// A stream with a window of 4000 bytes, which it fills twice.
fn credit() -> Try<String> {
    let mut dev = Setup::buffers(2).open()?;
    let peer = host::connect(&mut dev, libc::SOCK_STREAM, 7000)?;
    let bytes = rx::pattern(9000);
    let mut said = Vec::new();
    let mut got = Vec::new();
    for nth in 0..2_u32 {
        tell(&mut dev, &peer, nth * 4000)?;
        let mut sent = 0;
        let why = loop {
            let at = got.len() + sent;
            match peer.socket.send(&bytes[at..bytes.len().min(at + 64)]) {
                Ok(0) => break "the end".to_owned(),
                Ok(n) => sent += n,
                Err(e) => break host::errno(&e),
            }
        };
        let packets = dev.recv_all()?;
        let data = packets
            .iter()
            .filter(|packet| packet.header.op == packet::RW);
        got.extend(payload(data)?);
        said.push(format!(
            "{sent}, then {why}; {} unsent",
            peer.socket.unsent()?
        ));
    }
    let all = if got == bytes[..8000] {
        "all bytes"
    } else {
        "other bytes"
    };
    Ok(format!("{}; {all}", said.join("; ")))
}

/// Small writes to a guest with two buffers, and pages of the user in between.
fn beside_pages() -> Try<String> {
    let mut dev = Setup::buffers(2).open()?;
    let peer = host::connect(&mut dev, libc::SOCK_STREAM, 7000)?;
    peer.socket.allow_zerocopy()?;
    let bytes = rx::pattern(12 * 64 + 600 + 10 * 64 + 64 + 10 * 64);
    let mut rest = &bytes[..];
    for (writes, pages) in [(12, 600), (10, 64), (10, 0)] {
        for _ in 0..writes {
            let (piece, behind) = rest.split_at(64);
            peer.socket.send(piece)?;
            rest = behind;
        }
        let (piece, behind) = rest.split_at(pages);
        rest = behind;
        if pages > 0 && peer.socket.send_pages(piece)? < pages {
            return Err("not all pages were taken".into());
        }
    }
    let packets = dev.recv_all()?;
    let data = || packets.iter().filter(|p| p.header.op == packet::RW);
    let lens: Vec<_> = data().map(|packet| packet.payload.len()).collect();
    let all = match payload(data())? == bytes {
        true => "all bytes",
        false => "other bytes",
    };
    // How the first ones join depends on when the guest's buffers are filled.
    let (before, behind) = lens.split_at(lens.len().saturating_sub(4));
    let before: usize = before.iter().sum();
    Ok(format!("{before} bytes, then packets of {behind:?}: {all}"))
}

/// The guest read so many bytes, and has room for 4000.
fn tell(dev: &mut Device, peer: &Peer, read: u32) -> Try<()> {
    let header = peer
        .header(dev, packet::CREDIT_UPDATE)
        .with(|h| (h.buf_alloc, h.fwd_cnt) = (4000, read));
    dev.send_rw(header, &[])?;
    dev.q[TX].take_all();
    Ok(())
}
