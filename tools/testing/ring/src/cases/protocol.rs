// SPDX-License-Identifier: GPL-2.0

//! Packets of the guest that a good one would not send, or not then.

use super::{case, on_usual, rx, Case, Ctx};
use crate::{
    device::{Device, Setup, TX},
    host::{self, errno, Peer, Socket},
    observe::{observe, received, NOBODY},
    packet::{self, Header},
    ring::Desc,
    Try,
};

/// Where the host's listener is.
const PORT: u32 = 4321;

pub const CASES: &[Case] = &[
    case("P01/type-0", "RST", |_| request(|h| h.ty = 0)),
    case("P01/type-3", "RST", |_| request(|h| h.ty = 3)),
    case("P01/type-0xffff", "RST", |_| request(|h| h.ty = 0xffff)),
    case("P02/op-0-to-nobody", "RST", |_| request(|h| h.op = 0)),
    case("P02/op-8-to-nobody", "RST", |_| request(|h| h.op = 8)),
    case("P02/op-0xffff-to-nobody", "RST", |_| {
        request(|h| h.op = 0xffff)
    }),
    case("P03/length-100-in-a-buffer-of-44", "RET0", |_| {
        request(|h| {
            h.op = packet::RW;
            h.len = 100;
        })
    }),
    case("P04/length-0xffffffff", "RET0", |_| {
        request(|h| {
            h.op = packet::RW;
            h.len = u32::MAX;
        })
    }),
    case("P05/length-less-than-the-buffer", "RST", |_| {
        on_usual(|dev| {
            let header = dev.header(packet::RW, 1, NOBODY);
            dev.put(header.with(|h| h.len = 10), &[0x77; 1000]);
            dev.kick(TX);
            Ok(())
        })
    }),
    case("P06/from-cid-0", "RET0", |ctx| from(ctx, |_| 0)),
    case("P06/from-cid-1", "RET0", |ctx| from(ctx, |_| 1)),
    case("P06/from-cid-2", "RET0", |ctx| from(ctx, |_| 2)),
    case("P06/from-another-cid", "RET0", |ctx| {
        from(ctx, |own| own + 1)
    }),
    case("P06/from-cid-0xffffffff", "RET0", |ctx| {
        from(ctx, |_| 0xffff_ffff)
    }),
    case("P06/from-the-own-cid-and-2.32", "RET0", |ctx| {
        from(ctx, |own| (1 << 32) + own)
    }),
    case("P07/to-cid-0", "RET0", |ctx| to(ctx, |_| 0)),
    case("P07/to-cid-1", "RET0", |ctx| to(ctx, |_| 1)),
    case("P07/to-the-own-cid", "RET0", |ctx| to(ctx, |own| own)),
    case("P07/to-cid-0xffffffff", "RET0", |ctx| {
        to(ctx, |_| 0xffff_ffff)
    }),
    case("P07/to-cid-2-and-2.32", "RET0", |ctx| {
        to(ctx, |_| (1 << 32) + 2)
    }),
    case("P08/request-again", "ignored, goes on", |_| {
        on_accepted(packet::REQUEST)
    }),
    case("P09/response-to-a-listener", "RST", |_| {
        let _listener = Socket::listener(libc::SOCK_STREAM, PORT, 8)?;
        request(|h| {
            h.op = packet::RESPONSE;
            h.dst_port = PORT;
        })
    }),
    case("P10/op-0-on-a-connection", "ignored, goes on", |_| {
        on_connection(0)
    }),
    case("P10/response-on-a-connection", "ignored, goes on", |_| {
        on_connection(packet::RESPONSE)
    }),
    case(
        "P10/credit-update-on-a-connection",
        "ignored, goes on",
        |_| on_connection(packet::CREDIT_UPDATE),
    ),
    case(
        "P10/credit-request-on-a-connection",
        "CREDIT_UPDATE, goes on",
        |_| on_connection(packet::CREDIT_REQUEST),
    ),
    case("P10/op-8-on-a-connection", "ignored, goes on", |_| {
        on_connection(8)
    }),
    case("P10/op-9-on-a-connection", "ignored, goes on", |_| {
        on_connection(9)
    }),
    case("P10/op-0xffff-on-a-connection", "ignored, goes on", |_| {
        on_connection(0xffff)
    }),
    case("P14/shutdown-of-nothing", "nothing comes, EAGAIN", |_| {
        shutdown(0)
    }),
    case("P14/shutdown-of-both", "RST, end", |_| shutdown(3)),
    case("P14/shutdown-of-all-bits", "RST, end", |_| {
        shutdown(u32::MAX)
    }),
    case("P15/data-after-shutdown", "RST", |_| {
        let (mut dev, peer) = rx::connected(Setup::default())?;
        let header = peer.header(&dev, packet::SHUTDOWN);
        dev.send(header.with(|h| h.flags = 3), &[])?;
        dev.recv_all()?;
        dev.q[TX].take_all();
        let header = peer.header(&dev, packet::RW);
        dev.put(header.with(|h| h.len = 5), b"later");
        dev.kick(TX);
        observe(&mut dev)
    }),
    case(
        "P16/320-KiB-that-nobody-reads",
        "RST; 262144 bytes intact, then ENOBUFS",
        |_| overflow(),
    ),
    case("P17/5000-empty-messages", "all taken", |_| {
        empty_messages(5000)
    }),
    case("P17/empty-messages-without-end", "RST", |_| {
        empty_messages(1_000_000)
    })
    .seconds(240),
    case(
        "P17/5000-empty-packets-of-a-stream",
        "all taken, goes on",
        |_| empty_packets(),
    ),
    case("P18/no-credit", "EAGAIN", |_| {
        let (dev, peer) = with_credit(|h| h.buf_alloc = 0)?;
        let _ = &dev;
        Ok(host::amount(peer.socket.send(b"x")))
    }),
    case("P19/all-credit-and-a-lie", "RST, EPROTO", |_| {
        lie(|h| {
            h.buf_alloc = u32::MAX;
            h.fwd_cnt = 1 << 30;
        })
    }),
    case("P20/more-read-than-was-sent", "RST, EPROTO", |_| {
        lie(|h| h.fwd_cnt = 1)
    }),
    case("P21/seqpacket-to-a-stream", "RST", |_| {
        let _listener = Socket::listener(libc::SOCK_STREAM, PORT, 8)?;
        request(|h| {
            h.ty = packet::SEQPACKET;
            h.dst_port = PORT;
        })
    }),
    case(
        "P24/50-requests-with-backlog-1",
        "2 RESPONSE, 48 RST; close: 2 SHUTDOWN",
        |_| backlog(),
    ),
    case(
        "P33/next-connection-with-the-same-ports",
        "1000 read; nothing sent; next one: 10 read",
        |_| same_ports(),
    ),
    case("P25/data-before-response", "RST, EPROTO", |_| {
        before_response(packet::RW)
    }),
    case("P25/credit-update-before-response", "RST, EPROTO", |_| {
        before_response(packet::CREDIT_UPDATE)
    }),
    case("P25/credit-request-before-response", "RST, EPROTO", |_| {
        before_response(packet::CREDIT_REQUEST)
    }),
    case("P25/op-0-before-response", "nothing comes, ok", |_| {
        before_response(0)
    }),
    case("P25/op-9-before-response", "RST, EPROTO", |_| {
        before_response(9)
    }),
    case(
        "P26/rst-before-response",
        "nothing comes, ECONNRESET",
        |_| before_response(packet::RST),
    ),
    case(
        "P27/response-twice-then-rst",
        "connected; then send: EPIPE",
        |_| {
            let (mut dev, peer) = rx::connected(Setup::default())?;
            let again = peer.header(&dev, packet::RESPONSE);
            dev.send(again, &[])?;
            let first = host::amount(peer.socket.send(b"x"));
            let rst = peer.header(&dev, packet::RST);
            dev.send(rst, &[])?;
            let then = host::amount(peer.socket.send(b"x"));
            let first = if first == "1" {
                "connected"
            } else {
                "not connected"
            };
            Ok(format!("{first}; then send: {then}"))
        },
    ),
    case("P29/connect-to-a-stopped-device", "EHOSTUNREACH", |_| {
        let dev = Setup {
            running: false,
            ..Setup::buffers(0)
        }
        .open()?;
        connect_error(dev.cid)
    }),
    case("P30/connect-to-nobody", "ENODEV", |_| {
        connect_error(0x6fff_0000)
    }),
    case(
        "N15/rst-storm-then-the-same-port",
        "connected again",
        |_| rst_storm(),
    ),
    case(
        "N16/message-larger-than-the-buffer",
        "RST, then ENOBUFS",
        |_| endless_message(),
    ),
    case(
        "N17/flags-of-messages-everywhere",
        "ignored, goes on",
        |_| message_flags(),
    ),
    case("N20/from-the-cid-of-another-device", "RET0", |_| {
        let other = Setup::buffers(4).open()?;
        let own = other.cid;
        on_usual(|dev| {
            let header = dev.header(packet::REQUEST, 1, NOBODY);
            dev.put(header.with(|h| h.src_cid = own), &[]);
            dev.kick(TX);
            Ok(())
        })
    }),
];

