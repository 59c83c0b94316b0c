// SPDX-License-Identifier: GPL-2.0

//! Packets that wait for a guest: what others have to do with them.

use super::{case, Case, Ctx, TRIES};
use crate::{
    device::{Device, Setup, RX, TX},
    host::{self, errno, Peer, Socket},
    note, packet,
    sys::process,
    talk, Try,
};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

pub const CASES: &[Case] = &[
    case(
        "SQ-01/connect-and-close-beside-400000-packets",
        "as quick as without",
        beside_a_long_queue,
    )
    .seconds(120)
    .long_on_c("it takes as long with C"),
    case(
        "SQ-02/process-with-10000-connecting-sockets-ends",
        "as quick as with 2000, each",
        many_connecting,
    )
    .seconds(90),
    case(
        "SQ-03/round-trip-beside-four-floods",
        "at most 5 times that alone",
        beside_floods,
    )
    .seconds(60)
    .not_on_c("C has one queue in the order of time"),
    case(
        "SQ-04/next-connection-from-the-same-port",
        "RST, REQUEST",
        |_| from_the_same_port(),
    ),
];

/// What `connect()` and `close()` of a socket may take, counted and by the clock.
const LIMIT: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(5));

/// What it takes on average to begin a connection to a guest that does not answer, and close it.
fn connect_and_close(cid: u64) -> Try<Duration> {
    const COUNT: u32 = 200;
    const ENOUGH: Duration = Duration::from_secs(2);
    let begin = Instant::now();
    for number in 1..=COUNT {
        let socket = Socket::stream()?;
        socket.connect(cid, number)?;
        drop(socket);
        if begin.elapsed() > ENOUGH {
            return Ok(begin.elapsed() / number);
        }
    }
    Ok(begin.elapsed() / COUNT)
}

fn beside_a_long_queue(ctx: &mut Ctx) -> Try<String> {
    let count = ctx.rounds(400_000, 400_000);
    // One has no buffers at all, the other soon has none left.
    let other = Setup::buffers(0).open()?;
    let mut dev = Setup::default().open()?;
    connect_and_close(other.cid)?;
    let alone = connect_and_close(other.cid)?;

    let socket = Socket::stream()?;
    // What a socket may have queued goes by the size of its buffer.
    socket.set_buffer(1 << 29)?;
    let peer = host::connect_socket(&mut dev, socket, packet::STREAM, 7000)?;
    let begin = Instant::now();
    for number in 0..count {
        if let Err(e) = peer.socket.send(b"x") {
            return Ok(format!("packet {number}: {}", errno(&e)));
        }
    }
    let queued = begin.elapsed() / count;
    let mut same = connect_and_close(dev.cid)?;
    let mut another = connect_and_close(other.cid)?;
    let limit = (alone * 3).max(ctx.limit(LIMIT.0, LIMIT.1));
    for _ in 1..TRIES {
        if same.max(another) > limit {
            same = same.min(connect_and_close(dev.cid)?);
            another = another.min(connect_and_close(other.cid)?);
        }
    }
    let begin = Instant::now();
    drop(peer.socket);
    let closed = begin.elapsed();
    let begin = Instant::now();
    drop(dev);
    note(format!(
        "{count} packets, {queued:?} each; connect and close: {alone:?} without, {same:?} to the same \
         guest, {another:?} to another one; the socket closed in {closed:?}, the device in {:?}",
        begin.elapsed()
    ));
    Ok(if same.max(another) <= limit {
        "as quick as without".to_owned()
    } else {
        format!("{same:?} and {another:?}, {alone:?} without")
    })
}

/// How long a process takes to end that begins so many connections, for each of them.
fn end_of_process(ctx: &Ctx, cid: u64, count: u32) -> Try<Duration> {
    let mut child = talk::fork(|talk| {
        process::set_limit(libc::RLIMIT_NOFILE, 20_000)?;
        let mut sockets = Vec::new();
        for port in 0..count {
            let socket = Socket::stream()?;
            socket.connect(cid, port)?;
            sockets.push(socket);
        }
        talk.tell("connecting")?;
        talk.hear()?;
        Ok(())
    })?;
    child.talk.hear()?;
    let begin = Instant::now();
    child.process.kill(libc::SIGKILL);
    match child.process.wait(Duration::from_secs(60) * ctx.scale)? {
        Some(_) => Ok(begin.elapsed() / count),
        None => Err("the process does not end".into()),
    }
}

fn many_connecting(ctx: &mut Ctx) -> Try<String> {
    let dev = Setup::buffers(0).open()?;
    let few = ctx.rounds(2_000, 2_000);
    let many = few * 5;
    let (mut less, mut more) = (Duration::MAX, Duration::MAX);
    // What nobody sees is not compared.
    let seen = Duration::from_micros(50) * ctx.scale;
    let allowed = |less: Duration| less.saturating_mul(5) / 2;
    for _ in 0..TRIES {
        less = less.min(end_of_process(ctx, dev.cid, few)?);
        more = more.min(end_of_process(ctx, dev.cid, many)?);
        if more <= allowed(less).max(seen) {
            break;
        }
    }
    note(format!("{few} sockets: {less:?} each, {many}: {more:?}"));
    Ok(if more <= allowed(less).max(seen) {
        "as quick as with 2000, each".to_owned()
    } else {
        format!("{more:?} each, {less:?} with {few}")
    })
}

