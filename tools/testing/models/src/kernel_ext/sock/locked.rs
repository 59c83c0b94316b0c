// SPDX-License-Identifier: GPL-2.0

//! A socket with its lock.

use super::{
    LockedSock,
    Poll,
    Shutdown,
    SockAddr,
    SockState,
    Sockets,
    VsockSock,
    WeakSock, //
};
use crate::{
    kernel::{
        error::{
            Error,
            Result, //
        },
        sync::aref::ARef, //
    },
    world, //
};
use std::sync::Arc as StdArc;

impl LockedSock {
    /// Changes the state.
    pub fn set_state(&mut self, state: SockState) {
        self.fields().state = state;
    }

    /// `SOCK_DONE`.
    pub fn set_done(&mut self) {
        let mut fields = self.fields();
        fields.done = true;
        fields.ended += 1;
    }

    /// Notes what the user shut down.
    pub(crate) fn set_shutdown(&mut self, how: Shutdown) {
        let _glance = self.0 .0.glance.lock().unwrap();
        self.fields().shutdown = how;
    }

    /// Notes what the peer shut down.
    pub fn set_peer_shutdown(&mut self, how: Shutdown) {
        self.fields().peer_shutdown = how;
    }

    /// The address of this side.
    pub fn local_addr(&self) -> SockAddr {
        self.fields().local
    }

    /// That of the peer.
    pub fn remote_addr(&self) -> SockAddr {
        self.fields().remote
    }

    /// The CID of this side is another one.
    pub fn set_local_cid(&mut self, cid: u32) {
        self.fields().local.cid = cid;
    }

    /// Sets both addresses.
    pub fn set_addrs(&mut self, local: SockAddr, remote: SockAddr) {
        let mut fields = self.fields();
        fields.local = local;
        fields.remote = remote;
    }

    /// The size of the buffer.
    pub fn buffer_size(&self) -> u64 {
        4096
    }

    /// It is always the same.
    pub fn set_buffer_size(&mut self, _size: u64) {}

    /// Sets the error, and wakes who waits.
    pub fn report_error(&mut self, err: Error) {
        self.fields().err = Some(err);
        self.wake(Poll::All);
    }

    /// Wakes who waits.
    pub fn state_change(&mut self) {
        self.wake(Poll::All);
    }

    /// As above.
    pub fn data_ready(&mut self) {
        self.wake(Poll::In);
    }

    /// As above.
    pub fn accept_ready(&mut self) {
        self.wake(Poll::In);
    }

    /// The user is connected.
    pub fn set_connected(&mut self) {
        let mut fields = self.fields();
        fields.state = SockState::Established;
        fields.connected += 1;
    }

    /// The socket is in the core's table.
    pub fn insert_connected(&mut self) {
        self.fields().in_tables = true;
    }

    /// It is not.
    pub fn remove_from_tables(&mut self) {
        self.fields().in_tables = false;
    }

    /// `SO_LINGER`, which the owner gives the lock up for.
    pub fn linger(&mut self) {}

    /// Runs the backlog: `sk_flush_backlog()`.
    pub fn flush_backlog(&mut self) {
        let sock = self.0.clone();
        drop(sock.run_backlog(sock.0.slock.lock().unwrap()));
    }

    /// `release_sock()`, and `lock_sock()` after that; `sleep` is what happens in between.
    pub(crate) fn unlocked(&mut self, sleep: impl FnOnce(&VsockSock)) {
        self.0.unlock();
        sleep(&self.0);
        self.0.acquire();
    }

    /// Whether the timer of a close runs.
    pub fn close_is_scheduled(&self) -> bool {
        self.fields().close_scheduled
    }

    /// Starts it.
    pub fn schedule_close<T: OnCloseTimeout>(&mut self, _seconds: core::ffi::c_ulong) {
        if !core::mem::replace(&mut self.fields().close_scheduled, true) {
            *self.0 .0.timer.lock().unwrap() = Some((T::close_timeout, self.0.clone()));
            world::the::<Sockets>()
                .timers
                .borrow_mut()
                .push(WeakSock(StdArc::downgrade(&self.0 .0)));
        }
    }

    /// Stops it.
    pub fn cancel_close(&mut self) -> Option<ARef<VsockSock>> {
        if !self.close_is_scheduled() {
            return None;
        }
        let (_, sock) = self.0 .0.timer.lock().unwrap().take()?;
        self.fields().close_scheduled = false;
        Some(ARef(sock))
    }

    /// `vsock_assign_transport()`, for a child.
    pub fn assign_transport(&mut self, _listener: &VsockSock) -> Result {
        if let Some(assign) = world::the::<Sockets>().assign.get() {
            assign(self);
        }
        Ok(())
    }
}

/// What happens when the timer fires.
pub trait OnCloseTimeout {
    /// The socket is locked.
    fn close_timeout(sock: &mut LockedSock);
}
