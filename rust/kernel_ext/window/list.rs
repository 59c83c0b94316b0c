// SPDX-License-Identifier: GPL-2.0

//! Lists of pieces of the owner's memory, through windows.
//!
//! All of these return `None` if a piece has no window, or the list is too short; a part may have
//! been copied then.

use super::Reading;
use crate::{
    bindings,
    skb::SkBuff,
    user_iov::UserIov, //
};
use kernel::{
    iov::IovIterSource,
    prelude::*, //
};

impl Reading<'_> {
    /// Reads `out` from the pieces, without what they begin with: `offset` bytes.
    #[inline]
    pub fn read_list(&self, list: &UserIov, offset: usize, out: &mut [u8]) -> Option<()> {
        // SAFETY: `out` is valid for writes of its length.
        unsafe { self.read_list_raw(list, offset, out.as_mut_ptr(), out.len()) }
    }

    /// # Safety
    ///
    /// `to` is valid for writes of `len` bytes.
    #[inline]
    pub(crate) unsafe fn read_list_raw(
        &self,
        list: &UserIov,
        offset: usize,
        to: *mut u8,
        len: usize,
    ) -> Option<()> {
        list.parts(offset, len, |addr, done, len| {
            // SAFETY: The parts are at most `len` bytes together.
            let to = unsafe { to.add(done) };
            // SAFETY: As above.
            unsafe { self.read_raw(addr, to, len) }.ok_or(EFAULT)
        })
        .ok()
    }

    /// Writes `data` to the pieces, behind what they begin with: `offset` bytes.
    #[inline]
    pub fn write_list(&self, list: &UserIov, offset: usize, data: &[u8]) -> Option<()> {
        list.parts(offset, data.len(), |addr, done, len| {
            let part = data.get(done..).and_then(|rest| rest.get(..len));
            part.and_then(|part| self.write(addr, part)).ok_or(EFAULT)
        })
        .ok()
    }

    /// Writes up to `len` bytes of `source` to the pieces, behind `offset` bytes: see
    /// [`write_from_iter`](Self::write_from_iter).
    pub fn write_list_from_iter(
        &self,
        list: &UserIov,
        offset: usize,
        len: usize,
        source: &mut IovIterSource<'_>,
    ) -> Option<usize> {
        let mut copied = 0_usize;
        list.parts(offset, len, |addr, _, len| {
            let got = self.write_from_iter(addr, len, source).ok_or(EFAULT)?;
            copied = copied.saturating_add(got);
            if got == len {
                Ok(())
            } else {
                Err(EFAULT)
            }
        })
        .ok()
        .or_else(|| (copied != 0).then_some(()))?;
        Some(copied)
    }

    /// Writes `len` bytes of the payload of a buffer, from `from` on, to the pieces, behind
    /// `offset` bytes.
    pub fn write_list_from_skb<C>(
        &self,
        list: &UserIov,
        offset: usize,
        skb: &SkBuff<C>,
        from: usize,
        len: usize,
    ) -> Option<()> {
        if from.checked_add(len)? > skb.len() {
            return None;
        }
        list.parts(offset, len, |addr, done, len| {
            let copied = self.pieces(addr, len, |to, before, len| {
                let from = from.checked_add(done)?.checked_add(before)?;
                let (from, len) = (c_int::try_from(from).ok()?, c_int::try_from(len).ok()?);
                // SAFETY: The window is valid for writes of `len` bytes during this section, and
                // the buffer is valid; what is read of it was checked.
                let ret = unsafe { bindings::skb_copy_bits(skb.as_raw(), from, to.cast(), len) };
                (ret == 0).then_some(())
            });
            copied.ok_or(EFAULT)
        })
        .ok()
    }

    /// Fills the payload of a linear buffer, which must be empty, with the `len` bytes of the
    /// pieces that begin at `offset`. If that fails the buffer is empty.
    pub fn fill_skb<C>(
        &self,
        skb: &mut SkBuff<C>,
        list: &UserIov,
        offset: usize,
        len: usize,
    ) -> Option<()> {
        let read = |to: *mut u8| {
            // SAFETY: There is room for `len` bytes, says `fill_tail()`.
            unsafe { self.read_list_raw(list, offset, to, len) }.ok_or(EFAULT)
        };
        // SAFETY: If it does not fail, all of it was read.
        unsafe { skb.fill_tail(len, read) }.ok()
    }
}
