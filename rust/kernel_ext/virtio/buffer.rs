// SPDX-License-Identifier: GPL-2.0

//! What can be given to a virtio device: buffers that a queue owns meanwhile.

use crate::{
    bindings,
    skb::{
        Block,
        SkBuff, //
    }, //
};
use core::ptr::NonNull;
use kernel::{
    alloc::Flags,
    prelude::*, //
};

/// Most entries that a buffer can have: the head, the linear part and the fragments of a socket
/// buffer.
const MAX_ENTRIES: usize = bindings::MAX_SKB_FRAGS as usize + 2;

/// The parts of a buffer, in the order in which the device sees them.
///
/// It is part of a queue, so that adding a buffer needs no memory for it.
///
/// # Invariants
///
/// If there is an entry, the last one has the `last_len` bytes at `last`.
pub struct SgList {
    entries: [bindings::scatterlist; MAX_ENTRIES],
    len: usize,
    last: *const u8,
    last_len: c_uint,
    /// See [`set_joining`](Self::set_joining).
    joining: bool,
}

impl SgList {
    /// Creates an empty list.
    pub(super) fn new() -> impl Init<Self> {
        // INVARIANT: There is no entry.
        pin_init::init!(Self {
            entries <- pin_init::init_zeroed(),
            len: 0,
            last: core::ptr::null(),
            last_len: 0,
            joining: false,
        })
    }

    /// Sets whether a part that begins where the one before it ends becomes one with that, as far
    /// as it is appended by [`push`](Self::push).
    pub(super) fn set_joining(&mut self, joining: bool) {
        self.joining = joining;
    }

    /// Empties the list.
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    /// Returns the list in the form that C wants.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an empty list, which a queue cannot take.
    pub(super) fn finish(&mut self) -> Result<(*mut bindings::scatterlist, c_uint)> {
        let used = self.entries.get_mut(..self.len).ok_or(EINVAL)?;
        let last = used.last_mut().ok_or(EINVAL)?;
        // SAFETY: `last` is a valid entry.
        unsafe { bindings::sg_mark_end(last) };
        // CAST: There are at most `MAX_ENTRIES`.
        Ok((used.as_mut_ptr(), used.len() as c_uint))
    }

    /// Appends `len` bytes at `ptr`, which are in the linear mapping of the kernel. Nothing, if
    /// there are no bytes.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if the list is full or the part is too long.
    pub fn push(&mut self, ptr: *const u8, len: usize) -> Result {
        if len == 0 {
            return Ok(());
        }
        let mut part = (ptr, c_uint::try_from(len).map_err(|_| EMSGSIZE)?);
        let mut at = self.len;
        if self.joining && at > 0 && ptr == self.last.wrapping_add(self.last_len as usize) {
            let joined = self.last_len.checked_add(part.1).ok_or(EMSGSIZE)?;
            part = (self.last, joined);
            at = at.saturating_sub(1);
        }
        let entry = self.entries.get_mut(at).ok_or(EMSGSIZE)?;
        // SAFETY: `entry` is valid for writes. The address is only noted here.
        unsafe { bindings::sg_entry_set_buf(entry, part.0.cast(), part.1) };
        // INVARIANT: This is the last entry now.
        (self.last, self.last_len) = part;
        self.len = at.saturating_add(1);
        Ok(())
    }

    /// Appends the payload of a socket buffer.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if it has too many parts.
    fn push_payload<C>(&mut self, skb: &SkBuff<C>) -> Result {
        if let Some(linear) = skb.linear() {
            return self.push(linear.as_ptr(), linear.len());
        }
        let free = self.entries.get_mut(self.len..).ok_or(EMSGSIZE)?;
        // SAFETY: The buffer is valid by the invariants of its type, `free` has so many entries.
        let count = unsafe {
            bindings::skb_payload_to_sg(
                skb.as_raw(),
                free.as_mut_ptr(),
                // CAST: At most `MAX_ENTRIES`.
                free.len() as c_uint,
            )
        };
        // A negative number is an error code, and not a length.
        let count = usize::try_from(count).map_err(|_| EMSGSIZE)?;
        self.len = self.len.saturating_add(count).min(MAX_ENTRIES);
        // INVARIANT: Whatever the last entry is, nothing is joined with a part of no bytes at null:
        // `push()` refuses those.
        (self.last, self.last_len) = (core::ptr::null(), 0);
        Ok(())
    }
}

/// A buffer that a queue can own.
///
/// # Safety
///
/// - `from_raw` gives back the value that `into_raw` was given.
/// - Between the two, nobody refers to the memory that [`OutBuffer::describe`] or
///   [`InBuffer::describe`] appends to the list, and it neither moves nor is freed.
pub unsafe trait Buffer: Sized + Send + 'static {
    /// Makes a pointer out of the buffer, by which the queue knows it.
    fn into_raw(self) -> NonNull<c_void>;

    /// Takes a buffer back.
    ///
    /// # Safety
    ///
    /// `ptr` came from [`into_raw`](Self::into_raw) of this type, and was not taken back yet.
    unsafe fn from_raw(ptr: NonNull<c_void>) -> Self;
}

