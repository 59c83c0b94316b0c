// SPDX-License-Identifier: GPL-2.0

//! Buffers that a device writes.

use super::{
    SkBuff,
    MAX_CHEAP_LINEAR, //
};
use crate::{
    bindings,
    gfp::Gfp, //
};
use core::ptr::NonNull;
use kernel::prelude::*;

/// A linear buffer for a device to write to, head and payload.
///
/// A device that lies about what it wrote makes us see zeroes, and one that looks into the buffer
/// sees them, too.
///
/// # Invariants
///
/// The buffer is linear, and all bytes of the linear part are initialized.
#[repr(transparent)]
pub struct ReceiveBuffer(SkBuff<()>);

impl ReceiveBuffer {
    /// Allocates a buffer with a head of `headroom` bytes and room for `payload` bytes, all zero.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `EINVAL` for sizes that no linear buffer has.
    pub fn new(headroom: usize, payload: usize, gfp: Gfp) -> Result<Self> {
        let total = headroom.checked_add(payload).ok_or(EINVAL)?;
        if total > MAX_CHEAP_LINEAR {
            return Err(EINVAL);
        }
        // By the allocator, so that it is done once: kernels with `init_on_alloc` do it anyway.
        let skb = SkBuff::alloc_parts(headroom, total, 0, gfp.as_raw_zero(), ())?;
        // INVARIANT: `__alloc_skb()` passes the flags on to the allocation of the linear part,
        // which is all zero then.
        Ok(Self(skb))
    }

    /// The C object.
    pub(crate) fn skb(&self) -> &SkBuff<()> {
        &self.0
    }

    /// Gives the buffer up.
    pub(crate) fn into_raw(self) -> NonNull<bindings::sk_buff> {
        self.0.into_raw()
    }

    /// Takes a buffer back.
    ///
    /// # Safety
    ///
    /// `ptr` came from [`into_raw`](Self::into_raw) and was not taken back yet.
    pub(crate) unsafe fn from_raw(ptr: NonNull<bindings::sk_buff>) -> Self {
        // INVARIANT: `into_raw` was given an object for which the invariants hold.
        // SAFETY: By the safety requirements.
        Self(unsafe { SkBuff::from_raw(ptr) })
    }

    /// How many bytes a device may write, head included.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// A copy of the first `N` bytes, a number of words, as the device wrote them.
    ///
    /// A hostile device may still write: copy once what is needed.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there are not so many.
    #[inline]
    pub fn copy_head<const N: usize>(&self) -> Result<[u8; N]> {
        const { assert!(N % size_of::<u32>() == 0) };

        let (head, size) = self.0.linear_raw();
        let head = head.cast::<u32>();
        // The kernel aligns it to more than that.
        if N > size || !head.is_aligned() {
            return Err(EINVAL);
        }
        let mut copy = [0; N];
        for (n, bytes) in copy.chunks_exact_mut(size_of::<u32>()).enumerate() {
            // SAFETY: The linear part has `N` bytes or more.
            let word = unsafe { head.add(n) };
            // SAFETY: The word is aligned, in the linear part, and initialized by the type
            // invariants. There is no reference to it, and the read is volatile: the device may
            // write it.
            let word = unsafe { word.read_volatile() };
            for (to, from) in bytes.iter_mut().zip(word.to_ne_bytes()) {
                *to = from;
            }
        }
        Ok(copy)
    }

    /// Makes the first `len` bytes behind the head the payload.
    ///
    /// # Errors
    ///
    /// Gives the buffer back if it has not so many bytes.
    #[inline]
    pub fn received(mut self, len: usize) -> Result<SkBuff<()>, Self> {
        if len > self.0.tailroom() {
            return Err(self);
        }
        self.0.set_len(len);
        // INVARIANT: The payload is initialized since all of the linear part is.
        Ok(self.0)
    }
}
