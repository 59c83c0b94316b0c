// SPDX-License-Identifier: GPL-2.0

//! The device IOTLB: translations that user space hands out on demand.
//!
//! If the driver negotiated `VIRTIO_F_ACCESS_PLATFORM`, all addresses in a ring and of a ring are
//! those of an IOMMU (IOVA), which user space emulates. The IOTLB has those translations that user
//! space told us and did not take back. One that is missing is asked for: see [`Miss`].
//!
//! # What may be trusted
//!
//! A translation that was taken back must not be used any more. Nothing is remembered outside of
//! the [`Iotlb`] itself: where the ring is (see [`prefetch`](Iotlb::prefetch)) is forgotten with
//! every change of the mappings, and holds for the very same ring only.

#[path = "iotlb/mapping.rs"]
mod mapping;
#[path = "iotlb/tree.rs"]
mod tree;

pub use self::{
    mapping::{
        Mapping,
        Perm, //
    },
    tree::Slot, //
};

use self::tree::{
    Tree,
    NIL, //
};
use crate::{
    layout,
    translate::PieceError,
    Access,
    Config,
    Gpa,
    RingAddr,
    Segment,
    Translate,
    UserAddr, //
};
use core::ops::DerefMut;

/// A translation that is missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Miss {
    /// The address.
    pub at: Gpa,
    /// What was to be done.
    pub access: Access,
}

/// Why an IOTLB has no translation for an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IotlbError {
    /// It does not know any: ask user space, and try again.
    Miss(Miss),
    /// The memory may not be accessed in that way.
    Denied,
}

/// A part of a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Part {
    start: RingAddr,
    bytes: u64,
    /// What the device does there. It reads the used ring, too; what counts is that it may write.
    access: Access,
}

impl Part {
    /// How far behind the beginning `len` bytes at `at` are, if they are in the part.
    #[inline]
    fn offset_of(&self, at: RingAddr, len: u32) -> Option<u64> {
        let offset = at.0.checked_sub(self.start.0)?;
        let end = offset.checked_add(len.into())?;
        (end <= self.bytes).then_some(offset)
    }
}

/// The areas that a ring consists of: descriptor table, available and used ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingParts([Part; 3]);

impl Config {
    /// The areas that the ring consists of.
    pub fn parts(&self) -> RingParts {
        let part = |start, bytes, access| Part {
            start,
            bytes,
            access,
        };
        let (size, event_idx) = (self.size, self.event_idx);
        RingParts([
            part(self.desc, layout::desc_bytes(size), Access::Read),
            part(
                self.avail,
                layout::avail_bytes(size, event_idx),
                Access::Read,
            ),
            part(
                self.used,
                layout::used_bytes(size, event_idx),
                Access::Write,
            ),
        ])
    }
}

/// What is known of a ring: all of it is mapped, with the right permissions.
#[derive(Clone, Copy, Debug)]
struct KnownRing {
    parts: RingParts,
    /// Where each part is for the owner, if it lies in one mapping.
    users: [Option<UserAddr>; 3],
}

/// A range of addresses that ends before it begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EmptyRange;

/// The translations that are known.
///
/// There are at most as many as the limit says, for which the oldest ones are given up, and as the
/// slots have room for: whoever owns the memory [grows](Self::grow) them when
/// [`wants`](Self::wants) says so. Nothing else needs memory. A lookup needs O(log n) steps.
///
/// # Overlapping mappings
///
/// C keeps mappings that overlap, and uses the one that begins first, even if it is out of date.
/// Here the latest counts: what it overlaps is cut. Each address has one translation at most.
#[derive(Debug)]
#[doc(alias = "vhost_iotlb")]
pub struct Iotlb<S> {
    tree: Tree<S>,
    limit: u32,
    ring: Option<KnownRing>,
}

impl<S: DerefMut<Target = [Slot]>> Iotlb<S> {
    /// How many slots there are to begin with.
    const FIRST: u32 = 64;

    /// Creates an IOTLB without any translation, for at most `limit`, or [`None`] if that is zero.
    pub fn new(limit: u32, slots: S) -> Option<Self> {
        (limit != 0).then(|| Self {
            tree: Tree::new(slots),
            limit,
            ring: None,
        })
    }

    /// How many slots there should be before the next [`insert`](Self::insert), if that is more
    /// than there are. Without them, the oldest mapping is given up earlier than the limit says.
    pub fn wants(&self) -> Option<usize> {
        let room = self.tree.room();
        // One for the mapping, and one for a mapping that it cuts in two.
        if room >= self.limit || self.tree.len().saturating_add(2) <= room {
            return None;
        }
        let wanted = room.saturating_mul(2).max(Self::FIRST).min(self.limit);
        usize::try_from(wanted).ok()
    }

    /// Moves to other slots, if they are more.
    pub fn grow(&mut self, slots: S) {
        self.tree.grow(slots);
    }

    /// How many mappings there are.
    pub fn len(&self) -> usize {
        // CAST: From 32 bits to at least 32 bits.
        self.tree.len() as usize
    }

    /// Whether there is no mapping at all.
    pub fn is_empty(&self) -> bool {
        self.tree.len() == 0
    }

