// SPDX-License-Identifier: GPL-2.0

//! The state that the protocol has for a socket.

use crate::{
    orphans::Orphan,
    rx_queue::RxQueue,
    send::wire_type,
    send_queue::{
        Flow,
        Purges, //
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
    lock::SpinLockBh,
    new_spinlock_bh,
    peek::Peek,
    sock::{
        LockedSock,
        SockLocked, //
    },
    sock_table::Membership, //
};
use vsock_proto::{
    credit::{
        CreditChange,
        CreditError,
        Room,
        RxCredit,
        TxCredit, //
    },
    header::{
        Header,
        Op,
        ShutdownFlags,
        MAX_BUF_SIZE, //
    },
    turns::Turn, //
};

/// A packet without payload of which a connection needs at most one at a time in a queue.
///
/// What such a packet says is what is true when it is handed to the peer, so a second one would say
/// the same: a peer that asks for many answers gets one, and a queue holds at most one of each kind
/// for a connection (rule R9).
///
/// A [`Control::CreditRequest`] is another matter: it says that a writer waits behind the payload that
/// went before, so that one before that payload is not as good. There is one for a stall
/// ([`Room::ask`]), and none while the packets of the socket take too much memory ([`Conn::room`]):
/// no peer can bring it about that there are many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Control {
    Request,
    Response,
    Rst,
    Shutdown(ShutdownFlags),
    CreditUpdate,
    CreditRequest,
}

impl Control {
    pub(crate) fn op(self) -> Op {
        match self {
            Control::Request => Op::Request,
            Control::Response => Op::Response,
            Control::Rst => Op::Rst,
            Control::Shutdown(_) => Op::Shutdown,
            Control::CreditUpdate => Op::CreditUpdate,
            Control::CreditRequest => Op::CreditRequest,
        }
    }

    /// The bit of the kind in [`Books::queued`]; none if any number of them may be in a queue.
    fn bit(self) -> u8 {
        match self {
            Control::Request => 1,
            Control::Response => 2,
            Control::Rst => 4,
            Control::Shutdown(_) => 8,
            Control::CreditUpdate => 16,
            Control::CreditRequest => 0,
        }
    }
}

/// Books of a connection; under a lock of their own, as packets are sent from workers that must not
/// wait for the socket lock.
struct Books {
    tx: TxCredit,
    rx: RxCredit,
    /// The kinds of [`Control`] that are in a queue.
    queued: u8,
    /// What the queued [`Control::Shutdown`] says.
    shutdown: ShutdownFlags,
}

/// What the lock of the socket protects.
struct Owned {
    rx: RxQueue,
    /// Length of the message that waits until all of it can be sent, see [`crate::send::message`]; 0
    /// if there is none.
    waiting: u32,
    /// While the socket is connected, or tries to connect.
    membership: Option<Membership>,
    /// From when the user closed the socket on, until all of its packets are gone.
    orphan: Option<Orphan>,
}

/// The state of a socket that is assigned to a carrier.
#[pin_data]
pub struct Conn {
    #[pin]
    books: SpinLockBh<Books>,
    /// See [`TxPacket::cut`](crate::TxPacket::cut).
    cut: Atomic<bool>,
    /// See [`SendQueue::purge`](crate::SendQueue::purge).
    pub(crate) purges: Purges,
    /// Its packets in a [`SendQueue`](crate::SendQueue).
    pub(crate) flow: Flow,
    owned: SockLocked<Owned>,
}

impl Conn {
    /// Makes the state of a socket, with the buffer size that the user wants.
    pub(crate) fn new(sock: &mut LockedSock<'_>) -> Result<Arc<Self>> {
        let size = sock.buffer_size().min(u64::from(MAX_BUF_SIZE));
        sock.set_buffer_size(size);
        let buf_alloc = u32::try_from(size).unwrap_or(MAX_BUF_SIZE);
        let ty = wire_type(sock.ty());
        Arc::pin_init(
            pin_init!(Self {
                books <- new_spinlock_bh!(
                    Books {
                        tx: TxCredit::new(buf_alloc),
                        rx: RxCredit::new(buf_alloc),
                        queued: 0,
                        shutdown: ShutdownFlags::NONE,
                    },
                    "virtio_transport_common::Conn::books"
                ),
                cut: Atomic::new(false),
                purges: Purges::new(),
                flow: Flow::new(Turn::default()),
                owned: SockLocked::new(
                    sock,
                    Owned {
                        rx: RxQueue::new(ty),
                        waiting: 0,
                        membership: None,
                        orphan: None,
                    },
                ),
            }),
            GFP_KERNEL,
        )
    }

