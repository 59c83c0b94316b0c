// SPDX-License-Identifier: GPL-2.0

//! What comes for a socket while a user stands in a call on it ([`crate::stuck`]): nobody else
//! waits for it, and nothing of it is lost.

use super::{
    case,
    stuck::{patience, stream, State, Verdict, FIRST},
    Case, Ctx, TRIES,
};
use crate::{
    device::{Device, Setup, RX, TX},
    host::{self, Peer, Socket},
    packet::{self, Packet},
    stuck::{self, Call, Outcome, Stuck},
    Try,
};
use std::time::{Duration, Instant};

/// C waits, in the worker, and so all that it works for.
const C_WAITS: &str = "C waits for the user";
const WELL: &str = "in time, nothing lost";

/// What a guest sends after what the user has already.
const PIECE: usize = 100;
const PIECES: usize = 3;

pub const CASES: &[Case] = &[
    case("ST-10/data-and-shutdown-for-a-sender", WELL, |ctx| {
        each(ctx, &SENDERS, &[packet::RW, packet::SHUTDOWN])
    })
    .seconds(60)
    .not_on_c(C_WAITS),
    case("ST-11/data-and-rst-for-a-sender", WELL, |ctx| {
        each(ctx, &SENDERS[..1], &[packet::RW, packet::RST])
    })
    .seconds(60)
    .not_on_c(C_WAITS),
    case("ST-12/credit-for-a-sender", WELL, |ctx| {
        each(
            ctx,
            &SENDERS,
            &[packet::CREDIT_UPDATE, packet::CREDIT_REQUEST],
        )
    })
    .seconds(60)
    .not_on_c(C_WAITS),
    case("ST-13/data-and-shutdown-for-a-reader", WELL, |ctx| {
        each(ctx, &READERS, &[packet::RW, packet::SHUTDOWN])
    })
    .seconds(60)
    .not_on_c(C_WAITS),
    case("ST-14/data-and-rst-for-a-reader", WELL, |ctx| {
        each(ctx, &READERS[..1], &[packet::RW, packet::RST])
    })
    .seconds(60)
    .not_on_c(C_WAITS),
    case("ST-15/data-and-shutdown-during-setsockopt", WELL, |ctx| {
        each(ctx, &[State::SetOption], &[packet::RW, packet::SHUTDOWN])
    })
    .seconds(60)
    .not_on_c(C_WAITS),
    case("ST-16/all-of-a-connection-while-connecting", WELL, |ctx| {
        let all = [packet::RESPONSE, packet::RW, packet::SHUTDOWN];
        each(ctx, &[State::Connecting], &all)
    })
    .seconds(60)
    .not_on_c(C_WAITS),
    case("ST-17/rst-while-connecting", WELL, |ctx| {
        each(ctx, &[State::Connecting], &[packet::RST])
    })
    .seconds(60)
    .not_on_c(C_WAITS),
    case("ST-18/request-for-a-listener", WELL, |ctx| {
        each(ctx, &[State::Listening], &[packet::REQUEST])
    })
    .seconds(60)
    .not_on_c(C_WAITS),
    case("ST-19/all-that-there-is-credit-for", WELL, |ctx| {
        let mut verdict = Verdict::new(ctx);
        for state in [SENDERS[0], READERS[0], State::Connecting] {
            full_window(ctx, state, &mut verdict)?;
        }
        verdict.outcome(WELL)
    })
    .seconds(60)
    .not_on_c(C_WAITS),
    case("ST-20/loopback", WELL, loopback)
        .seconds(60)
        .not_on_c(C_WAITS),
];

const SENDERS: [State; 2] = [
    State::Send(libc::SOCK_STREAM),
    State::Send(libc::SOCK_SEQPACKET),
];
const READERS: [State; 2] = [
    State::Recv(libc::SOCK_STREAM),
    State::Recv(libc::SOCK_SEQPACKET),
];

/// Receive buffer of a socket.
const WINDOW: usize = 256 * 1024;

/// Round trips in which the worst is looked for.
const TRIPS: u32 = 40;
/// How much longer a round trip may be than without a stuck user: counted, and by the clock of a
/// machine that may have other things to do. The user is stuck for more than ten times as long.
const GAP: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(200));

/// The worst of some round trips.
fn worst(mut trip: impl FnMut() -> Try<()>) -> Try<Duration> {
    let mut worst = Duration::ZERO;
    for _ in 0..TRIPS {
        let begin = Instant::now();
        trip()?;
        worst = worst.max(begin.elapsed());
    }
    Ok(worst)
}

