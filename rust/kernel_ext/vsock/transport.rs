// SPDX-License-Identifier: GPL-2.0

//! What a transport is, and where it is registered.

use crate::{
    bindings,
    iov::{
        RecvMsg,
        SendMsg, //
    },
    rcu::RcuSlot,
    skb::SkBuff,
    sock::{
        LockedSock,
        Shutdown,
        SockAddr,
        VsockSock, //
    },
    sock_table::{
        Found,
        Place,
        Scope,
        SockTable, //
    }, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Release, //
        },
        rcu,
        Arc,
        ArcBorrow, //
    }, //
};

/// What a transport is for; each machine has at most one transport of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// From the host to its guests.
    HostToGuest,
    /// From a guest to its host.
    GuestToHost,
    /// Within the machine.
    Local,
}

impl Kind {
    pub(super) fn as_raw(self) -> c_int {
        (match self {
            Kind::HostToGuest => bindings::VSOCK_TRANSPORT_F_H2G,
            Kind::GuestToHost => bindings::VSOCK_TRANSPORT_F_G2H,
            Kind::Local => bindings::VSOCK_TRANSPORT_F_LOCAL,
        }) as c_int
    }
}

/// Where a transport is registered: a `static` for each implementation of [`Transport`].
///
/// It is how a socket is recognised as one of this transport, and where its connections are found.
pub struct TransportSlot<T: Send + Sync + 'static> {
    pub(super) transport: Atomic<*const bindings::vsock_transport>,
    /// From before the registration begins until after it ended.
    pub(super) table: RcuSlot<SockTable<T>>,
}

// SAFETY: The pointer is only compared.
unsafe impl<T: Send + Sync + 'static> Send for TransportSlot<T> {}
// SAFETY: As above; it is accessed atomically.
unsafe impl<T: Send + Sync + 'static> Sync for TransportSlot<T> {}

impl<T: Send + Sync + 'static> TransportSlot<T> {
    /// An empty slot.
    pub const fn new() -> Self {
        Self {
            transport: Atomic::new(core::ptr::null()),
            table: RcuSlot::new(),
        }
    }

    /// The transport, which is only compared: what it points to is not looked at through this.
    #[inline]
    pub(super) fn get(&self) -> *const bindings::vsock_transport {
        // SAFETY: The pointer is valid, and all access to it is atomic: an aligned word. The
        // atomic's own load is a call into the kernel.
        unsafe { self.transport.as_ptr().read_volatile() }
    }
}

impl<T: Send + Sync + 'static> TransportSlot<T> {
    /// As [`SockTable::look`], at the connections on the transport that is registered here.
    pub fn look<R>(&self, place: Place, f: impl FnOnce(Found<'_, T>) -> R) -> Option<(R, Place)> {
        let guard = rcu::read_lock();
        self.table.load(&guard)?.look(place, f)
    }

    /// As [`SockTable::count`].
    pub fn count(&self, peer: (u32, Scope)) -> u32 {
        let guard = rcu::read_lock();
        self.table.load(&guard).map_or(0, |table| table.count(peer))
    }

    /// Context: sleeps, for a grace period and for what follows those that began before.
    pub(super) fn clear(&self) {
        // Nothing is in the table: a member has a socket, and that a reference to the module.
        drop(self.table.swap(None));
        self.transport.store(core::ptr::null(), Release);
        // The last user of a socket may be in the last instructions of ours, after the socket gave
        // the module back: a timer that ended the close, or an owner that did what was left in the
        // backlog. SAFETY: FFI call without preconditions.
        unsafe { bindings::wait_for_tasks() };
    }
}

