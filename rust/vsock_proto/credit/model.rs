// SPDX-License-Identifier: GPL-2.0

//! Two sides that send to each other by random schedules: no writer waits for ever, nobody gets
//! more than fits, and there are few updates.
//!
//! A side sleeps as programs do: its writer until [`CreditChange::wake`] says that there is room,
//! its reader until `SO_RCVLOWAT` bytes are there. At the end of a schedule everything that can go
//! on does. A writer that still waits then, although there *is* room for it, would do so for ever.

use super::{
    CreditChange,
    RxCredit,
    TxCredit, //
};
use crate::header::{
    Stamp,
    MAX_PKT_BUF_SIZE, //
};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::TestRunner, //
};
use std::{
    collections::VecDeque,
    string::String,
    vec::Vec, //
};

/// What a writer waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Writer {
    /// Any byte: C, and our streams.
    Bytes,
    /// A whole packet, as devices that are not Linux do. It never asks.
    Packet,
    /// A whole message: ours for `SOCK_SEQPACKET`.
    Message,
}

/// When a reader tells its peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rule {
    Ours,
    /// Ours with the size of the own buffer for the window.
    Naive,
    /// What C does in 7.3.4.
    C,
}

#[derive(Clone, Debug)]
struct Setup {
    size: u32,
    lowat: u32,
    writer: Writer,
    rule: Rule,
    /// The writer does not send more than its own buffer has.
    capped: bool,
}

/// One step of one side.
#[derive(Clone, Debug)]
enum Step {
    Write(u32),
    Carry,
    Deliver,
    Read(u32),
    Lowat(u32),
    Resize(u32),
}

#[derive(Clone, Debug)]
struct Case {
    sides: [Setup; 2],
    /// `SOCK_SEQPACKET`.
    messages: bool,
    steps: Vec<(usize, Step)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Packet {
    Rw { len: u32, ends: bool },
    Update,
    Request,
}

#[derive(Debug)]
struct Side {
    setup: Setup,
    tx: TxCredit,
    rx: RxCredit,
    /// Made, and not with the peer.
    queue: VecDeque<Packet>,
    /// On its way to the peer.
    wire: VecDeque<(Packet, Stamp)>,
    /// What is left of the message that is being sent.
    message: Option<u32>,
    writer_waits: bool,
    /// Received, and not read: bytes of each packet, and whether a message ends with it.
    unread: VecDeque<(u32, bool)>,
    /// C: bytes of the first packet that were read; they do not count as freed before all are.
    partly_read: u32,
    reader_waits: bool,
    /// `CREDIT_UPDATE`s that were not asked for, and all `CREDIT_REQUEST`s.
    updates: u64,
    requests: u64,
    freed: u64,
}

impl Side {
    fn new(setup: &Setup) -> Self {
        let cap = if setup.capped { setup.size } else { u32::MAX };
        Self {
            setup: setup.clone(),
            tx: TxCredit::after(u32::MAX - 70_000, cap),
            rx: RxCredit::after(u32::MAX - 70_000, setup.size),
            queue: VecDeque::new(),
            wire: VecDeque::new(),
            message: None,
            writer_waits: false,
            unread: VecDeque::new(),
            partly_read: 0,
            reader_waits: false,
            updates: 0,
            requests: 0,
            freed: 0,
        }
    }

    fn unread_bytes(&self) -> u32 {
        self.unread.iter().map(|(len, _)| len).sum::<u32>() - self.partly_read
    }

    /// Says how much room there is, when that goes out. Nothing to do if it is in the queue.
    fn queue_update(&mut self) -> bool {
        let new = !self.queue.contains(&Packet::Update);
        if new {
            self.queue.push_back(Packet::Update);
        }
        new
    }

    fn tell(&mut self, worth_it: bool) {
        if worth_it && self.queue_update() {
            self.updates += 1;
        }
    }

    fn naive(&self) -> TxCredit {
        let mut tx = TxCredit::new(0);
        tx.set_peer_buf_alloc_hint(u32::MAX);
        tx
    }

    fn after_read(&mut self) {
        let (lowat, left) = (self.setup.lowat, self.unread_bytes());
        let worth_it = match self.setup.rule {
            Rule::Ours => self.rx.update_after_read(&self.tx, lowat),
            Rule::Naive => self.rx.update_after_read(&self.naive(), lowat),
            Rule::C => {
                let untold = self.rx.untold();
                let free = self.rx.buf_alloc().saturating_sub(untold);
                untold > 0 && (free < MAX_PKT_BUF_SIZE || left < lowat)
            }
        };
        self.tell(worth_it);
    }

    fn before_wait(&mut self) {
        let worth_it = match self.setup.rule {
            Rule::Ours => self.rx.update_before_wait(&self.tx),
            Rule::Naive => self.rx.update_before_wait(&self.naive()),
            Rule::C => false,
        };
        self.tell(worth_it);
    }