    /// Adds a mapping. The parts of others that it overlaps are forgotten.
    ///
    /// Whether the owner's memory exists is not checked here.
    ///
    /// # Errors
    ///
    /// The mapping ends before it begins.
    #[doc(alias = "vhost_iotlb_add_range")]
    pub fn insert(&mut self, map: Mapping) -> Result<(), EmptyRange> {
        if map.last < map.start {
            return Err(EmptyRange);
        }
        self.ring = None;
        self.cut(map.start.0, map.last.0);
        let most = self.limit.min(self.tree.room());
        while self.tree.len() >= most && self.tree.len() != 0 {
            self.tree.remove(self.tree.oldest());
        }
        self.tree.add(map, NIL);
        Ok(())
    }

    /// Removes all mappings that have any address in a range, as a whole.
    ///
    /// # Errors
    ///
    /// The range ends before it begins.
    #[doc(alias = "vhost_iotlb_del_range")]
    pub fn remove(&mut self, start: Gpa, last: Gpa) -> Result<(), EmptyRange> {
        if last < start {
            return Err(EmptyRange);
        }
        self.ring = None;
        while let Some((node, _)) = self.last_overlap(start.0, last.0) {
            self.tree.remove(node);
        }
        Ok(())
    }

    /// The last one of the mappings that have an address in a range.
    fn last_overlap(&self, start: u64, last: u64) -> Option<(u32, Mapping)> {
        let node = self.tree.at_or_before(last);
        let map = self.tree.get(node)?.map;
        (map.last.0 >= start).then_some((node, map))
    }

    /// Removes a range from all mappings.
    fn cut(&mut self, start: u64, last: u64) {
        while let Some((node, map)) = self.last_overlap(start, last) {
            // Each of the two additions is of a value that is less than another one.
            let behind = (map.last.0 > last)
                .then(|| last.wrapping_add(1))
                .and_then(|behind| Some((behind, map.user_at(behind)?)));
            let before = (map.start.0 < start).then(|| start.wrapping_sub(1));
            match (before, behind) {
                (None, None) => self.tree.remove(node),
                (None, Some((behind, user))) => self.tree.change(node, |map| {
                    (map.start, map.user) = (Gpa(behind), user);
                }),
                (Some(before), behind) => {
                    self.tree.change(node, |map| map.last = Gpa(before));
                    if let Some((behind, user)) = behind {
                        // It is as old as the other part. Without room it is forgotten.
                        let rest = Mapping {
                            start: Gpa(behind),
                            user,
                            ..map
                        };
                        if self.tree.len() < self.limit {
                            self.tree.add(rest, node);
                        }
                    }
                }
            }
        }
    }

    /// Makes sure that all of a ring is mapped, so that [`ring_piece`](Self::ring_piece) does not
    /// fail until the next change.
    ///
    /// That is remembered: without a change, doing it again is no work.
    ///
    /// # Errors
    ///
    /// A part of the ring is not mapped, or must not be accessed as a ring has to be.
    #[doc(alias = "vq_meta_prefetch")]
    pub fn prefetch(&mut self, parts: &RingParts) -> Result<(), PieceError<IotlbError>> {
        if self.ring.is_some_and(|ring| ring.parts == *parts) {
            return Ok(());
        }
        self.ring = None;
        let mut users = [None; 3];
        for (part, user) in parts.0.iter().zip(&mut users) {
            let bytes = u32::try_from(part.bytes).map_err(|_| PieceError::Address)?;
            for piece in self.pieces(Gpa(part.start.0), bytes, part.access) {
                let piece = piece?;
                if piece.len == bytes {
                    *user = Some(piece.addr);
                }
            }
        }
        self.ring = Some(KnownRing {
            parts: *parts,
            users,
        });
        Ok(())
    }

    /// Translates the beginning of `len` bytes of a ring: a [`lookup`](Translate::lookup) that
    /// knows the ring that was [prefetched](Self::prefetch).
    ///
    /// # Errors
    ///
    /// There is no translation, or `access` is not allowed.
    #[inline]
    pub fn ring_piece(
        &self,
        at: RingAddr,
        len: u32,
        access: Access,
    ) -> Result<Segment, IotlbError> {
        let mut access = access;
        if let Some(ring) = &self.ring {
            for (part, user) in ring.parts.0.iter().zip(&ring.users) {
                // Parts may overlap: what is only known to be readable is not written.
                if access == Access::Write && part.access != access {
                    continue;
                }
                let Some(offset) = part.offset_of(at, len) else {
                    continue;
                };
                if let Some(addr) = user.and_then(|user| user.checked_add(offset)) {
                    return Ok(Segment { addr, len });
                }
                access = part.access;
                break;
            }
        }
        self.lookup(Gpa(at.0), len, access)
    }
}

impl<S: DerefMut<Target = [Slot]>> Translate for Iotlb<S> {
    type Error = IotlbError;

    #[inline]
    fn lookup(&self, at: Gpa, len: u32, access: Access) -> Result<Segment, IotlbError> {
        let miss = IotlbError::Miss(Miss { at, access });
        let node = self.tree.at_or_before(at.0);
        let map = &self.tree.get(node).ok_or(miss)?.map;
        let behind = map.last.0.checked_sub(at.0).ok_or(miss)?;
        if !map.perm.allows(access) {
            return Err(IotlbError::Denied);
        }
        // `behind` is one less than the number of bytes, which may be 2^64.
        let len = u64::from(len).min(behind.saturating_add(1));
        let addr = map.user_at(at.0).ok_or(IotlbError::Denied)?;
        // The owner's end of the mapping must exist, too.
        addr.checked_add(len).ok_or(IotlbError::Denied)?;
        Ok(Segment {
            addr,
            // CAST: At most `len`.
            len: len as u32,
        })
    }
}

#[cfg(test)]
#[path = "iotlb/tests.rs"]
mod tests;