/// A buffer that a device may read.
///
/// # Safety
///
/// What `describe` appends is initialized memory that the value owns or keeps alive.
pub unsafe trait OutBuffer: Buffer {
    /// Appends the parts that the device shall read.
    fn describe(&self, list: &mut SgList) -> Result;
}

/// A buffer that a device may write.
///
/// # Safety
///
/// What `describe` appends is initialized memory that the value owns, of which any content is
/// valid.
pub unsafe trait InBuffer: Buffer {
    /// Appends the parts that the device may write.
    fn describe(&mut self, list: &mut SgList) -> Result;
}

// SAFETY: The pointer is that of the C object, which is never null. The memory of the buffer
// belongs to the object; a socket buffer that is a raw pointer is in no list, and nobody else
// refers to it.
unsafe impl<C: Send + 'static> Buffer for SkBuff<C> {
    #[inline]
    fn into_raw(self) -> NonNull<c_void> {
        SkBuff::into_raw(self).cast()
    }

    #[inline]
    unsafe fn from_raw(ptr: NonNull<c_void>) -> Self {
        // SAFETY: By the safety requirements.
        unsafe { SkBuff::from_raw(ptr.cast()) }
    }
}

// SAFETY: By the invariants of `SkBuff`, head and payload are initialized. They belong to the
// buffer, or are pages that it has references to.
unsafe impl<C: Send + 'static> OutBuffer for SkBuff<C> {
    /// The head comes before the payload. They are one part if the queue joins what is contiguous
    /// and the payload is linear, else two or more.
    #[inline]
    fn describe(&self, list: &mut SgList) -> Result {
        let head = self.head();
        list.push(head.as_ptr(), head.len())?;
        list.push_payload(self)
    }
}

// SAFETY: The token stands for the block, which is the only reference to its pages.
unsafe impl Buffer for Block {
    #[inline]
    fn into_raw(self) -> NonNull<c_void> {
        self.into_token()
    }

    #[inline]
    unsafe fn from_raw(ptr: NonNull<c_void>) -> Self {
        // SAFETY: By the safety requirements.
        unsafe { Block::from_token(ptr) }
    }
}

// SAFETY: By the invariants of `Block`, all of it is initialized; it is the only reference, and
// bytes have no invalid values.
unsafe impl InBuffer for Block {
    /// All that the device gets, head included.
    #[inline]
    fn describe(&mut self, list: &mut SgList) -> Result {
        list.push(self.device_start(), self.capacity())
    }
}

/// Data that a device may write: all bytes are initialized, and any bytes are valid.
pub trait Plain: zerocopy::FromBytes + zerocopy::IntoBytes + Copy + Send + 'static {}

impl<T: zerocopy::FromBytes + zerocopy::IntoBytes + Copy + Send + 'static> Plain for T {}

/// A small object that a device writes, in memory that it shares with nothing else.
///
/// The alignment makes the allocation a cache line of its own on all machines that matter, so that
/// what the device writes there, by DMA that is maybe not coherent, is not lost.
#[repr(C, align(128))]
struct Line<T>(T);

/// A small object for a device to write to.
///
/// # Examples
///
/// ```ignore
/// let buf = InBox::<[u8; 4]>::new(GFP_KERNEL)?;
/// queue.add_in(buf, Gfp::Kernel).map_err(|(e, _)| e)?;
/// ```
pub struct InBox<T>(KBox<Line<T>>);

impl<T: Plain> InBox<T> {
    /// Allocates an object of zeroes.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(flags: Flags) -> Result<Self> {
        Ok(Self(KBox::new(Line(T::new_zeroed()), flags)?))
    }

    /// Copies the object out.
    #[inline]
    pub fn get(&self) -> T {
        // SAFETY: The pointer is valid, and any bytes make a valid `T`. The read is volatile
        // because a hostile device may still write there.
        unsafe { (&raw const (*self.0).0).read_volatile() }
    }

    /// Makes it zeroes again.
    #[inline]
    pub fn wipe(&mut self) {
        self.0 .0 = T::new_zeroed();
    }
}

// SAFETY: The pointer is that of the box, which nobody can use until it is a box again.
unsafe impl<T: Plain> Buffer for InBox<T> {
    #[inline]
    fn into_raw(self) -> NonNull<c_void> {
        NonNull::from(KBox::leak(self.0)).cast()
    }

    #[inline]
    unsafe fn from_raw(ptr: NonNull<c_void>) -> Self {
        // SAFETY: By the safety requirements, the pointer came from `KBox::leak`.
        Self(unsafe { KBox::from_raw(ptr.as_ptr().cast()) })
    }
}

// SAFETY: The box owns the object, which is initialized; any bytes make a valid `T`.
unsafe impl<T: Plain> InBuffer for InBox<T> {
    #[inline]
    fn describe(&mut self, list: &mut SgList) -> Result {
        list.push((&raw const self.0 .0).cast(), size_of::<T>())
    }
}
