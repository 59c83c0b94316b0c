// SPDX-License-Identifier: GPL-2.0

//! Memory that a device writes packets to, over and over.

use super::SkBuff;
use crate::{
    bindings,
    gfp::Gfp, //
};
use core::{
    mem::ManuallyDrop,
    ptr::NonNull, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

/// A block of pages that a device writes a packet to: the head, and the payload behind it.
///
/// # What is in it
///
/// A block is all zero when it is allocated. After that only a device writes to it, whoever else
/// has it reads. So it never holds anything but what that device wrote, and need not be wiped when
/// it is used again: a device that looks into it sees what it knows, and one that claims to have
/// written what it did not write shows the receiver something that it has sent before, or zeroes.
/// That holds for as long as the same device gets it: whoever keeps blocks keeps them for one.
///
/// Blocks that are split ([`Block::split`]) are the other way round: only the kernel writes to
/// them, the payload of a packet and, as in any linear buffer, what it has to know of it behind
/// that. All of a payload is overwritten before anybody else, a device or a user, is given it.
/// Whoever keeps blocks keeps them for one of the two.
///
/// # Who has it
///
/// A `Block` is the only reference to its pages, and goes to the device as it is. Payload that is
/// worth it stays where it is: [`Filled::share`] makes a socket buffer of it, and leaves a [`Lent`]
/// to whoever wants the block back. The pages know themselves how many have them: nobody has to be
/// told when the buffer is dropped.
///
/// # Invariants
///
/// `start` is where `PAGE_SIZE << order` bytes begin in the linear mapping, all initialized. They
/// are a compound page, of which this is the only reference. `order` is at most
/// [`Self::MAX_ORDER`].
pub struct Block {
    start: NonNull<u8>,
    order: u8,
}

// SAFETY: Pages are not tied to a thread.
unsafe impl Send for Block {}
// SAFETY: `&Block` only allows to read.
unsafe impl Sync for Block {}

impl Block {
    /// Bytes in front that the device does not get: for a header of 44 bytes, so that what is
    /// behind it begins at a multiple of 64.
    pub const SKEW: usize = 20;

    /// Most pages, as a power of two.
    pub const MAX_ORDER: u8 = 4;

    /// Where the order is in a token, whose address is that of a page.
    const ORDER_MASK: usize = 7;

    /// Allocates a block of `PAGE_SIZE << order` zeroes. If that is more than a page, memory is not
    /// waited for.
    ///
    /// # Errors
    ///
    /// `EINVAL` for more than [`MAX_ORDER`](Self::MAX_ORDER), `ENOMEM`.
    pub fn new(order: u8, gfp: Gfp) -> Result<Self> {
        if order > Self::MAX_ORDER {
            return Err(EINVAL);
        }
        // SAFETY: FFI call without preconditions.
        let start = unsafe { bindings::block_alloc(c_uint::from(order), gfp.as_raw()) };
        // INVARIANT: Just allocated as a compound page, and zeroed.
        NonNull::new(start.cast())
            .map(|start| Self { start, order })
            .ok_or(ENOMEM)
    }

    /// Pages, as a power of two.
    #[inline]
    pub fn order(&self) -> u8 {
        self.order
    }

    /// Memory that the block takes, in bytes.
    #[inline]
    pub const fn len_of(order: u8) -> usize {
        // OVERFLOW: By the type invariants, a block is far smaller than all memory.
        PAGE_SIZE.wrapping_shl(order as u32)
    }

    /// Memory that the block takes, in bytes.
    #[inline]
    pub fn size(&self) -> usize {
        Self::len_of(self.order)
    }

    /// How many bytes a device may write, head included.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.size().wrapping_sub(Self::SKEW)
    }

    /// Where a device may write.
    #[inline]
    pub(crate) fn device_start(&self) -> *mut u8 {
        // SAFETY: A page has more bytes than that.
        unsafe { self.start.as_ptr().add(Self::SKEW) }
    }

    /// Makes a pointer of the block.
    #[inline]
    pub(crate) fn into_token(self) -> NonNull<c_void> {
        const { assert!(Self::MAX_ORDER as usize <= Self::ORDER_MASK) };
        const { assert!(Self::ORDER_MASK < PAGE_SIZE) };

        let block = ManuallyDrop::new(self);
        // SAFETY: It is not more than the block has.
        unsafe { block.start.add(usize::from(block.order)) }.cast()
    }

    /// Takes a block back.
    ///
    /// # Safety
    ///
    /// `token` came from [`into_token`](Self::into_token) and was not taken back yet.
    #[inline]
    pub(crate) unsafe fn from_token(token: NonNull<c_void>) -> Self {
        let order = token.as_ptr() as usize & Self::ORDER_MASK;
        // SAFETY: `into_token` has added so much to an address of a page.
        let start = unsafe { token.cast::<u8>().sub(order) };
        // INVARIANT: `into_token` was given a block.
        Self {
            start,
            // CAST: It was masked.
            order: order as u8,
        }
    }

    /// A copy of the first `N` bytes, a number of words, as the device wrote them.
    ///
    /// A hostile device may still write: copy once what is needed.
    #[inline]
    pub fn copy_head<const N: usize>(&self) -> [u8; N] {
        const { assert!(N % size_of::<u32>() == 0) };
        const { assert!(Self::SKEW % size_of::<u32>() == 0) };
        const { assert!(Self::SKEW + N <= PAGE_SIZE) };

        let head = self.device_start().cast::<u32>();
        let mut copy = [0; N];
        for (n, bytes) in copy.chunks_exact_mut(size_of::<u32>()).enumerate() {
            // SAFETY: The block has `N` bytes or more there.
            let word = unsafe { head.add(n) };
            // SAFETY: The word is aligned, in the block, and initialized by the type invariants.
            // There is no reference to it, and the read is volatile: the device may write it.
            let word = unsafe { word.read_volatile() };
            for (to, from) in bytes.iter_mut().zip(word.to_ne_bytes()) {
                *to = from;
            }
        }
        copy
    }

    /// Says that `len` bytes behind a head of `head` bytes are payload.
    ///
    /// # Errors
    ///
    /// Gives the block back if it has not so many bytes.
    #[inline]
    pub fn filled(self, head: usize, len: usize) -> Result<Filled, Self> {
        let offset = Self::SKEW.saturating_add(head);
        if offset.saturating_add(len) > self.size() {
            return Err(self);
        }
        Ok(Filled {
            block: self,
            offset,
            len,
        })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, there is a reference, which is ours.
        unsafe { bindings::block_put(self.start.as_ptr().cast()) };
    }
}

