// SPDX-License-Identifier: GPL-2.0

//! The socket of a connection that came in, until the listener has it.

use super::{
    LockedSock,
    SockGuard,
    VsockSock, //
};
use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    error::to_result,
    prelude::*,
    sync::aref::ARef, //
};

/// A socket that no user has yet, to be accepted from a listener.
///
/// It is made of the listener, gets its addresses and its transport while [locked](Self::lock), and
/// is [queued](Self::enqueue) once. Dropping it instead frees it; it is to be in no table any more
/// then.
///
/// # Invariants
///
/// The socket is in the queue of no listener.
pub struct NewChild(ARef<VsockSock>);

impl NewChild {
    /// Creates the socket of a connection to `listener`.
    ///
    /// Context: may sleep. The listener need not be locked: what the child takes over from it are
    /// single words, and what never changes.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    #[doc(alias = "vsock_create_connected")]
    pub fn new(listener: &VsockSock) -> Result<Self> {
        // SAFETY: By the type invariants, the listener is alive.
        let child = unsafe { bindings::vsock_create_connected(listener.as_sock()) };
        let child = NonNull::new(child.cast::<VsockSock>()).ok_or(ENOMEM)?;
        // INVARIANT: Nobody else knows it.
        // SAFETY: The new socket is valid and comes with a reference, which is ours.
        Ok(Self(unsafe { ARef::from_raw(child) }))
    }

    /// The socket.
    pub fn sock(&self) -> &VsockSock {
        &self.0
    }

    /// Locks the socket. No user has it, thus this does not wait for one.
    ///
    /// Context: may sleep; the listener may be locked.
    pub fn lock(&self) -> SockGuard<'_> {
        // SAFETY: By the type invariants, the socket is alive.
        unsafe { bindings::lock_sock_child(self.0.as_sock()) };
        // SAFETY: Just locked.
        unsafe { SockGuard::new(&self.0) }
    }

    /// Queues the socket for `accept()`, and returns a reference to it.
    ///
    /// The queue has a reference of its own; another one is the child's, which the core drops when
    /// the child is closed.
    #[doc(alias = "vsock_enqueue_accept")]
    pub fn enqueue(self, listener: &mut LockedSock) -> ARef<VsockSock> {
        let sock = self.0;
        // The reference of the child itself.
        core::mem::forget(sock.clone());
        // SAFETY: Both are alive, the listener is locked, and by the type invariants the child is
        // in no queue; the core takes references.
        unsafe { bindings::vsock_enqueue_accept(listener.as_sock(), sock.as_sock()) };
        sock
    }
}

impl LockedSock {
    /// Gives the socket the transport that its remote address asks for; `listener` is where the
    /// connection came in.
    ///
    /// Calls `init` of the transport.
    ///
    /// # Errors
    ///
    /// `EISCONN` if it has one already, `ENODEV` if there is no transport, `ESOCKTNOSUPPORT` if it
    /// does not do this type of socket, and what `init` says.
    #[doc(alias = "vsock_assign_transport")]
    pub fn assign_transport(&mut self, listener: &VsockSock) -> Result {
        // What was borrowed from the state of the old transport would go away.
        // SAFETY: By the type invariants, the socket is valid and locked.
        if !unsafe { (*self.vsk()).transport }.is_null() {
            return Err(EISCONN);
        }
        // SAFETY: By the type invariants, the socket is valid and locked; of the listener is only
        // looked at whether there is one.
        to_result(unsafe { bindings::vsock_assign_transport(self.vsk(), listener.as_raw()) })
    }
}
