// SPDX-License-Identifier: GPL-2.0

use super::{
    tx::BACKWARD,
    *, //
};
use crate::header::{
    Stamp,
    MAX_PKT_BUF_SIZE, //
};

/// The peer says something; what comes of it is the space, and whether that was stale.
fn say(tx: &mut TxCredit, buf_alloc: u32, fwd_cnt: u32) -> Result<(u32, bool), CreditError> {
    let change = tx.peer_update(buf_alloc, fwd_cnt)?;
    assert_eq!(change.space, tx.space());
    // Nobody has looked.
    assert!(!change.wake);
    Ok((change.space, change.stale))
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
fn whatever_the_peer_says_ends_its_silence() {
    let mut tx = TxCredit::new(100);
    let silence = |peer, writer| Silence { peer, writer };
    assert_eq!(tx.second(true), silence(1, 0));
    assert_eq!(tx.second(true), silence(2, 0));
    assert_eq!(say(&mut tx, 100, 0), Ok((100, false)));
    assert_eq!(tx.second(true), silence(1, 0));
    assert_eq!(say(&mut tx, 100, u32::MAX), Ok((100, true)));
    assert_eq!(tx.second(true), silence(1, 0));
    // Nobody was asked while nobody watched.
    assert_eq!(tx.second(false), silence(0, 0));
    assert_eq!(tx.second(true), silence(1, 0));
}

#[test]
fn a_writer_waits_until_it_is_woken() {
    let mut tx = TxCredit::new(100);
    let silence = |peer, writer| Silence { peer, writer };
    assert_eq!(say(&mut tx, 100, 0), Ok((100, false)));
    assert_eq!(tx.reserve(100), 100);
    tx.hand_over(100);
    assert_eq!(tx.look(1).space, 0);
    assert_eq!(tx.second(false), silence(1, 1));
    // An answer without credit.
    assert_eq!(say(&mut tx, 100, 0), Ok((0, false)));
    assert_eq!(tx.second(false), silence(1, 2));
    assert!(tx.peer_update(100, 1).is_ok_and(|change| change.wake));
    // The next stall is another one, whenever it began.
    assert_eq!((tx.reserve(100), tx.look(1).space), (1, 0));
    assert_eq!(tx.second(true), silence(1, 1));
}

#[test]
fn window_is_the_smaller_buffer() {
    let mut tx = TxCredit::new(100);
    assert_eq!(say(&mut tx, u32::MAX, 0), Ok((100, false)));
    assert_eq!(tx.window(), 100);
    assert_eq!(say(&mut tx, 60, 0), Ok((60, false)));
    assert!(!tx.set_cap(50));
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
        assert_eq!(say(&mut tx, 0, 0), Ok((0, false)));
        assert_eq!(say(&mut tx, u32::MAX, 0), Ok((u32::MAX - 1000, false)));
    }
    assert_eq!(say(&mut tx, 999, 0), Ok((0, false)));
    assert_eq!(say(&mut tx, 999, 1), Ok((0, false)));
    assert_eq!(say(&mut tx, 999, 2), Ok((1, false)));
    assert!(!tx.set_cap(0));
    assert_eq!(tx.space(), 0);
}

#[test]
fn only_what_was_handed_over_comes_back() {
    let mut tx = TxCredit::new(u32::MAX);
    tx.set_peer_buf_alloc_hint(100);
    assert_eq!(tx.reserve(80), 80);
    // Reserved is not enough.
    assert_eq!(say(&mut tx, 100, 1), Err(CreditError::Overrun));
    tx.hand_over(50);
    assert_eq!(say(&mut tx, u32::MAX, 51), Err(CreditError::Overrun));
    // What comes with a lie does not count.
    assert_eq!(tx.window(), 100);
    assert_eq!(say(&mut tx, 100, 50), Ok((70, false)));
    // P20: not even one byte more, and not twice.
    assert_eq!(say(&mut tx, 100, 51), Err(CreditError::Overrun));
    assert_eq!(say(&mut tx, 100, 50), Ok((70, false)));
    tx.unreserve(30);
    assert_eq!((tx.in_flight(), tx.space()), (0, 100));
}

