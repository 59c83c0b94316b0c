// SPDX-License-Identifier: GPL-2.0

//! How the payload of a buffer is filled, once it has room for one.

use super::SkBuff;
use crate::{
    bindings,
    owner_mm::InOwnerMm,
    user_iov::UserIov, //
};
use core::ptr::NonNull;
use kernel::{
    error::to_result,
    iov::IovIterSource,
    prelude::*, //
};

impl<C> SkBuff<C> {
    /// Where a payload of `len` bytes is going to be, if that is in one piece. The payload, which
    /// must be empty, has room for it.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is a payload, `EMSGSIZE` if there is no room for `len` bytes, or the
    /// fragments have not just as many.
    #[inline]
    fn place(&self, len: usize) -> Result<Option<NonNull<u8>>> {
        if !self.is_empty() {
            return Err(EINVAL);
        }
        if self.is_nonlinear() {
            if len != self.skb().data_len as usize {
                return Err(EMSGSIZE);
            }
            // SAFETY: By the type invariants, the buffer is valid.
            let only = unsafe { bindings::skb_only_frag(self.as_raw()) };
            return Ok(NonNull::new(only.cast()));
        }
        if len > self.tailroom() {
            return Err(EMSGSIZE);
        }
        Ok(NonNull::new(self.tail()))
    }

    /// Fills the payload, which must be empty, with exactly `len` bytes.
    ///
    /// Context: may sleep if the source is user memory.
    ///
    /// # Errors
    ///
    /// `EFAULT` if the source ends or faults before; its position is not moved then. `EMSGSIZE` if
    /// the buffer has no room for `len` bytes.
    pub fn fill_from_iter(&mut self, source: &mut IovIterSource<'_>, len: usize) -> Result {
        if let Some(to) = self.place(len)? {
            let read = |to: *mut u8| {
                // SAFETY: There is room for `len` bytes, says `fill_at()`; the source is valid by
                // its own invariants.
                match unsafe { bindings::copy_from_iter_full(to.cast(), len, source.as_raw()) } {
                    true => Ok(()),
                    false => Err(EFAULT),
                }
            };
            // SAFETY: `place()` says where; if it does not fail, all of it was written.
            return unsafe { self.fill_at(to, len, read) };
        }
        let count = c_int::try_from(len)?;
        self.set_len(len);
        // SAFETY: The buffer has `len` bytes of payload in fragments; the source is valid by its
        // own invariants.
        let ret = to_result(unsafe {
            bindings::skb_copy_datagram_from_iter_full(self.as_raw(), 0, source.as_raw(), count)
        });
        if ret.is_err() {
            // INVARIANT: What was not written is no payload.
            self.clear_len();
        }
        ret
    }

    /// Fills the payload, which must be empty, with the `len` bytes of a list that begin at
    /// `offset`.
    ///
    /// Context: sleeps.
    ///
    /// # Errors
    ///
    /// As for [`fill_from_iter`](Self::fill_from_iter).
    pub fn fill_from_owner(
        &mut self,
        source: &UserIov,
        mm: &InOwnerMm,
        offset: usize,
        len: usize,
    ) -> Result {
        let Some(to) = self.place(len)? else {
            return self.fill_from_iter(&mut source.source_at(mm, offset), len);
        };
        let read = |to: *mut u8| {
            // SAFETY: There is room for `len` bytes, says `fill_at()`.
            unsafe { source.read_raw(mm, offset, to, len) }
        };
        // SAFETY: `place()` says where; if it does not fail, all of it was read.
        unsafe { self.fill_at(to, len, read) }
    }

    /// Fills the payload, which must be empty and in one piece, with `len` bytes that `fill` writes
    /// to where it is told.
    ///
    /// # Errors
    ///
    /// Those of `fill`; `EINVAL` if the payload is not empty, `EMSGSIZE` if there is no room.
    ///
    /// # Safety
    ///
    /// If `fill` does not fail, it has initialized the `len` bytes, which it may write.
    pub(crate) unsafe fn fill_tail(
        &mut self,
        len: usize,
        fill: impl FnOnce(*mut u8) -> Result,
    ) -> Result {
        let to = self.place(len)?.ok_or(EMSGSIZE)?;
        // SAFETY: `place()` says where; the rest is for the caller.
        unsafe { self.fill_at(to, len, fill) }
    }

    /// # Safety
    ///
    /// [`place`](Self::place) said just now that `len` bytes go to `to`. If `fill` does not fail, it
    /// has initialized them.
    #[inline]
    unsafe fn fill_at(
        &mut self,
        to: NonNull<u8>,
        len: usize,
        fill: impl FnOnce(*mut u8) -> Result,
    ) -> Result {
        fill(to.as_ptr())?;
        // INVARIANT: The new bytes of the payload were just initialized.
        self.set_len(len);
        Ok(())
    }

    /// The payload, which has room for it, has `len` bytes.
    #[inline]
    fn set_len(&mut self, len: usize) {
        if self.is_nonlinear() {
            // CAST: As below.
            // SAFETY: By the type invariants the buffer is valid and ours; the fragments have
            // `data_len` bytes, which is `len`.
            unsafe { (*self.as_raw()).len = len as c_uint };
        } else {
            // CAST: No buffer has more bytes than that.
            // SAFETY: The caller checked that there is room.
            unsafe { bindings::skb_put(self.as_raw(), len as c_uint) };
        }
    }

    /// The payload has no bytes.
    #[inline]
    pub(super) fn clear_len(&mut self) {
        if self.is_nonlinear() {
            // SAFETY: By the type invariants, the buffer is valid and ours.
            unsafe { (*self.as_raw()).len = 0 };
        } else {
            // SAFETY: As above; trimming a linear buffer to nothing.
            unsafe { bindings::skb_trim(self.as_raw(), 0) };
        }
    }
}
