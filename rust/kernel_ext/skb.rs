// SPDX-License-Identifier: GPL-2.0

//! Owned socket buffers.
//!
//! C header: [`include/linux/skbuff.h`](srctree/include/linux/skbuff.h).

use crate::{
    bindings,
    gfp::Gfp, //
};
use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    iov::IovIterDest,
    prelude::*, //
};

#[path = "skb/block.rs"]
mod block;
#[path = "skb/fill.rs"]
mod fill;
#[path = "skb/owner.rs"]
mod owner;

pub use self::block::{
    Block,
    Filled,
    Lent,
    Room, //
};

/// The most bytes that one linear allocation should have: more presses the page allocator.
pub const MAX_CHEAP_LINEAR: usize = bindings::SKB_MAX_LINEAR as usize;

/// An owned `struct sk_buff` with a headroom for a header, and a control block of type `C`.
///
/// The buffer has a *head*, whose size was given at allocation, and a *payload*, which is either
/// linear and directly behind the head, or a list of page fragments. The control block lives in
/// `skb->cb` and is dropped with the buffer.
///
/// If the buffer has an owner, it is a vsock socket, which is charged for the memory and stays
/// allocated (though maybe closed) for as long as the buffer refers to it.
///
/// # Invariants
///
/// - `0` points to a valid `struct sk_buff`, of which this object owns the only reference and which
///   is in no list.
/// - `skb->cb` holds a valid `C`.
/// - The bytes from `skb->head` to `skb->data` and the payload are initialized.
/// - `skb->sk` is null or belongs to a `struct vsock_sock`.
#[repr(transparent)]
pub struct SkBuff<C>(NonNull<bindings::sk_buff>, PhantomData<C>);

// SAFETY: A socket buffer is not tied to the thread that allocated it.
unsafe impl<C: Send> Send for SkBuff<C> {}
// SAFETY: `&SkBuff` only allows to read.
unsafe impl<C: Sync> Sync for SkBuff<C> {}

impl<C> SkBuff<C> {
    const CB_FITS: () = {
        assert!(size_of::<C>() <= 48);
        assert!(align_of::<C>() <= 8);
    };

    /// Allocates a buffer with `headroom` zeroed bytes and room for `payload` bytes.
    ///
    /// A buffer that is too big for a cheap linear allocation gets page fragments. The payload has
    /// the length 0 until [`fill_from_iter`](Self::fill_from_iter) or [`append`](Self::append).
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `EINVAL` for sizes that no buffer can have.
    pub fn alloc(headroom: usize, payload: usize, gfp: Gfp, cb: C) -> Result<Self> {
        let total = headroom.checked_add(payload).ok_or(EINVAL)?;
        if total <= MAX_CHEAP_LINEAR {
            Self::alloc_parts(headroom, total, 0, gfp.as_raw(), cb)
        } else {
            Self::alloc_parts(headroom, headroom, payload, gfp.as_raw(), cb)
        }
    }

    /// As [`alloc`](Self::alloc), but the buffer is linear whatever its size.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `EINVAL` for sizes that no buffer can have.
    pub fn alloc_linear(headroom: usize, payload: usize, gfp: Gfp, cb: C) -> Result<Self> {
        let total = headroom.checked_add(payload).ok_or(EINVAL)?;
        Self::alloc_parts(headroom, total, 0, gfp.as_raw(), cb)
    }

    fn alloc_parts(
        headroom: usize,
        linear: usize,
        frags: usize,
        gfp: bindings::gfp_t,
        cb: C,
    ) -> Result<Self> {
        // Before there is a buffer that a failure would leave behind. The C side takes the size of
        // the linear part modulo 2^32: a larger one would be a buffer that is too small.
        if linear > c_int::MAX as usize || frags > c_int::MAX as usize || headroom > linear {
            return Err(EINVAL);
        }
        let skb = Self::alloc_raw(linear, frags, gfp)?;
        // CAST: Checked above.
        // SAFETY: `skb` was just allocated and is empty: nobody else refers to it.
        unsafe { (*skb.as_ptr()).data_len = frags as c_uint };
        // SAFETY: As above, and it has at least `headroom` linear bytes, as was checked.
        Ok(unsafe { Self::with_head(skb, headroom, cb) })
    }