/// The smallest gap of some tries while a user is stuck, and what is wrong with it.
fn gap(
    ctx: &Ctx,
    alone: Duration,
    stuck: &Stuck,
    mut trip: impl FnMut() -> Try<()>,
) -> Try<(Duration, Option<String>)> {
    let allowed = alone + ctx.limit(GAP.0, GAP.1);
    let mut least = Duration::MAX;
    for _ in 0..TRIES {
        let gap = worst(&mut trip)?;
        if !stuck.waits()? {
            return Ok((gap, Some("waits for the user".to_owned())));
        }
        least = least.min(gap);
        if least <= allowed {
            return Ok((least, None));
        }
    }
    let wrong = format!("a gap of {least:?}, {alone:?} without");
    Ok((least, Some(wrong)))
}

/// A guest with two connections: one whose user is stuck, and one that goes on.
struct Guest {
    dev: Device,
    /// What came for others than the one that goes on.
    seen: Vec<Packet>,
}

impl Guest {
    /// A message to the host, and one back.
    fn round_trip(&mut self, other: &Peer) -> Try<()> {
        const LEN: usize = 64;
        let header = other.header(&self.dev, packet::RW);
        self.dev.put(
            header.with(|h| {
                h.len = LEN as u32;
                h.buf_alloc = host::GUEST_BUFFER;
            }),
            &[0x42; LEN],
        );
        self.dev.kick(TX);
        if !other.socket.wait_readable(Duration::from_secs(20))? {
            return Err("a message does not come".into());
        }
        let message = other.socket.recv(LEN)?;
        other.socket.send(&message)?;
        for _ in 0..100 {
            self.dev.flush()?;
            self.dev.q[TX].take_all();
            if self.take(other) {
                return Ok(());
            }
        }
        Err("no answer".into())
    }

    /// Takes what came; says whether there was data for that connection.
    fn take(&mut self, other: &Peer) -> bool {
        let mut came = false;
        while let Some(packet) = self.dev.recv() {
            if packet.header.dst_port != other.guest {
                self.seen.push(packet);
            } else if packet.header.op == packet::RW {
                came = true;
            }
        }
        came
    }

    /// Sends packets to a socket, and does not look whether they are taken.
    fn send(&mut self, peer: &Peer, first: usize, packets: &[u16]) {
        for op in packets {
            let header = peer.header(&self.dev, *op);
            match *op {
                packet::RW => {
                    for n in 0..PIECES {
                        let bytes = stream(first + n * PIECE, PIECE);
                        let message = header.with(|h| {
                            h.len = PIECE as u32;
                            h.flags = packet::EOM;
                        });
                        self.dev.put(message, &bytes);
                    }
                }
                // Of both directions.
                packet::SHUTDOWN => self.dev.put(header.with(|h| h.flags = 3), &[]),
                _ => self
                    .dev
                    .put(header.with(|h| h.buf_alloc = host::GUEST_BUFFER), &[]),
            }
        }
        self.dev.kick(TX);
    }

    fn payload(&self) -> Vec<u8> {
        let data = self.seen.iter().filter(|p| p.header.op == packet::RW);
        data.flat_map(|p| p.payload.iter().copied()).collect()
    }

    fn saw(&self, op: u16) -> bool {
        self.seen.iter().any(|p| p.header.op == op)
    }
}

/// Packets come for a user who is stuck, in some states.
fn each(ctx: &mut Ctx, states: &[State], packets: &[u16]) -> Try<String> {
    let mut verdict = Verdict::new(ctx);
    for state in states {
        packets_come(ctx, *state, packets, &mut verdict)?;
    }
    verdict.outcome(WELL)
}

fn packets_come(ctx: &Ctx, state: State, packets: &[u16], verdict: &mut Verdict) -> Try<()> {
    let mut dev = Setup::default().open()?;
    let other = host::connect(&mut dev, libc::SOCK_STREAM, 6000)?;
    let peer = state.prepare(&mut dev)?;
    if packets.contains(&packet::CREDIT_UPDATE) {
        // There is room for what the user sends, and no more.
        let header = peer.header(&dev, packet::CREDIT_UPDATE);
        dev.send(header.with(|h| h.buf_alloc = crate::fuse::PAGE as u32), &[])?;
    }
    let mut guest = Guest {
        dev,
        seen: Vec::new(),
    };
    let alone = worst(|| guest.round_trip(&other))?;
    let stuck = Stuck::begin(&peer.socket, state.call(), patience(ctx))?;
    let first = match state {
        State::Recv(_) => FIRST,
        _ => 0,
    };
    guest.send(&peer, first, packets);
    let (least, wrong) = gap(ctx, alone, &stuck, || guest.round_trip(&other))?;
    verdict.took(format!("{state}: worst round trip"), least);
    verdict.wrong(state, wrong);

    let begin = Instant::now();
    guest.dev.run(false)?;
    verdict.took(format!("{state}: SET_RUNNING"), begin.elapsed());
    guest.dev.run(true)?;
    for q in [RX, TX] {
        guest.dev.kick(q);
    }
    let outcome = stuck.let_go()?;
    let wrong = after(&mut guest, state, &peer, &other, &outcome, packets)?;
    verdict.wrong(state, wrong);
    Ok(())
}

