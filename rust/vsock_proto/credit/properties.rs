// SPDX-License-Identifier: GPL-2.0

//! Both types against models with numbers that do not wrap around.

use super::*;
use proptest::prelude::*;
use std::{
    collections::VecDeque,
    vec::Vec, //
};

/// Something that happens to a sender.
#[derive(Clone, Debug)]
enum TxEvent {
    Reserve(u32),
    Unreserve(u32),
    HandOver(u32),
    TakeBack(u32),
    Sent(u32),
    SetCap(u32),
    Hint(u32),
    /// A writer looks for room.
    Look(u32),
    /// A writer needs no more than this.
    Relax(u32),
    /// The peer has read this many bytes, if it can, and says so.
    Read(u32, u32),
    /// The peer says anything.
    Say(u32, u32),
    /// The peer says something that is nearly true.
    SayNear(u32, i32),
}

/// Numbers near the places where something might go wrong.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => 0..2000_u32,
        1 => any::<u32>(),
        1 => (0..4_u32, 0..32_u32).prop_map(|(n, shift)| (1_u32 << shift).wrapping_sub(n)),
        1 => (0..2000_u32).prop_map(|n| u32::MAX - n),
    ]
}

fn tx_event() -> impl Strategy<Value = TxEvent> {
    prop_oneof![
        6 => number().prop_map(TxEvent::Reserve),
        2 => number().prop_map(TxEvent::Unreserve),
        6 => number().prop_map(TxEvent::HandOver),
        1 => number().prop_map(TxEvent::TakeBack),
        2 => number().prop_map(TxEvent::Sent),
        1 => number().prop_map(TxEvent::SetCap),
        1 => number().prop_map(TxEvent::Hint),
        2 => number().prop_map(TxEvent::Look),
        1 => number().prop_map(TxEvent::Relax),
        6 => (number(), number()).prop_map(|(b, n)| TxEvent::Read(b, n)),
        2 => (number(), number()).prop_map(|(b, n)| TxEvent::Say(b, n)),
        2 => (number(), -3..=3_i32).prop_map(|(b, d)| TxEvent::SayNear(b, d)),
    ]
}

/// The same as `TxCredit`, with numbers that do not wrap around.
struct TxModel {
    tx: u64,
    handed: u64,
    returned: u64,
    unsent: u64,
    peer: u64,
    cap: u64,
    /// What a writer needs that found no room.
    lacking: Option<u64>,
}

impl TxModel {
    fn window(&self) -> u64 {
        self.peer.min(self.cap)
    }

    fn space(&self) -> u64 {
        self.window().saturating_sub(self.tx - self.returned)
    }

    /// Whether a writer that needs `need` bytes can go on, or is to be told that it never can.
    fn may_go_on(&self, need: u64) -> bool {
        self.space() > 0 && (self.space() >= need || need > self.window())
    }

    /// Whether a writer that found no room is to be woken.
    fn wakes(&mut self) -> bool {
        let wakes = self.lacking.is_some_and(|need| self.may_go_on(need));
        if wakes {
            self.lacking = None;
        }
        wakes
    }

    fn check(&self, tx: &TxCredit) {
        assert_eq!(u64::from(tx.window()), self.window());
        assert_eq!(u64::from(tx.in_flight()), self.tx - self.returned);
        assert_eq!(u64::from(tx.reserved()), self.tx - self.handed);
        assert_eq!(u64::from(tx.unreturned()), self.handed - self.returned);
        assert_eq!(u64::from(tx.space()), self.space());
        assert_eq!(u64::from(tx.unsent()), self.unsent);
        assert!(tx.space() <= tx.window());
        assert!(self.returned <= self.handed && self.handed <= self.tx);
    }

    /// The peer says something.
    fn say(&mut self, tx: &mut TxCredit, buf_alloc: u32, fwd_cnt: u32) {
        let before = self.space();
        // Of all the numbers that look like this one, is there one that may be true?
        let may_be =
            candidates(self.returned, fwd_cnt).find(|n| (self.returned..=self.handed).contains(n));
        match (tx.peer_update(buf_alloc, fwd_cnt), may_be) {
            (Ok(change), Some(n)) => {
                assert!(!change.stale);
                self.returned = n;
                let peer = core::mem::replace(&mut self.peer, u64::from(buf_alloc));
                assert_eq!(u64::from(change.space), self.space());
                assert_eq!(change.wake, self.wakes());
                assert_eq!(change.resized, self.peer != peer);
            }
            (Ok(change), None) => {
                assert!(change.stale && !change.wake && !change.resized);
                assert_eq!(u64::from(change.space), before);
            }
            (Err(CreditError::Overrun), None) => (),
            (Err(e), Some(n)) => panic!("{e:?} for {n}"),
        }
    }
}

