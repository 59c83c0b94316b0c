// SPDX-License-Identifier: GPL-2.0

//! The receiver's side: what the peer may send, and when it is told.

use super::tx::TxCredit;
use crate::header::{
    Stamp,
    MAX_PKT_BUF_SIZE, //
};
use core::fmt; //

/// The peer sent more than fits into the buffer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Overflow;

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the peer sent more than it has credit for")
    }
}

/// The credit that the peer has with us.
///
/// # When the peer is told
///
/// Each packet that goes to the peer tells it how much room there is. If none goes by itself, a
/// `CREDIT_UPDATE` costs a packet, and mostly a wake-up on the other side; too few of them, and a
/// writer waits for ever. With
///
/// - **W** the window, what the peer may have in flight: the *smallest* one of our buffer, our
///   buffer as the peer was told, and the peer's own buffer, which bounds what it sends;
/// - **U** the bytes in the buffer, and **n** those that left it untold;
/// - **V** = W - U - n, what the peer believes to be free, or less than that while something is on
///   its way;
///
/// there are two occasions:
///
/// 1. [`RxCredit::update_after_read`], after anything that makes n or the reader's low-water mark L
///    larger, or W smaller. An update is sent if
///    - two of these are true: V is less than a packet of full size (or than W/2), so that the
///      writer will soon have to wait; half of the window is news; U < L, so that the reader may be
///      about to wait. (To tell of each small read from a full buffer would wake the writer for
///      each of them, though the reader has enough to go on. To tell whenever the queue is empty
///      would do so in each round trip. After all was read the writer knows of half of the window
///      at least.) Or if
///    - W - n = U + V < L: nothing that the peer believes it may send would wake the reader.
/// 2. [`RxCredit::update_before_wait`], when the reader finds less than L, or no whole message, and
///    is about to wait; also when bytes come that are less than L, and it is not woken for them. An
///    update is sent if n >= W/8, or V is less than a packet of full size.
///
/// Nothing is sent if n = 0, or if a packet of ours with payload was made and is not with the peer
/// yet: that one will tell. Everything is news to a peer that asked (`CREDIT_REQUEST`), until it
/// sends payload again.
///
/// # Why no writer waits for ever
///
/// Suppose that a writer waits, everything that was sent has arrived, and the reader waits, too. (A
/// reader that is busy elsewhere will come back.) If n = 0, the writer knows all there is. Else:
///
/// - *A writer that goes on with any byte*: all of C, also for `SOCK_SEQPACKET`, where it sends the
///   message in pieces; and our streams. It waits, so V = 0. At the last occasion 1 was W - n >= L,
///   or an update had been sent, and n is still the same: U = W - n >= L. So the reader was woken,
///   and took what there is. Or there is no whole message: then it looked, and by 2, with V = 0,
///   the peer was told. This holds for a W of any size, also below the size of a packet, and for
///   messages as long as the window, and it needs no request.
/// - *A writer that wants a whole packet*, of up to 64 KiB: V is less than that, and after the last
///   bytes came the reader looked, or they were too few to wake it: told by 2.
/// - *A writer that wants a whole message* of up to W (ours): it has asked ([`TxCredit::look`]),
///   unless it sees no room at all and is in the first case. Since then each read was told.
///
/// All that rests on W being *not more* than what bounds the writer. With our own buffer instead, V
/// looks large when the peer's buffer is the smaller one, and both sides wait: libkrun had this. A
/// W that is too small, for a peer that does not bound what it sends by its own buffer (older
/// kernels), brings some more updates, not fewer.
///
/// Nor is our writer left waiting by a C peer, which tells if U < L, if n > `buf_alloc` - 64 KiB,
/// and after each message. It counts n in whole packets, but U < L holds after all was read.
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
    /// `buf_alloc` as the peer knows it.
    told_buf_alloc: u32,
    /// How often `fwd_cnt` wrapped, for people only.
    fwd_wraps: u16,
    /// The peer asked for credit, and has sent no payload since.
    asked: bool,
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
            told_buf_alloc: buf_alloc,
            fwd_wraps: 0,
            asked: false,
        }
    }

    /// Whether [`accept`](Self::accept) takes `len` bytes.
    #[inline]
    pub fn fits(&self, len: u32) -> bool {
        matches!(self.used.checked_add(len), Some(used) if used <= self.buf_alloc)
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
                self.asked &= len == 0;
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
        let (fwd_cnt, wrapped) = self.fwd_cnt.overflowing_add(len);
        self.fwd_cnt = fwd_cnt;
        self.fwd_wraps = self.fwd_wraps.wrapping_add(u16::from(wrapped));
    }

    /// Returns the credit fields for a packet that is about to be sent; the peer is told.
    #[doc(alias = "virtio_transport_inc_tx_pkt")]
    #[inline]
    pub fn stamp(&mut self) -> Stamp {
        self.last_fwd_cnt = self.fwd_cnt;
        self.told_buf_alloc = self.buf_alloc;
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

    /// Returns how many bytes were received so far, modulo 2^48.
    pub const fn total(&self) -> u64 {
        let read = (self.fwd_wraps as u64) << 32 | self.fwd_cnt as u64;
        read.wrapping_add(self.used as u64) & ((1 << 48) - 1)
    }

    /// Returns how many bytes have left the buffer that the peer was not yet told of.
    #[inline]
    pub const fn untold(&self) -> u32 {
        self.fwd_cnt.wrapping_sub(self.last_fwd_cnt)
    }

    /// The peer asked for our credit (`CREDIT_REQUEST`), which it is to be told whatever it knows.
    /// It has a writer that waits.
    #[inline]
    pub fn peer_asks(&mut self) {
        self.asked = true;
    }

    /// Whether to send a `CREDIT_UPDATE` after bytes left the buffer, or the reader's `lowat` or
    /// the size of the peer's buffer changed; see [When the peer is
    /// told](Self#when-the-peer-is-told).
    ///
    /// `lowat` is `SO_RCVLOWAT`: the reader is not woken while fewer bytes are in the buffer.
    #[doc(alias = "virtio_transport_stream_do_dequeue")]
    #[inline]
    pub fn update_after_read(&self, tx: &TxCredit, lowat: u32) -> bool {
        let Some(news) = self.news(tx) else {
            return false;
        };
        let half = news.window / 2;
        let is_much = news.untold >= half;
        let reader_may_sleep = self.used < lowat;
        let writer_runs_dry = news.view < half.min(MAX_PKT_BUF_SIZE);

        self.asked
            || (writer_runs_dry && (is_much || reader_may_sleep))
            || (is_much && reader_may_sleep)
            || news.window.saturating_sub(news.untold) < lowat
    }

    /// Whether to send a `CREDIT_UPDATE` as the reader has found less than it wants, and is about
    /// to wait; see [When the peer is told](Self#when-the-peer-is-told).
    #[inline]
    pub fn update_before_wait(&self, tx: &TxCredit) -> bool {
        self.news(tx).is_some_and(|news| {
            self.asked || news.untold >= news.window / 8 || news.view < MAX_PKT_BUF_SIZE
        })
    }

    /// What the peer is not told of, and will not be by a packet that is on its way to it.
    #[inline]
    fn news(&self, tx: &TxCredit) -> Option<News> {
        let untold = self.untold();
        if untold == 0 || tx.reserved() > 0 {
            return None;
        }
        let window = self
            .buf_alloc
            .min(self.told_buf_alloc)
            .min(tx.peer_buf_alloc());
        Some(News {
            window,
            untold,
            view: window.saturating_sub(self.used).saturating_sub(untold),
        })
    }
}

/// What the peer does not know.
struct News {
    /// What the peer may have in flight to us: the smaller one of both buffers.
    window: u32,
    /// Bytes that have left the buffer that the peer was not yet told of, at least 1.
    untold: u32,
    /// What the peer may believe to be free, at least.
    view: u32,
}

#[cfg(test)]
impl RxCredit {
    /// A connection that has already moved `n` bytes.
    pub(super) fn after(n: u32, buf_alloc: u32) -> Self {
        Self {
            fwd_cnt: n,
            last_fwd_cnt: n,
            ..Self::new(buf_alloc)
        }
    }
}
