// SPDX-License-Identifier: GPL-2.0

//! Chains of the guest for the packets of the host.

use super::{case, Case};
use crate::{
    device::{Device, Setup, LARGE, RX, TABLE, TX},
    host::{self, Peer, Socket},
    observe::NOBODY,
    packet::{self, HEADER_LEN},
    ring::{chained, table, Desc, INDIRECT, WRITE},
    Try,
};
use std::{thread, time::Duration};

pub const CASES: &[Case] = &[
    case("R01/buffer-of-4096", "100 bytes intact", |_| {
        let (mut dev, peer) = connected(Setup::default())?;
        peer.socket.send(&pattern(100))?;
        let packet = dev.expect(packet::RW)?;
        Ok(intact(&packet.payload, 100))
    }),
    case(
        "R02/7-readable-chains",
        "7 of 7 returned, then the packet",
        |_| bad_buffers(7, |dev, n| dev.post_desc(n, Desc::new(LARGE, 4096))),
    ),
    case("R02/8-readable-chains", GIVEN_UP, |_| {
        bad_buffers(8, |dev, n| dev.post_desc(n, Desc::new(LARGE, 4096)))
    }),
    case(
        "R03/7-buffers-of-43",
        "7 of 7 returned, then the packet",
        |_| bad_buffers(7, |dev, n| dev.post(n, 43)),
    ),
    case("R03/8-buffers-of-43", GIVEN_UP, |_| {
        bad_buffers(8, |dev, n| dev.post(n, 43))
    }),
    case(
        "R04/buffer-nowhere",
        "0 of 1 returned, then BROKEN and ECONNRESET",
        |_| {
            bad_buffers(1, |dev, n| {
                dev.post_desc(n, Desc::new(0x7fff_0000_0000, 4096).flags(WRITE));
            })
        },
    ),
    case(
        "R05/7-buffers-that-cannot-be-written",
        "7 of 7 returned, then the packet",
        |_| bad_buffers(7, read_only),
    ),
    case("R05/8-buffers-that-cannot-be-written", GIVEN_UP, |_| {
        bad_buffers(8, read_only)
    }),
    case(
        "R06/payload-ends-in-what-cannot-be-written",
        "1 of 1 returned, then the packet",
        |_| {
            bad_buffers(1, |dev, n| {
                dev.post_desc(n, Desc::new(LARGE - 60, 200).flags(WRITE));
                protect(dev);
            })
        },
    ),
    case("R09/used-ring-unmapped", "BROKEN, ECONNRESET", |_| {
        used_ring_lost()
    }),
    case("R10/no-buffers", "connect: ETIMEDOUT", |_| no_buffers()),
    case("R11/three-segments-in-a-table", "200 bytes intact", |_| {
        three_segments()
    }),
    case(
        "R12/7-buffers-of-44",
        "7 of 7 returned, then the packet",
        |_| bad_buffers(7, |dev, n| dev.post(n, HEADER_LEN as u32)),
    ),
    case("R12/8-buffers-of-44", GIVEN_UP, |_| {
        bad_buffers(8, |dev, n| dev.post(n, HEADER_LEN as u32))
    }),
    case(
        "R13/4-KiB-in-pieces-of-1000",
        "5 pieces, 4096 bytes intact",
        |_| {
            let setup = Setup {
                buffer_len: 1044,
                ..Setup::buffers(32)
            };
            let (mut dev, peer) = connected(setup)?;
            peer.socket.send(&pattern(4096))?;
            let packets = dev.recv_all()?;
            let sane = packets
                .iter()
                .all(|p| p.header.op == packet::RW && p.header.len as usize == p.payload.len());
            if !sane {
                return Err("a piece whose length is not that of its header".into());
            }
            let all: Vec<_> = packets.iter().flat_map(|p| p.payload.clone()).collect();
            Ok(format!("{} pieces, {}", packets.len(), intact(&all, 4096)))
        },
    ),
    case(
        "R14/message-in-pieces",
        "5 pieces, flags at the end only",
        |_| message_in_pieces(),
    ),
    case(
        "P31/130-replies-into-readable-chains",
        "128 taken; BROKEN; started again: answers",
        |_| replies_into_bad_buffers(),
    ),
    case(
        "P31/replies-held-back-then-buffers",
        "128 taken; buffers: all 130 answered; then answers",
        |_| replies_resume(),
    ),
    case("P32/small-buffer-in-a-stream", "65536 bytes intact", |_| {
        stream(Desc::new(LARGE, 20).flags(WRITE))
    }),
    case(
        "P32/readable-buffer-in-a-stream",
        "65536 bytes intact",
        |_| stream(Desc::new(LARGE, 4096)),
    ),
    case(
        "P32/buffer-nowhere-in-a-stream",
        "ECONNRESET, nothing lost before",
        |_| stream(Desc::new(0x7fff_0000_0000, 4096).flags(WRITE)),
    ),
];

