// SPDX-License-Identifier: GPL-2.0

//! The state that the protocol has for a socket, behind a gate.
//!
//! # The gate
//!
//! All that a packet of the peer changes at once is under a spinlock of the connection, the *gate*:
//! credit, what was received, and where the connection stands. No lock of a socket is waited for: a
//! packet is taken, counted and answered whatever a user does with the socket.
//!
//! What the socket has to be told of waits in the gate ([`Link`]) until somebody has the socket
//! lock: see [`close::settle`](crate::close::settle).
//!
//! # Lock order
//!
//! Socket lock < gate < `slock` of the socket (the spinlock inside of the socket lock, which is
//! only tried with the gate held). Nothing that sleeps is done with the gate held, and nothing of a
//! peer or a user waited for.

use crate::{
    convert::wire_type,
    flow::{
        Flow,
        Purges, //
    },
    kinds::{
        Control,
        Ends,
        Urgency, //
    },
    orphans::Orphan,
    rx_queue::{
        RxQueue,
        Segments, //
    }, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};
use kernel_ext::{
    clock::{
        ticks,
        ticks_since, //
    },
    lock::{
        SpinLockBh,
        SpinLockBhGuard, //
    },
    new_spinlock_bh,
    peek::Peek,
    sock::{
        LockedSock,
        VsockSock, //
    },
    sock_table::Membership,
    trace, //
};
use vsock_proto::{
    addr::{
        Addr,
        Cid,
        Port, //
    },
    conn::{
        Local,
        State, //
    },
    credit::{
        CreditChange,
        CreditError,
        Room,
        RxCredit,
        TxCredit, //
    },
    header::{
        Header,
        ShutdownFlags,
        SocketType,
        MAX_BUF_SIZE, //
    },
    link::Link,
    turns::Turn, //
};

/// What the gate of a [`Conn`] protects.
pub(crate) struct Gate {
    pub(crate) link: Link<Error>,
    pub(crate) ends: Ends,
    pub(crate) tx: TxCredit,
    pub(crate) rx: RxCredit,
    /// What was received.
    pub(crate) queue: RxQueue,
    /// Length of the message that waits until all of it can be sent, see
    /// [`send::message`](crate::send::message); 0 if there is none.
    waiting: u32,
    /// Packets that a carrier has queued which could deliver the next one at once: that one waits
    /// behind them.
    behind: u32,
    /// The kinds of [`Control`] that are in a queue.
    queued: u8,
    /// [`ticks`] at the last packet, that way or the other.
    pub(crate) last: u32,
    /// [`ticks`] when a writer found no credit, while one [waits](TxCredit::is_stalled).
    pub(crate) stalled_at: u32,
    /// What the queued [`Control::Shutdown`] says.
    shutdown: ShutdownFlags,
    /// Data came since the user sent something.
    pub(crate) heard: bool,
    /// A worker is going to wake the reader.
    pub(crate) woken_later: bool,
    /// The user closed the socket: what comes now is not kept.
    pub(crate) discard: bool,
    /// The socket has this connection for its state.
    pub(crate) attached: bool,
    /// The owner of the socket is telling another part of the kernel what may be read.
    pub(crate) telling: bool,
    /// A token in the backlog of the socket is going to tell it the news.
    pub(crate) deferred: bool,
    /// While packets of the peer find the connection; retired from when they do not until its RST
    /// is with the peer, see [`leave`](Self::leave).
    pub(crate) membership: Option<Membership<Conn>>,
    /// From when the user closed the socket on, until all of its packets are gone.
    orphan: Option<Orphan>,
}

impl Gate {
    /// What the protocol has to know of the connection.
    pub(crate) fn local(&self) -> Local {
        self.link.local(self.queue.bytes() > 0)
    }

    /// See [`Conn::queue_control`].
    pub(crate) fn queue_control(&mut self, what: Control) -> Option<Ends> {
        if let Control::Shutdown(flags) = what {
            // It might be for the next connection.
            if self.link.is_done() {
                return None;
            }
            self.shutdown = self.shutdown.union(flags);
        }
        let needed = self.queued & what.bit() == 0;
        self.queued |= what.bit();
        needed.then_some(self.ends)
    }

    /// Packets of the peer do not find the connection any more. What is returned is to be dropped
    /// with the gate open.
    ///
    /// As long as a RST waits to be sent, the next connection between the ports has to know of it:
    /// then the membership is retired, and dropped with the packet.
    #[must_use]
    pub(crate) fn leave(&mut self) -> Option<Membership<Conn>> {
        if self.queued & Control::Rst.bit() == 0 {
            return self.membership.take();
        }
        if let Some(membership) = &self.membership {
            membership.retire();
        }
        None
    }

