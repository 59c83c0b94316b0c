// SPDX-License-Identifier: GPL-2.0

//! I/O vectors over the memory of the owner of a device.
//!
//! C header: [`include/linux/uio.h`](srctree/include/linux/uio.h).

use crate::{
    bindings,
    owner_mm::{
        InOwnerMm,
        OwnerAddr, //
    }, //
};
use core::{
    marker::PhantomData,
    mem::MaybeUninit,
    ops::{
        Deref,
        DerefMut, //
    },
};
use kernel::{
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    prelude::*,
    types::{
        NotThreadSafe,
        Opaque, //
    },
};

/// A list of pieces of the owner's memory.
///
/// An empty list has no memory. [`push`](Self::push) gets it as it is needed, from a few pieces up
/// to [`MAX`](Self::MAX), and [`clear`](Self::clear) keeps it: a list takes as much as the longest
/// one that there was, in steps of twice as much. To read or write what the list refers to, make an
/// iterator of it with [`source`](Self::source) or [`dest`](Self::dest), which take the evidence
/// that the current thread is in the right address space. The iterators borrow the list: it cannot
/// change under them.
///
/// # Invariants
///
/// `bytes` is the sum of the lengths in `pieces`, and did not overflow.
pub struct UserIov {
    pieces: KVVec<bindings::iovec>,
    bytes: usize,
}

impl Default for UserIov {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: The `iovec`s are numbers, not pointers to something that belongs to a thread.
unsafe impl Send for UserIov {}
// SAFETY: As above; there is no interior mutability.
unsafe impl Sync for UserIov {}

impl UserIov {
    /// Most pieces that a list can hold, as for any vectored I/O.
    pub const MAX: usize = bindings::UIO_MAXIOV as usize;

    /// How many pieces the first memory of a list is for: more than a packet of 4 KiB ever has.
    const FIRST: usize = 16;

    /// Creates an empty list without any room.
    pub const fn new() -> Self {
        // INVARIANT: The list is empty.
        Self {
            pieces: KVVec::new(),
            bytes: 0,
        }
    }

    /// Removes all pieces, and keeps the room.
    #[inline]
    pub fn clear(&mut self) {
        // INVARIANT: The list is empty.
        self.pieces.clear();
        self.bytes = 0;
    }

    /// Appends a piece.
    ///
    /// Context: may sleep if the list [is full](Self::is_full).
    ///
    /// # Errors
    ///
    /// `ENOBUFS` if there are [`MAX`](Self::MAX) pieces, `EFAULT` if the sum of the lengths
    /// overflows, `ENOMEM`; the list is as it was then.
    #[inline]
    pub fn push(&mut self, addr: OwnerAddr, len: usize) -> Result {
        let bytes = self.bytes.checked_add(len).ok_or(EFAULT)?;
        if self.pieces.len() == self.pieces.capacity() {
            self.grow()?;
        }
        let piece = bindings::iovec {
            iov_base: addr.user_ptr().as_mut_ptr(),
            iov_len: len,
        };
        self.pieces
            .push_within_capacity(piece)
            .map_err(|_| ENOBUFS)?;
        // INVARIANT: The sum includes the piece that was just added.
        self.bytes = bytes;
        Ok(())
    }

    /// Makes room for twice as many pieces, or for the first ones.
    ///
    /// # Errors
    ///
    /// `ENOBUFS`, `ENOMEM`: see [`push`](Self::push).
    #[cold]
    fn grow(&mut self) -> Result {
        let now = self.pieces.capacity();
        if now >= Self::MAX {
            return Err(ENOBUFS);
        }
        let room = now.saturating_mul(2).clamp(Self::FIRST, Self::MAX);
        // Not by `reserve()`, which has code to panic.
        let mut pieces = KVVec::with_capacity(room, GFP_KERNEL_ACCOUNT)?;
        // INVARIANT: The pieces are the same: there is room for more than all of them.
        for piece in self.pieces.drain_all() {
            pieces.push_within_capacity(piece).map_err(|_| ENOMEM)?;
        }
        self.pieces = pieces;
        Ok(())
    }

    /// Number of bytes that the pieces have together.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of pieces.
    #[inline]
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Says whether the next [`push`](Self::push) needs memory, and may sleep for that.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.pieces.len() == self.pieces.capacity()
    }

