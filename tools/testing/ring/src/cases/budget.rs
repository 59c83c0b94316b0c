// SPDX-License-Identifier: GPL-2.0

//! Budgets: a peer cannot make the host hold more memory than these, whatever it sends and however
//! little it reads. Measured as the growth of the kernel's slabs for each 10,000 packets.

use super::{case, rx, Case, Ctx};
use crate::{
    device::{Device, Setup, TX},
    host::{self, Peer, Socket},
    is_debug_kernel, note,
    observe::NOBODY,
    packet::{self, Header},
    slab::{Growth, DEBUG_NOISE},
    Try,
};
use std::{thread, time::Duration};

/// Packets for each round at full length.
const PACKETS: u32 = 10_000;
/// The receive buffer of a socket, which is also the most that it has in flight.
const CAP: usize = 256 * 1024;
/// Why the C modules are not measured each time.
const GROWS: &str = "a measurement of memory, which C does not bound everywhere";
/// Where the host's listener is.
const PORT: u32 = 4321;

pub const CASES: &[Case] = &[
    case("P11/rst-flood-to-nobody", "no growth", |ctx| {
        let mut dev = Setup::default().open()?;
        flood_all(ctx, "RSTs to nobody", &mut dev, |dev, n| {
            dev.header(packet::RST, n, NOBODY)
        })
    })
    .seconds(120)
    .long_on_c(GROWS),
    case("P11/rst-flood-to-a-connection", "no growth", |ctx| {
        let (mut dev, peer) = rx::connected(Setup::default())?;
        flood_all(ctx, "RSTs to a connection", &mut dev, |dev, _| {
            peer.header(dev, packet::RST)
        })
    })
    .seconds(120)
    .long_on_c(GROWS),
    case(
        "P12/request-flood-without-buffers",
        "128 taken, no growth",
        |ctx| {
            let mut dev = Setup::buffers(0).open()?;
            let taken = rx::unanswerable(&mut dev, packets(ctx))?;
            let growth = Growth::measure(rounds(ctx), || {
                for _ in 0..packets(ctx) {
                    dev.kick(TX);
                }
                Ok(dev.settle()?)
            })?;
            Ok(format!(
                "{taken} taken, {}",
                verdict(ctx, "REQUESTs without buffers", &growth)
            ))
        },
    )
    .seconds(120)
    .long_on_c(GROWS),
    case("P12/request-flood-to-nobody", "no growth", |ctx| {
        let mut dev = Setup::default().open()?;
        flood_all(ctx, "REQUESTs to nobody", &mut dev, |dev, n| {
            dev.header(packet::REQUEST, n, NOBODY)
        })
    })
    .seconds(120)
    .long_on_c(GROWS),
    case("P13/credit-requests-without-buffers", "no growth", |ctx| {
        let (mut dev, peer) = without_buffers()?;
        flood_all(
            ctx,
            "CREDIT_REQUESTs without buffers",
            &mut dev,
            |dev, _| peer.header(dev, packet::CREDIT_REQUEST),
        )
    })
    .seconds(120)
    .long_on_c(GROWS),
    case(
        "P19/lies-while-the-host-sends",
        "at most 262144 in flight, no growth",
        |ctx| {
            lies(ctx, "fwd_cnt that steps back", |n, h| {
                h.buf_alloc = u32::MAX;
                h.fwd_cnt = 0u32.wrapping_sub(n % 1000);
            })
        },
    )
    .seconds(120)
    .long_on_c(GROWS),
    case(
        "N18/fwd-cnt-steps-back-by-one",
        "at most 262144 in flight, no growth",
        |ctx| {
            lies(ctx, "fwd_cnt one less each time", |n, h| {
                h.buf_alloc = host::GUEST_BUFFER;
                h.fwd_cnt = 0u32.wrapping_sub(n);
            })
        },
    )
    .seconds(120)
    .long_on_c(GROWS),
    case(
        "N19/buf-alloc-toggles",
        "at most 262144 in flight, no growth",
        |ctx| {
            lies(ctx, "buf_alloc 0 and all", |n, h| {
                h.buf_alloc = if n % 2 == 0 { 0 } else { u32::MAX };
            })
        },
    )
    .seconds(120)
    .long_on_c(GROWS),
    case("P28/connect-and-close", "no growth", |ctx| {
        let dev = Setup::buffers(0).open()?;
        let growth = Growth::measure(rounds(ctx), || {
            for port in 0..packets(ctx) {
                let socket = Socket::stream()?;
                socket.set_connect_timeout(Duration::from_millis(100))?;
                socket.connect(dev.cid, port)?;
            }
            thread::sleep(Duration::from_millis(200));
            Ok(dev.settle()?)
        })?;
        Ok(verdict(ctx, "connect() and close()", &growth))
    })
    .seconds(180)
    .long_on_c(GROWS),
    case(
        "N13/requests-to-a-listener-that-accepts-none",
        "no growth",
        |ctx| {
            let mut dev = Setup::default().open()?;
            let _listener = Socket::listener(libc::SOCK_STREAM, PORT, 128)?;
            flood_all(ctx, "REQUESTs to a full listener", &mut dev, |dev, n| {
                dev.header(packet::REQUEST, n, PORT)
            })
        },
    )
    .seconds(120)
    .long_on_c(GROWS),
    case("N14/half-open-without-buffers", "no growth", |ctx| {
        let mut dev = Setup::buffers(0).open()?;
        let _listener = Socket::listener(libc::SOCK_STREAM, PORT, 128)?;
        flood(
            ctx,
            "REQUEST and SHUTDOWN without buffers",
            &mut dev,
            |dev, n| {
                let op = [packet::REQUEST, packet::SHUTDOWN][(n % 2) as usize];
                dev.header(op, n / 2, PORT).with(|h| {
                    if op == packet::SHUTDOWN {
                        h.flags = 3;
                    }
                })
            },
        )
    })
    .seconds(120)
    .long_on_c(GROWS),
    case("N14/half-open-with-buffers", "no growth", |ctx| {
        let mut dev = Setup::default().open()?;
        let _listener = Socket::listener(libc::SOCK_STREAM, PORT, 128)?;
        flood_all(ctx, "REQUEST and SHUTDOWN", &mut dev, |dev, n| {
            let op = [packet::REQUEST, packet::SHUTDOWN][(n % 2) as usize];
            dev.header(op, n / 2, PORT).with(|h| {
                if op == packet::SHUTDOWN {
                    h.flags = 3;
                }
            })
        })
    })
    .seconds(120)
    .long_on_c(GROWS),
    case(
        "B01/one-byte-messages-that-the-guest-does-not-read",
        "1 MB at most, no growth",
        |ctx| {
            let (dev, peer) = without_buffers()?;
            let growth = Growth::measure(rounds(ctx), || {
                for _ in 0..40 * PACKETS {
                    if peer.socket.send(b"x").is_err() {
                        break;
                    }
                }
                Ok(dev.settle()?)
            })?;
            note(format!("{} bytes wait", peer.socket.unsent()?));
            Ok(bounded(
                ctx,
                "one-byte messages to a guest that does not read",
                &growth,
                1024,
            ))
        },
    )
    .seconds(180)
    .long_on_c(GROWS),
    case(
        "B02/one-byte-packets-that-the-host-does-not-read",
        "1 MB at most, no growth",
        |ctx| {
            let mut dev = Setup::default().open()?;
            let socket = Socket::stream()?;
            // Small, so that the first round fills it.
            socket.set_buffer(8 * 1024)?;
            let peer = host::connect_socket(&mut dev, socket, packet::STREAM, 7000)?;
            let (mut number, count) = (0, PACKETS);
            let growth = Growth::measure(rounds(ctx), || {
                send(&mut dev, count, &mut number, &[0x77], |dev, _| {
                    peer.header(dev, packet::RW).with(|h| h.len = 1)
                })?;
                Ok(())
            })?;
            Ok(bounded(
                ctx,
                "one-byte packets to a socket that is not read",
                &growth,
                1024,
            ))
        },
    )
    .seconds(180)
    .long_on_c(GROWS),
    case(
        "B03/guest-that-never-reads",
        "1 MB at most, no growth",
        |ctx| {
            let (dev, peer) = without_buffers()?;
            let growth = Growth::measure(rounds(ctx), || {
                for _ in 0..packets(ctx) {
                    if peer.socket.send(&[0x22; 65536]).is_err() {
                        break;
                    }
                }
                Ok(dev.settle()?)
            })?;
            note(format!("{} bytes wait", peer.socket.unsent()?));
            Ok(bounded(ctx, "a guest that does not read", &growth, 1024))
        },
    )
    .seconds(120)
    .long_on_c(GROWS),
    case(
        "B04/data-of-closed-sockets-that-the-guest-does-not-read",
        "96 MB at most, no growth",
        |ctx| {
            let mut dev = Setup::buffers(0).open()?;
            let mut port = 100_000;
            // What is allowed under way in 300 sockets is more than the budget.
            let mut sockets = 300;
            let growth = Growth::measure(rounds(ctx), || {
                for _ in 0..sockets {
                    port += 1;
                    let peer = blind(&mut dev, port)?;
                    peer.socket.send_all(&[0x66; CAP]);
                }
                sockets = 100;
                Ok(dev.settle()?)
            })?;
            note(growth.describe("data of closed sockets to a guest that does not read"));
            // Sockets in the budget send a RST each at the end of their time.
            let few = if is_debug_kernel() { DEBUG_NOISE } else { 400 };
            let bounded = growth.first <= 96 * 1024 && growth.is_below(few, 512, 4096);
            let text = if bounded {
                "96 MB at most, no growth"
            } else {
                "grows"
            };
            Ok(text.to_owned())
        },
    )
    .seconds(180)
    .long_on_c(GROWS),
    case(
        "B05/closed-sockets-that-the-guest-does-not-answer",
        "96 MB at most, no growth",
        |ctx| {
            let mut dev = Setup::default().open()?;
            let listener = Socket::listener(libc::SOCK_STREAM, PORT, 128)?;
            let mut port = 1000;
            let growth = Growth::measure(rounds(ctx), || {
                for _ in 0..PACKETS / 32 * 2 {
                    for _ in 0..32 {
                        port += 1;
                        let request = dev.header(packet::REQUEST, port, PORT);
                        dev.put(request, &[]);
                    }
                    dev.kick(TX);
                    dev.flush()?;
                    dev.q[TX].take_all();
                    while listener.accept().is_ok() {}
                    dev.flush()?;
                    while dev.recv().is_some() {}
                }
                Ok(dev.settle()?)
            })?;
            let what = "closed sockets of a guest that does not answer";
            Ok(bounded(ctx, what, &growth, 96 * 1024))
        },
    )
    .seconds(240)
    .long_on_c(GROWS)
    .only_full(),
];

