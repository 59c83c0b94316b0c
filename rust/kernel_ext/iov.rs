// SPDX-License-Identifier: GPL-2.0

//! The message of a `send()` or `recv()`.
//!
//! C header: [`include/linux/socket.h`](srctree/include/linux/socket.h).

use crate::bindings;
use core::mem::MaybeUninit;
use kernel::{
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    prelude::*, //
};

/// The message of a system call in progress: `struct msghdr`, with the memory of the user.
///
/// Context: the task of the system call; not to be kept.
///
/// # Invariants
///
/// `msg` is valid, and only used through this object, for all of `'a`; its `msg_iter` is a source
/// if `S`, a destination otherwise.
pub struct MsgHdr<'a, const S: bool> {
    msg: &'a mut bindings::msghdr,
}

/// The message of a `send()`.
pub type SendMsg<'a> = MsgHdr<'a, true>;
/// The message of a `recv()`.
pub type RecvMsg<'a> = MsgHdr<'a, false>;

impl<'a, const S: bool> MsgHdr<'a, S> {
    /// Makes an object of what the socket layer passes to a transport.
    ///
    /// # Safety
    ///
    /// The type invariants hold for `msg`.
    pub(crate) unsafe fn from_raw(msg: *mut bindings::msghdr) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            // SAFETY: By the safety requirements.
            msg: unsafe { &mut *msg },
        }
    }

    fn has(&self, flag: u32) -> bool {
        self.msg.msg_flags & flag != 0
    }
}

impl SendMsg<'_> {
    /// Where the data comes from.
    #[inline]
    pub fn source(&mut self) -> &mut IovIterSource<'_> {
        // `from_raw` would do the same, and panic if the iterator were a destination.
        // CAST: `IovIterSource` is a transparent wrapper of `struct iov_iter`.
        let iter = (&raw mut self.msg.msg_iter).cast::<IovIterSource<'_>>();
        // SAFETY: By the type invariants, the iterator is a valid source, which is borrowed for as
        // long as the result is.
        unsafe { &mut *iter }
    }

    /// Bytes that were not sent yet.
    #[inline]
    pub fn left(&mut self) -> usize {
        self.source().len()
    }

    /// Makes the memory of the next `len` bytes present, so that a copy that must not sleep finds
    /// it, unless it is taken away again.
    ///
    /// Context: may sleep, as long as a user wants.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it is not all there.
    #[inline]
    pub fn fault_in(&mut self, len: usize) -> Result {
        let iter = &raw const self.msg.msg_iter;
        // SAFETY: The iterator is a valid source, by the type invariants, and is not moved.
        let missing = unsafe { bindings::fault_in_iov_iter_readable(iter, len) };
        if missing == 0 {
            Ok(())
        } else {
            Err(EFAULT)
        }
    }

    /// Does something with the message, and puts the position of its source back if that fails.
    #[inline]
    pub fn attempt<R>(&mut self, f: impl FnOnce(&mut Self) -> Result<R>) -> Result<R> {
        // SAFETY: The iterator is valid for reads; it is plain data that describes a position.
        let before = unsafe { (&raw const self.msg.msg_iter).read() };
        let ret = f(self);
        if ret.is_err() {
            // SAFETY: The iterator is valid for writes, and `before` describes a position in the
            // same memory, which lives as long as `self`.
            unsafe { (&raw mut self.msg.msg_iter).write(before) };
        }
        ret
    }

    /// Copies bytes of the message until `room` is full, if they are there at this moment; else
    /// the position of the source is anywhere. See [`attempt`](Self::attempt).
    ///
    /// Context: does not sleep, as no fault is taken.
    #[inline]
    pub fn copy_nofault<'b>(&mut self, room: &'b mut [MaybeUninit<u8>]) -> Option<&'b [u8]> {
        let (to, len) = (room.as_mut_ptr(), room.len());
        // SAFETY: `to` is valid for writes of `len` bytes; the source is valid by the type
        // invariants.
        let got =
            unsafe { bindings::copy_from_iter_nofault(to.cast(), len, self.source().as_raw()) };
        // SAFETY: All of the bytes were written.
        (got == len).then(|| unsafe { core::slice::from_raw_parts(to.cast::<u8>(), len) })
    }

    /// `MSG_EOR`: the message ends a record.
    #[inline]
    pub fn is_end_of_record(&self) -> bool {
        self.has(bindings::MSG_EOR)
    }

    /// `MSG_ZEROCOPY`.
    #[inline]
    pub fn wants_zerocopy(&self) -> bool {
        self.has(bindings::MSG_ZEROCOPY)
    }

    /// The completion that the caller brought along, or null.
    #[inline]
    pub(crate) fn ubuf(&self) -> *mut bindings::ubuf_info {
        self.msg.msg_ubuf
    }

    /// The C objects.
    #[inline]
    pub(crate) fn as_raw(&mut self) -> (*mut bindings::msghdr, *mut bindings::iov_iter) {
        let msg: *mut bindings::msghdr = &mut *self.msg;
        // SAFETY: By the type invariants, the message is valid.
        (msg, unsafe { &raw mut (*msg).msg_iter })
    }

    /// How many pages the rest of the message is in, at most `max`; nothing if the message was
    /// begun in the middle of a segment.
    #[inline]
    pub fn whole_pages(&mut self, max: usize) -> Option<usize> {
        if self.msg.msg_iter.iov_offset != 0 {
            return None;
        }
        let max = c_int::try_from(max).unwrap_or(c_int::MAX);
        // SAFETY: By the type invariants, the iterator is valid.
        let pages = unsafe { bindings::iov_iter_npages(&raw const self.msg.msg_iter, max) };
        usize::try_from(pages).ok()
    }
}

impl RecvMsg<'_> {
    /// Where the data goes.
    #[inline]
    pub fn dest(&mut self) -> &mut IovIterDest<'_> {
        // `from_raw` would do the same, and panic if the iterator were a source.
        // CAST: `IovIterDest` is a transparent wrapper of `struct iov_iter`.
        let iter = (&raw mut self.msg.msg_iter).cast::<IovIterDest<'_>>();
        // SAFETY: By the type invariants, the iterator is a valid destination, which is borrowed
        // for as long as the result is.
        unsafe { &mut *iter }
    }

    /// Room that is left.
    #[inline]
    pub fn left(&mut self) -> usize {
        self.dest().len()
    }

    /// Tells the reader that the message ended a record.
    pub fn set_end_of_record(&mut self) {
        self.msg.msg_flags |= bindings::MSG_EOR;
    }
}