const GIVEN_UP: &str = "8 of 8 returned, then BROKEN and ECONNRESET";

/// Bytes of which each place has its own.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
}

pub fn intact(bytes: &[u8], len: usize) -> String {
    if bytes == pattern(len) {
        format!("{len} bytes intact")
    } else {
        format!("{} bytes, not those that were sent", bytes.len())
    }
}

/// A device with a connection to it.
pub fn connected(setup: Setup) -> Try<(Device, Peer)> {
    let mut dev = setup.open()?;
    let peer = host::connect_stream(&mut dev)?;
    Ok((dev, peer))
}

/// A device with a connection, that has no buffers left.
fn without_buffers() -> Try<(Device, Peer)> {
    let (mut dev, peer) = connected(Setup::buffers(4))?;
    for _ in 0..4 {
        peer.socket.send(b"y")?;
        dev.settle()?;
        dev.take().ok_or("no packet came")?;
    }
    Ok((dev, peer))
}

fn protect(dev: &Device) {
    dev.mem
        .protect(LARGE as usize, 4096, libc::PROT_READ)
        .expect("mprotect() works");
}

fn read_only(dev: &mut Device, n: u16) {
    protect(dev);
    dev.post_desc(n, Desc::new(LARGE, 4096).flags(WRITE));
}

/// What comes of a packet for which there are `count` bad buffers, and then a good one.
fn bad_buffers(count: u16, mut post: impl FnMut(&mut Device, u16)) -> Try<String> {
    let (mut dev, peer) = without_buffers()?;
    for n in 0..count {
        post(&mut dev, 10 + n);
    }
    dev.kick(RX);
    peer.socket.send(&pattern(50))?;
    dev.settle()?;
    let returned = dev.q[RX].take_all();
    let errors = dev.errors(RX);
    if returned.iter().any(|used| used.len != 0) {
        return Ok(format!("{} returned, with bytes", returned.len()));
    }

    dev.post(100, 4096);
    dev.kick(RX);
    dev.settle()?;
    let then = match dev.take() {
        Some((_, packet)) if packet.payload == pattern(50) => "the packet".to_owned(),
        Some((_, packet)) => format!("{} with {} bytes", packet.name(), packet.payload.len()),
        None => {
            let what = match (errors, dev.errors(RX)) {
                (1, 0) => dev.broken(RX),
                (0, 0) => "nothing",
                (_, 0) => "errors",
                _ => "STALL",
            };
            format!("{what} and {}", peer.socket.state())
        }
    };
    Ok(format!(
        "{} of {count} returned, then {then}",
        returned.len()
    ))
}

fn used_ring_lost() -> Try<String> {
    let (mut dev, peer) = connected(Setup::default())?;
    // A page of its own.
    let used = dev.q[RX].used;
    dev.mem.protect(used, 4096, libc::PROT_NONE)?;
    peer.socket.send(b"lost")?;
    dev.settle()?;
    let errors = dev.errors(RX);
    dev.kick(RX);
    dev.settle()?;
    let again = dev.errors(RX);
    dev.mem
        .protect(used, 4096, libc::PROT_READ | libc::PROT_WRITE)?;
    let what = match (errors, again) {
        (1, 0) => dev.broken(RX),
        (1.., 1..) => "STALL",
        (1.., 0) => "errors",
        _ => "nothing",
    };
    // What a signal of one ring does not say: the other one goes on.
    dev.take();
    Ok(format!("{what}, {}", peer.socket.state()))
}

fn no_buffers() -> Try<String> {
    let dev = Setup::buffers(0).open()?;
    let socket = Socket::stream()?;
    socket.connect(dev.cid, 1)?;
    thread::sleep(Duration::from_millis(2500));
    Ok(format!("connect: {}", socket.error()?))
}

fn three_segments() -> Try<String> {
    let (mut dev, peer) = without_buffers()?;
    let places = [(0u64, 30u32), (0x1000, 40), (0x2000, 4000)];
    let entries = places.map(|(at, len)| Desc::new(LARGE + at, len).flags(WRITE));
    dev.mem.write(TABLE as usize, &table(&chained(&entries)));
    dev.post_desc(50, Desc::new(TABLE, 48).flags(INDIRECT));
    dev.kick(RX);
    peer.socket.send(&pattern(200))?;
    dev.settle()?;
    let used = dev.q[RX].take().ok_or("nothing came")?;
    let bytes: Vec<_> = places
        .iter()
        .flat_map(|(at, len)| dev.mem.read((LARGE + at) as usize, *len as usize))
        .take(used.len as usize)
        .collect();
    Ok(intact(&bytes[HEADER_LEN.min(bytes.len())..], 200))
}

