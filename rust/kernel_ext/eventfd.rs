// SPDX-License-Identifier: GPL-2.0

//! Event counters that user space passes in as file descriptors.
//!
//! C header: [`include/linux/eventfd.h`](srctree/include/linux/eventfd.h).

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    error::from_err_ptr,
    fs::File,
    prelude::*,
    sync::aref::ARef, //
};

/// The counter of an eventfd, for signalling user space.
///
/// # Invariants
///
/// Owns a reference to the `eventfd_ctx`.
pub struct EventFd(NonNull<bindings::eventfd_ctx>);

// SAFETY: The context is reference counted and may be released by any thread.
unsafe impl Send for EventFd {}
// SAFETY: Signalling takes the lock of the context.
unsafe impl Sync for EventFd {}

impl EventFd {
    /// Takes the counter behind a file descriptor of the current task.
    ///
    /// # Errors
    ///
    /// `EBADF` if there is no such descriptor, `EINVAL` if it is not an eventfd.
    #[doc(alias = "eventfd_ctx_fdget")]
    pub fn from_fd(fd: i32) -> Result<Self> {
        // SAFETY: The function takes any number.
        let ctx = from_err_ptr(unsafe { bindings::eventfd_ctx_fdget(fd) })?;
        // INVARIANT: The function took a reference for us.
        NonNull::new(ctx).map(Self).ok_or(EBADF)
    }

    /// Adds one to the counter and wakes up those who wait for it.
    ///
    /// Context: any.
    #[doc(alias = "eventfd_signal")]
    #[inline]
    pub fn signal(&self) {
        // SAFETY: By the type invariants, the context is alive.
        unsafe { bindings::eventfd_signal_mask(self.0.as_ptr(), 0) };
    }
}

impl Drop for EventFd {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, we own a reference.
        unsafe { bindings::eventfd_ctx_put(self.0.as_ptr()) };
    }
}

/// An open eventfd file, for waiting until user space signals it: see
/// [`KickPoll`](crate::kick::KickPoll).
///
/// # Invariants
///
/// The file is an eventfd.
pub struct EventFdFile(ARef<File>);

impl EventFdFile {
    /// Takes the file behind a descriptor of the current task.
    ///
    /// Context: a system call that does not touch the position of a file, such as `ioctl`.
    ///
    /// # Errors
    ///
    /// `EBADF` if there is no such descriptor, `EINVAL` if it is not an eventfd.
    #[doc(alias = "eventfd_fget")]
    pub fn from_fd(fd: i32) -> Result<Self> {
        // SAFETY: The function takes any number.
        let file = from_err_ptr(unsafe { bindings::eventfd_fget(fd) })?;
        let file = NonNull::new(file).ok_or(EBADF)?;
        // SAFETY: The function took a reference for us. `File` is transparent over `struct file`.
        // An eventfd has no position, so nobody is in an `fdget_pos()` of it without the lock that
        // matters: its file operations never look at `f_pos`.
        let file = unsafe { ARef::from_raw(file.cast::<File>()) };
        // INVARIANT: `eventfd_fget()` checked it.
        Ok(Self(file))
    }

    /// Says whether the two are the same open file.
    pub fn same_file(&self, other: &Self) -> bool {
        core::ptr::eq(self.as_raw(), other.as_raw())
    }

    #[inline]
    pub(crate) fn as_raw(&self) -> *mut bindings::file {
        self.0.as_ptr()
    }
}