    /// Says whether there is not a single piece.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The pieces: where each begins, and how many bytes it has.
    #[inline]
    pub fn pieces(&self) -> impl Iterator<Item = (OwnerAddr, usize)> + '_ {
        self.pieces
            .iter()
            .map(|piece| (OwnerAddr::new(piece.iov_base.addr()), piece.iov_len))
    }

    /// An iterator that reads the pieces from the beginning.
    #[inline]
    pub fn source<'a>(&'a self, mm: &'a InOwnerMm) -> UserSource<'a> {
        self.source_at(mm, 0)
    }

    /// An iterator that writes the pieces from the beginning.
    #[inline]
    pub fn dest<'a>(&'a self, mm: &'a InOwnerMm) -> UserDest<'a> {
        self.dest_at(mm, 0)
    }

    /// An iterator that reads the pieces, without what they begin with: `offset` bytes.
    #[inline]
    pub(crate) fn source_at<'a>(&'a self, mm: &'a InOwnerMm, offset: usize) -> UserSource<'a> {
        // INVARIANT: The direction is that of a source.
        UserSource(RawIter::new(self, offset, bindings::ITER_SOURCE, mm))
    }

    /// An iterator that writes the pieces, behind what they begin with: `offset` bytes.
    #[inline]
    pub fn dest_at<'a>(&'a self, mm: &'a InOwnerMm, offset: usize) -> UserDest<'a> {
        // INVARIANT: The direction is that of a destination.
        UserDest(RawIter::new(self, offset, bindings::ITER_DEST, mm))
    }

    /// Reads `out` from the pieces, without what they begin with: `offset` bytes.
    ///
    /// For some bytes this is cheaper than a [`source`](Self::source).
    ///
    /// # Errors
    ///
    /// `EFAULT` if it is not all there; the content of `out` is then unspecified.
    #[inline]
    pub fn read_at(&self, mm: &InOwnerMm, offset: usize, out: &mut [u8]) -> Result {
        // SAFETY: `out` is valid for writes of its length.
        unsafe { self.read_raw(mm, offset, out.as_mut_ptr(), out.len()) }
    }

    /// As [`read_at`](Self::read_at), into memory that has no value yet, and has after that.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it is not all there; nothing is known of the content of `out` then.
    #[inline]
    pub fn read_new_at<'o>(
        &self,
        mm: &InOwnerMm,
        offset: usize,
        out: &'o mut [MaybeUninit<u8>],
    ) -> Result<&'o mut [u8]> {
        let (to, len) = (out.as_mut_ptr().cast::<u8>(), out.len());
        // SAFETY: `out` is valid for writes of its length.
        unsafe { self.read_raw(mm, offset, to, len)? };
        // SAFETY: `out` is borrowed for `'o`, and all of its bytes were written: the parts follow
        // each other, and are `len` bytes together if none of them failed.
        Ok(unsafe { core::slice::from_raw_parts_mut(to, len) })
    }

    /// # Safety
    ///
    /// `to` is valid for writes of `len` bytes.
    #[inline]
    pub(crate) unsafe fn read_raw(
        &self,
        mm: &InOwnerMm,
        offset: usize,
        to: *mut u8,
        len: usize,
    ) -> Result {
        self.parts(offset, len, |addr, done, len| {
            // SAFETY: The parts are at most `len` bytes together.
            let to = unsafe { to.add(done) };
            // SAFETY: As above.
            unsafe { mm.read_raw(addr, to, len) }
        })
    }

    /// Writes `data` to the pieces, behind what they begin with: `offset` bytes.
    ///
    /// For some bytes this is cheaper than a [`dest`](Self::dest).
    ///
    /// # Errors
    ///
    /// `EFAULT` if there is no room for all of it; a part may have been written.
    #[inline]
    pub fn write_at(&self, mm: &InOwnerMm, offset: usize, data: &[u8]) -> Result {
        self.parts(offset, data.len(), |addr, done, len| {
            let rest = data.get(done..).ok_or(EFAULT)?;
            mm.write_small(addr, rest.get(..len).ok_or(EFAULT)?)
        })
    }

    /// Calls `f` with the parts that the `len` bytes from `offset` on consist of: where each is,
    /// how many bytes were before it, and how many it has.
    #[inline]
    pub(crate) fn parts(
        &self,
        offset: usize,
        len: usize,
        mut f: impl FnMut(OwnerAddr, usize, usize) -> Result,
    ) -> Result {
        let (mut skip, mut done) = (offset, 0_usize);
        for (addr, room) in self.pieces() {
            if len == done {
                break;
            }
            let Some(room) = room.checked_sub(skip).filter(|room| *room != 0) else {
                skip = skip.saturating_sub(room);
                continue;
            };
            let part = room.min(len.saturating_sub(done));
            f(addr.checked_add(skip).ok_or(EFAULT)?, done, part)?;
            done = done.saturating_add(part);
            skip = 0;
        }
        if len == done {
            Ok(())
        } else {
            Err(EFAULT)
        }
    }
}