/// The numbers near `from` that look like `low`: one of them is at most 2^32 - 1 above `from`.
fn candidates(from: u64, low: u32) -> impl Iterator<Item = u64> {
    let turn = 1_u64 << 32;
    let base = from / turn * turn + u64::from(low);
    [base, base + turn].into_iter()
}

/// An honest connection: what is under way in each direction.
#[derive(Clone, Debug)]
enum PairEvent {
    /// The sender sends up to this many bytes.
    Send(u32),
    /// The receiver takes the next packet.
    Take,
    /// The user reads up to this many bytes.
    Read(u32),
    /// The receiver sends its credit if that is worth it.
    MayTell(bool),
    /// The sender takes one of the packets with credit, perhaps not the oldest.
    Hear(bool),
    /// The receiver's buffer grows.
    Grow(u32),
}

fn pair_event() -> impl Strategy<Value = PairEvent> {
    prop_oneof![
        4 => (0..200_000_u32).prop_map(PairEvent::Send),
        4 => Just(PairEvent::Take),
        4 => (0..200_000_u32).prop_map(PairEvent::Read),
        4 => any::<bool>().prop_map(PairEvent::MayTell),
        4 => any::<bool>().prop_map(PairEvent::Hear),
        1 => (0..1000_u32).prop_map(PairEvent::Grow),
    ]
}

/// Something that happens to a receiver.
#[derive(Clone, Debug)]
enum RxEvent {
    Accept(u32),
    Release(u32),
    Stamp,
    Asks,
    SetBufAlloc(u32),
}

