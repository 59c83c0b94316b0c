// SPDX-License-Identifier: GPL-2.0

use super::*;
use proptest::prelude::*;
use std::{
    collections::VecDeque,
    vec::Vec, //
};

impl TxCredit {
    /// A connection that has already moved `n` bytes.
    fn after(n: u32, buf_alloc_cap: u32) -> Self {
        Self {
            tx_cnt: n,
            handed: n,
            peer_fwd_cnt: n,
            ..Self::new(buf_alloc_cap)
        }
    }
}

impl RxCredit {
    /// A connection that has already moved `n` bytes.
    fn after(n: u32, buf_alloc: u32) -> Self {
        Self {
            fwd_cnt: n,
            last_fwd_cnt: n,
            ..Self::new(buf_alloc)
        }
    }
}

fn change(space: u32, grew: bool, stale: bool) -> Result<CreditChange, CreditError> {
    Ok(CreditChange { space, grew, stale })
}

#[test]
fn nothing_before_the_peer_spoke() {
    let mut tx = TxCredit::new(u32::MAX);
    assert_eq!((tx.window(), tx.space(), tx.in_flight()), (0, 0, 0));
    assert_eq!(tx.reserve(1), 0);
    tx.set_peer_buf_alloc_hint(10);
    assert_eq!(tx.space(), 10);
}

#[test]
fn window_is_the_smaller_buffer() {
    let mut tx = TxCredit::new(100);
    assert_eq!(tx.peer_update(u32::MAX, 0), change(100, true, false));
    assert_eq!(tx.window(), 100);
    assert_eq!(tx.peer_update(60, 0), change(60, false, false));
    tx.set_cap(50);
    assert_eq!((tx.window(), tx.reserve(u32::MAX)), (50, 50));
    assert_eq!(tx.reserve(u32::MAX), 0);
}

#[test]
fn shrinking_below_what_is_in_flight() {
    let mut tx = TxCredit::new(u32::MAX);
    tx.set_peer_buf_alloc_hint(1000);
    assert_eq!(tx.reserve(1000), 1000);
    tx.hand_over(1000);
    // N19: toggle.
    for _ in 0..3 {
        assert_eq!(tx.peer_update(0, 0), change(0, false, false));
        assert_eq!(
            tx.peer_update(u32::MAX, 0),
            change(u32::MAX - 1000, true, false)
        );
    }
    assert_eq!(tx.peer_update(999, 0), change(0, false, false));
    assert_eq!(tx.peer_update(999, 1), change(0, false, false));
    assert_eq!(tx.peer_update(999, 2), change(1, true, false));
    tx.set_cap(0);
    assert_eq!(tx.space(), 0);
}

#[test]
fn only_what_was_handed_over_comes_back() {
    let mut tx = TxCredit::new(u32::MAX);
    tx.set_peer_buf_alloc_hint(100);
    assert_eq!(tx.reserve(80), 80);
    // Reserved is not enough.
    assert_eq!(tx.peer_update(100, 1), Err(CreditError::Overrun));
    tx.hand_over(50);
    assert_eq!(tx.peer_update(u32::MAX, 51), Err(CreditError::Overrun));
    // What comes with a lie does not count.
    assert_eq!(tx.window(), 100);
    assert_eq!(tx.peer_update(100, 50), change(70, true, false));
    // P20: not even one byte more, and not twice.
    assert_eq!(tx.peer_update(100, 51), Err(CreditError::Overrun));
    assert_eq!(tx.peer_update(100, 50), change(70, false, false));
    tx.unreserve(30);
    assert_eq!((tx.in_flight(), tx.space()), (0, 100));
}

