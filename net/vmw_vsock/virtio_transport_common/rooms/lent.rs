// SPDX-License-Identifier: GPL-2.0

//! Blocks that somebody else has, first in, first out.

use kernel::prelude::*;
use kernel_ext::{
    gfp::Gfp,
    skb::Lent, //
};

/// A ring of blocks that are lent, each with a tag.
pub struct LentList<T = ()> {
    slots: KVec<Option<(Lent, T)>>,
    /// Where the first one is.
    first: usize,
    len: usize,
    /// Their bytes.
    bytes: usize,
}

impl<T> LentList<T> {
    /// A ring without room.
    pub const fn none() -> Self {
        Self {
            slots: KVec::new(),
            first: 0,
            len: 0,
            bytes: 0,
        }
    }

    /// A ring with room for so many.
    ///
    /// Context: sleeps if `gfp` does.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(room: usize, gfp: Gfp) -> Result<Self> {
        let mut slots = KVec::with_capacity(room, gfp.as_flags())?;
        while slots.len() < room {
            slots.push_within_capacity(None).map_err(|_| ENOMEM)?;
        }
        Ok(Self {
            slots,
            ..Self::none()
        })
    }

    /// Says whether there is room for any block.
    #[inline]
    pub fn has_slots(&self) -> bool {
        !self.slots.is_empty()
    }

    /// How many blocks there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Says whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the blocks.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends a block. Without room, the first one is forgotten.
    #[inline]
    pub fn push(&mut self, lent: Lent, tag: T) {
        if self.len == self.slots.len() {
            drop(self.pop());
        }
        let room = self.slots.len();
        let at = self.first.saturating_add(self.len);
        let at = if at >= room {
            at.wrapping_sub(room)
        } else {
            at
        };
        // There is no slot if there is no room at all.
        if let Some(slot) = self.slots.get_mut(at) {
            self.bytes = self.bytes.saturating_add(lent.size());
            *slot = Some((lent, tag));
            self.len = self.len.saturating_add(1);
        }
    }

    /// Takes the first block.
    #[inline]
    pub fn pop(&mut self) -> Option<(Lent, T)> {
        let (lent, tag) = self.slots.get_mut(self.first)?.take()?;
        self.first = self.first.saturating_add(1);
        if self.first >= self.slots.len() {
            self.first = 0;
        }
        self.len = self.len.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(lent.size());
        Some((lent, tag))
    }
}

impl<T> Default for LentList<T> {
    fn default() -> Self {
        Self::none()
    }
}