fn message_in_pieces() -> Try<String> {
    let setup = Setup {
        buffer_len: 1044,
        ..Setup::buffers(32)
    };
    let mut dev = setup.open()?;
    let peer = host::connect(&mut dev, libc::SOCK_SEQPACKET, 7000)?;
    peer.socket.send(&pattern(4096))?;
    let packets = dev.recv_all()?;
    let flags: Vec<_> = packets.iter().map(|p| p.header.flags).collect();
    Ok(match flags.split_last() {
        Some((last, others)) if *last == packet::EOM && others.iter().all(|f| *f == 0) => {
            format!("{} pieces, flags at the end only", packets.len())
        }
        _ => format!("flags {flags:?}"),
    })
}

/// Requests to a port that nobody has, with nothing to answer into. Returns how many were taken.
pub fn unanswerable(dev: &mut Device, count: u32) -> Try<u32> {
    let room = u32::from(dev.q[TX].num);
    let (mut offered, mut taken) = (0, 0);
    while offered < count && offered < taken + room {
        let batch = (count - offered).min(taken + room - offered).min(64);
        for n in offered..offered + batch {
            let request = dev.header(packet::REQUEST, 1000 + n, NOBODY);
            dev.put(request, &[]);
        }
        offered += batch;
        dev.kick(TX);
        dev.settle()?;
        taken += dev.q[TX].take_all().len() as u32;
    }
    Ok(taken)
}

fn replies_into_bad_buffers() -> Try<String> {
    let mut dev = Setup::buffers(0).open()?;
    let taken = unanswerable(&mut dev, 130)?;
    for n in 0..64 {
        dev.post_desc(n, Desc::new(LARGE, 4096));
    }
    dev.kick(RX);
    dev.settle()?;
    let errors = dev.errors(RX);
    dev.kick(TX);
    dev.settle()?;
    let state = match (errors, dev.errors(RX)) {
        (1, 0) => dev.broken(RX),
        (0, 0) => "nothing",
        _ => "STALL",
    };
    dev.restart()?;
    // The chains for reading that are left are returned, or forgotten by starting anew.
    let base = dev.q[RX].avail_idx;
    dev.run(false)?;
    dev.set_base(RX, u32::from(base))?;
    dev.run(true)?;
    dev.q[RX].take_all();
    for n in 64..128 {
        dev.post(n, 4096);
    }
    dev.kick(RX);
    dev.recv_all()?;
    dev.q[TX].take_all();
    let answers = if crate::observe::answers(&mut dev)? {
        "answers"
    } else {
        "no answer"
    };
    Ok(format!("{taken} taken; {state}; started again: {answers}"))
}

fn replies_resume() -> Try<String> {
    let mut dev = Setup::buffers(0).open()?;
    let mut taken = unanswerable(&mut dev, 130)?;
    let first = taken;
    for n in 0..100 {
        dev.post(n, 4096);
    }
    dev.kick(RX);
    let mut answers = dev.recv_all()?.len();
    taken += dev.q[TX].take_all().len() as u32;
    // What was not taken is taken without another kick.
    answers += dev.recv_all()?.len();
    let all = if taken == 130 && answers == 130 {
        "all 130 answered".to_owned()
    } else {
        format!("{taken} taken, {answers} answered")
    };
    let then = if crate::observe::answers(&mut dev)? {
        "answers"
    } else {
        "no answer"
    };
    Ok(format!("{first} taken; buffers: {all}; then {then}"))
}

/// The host streams; in the middle the guest offers a buffer that is wrong.
fn stream(bad: Desc) -> Try<String> {
    let (mut dev, peer) = connected(Setup::buffers(4))?;
    let data = pattern(64 * 1024);
    let (sent, why) = peer.socket.send_all(&data);
    if sent != data.len() {
        return Err(format!("only {sent} bytes were sent: {why:?}").into());
    }
    let mut got = Vec::new();
    let mut collect = |dev: &mut Device| -> Try<()> {
        dev.settle()?;
        while let Some((_, packet)) = dev.take() {
            got.extend(packet.payload);
        }
        Ok(())
    };
    collect(&mut dev)?;
    dev.post_desc(20, bad);
    dev.kick(RX);
    collect(&mut dev)?;
    for n in 0..40 {
        dev.post(30 + n, 4096);
    }
    dev.kick(RX);
    collect(&mut dev)?;
    if got.len() == data.len() {
        return Ok(intact(&got, data.len()));
    }
    let order = if data.starts_with(&got) {
        "nothing lost before"
    } else {
        "bytes are missing in what was received"
    };
    Ok(format!("{}, {order}", peer.socket.state()))
}