#[test]
fn stepping_backwards_gives_nothing() {
    let mut tx = TxCredit::after(7, u32::MAX);
    tx.set_peer_buf_alloc_hint(100);
    assert_eq!(tx.reserve(60), 60);
    tx.hand_over(60);
    assert_eq!(tx.peer_update(100, 17), change(50, true, false));
    // N18: by one in each packet, through zero.
    for fwd_cnt in (0..17).rev() {
        assert_eq!(tx.peer_update(u32::MAX, fwd_cnt), change(50, false, true));
    }
    for back in 1..20 {
        let fwd_cnt = 0_u32.wrapping_sub(back);
        assert_eq!(tx.peer_update(u32::MAX, fwd_cnt), change(50, false, true));
    }
    assert_eq!(tx.window(), 100);
    assert_eq!(tx.peer_update(100, 17 + BACKWARD), change(50, false, true));
    assert_eq!(
        tx.peer_update(100, 17 + BACKWARD - 1),
        Err(CreditError::Overrun)
    );
    assert_eq!(tx.peer_update(100, 67), change(100, true, false));
}

#[test]
fn more_than_is_reserved_is_ignored() {
    let mut tx = TxCredit::new(u32::MAX);
    tx.set_peer_buf_alloc_hint(100);
    assert_eq!(tx.reserve(10), 10);
    tx.hand_over(4);
    tx.unreserve(7);
    assert_eq!((tx.in_flight(), tx.unsent()), (4, 4));
    tx.hand_over(1);
    assert_eq!(tx.peer_update(100, 5), Err(CreditError::Overrun));
    tx.sent(5);
    assert_eq!(tx.unsent(), 0);
}

#[test]
fn taken_back_is_reserved_again() {
    let mut tx = TxCredit::new(u32::MAX);
    tx.set_peer_buf_alloc_hint(100);
    assert_eq!(tx.reserve(60), 60);
    tx.hand_over(60);
    tx.take_back(20);
    assert_eq!(tx.peer_update(100, 41), Err(CreditError::Overrun));
    assert_eq!(tx.peer_update(100, 30), change(70, true, false));
    // Only 10 are still in the peer's hands.
    tx.take_back(20);
    assert_eq!((tx.reserved(), tx.unreturned()), (30, 0));
    tx.unreserve(30);
    assert_eq!((tx.in_flight(), tx.space()), (0, 100));
}

#[test]
fn largest_window() {
    let mut tx = TxCredit::after(u32::MAX - 3, u32::MAX);
    tx.set_peer_buf_alloc_hint(u32::MAX);
    assert_eq!(tx.reserve(u32::MAX), u32::MAX);
    assert_eq!((tx.space(), tx.in_flight()), (0, u32::MAX));
    tx.hand_over(u32::MAX);
    let all = (u32::MAX - 3).wrapping_add(u32::MAX);
    assert_eq!(tx.peer_update(u32::MAX, all), change(u32::MAX, true, false));
    assert_eq!(tx.in_flight(), 0);
}

#[test]
fn buffer_is_never_overfull() {
    let mut rx = RxCredit::new(100);
    assert_eq!(rx.accept(0), Ok(()));
    assert_eq!(rx.accept(100), Ok(()));
    assert_eq!(rx.accept(0), Ok(()));
    assert_eq!(rx.accept(1), Err(Overflow));
    assert_eq!(rx.accept(u32::MAX), Err(Overflow));
    rx.release(1);
    assert_eq!(rx.accept(2), Err(Overflow));
    assert_eq!(rx.accept(1), Ok(()));
    rx.set_buf_alloc(50);
    assert_eq!((rx.used(), rx.buf_alloc()), (100, 50));
    assert_eq!(rx.accept(0), Err(Overflow));
    rx.release(50);
    assert_eq!(rx.accept(0), Ok(()));
    assert_eq!(rx.accept(1), Err(Overflow));

    let mut rx = RxCredit::new(u32::MAX);
    assert_eq!(rx.accept(u32::MAX), Ok(()));
    assert_eq!(rx.accept(1), Err(Overflow));
}

#[test]
fn release_is_bounded() {
    let mut rx = RxCredit::after(u32::MAX - 1, 100);
    rx.accept(10).unwrap();
    rx.release(11);
    assert_eq!((rx.used(), rx.untold()), (0, 10));
    assert_eq!(rx.peek_stamp().fwd_cnt, 8);
    rx.release(u32::MAX);
    assert_eq!((rx.used(), rx.untold()), (0, 10));
}

