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
#[path = "credit/tests.rs"]
mod tests;