#[test]
fn stepping_backwards_gives_nothing() {
    let mut tx = TxCredit::after(7, u32::MAX);
    tx.set_peer_buf_alloc_hint(100);
    assert_eq!(tx.reserve(60), 60);
    tx.hand_over(60);
    assert_eq!(say(&mut tx, 100, 17), Ok((50, false)));
    // N18: by one in each packet, through zero.
    for fwd_cnt in (0..17).rev() {
        assert_eq!(say(&mut tx, u32::MAX, fwd_cnt), Ok((50, true)));
    }
    for back in 1..20 {
        let fwd_cnt = 0_u32.wrapping_sub(back);
        assert_eq!(say(&mut tx, u32::MAX, fwd_cnt), Ok((50, true)));
    }
    assert_eq!(tx.window(), 100);
    assert_eq!(say(&mut tx, 100, 17 + BACKWARD), Ok((50, true)));
    assert_eq!(
        say(&mut tx, 100, 17 + BACKWARD - 1),
        Err(CreditError::Overrun)
    );
    assert_eq!(say(&mut tx, 100, 67), Ok((100, false)));
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
    assert_eq!(say(&mut tx, 100, 5), Err(CreditError::Overrun));
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
    assert_eq!(say(&mut tx, 100, 41), Err(CreditError::Overrun));
    assert_eq!(say(&mut tx, 100, 30), Ok((70, false)));
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
    assert_eq!(say(&mut tx, u32::MAX, all), Ok((u32::MAX, false)));
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

/// Our books of a connection whose peer has a buffer of `peer` bytes, from which ours, of `size`,
/// was filled with `used` bytes.
fn filled(size: u32, peer: u32, used: u32) -> (TxCredit, RxCredit) {
    let mut tx = TxCredit::new(size);
    tx.set_peer_buf_alloc_hint(peer);
    let mut rx = RxCredit::new(size);
    rx.accept(used).unwrap();
    (tx, rx)
}

const LARGE: u32 = 256 * 1024;

#[test]
fn update_before_the_writer_runs_dry() {
    // One byte before the threshold: 64 KiB are still known to be free.
    let (tx, mut rx) = filled(LARGE, LARGE, LARGE);
    assert!(!rx.update_after_read(&tx, 1) && !rx.update_before_wait(&tx));
    rx.release(LARGE - MAX_PKT_BUF_SIZE);
    let _ = rx.stamp();
    assert_eq!(rx.used(), MAX_PKT_BUF_SIZE);
    rx.release(MAX_PKT_BUF_SIZE);
    assert!(!rx.update_after_read(&tx, 1));
    // The reader found nothing more.
    assert!(rx.update_before_wait(&tx));
    rx.accept(LARGE - MAX_PKT_BUF_SIZE).unwrap();
    rx.release(LARGE - 2 * MAX_PKT_BUF_SIZE);
    assert!(rx.update_after_read(&tx, 1));
    let _ = rx.stamp();
    assert!(!rx.update_after_read(&tx, 1) && !rx.update_before_wait(&tx));
}

/// The queue was emptied: that alone is no reason, as long as the peer sees much room.
#[test]
fn no_update_because_the_queue_is_empty() {
    let (tx, mut rx) = filled(LARGE, LARGE, 64);
    rx.release(64);
    assert!(!rx.update_after_read(&tx, 1) && !rx.update_before_wait(&tx));
    rx.accept(LARGE / 8 - 65).unwrap();
    rx.release(LARGE / 8 - 65);
    assert!(!rx.update_after_read(&tx, 1) && !rx.update_before_wait(&tx));
    rx.accept(1).unwrap();
    rx.release(1);
    assert!(!rx.update_after_read(&tx, 1) && rx.update_before_wait(&tx));
}

/// A writer that was heard out knows of half of the window at least.
#[test]
fn half_of_the_window_is_worth_it_when_all_was_read() {
    let (tx, mut rx) = filled(LARGE, LARGE, LARGE / 2);
    rx.release(LARGE / 2 - 1);
    assert!(!rx.update_after_read(&tx, 1));
    rx.release(1);
    assert!(rx.update_after_read(&tx, 1));
}

/// A full buffer that is read in small pieces: the writer is not woken for each of them.
#[test]
fn half_of_a_full_buffer_is_worth_it() {
    let (tx, mut rx) = filled(LARGE, LARGE, LARGE);
    for _ in 0..127 {
        rx.release(1024);
        assert!(!rx.update_after_read(&tx, 1));
    }
    rx.release(1024);
    assert!(rx.update_after_read(&tx, 1));
    // Unless that is less than the reader wants.
    let (tx, mut rx) = filled(LARGE, LARGE, LARGE);
    rx.release(1);
    assert!(rx.update_after_read(&tx, LARGE) && !rx.update_after_read(&tx, LARGE - 1));
}

/// The smaller one of both buffers is what the peer may fill, wherever it is.
#[test]
fn update_by_the_smaller_buffer() {
    const SMALL: u32 = 4096;
    for (size, peer) in [(1 << 20, SMALL), (SMALL, 1 << 20), (SMALL, SMALL)] {
        let (tx, mut rx) = filled(size, peer, SMALL);
        rx.release(SMALL - 1);
        assert!(rx.update_after_read(&tx, 1), "{size} {peer}");
        let _ = rx.stamp();
        rx.release(1);
        assert!(!rx.update_after_read(&tx, 1));
        assert!(rx.update_before_wait(&tx));
    }
    // A peer that says that it has none never waits long.
    let (tx, mut rx) = filled(SMALL, 0, 1);
    rx.release(1);
    assert!(rx.update_after_read(&tx, 1));
    // A buffer that has grown since the peer was told.
    let (tx, mut rx) = filled(SMALL, 1 << 20, SMALL);
    rx.set_buf_alloc(1 << 20);
    rx.release(SMALL);
    assert!(rx.update_after_read(&tx, 1));
    let _ = rx.stamp();
    rx.accept(SMALL).unwrap();
    rx.release(SMALL);
    assert!(!rx.update_after_read(&tx, 1));
}

#[test]
fn peer_that_asked_is_told_of_each_read() {
    let (tx, mut rx) = filled(LARGE, LARGE, 1000);
    rx.release(1);
    assert!(!rx.update_after_read(&tx, 1));
    rx.peer_asks();
    assert!(rx.update_after_read(&tx, 1) && rx.update_before_wait(&tx));
    let _ = rx.stamp();
    assert!(!rx.update_after_read(&tx, 1) && !rx.update_before_wait(&tx));
    rx.release(1);
    assert!(rx.update_after_read(&tx, 1));
    rx.accept(0).unwrap();
    assert!(rx.update_after_read(&tx, 1));
    rx.accept(1).unwrap();
    assert!(!rx.update_after_read(&tx, 1));
}

/// A packet of ours that waits for room in the ring will tell.
#[test]
fn no_update_before_a_packet_that_tells() {
    let (mut tx, mut rx) = filled(4096, 4096, 4096);
    rx.release(4096);
    assert_eq!(tx.reserve(1), 1);
    assert!(!rx.update_after_read(&tx, 1) && !rx.update_before_wait(&tx));
    tx.unreserve(1);
    assert!(rx.update_after_read(&tx, 1) && rx.update_before_wait(&tx));
}

#[test]
fn writer_is_woken_once_and_only_for_room() {
    let mut tx = TxCredit::new(LARGE);
    tx.set_peer_buf_alloc_hint(1000);
    assert!(tx.reserve_all(1000) && !tx.reserve_all(1));
    tx.hand_over(1000);
    // Nobody looked.
    assert!(!tx.peer_update(1000, 10).unwrap().wake);
    assert_eq!(tx.look(1).space, 10);
    assert!(!tx.peer_update(1000, 11).unwrap().wake);
    // A message that needs more.
    assert_eq!(tx.look(500).space, 0);
    assert!(!tx.peer_update(1000, 499).unwrap().wake);
    assert!(tx.peer_update(1000, 500).unwrap().wake);
    assert!(!tx.peer_update(1000, 600).unwrap().wake);
    // Nobody needs that much any more.
    assert_eq!(tx.look(1000).space, 0);
    assert!(tx.relax(0) && !tx.relax(0));
    // The window shrinks: the message is too long now, and the writer is to be told.
    assert_eq!(tx.look(1000).space, 0);
    assert!(!tx.peer_update(400, 600).unwrap().wake);
    assert!(tx.peer_update(900, 600).unwrap().wake);
    assert_eq!(tx.look(1000).space, 500);
    // Our own buffer is the smaller one, and grows.
    assert!(!tx.set_cap(100));
    assert_eq!(tx.look(0).space, 0);
    assert!(!tx.set_cap(400) && tx.set_cap(401) && !tx.set_cap(402));
}

#[test]
fn peer_is_asked_once_if_it_cannot_know() {
    let mut tx = TxCredit::new(LARGE);
    tx.set_peer_buf_alloc_hint(1000);
    assert!(!tx.look(1).ask);
    assert_eq!(tx.reserve(600), 600);
    tx.hand_over(600);
    // It does not know of the message that does not fit.
    assert!(tx.look(500).ask && tx.look(500).ask);
    tx.set_asked();
    assert!(!tx.look(500).ask);
    assert!(!tx.peer_update(1000, 50).unwrap().wake);
    assert!(!tx.look(500).ask && !tx.reserve_all(500) && !tx.look(500).ask);
    // The stall ends.
    assert_eq!(tx.reserve(1), 1);
    assert!(tx.look(500).ask);
    // It sees that its buffer is full.
    assert_eq!(tx.reserve(u32::MAX), 449);
    assert!(!tx.look(500).ask && !tx.look(1).ask);
    // It does not know that we do not send more than our own buffer has.
    assert!(!tx.set_cap(700));
    assert_eq!(tx.peer_update(1001, 50).unwrap().space, 0);
    assert!(tx.look(1).ask);
    // It has no buffer, as far as we know.
    assert!(!TxCredit::new(LARGE).look(1).ask);
}

#[test]
fn totals_do_not_wrap_with_the_counters() {
    let (mut tx, mut rx) = (
        TxCredit::after(u32::MAX - 9, LARGE),
        RxCredit::after(u32::MAX - 9, LARGE),
    );
    tx.set_peer_buf_alloc_hint(LARGE);
    assert_eq!(tx.reserve(30), 30);
    tx.hand_over(30);
    assert_eq!(tx.total(), u64::from(u32::MAX) + 21);
    // They did not get there.
    tx.take_back(25);
    assert_eq!(tx.total(), u64::from(u32::MAX) - 4);
    tx.hand_over(25);
    assert_eq!(tx.total(), u64::from(u32::MAX) + 21);

    rx.accept(30).unwrap();
    assert_eq!(rx.total(), u64::from(u32::MAX) + 21);
    rx.release(20);
    assert_eq!(rx.total(), u64::from(u32::MAX) + 21);
}