/// What comes of a REQUEST to a port that nobody has, with something changed.
fn request(change: fn(&mut Header)) -> Try<String> {
    on_usual(|dev| {
        let header = dev.header(packet::REQUEST, 1, NOBODY).with(change);
        dev.put(header, &[]);
        dev.kick(TX);
        Ok(())
    })
}

/// A packet with other CIDs; ours counts it.
fn misaddressed(ctx: &Ctx, change: impl FnOnce(&mut Header, u64)) -> Try<String> {
    // If it were taken, there is somebody to answer.
    let _listener = Socket::listener(libc::SOCK_STREAM, PORT, 8)?;
    let mut dev = Setup::default().open()?;
    let own = dev.cid;
    let header = dev.header(packet::REQUEST, 1, PORT);
    dev.put(header.with(|h| change(h, own)), &[]);
    dev.kick(TX);
    let outcome = observe(&mut dev)?;
    let refused = dev.info("refused").join(" ");
    if ctx.ours() && !refused.contains(" 1 misaddressed") {
        return Err(format!("{outcome}, but fdinfo says: {refused}").into());
    }
    Ok(outcome)
}

fn from(ctx: &Ctx, cid: fn(u64) -> u64) -> Try<String> {
    misaddressed(ctx, |h, own| h.src_cid = cid(own))
}

