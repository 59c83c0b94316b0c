// SPDX-License-Identifier: GPL-2.0

//! Where receive buffers come from, and how many the device has.
//!
//! Buffers are [`Block`]s of 4 KiB as a rule: a quarter of what the queue could have. If packets
//! fill them, the next ones have 64 KiB, and fewer are enough; if so many small packets come at
//! once that the device runs out of buffers, it gets more. Both end when the load does.
//!
//! A block whose payload was copied goes back to the device at once. One whose payload a socket got
//! as it is, is [lent](Lent): it is here again when the reader is done with it. So a device that is
//! busy needs no new memory, and nothing is wiped: all blocks of a pool belong to one device, see
//! [`Block`].
//!
//! # Bounds
//!
//! The device has buffers of `limit` bytes at most. Blocks that it has not, and that are
//! kept for it, have half of that; more are not kept, and what a socket has of those counts as its
//! own alone, within the limits of its queue.
//!
//! # Locks
//!
//! The pool is under the lock of the receive queue.

use crate::params;
use kernel::prelude::*;
use kernel_ext::{
    gfp::{
        total_memory,
        Gfp, //
    },
    skb::{
        Block,
        Lent, //
    }, //
};
use virtio_transport_common::LentList;
use vsock_proto::header::HEADER_LEN;

#[cfg(CONFIG_KUNIT = "y")]
#[path = "pool/kunit.rs"]
mod kunit;
#[path = "pool/load.rs"]
mod load;

use load::Load;

/// Limits of the bytes that a device may have, if the user gives none: a part of the
/// machine's memory within these.
const LIMITS: (usize, usize) = (512 * 1024, 2 * 1024 * 1024);

/// Which part.
const LIMIT_DIVISOR: usize = 512;

/// The device has so many buffers at least, if its queue and memory allow it.
const LEAST: usize = 8;

/// How many blocks that were lent are looked at for one that is back.
const LOOKS: usize = 4;

/// How large blocks are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    /// 4 KiB.
    Small,
    /// 16 KiB, if there is no memory for the next.
    Medium,
    /// 64 KiB. With its header, no packet is larger than that.
    Large,
}

/// The order of a block of so many bytes, or a page if that is more.
const fn order_of(bytes: usize) -> u8 {
    let mut order = 0;
    while Block::len_of(order) < bytes {
        order = order.wrapping_add(1);
    }
    order
}

impl Class {
    pub(crate) const COUNT: usize = 3;

    /// The pages of a block, as a power of two.
    pub(crate) const fn order(self) -> u8 {
        match self {
            Class::Small => const { order_of(4096) },
            Class::Medium => const { order_of(16 * 1024) },
            Class::Large => const { order_of(64 * 1024) },
        }
    }

    /// The bytes of a block.
    pub(crate) const fn size(self) -> usize {
        Block::len_of(self.order())
    }

    fn of(block: &Block) -> Self {
        let order = block.order();
        if order <= Class::Small.order() {
            Class::Small
        } else if order <= Class::Medium.order() {
            Class::Medium
        } else {
            Class::Large
        }
    }

    /// The next smaller one.
    fn smaller(self) -> Option<Self> {
        match self {
            Class::Small => None,
            Class::Medium => Some(Class::Small),
            Class::Large => Some(Class::Medium),
        }
    }
}

/// Bytes of payload for which a small block has room.
const SMALL_PAYLOAD: usize = Class::Small.size() - Block::SKEW - HEADER_LEN;

/// A payload that would fill several small blocks.
const LARGE_PAYLOAD: usize = 2 * SMALL_PAYLOAD;

/// The buffers that a device does not have, and the knowledge of how many it should have.
pub(crate) struct RxPool {
    /// Most bytes of blocks that the device may have.
    limit: usize,
    /// How many small blocks it has without load, and at most.
    least: usize,
    most: usize,
    /// How many small blocks it should have now.
    target: usize,
    /// What it gets now.
    class: Class,
    /// Bytes of the blocks that it has.
    posted: usize,
    /// Empty blocks by class, with room for as many as may be kept.
    free: [KVec<Block>; Class::COUNT],
    /// Their bytes.
    kept: usize,
    lent: LentList,
    load: Load,
}

impl RxPool {
    /// A pool of a device that has no queue.
    pub(crate) const fn none() -> Self {
        Self {
            limit: 0,
            least: 0,
            most: 0,
            target: 0,
            class: Class::Small,
            posted: 0,
            free: [const { KVec::new() }; Class::COUNT],
            kept: 0,
            lent: LentList::none(),
            load: Load::new(),
        }
    }

