// SPDX-License-Identifier: GPL-2.0

//! vsock sockets and the evidence that one is locked.
//!
//! C headers: [`include/net/af_vsock.h`](srctree/include/net/af_vsock.h),
//! [`include/net/sock.h`](srctree/include/net/sock.h).

#[path = "sock/child.rs"]
mod child;
#[path = "sock/close_timer.rs"]
mod close_timer;
#[path = "sock/types.rs"]
mod types;

pub use self::{
    child::NewChild,
    close_timer::OnCloseTimeout,
    types::{
        Shutdown,
        SockAddr,
        SockState,
        SockType, //
    }, //
};

use crate::{
    bindings,
    net::Net,
    trace, //
};
use core::{
    marker::PhantomData,
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    prelude::*,
    sync::aref::AlwaysRefCounted,
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

    /// Locks the socket, and waits for that as long as somebody else has it: as long as a user
    /// likes.
    ///
    /// For where no user has the socket any more. See [`lock_or_defer`](Self::lock_or_defer) for
    /// others.
    ///
    /// Context: process context, may sleep, no other lock of a socket or below is held.
    #[doc(alias = "lock_sock")]
    #[inline]
    pub fn lock(&self) -> SockGuard<'_> {
        // SAFETY: By the type invariants, the socket is alive.
        unsafe { bindings::lock_sock(self.as_sock()) };
        // SAFETY: Just locked.
        unsafe { SockGuard::new(self) }
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

    /// The state; it may change at any time unless the socket is locked.
    #[inline]
    pub fn state(&self) -> SockState {
        // SAFETY: By the type invariants, the socket is alive.
        let state = unsafe { &raw const (*self.as_sock()).__sk_common.skc_state };
        // SAFETY: The field is valid; others may write it meanwhile, as in C.
        SockState::from_raw(c_int::from(unsafe { state.read_volatile() }))
    }

    /// Whether the connection is over (`SOCK_DONE`).
    #[inline]
    pub fn is_done(&self) -> bool {
        self.flag(bindings::sock_flags_SOCK_DONE)
    }

    #[doc(alias = "sock_flag")]
    #[inline]
    fn flag(&self, flag: bindings::sock_flags) -> bool {
        // SAFETY: By the type invariants, the socket is alive; no reference is made.
        let flags = unsafe { &raw const (*self.as_sock()).__sk_common.__bindgen_anon_5.skc_flags };
        // SAFETY: The field is valid; others may write other bits of it meanwhile, as in C.
        (unsafe { flags.read_volatile() } >> flag) & 1 != 0
    }

    /// Whether `SO_ZEROCOPY` is set.
    #[inline]
    pub fn wants_zerocopy(&self) -> bool {
        self.flag(bindings::sock_flags_SOCK_ZEROCOPY)
    }

    /// Whether `SO_KEEPALIVE` is set.
    #[inline]
    pub fn keeps_alive(&self) -> bool {
        self.flag(bindings::sock_flags_SOCK_KEEPOPEN)
    }

    /// What the local user shut down.
    #[inline]
    pub fn shutdown(&self) -> Shutdown {
        // SAFETY: By the type invariants, the socket is alive.
        let how = unsafe { &raw const (*self.as_sock()).sk_shutdown };
        // SAFETY: The field is valid; others may write it meanwhile, as in C.
        Shutdown::from_bits(u32::from(unsafe { how.read_volatile() }))
    }

    /// `SO_RCVLOWAT`, in bytes, at least 1.
    #[inline]
    pub fn rcvlowat(&self) -> usize {
        // SAFETY: By the type invariants, the socket is alive.
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
        // SAFETY: By the type invariants, the socket is alive; no reference is made.
        let bytes = unsafe { &raw const (*self.as_sock()).sk_wmem_alloc.refs.counter };
        // SAFETY: The field is valid; others may write it meanwhile, as in C.
        let bytes = unsafe { bytes.read_volatile() };
        // The socket itself counts as one.
        usize::try_from(bytes.wrapping_sub(1)).unwrap_or(0)
    }

    /// Wakes who waits for space to send.
    #[inline]
    pub fn write_space(&self) {
        // SAFETY: By the type invariants, the socket is alive.
        unsafe { bindings::sk_write_space(self.as_sock()) };
    }

    /// Whether the backlog of a listener is full.
    pub fn accept_queue_is_full(&self) -> bool {
        // SAFETY: By the type invariants, the socket is alive.
        unsafe { bindings::sk_acceptq_is_full(self.as_sock()) }
    }

    /// Whether another part of the kernel has taken the socket over at this moment, such as a BPF
    /// sockmap: not all of them take the socket lock for that.
    #[doc(alias = "sk_user_data")]
    #[inline]
    pub fn has_user_data(&self) -> bool {
        // SAFETY: By the type invariants, the socket is alive; no reference is made.
        let data = unsafe { &raw const (*self.as_sock()).sk_user_data };
        // SAFETY: The field is valid; others may write it meanwhile, as in C.
        !unsafe { data.read_volatile() }.is_null()
    }

    /// Wakes readers, and says whether it did: not if another part of the kernel, such as a BPF
    /// sockmap, took the socket over, which is to be told with the socket locked
    /// ([`LockedSock::data_ready`]).
    ///
    /// Context: any but interrupts.
    #[inline]
    pub fn wake_readers(&self) -> bool {
        // SAFETY: By the type invariants, the socket is alive.
        unsafe { bindings::sk_data_ready_unlocked(self.as_sock()) }
    }

    /// How many connections a listener may have in its queue.
    pub fn max_accept_queue(&self) -> usize {
        // SAFETY: By the type invariants, the socket is alive.
        let max = unsafe { &raw const (*self.as_sock()).sk_max_ack_backlog };
        // SAFETY: The field is valid; others may write it meanwhile, as in C.
        let max = unsafe { max.read_volatile() };
        max as usize
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
/// It is only ever met by reference, and has no size that the compiler knows: it cannot be moved,
/// swapped or kept, and what is borrowed from it does not outlive the lock.
///
/// # Invariants
///
/// The address is that of a valid `struct vsock_sock` that has a reference, and whose lock is held
/// by the current task, for as long as the reference to this lives.
#[repr(C)]
pub struct LockedSock {
    vsk: Opaque<bindings::vsock_sock>,
    _not_send: NotThreadSafe,
    /// Makes the type unsized; there are none.
    _unsized: [()],
}

/// Evidence that a socket is locked, which unlocks it when it is dropped.
///
/// # Invariants
///
/// The current task holds the lock of `vsk`, and nobody else will release it. The socket has a
/// reference for all of `'a`.
#[must_use = "the socket is unlocked when the guard is dropped"]
pub struct SockGuard<'a> {
    vsk: NonNull<bindings::vsock_sock>,
    _not_send: NotThreadSafe,
    _p: PhantomData<&'a VsockSock>,
}

impl<'a> SockGuard<'a> {
    /// # Safety
    ///
    /// The current task has just locked `sock`, and nobody else will unlock it.
    pub(crate) unsafe fn new(sock: &'a VsockSock) -> Self {
        // INVARIANT: By the safety requirements; the borrow is a reference.
        Self {
            vsk: NonNull::from(sock).cast(),
            _not_send: NotThreadSafe,
            _p: PhantomData,
        }
    }
}

impl Deref for SockGuard<'_> {
    type Target = LockedSock;

    #[inline]
    fn deref(&self) -> &LockedSock {
        // SAFETY: By the type invariants, the socket is locked for as long as the guard lives.
        unsafe { &*LockedSock::from_raw(self.vsk.as_ptr()) }
    }
}

