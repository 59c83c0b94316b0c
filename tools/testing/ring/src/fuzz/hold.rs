// SPDX-License-Identifier: GPL-2.0

//! A thread that stands in a call on a socket, and with it has the socket's lock, for as long as a
//! test wants: the value for `setsockopt()` is in a page that the test provides ([`Faults`]).
//!
//! Cheaper than a user's process with a file system ([`crate::stuck`]), so that it can be done for
//! each packet of a sequence.

use crate::{
    fuse::PAGE,
    host::Socket,
    stuck::{MIN_SIZE, SMALLEST},
    sys::{fault::Faults, memory::Mapping, socket},
    Try,
};
use std::{io, os::fd::AsFd, sync::Arc, thread, time::Duration};

/// The page, and what is in it when it is provided.
pub struct Holder {
    faults: Faults,
    page: Arc<Mapping>,
    value: Mapping,
}

/// A socket whose lock a thread of ours has.
pub struct Held<'a> {
    holder: &'a Holder,
    thread: Option<thread::JoinHandle<io::Result<()>>>,
}

impl Holder {
    pub fn new() -> Try<Self> {
        let faults = Faults::new()?;
        let (page, value) = (Mapping::private(PAGE)?, Mapping::private(PAGE)?);
        value.write(0, &SMALLEST.to_ne_bytes());
        faults.register(&page, 0, PAGE)?;
        Ok(Self {
            faults,
            page: Arc::new(page),
            value,
        })
    }

    /// Returns when the thread has the lock of `socket`. One socket at a time.
    pub fn hold(&mut self, socket: &Socket) -> Try<Held<'_>> {
        self.page.advise(0, PAGE, libc::MADV_DONTNEED)?;
        let socket = socket.as_fd().try_clone_to_owned()?;
        let page = Arc::clone(&self.page);
        let call = move || socket::set_vsock_option_mapped(socket.as_fd(), MIN_SIZE, &page);
        let held = Held {
            holder: self,
            thread: Some(thread::spawn(call)),
        };
        held.holder.faults.wait(Duration::from_secs(20))?;
        Ok(held)
    }
}

impl Held<'_> {
    /// Returns when the call is over.
    pub fn let_go(mut self) -> Try<()> {
        self.end()
    }

    fn end(&mut self) -> Try<()> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        let Holder {
            faults,
            page,
            value,
        } = self.holder;
        faults.provide(page, 0, value)?;
        thread.join().map_err(|_| "the thread panicked")??;
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // A test that failed does not leave the thread behind.
        let _ = self.end();
    }
}
