// SPDX-License-Identifier: GPL-2.0

//! What the tracepoints say that C does not have.

use super::{case, Case};
use crate::{
    attr::{list, set_bytes, words, MAX_CONNECTIONS, PORTS, USERS},
    device::{Device, Setup, DATA, TX},
    host::{self, Socket},
    observe::NOBODY,
    packet,
    ring::Desc,
    Try,
};
use std::fs;

/// Why C has none of it.
const NONE: &str = "C has no such tracepoints";

const PORT: u32 = 4100;

/// The CID of a socket that is bound to none.
const ANY: u32 = u32::MAX;

pub const CASES: &[Case] = &[
    case(
        "TRC-01/dropped",
        "NOBODY G:5000 2:99999, MISADDRESSED G+1:5000 2:99999, MALFORMED G:0 2:0, \
         PORT_DENIED G:0 2:4100, TOO_MANY G:0 2:0, USER_DENIED 2:0 G:0; off: nothing",
        |_| dropped(),
    )
    .not_on_c(NONE),
    case(
        "TRC-02/waits-for-credit",
        "1 line, any:host G:7000 window=500, less than 10 s; off: nothing",
        |_| waits(),
    )
    .not_on_c(NONE),
    case(
        "TRC-03/states",
        "any:host G:7000 CONNECTING -> ESTABLISHED, then -> CLOSING; off: nothing",
        |_| states(),
    )
    .not_on_c(NONE),
    case(
        "TRC-04/runs",
        "from guest 3 packets, 30 bytes; to guest 2 packets, 0 bytes; by kick or worker; off: nothing",
        |_| runs(),
    )
    .not_on_c(NONE),
];

const TRACING: &str = "/sys/kernel/tracing";

/// Traces an event while something is done, and returns what it says.
fn traced(event: &str, f: impl FnOnce() -> Try<()>) -> Try<Vec<String>> {
    let enable = format!("{TRACING}/events/vsock/{event}/enable");
    fs::write(format!("{TRACING}/trace"), "")?;
    fs::write(&enable, "1")?;
    let done = f();
    fs::write(&enable, "0")?;
    done?;
    said(event)
}

/// What an event said until now.
fn said(event: &str) -> Try<Vec<String>> {
    let text = fs::read_to_string(format!("{TRACING}/trace"))?;
    let begin = format!(" {event}: ");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let lines = lines.filter_map(|line| line.split_once(&begin));
    Ok(lines.map(|(_, rest)| rest.to_owned()).collect())
}

/// Does it again, with nobody looking.
fn off(event: &str, f: impl FnOnce() -> Try<()>) -> Try<&'static str> {
    fs::write(format!("{TRACING}/trace"), "")?;
    f()?;
    Ok(if said(event)?.is_empty() {
        "nothing"
    } else {
        "something"
    })
}

/// The CID of the guest as `G`, that of nobody as `G+1`.
fn anonymous(dev: &Device, line: &str) -> String {
    line.replace(&format!("{}:", dev.cid + 1), "G+1:")
        .replace(&format!("{}:", dev.cid), "G:")
        .replace(" -> ", " ")
}

fn send(dev: &mut Device, header: packet::Header) -> Try<()> {
    dev.send(header, &[])?;
    dev.recv_all()?;
    dev.q[TX].take_all();
    Ok(())
}

fn dropped() -> Try<String> {
    let mut dev = Setup::default().open()?;
    let listener = Socket::listener(libc::SOCK_STREAM, PORT, 8)?;
    let rw = dev.header(packet::RW, 5000, NOBODY);
    let lines = traced("vsock_drop", || {
        send(&mut dev, rw)?;
        send(&mut dev, rw.with(|h| h.src_cid += 1))?;
        dev.q[TX].set(9, Desc::new(DATA, 10));
        dev.q[TX].offer(9);
        dev.kick(TX);
        dev.settle()?;
        set_bytes(dev.file(), PORTS, &list(0, &[]))?;
        let request = dev.header(packet::REQUEST, 5001, PORT);
        send(&mut dev, request)?;
        set_bytes(dev.file(), PORTS, &words(&[0, 0]))?;
        let peer = host::connect_stream(&mut dev)?;
        set_bytes(dev.file(), MAX_CONNECTIONS, &words(&[1]))?;
        let _ = Socket::stream()?.connect(dev.cid, 7001);
        set_bytes(dev.file(), USERS, &list(0, &[]))?;
        let _ = Socket::stream()?.connect(dev.cid, 7002);
        drop(peer);
        Ok(())
    })?;
    drop(listener);
    let mut seen: Vec<_> = lines
        .iter()
        .map(|line| {
            let line = anonymous(&dev, line);
            let (ends, reason) = line.split_once(" reason=").unwrap_or((&line, "none"));
            format!("{reason} {ends}")
        })
        .collect();
    // One that is refused is for nobody, too.
    seen.retain(|line| !line.starts_with("NOBODY") || line.contains(":99999"));
    let off = off("vsock_drop", || send(&mut dev, rw))?;
    Ok(format!("{}; off: {off}", seen.join(", ")))
}

