// SPDX-License-Identifier: GPL-2.0

//! Sockets that are closed while the guest has not read what they sent: it gets all of it, or
//! learns that it does not.

use super::{case, stuck::stream, Case, Ctx};
use crate::{
    device::{Device, Setup, TX},
    host::{self, Socket},
    note,
    packet::{self, Header, HEADER_LEN},
    stuck::UID,
    sys::process,
    talk, Try,
};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

pub const CASES: &[Case] = &[
    case(
        "CL-01/400-closed-sockets-behind-a-slow-guest",
        "each guest has all bytes and the end, or a RST",
        slow_guest,
    )
    .seconds(60),
    case(
        "CL-02/one-user-does-not-pay-for-another",
        "root: all bytes and the end; each other one as well, or a RST",
        two_users,
    )
    .seconds(60),
];

/// What each socket leaves behind.
const BYTES: usize = 256 * 1024;
const SOCKETS: u32 = 400;
const FIRST_PORT: u32 = 7000;

/// What a guest knows of a connection.
#[derive(Default)]
struct Known {
    bytes: usize,
    wrong: bool,
    ended: bool,
    reset: bool,
}

impl Known {
    fn whole(&self) -> bool {
        self.bytes == BYTES && self.ended && !self.wrong
    }
}

fn open() -> Try<Device> {
    let setup = Setup {
        buffer_len: (packet::MAX_PAYLOAD + HEADER_LEN) as u32,
        ..Setup::default()
    };
    setup.open()
}

/// What the connection with that port sends.
fn data(port: u32, all: &[u8]) -> &[u8] {
    let from = (port - FIRST_PORT) as usize;
    &all[from..from + BYTES]
}

/// The guest reads at last, until nothing comes any more.
fn read_all(dev: &mut Device, all: &[u8]) -> Try<HashMap<u32, Known>> {
    let mut known: HashMap<u32, Known> = HashMap::new();
    loop {
        let packets = dev.recv_all()?;
        if packets.is_empty() {
            return Ok(known);
        }
        for packet in packets {
            let header = packet.header;
            let one = known.entry(header.dst_port).or_default();
            match header.op {
                packet::RW => {
                    let expected = data(header.dst_port, all).get(one.bytes..);
                    let right = expected.is_some_and(|e| e.starts_with(&packet.payload));
                    one.wrong |= !right;
                    one.bytes += packet.payload.len();
                }
                packet::RST => one.reset = true,
                packet::SHUTDOWN => {
                    one.ended = true;
                    let answer = dev.header(packet::RST, header.dst_port, header.src_port);
                    dev.send(answer, &[])?;
                    dev.q[TX].take_all();
                }
                _ => {}
            }
        }
    }
}

/// How many connections have all, how many were reset, and what became of the others.
fn count(known: &HashMap<u32, Known>, ports: std::ops::Range<u32>) -> (usize, usize, Vec<String>) {
    let (mut whole, mut reset, mut cut) = (0, 0, Vec::new());
    let nothing = Known::default();
    for port in ports {
        let one = known.get(&port).unwrap_or(&nothing);
        match (one.whole(), one.reset) {
            (true, _) => whole += 1,
            (_, true) => reset += 1,
            _ => cut.push(format!("{} bytes", one.bytes)),
        }
    }
    (whole, reset, cut)
}