    /// See [`Conn::discard`]. What is returned is to be dropped with the gate open.
    #[must_use]
    fn forget(&mut self) -> Segments {
        self.discard = true;
        self.queue.purge()
    }

    /// Whether packets of the peer find the connection.
    pub(crate) fn is_member(&self) -> bool {
        self.membership.as_ref().is_some_and(|m| !m.is_retired())
    }

    /// Whether the connection is open, and a user has it.
    pub(crate) fn is_live(&self) -> bool {
        self.link.is_open() && !self.discard
    }

    /// Takes the credit in a packet of the peer.
    #[inline]
    pub(crate) fn peer_update(&mut self, hdr: &Header) -> Result<CreditChange, CreditError> {
        self.last = ticks();
        let change = self.tx.peer_update(hdr.buf_alloc(), hdr.fwd_cnt())?;
        if change.wake {
            self.trace_wait();
        }
        Ok(change)
    }

    /// Shows that a writer waited for credit to who traces that.
    #[cold]
    fn trace_wait(&self) {
        let Ends {
            local_cid,
            local_port,
            peer,
        } = self.ends;
        trace::vsock_credit_wait(
            local_cid.get(),
            local_port.get(),
            peer.cid.get(),
            peer.port.get(),
            self.tx.peer_buf_alloc(),
            ticks_since(self.stalled_at),
        );
    }

    #[inline]
    fn stamp(&mut self, hdr: &mut Header, control: Option<Control>, hand_over: u32) -> Urgency {
        if let Some(what) = control {
            self.queued &= !what.bit();
            if let Control::Shutdown(_) = what {
                hdr.set_flags(self.shutdown.raw());
            }
        }
        self.last = ticks();
        self.tx.hand_over(hand_over);
        hdr.set_stamp(self.rx.stamp());
        if hand_over > 0 && !core::mem::take(&mut self.heard) {
            return Urgency::Bulk;
        }
        Urgency::Reply
    }

    /// Returns credit for bytes that the user read, and says whether the peer should be told.
    #[inline]
    pub(crate) fn release(&mut self, len: u32, lowat: usize) -> bool {
        self.rx.release(len);
        let lowat = u32::try_from(lowat).unwrap_or(u32::MAX);
        self.rx.update_after_read(&self.tx, lowat)
    }

    /// Whether a reader that waits for `lowat` bytes, or for a message, is to be woken.
    #[inline]
    pub(crate) fn is_readable(&self, lowat: usize) -> bool {
        self.queue.bytes() >= lowat || self.queue.messages() > 0
    }
}

/// The state of a socket that is assigned to a carrier.
///
/// The socket has a reference from `init` to `destruct`, each packet that it sends another, and so
/// has the table of connections while packets find it.
#[pin_data]
pub struct Conn {
    #[pin]
    gate: SpinLockBh<Gate>,
    /// See [`TxPacket::cut`](crate::TxPacket::cut).
    cut: Atomic<bool>,
    /// See [`Conn::supersede`].
    superseded: Atomic<bool>,
    ty: SocketType,
    /// See [`SendQueue::purge`](crate::SendQueue::purge).
    pub(crate) purges: Purges,
    /// Its packets in a [`SendQueue`](crate::SendQueue).
    pub(crate) flow: Flow,
}

// A socket has one, with a count, from allocations of this size.
#[cfg(all(CONFIG_SMP, not(CONFIG_DEBUG_SPINLOCK), not(CONFIG_PREEMPT_RT)))]
const _: () = assert!(size_of::<u64>() + size_of::<Conn>() <= 256);