impl<T: Send + Sync + 'static> Default for TransportSlot<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// A connection-oriented vsock transport.
///
/// The callbacks get the socket locked, unless they say otherwise, and run in process context. They
/// may be called from any number of threads, as soon as the registration begins.
#[vtable]
pub trait Transport: Send + Sync + 'static {
    /// The state that the transport has for each socket.
    ///
    /// It is put in place by [`init`](Self::init), reached by [`LockedSock::conn`], and released
    /// when the socket changes to another transport or is destroyed.
    type Conn: Send + Sync + 'static;

    /// What the transport is for.
    const KIND: Kind;

    /// Where the transport is registered.
    fn slot() -> &'static TransportSlot<Self::Conn>;

    /// Makes the state of a socket that is assigned to the transport.
    fn init(sock: &mut LockedSock) -> Result<Arc<Self::Conn>>;

    /// The socket is closed, or changes to another transport.
    ///
    /// May sleep for the time that `SO_LINGER` says.
    fn release(sock: &mut LockedSock);

    /// The socket is about to have another transport, or none: from here on packets do not find it,
    /// and nothing is left in its backlog. Not called for a socket that nobody refers to.
    fn detach(sock: &mut LockedSock, conn: ArcBorrow<'_, Self::Conn>);

    /// Forgets what was not sent yet of a socket.
    fn cancel(sock: &mut LockedSock) -> Result;

    /// Starts to connect to the remote address of the socket.
    fn connect(sock: &mut LockedSock) -> Result;

    /// Tells the peer that the user shut down directions of the connection.
    fn shutdown(sock: &mut LockedSock, how: Shutdown) -> Result;

    /// Takes bytes from the stream, or looks at them if `peek`. Returns how many.
    fn stream_dequeue(
        sock: &mut LockedSock,
        msg: &mut RecvMsg<'_>,
        len: usize,
        peek: bool,
    ) -> Result<usize>;

    /// Sends bytes of the stream, and returns how many.
    fn stream_enqueue(sock: &mut LockedSock, msg: &mut SendMsg<'_>, len: usize) -> Result<usize>;

    /// Bytes that can be received now.
    fn stream_has_data(sock: &mut LockedSock) -> usize;

    /// Bytes that can be sent now.
    ///
    /// Who sends waits until this is not 0, then calls `stream_enqueue` or `seqpacket_enqueue`, and
    /// does both again until the whole message was taken.
    fn stream_has_space(sock: &mut LockedSock) -> usize;

    /// The user begins to send a message. If it gives up one half-way, there is no call for that.
    fn send_begins(sock: &mut LockedSock);

    /// Takes a whole message, or looks at it if `peek`. Returns its real length.
    fn seqpacket_dequeue(sock: &mut LockedSock, msg: &mut RecvMsg<'_>, peek: bool)
        -> Result<usize>;

    /// Sends a message, or a part of it, and returns how many bytes.
    fn seqpacket_enqueue(sock: &mut LockedSock, msg: &mut SendMsg<'_>, len: usize)
        -> Result<usize>;

    /// Whole messages that can be received now.
    fn seqpacket_has_data(sock: &mut LockedSock) -> u32;

    /// Takes what was received as a buffer, for a socket in a BPF sockmap.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if there is nothing.
    fn read_skb(sock: &mut LockedSock) -> Result<SkBuff<()>>;

    /// Whether a socket may connect to `addr`; the socket may be unlocked and without a transport.
    fn stream_allow(sock: &VsockSock, addr: SockAddr) -> bool;

    /// Whether a `SOCK_SEQPACKET` socket may talk to `cid`; the socket may be without a transport.
    fn seqpacket_allow(sock: &VsockSock, cid: u32) -> bool;

    /// The user changes the buffer size; the transport may make it smaller.
    fn buffer_size_changed(sock: &mut LockedSock, size: &mut u64);

    /// The user sets `SO_RCVLOWAT`.
    fn rcvlowat_changed(sock: &mut LockedSock, lowat: usize) -> Result;

    /// Bytes that were not handed to the peer yet. The socket may be unlocked.
    fn unsent_bytes(conn: ArcBorrow<'_, Self::Conn>) -> usize;

    /// The CID of this side, `VMADDR_CID_ANY` if there is none. Does not sleep.
    fn local_cid() -> u32;

    /// Whether the transport reaches `cid`. Does not sleep; the socket may be without a transport.
    fn has_remote_cid(_sock: &VsockSock, _cid: u32) -> bool {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }
}
