// SPDX-License-Identifier: GPL-2.0

//! vsock sockets and the evidence that one is locked.
//!
//! C headers: [`include/net/af_vsock.h`](srctree/include/net/af_vsock.h),
//! [`include/net/sock.h`](srctree/include/net/sock.h).

#[path = "sock/types.rs"]
mod types;

pub use self::types::{
    Shutdown,
    SockAddr,
    SockState,
    SockType, //
};

use crate::{
    bindings,
    net::Net, //
};
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    prelude::*,
    sync::aref::{
        ARef,
        AlwaysRefCounted, //
    },
    types::{
        NotThreadSafe,
        Opaque, //
    },
};

/// A vsock socket (`struct vsock_sock`).
///
/// What the socket lock protects is reached through [`LockedSock`] only.
///
/// # Invariants
///
/// Wraps a valid `struct vsock_sock` whose reference count is not zero.
#[repr(transparent)]
pub struct VsockSock(Opaque<bindings::vsock_sock>);

// SAFETY: Sockets are used and released from any thread.
unsafe impl Send for VsockSock {}
// SAFETY: The methods of `&VsockSock` read what never changes, or lock.
unsafe impl Sync for VsockSock {}

// SAFETY: The reference count is that of the `struct sock`.
unsafe impl AlwaysRefCounted for VsockSock {
    fn inc_ref(&self) {
        // SAFETY: By the type invariants, the socket is alive.
        unsafe { bindings::sock_hold(self.as_sock()) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller owns a reference.
        unsafe { bindings::sock_put(obj.cast().as_ptr()) };
    }
}

impl VsockSock {
    /// Makes a reference out of a pointer.
    ///
    /// # Safety
    ///
    /// `vsk` is valid and somebody has a reference to it for all of `'a`.
    #[inline]
    pub(crate) unsafe fn from_raw<'a>(vsk: *mut bindings::vsock_sock) -> &'a Self {
        // INVARIANT: By the safety requirements.
        // SAFETY: By the safety requirements; the type is transparent.
        unsafe { &*vsk.cast() }
    }

    #[inline]
    pub(crate) fn as_raw(&self) -> *mut bindings::vsock_sock {
        self.0.get()
    }

    /// The `struct sock`, which is the first field.
    #[inline]
    pub(crate) fn as_sock(&self) -> *mut bindings::sock {
        self.as_raw().cast()
    }

    /// Locks the socket.
    ///
    /// Context: process context, may sleep. The socket lock is taken after the locks of a device
    /// and its queues, and before the lock of a send queue. No other socket may be locked, but see
    /// [`LockedSock::lock_child`].
    #[doc(alias = "lock_sock")]
    #[inline]
    pub fn lock(&self) -> SockGuard<'_> {
        // SAFETY: By the type invariants, the socket is alive.
        unsafe { bindings::lock_sock(self.as_sock()) };
        // INVARIANT: The socket is locked, and the guard is what unlocks it.
        SockGuard {
            locked: LockedSock {
                vsk: self.as_raw(),
                _not_send: NotThreadSafe,
                _p: PhantomData,
            },
        }
    }

    /// The namespace of the socket.
    #[inline]
    pub fn net(&self) -> &Net {
        // SAFETY: By the type invariants, the socket is alive.
        let net = unsafe { net_of(self.as_sock()) };
        // SAFETY: A socket has a reference to its namespace, which never changes.
        unsafe { Net::from_raw(net) }
    }

    /// The type of the socket.
    #[inline]
    pub fn ty(&self) -> SockType {
        // SAFETY: By the type invariants, the socket is alive; the type never changes.
        let ty = unsafe { (*self.as_sock()).sk_type };
        if u32::from(ty) == bindings::sock_type_SOCK_STREAM {
            SockType::Stream
        } else {
            SockType::SeqPacket
        }
    }
}

/// The namespace of a socket.
///
/// # Safety
///
/// `sk` is allocated.
#[doc(alias = "sock_net")]
#[inline]
pub(crate) unsafe fn net_of(sk: *const bindings::sock) -> *mut bindings::net {
    // SAFETY: By the safety requirements; the field never changes.
    unsafe { (*sk).__sk_common.skc_net.net }
}

/// A locked socket: evidence that the current task holds the socket lock.
///
/// # Invariants
///
/// `vsk` is valid, has a reference, and its lock is held by the current task, for all of `'a`.
pub struct LockedSock<'a> {
    pub(crate) vsk: *mut bindings::vsock_sock,
    _not_send: NotThreadSafe,
    _p: PhantomData<&'a VsockSock>,
}