    /// The receive queue.
    ///
    /// # Errors
    ///
    /// `ENOTCONN` if `sock` is not the socket of this connection.
    #[inline]
    pub(crate) fn rx<'s>(&'s self, sock: &'s mut LockedSock<'_>) -> Result<&'s mut RxQueue> {
        Ok(&mut self.owned.get(sock).ok_or(ENOTCONN)?.rx)
    }

    /// Sets whether packets of the peer find the socket, and returns how that was before.
    pub(crate) fn set_membership(
        &self,
        sock: &mut LockedSock<'_>,
        membership: Option<Membership>,
    ) -> Option<Membership> {
        match self.owned.get(sock) {
            Some(owned) => core::mem::replace(&mut owned.membership, membership),
            None => membership,
        }
    }

    /// Whether packets of the peer find the socket.
    pub(crate) fn is_member(&self, sock: &mut LockedSock<'_>) -> bool {
        let owned = self.owned.get(sock);
        owned.is_some_and(|owned| owned.membership.is_some())
    }

    /// Notes that the user closed the socket, unless that is known, and says whether there is room
    /// for what it leaves behind.
    pub(crate) fn set_orphan(
        &self,
        sock: &mut LockedSock<'_>,
        adopt: impl FnOnce() -> Option<Orphan>,
    ) -> bool {
        let Some(owned) = self.owned.get(sock) else {
            return true;
        };
        if owned.orphan.is_none() {
            owned.orphan = adopt();
        }
        owned.orphan.is_some()
    }

    /// From here on, the peer gets nothing but a RST.
    pub(crate) fn cut(&self) {
        // Relaxed: see `TxPacket::cut`, whoever has to know of it has a lock.
        self.cut.store(true, Relaxed);
    }

    #[inline]
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.peek()
    }

    /// Changes the size of the buffers, and wakes who may send more now.
    pub(crate) fn set_buf_alloc(&self, sock: &mut LockedSock<'_>, size: u32) {
        let mut books = self.books.lock();
        books.rx.set_buf_alloc(size);
        let wake = books.tx.set_cap(size);
        drop(books);
        if wake {
            sock.write_space();
        }
    }

    /// Takes the credit that a packet of the peer carries. Who waits for room is to be woken if the
    /// result says so.
    #[inline]
    pub(crate) fn peer_update(&self, hdr: &Header) -> Result<CreditChange, CreditError> {
        self.books
            .lock()
            .tx
            .peer_update(hdr.buf_alloc(), hdr.fwd_cnt())
    }

    /// Sets the length of the message that waits until all of it can be sent. If that is less than
    /// before, wakes who found no room before and would now.
    pub(crate) fn set_waiting(&self, sock: &mut LockedSock<'_>, len: u32) {
        let Some(owned) = self.owned.get(sock) else {
            return;
        };
        let before = core::mem::replace(&mut owned.waiting, len);
        if len < before && self.books.lock().tx.relax(len) {
            sock.write_space();
        }
    }

    /// Room to send now; none as long as a message waits for more, or too much memory is in use for
    /// what was sent.
    ///
    /// For lack of credit, who got this is woken when there is enough. For lack of memory, when that is
    /// freed (see [`has_memory`]).
    #[inline]
    pub(crate) fn room(&self, sock: &mut LockedSock<'_>) -> Room {
        if !has_memory(sock) {
            return Room::NONE;
        }
        let waiting = self.owned.get(sock).map_or(0, |owned| owned.waiting);
        self.books.lock().tx.look(waiting)
    }

    /// Notes that the peer was asked for its credit, see [`Room::ask`].
    pub(crate) fn set_asked(&self) {
        self.books.lock().tx.set_asked();
    }

    /// The peer asks for our credit.
    pub(crate) fn peer_asks(&self) {
        self.books.lock().rx.peer_asks();
    }

    /// Bytes that were not handed to the peer.
    #[inline]
    pub(crate) fn unsent(&self) -> usize {
        usize::try_from(self.books.lock().tx.unsent()).unwrap_or(usize::MAX)
    }

    /// Accepts `len` bytes of the peer, and returns the size of the buffer.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` if the peer sends more than it has credit for.
    #[inline]
    pub(crate) fn accept(&self, len: u32) -> Result<u32> {
        let mut books = self.books.lock();
        books.rx.accept(len).map_err(|_| ENOBUFS)?;
        Ok(books.rx.buf_alloc())
    }

    /// Returns credit for bytes that the user read, and says whether the peer should be told.
    ///
    /// `lowat` is how much the reader waits for. To be called with `len` 0 if that changes, or what the
    /// peer says of its buffer.
    #[inline]
    pub(crate) fn release(&self, len: u32, lowat: usize) -> bool {
        let mut books = self.books.lock();
        books.rx.release(len);
        let lowat = u32::try_from(lowat).unwrap_or(u32::MAX);
        books.rx.update_after_read(&books.tx, lowat)
    }

    /// Whether the peer should be told of the room that there is, as the reader is about to wait.
    #[inline]
    pub(crate) fn must_tell_before_wait(&self) -> bool {
        let books = self.books.lock();
        books.rx.update_before_wait(&books.tx)
    }

    /// Reserves credit for up to `want` bytes.
    #[inline]
    pub(crate) fn reserve(&self, want: u32) -> Reservation<'_> {
        let left = self.books.lock().tx.reserve(want);
        Reservation { conn: self, left }
    }

    /// Reserves credit for all `want` bytes of a message; nothing if there is not room for all now.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if there will never be, as the buffers are smaller.
    #[inline]
    pub(crate) fn reserve_all(&self, want: u32) -> Result<Option<Reservation<'_>>> {
        let mut books = self.books.lock();
        if want > books.tx.window() {
            return Err(EMSGSIZE);
        }
        let granted = books.tx.reserve_all(want);
        drop(books);
        Ok(granted.then(|| Reservation {
            conn: self,
            left: want,
        }))
    }

    /// Notes that a control packet goes to a queue, and says whether it is needed: not if one of its
    /// kind is there.
    pub(crate) fn queue_control(&self, what: Control) -> bool {
        let mut books = self.books.lock();
        if let Control::Shutdown(flags) = what {
            books.shutdown = books.shutdown.union(flags);
        }
        let needed = books.queued & what.bit() == 0;
        books.queued |= what.bit();
        needed
    }

    /// Whether a control packet of that kind is in a queue, or on its way out of it.
    pub(crate) fn is_queued(&self, what: Control) -> bool {
        self.books.lock().queued & what.bit() != 0
    }

    /// Notes that a control packet left its queue.
    pub(crate) fn unqueue_control(&self, what: Control) {
        self.books.lock().queued &= !what.bit();
    }

    /// Completes the header of a packet that the peer gets now, `hand_over` of whose bytes it did
    /// not get before.
    #[inline]
    pub(crate) fn stamp(&self, hdr: &mut Header, control: Option<Control>, hand_over: u32) {
        let mut books = self.books.lock();
        if let Some(what) = control {
            books.queued &= !what.bit();
            if let Control::Shutdown(_) = what {
                hdr.set_flags(books.shutdown.raw());
            }
        }
        books.tx.hand_over(hand_over);
        hdr.set_stamp(books.rx.stamp());
    }

    /// The carrier is done with a packet of `unsent` bytes, of which `unreserve` never were handed
    /// to the peer.
    #[inline]
    pub(crate) fn packet_done(&self, unsent: u32, unreserve: bool) {
        if unsent == 0 {
            return;
        }
        let mut books = self.books.lock();
        if unreserve {
            books.tx.unreserve(unsent);
        } else {
            books.tx.sent(unsent);
        }
    }
}

/// Whether what a socket sent, and its peer did not take, leaves memory for more.
///
/// The credit bounds the payload only, and a packet of a byte takes the memory of some hundred: as
/// for [`RxQueue`], so much is allowed as large packets need. Who waits for that is woken when it is
/// freed; until then there is no other limit than credit for packets that hold much.
#[inline]
pub(crate) fn has_memory(sock: &LockedSock<'_>) -> bool {
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