fn to(ctx: &Ctx, cid: fn(u64) -> u64) -> Try<String> {
    misaddressed(ctx, |h, own| h.dst_cid = cid(own))
}

/// Whether bytes still come through, in both directions.
pub fn goes_on(dev: &mut Device, peer: &Peer) -> Try<bool> {
    let header = peer.header(dev, packet::RW);
    let alloc = host::GUEST_BUFFER;
    dev.send_rw(header.with(|h| h.buf_alloc = alloc), b"there")?;
    dev.q[TX].take_all();
    if !matches!(peer.socket.recv(100), Ok(bytes) if bytes == b"there") {
        return Ok(false);
    }
    peer.socket.send(b"and back")?;
    let back = dev.recv_all()?;
    Ok(back.iter().any(|p| p.payload == b"and back"))
}

/// What an operation does to a connection.
fn effect(dev: &mut Device, peer: &Peer, header: Header) -> Try<String> {
    dev.send(header, &[])?;
    dev.q[TX].take_all();
    let what = received(dev, "ignored")?;
    let then = if goes_on(dev, peer)? {
        "goes on"
    } else {
        "ended"
    };
    Ok(format!("{what}, {then}"))
}

fn on_connection(op: u16) -> Try<String> {
    let (mut dev, peer) = rx::connected(Setup::default())?;
    let header = peer.header(&dev, op);
    effect(
        &mut dev,
        &peer,
        header.with(|h| h.buf_alloc = host::GUEST_BUFFER),
    )
}

fn on_accepted(op: u16) -> Try<String> {
    let mut dev = Setup::default().open()?;
    let listener = Socket::listener(libc::SOCK_STREAM, PORT, 8)?;
    let peer = host::accept(&mut dev, &listener, libc::SOCK_STREAM, 55)?;
    let header = peer.header(&dev, op);
    effect(
        &mut dev,
        &peer,
        header.with(|h| h.buf_alloc = host::GUEST_BUFFER),
    )
}

/// What came, and what the socket says.
fn came(dev: &mut Device, socket: &str) -> Try<String> {
    Ok(format!("{}, {socket}", received(dev, "nothing comes")?))
}

fn shutdown(flags: u32) -> Try<String> {
    let (mut dev, peer) = rx::connected(Setup::default())?;
    let header = peer.header(&dev, packet::SHUTDOWN);
    dev.send(header.with(|h| h.flags = flags), &[])?;
    let state = peer.socket.state();
    came(&mut dev, &state)
}