fn slow_guest(ctx: &mut Ctx) -> Try<String> {
    // The budget is not slower on a slow kernel.
    let sockets = if ctx.scale > 1 {
        SOCKETS * 3 / 4
    } else {
        SOCKETS
    };
    let all = stream(0, BYTES + sockets as usize);
    let mut dev = open()?;
    let mut peers = Vec::new();
    for port in FIRST_PORT..FIRST_PORT + sockets {
        peers.push(host::connect(&mut dev, libc::SOCK_STREAM, port)?);
    }
    let begin = Instant::now();
    for peer in &peers {
        let (sent, why) = peer.socket.send_all(data(peer.guest, &all));
        if sent != BYTES {
            let why = why.map_or_else(String::new, |e| host::errno(&e));
            return Ok(format!("a socket sends {sent} bytes only, then {why}"));
        }
    }
    let sent = begin.elapsed();
    drop(peers);
    let closed = begin.elapsed() - sent;
    let known = read_all(&mut dev, &all)?;
    let (whole, reset, cut) = count(&known, FIRST_PORT..FIRST_PORT + sockets);
    note(format!(
        "{whole} have all, {reset} were reset, {} cut off; sent in {sent:?}, closed in {closed:?}, \
         all in {:?}",
        cut.len(),
        begin.elapsed()
    ));
    Ok(match cut.first() {
        None => "each guest has all bytes and the end, or a RST".to_owned(),
        Some(first) => format!("{} of {sockets} cut off in silence, {first}", cut.len()),
    })
}

/// A user fills the budget of all closed sockets that it may have, then root closes one.
fn two_users(_: &mut Ctx) -> Try<String> {
    const ROOTS: u32 = FIRST_PORT + SOCKETS;
    let all = stream(0, BYTES + SOCKETS as usize + 1);
    let mut dev = open()?;
    let root = host::connect(&mut dev, libc::SOCK_STREAM, ROOTS)?;
    let (cid, bytes) = (dev.cid, &all);
    let mut user = talk::fork(|talk| {
        process::become_user(UID)?;
        process::end_with_parent()?;
        let mut sockets = Vec::new();
        for port in FIRST_PORT..ROOTS {
            let socket = Socket::stream()?;
            // The guest has all others to answer as well.
            socket.set_connect_timeout(Duration::from_secs(10))?;
            socket.connect(cid, port)?;
            sockets.push((port, socket));
        }
        talk.tell("connecting")?;
        talk.hear()?;
        for (port, socket) in sockets {
            if !socket.wait_writable(Duration::from_secs(60))? {
                return Err("not connected".into());
            }
            match socket.send_all(data(port, bytes)) {
                (BYTES, _) => {}
                (sent, why) => return Err(format!("port {port} sends {sent} only, {why:?}").into()),
            }
        }
        talk.tell("closed")?;
        Ok(())
    })?;
    user.talk.hear()?;
    let mut requests = dev.recv_all()?;
    requests.retain(|p| p.header.op == packet::REQUEST);
    for request in &requests {
        let Header {
            src_port, dst_port, ..
        } = request.header;
        let answer = dev.header(packet::RESPONSE, dst_port, src_port);
        dev.send(answer.with(|h| h.buf_alloc = host::GUEST_BUFFER), &[])?;
        dev.q[TX].take_all();
    }
    user.talk.tell("connected")?;
    user.talk.hear()?;
    let sent = root.socket.send_all(data(ROOTS, &all)).0;
    drop(root);
    let known = read_all(&mut dev, &all)?;
    user.finish(Duration::from_secs(60))?;
    let (whole, reset, cut) = count(&known, FIRST_PORT..ROOTS);
    let (of_root, reset_of_root, _) = count(&known, ROOTS..ROOTS + 1);
    note(format!(
        "of {} of the user {whole} have all, {reset} were reset, {} cut off; of root {of_root} has all, \
         {reset_of_root} reset",
        requests.len(),
        cut.len()
    ));
    Ok(match (sent, of_root, cut.first()) {
        (BYTES, 1, None) => {
            "root: all bytes and the end; each other one as well, or a RST".to_owned()
        }
        (_, 1, Some(first)) => format!("{} of the user cut off in silence, {first}", cut.len()),
        _ => {
            let got = known.get(&ROOTS).map_or(0, |one| one.bytes);
            format!(
                "root sent {sent}, the guest has {got}; {} of the user cut off",
                cut.len()
            )
        }
    })
}