    /// What the writer cannot go on without.
    fn need(&self) -> u32 {
        let left = self.message.unwrap_or(0);
        match self.setup.writer {
            Writer::Bytes => 1,
            Writer::Packet => left.min(MAX_PKT_BUF_SIZE).min(self.tx.window()).max(1),
            Writer::Message => left,
        }
    }

    fn changed(&mut self, change: CreditChange) {
        self.writer_waits &= !change.wake;
        if change.resized && self.setup.rule != Rule::C {
            self.after_read();
        }
    }
}

struct World {
    sides: [Side; 2],
    messages: bool,
}

impl World {
    fn new(case: &Case) -> Self {
        let [a, b] = &case.sides;
        let mut this = Self {
            sides: [Side::new(a), Side::new(b)],
            messages: case.messages,
        };
        for side in 0..2 {
            this.hear_now(side);
        }
        this
    }

    /// What a side says reaches the other one at once.
    fn hear_now(&mut self, from: usize) {
        let stamp = self.sides[from].rx.stamp();
        let to = &mut self.sides[1 - from];
        let change = to.tx.peer_update(stamp.buf_alloc, stamp.fwd_cnt);
        to.changed(change.unwrap());
    }

    /// Lets the writer send what it can, and returns whether that was something.
    fn write(&mut self, side: usize, want: u32) -> bool {
        let s = &mut self.sides[side];
        if s.writer_waits {
            return false;
        }
        let window = s.tx.window();
        let most = if self.messages { window.max(1) } else { want };
        let len = *s.message.get_or_insert(want.clamp(1, most.max(1)));
        if s.setup.writer == Writer::Message && len > window {
            // `EMSGSIZE`: the window has shrunk.
            s.message = None;
            return true;
        }
        let all = match s.setup.writer {
            Writer::Bytes => s.tx.reserve(len.min(MAX_PKT_BUF_SIZE)),
            Writer::Packet if s.tx.space() < s.need() => 0,
            Writer::Packet => s.tx.reserve(len.min(MAX_PKT_BUF_SIZE)),
            Writer::Message if s.tx.reserve_all(len) => len,
            Writer::Message => 0,
        };
        if all == 0 {
            let room = s.tx.look(s.need());
            assert_eq!(room.space, 0);
            s.writer_waits = true;
            let asks = s.setup.rule == Rule::Ours && s.setup.writer != Writer::Packet;
            if room.ask && asks {
                s.queue.push_back(Packet::Request);
                s.requests += 1;
                s.tx.set_asked();
            }
            return true;
        }
        let mut left = all;
        while left > 0 {
            let piece = left.min(MAX_PKT_BUF_SIZE);
            left -= piece;
            let ends = left == 0 && all == len;
            s.queue.push_back(Packet::Rw { len: piece, ends });
        }
        s.message = (all < len).then(|| len - all);
        true
    }

    /// The carrier hands over the next packet.
    fn carry(&mut self, side: usize) -> bool {
        let s = &mut self.sides[side];
        let Some(packet) = s.queue.pop_front() else {
            return false;
        };
        if let Packet::Rw { len, .. } = packet {
            s.tx.hand_over(len);
            s.tx.sent(len);
        }
        s.wire.push_back((packet, s.rx.stamp()));
        true
    }

    /// The other side takes the next packet.
    fn deliver(&mut self, from: usize) -> bool {
        let Some((packet, stamp)) = self.sides[from].wire.pop_front() else {
            return false;
        };
        let s = &mut self.sides[1 - from];
        let change = s.tx.peer_update(stamp.buf_alloc, stamp.fwd_cnt);
        s.changed(change.expect("an honest peer"));
        match packet {
            Packet::Rw { len, ends } => {
                s.rx.accept(len).expect("a peer that has credit");
                s.unread.push_back((len, ends));
                // Who decides whether to wake the reader looks for it if it is not.
                if s.unread_bytes() < s.setup.lowat {
                    s.before_wait();
                } else {
                    s.reader_waits = false;
                }
            }
            Packet::Update => (),
            Packet::Request => {
                if s.setup.rule == Rule::Ours {
                    s.rx.peer_asks();
                }
                s.queue_update();
            }
        }
        true
    }