/// A [`LockedSock`] that unlocks the socket when it is dropped.
///
/// # Invariants
///
/// Nobody else will release the lock that `locked` stands for.
#[must_use = "the socket is unlocked when the guard is dropped"]
pub struct SockGuard<'a> {
    locked: LockedSock<'a>,
}

impl<'a> Deref for SockGuard<'a> {
    type Target = LockedSock<'a>;

    #[inline]
    fn deref(&self) -> &Self::Target {
        &self.locked
    }
}

impl core::ops::DerefMut for SockGuard<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.locked
    }
}

impl Drop for SockGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the lock is held and ours to release.
        unsafe { bindings::release_sock(self.locked.as_sock()) };
    }
}

impl Deref for LockedSock<'_> {
    type Target = VsockSock;

    #[inline]
    fn deref(&self) -> &VsockSock {
        // SAFETY: By the type invariants, the socket is valid and has a reference.
        unsafe { VsockSock::from_raw(self.vsk) }
    }
}

impl<'a> LockedSock<'a> {
    /// Takes the word of the C core that a socket is locked.
    ///
    /// # Safety
    ///
    /// The current task holds the lock of `vsk`, and a reference to it, for all of `'a`, and there is
    /// no other `LockedSock` for it in use meanwhile.
    #[inline]
    pub(crate) unsafe fn assume_locked(vsk: *mut bindings::vsock_sock) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            vsk,
            _not_send: NotThreadSafe,
            _p: PhantomData,
        }
    }

    /// The state.
    #[inline]
    pub fn state(&self) -> SockState {
        // SAFETY: By the type invariants, the socket is valid.
        let state = unsafe { &raw const (*self.as_sock()).__sk_common.skc_state };
        // SAFETY: The field is valid; others may write it meanwhile, as in C.
        SockState::from_raw(c_int::from(unsafe { state.read_volatile() }))
    }

    /// Changes the state, without telling anybody.
    #[inline]
    pub fn set_state(&mut self, state: SockState) {
        // SAFETY: By the type invariants, the socket is valid and locked.
        unsafe { bindings::sk_set_state(self.as_sock(), state.as_raw()) };
    }

    /// Whether the connection is over (`SOCK_DONE`).
    #[inline]
    pub fn is_done(&self) -> bool {
        self.flag(bindings::sock_flags_SOCK_DONE)
    }

    #[doc(alias = "sock_flag")]
    #[inline]
    fn flag(&self, flag: bindings::sock_flags) -> bool {
        // SAFETY: By the type invariants, the socket is valid; no reference is made.
        let flags = unsafe { &raw const (*self.as_sock()).__sk_common.__bindgen_anon_5.skc_flags };
        // SAFETY: The field is valid; others may write other bits of it meanwhile, as in C.
        (unsafe { flags.read_volatile() } >> flag) & 1 != 0
    }

    /// Marks the connection as over.
    pub fn set_done(&mut self) {
        // SAFETY: By the type invariants, the socket is valid and locked.
        unsafe { bindings::sk_set_done(self.as_sock()) };
    }

    /// Whether `SO_ZEROCOPY` is set.
    #[inline]
    pub fn wants_zerocopy(&self) -> bool {
        self.flag(bindings::sock_flags_SOCK_ZEROCOPY)
    }

    /// What the local user shut down.
    #[inline]
    pub fn shutdown(&self) -> Shutdown {
        // SAFETY: By the type invariants, the socket is valid.
        let how = unsafe { &raw const (*self.as_sock()).sk_shutdown };
        // SAFETY: The field is valid; others may write it meanwhile, as in C.
        Shutdown::from_bits(u32::from(unsafe { how.read_volatile() }))
    }

    /// What the peer shut down.
    #[inline]
    pub fn peer_shutdown(&self) -> Shutdown {
        // SAFETY: By the type invariants, the socket is valid, and the lock protects the field.
        Shutdown::from_bits(unsafe { (*self.vsk).peer_shutdown })
    }

    /// Notes what the peer shut down.
    pub fn set_peer_shutdown(&mut self, how: Shutdown) {
        // `vsock_poll()` reads this without the lock.
        // SAFETY: By the type invariants, the field is valid for writes.
        unsafe { (&raw mut (*self.vsk).peer_shutdown).write_volatile(how.bits()) };
    }

    /// The local address.
    #[inline]
    pub fn local_addr(&self) -> SockAddr {
        // SAFETY: By the type invariants, the socket is valid, and the lock protects the field.
        SockAddr::from_c(unsafe { &(*self.vsk).local_addr })
    }

    /// The address of the peer.
    #[inline]
    pub fn remote_addr(&self) -> SockAddr {
        // SAFETY: By the type invariants, the socket is valid, and the lock protects the field.
        SockAddr::from_c(unsafe { &(*self.vsk).remote_addr })
    }

    /// Changes the local CID, as a migration may do.
    #[inline]
    pub fn set_local_cid(&mut self, cid: u32) {
        // SAFETY: By the type invariants, the socket is valid, and the lock protects the field.
        unsafe { (*self.vsk).local_addr.svm_cid = cid };
    }

    /// Sets both addresses of a new connection.
    #[doc(alias = "vsock_addr_init")]
    pub fn set_addrs(&mut self, local: SockAddr, remote: SockAddr) {
        // SAFETY: By the type invariants, the socket is valid, and the lock protects the field.
        unsafe { (*self.vsk).local_addr = local.to_c() };
        // SAFETY: As above.
        unsafe { (*self.vsk).remote_addr = remote.to_c() };
    }

    /// `SO_VM_SOCKETS_BUFFER_SIZE`, in bytes.
    #[inline]
    pub fn buffer_size(&self) -> u64 {
        // SAFETY: By the type invariants, the socket is valid, and the lock protects the field.
        unsafe { (*self.vsk).buffer_size }
    }

    /// Changes the buffer size.
    pub fn set_buffer_size(&mut self, size: u64) {
        // SAFETY: By the type invariants, the socket is valid, and the lock protects the field.
        unsafe { (*self.vsk).buffer_size = size };
    }

    /// `SO_RCVLOWAT`, in bytes, at least 1.
    #[inline]
    pub fn rcvlowat(&self) -> usize {
        // SAFETY: By the type invariants, the socket is valid.
        let lowat = unsafe { bindings::sock_rcvlowat(self.as_sock()) };
        usize::try_from(lowat).unwrap_or(0)
    }

    /// Memory of the buffers that the socket owns, see [`SkBuff::set_owner`]. When one of them is
    /// freed and less than half of `SO_SNDBUF` is left, who waits for space to send is woken.
    ///
    /// [`SkBuff::set_owner`]: crate::skb::SkBuff::set_owner
    #[doc(alias = "sk_wmem_alloc_get")]
    #[inline]
    pub fn send_memory(&self) -> usize {
        // SAFETY: By the type invariants, the socket is valid; no reference is made.
        let bytes = unsafe { &raw const (*self.as_sock()).sk_wmem_alloc.refs.counter };
        // SAFETY: The field is valid; others may write it meanwhile, as in C.
        let bytes = unsafe { bytes.read_volatile() };
        // The socket itself counts as one.
        usize::try_from(bytes.wrapping_sub(1)).unwrap_or(0)
    }

    /// Sets the error that the next call of the user gets, and wakes who waits for one.
    pub fn report_error(&mut self, err: Error) {
        // SAFETY: By the type invariants, the socket is valid and locked.
        unsafe { bindings::sk_set_err(self.as_sock(), err.to_errno().wrapping_neg()) };
        // SAFETY: As above.
        unsafe { bindings::sk_error_report(self.as_sock()) };
    }

    /// Wakes who waits for a change of the state.
    pub fn state_change(&mut self) {
        // SAFETY: By the type invariants, the socket is valid.
        unsafe { bindings::sk_state_change(self.as_sock()) };
    }

    /// Whether another part of the kernel has taken the socket over at this moment, such as a BPF
    /// sockmap: not all of them take the socket lock for that.
    #[doc(alias = "sk_user_data")]
    #[inline]
    pub fn has_user_data(&self) -> bool {
        // SAFETY: By the type invariants, the socket is valid; no reference is made.
        let data = unsafe { &raw const (*self.as_sock()).sk_user_data };
        // SAFETY: The field is valid; others may write it meanwhile, as in C.
        !unsafe { data.read_volatile() }.is_null()
    }

    /// Wakes who waits for space to send.
    #[inline]
    pub fn write_space(&mut self) {
        // SAFETY: By the type invariants, the socket is valid.
        unsafe { bindings::sk_write_space(self.as_sock()) };
    }

    /// Wakes who waits for data, if there are `SO_RCVLOWAT` bytes.
    ///
    /// Calls `stream_has_data` of the transport.
    #[doc(alias = "vsock_data_ready")]
    #[inline]
    pub fn data_ready(&mut self) {
        // SAFETY: By the type invariants, the socket is valid, and locked.
        unsafe { bindings::vsock_data_ready(self.as_sock()) };
    }

    /// Wakes who waits in `accept()`.
    pub fn accept_ready(&mut self) {
        // SAFETY: By the type invariants, the socket is valid.
        unsafe { bindings::sk_data_ready(self.as_sock()) };
    }

    /// Tells the socket layer that `connect()` succeeded.
    pub fn set_connected(&mut self) {
        self.set_state(SockState::Established);
        // SAFETY: By the type invariants, the socket is valid and locked.
        unsafe { bindings::sk_socket_connected(self.as_sock()) };
    }

    /// Puts the socket into the core's table of connections.
    #[doc(alias = "vsock_insert_connected")]
    pub fn insert_connected(&mut self) {
        // SAFETY: By the type invariants, the socket is valid and locked.
        unsafe { bindings::vsock_remove_connected(self.vsk) };
        // SAFETY: As above; the socket is not in the table, and only a holder of its lock puts it
        // there.
        unsafe { bindings::vsock_insert_connected(self.vsk) };
    }

    /// Takes the socket out of the core's tables; harmless if it is in none.
    #[doc(alias = "vsock_remove_sock")]
    pub fn remove_from_tables(&mut self) {
        // SAFETY: By the type invariants, the socket is valid and locked.
        unsafe { bindings::vsock_remove_sock(self.vsk) };
    }

    /// Whether the backlog of a listener is full.
    pub fn accept_queue_is_full(&self) -> bool {
        // SAFETY: By the type invariants, the socket is valid.
        unsafe { bindings::sk_acceptq_is_full(self.as_sock()) }
    }

    /// Creates the socket of a connection to this listener.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    #[doc(alias = "vsock_create_connected")]
    pub fn create_child(&mut self) -> Result<ARef<VsockSock>> {
        // SAFETY: By the type invariants, the listener is valid and locked.
        let child = unsafe { bindings::vsock_create_connected(self.as_sock()) };
        let child = NonNull::new(child.cast::<VsockSock>()).ok_or(ENOMEM)?;
        // SAFETY: The new socket is valid and comes with a reference, which is ours.
        Ok(unsafe { ARef::from_raw(child) })
    }

    /// Locks a child while its listener, this socket, is locked.
    ///
    /// Context: may sleep.
    pub fn lock_child<'c>(&mut self, child: &'c VsockSock) -> SockGuard<'c> {
        // SAFETY: By the type invariants, the socket is alive.
        unsafe { bindings::lock_sock_child(child.as_sock()) };
        // INVARIANT: The child is locked, and the guard is what unlocks it.
        SockGuard {
            locked: LockedSock {
                vsk: child.as_raw(),
                _not_send: NotThreadSafe,
                _p: PhantomData,
            },
        }
    }

    /// Queues a connected child for `accept()`.
    ///
    /// The queue has a reference of its own; another one is the child's, which the core drops when
    /// the child is closed.
    #[doc(alias = "vsock_enqueue_accept")]
    pub fn enqueue_accept(&mut self, child: &mut LockedSock<'_>) {
        core::mem::forget(ARef::from(&**child));
        // SAFETY: By the type invariants, both are valid and locked; the core takes references.
        unsafe { bindings::vsock_enqueue_accept(self.as_sock(), child.as_sock()) };
    }

    /// Gives the socket the transport that its remote address asks for; `listener` is where the
    /// connection came in.
    ///
    /// Calls `init` of the transport.
    ///
    /// # Errors
    ///
    /// `EISCONN` if it has one already, `ENODEV` if there is no transport, `ESOCKTNOSUPPORT` if it does not do this type of socket,
    /// and what `init` says.
    #[doc(alias = "vsock_assign_transport")]
    pub fn assign_transport(&mut self, listener: &LockedSock<'_>) -> Result {
        // What was borrowed from the state of the old transport would go away.
        // SAFETY: By the type invariants, the socket is valid and locked.
        if !unsafe { (*self.vsk).transport }.is_null() {
            return Err(EISCONN);
        }
        // SAFETY: By the type invariants, both are valid and locked.
        to_result(unsafe { bindings::vsock_assign_transport(self.vsk, listener.vsk) })
    }

    /// Waits for `SO_LINGER` until all was sent, unless the task exits.
    ///
    /// Context: sleeps, and unlocks the socket meanwhile.
    #[doc(alias = "vsock_linger")]
    pub fn linger(&mut self) {
        // SAFETY: FFI call without preconditions.
        if unsafe { bindings::current_exiting() } {
            return;
        }
        // SAFETY: By the type invariants, the socket is valid and locked.
        unsafe { bindings::vsock_linger(self.as_sock()) };
    }

    /// Starts the timer of a close that waits for the peer. The timer has a reference to the
    /// socket, which [`cancel_close`](Self::cancel_close) gives back, or which [`OnCloseTimeout`]
    /// drops.
    pub fn schedule_close<T: OnCloseTimeout>(&mut self, seconds: c_ulong) {
        if self.close_is_scheduled() {
            return;
        }
        let raw = self.vsk;
        // SAFETY: The socket is locked, and the work is not scheduled: it may be initialized.
        unsafe { bindings::init_close_work(raw, Some(close_timeout::<T>)) };
        self.set_close_scheduled(true);
        // The reference of the timer.
        core::mem::forget(ARef::from(&**self));
        // SAFETY: The work was initialized just now, and the socket lives until it ran.
        unsafe {
            bindings::schedule_close_work(raw, seconds.saturating_mul(bindings::HZ as c_ulong))
        };
    }

    fn set_close_scheduled(&mut self, yes: bool) {
        // SAFETY: By the type invariants, the socket is valid, and the lock protects the field.
        unsafe { (*self.vsk).close_work_scheduled = yes };
    }

    /// Whether the timer of a close is pending.
    #[inline]
    pub fn close_is_scheduled(&self) -> bool {
        // SAFETY: By the type invariants, the socket is valid, and the lock protects the field.
        unsafe { (*self.vsk).close_work_scheduled }
    }

    /// Stops the timer of a close, and returns its reference to the socket if it had not fired.
    pub fn cancel_close(&mut self) -> Option<ARef<VsockSock>> {
        if !self.close_is_scheduled() {
            return None;
        }
        // SAFETY: The work was initialized, by `close_work_scheduled`.
        if !unsafe { bindings::cancel_delayed_work(&raw mut (*self.vsk).close_work) } {
            return None;
        }
        self.set_close_scheduled(false);
        // SAFETY: The work will not run, hence the reference of the timer is ours.
        Some(unsafe { ARef::from_raw(NonNull::new_unchecked(self.vsk.cast())) })
    }
}

