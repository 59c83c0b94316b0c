// SPDX-License-Identifier: GPL-2.0

//! The sender's side: what we may send.

use core::fmt; //

/// Differences from here on are steps back.
pub(super) const BACKWARD: u32 = 1 << 31;

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

/// What [`TxCredit::peer_update`] changed.
#[must_use = "a writer may wait for it"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CreditChange {
    /// How many bytes may be sent now.
    pub space: u32,
    /// A writer that found no room finds some now: wake those who wait.
    pub wake: bool,
    /// The size of the peer's buffer changed, and with it what the peer may believe to be free of
    /// ours: see [`RxCredit::update_after_read`](super::RxCredit::update_after_read).
    pub resized: bool,
    /// The packet was older than one before it; nothing changed.
    pub stale: bool,
}

/// What a writer finds, see [`TxCredit::look`].
#[must_use = "the peer may have to be asked"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// How many bytes may be sent now; none if that is less than the writer needs.
    pub space: u32,
    /// The peer cannot know that the writer waits: send a `CREDIT_REQUEST`, then call
    /// [`TxCredit::set_asked`].
    pub ask: bool,
}

impl Room {
    /// No room, for another reason than credit: the peer cannot help.
    pub const NONE: Self = Self {
        space: 0,
        ask: false,
    };
}

/// How long nothing happened, in seconds that were counted one by one: see [`TxCredit::second`].
#[must_use = "something may be due"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Silence {
    /// Since the peer last said something, whatever that was.
    pub peer: u16,
    /// Since a writer found no room and was not woken; 0 if there is none.
    pub writer: u16,
}

