// SPDX-License-Identifier: GPL-2.0

//! Packets of many sockets to one guest.

use super::{case, Case};
use crate::{
    device::{Device, Setup, RX, TX},
    host::{self, Peer, Socket},
    note, packet,
    sys::process,
    talk, Try,
};
use std::{collections::HashMap, time::Duration};

/// What a socket may have under way.
const CAP: usize = 256 * 1024;
/// Why the C modules are not tried.
const ONE_LIST: &str = "C has one list for all sockets";
/// Buffers of the guest, until it stops to read.
const BUFFERS: u16 = 8;

pub const CASES: &[Case] = &[
    case(
        "Q01/one-packet-behind-four-that-flood",
        "among the first 17",
        |_| behind_a_flood(),
    )
    .not_on_c(ONE_LIST),
    case(
        "Q02/three-that-flood-have-the-same",
        "64-byte, 4-KiB and 64-KiB messages: the same bytes, in order",
        |_| same_share(),
    )
    .not_on_c(ONE_LIST),
    case(
        "Q03/who-leaves-too-much-behind-pays",
        "root: all; user: all or a RST, some a RST",
        |_| budgets(),
    )
    .seconds(120)
    .not_on_c("C has no budget for closed sockets"),
];

/// Connections to a guest that does not read any more.
fn hungry(count: u32) -> Try<(Device, Vec<Peer>)> {
    let mut dev = Setup::buffers(BUFFERS).open()?;
    let peers = host::connect_streams(&mut dev, count)?;
    for _ in 0..BUFFERS {
        peers[0].socket.send(b"y")?;
        dev.settle()?;
        dev.take().ok_or("no packet came")?;
    }
    Ok((dev, peers))
}

/// The guest offers so many buffers more.
fn feed(dev: &mut Device, count: u16) -> Try<()> {
    for n in 0..count {
        dev.post(BUFFERS + n, 4096);
    }
    dev.kick(RX);
    Ok(dev.settle()?)
}

fn behind_a_flood() -> Try<String> {
    let (mut dev, peers) = hungry(5)?;
    let (last, flood) = peers.split_last().ok_or("no peers")?;
    for peer in flood {
        for _ in 0..500 {
            peer.socket.send(&[0x11; 64])?;
        }
    }
    last.socket.send(&[0x22; 64])?;
    feed(&mut dev, 64)?;
    let before = std::iter::from_fn(|| dev.take())
        .take_while(|(_, packet)| packet.header.src_port != last.host)
        .count();
    note(format!("{before} packets came before"));
    Ok(if before < 17 {
        "among the first 17".to_owned()
    } else {
        format!("after {before}")
    })
}

fn same_share() -> Try<String> {
    let (mut dev, peers) = hungry(3)?;
    for (n, (peer, len)) in peers.iter().zip([64, 4096, 65536]).enumerate() {
        let bytes = super::rx::pattern(CAP);
        // A byte is in flight that the guest did not read.
        for message in bytes.chunks(len).take(CAP / len - 1) {
            if peer.socket.send(message).is_err() && n > 0 {
                return Err("a message was not taken".into());
            }
        }
    }
    // A packet costs something in addition, so that there are more turns of the small ones.
    let mut got: Vec<Vec<u8>> = vec![Vec::new(); peers.len()];
    feed(&mut dev, 100)?;
    while got.iter().map(Vec::len).sum::<usize>() < 300_000 {
        let Some(packet) = dev.recv() else {
            dev.settle()?;
            if dev.q[RX].device_used_idx() == dev.q[RX].used_idx {
                return Err("no packet came".into());
            }
            continue;
        };
        let from = peers
            .iter()
            .position(|peer| peer.host == packet.header.src_port);
        got[from.ok_or("a packet of nobody")?].extend(packet.payload);
    }
    note(format!(
        "{:?} bytes came",
        got.iter().map(Vec::len).collect::<Vec<_>>()
    ));
    for bytes in &got {
        if *bytes != super::rx::pattern(bytes.len()) {
            return Ok("not in order".to_owned());
        }
    }
    let (most, least) = (
        got[1].len().max(got[2].len()),
        got[1].len().min(got[2].len()),
    );
    // 64 bytes cost as much as 320.
    let small = got[0].len() * 5;
    Ok(
        if most - least <= 2 * 65536 && small + 2 * 65536 >= least && got[0].len() < most {
            "64-byte, 4-KiB and 64-KiB messages: the same bytes, in order".to_owned()
        } else {
            format!("{} {} {}", got[0].len(), got[1].len(), got[2].len())
        },
    )
}