    /// Lets the reader look, and read up to `want` bytes, or a message.
    fn read(&mut self, side: usize, want: u32) -> bool {
        let s = &mut self.sides[side];
        if s.reader_waits {
            return false;
        }
        let bytes = s.unread_bytes();
        let nothing = self.messages && !s.unread.iter().any(|(_, ends)| *ends);
        if bytes < s.setup.lowat || nothing {
            s.reader_waits = true;
            s.before_wait();
            return true;
        }
        let mut left = want.clamp(1, bytes);
        loop {
            let (len, ends) = s.unread[0];
            let rest = len - s.partly_read;
            let taken = if self.messages { rest } else { rest.min(left) };
            if taken == rest {
                s.unread.pop_front();
                s.freed += u64::from(len);
                let before = core::mem::take(&mut s.partly_read);
                s.rx.release(if s.setup.rule == Rule::C {
                    len
                } else {
                    len - before
                });
            } else {
                s.partly_read += taken;
                if s.setup.rule != Rule::C {
                    s.rx.release(taken);
                }
            }
            left -= taken.min(left);
            let is_last = if self.messages { ends } else { left == 0 };
            if is_last {
                break;
            }
        }
        if s.setup.rule == Rule::C && self.messages {
            s.tell(true);
        } else {
            s.after_read();
        }
        true
    }

    fn set_lowat(&mut self, side: usize, lowat: u32) {
        let s = &mut self.sides[side];
        s.setup.lowat = lowat.clamp(1, s.rx.buf_alloc());
        let news = s.rx.untold() > 0 && s.unread_bytes() < s.setup.lowat;
        if s.setup.rule == Rule::C {
            s.tell(news);
        } else {
            s.after_read();
        }
        s.reader_waits = false;
    }

    /// The buffer changes its size. It becomes smaller only while nothing is on its way to it: what
    /// was sent by the old size would be too much, and reset the connection.
    fn resize(&mut self, side: usize, size: u32) {
        let size = size.max(1);
        let shrinks = size < self.sides[side].rx.buf_alloc();
        let is_quiet = |s: &Side| s.queue.is_empty() && s.wire.is_empty();
        let fits = self.sides[1 - side].tx.in_flight() <= size;
        if shrinks && !(fits && self.sides.iter().all(is_quiet)) {
            return;
        }
        let s = &mut self.sides[side];
        s.setup.lowat = s.setup.lowat.min(size);
        s.rx.set_buf_alloc(size);
        if s.setup.capped {
            s.writer_waits &= !s.tx.set_cap(size);
        }
        s.queue_update();
        if shrinks {
            self.hear_now(side);
        }
    }

    fn step(&mut self, side: usize, step: &Step) {
        match *step {
            Step::Write(want) => _ = self.write(side, want),
            Step::Carry => _ = self.carry(side),
            Step::Deliver => _ = self.deliver(side),
            Step::Read(want) => _ = self.read(side, want),
            Step::Lowat(lowat) => self.set_lowat(side, lowat),
            Step::Resize(size) => self.resize(side, size),
        }
    }

    /// Lets all go on that can: each writer finishes what it has begun.
    fn settle(&mut self) {
        let mut busy = true;
        while busy {
            busy = false;
            for side in 0..2 {
                while self.carry(side) || self.deliver(side) {
                    busy = true;
                }
                busy |= self.read(side, u32::MAX);
                if self.sides[side].message.is_some() {
                    busy |= self.write(side, 1);
                }
            }
        }
    }

