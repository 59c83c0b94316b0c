// SPDX-License-Identifier: GPL-2.0

//! Guests that say nothing, with `keepalive_time=2 keepalive_interval=1 keepalive_probes=3`.

use super::{case, Case};
use crate::{
    device::{Device, Setup, TX},
    host::{self, amount, Peer},
    packet, Try,
};
use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

pub const CASES: &[Case] = &[
    case(
        "KA-1/silent-guests",
        "silent: CREDIT_REQUEST CREDIT_REQUEST CREDIT_REQUEST RST, ETIMEDOUT; one that answers: asked, EAGAIN; \
         without the option: nothing, EAGAIN; writer: RW CREDIT_REQUEST CREDIT_REQUEST CREDIT_REQUEST, EAGAIN; \
         with the option now: CREDIT_REQUEST CREDIT_REQUEST CREDIT_REQUEST RST, ETIMEDOUT",
        |_| silent(),
    )
    .by_name(),
    case(
        "KA-2/paused-guest",
        "stopped: EAGAIN; running: CREDIT_REQUEST CREDIT_REQUEST CREDIT_REQUEST RST, ETIMEDOUT",
        |_| paused(),
    )
    .by_name(),
    case(
        "KA-3/credit-that-was-not-told",
        "full: EAGAIN; asked twice: 1",
        |_| untold(),
    )
    .by_name(),
];

/// Names of packets, by port of the guest.
type Came = BTreeMap<u32, Vec<&'static str>>;

/// The guest says how large its buffer is.
fn tell(dev: &mut Device, peer: &Peer) -> Try<()> {
    let header = peer
        .header(dev, packet::CREDIT_UPDATE)
        .with(|h| h.buf_alloc = 1000);
    dev.send_rw(header, &[])?;
    dev.q[TX].take_all();
    Ok(())
}

/// What is read, if it is not an error.
fn read(peer: &Peer) -> String {
    amount(peer.socket.recv(1).map(|bytes| bytes.len()))
}

/// Four connections, for as long as the host asks the one that is silent.
fn silent() -> Try<String> {
    let mut dev = Setup::default().open()?;
    let mut connect = |port| -> Try<Peer> {
        let peer = host::connect(&mut dev, libc::SOCK_STREAM, port)?;
        tell(&mut dev, &peer)?;
        Ok(peer)
    };
    let (silent, answers, plain, writer) = (connect(1)?, connect(2)?, connect(3)?, connect(4)?);
    for peer in [&silent, &answers] {
        peer.socket.keep_alive()?;
        read(peer);
    }
    read(&plain);
    writer.socket.send(&[0x42; 1000])?;
    amount(writer.socket.send(b"x"));

    let mut came = until_reset(&mut dev, 1, &[&answers, &writer])?;
    let asked = match names(&came, 2).starts_with("CREDIT_REQUEST") {
        true => "asked",
        false => "not asked",
    };
    let first = format!(
        "silent: {}, {}; one that answers: {asked}, {}; without the option: {}, {}; writer: {}, {}",
        names(&came, 1),
        read(&silent),
        read(&answers),
        names(&came, 3),
        read(&plain),
        names(&came, 4),
        amount(writer.socket.send(b"x")),
    );
    // It was silent for long enough to be given up, but nobody asked it.
    plain.socket.keep_alive()?;
    read(&plain);
    came = until_reset(&mut dev, 3, &[&answers, &writer])?;
    Ok(format!(
        "{first}; with the option now: {}, {}",
        names(&came, 3),
        read(&plain)
    ))
}

/// A guest that is stopped for longer than one may be silent, and is silent when it runs again.
fn paused() -> Try<String> {
    let mut dev = Setup::default().open()?;
    let peer = host::connect(&mut dev, libc::SOCK_STREAM, 5)?;
    tell(&mut dev, &peer)?;
    peer.socket.keep_alive()?;
    read(&peer);
    dev.run(false)?;
    thread::sleep(Duration::from_secs(10));
    let stopped = read(&peer);
    dev.run(true)?;
    let came = until_reset(&mut dev, 5, &[])?;
    Ok(format!(
        "stopped: {stopped}; running: {}, {}",
        names(&came, 5),
        read(&peer)
    ))
}

/// A guest that read everything, and says so only when it is asked for the second time.
fn untold() -> Try<String> {
    let mut dev = Setup::default().open()?;
    let peer = host::connect(&mut dev, libc::SOCK_STREAM, 6)?;
    tell(&mut dev, &peer)?;
    peer.socket.send(&[0x42; 1000])?;
    let full = amount(peer.socket.send(b"x"));
    let begin = Instant::now();
    let mut asked = 0;
    while asked < 2 && begin.elapsed() < Duration::from_secs(60) {
        let packets = dev.recv_all()?;
        asked += packets
            .iter()
            .filter(|packet| packet.name() == "CREDIT_REQUEST")
            .count();
        thread::sleep(Duration::from_millis(50));
    }
    let header = peer
        .header(&dev, packet::CREDIT_UPDATE)
        .with(|h| (h.buf_alloc, h.fwd_cnt) = (1000, 1000));
    dev.send_rw(header, &[])?;
    Ok(format!(
        "full: {full}; asked {}: {}",
        if asked == 2 { "twice" } else { "not twice" },
        amount(peer.socket.send(b"x"))
    ))
}

/// The packets by port of the guest, until one of them is a RST to `port`. The guest answers
/// questions on some connections, without more credit.
fn until_reset(dev: &mut Device, port: u32, answering: &[&Peer]) -> Try<Came> {
    let mut came = Came::new();
    let begin = Instant::now();
    while !names(&came, port).ends_with("RST") && begin.elapsed() < Duration::from_secs(60) {
        for packet in dev.recv_all()? {
            let (to, name) = (packet.header.dst_port, packet.name());
            came.entry(to).or_default().push(name);
            let peer = answering.iter().find(|peer| peer.guest == to);
            if let (Some(peer), "CREDIT_REQUEST") = (peer, name) {
                tell(dev, peer)?;
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(came)
}

fn names(came: &Came, port: u32) -> String {
    came.get(&port)
        .map_or_else(|| "nothing".to_owned(), |names| names.join(" "))
}