/// What came of a connection.
#[derive(Default)]
struct Came {
    bytes: usize,
    shutdown: bool,
    reset: bool,
}

impl Came {
    fn is_all(&self) -> bool {
        self.bytes == CAP && self.shutdown
    }
}

/// The sockets of the user: more than may leave behind what they have.
const SOCKETS: u32 = 300;
/// Their ports.
const FIRST: u32 = 20_000;

fn budgets() -> Try<String> {
    // Before there is a device, which the child would have, too.
    let mut child = talk::fork(|talk| {
        let cid = talk.hear()?.parse().map_err(|_| "no CID")?;
        process::become_user(1000)?;
        let mut sockets = Vec::new();
        for port in FIRST..FIRST + SOCKETS {
            let socket = Socket::stream()?;
            socket.bind(port)?;
            // The guest answers one after the other.
            socket.set_connect_timeout(Duration::from_secs(60))?;
            socket.connect(cid, 7000)?;
            sockets.push(socket);
        }
        talk.tell("connecting")?;
        talk.hear()?;
        for socket in &sockets {
            let (sent, error) = socket.send_all(&[0x55; CAP]);
            if sent < CAP {
                return Err(format!("{sent} bytes were taken: {error:?}").into());
            }
        }
        drop(sockets);
        talk.tell("closed")?;
        talk.hear()?;
        Ok(())
    })?;
    let mut dev = Setup::default().open()?;
    let root = host::connect(&mut dev, libc::SOCK_STREAM, 7001)?;
    child.talk.tell(&dev.cid.to_string())?;
    child.talk.hear()?;
    for packet in dev.recv_all()? {
        let answer = dev
            .header(packet::RESPONSE, 7000, packet.header.src_port)
            .with(|h| h.buf_alloc = host::GUEST_BUFFER);
        dev.send(answer, &[])?;
        dev.q[TX].take_all();
    }
    child.talk.tell("send")?;
    child.talk.hear()?;
    let (sent, error) = root.socket.send_all(&[0x66; CAP]);
    if sent < CAP {
        return Err(format!("root: {sent} bytes were taken: {error:?}").into());
    }
    let host = root.host;
    drop(root);

    let mut all: HashMap<u32, Came> = HashMap::new();
    for packet in dev.recv_all()? {
        let came = all.entry(packet.header.src_port).or_default();
        match packet.header.op {
            packet::RW if !came.reset => came.bytes += packet.payload.len(),
            packet::SHUTDOWN => came.shutdown = packet.header.flags == 3,
            packet::RST => came.reset = true,
            _ => return Err(format!("{} came", packet.name()).into()),
        }
    }
    child.talk.tell("end")?;
    child.finish(Duration::from_secs(60))?;

    let of_root = all.remove(&host).unwrap_or_default();
    let complete = all.values().filter(|came| came.is_all()).count();
    let reset = all
        .values()
        .filter(|came| !came.is_all() && came.reset)
        .count();
    note(format!("{complete} of the user have all, {reset} a RST"));
    Ok(format!(
        "root: {}; user: {}, {}",
        if of_root.is_all() { "all" } else { "not all" },
        if complete + reset == SOCKETS as usize {
            "all or a RST"
        } else {
            "less than all, in silence"
        },
        if reset > 0 { "some a RST" } else { "no RST" }
    ))
}
