// SPDX-License-Identifier: GPL-2.0

//! Credit: how much one side may send without the other side losing any of it.
//!
//! Each side has a receive buffer for a connection and says in every packet how large it is
//! (`buf_alloc`) and how many bytes have left it so far (`fwd_cnt`). The sender counts what it
//! sends, and so knows how much is free. `fwd_cnt` wraps around at 2^32: only differences have a
//! meaning.
//!
//! Each connection has one [`TxCredit`], fed with what the peer says, and one [`RxCredit`], from
//! which comes what the peer is told. They are the only place with arithmetic on these numbers,
//! which may be lies. What a lie can bring:
//!
//! - The peer gets back only credit for bytes that were put into its hands
//!   ([`TxCredit::hand_over`]), each of them once. A count beyond that is an error, for which the
//!   connection is to be reset.
//! - A `buf_alloc` can be anything, and change at any time. At most our own buffer size is ever in
//!   flight, and a buffer that shrinks below what is in flight just means: no space.
//! - A packet whose `fwd_cnt` is older than the last one changes nothing. It need not be a lie: two
//!   threads of an honest peer may send in another order than they stamped.
//!
//! Neither type has a lock. What the C code keeps under `tx_lock` is [`TxCredit`], and under
//! `rx_lock` [`RxCredit`].
//!
//! Specification: virtio 1.3, section 5.10.6.3 "Buffer Space Management".

use crate::header::MAX_PKT_BUF_SIZE;
use core::fmt; //

/// Differences from here on are steps back.
const BACKWARD: u32 = 1 << 31;

/// Why what the peer says about its buffer cannot be true.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CreditError {
    /// It has read more bytes than it was given.
    Overrun,
}

impl fmt::Display for CreditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overrun => "the peer returned credit for bytes that it never got",
        })
    }
}

/// The peer sent more than fits into the buffer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Overflow;

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the peer sent more than it has credit for")
    }
}

/// What [`TxCredit::peer_update`] changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CreditChange {
    /// How many bytes may be sent now.
    pub space: u32,
    /// There is more space than before: a writer that waits for some has a reason to look.
    pub grew: bool,
    /// The packet was older than one before it; nothing changed.
    pub stale: bool,
}

impl CreditChange {
    /// Whether anything may be sent now.
    #[inline]
    pub const fn has_space(&self) -> bool {
        self.space > 0
    }
}

/// The credit that we have with the peer.
///
/// A byte is first reserved ([`TxCredit::reserve`]), then either given back
/// ([`TxCredit::unreserve`]) or put into the peer's hands ([`TxCredit::hand_over`]), who returns
/// the credit some time later ([`TxCredit::peer_update`]).
///
/// # Invariants
///
/// Going around the circle of 2^32 numbers from `peer_fwd_cnt` one meets `handed`, then `tx_cnt`,
/// before `peer_fwd_cnt` again. (They may be equal.) Thus
/// `handed - peer_fwd_cnt <= tx_cnt - peer_fwd_cnt < 2^32`.
///
/// # Examples
///
/// ```
/// use vsock_proto::credit::{CreditError, TxCredit};
///
/// let mut tx = TxCredit::new(4096);
/// assert!(tx.peer_update(1000, 0)?.has_space());
/// assert_eq!(tx.reserve(1500), 1000);
/// tx.unreserve(400);
/// tx.hand_over(600);
///
/// assert_eq!(tx.peer_update(1000, 200)?.space, 600);
/// assert_eq!(tx.peer_update(1000, 601), Err(CreditError::Overrun));
/// # Ok::<(), CreditError>(())
/// ```
#[doc(alias = "virtio_vsock_sock")]
#[derive(Clone, Debug)]
pub struct TxCredit {
    /// Bytes reserved so far, less those given back.
    tx_cnt: u32,
    /// Bytes put into the peer's hands so far.
    handed: u32,
    /// Bytes that have left the peer's buffer so far, as far as we believe.
    peer_fwd_cnt: u32,
    /// Size of the peer's buffer, as the peer says.
    peer_buf_alloc: u32,
    /// What we are willing to have in flight: the size of our own buffer.
    cap: u32,
    /// Bytes reserved and not yet sent; not a part of the credit.
    unsent: u64,
}