fn rx_event() -> impl Strategy<Value = RxEvent> {
    prop_oneof![
        4 => number().prop_map(RxEvent::Accept),
        4 => number().prop_map(RxEvent::Release),
        2 => Just(RxEvent::Stamp),
        1 => Just(RxEvent::Asks),
        1 => number().prop_map(RxEvent::SetBufAlloc),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn sender_against_liars(
        start in number(),
        cap in number(),
        events in proptest::collection::vec(tx_event(), 0..200),
    ) {
        let mut tx = TxCredit::after(start, cap);
        let start = u64::from(start);
        let mut model = TxModel {
            tx: start,
            handed: start,
            returned: start,
            unsent: 0,
            peer: 0,
            cap: u64::from(cap),
            lacking: None,
        };
        model.check(&tx);

        for event in events {
            match event {
                TxEvent::Reserve(want) => {
                    let space = model.space();
                    let granted = u64::from(tx.reserve(want));
                    prop_assert_eq!(granted, space.min(u64::from(want)));
                    model.tx += granted;
                    model.unsent = (model.unsent + granted).min(u64::from(u32::MAX));
                    if granted > 0 {
                        prop_assert!(model.tx - model.returned <= model.window());
                    }
                }
                TxEvent::Unreserve(n) => {
                    tx.unreserve(n);
                    let n = u64::from(n).min(model.tx - model.handed);
                    model.tx -= n;
                    model.unsent = model.unsent.saturating_sub(n);
                }
                TxEvent::HandOver(n) => {
                    tx.hand_over(n);
                    model.handed += u64::from(n).min(model.tx - model.handed);
                }
                TxEvent::TakeBack(n) => {
                    tx.take_back(n);
                    model.handed -= u64::from(n).min(model.handed - model.returned);
                }
                TxEvent::Sent(n) => {
                    tx.sent(n);
                    model.unsent = model.unsent.saturating_sub(u64::from(n));
                }
                TxEvent::SetCap(cap) => {
                    model.cap = u64::from(cap);
                    prop_assert_eq!(tx.set_cap(cap), model.wakes());
                }
                TxEvent::Hint(peer) => {
                    tx.set_peer_buf_alloc_hint(peer);
                    model.peer = u64::from(peer);
                }
                TxEvent::Look(need) => {
                    let need = u64::from(need).max(1);
                    let room = tx.look(need as u32);
                    prop_assert_eq!(room.space > 0, model.may_go_on(need));
                    if room.space > 0 {
                        prop_assert_eq!(u64::from(room.space), model.space());
                        prop_assert!(!room.ask);
                    } else {
                        let known = model.peer > model.tx - model.returned;
                        prop_assert_eq!(room.ask, known);
                        model.lacking = Some(need);
                    }
                }
                TxEvent::Relax(need) => {
                    let need = u64::from(need).max(1);
                    model.lacking = model.lacking.map(|lacking| lacking.min(need));
                    prop_assert_eq!(tx.relax(need as u32), model.wakes());
                }
                TxEvent::Read(buf_alloc, n) => {
                    let n = u64::from(n).min(model.handed - model.returned);
                    let now = model.returned + n;
                    model.say(&mut tx, buf_alloc, now as u32);
                    prop_assert_eq!(model.returned, now);
                }
                TxEvent::Say(buf_alloc, fwd_cnt) => model.say(&mut tx, buf_alloc, fwd_cnt),
                TxEvent::SayNear(buf_alloc, d) => {
                    let handed = model.handed as u32;
                    model.say(&mut tx, buf_alloc, handed.wrapping_add_signed(d));
                }
            }
            model.check(&tx);
        }
    }

    #[test]
    fn receiver_counts_right(
        start in number(),
        buf_alloc in number(),
        peer in number(),
        lowat in number(),
        events in proptest::collection::vec(rx_event(), 0..200),
    ) {
        let mut tx = TxCredit::new(buf_alloc);
        tx.set_peer_buf_alloc_hint(peer);
        let lowat = lowat.max(1);
        let mut told_size = u64::from(buf_alloc);
        let mut asked = false;
        let mut rx = RxCredit::after(start, buf_alloc);
        let (mut size, mut used) = (u64::from(buf_alloc), 0_u64);
        let mut read = u64::from(start);
        let mut told = read;

        for event in events {
            match event {
                RxEvent::Accept(len) => {
                    let fits = used + u64::from(len) <= size;
                    prop_assert_eq!(rx.accept(len).is_ok(), fits);
                    if fits {
                        used += u64::from(len);
                        asked &= len == 0;
                    }
                }
                RxEvent::Release(len) => {
                    rx.release(len);
                    let len = used.min(u64::from(len));
                    used -= len;
                    read += len;
                }
                RxEvent::Stamp => {
                    let stamp = rx.stamp();
                    prop_assert_eq!(u64::from(stamp.buf_alloc), size);
                    prop_assert_eq!(stamp.fwd_cnt, read as u32);
                    told = read;
                    told_size = size;
                }
                RxEvent::Asks => {
                    rx.peer_asks();
                    asked = true;
                }
                RxEvent::SetBufAlloc(buf_alloc) => {
                    rx.set_buf_alloc(buf_alloc);
                    size = u64::from(buf_alloc);
                }
            }
            let untold = (read - told) as u32;
            prop_assert_eq!(u64::from(rx.used()), used);
            prop_assert_eq!(rx.untold(), untold);
            prop_assert_eq!(rx.peek_stamp().fwd_cnt, read as u32);
            let window = size.min(told_size).min(u64::from(peer));
            let n = u64::from(untold);
            let view = window.saturating_sub(used + n);
            let (lowat, half) = (u64::from(lowat), window / 2);
            let [dry, much, low] = [view < half.min(65536), n >= half, used < lowat].map(u8::from);
            let asleep = window < n + lowat;
            let after = n != 0 && (asked || dry + much + low >= 2 || asleep);
            prop_assert_eq!(rx.update_after_read(&tx, lowat as u32), after);
            let before = n != 0 && (asked || n >= window / 8 || view < 65536);
            prop_assert_eq!(rx.update_before_wait(&tx), before);
        }
    }

    /// Two honest sides never quarrel, whatever overtakes what, and never get stuck.
    #[test]
    fn honest_pair(
        start in number(),
        cap in 1..300_000_u32,
        buf_alloc in 1..300_000_u32,
        events in proptest::collection::vec(pair_event(), 0..300),
    ) {
        let mut tx = TxCredit::after(start, cap);
        let mut rx = RxCredit::after(start, buf_alloc);
        let mut data = VecDeque::new();
        let mut credit = Vec::from([rx.stamp()]);

        for event in events {
            match event {
                PairEvent::Send(want) => {
                    let n = tx.reserve(want);
                    let handed = n - n / 8;
                    tx.hand_over(handed);
                    tx.unreserve(n - handed);
                    data.push_back(handed);
                }
                PairEvent::Take => {
                    if let Some(len) = data.pop_front() {
                        prop_assert_eq!(rx.accept(len), Ok(()));
                    }
                }
                PairEvent::Read(len) => rx.release(len),
                PairEvent::MayTell(waits) => {
                    let other = TxCredit::new(0);
                    let worth_it = if waits {
                        rx.update_before_wait(&other)
                    } else {
                        rx.update_after_read(&other, 1)
                    };
                    if worth_it {
                        credit.push(rx.stamp());
                    }
                }
                PairEvent::Hear(oldest) => {
                    if !credit.is_empty() {
                        let at = if oldest { 0 } else { credit.len() / 2 };
                        let stamp = credit.remove(at);
                        prop_assert!(tx.peer_update(stamp.buf_alloc, stamp.fwd_cnt).is_ok());
                    }
                }
                PairEvent::Grow(by) => rx.set_buf_alloc(rx.buf_alloc() + by),
            }
        }

        // Everything arrives, everything is read, everything is told.
        for len in data {
            prop_assert_eq!(rx.accept(len), Ok(()));
        }
        rx.release(u32::MAX);
        credit.push(rx.stamp());
        for stamp in credit {
            prop_assert!(tx.peer_update(stamp.buf_alloc, stamp.fwd_cnt).is_ok());
        }
        prop_assert_eq!(tx.in_flight(), 0);
        prop_assert_eq!(tx.space(), cap.min(rx.buf_alloc()));
    }
}