/// A block that is to be the payload of a socket buffer, see [`SkBuff::alloc_in`]. Whoever has the
/// [`Lent`] waits for it.
///
/// # Invariants
///
/// As for [`Block`], but for the reference of a [`Lent`].
pub struct Room {
    start: NonNull<u8>,
    order: u8,
}

// SAFETY: Pages are not tied to a thread.
unsafe impl Send for Room {}
// SAFETY: `&Room` allows nothing.
unsafe impl Sync for Room {}

impl Room {
    /// How many bytes of payload there is room for.
    #[inline]
    pub fn size(&self) -> usize {
        Block::len_of(self.order)
    }

    /// Whether all of a buffer with such a payload fits into a block of that order: then it costs
    /// less to make it than with the payload only in the block.
    #[inline]
    pub fn has_linear(order: u8, headroom: usize, payload: usize) -> bool {
        let most = Block::len_of(order).saturating_sub(bindings::SKB_OVERHEAD as usize);
        headroom.saturating_add(payload) <= most
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, there is a reference, which is ours.
        unsafe { bindings::block_put(self.start.as_ptr().cast()) };
    }
}

impl Block {
    /// Splits the block into the right to fill it, and the one to have it back.
    #[inline]
    pub fn split(self) -> (Room, Lent) {
        let block = ManuallyDrop::new(self);
        let (start, order) = (block.start, block.order);
        // SAFETY: By the type invariants, the block is valid.
        unsafe { bindings::block_get(start.as_ptr().cast()) };
        // INVARIANT: There are two references now, one for each, and only the room can be written.
        (Room { start, order }, Lent { start, order })
    }
}

/// A block with payload in it.
///
/// # Invariants
///
/// `offset + len` is not more than the size of the block.
pub struct Filled {
    block: Block,
    offset: usize,
    len: usize,
}

impl Filled {
    /// Bytes of payload.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Says whether there is no payload.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Says whether the block takes no more than 5/2 of the payload: whoever has a limit for what
    /// it receives may keep both.
    #[inline]
    pub fn is_dense(&self) -> bool {
        let size = self.block.size();
        size.saturating_mul(2) <= self.len.saturating_mul(5)
    }

    /// The block.
    #[inline]
    pub fn into_block(self) -> Block {
        self.block
    }

    /// Makes a socket buffer of the payload, without a copy, and a reference for whoever wants the
    /// block back. Nobody may write to the buffer in place: the kernel copies what is shared.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, with the payload as it was.
    #[inline]
    pub fn share(self, gfp: Gfp) -> Result<(SkBuff<()>, Lent), Self> {
        let Ok(skb) = SkBuff::alloc_parts(0, 0, 0, gfp.as_raw(), ()) else {
            return Err(self);
        };
        let block = ManuallyDrop::new(self.block);
        // SAFETY: The buffer is ours and empty. By the type invariants, the bytes are in the block,
        // and initialized; it has so much memory, and the buffer gets a reference.
        //
        // INVARIANT: The payload is a page fragment now.
        unsafe {
            bindings::skb_add_block(
                skb.as_raw(),
                block.start.as_ptr().cast(),
                // CAST: A block has less than 2^32 bytes.
                self.offset as c_uint,
                self.len as c_uint,
                block.size() as c_uint,
            )
        };
        let lent = Lent {
            start: block.start,
            order: block.order,
        };
        Ok((skb, lent))
    }
}

