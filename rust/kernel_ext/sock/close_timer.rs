// SPDX-License-Identifier: GPL-2.0

//! The timer of a socket that its user closed, and whose peer has yet to answer.

use super::{
    LockedSock,
    VsockSock, //
};
use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    prelude::*,
    sync::aref::ARef, //
};

impl LockedSock {
    /// Starts the timer of a close that waits for the peer. The timer has a reference to the
    /// socket, which [`cancel_close`](Self::cancel_close) gives back, or which [`OnCloseTimeout`]
    /// drops.
    pub fn schedule_close<T: OnCloseTimeout>(&mut self, seconds: c_ulong) {
        if self.close_is_scheduled() {
            return;
        }
        let raw = self.vsk();
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
        unsafe { (*self.vsk()).close_work_scheduled = yes };
    }

    /// Whether the timer of a close is pending.
    #[inline]
    pub fn close_is_scheduled(&self) -> bool {
        // SAFETY: By the type invariants, the socket is valid, and the lock protects the field.
        unsafe { (*self.vsk()).close_work_scheduled }
    }

    /// Stops the timer of a close, and returns its reference to the socket if it had not fired.
    pub fn cancel_close(&mut self) -> Option<ARef<VsockSock>> {
        if !self.close_is_scheduled() {
            return None;
        }
        // SAFETY: The work was initialized, by `close_work_scheduled`.
        if !unsafe { bindings::cancel_delayed_work(&raw mut (*self.vsk()).close_work) } {
            return None;
        }
        self.set_close_scheduled(false);
        // SAFETY: The work will not run, hence the reference of the timer is ours.
        Some(unsafe { ARef::from_raw(NonNull::new_unchecked(self.vsk().cast())) })
    }
}

/// What happens when the peer does not answer a close in time.
pub trait OnCloseTimeout {
    /// Called in process context with the socket locked; the timer is not pending any more.
    fn close_timeout(sock: &mut LockedSock);
}

/// # Safety
///
/// `work` is the `close_work` of a `struct vsock_sock`, scheduled by
/// [`LockedSock::schedule_close`].
unsafe extern "C" fn close_timeout<T: OnCloseTimeout>(work: *mut bindings::work_struct) {
    let offset = core::mem::offset_of!(bindings::vsock_sock, close_work)
        + core::mem::offset_of!(bindings::delayed_work, work);
    // SAFETY: By the safety requirements, the work is a field of a `vsock_sock`.
    let vsk = unsafe { work.byte_sub(offset) }.cast::<VsockSock>();
    // SAFETY: The pointer is not null; `schedule_close` left a reference for us.
    let sock = unsafe { ARef::from_raw(NonNull::new_unchecked(vsk)) };
    // SAFETY: FFI call without preconditions.
    unsafe { bindings::note_ran_for_socket() };
    let mut locked = sock.lock();
    locked.set_close_scheduled(false);
    T::close_timeout(&mut locked);
}