/// More than the buffer of a socket that is not read.
fn overflow() -> Try<String> {
    let (mut dev, peer) = rx::connected(Setup::default())?;
    let data = rx::pattern(320 * 1024);
    let mut replies = Vec::new();
    for piece in data.chunks(4096) {
        let header = peer.header(&dev, packet::RW);
        dev.send_rw(header, piece)?;
        dev.q[TX].take_all();
        replies.extend(dev.recv_all()?);
        if replies.iter().any(|p| p.header.op == packet::RST) {
            break;
        }
    }
    let replies: Vec<_> = replies
        .iter()
        .filter(|p| p.header.op != packet::CREDIT_UPDATE)
        .map(|p| p.name())
        .collect();
    // The error comes with the data, or after it.
    let (mut all, mut why) = peer.socket.drain();
    let (more, last) = peer.socket.drain();
    all.extend(more);
    if why == "EAGAIN" || last == "end" {
        why = format!("{why} {last}").replace(" end", "");
    }
    Ok(format!(
        "{}; {}, then {why}",
        replies.join(" "),
        rx::intact(&all, 262_144)
    ))
}

/// Messages that take no credit, `most` of them or until the connection is reset.
fn empty_messages(most: u32) -> Try<String> {
    let mut dev = Setup::num(1024).open()?;
    let listener = Socket::new(libc::SOCK_SEQPACKET)?;
    // The less buffer, the sooner.
    listener.set_buffer(4096)?;
    listener.listen(PORT, 8)?;
    let peer = host::accept(&mut dev, &listener, libc::SOCK_SEQPACKET, 55)?;
    // All of them are the same.
    let header = peer.header(&dev, packet::RW);
    let header = header.with(|h| h.flags = packet::EOM).bytes();
    let at = dev.place(0, &header);
    let batch = 1000;
    for n in 0..batch {
        dev.q[TX].set(n, Desc::new(at, header.len() as u32));
    }
    let mut sent = 0;
    let mut reset = false;
    while sent < most && !reset {
        for n in 0..batch {
            dev.q[TX].put(n);
        }
        dev.q[TX].publish();
        sent += u32::from(batch);
        dev.kick(TX);
        dev.settle()?;
        reset = std::iter::from_fn(|| dev.recv()).any(|p| p.header.op == packet::RST);
        dev.q[TX].take_all();
    }
    crate::note(format!("empty messages: {sent}"));
    Ok(if reset { "RST" } else { "all taken" }.to_owned())
}

fn empty_packets() -> Try<String> {
    let (mut dev, peer) = rx::connected(Setup::default())?;
    for _ in 0..100 {
        for _ in 0..50 {
            let header = peer.header(&dev, packet::RW);
            dev.put(header, &[]);
        }
        dev.kick(TX);
        dev.settle()?;
        if dev.q[TX].take_all().len() != 50 {
            return Ok("not all taken".to_owned());
        }
        if dev.recv_all()?.iter().any(|p| p.header.op == packet::RST) {
            return Ok("RST".to_owned());
        }
    }
    Ok(format!(
        "all taken, {}",
        if goes_on(&mut dev, &peer)? {
            "goes on"
        } else {
            "ended"
        }
    ))
}

/// A connection of the host, whose guest answers with other credit.
fn with_credit(change: fn(&mut Header)) -> Try<(Device, Peer)> {
    let (mut dev, peer) = rx::connected(Setup::default())?;
    let update = peer.header(&dev, packet::CREDIT_UPDATE).with(change);
    dev.send(update, &[])?;
    dev.q[TX].take_all();
    Ok((dev, peer))
}

fn lie(change: fn(&mut Header)) -> Try<String> {
    let (mut dev, peer) = with_credit(change)?;
    let state = peer.socket.state();
    came(&mut dev, &state)
}

fn backlog() -> Try<String> {
    let mut dev = Setup::default().open()?;
    let listener = Socket::listener(libc::SOCK_STREAM, PORT, 1)?;
    let mut counts = std::collections::BTreeMap::new();
    for n in 0..50 {
        let request = dev.header(packet::REQUEST, 100 + n, PORT);
        dev.send(request, &[])?;
        dev.q[TX].take_all();
        for packet in dev.recv_all()? {
            *counts.entry(packet.name()).or_insert(0) += 1;
        }
    }
    drop(listener);
    let closing = dev.recv_all()?;
    let shutdowns = closing
        .iter()
        .filter(|p| p.header.op == packet::SHUTDOWN)
        .count();
    let counts: Vec<_> = counts
        .iter()
        .map(|(name, n)| format!("{n} {name}"))
        .collect();
    Ok(format!(
        "{}; close: {shutdowns} SHUTDOWN",
        counts.join(", ")
    ))
}

