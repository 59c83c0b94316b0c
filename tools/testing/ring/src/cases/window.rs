// SPDX-License-Identifier: GPL-2.0

//! What a socket grants, it takes: whatever the size of the packets, and nobody reads.

use super::{case, stuck::stream, Case, Ctx};
use crate::{
    device::{Device, Setup, TX},
    host::{self, errno, Peer, Socket},
    note, packet, Try,
};
use std::time::{Duration, Instant};

const C_REFUSES: &str =
    "C refuses packets of 300 bytes, as their buffers take more than the credit";
const WELL: &str = "all accepted, all read";

pub const CASES: &[Case] = &[
    case("CR-01/a-peer-with-credit-is-never-refused", WELL, |ctx| {
        of_a_guest(ctx)
    })
    .seconds(120)
    .not_on_c(C_REFUSES),
    case(
        "CR-02/a-peer-with-credit-is-never-refused-over-loopback",
        WELL,
        |ctx| over_loopback(ctx),
    )
    .seconds(60)
    .not_on_c(C_REFUSES),
];

/// Receive buffer of a socket.
const WINDOW: usize = 256 * 1024;
/// The sizes of packets, again and again until the window is full.
const SIZES: [&[usize]; 7] = [
    &[1],
    &[128],
    &[200],
    &[300],
    &[1, 4000],
    &[1, 1, 1, 128, 30_000],
    &[4000, 1, 300, 65_536, 1, 1],
];
const KINDS: [i32; 2] = [libc::SOCK_STREAM, libc::SOCK_SEQPACKET];

/// Sizes that fill a window to the last byte.
fn fill(sizes: &[usize], window: usize) -> Vec<usize> {
    let mut left = window;
    let mut all = Vec::new();
    for size in sizes.iter().cycle() {
        let size = left.min(*size);
        if size == 0 {
            break;
        }
        all.push(size);
        left -= size;
    }
    all
}

fn name(kind: i32) -> &'static str {
    if kind == libc::SOCK_STREAM {
        "stream"
    } else {
        "messages"
    }
}

/// Reads all that there should be; what is wrong with it.
fn read(socket: &Socket, kind: i32, sizes: &[usize]) -> Try<Option<String>> {
    let total = sizes.iter().sum();
    let expected = stream(0, total);
    let mut at = 0;
    let mut next = sizes.iter();
    while at < total {
        let bytes = match socket.recv(WINDOW) {
            Ok(bytes) => bytes,
            // It may be on its way.
            Err(e) if errno(&e) == "EAGAIN" && socket.wait_readable(Duration::from_secs(2))? => {
                continue
            }
            Err(e) => return Ok(Some(format!("{} after {at} of {total} bytes", errno(&e)))),
        };
        if kind == libc::SOCK_SEQPACKET && next.next() != Some(&bytes.len()) {
            return Ok(Some(format!("a message of {} bytes at {at}", bytes.len())));
        }
        if bytes.is_empty() || !expected[at..].starts_with(&bytes) {
            return Ok(Some(format!("{} wrong bytes at {at}", bytes.len())));
        }
        at += bytes.len();
    }
    let after = socket.state();
    Ok((after != "EAGAIN").then(|| format!("{after} after all bytes")))
}

/// The guest sends; says whether it was told off.
fn send(dev: &mut Device, peer: &Peer, sizes: &[usize], bytes: &[u8]) -> Try<Option<String>> {
    const BATCH: usize = 128;
    let mut rest = bytes;
    for (number, batch) in sizes.chunks(BATCH).enumerate() {
        for size in batch {
            let (now, later) = rest.split_at(*size);
            rest = later;
            let header = peer.header(dev, packet::RW).with(|h| {
                h.len = now.len() as u32;
                h.flags = packet::EOM;
            });
            // A large one has one place only.
            if now.len() > 4096 {
                dev.kick(TX);
                dev.settle()?;
                dev.put(header, now);
                dev.kick(TX);
                dev.settle()?;
            } else {
                dev.put(header, now);
            }
        }
        dev.kick(TX);
        dev.settle()?;
        dev.q[TX].take_all();
        while let Some(packet) = dev.recv() {
            if packet.header.op == packet::RST {
                return Ok(Some(format!(
                    "refused after at most {} packets",
                    (number + 1) * BATCH
                )));
            }
        }
    }
    Ok(None)
}