/// What is wrong with a connection after all came and the user went on.
fn after(
    guest: &mut Guest,
    state: State,
    peer: &Peer,
    other: &Peer,
    outcome: &Outcome,
    packets: &[u16],
) -> Try<Option<String>> {
    if state == State::Listening {
        guest.dev.settle()?;
        guest.take(other);
        return listener_after(guest, peer);
    }
    if packets == [packet::RST] {
        let error = peer.socket.error()?;
        return Ok((error != "ECONNRESET").then(|| format!("connect: {error}")));
    }
    if packets.contains(&packet::CREDIT_UPDATE) {
        // There is credit for more.
        let more = host::amount(peer.socket.send(&[0x55; 1000]));
        if more != "1000" {
            return Ok(Some(format!("with credit: {more}")));
        }
    }
    let (mut bytes, end) = peer.socket.drain();
    bytes.splice(0..0, outcome.bytes.iter().copied());
    guest.dev.settle()?;
    guest.take(other);

    let data = packets.contains(&packet::RW);
    let mut expected = match state {
        State::Recv(_) => FIRST,
        _ => 0,
    };
    expected += if data { PIECES * PIECE } else { 0 };
    if bytes != stream(0, expected) {
        return Ok(Some(format!(
            "{} of {expected} bytes, or not those that were sent, then {end}",
            bytes.len()
        )));
    }
    let ends: &[&str] = match packets.last() {
        Some(&packet::SHUTDOWN) => &["end"],
        Some(&packet::RST) => &["end", "ECONNRESET"],
        _ => &["EAGAIN"],
    };
    if !ends.contains(&end.as_str()) {
        return Ok(Some(format!("{end} after {expected} bytes")));
    }
    if packets.contains(&packet::CREDIT_REQUEST) && !guest.saw(packet::CREDIT_UPDATE) {
        return Ok(Some("the guest's question has no answer".to_owned()));
    }
    // Whether a connection that ends takes what the user sends is not said.
    if state.call() == Call::Send && packets.contains(&packet::CREDIT_UPDATE) {
        let sent = [stuck::sent(), vec![0x55; 1000]].concat();
        if outcome.result != sent.len().saturating_sub(1000).to_string() || guest.payload() != sent
        {
            return Ok(Some(format!(
                "sent {}, and {} bytes came",
                outcome.result,
                guest.payload().len()
            )));
        }
    }
    Ok(None)
}

/// The guest uses all its credit, and asks for more again and again, while a user is stuck.
fn full_window(ctx: &Ctx, state: State, verdict: &mut Verdict) -> Try<()> {
    const SIZE: usize = 300;
    const BATCH: usize = 32;
    const QUESTIONS: usize = 1000;
    let mut dev = Setup::default().open()?;
    let other = host::connect(&mut dev, libc::SOCK_STREAM, 6000)?;
    let peer = state.prepare(&mut dev)?;
    let mut guest = Guest {
        dev,
        seen: Vec::new(),
    };
    let alone = worst(|| guest.round_trip(&other))?;
    let stuck = Stuck::begin(&peer.socket, state.call(), patience(ctx))?;
    let mut sent = 0;
    match state {
        State::Recv(_) => sent = FIRST,
        State::Connecting => guest.send(&peer, 0, &[packet::RESPONSE]),
        _ => {}
    }
    let begin = Instant::now();
    while sent < WINDOW {
        for _ in 0..BATCH {
            let bytes = stream(sent, SIZE.min(WINDOW - sent));
            sent += bytes.len();
            if !bytes.is_empty() {
                let header = peer.header(&guest.dev, packet::RW);
                guest
                    .dev
                    .put(header.with(|h| h.len = bytes.len() as u32), &bytes);
            }
        }
        guest.dev.kick(TX);
        guest.dev.settle()?;
        guest.dev.q[TX].take_all();
    }
    for _ in 0..QUESTIONS / BATCH {
        guest.send(&peer, 0, &[packet::CREDIT_REQUEST; BATCH]);
        guest.dev.settle()?;
        guest.dev.q[TX].take_all();
        guest.take(&other);
    }
    guest.send(&peer, 0, &[packet::SHUTDOWN]);
    guest.dev.settle()?;
    let took = begin.elapsed();
    let waited = !stuck.waits()?;
    let (least, wrong) = gap(ctx, alone, &stuck, || guest.round_trip(&other))?;
    verdict.took(format!("{state}: worst round trip"), least);
    verdict.wrong(state, wrong);
    verdict.wrong(
        state,
        waited.then(|| format!("the guest sent for {took:?}")),
    );

    let outcome = stuck.let_go()?;
    let (more, end) = peer.socket.drain();
    let bytes = [outcome.bytes, more].concat();
    let whole = bytes == stream(0, WINDOW) && end == "end";
    let text = format!("{} of {WINDOW} bytes, then {end}", bytes.len());
    verdict.wrong(state, (!whole).then_some(text));
    Ok(())
}