impl Conn {
    /// Makes the state of a socket, with the buffer size that the user wants.
    pub(crate) fn new(sock: &mut LockedSock) -> Result<Arc<Self>> {
        let size = sock.buffer_size().min(u64::from(MAX_BUF_SIZE));
        sock.set_buffer_size(size);
        let buf_alloc = u32::try_from(size).unwrap_or(MAX_BUF_SIZE);
        let ty = wire_type(sock.ty());
        Arc::pin_init(
            pin_init!(Self {
                gate <- new_spinlock_bh!(
                    Gate {
                        link: Link::new(),
                        ends: Ends {
                            local_port: Port::new(0),
                            local_cid: Cid::ANY,
                            peer: Addr::new(Cid::ANY, Port::new(0)),
                        },
                        tx: TxCredit::new(buf_alloc),
                        rx: RxCredit::new(buf_alloc),
                        queue: RxQueue::new(ty),
                        waiting: 0,
                        behind: 0,
                        heard: true,
                        woken_later: false,
                        queued: 0,
                        last: ticks(),
                        stalled_at: 0,
                        shutdown: ShutdownFlags::NONE,
                        discard: false,
                        attached: true,
                        telling: false,
                        deferred: false,
                        membership: None,
                        orphan: None,
                    },
                    "virtio_transport_common::Conn::gate"
                ),
                cut: Atomic::new(false),
                superseded: Atomic::new(false),
                ty,
                purges: Purges::new(),
                flow: Flow::new(Turn::default()),
            }),
            GFP_KERNEL,
        )
    }

