// SPDX-License-Identifier: GPL-2.0

//! Blocks that somebody else has, first in, first out.

use kernel::prelude::*;
use kernel_ext::skb::Lent;

/// A ring of blocks that are lent.
pub(crate) struct LentList {
    slots: KVec<Option<Lent>>,
    /// Where the first one is.
    first: usize,
    len: usize,
    /// Their bytes.
    bytes: usize,
}

impl LentList {
    /// A ring without room.
    pub(crate) const fn none() -> Self {
        Self {
            slots: KVec::new(),
            first: 0,
            len: 0,
            bytes: 0,
        }
    }

    /// A ring with room for so many.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(room: usize) -> Result<Self> {
        let mut slots = KVec::with_capacity(room, GFP_KERNEL)?;
        while slots.len() < room {
            slots.push_within_capacity(None).map_err(|_| ENOMEM)?;
        }
        Ok(Self {
            slots,
            ..Self::none()
        })
    }

    /// Bytes of the blocks.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends a block. Without room, the first one is forgotten.
    #[inline]
    pub(crate) fn push(&mut self, lent: Lent) {
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
            *slot = Some(lent);
            self.len = self.len.saturating_add(1);
        }
    }

    /// Takes the first block.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Lent> {
        let lent = self.slots.get_mut(self.first)?.take()?;
        self.first = self.first.saturating_add(1);
        if self.first >= self.slots.len() {
            self.first = 0;
        }
        self.len = self.len.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(lent.size());
        Some(lent)
    }
}
