// SPDX-License-Identifier: GPL-2.0

//! Work for a backlog, and sockets that nobody has yet.

use super::{
    LockedSock,
    SockGuard,
    SockType,
    VsockSock, //
};
use crate::kernel::{
    error::{
        Error,
        Result,
        ENOMEM, //
    },
    sync::aref::ARef, //
};

/// What is done with the locked socket.
pub type Run = fn(&mut LockedSock, Option<NewChild>);

/// A work for a backlog.
pub struct Token {
    pub(super) run: Run,
    pub(super) child: Option<NewChild>,
}

impl Token {
    /// Memory that it counts.
    pub const SIZE: usize = 1;

    /// A work with a child.
    pub fn with_child(run: Run, child: NewChild) -> Result<Self, (Error, NewChild)> {
        let child = Some(child);
        Ok(Self { run, child })
    }

    /// A work on the socket alone.
    pub fn new_no_fail(run: Run) -> Self {
        Self { run, child: None }
    }

    /// The child.
    pub fn into_child(self) -> Option<NewChild> {
        self.child
    }
}

/// A socket that nobody has yet.
pub struct NewChild(ARef<VsockSock>);

impl NewChild {
    /// Makes it.
    pub fn new(listener: &VsockSock) -> Result<Self> {
        if listener.ty() != SockType::Stream {
            return Err(ENOMEM);
        }
        Ok(Self(ARef(VsockSock::create(listener.ty(), false))))
    }

    /// The socket.
    pub fn sock(&self) -> &VsockSock {
        &self.0
    }

    /// Locks it.
    pub fn lock(&self) -> SockGuard<'_> {
        self.0.lock()
    }

    /// Queues it.
    pub fn enqueue(self, listener: &mut LockedSock) -> ARef<VsockSock> {
        let sock: &VsockSock = listener;
        let _glance = sock.0.glance.lock().unwrap();
        listener.fields().accept_queue.push_back(self.0 .0.clone());
        self.0
    }
}