/// A block that others have as well, who read it, or fill it ([`Room`]).
///
/// # Invariants
///
/// As for [`Block`], but for other references. The pages are not accessed through this one.
pub struct Lent {
    start: NonNull<u8>,
    order: u8,
}

// SAFETY: Pages are not tied to a thread.
unsafe impl Send for Lent {}
// SAFETY: `&Lent` allows nothing.
unsafe impl Sync for Lent {}

impl Lent {
    /// Pages, as a power of two.
    #[inline]
    pub fn order(&self) -> u8 {
        self.order
    }

    /// Memory that the block takes, in bytes.
    #[inline]
    pub fn size(&self) -> usize {
        Block::len_of(self.order)
    }

    /// The block, if nobody else has it any more.
    ///
    /// # Errors
    ///
    /// Gives the reference back. (It may also be that somebody looks at all pages of the machine.)
    #[inline]
    pub fn take_back(self) -> Result<Block, Self> {
        // SAFETY: By the type invariants, the block is valid.
        if !unsafe { bindings::block_is_alone(self.start.as_ptr().cast()) } {
            return Err(self);
        }
        let lent = ManuallyDrop::new(self);
        // INVARIANT: This is the only reference: nobody has another one from which it could make
        // more. All that others did with the block is done, as the function promises.
        Ok(Block {
            start: lent.start,
            order: lent.order,
        })
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, there is a reference, which is ours.
        unsafe { bindings::block_put(self.start.as_ptr().cast()) };
    }
}

impl<C> SkBuff<C> {
    /// As [`alloc`](Self::alloc), with a payload of exactly `payload` bytes in memory that there is
    /// already. What is in there is initialized, but maybe not zero. The buffer is linear if the
    /// room [is enough](Room::has_linear) for that.
    ///
    /// Context: does not sleep if `gfp` does not.
    ///
    /// # Errors
    ///
    /// Gives `cb` back if there is no memory for it, the room is too small, or there is no payload.
    pub fn alloc_in(
        headroom: usize,
        room: Room,
        payload: usize,
        gfp: Gfp,
        cb: C,
    ) -> Result<Self, C> {
        if payload == 0 || payload > room.size() {
            return Err(cb);
        }
        if Room::has_linear(room.order, headroom, payload) {
            return Self::alloc_linear_in(headroom, room, cb);
        }
        let mut skb = match SkBuff::alloc_parts(headroom, headroom, 0, gfp.as_raw(), ()) {
            Ok(skb) => skb.replace_cb(cb).0,
            Err(_) => return Err(cb),
        };
        // SAFETY: The buffer is ours and empty. By the type invariants, the bytes are in the block,
        // and initialized; it has so much memory, and the buffer gets a reference. Nobody else
        // writes to it: the room was the only right to do so.
        //
        // INVARIANT: The payload is a page fragment, of which nothing counts yet.
        unsafe {
            bindings::skb_add_block(
                skb.as_raw(),
                room.start.as_ptr().cast(),
                0,
                // CAST: A block has less than 2^32 bytes.
                payload as c_uint,
                room.size() as c_uint,
            )
        };
        skb.clear_len();
        Ok(skb)
    }

    /// Makes a linear buffer of a room that is large enough for the head, a payload and what the
    /// kernel writes behind them.
    fn alloc_linear_in(headroom: usize, room: Room, cb: C) -> Result<Self, C> {
        let start = room.start.as_ptr().cast();
        // CAST: A block has less than 2^32 bytes.
        // SAFETY: By the type invariants, that is a block of so many bytes, to which we refer, and
        // which nobody else writes: the room was the only right to do so.
        let skb = unsafe { bindings::build_skb(start, room.size() as c_uint) };
        let Some(skb) = NonNull::new(skb) else {
            return Err(cb);
        };
        // The buffer has its reference now.
        core::mem::forget(room);
        // SAFETY: The buffer was just made, is ours, and as the caller says, has room for the head.
        Ok(unsafe { Self::with_head(skb, headroom, cb) })
    }

    /// Appends `head` and then `len` bytes of a payload that a device wrote, from `offset` on. The
    /// device may still write it: what is appended is a copy.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if there is no room for all of it or this payload is not linear, `EFAULT` if
    /// `payload` is shorter. Nothing was appended then.
    pub fn append_filled(
        &mut self,
        head: &[u8],
        payload: &Filled,
        offset: usize,
        len: usize,
    ) -> Result {
        let at = payload.offset.wrapping_add(offset);
        let from = payload.block.start.as_ptr().wrapping_add(at);
        let copy = |to: *mut c_void| {
            // C copies: for Rust nobody may write meanwhile.
            //
            // SAFETY: `to` has room for `len` bytes, to which nobody else refers; the payload has
            // that many from `offset` on, which by the invariants of `Filled` are in the block.
            unsafe { bindings::memcpy(to, from.cast(), len) };
            Ok(())
        };
        // SAFETY: `copy` writes `len` bytes.
        unsafe { self.append_copied(head, offset, len, payload.len(), copy) }
    }
}