/// Packets for each round.
fn packets(ctx: &Ctx) -> u32 {
    ctx.rounds(PACKETS / 4, PACKETS)
}

/// Rounds that are measured, after one that reaches the budget.
fn rounds(ctx: &Ctx) -> u32 {
    ctx.rounds(2, 4)
}

fn verdict(ctx: &Ctx, what: &str, growth: &Growth) -> String {
    note(growth.describe(what));
    if growth.is_zero(packets(ctx)) {
        "no growth".to_owned()
    } else {
        "grows".to_owned()
    }
}

fn bounded(ctx: &Ctx, what: &str, growth: &Growth, limit: i64) -> String {
    let text = verdict(ctx, what, growth);
    // The debug kernel has a record of each object, and keeps those that were freed for a while.
    let most = if is_debug_kernel() { 2 * limit } else { limit };
    if growth.first <= most {
        format!("{} MB at most, {text}", limit / 1024)
    } else {
        format!("{} MB, {text}", growth.first / 1024)
    }
}

/// Sends packets in batches; returns how many the host took.
fn send(
    dev: &mut Device,
    count: u32,
    number: &mut u32,
    payload: &[u8],
    mut next: impl FnMut(&Device, u32) -> Header,
) -> Try<u32> {
    let mut taken = 0;
    let mut offered = 0;
    while offered < count {
        let batch = 64.min(count - offered);
        for _ in 0..batch {
            let header = next(dev, *number);
            *number += 1;
            dev.put(header, payload);
        }
        offered += batch;
        dev.kick(TX);
        dev.flush()?;
        taken += dev.q[TX].take_all().len() as u32;
        while dev.recv().is_some() {}
        if offered - taken > 64 {
            // The ring has no room for another batch, if the host does not go on.
            dev.settle()?;
            taken += dev.q[TX].take_all().len() as u32;
            if offered - taken > 64 {
                break;
            }
        }
    }
    dev.settle()?;
    taken += dev.q[TX].take_all().len() as u32;
    Ok(taken)
}