/// An `iov_iter` over a [`UserIov`].
///
/// # Invariants
///
/// `iter` was initialized for the pieces of a list that is borrowed, thus unchanged, for `'a`; the
/// thread is in the owner's address space for `'a`. An `iov_iter` of user memory does not refer to
/// itself: it may move.
struct RawIter<'a> {
    iter: Opaque<bindings::iov_iter>,
    _list: PhantomData<&'a UserIov>,
    _thread: NotThreadSafe,
}

impl<'a> RawIter<'a> {
    #[inline]
    fn new(list: &'a UserIov, offset: usize, direction: u32, _mm: &'a InOwnerMm) -> Self {
        // The pieces behind `offset`, how many bytes they have, and what of them is before it.
        let (mut pieces, mut bytes, mut skip) = (list.pieces.as_slice(), list.bytes, offset);
        while let Some((first, rest)) = pieces.split_first() {
            if skip < first.iov_len {
                break;
            }
            // OVERFLOW: By the type invariants of the list, `bytes` counts this piece; and `skip`
            // was just compared.
            bytes = bytes.wrapping_sub(first.iov_len);
            skip = skip.wrapping_sub(first.iov_len);
            pieces = rest;
        }
        // At the end there is nothing to skip.
        let skip = skip.min(bytes);

        let iter = Opaque::uninit();
        // SAFETY: `iter` is valid for writes. The array has as many elements as said, lives for
        // `'a`, and by the type invariants of `UserIov` has as many bytes as said.
        unsafe {
            bindings::iov_iter_init(
                iter.get(),
                direction,
                pieces.as_ptr(),
                pieces.len(),
                bytes.wrapping_sub(skip),
            )
        };
        // SAFETY: The iterator was just initialized. What is skipped is less than the first piece
        // has, or there is none; the bytes above are those behind it.
        unsafe { (*iter.get()).iov_offset = skip };
        // INVARIANT: The iterator was just initialized for `list`, with `_mm` as the evidence.
        Self {
            iter,
            _list: PhantomData,
            _thread: NotThreadSafe,
        }
    }
}

/// An [`IovIterSource`] over memory of the owner, made by [`UserIov::source`].
///
/// # Invariants
///
/// The iterator has the direction of a source.
pub struct UserSource<'a>(RawIter<'a>);

impl<'a> Deref for UserSource<'a> {
    type Target = IovIterSource<'a>;

    #[inline]
    fn deref(&self) -> &Self::Target {
        // CAST: `IovIterSource` is transparent over `struct iov_iter`. Its `from_raw()` does the
        // same but asserts the direction, with a panic that the compiler cannot rule out here.
        let ptr = self.0.iter.get().cast();
        // SAFETY: By the type invariants of `RawIter` and of this type, this is a valid iterator of
        // the right direction; the reference keeps others from changing it.
        unsafe { &*ptr }
    }
}

impl DerefMut for UserSource<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Self::Target {
        // CAST: See `deref()`.
        let ptr = self.0.iter.get().cast();
        // SAFETY: As in `deref()`, and the reference is exclusive.
        unsafe { &mut *ptr }
    }
}

/// An [`IovIterDest`] over memory of the owner, made by [`UserIov::dest`].
///
/// # Invariants
///
/// The iterator has the direction of a destination.
pub struct UserDest<'a>(RawIter<'a>);

impl<'a> Deref for UserDest<'a> {
    type Target = IovIterDest<'a>;

    #[inline]
    fn deref(&self) -> &Self::Target {
        // CAST: As for `UserSource`.
        let ptr = self.0.iter.get().cast();
        // SAFETY: By the type invariants of `RawIter` and of this type, this is a valid iterator of
        // the right direction; the reference keeps others from changing it.
        unsafe { &*ptr }
    }
}

impl DerefMut for UserDest<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Self::Target {
        // CAST: As for `UserSource`.
        let ptr = self.0.iter.get().cast();
        // SAFETY: As in `deref()`, and the reference is exclusive.
        unsafe { &mut *ptr }
    }
}
