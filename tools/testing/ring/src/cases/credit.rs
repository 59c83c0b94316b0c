// SPDX-License-Identifier: GPL-2.0

//! Who is told of room, who is asked, and who is woken.

use super::{case, Case};
use crate::{
    device::{Device, Setup, TX},
    host::{self, amount, Peer},
    observe::received,
    packet, Try,
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// C tells after each read that empties the queue, and after each message.
const C_TELLS: &str = "C sends an update for each read";
/// C sends a part of a message.
const C_NEVER_ASKS: &str = "C never asks";

pub const CASES: &[Case] = &[
    case("P40/round-trips", "20 RW", |_| round_trips()).not_on_c(C_TELLS),
    case(
        "P41/message-that-does-not-fit",
        "EAGAIN, EAGAIN: RW CREDIT_REQUEST; 399 free: not writable; 400 free: writable, 500: RW; \
         then 501: CREDIT_REQUEST",
        |_| asks(),
    )
    .not_on_c(C_NEVER_ASKS),
    case(
        "P42/guest-sees-that-its-buffer-is-full",
        "sent 1000, EAGAIN: RW",
        |_| {
            let (mut dev, peer) = with_buffer(libc::SOCK_STREAM, 1000)?;
            let sent = peer.socket.send(&[0x42; 1000])?;
            let more = amount(peer.socket.send(b"x"));
            Ok(format!("sent {sent}, {more}: {}", received(&mut dev, "nothing")?))
        },
    ),
    case(
        "P43/guest-that-asked-is-told-of-each-read",
        "asked: CREDIT_UPDATE; read 100: CREDIT_UPDATE; read 100: CREDIT_UPDATE; sent, read 100: nothing",
        |_| answers(),
    )
    .not_on_c(C_TELLS),
    case(
        "P44/writer-that-sleeps-in-poll",
        "old news: sleeps; a byte: woken",
        |_| wakes(),
    ),
];

/// A connection to a guest with a buffer of `size` bytes.
fn with_buffer(kind: i32, size: u32) -> Try<(Device, Peer)> {
    let mut dev = Setup::default().open()?;
    let peer = host::connect(&mut dev, kind, 7000)?;
    tell(&mut dev, &peer, size, 0)?;
    Ok((dev, peer))
}

/// The guest says how large its buffer is, and how many bytes have left it.
fn tell(dev: &mut Device, peer: &Peer, size: u32, read: u32) -> Try<()> {
    send(dev, peer, packet::CREDIT_UPDATE, size, read, 0)
}

fn send(dev: &mut Device, peer: &Peer, op: u16, size: u32, read: u32, len: usize) -> Try<()> {
    let header = peer.header(dev, op).with(|h| {
        h.buf_alloc = size;
        h.fwd_cnt = read;
    });
    dev.send_rw(header, &vec![0x42; len])?;
    dev.q[TX].take_all();
    Ok(())
}

/// A message there and one back: the answer carries the credit.
fn round_trips() -> Try<String> {
    let (mut dev, peer) = with_buffer(libc::SOCK_STREAM, host::GUEST_BUFFER)?;
    let mut came = Vec::new();
    for n in 0..20 {
        send(&mut dev, &peer, packet::RW, host::GUEST_BUFFER, n * 64, 64)?;
        let request = peer.socket.recv(4096)?;
        // A server looks for more before it waits.
        if amount(peer.socket.recv(4096).map(|bytes| bytes.len())) != "EAGAIN" {
            return Err("there is more".into());
        }
        peer.socket.send(&request)?;
        came.extend(dev.recv_all()?.iter().map(|p| p.name()));
    }
    let others: Vec<_> = came.iter().filter(|name| **name != "RW").collect();
    if !others.is_empty() {
        return Ok(format!("also {others:?}"));
    }
    Ok(format!("{} RW", came.len()))
}

/// A message for which there is room in part: the guest does not know that it waits.
fn asks() -> Try<String> {
    let (mut dev, peer) = with_buffer(libc::SOCK_SEQPACKET, 1000)?;
    peer.socket.send(&[0x42; 900])?;
    let first = amount(peer.socket.send(&[0x42; 500]));
    let second = amount(peer.socket.send(&[0x42; 500]));
    let writable = |peer: &Peer| -> Try<&str> {
        Ok(match peer.socket.is_writable()? {
            true => "writable",
            false => "not writable",
        })
    };
    let asked = received(&mut dev, "nothing")?;
    tell(&mut dev, &peer, 1000, 399)?;
    let less = writable(&peer)?;
    tell(&mut dev, &peer, 1000, 400)?;
    let enough = writable(&peer)?;
    let sent = peer.socket.send(&[0x42; 500])?;
    let message = received(&mut dev, "nothing")?;
    tell(&mut dev, &peer, 1000, 900)?;
    let _ = peer.socket.send(&[0x42; 501]);
    Ok(format!(
        "{first}, {second}: {asked}; 399 free: {less}; 400 free: {enough}, {sent}: {message}; \
         then 501: {}",
        received(&mut dev, "nothing")?
    ))
}

/// A guest whose writer waits: all that is read is news to it, until it sends again.
fn answers() -> Try<String> {
    let (mut dev, peer) = with_buffer(libc::SOCK_STREAM, host::GUEST_BUFFER)?;
    let size = host::GUEST_BUFFER;
    send(&mut dev, &peer, packet::RW, size, 0, 300)?;
    send(&mut dev, &peer, packet::CREDIT_REQUEST, size, 0, 0)?;
    let mut all = format!("asked: {}", received(&mut dev, "nothing")?);
    for _ in 0..2 {
        let read = peer.socket.recv(100)?.len();
        let came = received(&mut dev, "nothing")?;
        all.push_str(&format!("; read {read}: {came}"));
    }
    send(&mut dev, &peer, packet::RW, size, 0, 100)?;
    let read = peer.socket.recv(100)?.len();
    let came = received(&mut dev, "nothing")?;
    Ok(format!("{all}; sent, read {read}: {came}"))
}

/// A writer that sleeps in `poll()`, with a long timeout, at the end of which it would look again.
fn wakes() -> Try<String> {
    let (mut dev, peer) = with_buffer(libc::SOCK_STREAM, 1000)?;
    let sent = peer.socket.send(&[0x42; 2000])?;
    dev.recv_all()?;
    if sent != 1000 {
        return Err(format!("sent {sent}").into());
    }
    let mut told = |fwd_cnt, timeout| -> Try<(bool, Duration)> {
        thread::scope(|scope| {
            let poll = scope.spawn(|| {
                let begin = Instant::now();
                let writable = peer.socket.wait_writable(timeout);
                (writable, begin.elapsed())
            });
            thread::sleep(Duration::from_millis(200));
            tell(&mut dev, &peer, 1000, fwd_cnt)?;
            let (writable, took) = poll.join().map_err(|_| "the thread panicked")?;
            Ok((writable?, took))
        })
    };
    let (early, _) = told(0, Duration::from_secs(1))?;
    let (writable, took) = told(1, Duration::from_secs(20))?;
    let woken = writable && took < Duration::from_secs(10);
    Ok(format!(
        "old news: {}; a byte: {}",
        if early { "woken" } else { "sleeps" },
        if woken { "woken" } else { "sleeps" }
    ))
}