/// The growth by packets of which the host may take no more after some.
fn flood(
    ctx: &Ctx,
    what: &str,
    dev: &mut Device,
    mut next: impl FnMut(&Device, u32) -> Header,
) -> Try<String> {
    let (mut number, count) = (1000, packets(ctx));
    let mut taken = Vec::new();
    let growth = Growth::measure(rounds(ctx), || {
        taken.push(send(dev, count, &mut number, &[], &mut next)?);
        Ok(())
    })?;
    note(format!("{what}: taken {taken:?}"));
    Ok(verdict(ctx, what, &growth))
}

/// The growth by packets all of which the host takes.
fn flood_all(
    ctx: &Ctx,
    what: &str,
    dev: &mut Device,
    mut next: impl FnMut(&Device, u32) -> Header,
) -> Try<String> {
    let (mut number, count) = (1000, packets(ctx));
    let growth = Growth::measure(rounds(ctx), || {
        match send(dev, count, &mut number, &[], &mut next)? {
            n if n == count => Ok(()),
            n => Err(format!("only {n} of {count} packets were taken").into()),
        }
    })?;
    Ok(verdict(ctx, what, &growth))
}

/// A connection to a guest that does not read, and knows the port of the host without it.
fn blind(dev: &mut Device, port: u32) -> Try<Peer> {
    let socket = Socket::stream()?;
    socket.bind(port)?;
    socket.connect(dev.cid, 7000)?;
    let peer = Peer {
        socket,
        guest: 7000,
        host: port,
        ty: packet::STREAM,
    };
    let answer = peer.header(dev, packet::RESPONSE);
    dev.put(answer.with(|h| h.buf_alloc = u32::MAX), &[]);
    dev.kick(TX);
    dev.flush()?;
    dev.q[TX].take_all();
    Ok(peer)
}