/// Bytes of each packet.
const SMALL: usize = 64;
/// Buffers of the guest, as Linux has them.
const RING: u16 = 128;

/// A guest that answers one of its connections, and takes in what comes on the others. It works in
/// steps: all that is in its ring, then all that the host does with it.
struct Busy {
    dev: Device,
    floods: Vec<Peer>,
    fifth: Peer,
    /// What it took, by its port, and what it told of that.
    read: HashMap<u32, (u32, u32)>,
    answer: Vec<u8>,
}

impl Busy {
    fn new() -> Try<Self> {
        let setup = Setup {
            num: RING * 2,
            ..Setup::buffers(RING)
        };
        let mut dev = setup.open()?;
        let mut floods = Vec::new();
        for port in 1..=4 {
            floods.push(host::connect(&mut dev, libc::SOCK_STREAM, port)?);
        }
        let fifth = host::connect(&mut dev, libc::SOCK_STREAM, 5)?;
        Ok(Self {
            dev,
            floods,
            fifth,
            read: HashMap::new(),
            answer: Vec::new(),
        })
    }

    /// The host sends as much as it may.
    fn flood(&self) -> Try<()> {
        for peer in &self.floods {
            while peer.socket.send(&[0x11; SMALL]).is_ok() {}
        }
        Ok(())
    }

    fn step(&mut self) -> Try<()> {
        self.dev.settle()?;
        let mut taken = Vec::new();
        while let Some((used, packet)) = self.dev.take() {
            taken.push(used.id as u16);
            let header = packet.header;
            if header.op != packet::RW {
                continue;
            }
            let (read, _) = self.read.entry(header.dst_port).or_default();
            *read += packet.payload.len() as u32;
            if header.dst_port == self.fifth.guest {
                self.answer.extend_from_slice(&packet.payload);
            }
        }
        for peer in &self.floods {
            let (read, told) = self.read.entry(peer.guest).or_default();
            if *read - *told >= host::GUEST_BUFFER / 64 {
                *told = *read;
                let header = peer.header(&self.dev, packet::CREDIT_UPDATE).with(|h| {
                    h.buf_alloc = host::GUEST_BUFFER;
                    h.fwd_cnt = *read;
                });
                self.dev.put(header, &[]);
            }
        }
        let answer = std::mem::take(&mut self.answer);
        if !answer.is_empty() {
            let (read, _) = self.read.entry(self.fifth.guest).or_default();
            let header = self.fifth.header(&self.dev, packet::RW).with(|h| {
                h.len = answer.len() as u32;
                h.buf_alloc = host::GUEST_BUFFER;
                h.fwd_cnt = *read;
            });
            self.dev.put(header, &answer);
        }
        for index in taken {
            self.dev.post(index, 4096);
        }
        self.dev.kick(RX);
        self.dev.kick(TX);
        self.dev.settle()?;
        self.dev.q[TX].take_all();
        Ok(())
    }

    /// How many steps a message takes there and back, on average of some.
    fn round_trip(&mut self, flooded: bool) -> Try<f64> {
        const COUNT: u32 = 8;
        const TOO_MANY: u32 = 4000;
        let mut steps = 0;
        for _ in 0..COUNT {
            self.fifth.socket.send(&[0x22; SMALL])?;
            loop {
                self.step()?;
                steps += 1;
                if self.fifth.socket.recv(SMALL).is_ok() {
                    break;
                }
                if steps > TOO_MANY {
                    return Err("no answer".into());
                }
                if flooded {
                    self.flood()?;
                }
            }
        }
        Ok(f64::from(steps) / f64::from(COUNT))
    }
}

/// A message to the guest and back, beside four programs that always have something to send. It is
/// counted in steps of the guest, each of which is a ring full of packets at most.
fn beside_floods(_: &mut Ctx) -> Try<String> {
    let mut busy = Busy::new()?;
    let alone = busy.round_trip(false)?;
    busy.flood()?;
    for _ in 0..8 {
        busy.step()?;
        busy.flood()?;
    }
    let beside = busy.round_trip(true)?;
    note(format!("{alone} steps alone, {beside} beside four floods"));
    Ok(if beside <= 5.0 * alone {
        "at most 5 times that alone".to_owned()
    } else {
        format!("{beside} steps, {alone} alone")
    })
}

/// The guest ends a connection of which much waits in the queue, and takes nothing; the host
/// connects again, from the same port. The guest is to hear of the end of the one before it is
/// asked for the next.
fn from_the_same_port() -> Try<String> {
    let mut dev = Setup::buffers(1).open()?;
    let peer = host::connect_stream(&mut dev)?;
    let (sent, _) = peer.socket.send_all(&[0x44; 200_000]);
    if sent < 200_000 {
        return Ok(format!("{sent} bytes sent"));
    }
    let end = peer.header(&dev, packet::SHUTDOWN).with(|h| h.flags = 3);
    dev.send(end, &[])?;
    dev.settle()?;
    drop(peer.socket);
    let next = Socket::stream()?;
    next.bind(peer.host)?;
    next.connect(dev.cid, peer.guest)?;
    let mut came = Vec::new();
    loop {
        let packets = dev.recv_all()?;
        if packets.is_empty() {
            // C sends another RST when the socket is closed.
            came.dedup();
            return Ok(came.join(", "));
        }
        came.extend(
            packets
                .iter()
                .filter(|packet| packet.header.op != packet::RW)
                .map(|packet| packet.name()),
        );
    }
}