    /// Shuts the gate for others.
    ///
    /// Context: any but interrupts; spins. With the guard, bottom halves are off.
    #[inline]
    pub(crate) fn gate(&self) -> SpinLockBhGuard<'_, Gate> {
        self.gate.lock()
    }

    /// The type of the socket.
    #[inline]
    pub(crate) fn ty(&self) -> SocketType {
        self.ty
    }

    /// A connection begins, between the addresses that the socket has now.
    pub(crate) fn begin(&self, sock: &LockedSock, state: State) {
        let (local, remote) = (sock.local_addr(), sock.remote_addr());
        let mut gate = self.gate();
        gate.link.begin(state);
        self.cut.store(false, Relaxed);
        // What was to be sent of the one before still is not.
        if gate.queued & Control::Rst.bit() == 0 {
            self.superseded.store(false, Relaxed);
        }
        // The peer of an attempt that the user gave up may have sent something before it knew.
        let old = gate.queue.purge();
        let size = gate.rx.buf_alloc();
        (gate.tx, gate.rx) = (TxCredit::new(size), RxCredit::new(size));
        gate.waiting = 0;
        gate.ends = Ends {
            local_port: Port::new(local.port),
            local_cid: Cid::new(local.cid),
            peer: Addr::new(Cid::new(remote.cid), Port::new(remote.port)),
        };
        drop(gate);
        drop(old);
    }

    /// Sets whether packets of the peer find the connection; returns how that was before, to be
    /// dropped with the gate open.
    pub(crate) fn set_membership(
        &self,
        membership: Option<Membership<Conn>>,
    ) -> Option<Membership<Conn>> {
        core::mem::replace(&mut self.gate().membership, membership)
    }

    /// Whether data comes and goes.
    pub(crate) fn is_open(&self) -> bool {
        self.gate().link.is_open()
    }

    /// Whether data comes and goes, and a user has the socket.
    pub(crate) fn is_live(&self) -> bool {
        let gate = self.gate();
        gate.link.is_open() && !gate.discard
    }

    /// Whether the connection is over.
    pub(crate) fn is_done(&self) -> bool {
        self.gate().link.is_done()
    }

    /// Bytes that the user has not read yet.
    #[inline]
    pub(crate) fn unread(&self) -> usize {
        self.gate().queue.bytes()
    }

    /// Whole messages that the user has not read yet.
    #[inline]
    pub(crate) fn messages(&self) -> u32 {
        self.gate().queue.messages()
    }

    /// Forgets what nobody will read, now and from now on. The peer does not get its credit back:
    /// there is nobody to send to.
    pub(crate) fn discard(&self) {
        let mut gate = self.gate();
        let old = gate.forget();
        drop(gate);
        drop(old);
    }

    /// As [`discard`](Self::discard), of a connection that is over for its user, who is told
    /// nothing any more: packets of the peer do not find it.
    pub(crate) fn remove(&self) {
        let mut gate = self.gate();
        let old = gate.forget();
        gate.link.release();
        let left = gate.leave();
        drop(gate);
        drop((old, left));
    }

    /// Notes that the user closed the socket, and says whether there is room for what it leaves
    /// behind, which it had before.
    pub(crate) fn set_orphan(&self, adopt: impl FnOnce() -> Option<Orphan>) -> bool {
        // With the gate open, as it may sleep.
        let new = adopt();
        let mut gate = self.gate();
        if gate.orphan.is_some() {
            // Only the owner of the socket does this: it is known.
            drop(gate);
            drop(new);
            return true;
        }
        let has_room = new.is_some();
        gate.orphan = new;
        has_room
    }

    /// From here on, the peer gets nothing but a RST: a packet could not be sent, or packets of the
    /// peer do not find the connection any more, and what is sent now would be for the next one
    /// between the ports.
    pub(crate) fn cut(&self) {
        // Relaxed: see `TxPacket::cut`, both sides have a lock. And if the connection is left, the
        // peer learns that by a RST, which comes behind what is being handed over now.
        self.cut.store(true, Relaxed);
    }

    #[inline]
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.peek()
    }

    /// The next connection between the ports begins: what waits to be sent of this one, a RST
    /// included, is not sent any more, nor anything from now on. Says whether there was a RST.
    pub(crate) fn supersede(&self) -> bool {
        let gate = self.gate();
        self.cut.store(true, Relaxed);
        self.superseded.store(true, Relaxed);
        gate.queued & Control::Rst.bit() != 0
    }

    #[inline]
    pub(crate) fn is_superseded(&self) -> bool {
        self.superseded.peek()
    }

    /// The RST is with the peer, or was dropped: the next connection may begin.
    pub(crate) fn rst_done(&self) {
        let mut gate = self.gate();
        let is_retired = gate.membership.as_ref().is_some_and(|m| m.is_retired());
        let left = if is_retired {
            gate.membership.take()
        } else {
            None
        };
        drop(gate);
        drop(left);
    }

    /// Changes the size of the buffers, and wakes writers that may send more now.
    pub(crate) fn set_buf_alloc(&self, sock: &VsockSock, size: u32) {
        let mut gate = self.gate();
        gate.rx.set_buf_alloc(size);
        let wake = gate.tx.set_cap(size);
        drop(gate);
        if wake {
            sock.write_space();
        }
    }

    /// Sets the length of the message that waits until all of it can be sent. If that is less than
    /// before, wakes writers that found no room before and would now.
    pub(crate) fn set_waiting(&self, sock: &VsockSock, len: u32) {
        let mut gate = self.gate();
        let before = core::mem::replace(&mut gate.waiting, len);
        let wake = len < before && gate.tx.relax(len);
        drop(gate);
        if wake {
            sock.write_space();
        }
    }

    /// Room to send now; none as long as a message waits for more, or too much memory is in use for
    /// what was sent.
    ///
    /// For lack of credit, a writer that got this is woken when there is enough. For lack of
    /// memory, when that is freed (see [`has_memory`]).
    #[inline]
    pub(crate) fn room(&self, sock: &LockedSock) -> Room {
        if !has_memory(sock) {
            return Room::NONE;
        }
        let mut gate = self.gate();
        let (waiting, was_stalled) = (gate.waiting, gate.tx.is_stalled());
        let room = gate.tx.look(waiting);
        if room.space == 0 && !was_stalled {
            gate.stalled_at = ticks();
        }
        room
    }

    /// Notes that the peer was asked for its credit, see [`Room::ask`].
    pub(crate) fn set_asked(&self) {
        self.gate().tx.set_asked();
    }

    /// Bytes that were not handed to the peer.
    #[inline]
    pub(crate) fn unsent(&self) -> usize {
        usize::try_from(self.gate().tx.unsent()).unwrap_or(usize::MAX)
    }

    /// Returns credit for bytes that the user read, and says whether the peer should be told.
    ///
    /// `lowat` is how much the reader waits for. To be called with `len` 0 if that changes, or what
    /// the peer says of its buffer.
    #[inline]
    pub(crate) fn release(&self, len: u32, lowat: usize) -> bool {
        self.gate().release(len, lowat)
    }

    /// Whether the peer should be told of the room that there is, as the reader is about to wait.
    #[inline]
    pub(crate) fn must_tell_before_wait(&self) -> bool {
        let gate = self.gate();
        gate.rx.update_before_wait(&gate.tx)
    }

    /// Reserves credit for up to `want` bytes.
    #[inline]
    pub(crate) fn reserve(&self, want: u32) -> Reservation<'_> {
        let left = self.gate().tx.reserve(want);
        Reservation { conn: self, left }
    }

    /// Reserves credit for all `want` bytes of a message; nothing if there is not room for all now.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if there will never be, as the buffers are smaller.
    #[inline]
    pub(crate) fn reserve_all(&self, want: u32) -> Result<Option<Reservation<'_>>> {
        let mut gate = self.gate();
        if want > gate.tx.window() {
            return Err(EMSGSIZE);
        }
        let granted = gate.tx.reserve_all(want);
        drop(gate);
        Ok(granted.then(|| Reservation {
            conn: self,
            left: want,
        }))
    }

    /// Notes that a control packet goes to a queue, and returns between which addresses: nothing if
    /// one of its kind is there already.
    pub(crate) fn queue_control(&self, what: Control) -> Option<Ends> {
        self.gate().queue_control(what)
    }

    /// Whether a control packet of that kind is in a queue, or on its way out of it.
    pub(crate) fn is_queued(&self, what: Control) -> bool {
        self.gate().queued & what.bit() != 0
    }

    /// Notes that a control packet left its queue.
    pub(crate) fn unqueue_control(&self, what: Control) {
        self.gate().queued &= !what.bit();
    }

    /// Completes the header of a packet that the peer gets now, `hand_over` of whose bytes it did
    /// not get before; says how urgent the packet is.
    #[inline]
    pub(crate) fn stamp(
        &self,
        hdr: &mut Header,
        control: Option<Control>,
        hand_over: u32,
    ) -> Urgency {
        self.gate().stamp(hdr, control, hand_over)
    }

    /// How urgent payload would be, if it was handed over now.
    #[inline]
    pub(crate) fn urgency(&self) -> Urgency {
        if self.gate().heard {
            Urgency::Reply
        } else {
            Urgency::Bulk
        }
    }

    /// As [`stamp`](Self::stamp), if no packet is [in a queue](Self::queue_behind): says then how
    /// urgent the packet is.
    #[inline]
    pub(crate) fn stamp_if_first(
        &self,
        hdr: &mut Header,
        control: Option<Control>,
        hand_over: u32,
    ) -> Option<Urgency> {
        let mut gate = self.gate();
        if gate.behind > 0 || self.is_cut() {
            return None;
        }
        Some(gate.stamp(hdr, control, hand_over))
    }

    /// As [`stamp_if_first`](Self::stamp_if_first), for a packet without payload: the result is
    /// false if it has to go to a queue.
    pub(crate) fn stamp_control_if_first(&self, hdr: &mut Header, what: Control) -> bool {
        let mut gate = self.gate();
        let goes = gate.behind == 0 && (what == Control::Rst || !self.is_cut());
        if goes {
            gate.stamp(hdr, Some(what), 0);
        }
        goes
    }

    /// A packet that was not delivered goes to a queue, until [`leave_queue`](Self::leave_queue).
    pub(crate) fn queue_behind(&self) {
        let mut gate = self.gate();
        gate.behind = gate.behind.saturating_add(1);
    }

    /// A packet of a queue was delivered, or dropped.
    pub(crate) fn leave_queue(&self) {
        let mut gate = self.gate();
        gate.behind = gate.behind.saturating_sub(1);
    }

    /// Bytes that were handed over did not get there, and are to be sent in another way.
    pub(crate) fn take_back(&self, bytes: u32) {
        self.gate().tx.take_back(bytes);
    }

    /// The carrier is done with a packet of `unsent` bytes, of which `unreserve` never were handed
    /// to the peer.
    #[inline]
    pub(crate) fn packet_done(&self, unsent: u32, unreserve: bool) {
        if unsent == 0 {
            return;
        }
        let mut gate = self.gate();
        if unreserve {
            gate.tx.unreserve(unsent);
        } else {
            gate.tx.sent(unsent);
        }
    }
}

/// Whether what a socket sent, and its peer did not take, leaves memory for more.
///
/// The credit bounds the payload only, and a packet of a byte takes the memory of some hundred: as
/// for [`RxQueue`], so much is allowed as large packets need. A writer that waits for that is woken
/// when it is freed; until then there is no other limit than credit for packets that hold much.
#[inline]
pub(crate) fn has_memory(sock: &LockedSock) -> bool {
    let size = u32::try_from(sock.buffer_size()).unwrap_or(MAX_BUF_SIZE);
    sock.send_memory() < RxQueue::limit(size)
}

/// Credit that was reserved and is not part of a packet yet; what is left is given back on drop.
pub(crate) struct Reservation<'a> {
    conn: &'a Conn,
    left: u32,
}

impl Reservation<'_> {
    /// Bytes that are left.
    #[inline]
    pub(crate) fn left(&self) -> u32 {
        self.left
    }

    /// Moves up to `max` bytes to a packet, which gives them back from then on.
    #[inline]
    pub(crate) fn take(&mut self, max: u32) -> u32 {
        let n = self.left.min(max);
        self.left = self.left.saturating_sub(n);
        n
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.conn.packet_done(self.left, true);
    }
}