/// The credit that we have with the peer.
///
/// A byte is first reserved ([`TxCredit::reserve`]), then either given back
/// ([`TxCredit::unreserve`]) or put into the peer's hands ([`TxCredit::hand_over`]), who returns
/// the credit some time later ([`TxCredit::peer_update`]).
///
/// # Writers that wait
///
/// Whoever wants to send calls [`TxCredit::look`] before it waits, as does `poll()`. From the first
/// look that found no room on, the next change that makes room for what was looked for says so,
/// once: each function that can make room returns whether somebody is to be woken. Room may also
/// come from [`TxCredit::unreserve`], which does not say so: the packet that gives it back is freed
/// then, and its memory is what wakes.
///
/// A stall is the time from a look that found no room to the next byte that is reserved. In a stall
/// the peer is asked (`CREDIT_REQUEST`) at most once, and only if it does not see by its own count
/// that its buffer is full for us. If it sees that, it tells of the next byte that is read, as
/// Linux always did. It does not see it if
///
/// - the writer has a message that must be sent as a whole, and there is room for a part of it, or
/// - our own buffer, which bounds what we send ([`TxCredit::window`]), is the smaller one, and the
///   peer does not apply that bound to its count.
///
/// One request is enough. The C transport tells after each message, and whenever its queue is
/// empty; ours tells after each read from the request on until the next payload comes
/// ([`RxCredit::peer_asks`](super::RxCredit::peer_asks)). So a request has to stay behind the
/// payload that was sent before: one that is still in a queue from an earlier stall does not do.
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
/// assert_eq!(tx.look(1).space, 0);
/// assert!(tx.peer_update(1000, 0)?.wake);
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
    /// Bytes reserved and not yet sent; not a part of the credit. They are less than 2^32, as their
    /// packets take memory, which the kernel counts for each socket in 31 bits.
    unsent: u32,
    /// What a writer needs that found no room and was not woken since; 0 if there is none.
    lacking: u32,
    /// How often `handed` wrapped, for people only.
    handed_wraps: u16,
    /// See [`Silence::peer`].
    quiet: u16,
    /// See [`Silence::writer`].
    stalled: u16,
    /// The peer was asked in this stall.
    asked: bool,
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
            lacking: 0,
            handed_wraps: 0,
            quiet: 0,
            stalled: 0,
            asked: false,
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
        self.asked &= granted == 0;
        // INVARIANT: `in_flight() + granted` is at most the window, which is less than 2^32.
        self.tx_cnt = self.tx_cnt.wrapping_add(granted);
        self.unsent = self.unsent.saturating_add(granted);
        granted
    }

    /// Reserves `want` bytes and says so, or none if there is not room for all of them.
    ///
    /// As for [`TxCredit::reserve`] otherwise. A message that is longer than the window
    /// ([`TxCredit::window`]) never has room.
    #[must_use = "credit that is not used must be given back"]
    #[inline]
    pub fn reserve_all(&mut self, want: u32) -> bool {
        want <= self.space() && self.reserve(want) == want
    }

    /// Looks for room for a writer that can go on with `need` bytes, at least one.
    ///
    /// If it needs more than the window has since shrunk to, any room will do: it is to learn that.
    #[doc(alias = "virtio_transport_stream_has_space")]
    #[inline]
    pub fn look(&mut self, need: u32) -> Room {
        let space = self.room_for(need);
        if space > 0 {
            return Room { space, ask: false };
        }
        self.lacking = need.max(1);
        Room {
            space: 0,
            ask: !self.asked && self.peer_buf_alloc > self.in_flight(),
        }
    }

    /// Counts a second that passed, if the peer is `watched`, or if a writer waits; else nothing
    /// counts, and what was counted is forgotten.
    pub fn second(&mut self, watched: bool) -> Silence {
        let is_stalled = self.is_stalled();
        let count = |is_counted: bool, seconds: u16| match is_counted {
            true => seconds.saturating_add(1),
            false => 0,
        };
        self.stalled = count(is_stalled, self.stalled);
        self.quiet = count(watched || is_stalled, self.quiet);
        Silence {
            peer: self.quiet,
            writer: self.stalled,
        }
    }

    /// The peer was asked for its credit, on behalf of a writer that found no room.
    #[inline]
    pub fn set_asked(&mut self) {
        self.asked = true;
    }

    /// Whoever found no room needs only `need` bytes from now on. Returns whether to wake those who
    /// wait.
    #[must_use = "a writer may wait for it"]
    #[inline]
    pub fn relax(&mut self, need: u32) -> bool {
        self.lacking = self.lacking.min(need.max(1));
        self.take_wake()
    }

    /// Room for a writer that needs `need` bytes, 0 if that is too little for it.
    #[inline]
    fn room_for(&self, need: u32) -> u32 {
        let space = self.space();
        if space < need && need <= self.window() {
            return 0;
        }
        space
    }

    /// Whether a writer that found no room would find some now; it counts as woken then.
    #[inline]
    fn take_wake(&mut self) -> bool {
        let wake = self.lacking > 0 && self.room_for(self.lacking) > 0;
        if wake {
            self.lacking = 0;
            self.stalled = 0;
        }
        wake
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
        self.unsent = self.unsent.saturating_sub(n);
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
        let (handed, wrapped) = self.handed.overflowing_add(n);
        self.handed = handed;
        self.handed_wraps = self.handed_wraps.wrapping_add(u16::from(wrapped));
    }

    /// Tells that `n` of the bytes that were handed over did not reach the peer: the ring was full.
    ///
    /// They are reserved again. What the peer has returned by now cannot be taken back: it lied,
    /// and the rest is ignored.
    #[inline]
    pub fn take_back(&mut self, n: u32) {
        let n = n.min(self.unreturned());
        // INVARIANT: `handed` goes back at most to `peer_fwd_cnt`.
        let (handed, wrapped) = self.handed.overflowing_sub(n);
        self.handed = handed;
        self.handed_wraps = self.handed_wraps.wrapping_sub(u16::from(wrapped));
    }

    /// Tells that the transport is done with `n` bytes; see [`TxCredit::unsent`].
    #[doc(alias = "virtio_transport_consume_skb_sent")]
    #[inline]
    pub fn sent(&mut self, n: u32) {
        self.unsent = self.unsent.saturating_sub(n);
    }

    /// Returns how many bytes were reserved and the transport is not done with (`SIOCOUTQ`).
    #[doc(alias = "virtio_transport_unsent_bytes")]
    #[inline]
    pub const fn unsent(&self) -> u32 {
        self.unsent
    }

    /// Sets what we are willing to have in flight: the size of our own buffer has changed. Returns
    /// whether to wake those who wait.
    #[must_use = "a writer may wait for it"]
    #[inline]
    pub fn set_cap(&mut self, cap: u32) -> bool {
        self.cap = cap;
        self.take_wake()
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
        let returned = fwd_cnt.wrapping_sub(self.peer_fwd_cnt);
        self.quiet = 0;

        if returned <= self.unreturned() {
            // INVARIANT: `peer_fwd_cnt` goes at most to `handed`.
            self.peer_fwd_cnt = fwd_cnt;
            let resized = self.peer_buf_alloc != buf_alloc;
            self.peer_buf_alloc = buf_alloc;
            Ok(CreditChange {
                space: self.space(),
                wake: self.take_wake(),
                resized,
                stale: false,
            })
        } else if returned >= BACKWARD {
            Ok(CreditChange {
                space: self.space(),
                wake: false,
                resized: false,
                stale: true,
            })
        } else {
            Err(CreditError::Overrun)
        }
    }

    /// Returns how many bytes the peer got so far, modulo 2^48.
    pub const fn total(&self) -> u64 {
        (self.handed_wraps as u64) << 32 | self.handed as u64
    }

    /// Whether a writer found no room, and was not woken since.
    #[inline]
    pub const fn is_stalled(&self) -> bool {
        self.lacking > 0
    }

    /// The size of the peer's buffer, as the peer says, which bounds what an honest peer sends.
    #[inline]
    pub const fn peer_buf_alloc(&self) -> u32 {
        self.peer_buf_alloc
    }

    /// Bytes that are reserved and not handed over.
    #[inline]
    pub(super) const fn reserved(&self) -> u32 {
        // By the type invariants this is not negative.
        self.tx_cnt.wrapping_sub(self.handed)
    }

    /// Bytes that are in the peer's hands.
    #[inline]
    pub(super) const fn unreturned(&self) -> u32 {
        // By the type invariants this is not negative.
        self.handed.wrapping_sub(self.peer_fwd_cnt)
    }
}

#[cfg(test)]
impl TxCredit {
    /// A connection that has already moved `n` bytes.
    pub(super) fn after(n: u32, buf_alloc_cap: u32) -> Self {
        Self {
            tx_cnt: n,
            handed: n,
            peer_fwd_cnt: n,
            ..Self::new(buf_alloc_cap)
        }
    }
}