impl TxCredit {
    /// Makes the credit of a new connection; until the peer has said something, there is none.
    ///
    /// `buf_alloc_cap` is the size of our own receive buffer. The peer cannot make us queue more
    /// than that, whatever size it says its buffer has.
    #[inline]
    pub const fn new(buf_alloc_cap: u32) -> Self {
        // INVARIANT: All three are equal.
        Self {
            tx_cnt: 0,
            handed: 0,
            peer_fwd_cnt: 0,
            peer_buf_alloc: 0,
            cap: buf_alloc_cap,
            unsent: 0,
        }
    }

    /// Returns how many bytes may be in flight. No message may be larger.
    #[doc(alias = "virtio_transport_tx_buf_size")]
    #[inline]
    pub fn window(&self) -> u32 {
        self.peer_buf_alloc.min(self.cap)
    }

    /// Returns how many bytes are reserved, or in the peer's hands and not yet returned.
    #[inline]
    pub const fn in_flight(&self) -> u32 {
        // By the type invariants this is not negative.
        self.tx_cnt.wrapping_sub(self.peer_fwd_cnt)
    }

    /// Returns how many bytes may be reserved.
    ///
    /// That is zero, too, if there are more bytes in flight than the window has since shrunk to.
    #[doc(alias = "virtio_transport_has_space")]
    #[inline]
    pub fn space(&self) -> u32 {
        self.window().saturating_sub(self.in_flight())
    }

    /// Reserves up to `want` bytes and returns how many.
    ///
    /// The caller owes an [`TxCredit::unreserve`] or a [`TxCredit::hand_over`] for each of them.
    #[doc(alias = "virtio_transport_get_credit")]
    #[must_use = "credit that is not used must be given back"]
    #[inline]
    pub fn reserve(&mut self, want: u32) -> u32 {
        let granted = want.min(self.space());
        // INVARIANT: `in_flight() + granted` is at most the window, which is less than 2^32.
        self.tx_cnt = self.tx_cnt.wrapping_add(granted);
        self.unsent = self.unsent.saturating_add(u64::from(granted));
        granted
    }

    /// Gives back `n` bytes that were reserved, and will not be handed over.
    ///
    /// More than is reserved cannot be given back: the rest is ignored.
    #[doc(alias = "virtio_transport_put_credit")]
    #[inline]
    pub fn unreserve(&mut self, n: u32) {
        let n = n.min(self.reserved());
        // INVARIANT: `tx_cnt` goes back at most to `handed`.
        self.tx_cnt = self.tx_cnt.wrapping_sub(n);
        self.unsent = self.unsent.saturating_sub(u64::from(n));
    }

    /// Tells that the peer can see `n` of the reserved bytes from now on.
    ///
    /// To be called *before* that becomes true, as the answer may be quick: before the descriptor
    /// is published in the ring, before the packet is in the queue of a loopback. If it does not
    /// become true after all, [`TxCredit::take_back`]. Not to be called for packets that merely
    /// wait for room in the ring: the peer could return their credit, and make the queue grow for
    /// ever.
    ///
    /// More than is reserved cannot be handed over: the rest is ignored.
    #[inline]
    pub fn hand_over(&mut self, n: u32) {
        let n = n.min(self.reserved());
        // INVARIANT: `handed` goes at most to `tx_cnt`.
        self.handed = self.handed.wrapping_add(n);
    }

    /// Tells that `n` of the bytes that were handed over did not reach the peer: the ring was full.
    ///
    /// They are reserved again. What the peer has returned by now cannot be taken back: it lied,
    /// and the rest is ignored.
    #[inline]
    pub fn take_back(&mut self, n: u32) {
        let n = n.min(self.unreturned());
        // INVARIANT: `handed` goes back at most to `peer_fwd_cnt`.
        self.handed = self.handed.wrapping_sub(n);
    }

