// SPDX-License-Identifier: GPL-2.0

//! Socket buffers.

use super::gfp::Gfp;
use crate::{
    kernel::error::{
        Error,
        Result,
        EAGAIN,
        ENOMEM, //
    },
    world, //
};
use std::collections::VecDeque;

/// A linear buffer with something in its control block.
pub struct SkBuff<C> {
    bytes: Vec<u8>,
    room: usize,
    cb: C,
}

impl<C> SkBuff<C> {
    /// Allocates a buffer. There is no memory that does not wait if the world says so.
    pub fn alloc_linear(_head: usize, room: usize, gfp: Gfp, cb: C) -> Result<Self> {
        if gfp == Gfp::Atomic && world::no_atomic_memory() {
            return Err(ENOMEM);
        }
        let bytes = Vec::new();
        Ok(Self { bytes, room, cb })
    }

    /// What is in the control block.
    pub fn cb(&self) -> &C {
        &self.cb
    }

    /// As above.
    pub fn cb_mut(&mut self) -> &mut C {
        &mut self.cb
    }

    /// Puts something else there.
    pub fn replace_cb<D>(self, cb: D) -> (SkBuff<D>, C) {
        let Self {
            bytes,
            room,
            cb: old,
        } = self;
        (SkBuff { bytes, room, cb }, old)
    }

    /// Nobody is charged for it.
    pub fn orphan(&mut self) {}

    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Memory that it takes.
    pub fn truesize(&self) -> usize {
        self.room + 256
    }

    /// Room behind the bytes.
    pub fn tailroom(&self) -> usize {
        self.room - self.bytes.len()
    }

    /// The bytes.
    pub fn linear(&self) -> Option<&[u8]> {
        Some(&self.bytes)
    }

    /// As above.
    pub fn linear_mut(&mut self) -> Option<&mut [u8]> {
        Some(&mut self.bytes)
    }

    /// Drops what is behind `len`.
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
    }

    /// Appends bytes.
    pub fn append(&mut self, bytes: &[u8]) -> Result {
        if bytes.len() > self.tailroom() {
            return Err(ENOMEM);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Appends bytes of another buffer.
    pub fn append_from<D>(&mut self, from: &SkBuff<D>, offset: usize, len: usize) -> Result {
        self.append_with(&[], from, offset, len)
    }

    /// Appends `head`, and bytes of another buffer.
    pub fn append_with<D>(
        &mut self,
        head: &[u8],
        from: &SkBuff<D>,
        offset: usize,
        len: usize,
    ) -> Result {
        let bytes = from.bytes.get(offset..offset + len).ok_or(EAGAIN)?;
        self.append(head)?;
        self.append(bytes)
    }

    /// Drops the first bytes.
    pub fn pull(&mut self, len: usize) -> Result<(), Error> {
        self.bytes.drain(..len);
        Ok(())
    }

    /// Copies to a user.
    pub fn copy_to_iter(&self, offset: usize, to: &mut Vec<u8>, len: usize) -> Result {
        to.extend_from_slice(self.bytes.get(offset..offset + len).ok_or(EAGAIN)?);
        Ok(())
    }
}

/// A payload that is always copied. No packet of the models has one.
pub struct Filled(Vec<u8>);

impl Filled {
    /// Bytes of payload.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Memory that was used before. No carrier of the models has any.
pub struct Room(());

impl<C> SkBuff<C> {
    /// Appends `head`, and bytes of such a payload.
    pub fn append_filled(
        &mut self,
        head: &[u8],
        from: &Filled,
        offset: usize,
        len: usize,
    ) -> Result {
        let bytes = from.0.get(offset..offset + len).ok_or(EAGAIN)?;
        self.append(head)?;
        self.append(bytes)
    }
}

/// A list of buffers.
pub struct SkbList<C>(VecDeque<SkBuff<C>>);

impl<C> Default for SkbList<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> SkbList<C> {
    /// An empty one.
    pub const fn new() -> Self {
        Self(VecDeque::new())
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends a buffer.
    pub fn push_back(&mut self, skb: SkBuff<C>) {
        self.0.push_back(skb);
    }

    /// Puts a buffer before all others.
    pub fn push_front(&mut self, skb: SkBuff<C>) {
        self.0.push_front(skb);
    }

    /// Takes the first one.
    pub fn pop_front(&mut self) -> Option<SkBuff<C>> {
        self.0.pop_front()
    }

    /// Moves all of another list here.
    pub fn append(&mut self, other: &mut Self) {
        self.0.append(&mut other.0);
    }
}