    /// Whether a writer waits for ever, and how that came.
    fn stuck(&self) -> Option<String> {
        for side in 0..2 {
            let (s, peer) = (&self.sides[side], &self.sides[1 - side]);
            if !s.writer_waits || s.message.is_none() {
                continue;
            }
            // What it would find if it knew all.
            let cap = if s.setup.capped {
                s.rx.buf_alloc()
            } else {
                u32::MAX
            };
            let window = peer.rx.buf_alloc().min(cap);
            let room = window.saturating_sub(peer.rx.used());
            if room >= s.need().min(window).max(1) {
                return Some(std::format!("side {side} waits: {s:?}\nfor {peer:?}"));
            }
            // There is none: then nobody reads, for the reader wants more than that.
            assert!(peer.reader_waits);
        }
        None
    }
}

/// What a schedule came to: updates and bytes read, of each side.
fn play(case: &Case) -> Result<[Side; 2], String> {
    let mut world = World::new(case);
    for (side, step) in &case.steps {
        world.step(*side, step);
    }
    // More than fits, so that who can be stuck is.
    for side in 0..2 {
        let all = world.sides[side].tx.window();
        for _ in 0..3 {
            while world.write(side, all) && world.sides[side].message.is_some() {}
        }
    }
    world.settle();
    match world.stuck() {
        Some(how) => Err(how),
        None => Ok(world.sides),
    }
}

fn sizes() -> impl Strategy<Value = u32> {
    prop_oneof![
        1 => prop::sample::select([1_u32, 2, 3, 7, 8, 100].as_slice()),
        3 => prop::sample::select([4, 64, 128, 256, 1024].as_slice()).prop_map(|k: u32| k * 1024),
        2 => 1..1_u32 << 17,
    ]
}

fn steps(changes: bool) -> impl Strategy<Value = Vec<(usize, Step)>> {
    let change = u32::from(changes);
    let step = prop_oneof![
        8 => prop_oneof![Just(64), Just(4096), Just(65536), sizes()].prop_map(Step::Write),
        8 => Just(Step::Carry),
        8 => Just(Step::Deliver),
        8 => prop_oneof![Just(1), Just(u32::MAX), sizes()].prop_map(Step::Read),
        change => sizes().prop_map(Step::Lowat),
        change => sizes().prop_map(Step::Resize),
    ];
    prop::collection::vec((0..2_usize, step), 0..300)
}

/// Two sides, of which the second one is `other`, if ours do not talk to each other.
fn cases(ours: Rule, other: Rule, writers: &'static [Writer]) -> impl Strategy<Value = Case> {
    let lowat = || prop_oneof![3 => Just(1), 1 => sizes()];
    let side = move |rule: Rule| {
        (
            sizes(),
            lowat(),
            prop::sample::select(writers),
            any::<bool>(),
        )
            .prop_map(move |(size, lowat, writer, capped)| Setup {
                size,
                lowat: lowat.min(size),
                // C knows of no other, and ours is always bounded.
                writer: if rule == Rule::C {
                    Writer::Bytes
                } else {
                    writer
                },
                capped: capped || rule != Rule::C,
                rule,
            })
    };
    let messages = writers.contains(&Writer::Message);
    (side(ours), side(other), steps(true)).prop_map(move |(a, b, steps)| Case {
        sides: [a, b],
        messages,
        steps,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn streams(case in cases(Rule::Ours, Rule::Ours, &[Writer::Bytes])) {
        prop_assert_eq!(play(&case).err(), None);
    }

    #[test]
    fn messages(case in cases(Rule::Ours, Rule::Ours, &[Writer::Message])) {
        prop_assert_eq!(play(&case).err(), None);
    }

    #[test]
    fn whole_packets(case in cases(Rule::Ours, Rule::Ours, &[Writer::Packet])) {
        prop_assert_eq!(play(&case).err(), None);
    }

    #[test]
    fn streams_with_c(case in cases(Rule::Ours, Rule::C, &[Writer::Bytes])) {
        prop_assert_eq!(play(&case).err(), None);
    }

    #[test]
    fn messages_with_c(case in cases(Rule::Ours, Rule::C, &[Writer::Message])) {
        prop_assert_eq!(play(&case).err(), None);
    }

    /// An update brings at least an eighth of the window, so a byte costs only so many of them.
    #[test]
    fn updates_are_few(k in 128..1024_u32, steps in steps(false)) {
        let side = Setup {
            size: k * 1024,
            lowat: 1,
            writer: Writer::Bytes,
            rule: Rule::Ours,
            capped: true,
        };
        let case = Case { sides: [side.clone(), side], messages: false, steps };
        for side in play(&case).unwrap() {
            prop_assert_eq!(side.requests, 0);
            prop_assert!(side.updates * u64::from(k * 1024 / 8) <= side.freed);
        }
    }
}

/// How many of `count` schedules end with a writer that waits for ever.
fn count_stuck(cases: impl Strategy<Value = Case>, count: usize) -> usize {
    let mut runner = TestRunner::deterministic();
    (0..count)
        .filter(|_| play(&cases.new_tree(&mut runner).unwrap().current()).is_err())
        .count()
}

/// What the tests above are worth: with the own buffer for the window, they fail.
#[test]
fn naive_window_is_found() {
    let stuck = count_stuck(cases(Rule::Naive, Rule::Naive, &[Writer::Bytes]), 2000);
    assert!(stuck > 20, "{stuck}");
    let stuck = count_stuck(cases(Rule::Naive, Rule::C, &[Writer::Bytes]), 2000);
    assert!(stuck > 20, "{stuck}");
}

/// A message there and one back: the answer carries the credit. C sends an update each time.
#[test]
fn no_updates_in_a_round_trip() {
    for (rule, expected) in [(Rule::Ours, 0), (Rule::C, 1000)] {
        for len in [1, 64, 4096, 65536] {
            let side = Setup {
                size: 256 * 1024,
                lowat: 1,
                writer: Writer::Bytes,
                rule,
                capped: true,
            };
            let mut world = World::new(&Case {
                sides: [side.clone(), side],
                messages: false,
                steps: Vec::new(),
            });
            for _ in 0..1000 {
                for side in 0..2 {
                    assert!(world.write(side, len));
                    while world.carry(side) || world.deliver(side) {}
                    // It is woken by that, and looks again before it sends or waits.
                    assert!(world.read(1 - side, u32::MAX));
                }
            }
            for side in &world.sides {
                assert_eq!(side.updates, expected, "{rule:?} {len}");
            }
        }
    }
}