/// A connection whose writer found no credit, and then gets some.
fn wait(dev: &mut Device, port: u32) -> Try<host::Peer> {
    let peer = host::connect(dev, libc::SOCK_STREAM, port)?;
    let update = peer.header(dev, packet::CREDIT_UPDATE);
    send(dev, update.with(|h| h.buf_alloc = 500))?;
    while matches!(peer.socket.send(&[7; 100]), Ok(sent) if sent > 0) {}
    dev.recv_all()?;
    send(
        dev,
        update.with(|h| {
            h.buf_alloc = 500;
            h.fwd_cnt = 500;
        }),
    )?;
    Ok(peer)
}

fn waits() -> Try<String> {
    let mut dev = Setup::default().open()?;
    let mut peer = None;
    let lines = traced("vsock_credit_wait", || {
        peer = Some(wait(&mut dev, 7000)?);
        Ok(())
    })?;
    let host = peer.as_ref().map_or(0, |peer| peer.host);
    let first = lines.first().map(String::as_str).unwrap_or_default();
    let line = anonymous(&dev, first).replace(&format!("{ANY}:{host} "), "any:host ");
    let (line, ms) = line.split_once(" ms=").unwrap_or((&line, "none"));
    let time = match ms.parse::<u64>() {
        Ok(ms) if ms < 10_000 => "less than 10 s",
        _ => ms,
    };
    let off = off("vsock_credit_wait", || wait(&mut dev, 7001).map(|_| ()))?;
    Ok(format!("{} line, {line}, {time}; off: {off}", lines.len()))
}

fn states() -> Try<String> {
    let mut dev = Setup::default().open()?;
    let mut port = 0;
    let lines = traced("vsock_conn", || {
        let peer = host::connect_stream(&mut dev)?;
        port = peer.host;
        let rst = peer.header(&dev, packet::RST);
        send(&mut dev, rst)
    })?;
    let ends = format!("{ANY}:{port} {}:7000 ", dev.cid);
    let of_ours: Vec<_> = lines
        .iter()
        .filter_map(|line| line.strip_prefix(&ends))
        .collect();
    let [first, rest @ ..] = of_ours.as_slice() else {
        return Ok(format!("nothing of it: {lines:?}"));
    };
    let last = rest.last().copied().unwrap_or_default();
    let last = last.rsplit(" -> ").next().unwrap_or_default();
    let off = off("vsock_conn", || host::connect_stream(&mut dev).map(|_| ()))?;
    Ok(format!(
        "any:host G:7000 {first}, then -> {last}; off: {off}"
    ))
}

fn runs() -> Try<String> {
    let mut dev = Setup::default().open()?;
    let cid = format!("cid={} ", dev.cid);
    let lines = traced("vhost_vsock_run", || {
        for (op, len) in [
            (packet::RW, 30),
            (packet::RST, 0),
            (packet::CREDIT_REQUEST, 0),
        ] {
            let header = dev.header(op, 5000, NOBODY).with(|h| h.len = len);
            dev.put(header, &vec![7; len as usize]);
        }
        dev.kick(TX);
        dev.recv_all()?;
        Ok(())
    })?;
    let (mut sums, mut by) = ([[0u64; 2]; 2], true);
    for line in lines.iter().filter_map(|line| line.strip_prefix(&cid)) {
        let words: Vec<_> = line.split(' ').collect();
        let [direction, who, packets, bytes] = words.as_slice() else {
            return Ok(format!("odd: {line}"));
        };
        let sum = &mut sums[usize::from(*direction == "to_guest")];
        for (sum, word) in sum.iter_mut().zip([packets, bytes]) {
            let (_, number) = word.split_once('=').unwrap_or_default();
            *sum += number.parse::<u64>().map_err(|_| format!("odd: {line}"))?;
        }
        by &= matches!(*who, "by=kick" | "by=worker");
    }
    let [from, to] = sums;
    let by = if by { "kick or worker" } else { "somebody" };
    let rw = dev.header(packet::RW, 5000, NOBODY);
    let off = off("vhost_vsock_run", || send(&mut dev, rw))?;
    Ok(format!(
        "from guest {} packets, {} bytes; to guest {} packets, {} bytes; by {by}; off: {off}",
        from[0], from[1], to[0], to[1]
    ))
}
