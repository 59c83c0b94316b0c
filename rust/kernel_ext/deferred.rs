// SPDX-License-Identifier: GPL-2.0

//! Work on a locked socket that waits for nobody.
//!
//! The lock of a socket is held for as long as a user likes: a program copies from memory that
//! never comes. A worker that has something to do with the lock held must not wait for that. It
//! takes the lock if nobody has it, else it leaves the work in the socket's *backlog*, and the
//! owner does it when it lets the socket go, as with TCP.
//!
//! ```
//! use kernel::prelude::*;
//! use kernel_ext::{deferred::Token, sock::VsockSock};
//!
//! /// Wakes the readers of a socket under its lock: now, or when its owner lets go.
//! fn wake(sock: &VsockSock) -> Result {
//!     let mut token = Some(Token::new(|sock, _| sock.data_ready())?);
//!     if let Some(mut sock) = sock.lock_or_defer(&mut token, usize::MAX)? {
//!         sock.data_ready();
//!     }
//!     Ok(())
//! }
//! ```

use crate::{
    bindings,
    gfp::Gfp,
    skb::SkBuff,
    sock::{
        LockedSock,
        NewChild,
        SockGuard,
        VsockSock, //
    }, //
};
use core::ptr::NonNull;
use kernel::prelude::*;

/// What is done with the locked socket.
///
/// Context: process context, may sleep; the task may be any that had the socket.
pub type Run = fn(&mut LockedSock, Option<NewChild>);

struct Deferred {
    run: Run,
    child: Option<NewChild>,
}

/// A work that may go to the backlog of a socket, and has the memory for that.
///
/// If the module of `run` may go away meanwhile, the token has to keep it: the child does, and so
/// does the socket if it is on a transport of that module until its backlog was run.
pub struct Token(SkBuff<Deferred>);

impl Token {
    /// A work on the socket alone.
    ///
    /// Context: sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(run: Run) -> Result<Self> {
        Self::with(Gfp::Kernel, run)
    }

    /// A work that is done with a child as well.
    ///
    /// Context: sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and gives the child back.
    pub fn with_child(run: Run, child: NewChild) -> Result<Self, (Error, NewChild)> {
        match Self::new(run) {
            Ok(mut token) => {
                token.0.cb_mut().child = Some(child);
                Ok(token)
            }
            Err(e) => Err((e, child)),
        }
    }

    /// As [`new`](Self::new); waits for memory for as long as it takes.
    pub fn new_no_fail(run: Run) -> Self {
        loop {
            if let Ok(token) = Self::with(Gfp::KernelNoFail, run) {
                return token;
            }
        }
    }

    fn with(gfp: Gfp, run: Run) -> Result<Self> {
        SkBuff::alloc(0, 0, gfp, Deferred { run, child: None }).map(Self)
    }

    /// What the work was to be done with.
    pub fn into_child(self) -> Option<NewChild> {
        let (_, deferred) = self.0.replace_cb(());
        deferred.child
    }
}

impl VsockSock {
    /// Locks the socket if nobody has it. If somebody has, the token goes to the backlog, and its
    /// work is done before anybody else gets the lock.
    ///
    /// Without a token nothing is left behind. `limit` is how many tokens may wait.
    ///
    /// Context: any but interrupts; a spinlock may be held, which is not to be taken by what runs
    /// with the `slock` of a socket held.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` if the socket has an owner, and there is no token or no room for it.
    pub fn lock_or_defer(
        &self,
        token: &mut Option<Token>,
        limit: usize,
    ) -> Result<Option<SockGuard<'_>>> {
        let skb = token.take().map(|token| token.0.into_raw());
        let raw = skb.map_or(core::ptr::null_mut(), NonNull::as_ptr);
        let limit = c_uint::try_from(limit).unwrap_or(c_uint::MAX);
        // SAFETY: By the type invariants, the socket is alive. The buffer is ours, and in no list.
        let ret = unsafe {
            bindings::sock_lock_or_backlog(self.as_sock(), raw, limit, Some(take_deferred))
        };
        if ret == 0 {
            return Ok(None);
        }
        // SAFETY: It was not taken, and came from `into_raw()` above.
        *token = skb.map(|skb| Token(unsafe { SkBuff::from_raw(skb) }));
        if ret < 0 {
            return Err(ENOBUFS);
        }
        // SAFETY: Just locked.
        Ok(Some(unsafe { SockGuard::new(self) }))
    }
}

impl VsockSock {
    /// Whether there would be no room for a token now, in the backlog of a socket that somebody
    /// has: who is going to make something large for one can tell before.
    ///
    /// Context: as for [`lock_or_defer`](Self::lock_or_defer).
    #[inline]
    pub fn backlog_is_full(&self, limit: usize) -> bool {
        // SAFETY: By the type invariants, the socket is alive; no reference is made.
        let len = unsafe { &raw const (*self.as_sock()).sk_backlog.len };
        // SAFETY: The field is valid; others may write it meanwhile, as in C.
        if unsafe { len.read_volatile() } == 0 {
            return false;
        }
        let limit = c_uint::try_from(limit).unwrap_or(c_uint::MAX);
        // SAFETY: By the type invariants, the socket is alive.
        unsafe { bindings::sock_backlog_is_full(self.as_sock(), limit) }
    }
}

impl LockedSock {
    /// Does now what waits in the backlog.
    ///
    /// Context: may sleep.
    #[doc(alias = "sk_flush_backlog")]
    pub fn flush_backlog(&mut self) {
        // SAFETY: By the type invariants, the socket is valid and locked.
        unsafe { bindings::sk_flush_backlog(self.as_sock()) };
    }
}

/// # Safety
///
/// `sk` is a vsock socket that the current task has locked, `skb` was put into its backlog by
/// [`VsockSock::lock_or_defer`].
unsafe extern "C" fn take_deferred(sk: *mut bindings::sock, skb: *mut bindings::sk_buff) -> c_int {
    // SAFETY: By the safety requirements.
    unsafe { bindings::sock_backlog_taken(sk, skb) };
    // SAFETY: A buffer of the backlog is not null.
    let skb = unsafe { NonNull::new_unchecked(skb) };
    // SAFETY: It came from the `into_raw()` of a token, which the backlog gives up.
    let token = Token(unsafe { SkBuff::from_raw(skb) });
    let (_, Deferred { run, child }) = token.0.replace_cb(());
    // SAFETY: The owner is within `release_sock()`, or a flush, and does not touch the socket
    // meanwhile.
    run(unsafe { LockedSock::assume_locked(sk.cast()) }, child);
    0
}