/// Both that asked, before and meanwhile, are answered and accepted.
fn listener_after(guest: &mut Guest, peer: &Peer) -> Try<Option<String>> {
    if !guest.saw(packet::RESPONSE) {
        return Ok(Some("the guest's request has no answer".to_owned()));
    }
    for number in 1..=2 {
        if let Err(e) = peer.socket.accept() {
            return Ok(Some(format!("accept {number}: {}", host::errno(&e))));
        }
    }
    Ok(None)
}

/// A connection over loopback.
fn local_pair(listener: &Socket) -> Try<(Socket, Socket)> {
    let client = Socket::stream()?;
    client.connect(1, listener.local_port()?)?;
    if !listener.wait_readable(Duration::from_secs(20))? {
        return Err("no connection over loopback".into());
    }
    let server = listener.accept()?;
    if !client.wait_writable(Duration::from_secs(20))? {
        return Err("not connected over loopback".into());
    }
    Ok((client, server))
}

/// A message over loopback, and one back.
fn local_round_trip(client: &Socket, server: &Socket) -> Try<()> {
    for (from, to) in [(client, server), (server, client)] {
        from.send(&[0x42; 64])?;
        if !to.wait_readable(Duration::from_secs(20))? {
            return Err("a message over loopback does not come".into());
        }
        to.recv(64)?;
    }
    Ok(())
}

/// The peer of a stuck user is a program of root's, over loopback.
fn loopback(ctx: &mut Ctx) -> Try<String> {
    let mut verdict = Verdict::new(ctx);
    let listener = Socket::listener(libc::SOCK_STREAM, 4323, 8)?;
    let (client, server) = local_pair(&listener)?;
    let alone = worst(|| local_round_trip(&client, &server))?;
    for call in [Call::Send, Call::Recv, Call::SetOption] {
        let what = format!("{call:?}");
        let (user, peer) = local_pair(&listener)?;
        if call == Call::Recv {
            peer.send(&stream(0, FIRST))?;
            user.wait_readable(Duration::from_secs(20))?;
        }
        let stuck = Stuck::begin(&user, call, patience(ctx))?;
        let first = if call == Call::Recv { FIRST } else { 0 };
        // As much as goes.
        let sent = first + peer.send_all(&stream(first, 100_000)).0;
        let (least, wrong) = gap(ctx, alone, &stuck, || local_round_trip(&client, &server))?;
        verdict.took(format!("{what}: worst round trip"), least);
        verdict.wrong(&what, wrong);
        let begin = Instant::now();
        drop(local_pair(&listener)?);
        verdict.took(format!("{what}: new connection"), begin.elapsed());
        peer.shutdown()?;

        let outcome = stuck.let_go()?;
        // Whatever is on the way comes.
        let (mut bytes, mut end) = (outcome.bytes, String::new());
        while bytes.len() < sent || end != "end" {
            if !user.wait_readable(Duration::from_secs(2))? {
                break;
            }
            let (more, why) = user.drain();
            bytes.extend_from_slice(&more);
            end = why;
        }
        let right = bytes == stream(0, sent) && end == "end";
        let wrong = format!("{} of {sent} bytes, then {end}", bytes.len());
        verdict.wrong(&what, (!right).then_some(wrong));
        if call == Call::Send {
            let mut came = Vec::new();
            while came.len() < stuck::sent().len() && peer.wait_readable(Duration::from_secs(2))? {
                came.extend_from_slice(&peer.drain().0);
            }
            let wrong = format!("sent {}, {} bytes came", outcome.result, came.len());
            verdict.wrong(&what, (came != stuck::sent()).then_some(wrong));
        }
    }
    verdict.outcome(WELL)
}