    /// A pool without blocks, for a device whose queue may have `ring` of them.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(ring: usize) -> Result<Self> {
        let limit = match usize::from(params::rx_max_kib()) {
            0 => total_memory()
                .wrapping_div(LIMIT_DIVISOR)
                .clamp(LIMITS.0, LIMITS.1),
            kib => kib.saturating_mul(1024),
        };
        Self::with(ring, limit)
    }

    /// As [`new`](Self::new), for so many bytes.
    fn with(ring: usize, limit: usize) -> Result<Self> {
        // One large block at least, or packets could be of one size only.
        let limit = limit.max(Class::Large.size());
        let most = ring.min(limit / Class::Small.size());
        let least = (ring / 4).max(LEAST).min(most);
        let mut pool = Self {
            limit,
            most,
            least,
            target: least,
            ..Self::none()
        };
        let bytes = pool.most_kept();
        for class in [Class::Small, Class::Medium, Class::Large] {
            if let Some(free) = pool.free.get_mut(class as usize) {
                *free = KVec::with_capacity(bytes / class.size(), GFP_KERNEL)?;
            }
        }
        pool.lent = LentList::new(pool.most_lent() / Class::Small.size(), Gfp::Kernel)?;
        Ok(pool)
    }

    /// Bytes of blocks that are kept.
    fn most_kept(&self) -> usize {
        self.limit / 4
    }

    /// Bytes of blocks that are lent and remembered.
    fn most_lent(&self) -> usize {
        self.limit / 4
    }

    /// How many buffers the device should have.
    fn wanted(&self) -> usize {
        match self.class {
            Class::Small => self.target,
            class => self.limit / class.size(),
        }
    }

    /// Says whether a device that has `posted` buffers should get another one.
    pub(crate) fn wants(&self, posted: usize) -> bool {
        posted < self.wanted() && self.has_room()
    }

    fn has_room(&self) -> bool {
        self.posted.saturating_add(self.class.size()) <= self.limit
    }

    /// Says whether a device that has `posted` buffers should get more now.
    #[inline]
    pub(crate) fn is_low(&self, posted: usize) -> bool {
        posted <= self.wanted() / 2 && self.has_room()
    }

    /// The device gets a block.
    #[inline]
    pub(crate) fn add(&mut self, size: usize) {
        self.posted = self.posted.saturating_add(size);
    }

    /// A block is not the device's any more.
    #[inline]
    pub(crate) fn sub(&mut self, size: usize) {
        self.posted = self.posted.saturating_sub(size);
    }

    /// Says whether a block should go back to the device, which has `posted` ones.
    #[inline]
    pub(crate) fn is_current(&self, block: &Block, posted: usize) -> bool {
        block.order() == self.class.order() && posted < self.wanted()
    }

    /// A block that is there.
    pub(crate) fn get(&mut self) -> Option<Block> {
        let class = self.class;
        if let Some(block) = self.free.get_mut(class as usize).and_then(KVec::pop) {
            self.kept = self.kept.saturating_sub(block.size());
            return Some(block);
        }
        for _ in 0..LOOKS {
            let (lent, ()) = self.lent.pop()?;
            match lent.take_back() {
                Ok(block) if block.order() == class.order() => return Some(block),
                Ok(block) => self.keep(block),
                Err(lent) => self.lent.push(lent, ()),
            }
        }
        None
    }

    /// A new block. If there is no memory for one, it may be smaller.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn make(class: Class) -> Result<Block> {
        let mut class = class;
        loop {
            match (Block::new(class.order(), Gfp::Kernel), class.smaller()) {
                (Err(_), Some(smaller)) => class = smaller,
                (ret, _) => return ret,
            }
        }
    }

    /// A block was made. If it is smaller than it should be, that is what there is memory for.
    pub(crate) fn made(&mut self, block: &Block) {
        if block.order() < self.class.order() {
            self.class = Class::Small;
            self.load.let_pass();
        }
    }

    /// What blocks are to be made.
    pub(crate) fn class(&self) -> Class {
        self.class
    }

    /// Keeps a block, or drops it if there are enough.
    pub(crate) fn keep(&mut self, block: Block) {
        let kept = self.kept.saturating_add(block.size());
        if kept > self.most_kept() {
            return;
        }
        if let Some(free) = self.free.get_mut(Class::of(&block) as usize) {
            // There is room for it.
            if free.push_within_capacity(block).is_ok() {
                self.kept = kept;
            }
        }
    }

    /// Remembers a block that somebody else has, until it is back; if there are too many, that one
    /// is forgotten that is lent for the longest time.
    pub(crate) fn lend(&mut self, lent: Lent) {
        while self.lent.bytes().saturating_add(lent.size()) > self.most_lent() {
            if self.lent.pop().is_none() {
                break;
            }
        }
        self.lent.push(lent, ());
    }

    /// A packet came with so much payload, in a block of so many bytes.
    #[inline]
    pub(crate) fn note(&mut self, payload: usize, size: usize) {
        let is_bulk = if size == Class::Small.size() {
            payload == SMALL_PAYLOAD
        } else {
            payload >= LARGE_PAYLOAD
        };
        if let Some(window) = self.load.note(is_bulk, payload > SMALL_PAYLOAD) {
            if self.load.is_bulk(window, self.class != Class::Small) {
                self.class = Class::Large;
            } else {
                self.class = Class::Small;
            }
        }
        if self.load.in_row() >= self.target && self.class == Class::Small {
            self.target = self.target.saturating_mul(2).min(self.most);
            self.load.restart_row();
        }
    }

    /// There are no more packets.
    #[inline]
    pub(crate) fn idle(&mut self) {
        if self
            .load
            .end_row()
            .is_some_and(|most| most < self.target / 4)
        {
            self.target = (self.target / 2).max(self.least);
        }
    }
}