    /// Tells that the transport is done with `n` bytes; see [`TxCredit::unsent`].
    #[doc(alias = "virtio_transport_consume_skb_sent")]
    #[inline]
    pub fn sent(&mut self, n: u32) {
        self.unsent = self.unsent.saturating_sub(u64::from(n));
    }

    /// Returns how many bytes were reserved and the transport is not done with (`SIOCOUTQ`).
    #[doc(alias = "virtio_transport_unsent_bytes")]
    #[inline]
    pub const fn unsent(&self) -> u64 {
        self.unsent
    }

    /// Sets what we are willing to have in flight: the size of our own buffer has changed.
    #[inline]
    pub fn set_cap(&mut self, cap: u32) {
        self.cap = cap;
    }

    /// Sets the size of the peer's buffer to what is known from elsewhere, for example from the
    /// listener.
    #[inline]
    pub fn set_peer_buf_alloc_hint(&mut self, buf_alloc: u32) {
        self.peer_buf_alloc = buf_alloc;
    }

    /// Takes what the peer says about its buffer, in each of its packets.
    ///
    /// A `fwd_cnt` that steps back by less than 2^31 is from a packet that was overtaken: nothing
    /// of it counts.
    ///
    /// # Errors
    ///
    /// [`CreditError::Overrun`] if the peer claims to have read more than was handed over. Nothing
    /// changes. The connection is to be reset, or a writer might wait for ever.
    #[doc(alias = "virtio_transport_space_update")]
    #[inline]
    pub fn peer_update(
        &mut self,
        buf_alloc: u32,
        fwd_cnt: u32,
    ) -> Result<CreditChange, CreditError> {
        let before = self.space();
        let returned = fwd_cnt.wrapping_sub(self.peer_fwd_cnt);

        if returned <= self.unreturned() {
            // INVARIANT: `peer_fwd_cnt` goes at most to `handed`.
            self.peer_fwd_cnt = fwd_cnt;
            self.peer_buf_alloc = buf_alloc;
            let space = self.space();
            Ok(CreditChange {
                space,
                grew: space > before,
                stale: false,
            })
        } else if returned >= BACKWARD {
            Ok(CreditChange {
                space: before,
                grew: false,
                stale: true,
            })
        } else {
            Err(CreditError::Overrun)
        }
    }

    /// Bytes that are reserved and not handed over.
    #[inline]
    const fn reserved(&self) -> u32 {
        // By the type invariants this is not negative.
        self.tx_cnt.wrapping_sub(self.handed)
    }

    /// Bytes that are in the peer's hands.
    #[inline]
    const fn unreturned(&self) -> u32 {
        // By the type invariants this is not negative.
        self.handed.wrapping_sub(self.peer_fwd_cnt)
    }
}

/// The credit fields of a packet that we send.
#[must_use = "the peer is considered told"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Size of our receive buffer.
    pub buf_alloc: u32,
    /// How many bytes have left it so far, modulo 2^32.
    pub fwd_cnt: u32,
}

/// The credit that the peer has with us.
///
/// # Invariants
///
/// `fwd_cnt` never counts a byte that was not accepted, nor one twice.
///
/// # Examples
///
/// ```
/// use vsock_proto::credit::{Overflow, RxCredit};
///
/// let mut rx = RxCredit::new(1000);
/// rx.accept(600)?;
/// assert_eq!(rx.accept(401), Err(Overflow));
///
/// rx.release(500);
/// assert_eq!(rx.untold(), 500);
/// assert_eq!(rx.stamp().fwd_cnt, 500);
/// assert_eq!(rx.untold(), 0);
/// # Ok::<(), Overflow>(())
/// ```
#[doc(alias = "virtio_vsock_sock")]
#[derive(Clone, Debug)]
pub struct RxCredit {
    /// Size of our buffer.
    buf_alloc: u32,
    /// Bytes that have left the buffer so far.
    fwd_cnt: u32,
    /// `fwd_cnt` as the peer knows it.
    last_fwd_cnt: u32,
    /// Bytes in the buffer.
    used: u32,
}