/// A device with a connection, that has no buffers left.
fn without_buffers() -> Try<(Device, Peer)> {
    let (mut dev, peer) = rx::connected(Setup::buffers(2))?;
    for _ in 0..2 {
        peer.socket.send(b"y")?;
        dev.settle()?;
        dev.take().ok_or("no packet came")?;
    }
    Ok((dev, peer))
}

/// The host sends what it can; the guest tells something about its buffer with each packet.
fn lies(ctx: &Ctx, what: &str, lie: fn(u32, &mut Header)) -> Try<String> {
    let (mut dev, peer) = without_buffers()?;
    let (mut number, count) = (0, packets(ctx));
    let mut most = 0;
    let growth = Growth::measure(rounds(ctx), || {
        let socket = &peer.socket;
        let ret = send(&mut dev, count, &mut number, &[], |dev, n| {
            let _ = socket.send(&[0x44; 8192]);
            most = most.max(socket.unsent().unwrap_or(0));
            peer.header(dev, packet::CREDIT_UPDATE).with(|h| lie(n, h))
        })?;
        if ret != count {
            return Err(format!("only {ret} of {count} packets were taken").into());
        }
        Ok(())
    })?;
    note(format!("{what}: at most {most} bytes in flight"));
    let flight = if most <= CAP { CAP } else { most };
    Ok(format!(
        "at most {flight} in flight, {}",
        verdict(ctx, what, &growth)
    ))
}