/// The guest ends a connection and makes the next one, before the host has read all of the first.
fn same_ports() -> Try<String> {
    let mut dev = Setup::default().open()?;
    let listener = Socket::listener(libc::SOCK_STREAM, PORT, 8)?;
    let first = host::accept(&mut dev, &listener, libc::SOCK_STREAM, 7000)?;
    let data = first.header(&dev, packet::RW);
    dev.send_rw(data, &[0x42; 1000])?;
    let end = first.header(&dev, packet::SHUTDOWN).with(|h| h.flags = 3);
    dev.send(end, &[])?;
    dev.recv_all()?;
    let second = host::accept(&mut dev, &listener, libc::SOCK_STREAM, 7000)?;
    let read = first.socket.drain().0.len();
    drop(first.socket);
    let sent = received(&mut dev, "nothing")?;
    let data = second.header(&dev, packet::RW);
    dev.send_rw(data, &[0x43; 10])?;
    let next = second.socket.drain().0.len();
    Ok(format!("{read} read; {sent} sent; next one: {next} read"))
}

fn before_response(op: u16) -> Try<String> {
    let mut dev = Setup::default().open()?;
    let socket = Socket::stream()?;
    socket.connect(dev.cid, 7000)?;
    let request = dev.expect(packet::REQUEST)?;
    let header = dev.header(op, 7000, request.header.src_port);
    dev.send(header, &[])?;
    let error = socket.error()?;
    came(&mut dev, &error)
}

fn connect_error(cid: u64) -> Try<String> {
    let socket = Socket::stream()?;
    Ok(match socket.connect(cid, 1) {
        Ok(()) => "begins to connect".to_owned(),
        Err(e) => errno(&e),
    })
}

/// Many RSTs for a connection, after which the guest connects from the same port.
fn rst_storm() -> Try<String> {
    let mut dev = Setup::default().open()?;
    let listener = Socket::listener(libc::SOCK_STREAM, PORT, 8)?;
    let peer = host::accept(&mut dev, &listener, libc::SOCK_STREAM, 55)?;
    for _ in 0..20 {
        for _ in 0..50 {
            let rst = peer.header(&dev, packet::RST);
            dev.put(rst, &[]);
        }
        dev.kick(TX);
        dev.settle()?;
        dev.q[TX].take_all();
    }
    if !dev.recv_all()?.is_empty() {
        return Ok("a RST is answered".to_owned());
    }
    let old = peer.socket.state();
    let Ok(again) = host::accept(&mut dev, &listener, libc::SOCK_STREAM, 55) else {
        return Ok("no new connection".to_owned());
    };
    if !goes_on(&mut dev, &again)? {
        return Ok("a new connection that does not work".to_owned());
    }
    Ok(match old.as_str() {
        "end" | "ECONNRESET" => "connected again".to_owned(),
        _ => format!("connected again, the old one says {old}"),
    })
}

/// A message without an end.
fn endless_message() -> Try<String> {
    let mut dev = Setup::default().open()?;
    let listener = Socket::listener(libc::SOCK_SEQPACKET, PORT, 8)?;
    let peer = host::accept(&mut dev, &listener, libc::SOCK_SEQPACKET, 55)?;
    for n in 0..200 {
        let header = peer.header(&dev, packet::RW);
        dev.send_rw(header, &[0x11; 4096])?;
        dev.q[TX].take_all();
        if dev.recv_all()?.iter().any(|p| p.header.op == packet::RST) {
            crate::note(format!("reset after {} KiB", 4 * (n + 1)));
            return Ok(format!("RST, then {}", peer.socket.error()?));
        }
    }
    Ok("800 KiB taken".to_owned())
}

/// Flags that have a meaning for RW only, on other operations.
fn message_flags() -> Try<String> {
    let mut dev = Setup::default().open()?;
    let peer = host::connect(&mut dev, libc::SOCK_SEQPACKET, 7000)?;
    for op in [
        packet::CREDIT_UPDATE,
        packet::RESPONSE,
        packet::REQUEST,
        0,
        9,
    ] {
        for flags in 0..8 {
            let header = peer.header(&dev, op);
            let header = header.with(|h| {
                h.flags = flags;
                h.buf_alloc = host::GUEST_BUFFER;
            });
            dev.send(header, &[])?;
            dev.q[TX].take_all();
            if let Some(packet) = dev.recv_all()?.first() {
                return Ok(format!("{} comes", packet.name()));
            }
        }
    }
    let header = peer.header(&dev, packet::RW);
    dev.send_rw(
        header.with(|h| h.flags = packet::EOM | packet::EOR),
        b"message",
    )?;
    Ok(match peer.socket.recv(100) {
        Ok(bytes) if bytes == b"message" => "ignored, goes on".to_owned(),
        Ok(bytes) => format!("{} bytes", bytes.len()),
        Err(e) => errno(&e),
    })
}