/// What happens when the peer does not answer a close in time.
pub trait OnCloseTimeout {
    /// Called in process context with the socket locked; the timer is not pending any more.
    fn close_timeout(sock: &mut LockedSock<'_>);
}

/// # Safety
///
/// `work` is the `close_work` of a `struct vsock_sock`, scheduled by [`LockedSock::schedule_close`].
unsafe extern "C" fn close_timeout<T: OnCloseTimeout>(work: *mut bindings::work_struct) {
    let offset = core::mem::offset_of!(bindings::vsock_sock, close_work)
        + core::mem::offset_of!(bindings::delayed_work, work);
    // SAFETY: By the safety requirements, the work is a field of a `vsock_sock`.
    let vsk = unsafe { work.byte_sub(offset) }.cast::<VsockSock>();
    // SAFETY: The pointer is not null; `schedule_close` left a reference for us.
    let sock = unsafe { ARef::from_raw(NonNull::new_unchecked(vsk)) };
    let mut locked = sock.lock();
    locked.set_close_scheduled(false);
    T::close_timeout(&mut locked);
}

/// Data that the lock of a socket protects.
///
/// # Invariants
///
/// `data` is accessed by a task that holds the lock of `sock`, or by the only owner.
pub struct SockLocked<T> {
    sock: *const bindings::vsock_sock,
    data: UnsafeCell<T>,
}

// SAFETY: The data moves with the value; the pointer is only compared.
unsafe impl<T: Send> Send for SockLocked<T> {}
// SAFETY: By the type invariants, one task at a time has access.
unsafe impl<T: Send> Sync for SockLocked<T> {}

impl<T> SockLocked<T> {
    /// Makes `data` accessible under the lock of `sock`.
    pub fn new(sock: &VsockSock, data: T) -> Self {
        Self {
            sock: sock.as_raw(),
            data: UnsafeCell::new(data),
        }
    }

    /// Gives access, or nothing if `sock` is another socket.
    #[inline]
    pub fn get<'s>(&'s self, sock: &'s mut LockedSock<'_>) -> Option<&'s mut T> {
        if !core::ptr::eq(self.sock, sock.vsk) {
            return None;
        }
        // SAFETY: `sock` is evidence that the current task holds the lock of the socket, and it is
        // borrowed mutably for as long as the data is.
        Some(unsafe { &mut *self.data.get() })
    }
}