    /// Makes a buffer of a C object, with a head.
    ///
    /// # Safety
    ///
    /// Nobody else has `skb`. It has no payload, no owner, and at least `headroom` linear bytes, of
    /// which none is in use.
    unsafe fn with_head(skb: NonNull<bindings::sk_buff>, headroom: usize, cb: C) -> Self {
        let () = Self::CB_FITS;
        // CAST: Not more than the buffer has, whose size is a `c_int`.
        // SAFETY: By the safety requirements.
        unsafe { bindings::skb_reserve(skb.as_ptr(), headroom as c_int) };
        // SAFETY: As above.
        let head = unsafe { (*skb.as_ptr()).head };
        // SAFETY: The linear part begins at `head` and has at least `headroom` bytes.
        unsafe { head.write_bytes(0, headroom) };
        // SAFETY: The control block belongs to the owner of the buffer; `CB_FITS` says that a `C`
        // fits, and `cb` is aligned to 8.
        unsafe { (&raw mut (*skb.as_ptr()).cb).cast::<C>().write(cb) };

        // INVARIANT: The reference is ours and the only one, the control block was written, the
        // head was zeroed and there is no payload and no owner yet.
        Self(skb, PhantomData)
    }

    fn alloc_raw(
        linear: usize,
        frags: usize,
        gfp: bindings::gfp_t,
    ) -> Result<NonNull<bindings::sk_buff>> {
        let mut err = 0;
        // SAFETY: FFI call without preconditions; `err` is valid for writes.
        let skb = unsafe {
            bindings::alloc_skb_with_frags(
                linear,
                frags,
                bindings::PAGE_ALLOC_COSTLY_ORDER as c_int,
                &mut err,
                gfp,
            )
        };
        NonNull::new(skb).ok_or(ENOMEM)
    }

    /// The C object.
    #[inline]
    pub(crate) fn as_raw(&self) -> *mut bindings::sk_buff {
        self.0.as_ptr()
    }

    /// Gives the buffer up, control block included.
    #[inline]
    pub(crate) fn into_raw(self) -> NonNull<bindings::sk_buff> {
        ManuallyDrop::new(self).0
    }

    /// Takes a buffer back.
    ///
    /// # Safety
    ///
    /// `ptr` came from [`into_raw`](Self::into_raw) with the same `C`, and was not taken back yet.
    #[inline]
    pub(crate) unsafe fn from_raw(ptr: NonNull<bindings::sk_buff>) -> Self {
        // INVARIANT: `into_raw` was given an object for which the invariants hold.
        Self(ptr, PhantomData)
    }

    #[inline]
    fn skb(&self) -> &bindings::sk_buff {
        // SAFETY: By the type invariants, the buffer is valid, and `&self` keeps writers away.
        unsafe { self.0.as_ref() }
    }

    /// The start and the size of the linear part, from `skb->head` on.
    #[inline]
    fn linear_raw(&self) -> (*mut u8, usize) {
        let head = self.skb().head;
        (head, self.offset(self.skb().end))
    }

    /// How far from `skb->head` a place is that is told as `skb->tail` and `skb->end` are.
    #[doc(alias = "NET_SKBUFF_DATA_USES_OFFSET")]
    #[inline]
    fn offset(&self, place: bindings::sk_buff_data_t) -> usize {
        if cfg!(CONFIG_64BIT) {
            place as usize
        } else {
            // It is a pointer there.
            (place as usize).wrapping_sub(self.skb().head as usize)
        }
    }

    /// The end of the bytes in the linear part.
    #[doc(alias = "skb_tail_pointer")]
    #[inline]
    fn tail(&self) -> *mut u8 {
        let skb = self.skb();
        // SAFETY: By the type invariants, the buffer is valid: the tail is in its linear part.
        unsafe { skb.head.add(self.offset(skb.tail)) }
    }