fn of_a_guest(ctx: &Ctx) -> Try<String> {
    let mut bad = Vec::new();
    for kind in KINDS {
        for sizes in SIZES {
            let begin = Instant::now();
            // A smaller one where it takes long.
            let window = match (sizes, kind) {
                ([1], libc::SOCK_SEQPACKET) if !ctx.full => WINDOW / 4 / ctx.scale as usize,
                ([1], _) if ctx.scale > 1 => WINDOW / 4 / ctx.scale as usize,
                _ => WINDOW,
            };
            let mut dev = Setup::num(256).open()?;
            let socket = Socket::new(kind)?;
            socket.set_buffer(window as u64)?;
            let ty = if kind == libc::SOCK_STREAM {
                packet::STREAM
            } else {
                packet::SEQPACKET
            };
            let peer = host::connect_socket(&mut dev, socket, ty, 7000)?;
            let sizes_of_all = fill(sizes, window);
            let bytes = stream(0, window);
            let wrong = match send(&mut dev, &peer, &sizes_of_all, &bytes)? {
                Some(refused) => Some(refused),
                None => read(&peer.socket, kind, &sizes_of_all)?,
            };
            let what = format!("{} of {sizes:?} bytes", name(kind));
            if begin.elapsed() > Duration::from_secs(1) {
                note(format!("{what}: {:?}", begin.elapsed()));
            }
            bad.extend(wrong.map(|wrong| format!("{what}: {wrong}")));
        }
    }
    Ok(if bad.is_empty() {
        WELL.to_owned()
    } else {
        bad.join("; ")
    })
}

fn over_loopback(ctx: &Ctx) -> Try<String> {
    let mut bad = Vec::new();
    for kind in KINDS {
        for sizes in SIZES {
            let begin = Instant::now();
            let window = match (sizes, ctx.scale) {
                ([1], 1) => WINDOW / 8,
                ([1], _) => WINDOW / 64,
                _ => WINDOW,
            };
            let what = format!("{} of {sizes:?} bytes", name(kind));
            let wrong = fill_over_loopback(kind, &fill(sizes, window), window)?;
            if begin.elapsed() > Duration::from_secs(1) {
                note(format!("{what}: {:?}", begin.elapsed()));
            }
            bad.extend(wrong.map(|wrong| format!("{what}: {wrong}")));
        }
    }
    Ok(if bad.is_empty() {
        WELL.to_owned()
    } else {
        bad.join("; ")
    })
}

fn fill_over_loopback(kind: i32, sizes: &[usize], window: usize) -> Try<Option<String>> {
    const PORT: u32 = 4324;
    let listener = Socket::new(kind)?;
    listener.set_buffer(window as u64)?;
    listener.listen(PORT, 1)?;
    let client = Socket::new(kind)?;
    client.set_buffer(window as u64)?;
    client.connect(1, PORT)?;
    if !listener.wait_readable(Duration::from_secs(10))? {
        return Err("no connection over loopback".into());
    }
    let server = listener.accept()?;
    if !client.wait_writable(Duration::from_secs(10))? {
        return Err("not connected over loopback".into());
    }
    let bytes = stream(0, window);
    let mut rest = &bytes[..];
    for (number, size) in sizes.iter().enumerate() {
        let (now, later) = rest.split_at(*size);
        rest = later;
        loop {
            match client.send(now) {
                Ok(n) if n == now.len() => break,
                // Others are on their way.
                Err(e)
                    if errno(&e) == "EAGAIN" && client.wait_writable(Duration::from_secs(2))? => {}
                other => return Ok(Some(format!("packet {number}: {}", host::amount(other)))),
            }
        }
    }
    read(&server, kind, sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_filled_to_the_last_byte() {
        assert_eq!(fill(&[3, 2], 9), [3, 2, 3, 1]);
        assert_eq!(fill(&[1, 4000], 4002), [1, 4000, 1]);
        for sizes in SIZES {
            assert_eq!(fill(sizes, WINDOW).iter().sum::<usize>(), WINDOW);
        }
    }
}