#[test]
fn stamp_tells() {
    let mut rx = RxCredit::new(100);
    rx.accept(10).unwrap();
    rx.release(10);
    let stamp = Stamp {
        buf_alloc: 100,
        fwd_cnt: 10,
    };
    assert_eq!(rx.peek_stamp(), stamp);
    assert_eq!(rx.untold(), 10);
    assert_eq!(rx.stamp(), stamp);
    assert_eq!(rx.untold(), 0);
}

#[test]
fn update_only_if_worth_it() {
    const LARGE: u32 = 256 * 1024;
    let mut rx = RxCredit::new(LARGE);
    assert!(!rx.should_update(false) && !rx.should_update(true));

    // One byte before the threshold: 64 KiB are still known to be free.
    rx.accept(LARGE).unwrap();
    rx.release(LARGE - MAX_PKT_BUF_SIZE);
    assert!(!rx.should_update(false) && rx.should_update(true));
    rx.release(1);
    assert!(rx.should_update(false));
    let _ = rx.stamp();
    assert!(!rx.should_update(false) && !rx.should_update(true));

    // A small buffer: each byte is worth it.
    let mut rx = RxCredit::new(MAX_PKT_BUF_SIZE);
    rx.accept(1).unwrap();
    assert!(!rx.should_update(true));
    rx.release(1);
    assert!(rx.should_update(false));

    // A buffer that is smaller than what the peer was not told of.
    let mut rx = RxCredit::new(LARGE);
    rx.accept(LARGE).unwrap();
    rx.release(LARGE);
    rx.set_buf_alloc(1);
    assert!(rx.should_update(false));
}

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
}

impl TxModel {
    fn window(&self) -> u64 {
        self.peer.min(self.cap)
    }

    fn space(&self) -> u64 {
        self.window().saturating_sub(self.tx - self.returned)
    }

    fn check(&self, tx: &TxCredit) {
        assert_eq!(u64::from(tx.window()), self.window());
        assert_eq!(u64::from(tx.in_flight()), self.tx - self.returned);
        assert_eq!(u64::from(tx.reserved()), self.tx - self.handed);
        assert_eq!(u64::from(tx.unreturned()), self.handed - self.returned);
        assert_eq!(u64::from(tx.space()), self.space());
        assert_eq!(tx.unsent(), self.unsent);
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
                self.peer = u64::from(buf_alloc);
                assert_eq!(u64::from(change.space), self.space());
                assert_eq!(change.grew, self.space() > before);
                assert_eq!(change.has_space(), self.space() > 0);
            }
            (Ok(change), None) => {
                assert!(change.stale && !change.grew);
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
    SetBufAlloc(u32),
}

fn rx_event() -> impl Strategy<Value = RxEvent> {
    prop_oneof![
        4 => number().prop_map(RxEvent::Accept),
        4 => number().prop_map(RxEvent::Release),
        2 => Just(RxEvent::Stamp),
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
        };
        model.check(&tx);

        for event in events {
            match event {
                TxEvent::Reserve(want) => {
                    let space = model.space();
                    let granted = u64::from(tx.reserve(want));
                    prop_assert_eq!(granted, space.min(u64::from(want)));
                    model.tx += granted;
                    model.unsent += granted;
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
                    tx.set_cap(cap);
                    model.cap = u64::from(cap);
                }
                TxEvent::Hint(peer) => {
                    tx.set_peer_buf_alloc_hint(peer);
                    model.peer = u64::from(peer);
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
        events in proptest::collection::vec(rx_event(), 0..200),
    ) {
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
            prop_assert_eq!(rx.should_update(true), untold != 0);
            let little = size.saturating_sub(u64::from(untold)) < 65536;
            prop_assert_eq!(rx.should_update(false), untold != 0 && little);
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
                PairEvent::MayTell(low) => {
                    if rx.should_update(low) {
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