impl core::ops::DerefMut for SockGuard<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut LockedSock {
        // SAFETY: As above, and the guard is borrowed mutably.
        unsafe { &mut *LockedSock::from_raw(self.vsk.as_ptr()) }
    }
}

impl Drop for SockGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the lock is held and ours to release.
        unsafe { bindings::release_sock(self.vsk.as_ptr().cast()) };
    }
}

impl Deref for LockedSock {
    type Target = VsockSock;

    #[inline]
    fn deref(&self) -> &VsockSock {
        // SAFETY: By the type invariants, the socket is valid and has a reference.
        unsafe { VsockSock::from_raw(self.vsk.get()) }
    }
}

impl LockedSock {
    /// Takes the word of the C core that a socket is locked.
    ///
    /// # Safety
    ///
    /// The current task holds the lock of `vsk`, and a reference to it, for all of `'a`, and there
    /// is no other `LockedSock` for it in use meanwhile.
    #[inline]
    pub(crate) unsafe fn assume_locked<'a>(vsk: *mut bindings::vsock_sock) -> &'a mut Self {
        // INVARIANT: By the safety requirements.
        // SAFETY: The pointer is valid by the safety requirements.
        unsafe { &mut *Self::from_raw(vsk) }
    }

    /// The socket is the first field, and the others have no size.
    #[inline]
    fn from_raw(vsk: *mut bindings::vsock_sock) -> *mut Self {
        // CAST: The type of a slice at its end, which has no elements.
        core::ptr::slice_from_raw_parts_mut(vsk.cast::<()>(), 0) as *mut Self
    }