    /// How many bytes the linear part has, head included: what a device may write.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.linear_raw().1
    }

    /// Length of the payload in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.skb().len as usize
    }

    /// Says whether there is no payload.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory that the buffer takes, in bytes.
    #[inline]
    pub fn truesize(&self) -> usize {
        self.skb().truesize as usize
    }

    /// Says whether the payload is in page fragments.
    #[inline]
    pub fn is_nonlinear(&self) -> bool {
        self.skb().data_len != 0
    }

    /// How many bytes [`append`](Self::append) still takes.
    #[inline]
    pub fn tailroom(&self) -> usize {
        if self.is_nonlinear() {
            return 0;
        }
        let skb = self.skb();
        self.offset(skb.end).wrapping_sub(self.offset(skb.tail))
    }

    /// The control block.
    #[inline]
    pub fn cb(&self) -> &C {
        // SAFETY: By the type invariants, there is a valid `C`.
        unsafe { &*(&raw const (*self.as_raw()).cb).cast::<C>() }
    }

    /// The control block.
    #[inline]
    pub fn cb_mut(&mut self) -> &mut C {
        // SAFETY: By the type invariants, there is a valid `C`, and `&mut self` is exclusive.
        unsafe { &mut *(&raw mut (*self.as_raw()).cb).cast::<C>() }
    }

    /// Replaces the control block by another one, maybe of another type.
    #[inline]
    pub fn replace_cb<D>(self, new: D) -> (SkBuff<D>, C) {
        let () = SkBuff::<D>::CB_FITS;
        let skb = self.into_raw();
        // SAFETY: By the type invariants of what was `self`, the buffer is valid.
        let cb = unsafe { &raw mut (*skb.as_ptr()).cb };
        // SAFETY: There is a valid `C`, which is moved out: the place is overwritten next.
        let old = unsafe { cb.cast::<C>().read() };
        // SAFETY: `CB_FITS` says that a `D` fits.
        unsafe { cb.cast::<D>().write(new) };
        // INVARIANT: The control block is a `D` now; the rest did not change.
        (SkBuff(skb, PhantomData), old)
    }

    /// The bytes before the payload.
    #[inline]
    pub fn head(&self) -> &[u8] {
        let skb = self.skb();
        let len = (skb.data as usize).wrapping_sub(skb.head as usize);
        // SAFETY: By the type invariants, these bytes are initialized; `&self` keeps writers away.
        unsafe { core::slice::from_raw_parts(skb.head, len) }
    }

    /// The bytes before the payload.
    #[inline]
    pub fn head_mut(&mut self) -> &mut [u8] {
        let skb = self.skb();
        let len = (skb.data as usize).wrapping_sub(skb.head as usize);
        let head = skb.head;
        // SAFETY: By the type invariants, these bytes are initialized; `&mut self` is exclusive.
        unsafe { core::slice::from_raw_parts_mut(head, len) }
    }

    /// The payload, if it is linear.
    #[inline]
    pub fn linear(&self) -> Option<&[u8]> {
        if self.is_nonlinear() {
            return None;
        }
        // SAFETY: The payload is linear, thus `len` bytes at `data`, which the type invariants say
        // are initialized.
        Some(unsafe { core::slice::from_raw_parts(self.skb().data, self.len()) })
    }

    /// The payload, if it is linear.
    #[inline]
    pub fn linear_mut(&mut self) -> Option<&mut [u8]> {
        if self.is_nonlinear() {
            return None;
        }
        let (data, len) = (self.skb().data, self.len());
        // SAFETY: As in `linear`; `&mut self` is exclusive.
        Some(unsafe { core::slice::from_raw_parts_mut(data, len) })
    }

    /// The head and the payload, one behind the other, if the payload is linear.
    #[inline]
    pub fn head_and_linear(&self) -> Option<&[u8]> {
        if self.is_nonlinear() {
            return None;
        }
        let skb = self.skb();
        let len = (skb.data as usize).wrapping_sub(skb.head as usize);
        let len = len.wrapping_add(self.len());
        // SAFETY: The head ends at `data`, where the payload of `len` bytes begins, since it is
        // linear; the type invariants say that all of this is initialized.
        Some(unsafe { core::slice::from_raw_parts(skb.head, len) })
    }

    /// Appends bytes to a linear payload.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if there is no room for them, or if the payload is not linear.
    pub fn append(&mut self, bytes: &[u8]) -> Result {
        if self.is_nonlinear() || bytes.len() > self.tailroom() {
            return Err(EMSGSIZE);
        }
        // SAFETY: The buffer is linear and has room for that many bytes.
        let dst = unsafe { bindings::skb_put(self.as_raw(), bytes.len() as c_uint) };
        // INVARIANT: The new bytes of the payload are initialized here.
        // SAFETY: `dst` has that many bytes, to which nobody else refers.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), dst.cast(), bytes.len()) };
        Ok(())
    }

    /// Drops all but the first `len` bytes of a linear payload.
    #[doc(alias = "skb_trim")]
    pub fn truncate(&mut self, len: usize) {
        if self.is_nonlinear() || len >= self.len() {
            return;
        }
        // SAFETY: The buffer is valid, ours and linear, and has more bytes than that.
        unsafe { bindings::skb_trim(self.as_raw(), len as c_uint) };
    }

    /// Appends `head` and then `len` bytes that `copy` takes from `offset` on of what has `all`
    /// bytes.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if there is no room for all of it or this payload is not linear, `EFAULT` if
    /// there are not so many bytes, and that of `copy`. Nothing was appended then.
    ///
    /// # Safety
    ///
    /// `copy` writes no more than `len` bytes to where its argument points, and all of them if it
    /// succeeds. It may rely on the check of `offset` and `len`.
    #[inline]
    unsafe fn append_copied(
        &mut self,
        head: &[u8],
        offset: usize,
        len: usize,
        all: usize,
        copy: impl FnOnce(*mut c_void) -> Result,
    ) -> Result {
        let room = self.tailroom().checked_sub(head.len());
        if self.is_nonlinear() || room.is_none_or(|room| len > room) {
            return Err(EMSGSIZE);
        }
        if offset.checked_add(len).is_none_or(|end| end > all) {
            return Err(EFAULT);
        }
        let dst = self.tail();
        // SAFETY: `dst` has room for `head` and `len` more bytes.
        let behind = unsafe { dst.add(head.len()) };
        copy(behind.cast())?;
        // SAFETY: `dst` has room for these bytes, to which nobody else refers.
        unsafe { core::ptr::copy_nonoverlapping(head.as_ptr(), dst.cast(), head.len()) };
        let total = head.len().wrapping_add(len);
        // INVARIANT: The new bytes of the payload were initialized by the two copies.
        // SAFETY: The buffer is linear and has room for them.
        unsafe { bindings::skb_put(self.as_raw(), total as c_uint) };
        Ok(())
    }

    /// Appends `head` and then `len` bytes of the payload of another buffer, from `offset` on.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if there is no room for all of it or this payload is not linear, `EFAULT` if
    /// `other` is shorter. Nothing was appended then.
    pub fn append_with<D>(
        &mut self,
        head: &[u8],
        other: &SkBuff<D>,
        offset: usize,
        len: usize,
    ) -> Result {
        let copy = |to: *mut c_void| {
            let (from, offset) = (other.as_raw(), c_int::try_from(offset)?);
            // SAFETY: `to` has room for `len` bytes; `other` has that many from `offset` on.
            to_result(unsafe { bindings::skb_copy_bits(from, offset, to, len as c_int) })
        };
        // SAFETY: `copy` writes `len` bytes, some of them if it fails.
        unsafe { self.append_copied(head, offset, len, other.len(), copy) }
    }

    /// Appends `len` bytes of the payload of another buffer, from `offset` on.
    ///
    /// # Errors
    ///
    /// As for [`append_with`](Self::append_with).
    #[inline]
    pub fn append_from<D>(&mut self, other: &SkBuff<D>, offset: usize, len: usize) -> Result {
        self.append_with(&[], other, offset, len)
    }

    /// Copies `len` bytes of the payload, from `offset` on.
    ///
    /// Context: may sleep if the destination is user memory.
    ///
    /// # Errors
    ///
    /// `EFAULT` if the payload or the destination is shorter, or faults; then the position of the
    /// destination was put back.
    #[inline]
    pub fn copy_to_iter(&self, offset: usize, dest: &mut IovIterDest<'_>, len: usize) -> Result {
        if offset.checked_add(len).is_none_or(|end| end > self.len()) {
            return Err(EFAULT);
        }
        let offset = c_int::try_from(offset)?;
        // SAFETY: The payload has `len` bytes from `offset` on; the destination is valid by its own
        // invariants.
        to_result(unsafe {
            bindings::skb_copy_datagram_iter(self.as_raw(), offset, dest.as_raw(), len as c_int)
        })
    }

    /// Drops the first `len` bytes of the payload.
    ///
    /// Context: does not sleep.
    ///
    /// # Errors
    ///
    /// `EFAULT` if the payload is shorter, `ENOMEM`.
    #[doc(alias = "pskb_pull")]
    pub fn pull(&mut self, len: usize) -> Result {
        if len > self.len() {
            return Err(EFAULT);
        }
        // SAFETY: By the type invariants, the buffer is valid and ours, and it has that many bytes.
        //
        // INVARIANT: The head grows by bytes that were payload.
        if !unsafe { bindings::pskb_pull(self.as_raw(), len as c_uint) } {
            return Err(ENOMEM);
        }
        Ok(())
    }
}

impl SkBuff<()> {
    /// Gives the buffer to somebody who may show all of its control block to others.
    pub(crate) fn into_raw_clean(self) -> NonNull<bindings::sk_buff> {
        let skb = self.into_raw();
        // SAFETY: By what were the type invariants, the buffer is valid and ours; a control block
        // of type `()` has no bytes.
        unsafe { (*skb.as_ptr()).cb = [0; 48] };
        skb
    }
}

impl<C> Drop for SkBuff<C> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, there is a valid `C`, which nobody uses after this.
        unsafe { (&raw mut (*self.as_raw()).cb).cast::<C>().drop_in_place() };
        // SAFETY: By the type invariants, we own the reference.
        unsafe { bindings::consume_skb(self.as_raw()) };
    }
}