impl RxCredit {
    /// Makes the credit of a new connection with a receive buffer of `buf_alloc` bytes.
    #[inline]
    pub const fn new(buf_alloc: u32) -> Self {
        Self {
            buf_alloc,
            fwd_cnt: 0,
            last_fwd_cnt: 0,
            used: 0,
        }
    }

    /// Takes `len` bytes into the buffer.
    ///
    /// # Errors
    ///
    /// [`Overflow`] if they do not fit. Nothing changes. The connection is to be reset, as the peer
    /// will not send them again.
    #[doc(alias = "virtio_transport_inc_rx_pkt")]
    #[inline]
    pub fn accept(&mut self, len: u32) -> Result<(), Overflow> {
        match self.used.checked_add(len) {
            Some(used) if used <= self.buf_alloc => {
                self.used = used;
                Ok(())
            }
            _ => Err(Overflow),
        }
    }

    /// Frees `len` bytes of the buffer, because the reader has taken them.
    ///
    /// More than is in the buffer cannot be freed: the rest is ignored.
    #[doc(alias = "virtio_transport_dec_rx_pkt")]
    #[inline]
    pub fn release(&mut self, len: u32) {
        let len = len.min(self.used);
        // INVARIANT: These bytes were in the buffer, and are not any more.
        self.used = self.used.saturating_sub(len);
        self.fwd_cnt = self.fwd_cnt.wrapping_add(len);
    }

    /// Returns the credit fields for a packet that is about to be sent; the peer is told.
    #[doc(alias = "virtio_transport_inc_tx_pkt")]
    #[inline]
    pub fn stamp(&mut self) -> Stamp {
        self.last_fwd_cnt = self.fwd_cnt;
        self.peek_stamp()
    }

    /// Returns what [`RxCredit::stamp`] would, without the peer being told.
    #[inline]
    pub const fn peek_stamp(&self) -> Stamp {
        Stamp {
            buf_alloc: self.buf_alloc,
            fwd_cnt: self.fwd_cnt,
        }
    }

    /// Returns the size of the buffer.
    #[inline]
    pub const fn buf_alloc(&self) -> u32 {
        self.buf_alloc
    }

    /// Sets the size of the buffer.
    ///
    /// If it is now smaller than what is in it, nothing is accepted until enough was read.
    #[doc(alias = "virtio_transport_notify_buffer_size")]
    #[inline]
    pub fn set_buf_alloc(&mut self, buf_alloc: u32) {
        self.buf_alloc = buf_alloc;
    }

    /// Returns how many bytes are in the buffer.
    #[inline]
    pub const fn used(&self) -> u32 {
        self.used
    }

    /// Returns how many bytes have left the buffer that the peer was not yet told of.
    #[inline]
    pub const fn untold(&self) -> u32 {
        self.fwd_cnt.wrapping_sub(self.last_fwd_cnt)
    }

    /// Whether a [`CreditUpdate`](crate::header::Op::CreditUpdate) is worth a packet.
    ///
    /// That is so if there is news, and the peer may think that there is no room for a packet of
    /// full size, or if `low` says that there is too little in the buffer to wake up the reader
    /// (`SO_RCVLOWAT`).
    #[doc(alias = "virtio_transport_stream_do_dequeue")]
    #[inline]
    pub const fn should_update(&self, low: bool) -> bool {
        let untold = self.untold();
        untold != 0 && (low || self.buf_alloc.saturating_sub(untold) < MAX_PKT_BUF_SIZE)
    }
}

#[cfg(test)]
mod tests {
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
            let may_be = candidates(self.returned, fwd_cnt)
                .find(|n| (self.returned..=self.handed).contains(n));
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
}