    #[inline]
    pub(crate) fn vsk(&self) -> *mut bindings::vsock_sock {
        self.vsk.get()
    }

    /// Changes the state, without telling anybody.
    #[inline]
    pub fn set_state(&mut self, state: SockState) {
        let (local, peer) = (self.local_addr(), self.remote_addr());
        trace::vsock_conn(
            local.cid,
            local.port,
            peer.cid,
            peer.port,
            self.state().as_raw() as u32, // CAST: Small numbers.
            state.as_raw() as u32,
        );
        // SAFETY: By the type invariants, the socket is valid and locked.
        unsafe { bindings::sk_set_state(self.as_sock(), state.as_raw()) };
    }

    /// Marks the connection as over.
    pub fn set_done(&mut self) {
        // SAFETY: By the type invariants, the socket is valid and locked.
        unsafe { bindings::sk_set_done(self.as_sock()) };
    }

    /// What the peer shut down.
    #[inline]
    pub fn peer_shutdown(&self) -> Shutdown {
        // SAFETY: By the type invariants, the socket is valid, and the lock protects the field.
        Shutdown::from_bits(unsafe { (*self.vsk()).peer_shutdown })
    }

    /// Notes what the peer shut down.
    pub fn set_peer_shutdown(&mut self, how: Shutdown) {
        // `vsock_poll()` reads this without the lock.
        // SAFETY: By the type invariants, the field is valid for writes.
        unsafe { (&raw mut (*self.vsk()).peer_shutdown).write_volatile(how.bits()) };
    }

    /// The local address.
    #[inline]
    pub fn local_addr(&self) -> SockAddr {
        // SAFETY: By the type invariants, the socket is valid, and the lock protects the field.
        SockAddr::from_c(unsafe { &(*self.vsk()).local_addr })
    }

    /// The address of the peer.
    #[inline]
    pub fn remote_addr(&self) -> SockAddr {
        // SAFETY: By the type invariants, the socket is valid, and the lock protects the field.
        SockAddr::from_c(unsafe { &(*self.vsk()).remote_addr })
    }

    /// Changes the local CID, as a migration may do.
    #[inline]
    pub fn set_local_cid(&mut self, cid: u32) {
        // SAFETY: By the type invariants, the socket is valid, and the lock protects the field.
        unsafe { (*self.vsk()).local_addr.svm_cid = cid };
    }

    /// Sets both addresses of a new connection.
    #[doc(alias = "vsock_addr_init")]
    pub fn set_addrs(&mut self, local: SockAddr, remote: SockAddr) {
        // SAFETY: By the type invariants, the socket is valid, and the lock protects the field.
        unsafe { (*self.vsk()).local_addr = local.to_c() };
        // SAFETY: As above.
        unsafe { (*self.vsk()).remote_addr = remote.to_c() };
    }

    /// `SO_VM_SOCKETS_BUFFER_SIZE`, in bytes.
    #[inline]
    pub fn buffer_size(&self) -> u64 {
        // SAFETY: By the type invariants, the socket is valid, and the lock protects the field.
        unsafe { (*self.vsk()).buffer_size }
    }

    /// Changes the buffer size.
    pub fn set_buffer_size(&mut self, size: u64) {
        // SAFETY: By the type invariants, the socket is valid, and the lock protects the field.
        unsafe { (*self.vsk()).buffer_size = size };
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

    /// Notes how the socket layer wakes readers: no other part of the kernel has the socket yet.
    pub(crate) fn note_data_ready(&self) {
        // SAFETY: By the type invariants, the socket is valid, and nobody changes the field now.
        unsafe { bindings::sk_note_data_ready(self.as_sock()) };
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
        unsafe { bindings::vsock_remove_connected(self.vsk()) };
        // SAFETY: As above; the socket is not in the table, and only a holder of its lock puts it
        // there.
        unsafe { bindings::vsock_insert_connected(self.vsk()) };
    }

    /// The owner of the socket, who may have said to the scheduler that it is about to sleep, looks
    /// again before it does: something may sleep, or have changed.
    pub fn stay_awake(&self) {
        // SAFETY: FFI call without preconditions.
        unsafe { bindings::task_stay_awake() };
    }

    /// Takes the socket out of the core's tables; harmless if it is in none.
    #[doc(alias = "vsock_remove_sock")]
    pub fn remove_from_tables(&mut self) {
        // SAFETY: By the type invariants, the socket is valid and locked.
        unsafe { bindings::vsock_remove_sock(self.vsk()) };
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
}
