// SPDX-License-Identifier: GPL-2.0

//! The mappings of an IOTLB, in slots that somebody else allocated.
//!
//! Two structures share the slots: an AVL tree by the first address, and a list by age. A slot that
//! is in neither is free. Links are numbers of slots, so that moving all slots to a larger array
//! is a copy.

use super::mapping::Mapping;
use core::ops::DerefMut;

/// No slot.
pub(super) const NIL: u32 = u32::MAX;

/// Higher than a tree can get with 32-bit links: 1.45 times the logarithm of the number of slots.
const MAX_HEIGHT: usize = 48;

/// A place for a mapping.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    pub(super) map: Mapping,
    /// Subtrees. `left` is the next free slot if this one is free.
    left: u32,
    right: u32,
    /// Neighbours in the list by age.
    older: u32,
    newer: u32,
    /// Height of the subtree that begins here.
    height: u8,
}

impl Slot {
    /// A free slot, to fill an array with.
    pub const FREE: Self = Self::new(Mapping::NONE);

    const fn new(map: Mapping) -> Self {
        Self {
            map,
            left: NIL,
            right: NIL,
            older: NIL,
            newer: NIL,
            height: 1,
        }
    }
}

/// The slots from the root to where something changes.
struct Path {
    nodes: [u32; MAX_HEIGHT],
    len: usize,
}

impl Path {
    fn new() -> Self {
        Self {
            nodes: [NIL; MAX_HEIGHT],
            len: 0,
        }
    }

    fn push(&mut self, node: u32) {
        // There is always room, see `MAX_HEIGHT`.
        if let Some(slot) = self.nodes.get_mut(self.len) {
            *slot = node;
            // OVERFLOW: Less than `MAX_HEIGHT`.
            self.len = self.len.wrapping_add(1);
        }
    }

    fn set(&mut self, index: usize, node: u32) {
        if let Some(slot) = self.nodes.get_mut(index) {
            *slot = node;
        }
    }

    fn last(&self) -> u32 {
        self.before(self.len)
    }

    /// The node before the one at `index`, which is the parent of that.
    fn before(&self, index: usize) -> u32 {
        let index = index.checked_sub(1);
        index
            .and_then(|index| self.nodes.get(index))
            .copied()
            .unwrap_or(NIL)
    }
}

/// The two structures and the slots that they are made of.
///
/// # Invariants
///
/// - All links are those of slots that exist, or [`NIL`].
/// - `len` slots are in the tree and in the list; mappings in the tree do not overlap.
/// - The two subtrees of a slot differ in height by 1 at most.
#[derive(Debug)]
pub(super) struct Tree<S> {
    slots: S,
    root: u32,
    oldest: u32,
    newest: u32,
    /// The first of the slots that were used and freed.
    free: u32,
    /// How many slots were ever used; those behind are free.
    touched: u32,
    len: u32,
}

impl<S: DerefMut<Target = [Slot]>> Tree<S> {
    pub(super) fn new(slots: S) -> Self {
        // INVARIANT: The tree is empty.
        Self {
            slots,
            root: NIL,
            oldest: NIL,
            newest: NIL,
            free: NIL,
            touched: 0,
            len: 0,
        }
    }

    /// How many mappings there are.
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// How many mappings there is room for.
    pub(super) fn room(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(NIL)
    }

    /// Moves to another array; the result says whether it is large enough for that.
    pub(super) fn grow(&mut self, mut slots: S) -> bool {
        let Some(place) = slots.get_mut(..self.slots.len()) else {
            return false;
        };
        place.copy_from_slice(&self.slots);
        self.slots = slots;
        true
    }

    pub(super) fn get(&self, node: u32) -> Option<&Slot> {
        // CAST: From 32 bits to at least 32 bits. `NIL` is beyond the end of any array.
        self.slots.get(node as usize)
    }

    fn with(&mut self, node: u32, f: impl FnOnce(&mut Slot)) {
        // CAST: As in `get()`.
        if let Some(slot) = self.slots.get_mut(node as usize) {
            f(slot);
        }
    }

    /// Changes a mapping, which stays between its neighbours.
    pub(super) fn change(&mut self, node: u32, f: impl FnOnce(&mut Mapping)) {
        self.with(node, |slot| f(&mut slot.map));
    }

    /// The mapping that has been there for longest.
    pub(super) fn oldest(&self) -> u32 {
        self.oldest
    }

    /// The last one of the mappings that begin at `at` or before, or [`NIL`].
    #[inline]
    pub(super) fn at_or_before(&self, at: u64) -> u32 {
        let (mut found, mut node) = (NIL, self.root);
        while let Some(slot) = self.get(node) {
            node = if slot.map.start.0 <= at {
                found = node;
                slot.right
            } else {
                slot.left
            };
        }
        found
    }

    /// Adds a mapping, as the newest one or as the one that is newer than `older`. It is lost if
    /// there is no room.
    pub(super) fn add(&mut self, map: Mapping, older: u32) {
        let node = self.allocate();
        if node == NIL {
            return;
        }
        self.with(node, |slot| *slot = Slot::new(map));
        // OVERFLOW: At most the number of slots.
        self.len = self.len.wrapping_add(1);
        self.age_link(node, older);
        self.tree_link(node, map.start.0);
    }

    /// Takes a mapping out that is in the tree.
    pub(super) fn remove(&mut self, node: u32) {
        if !self.tree_unlink(node) {
            return;
        }
        self.age_unlink(node);
        let free = core::mem::replace(&mut self.free, node);
        self.with(node, |slot| slot.left = free);
        // OVERFLOW: It was in the tree, thus there was at least one.
        self.len = self.len.wrapping_sub(1);
    }

    fn allocate(&mut self) -> u32 {
        let node = self.free;
        if let Some(next) = self.get(node).map(|slot| slot.left) {
            self.free = next;
            return node;
        }
        let node = self.touched;
        if node >= self.room() {
            return NIL;
        }
        // OVERFLOW: Less than the number of slots.
        self.touched = node.wrapping_add(1);
        node
    }

    // --- by age ------------------------------------------------------------------------------

    fn age_link(&mut self, node: u32, older: u32) {
        let older = if older == NIL { self.newest } else { older };
        let newer = match self.get(older) {
            Some(slot) => slot.newer,
            None => NIL,
        };
        self.with(node, |slot| (slot.older, slot.newer) = (older, newer));
        self.age_join(older, node);
        self.age_join(node, newer);
    }

    fn age_unlink(&mut self, node: u32) {
        if let Some((older, newer)) = self.get(node).map(|slot| (slot.older, slot.newer)) {
            self.age_join(older, newer);
        }
    }

    /// Makes two slots neighbours; [`NIL`] is what comes before the oldest and after the newest.
    fn age_join(&mut self, older: u32, newer: u32) {
        if older == NIL {
            self.oldest = newer;
        }
        if newer == NIL {
            self.newest = older;
        }
        self.with(older, |slot| slot.newer = newer);
        self.with(newer, |slot| slot.older = older);
    }

    // --- by address --------------------------------------------------------------------------

    fn children(&self, node: u32) -> (u32, u32) {
        self.get(node)
            .map_or((NIL, NIL), |slot| (slot.left, slot.right))
    }

    fn height(&self, node: u32) -> u8 {
        self.get(node).map_or(0, |slot| slot.height)
    }

    /// Which way to go from `node` to find `key`.
    fn towards(slot: &Slot, key: u64) -> u32 {
        if key < slot.map.start.0 {
            slot.left
        } else {
            slot.right
        }
    }

    fn tree_link(&mut self, node: u32, key: u64) {
        let mut path = Path::new();
        let mut at = self.root;
        while let Some(slot) = self.get(at) {
            path.push(at);
            at = Self::towards(slot, key);
        }
        let parent = path.last();
        if parent == NIL {
            self.root = node;
        }
        self.with(parent, |slot| {
            if key < slot.map.start.0 {
                slot.left = node;
            } else {
                slot.right = node;
            }
        });
        self.balance_all(&path);
    }

    fn tree_unlink(&mut self, node: u32) -> bool {
        let Some(key) = self.get(node).map(|slot| slot.map.start.0) else {
            return false;
        };
        let mut path = Path::new();
        let mut at = self.root;
        while at != node {
            let Some(slot) = self.get(at) else {
                return false;
            };
            path.push(at);
            at = Self::towards(slot, key);
        }

        let parent = path.last();
        let (left, right) = self.children(node);
        if left == NIL || right == NIL {
            self.replace_child(parent, node, if left == NIL { right } else { left });
        } else {
            // The next one in order takes its place.
            let place = path.len;
            path.push(node);
            let mut next = right;
            loop {
                let (before, _) = self.children(next);
                if before == NIL {
                    break;
                }
                path.push(next);
                next = before;
            }
            let (_, behind) = self.children(next);
            self.replace_child(path.last(), next, behind);
            let (left, right) = self.children(node);
            self.with(next, |slot| (slot.left, slot.right) = (left, right));
            self.replace_child(parent, node, next);
            path.set(place, next);
        }
        self.balance_all(&path);
        true
    }

    fn replace_child(&mut self, parent: u32, old: u32, new: u32) {
        if parent == NIL {
            self.root = new;
        }
        self.with(parent, |slot| {
            if slot.left == old {
                slot.left = new;
            } else {
                slot.right = new;
            }
        });
    }

    /// Balances the subtrees along a path, from its end to the root.
    fn balance_all(&mut self, path: &Path) {
        let mut index = path.len;
        while let Some(above) = index.checked_sub(1) {
            let node = path.before(index);
            let top = self.balance(node);
            if top != node {
                self.replace_child(path.before(above), node, top);
            }
            index = above;
        }
    }

    /// Balances a subtree, and returns where it begins then.
    fn balance(&mut self, node: u32) -> u32 {
        let (left, right) = self.children(node);
        let (left_height, right_height) = (self.height(left), self.height(right));
        // OVERFLOW: Heights are at most `MAX_HEIGHT`.
        if left_height > right_height.wrapping_add(1) {
            let (outer, inner) = self.children(left);
            if self.height(outer) < self.height(inner) {
                let top = self.rotate_left(left);
                self.with(node, |slot| slot.left = top);
            }
            return self.rotate_right(node);
        }
        if right_height > left_height.wrapping_add(1) {
            let (inner, outer) = self.children(right);
            if self.height(outer) < self.height(inner) {
                let top = self.rotate_right(right);
                self.with(node, |slot| slot.right = top);
            }
            return self.rotate_left(node);
        }
        self.update_height(node);
        node
    }

    fn update_height(&mut self, node: u32) {
        let (left, right) = self.children(node);
        let height = self.height(left).max(self.height(right));
        // OVERFLOW: Heights are at most `MAX_HEIGHT`.
        self.with(node, |slot| slot.height = height.wrapping_add(1));
    }

    fn rotate_right(&mut self, node: u32) -> u32 {
        let (top, _) = self.children(node);
        let (_, moved) = self.children(top);
        self.with(node, |slot| slot.left = moved);
        self.with(top, |slot| slot.right = node);
        self.update_height(node);
        self.update_height(top);
        top
    }

    fn rotate_left(&mut self, node: u32) -> u32 {
        let (_, top) = self.children(node);
        let (moved, _) = self.children(top);
        self.with(node, |slot| slot.right = moved);
        self.with(top, |slot| slot.left = node);
        self.update_height(node);
        self.update_height(top);
        top
    }

    /// Checks the invariants, for tests: returns the mappings by address, and by age.
    #[cfg(test)]
    pub(super) fn check(&self) -> (Vec<Mapping>, Vec<Mapping>) {
        fn walk<S: DerefMut<Target = [Slot]>>(tree: &Tree<S>, node: u32, out: &mut Vec<u32>) -> u8 {
            let Some(slot) = tree.get(node) else {
                assert_eq!(node, NIL);
                return 0;
            };
            let left = walk(tree, slot.left, out);
            out.push(node);
            let right = walk(tree, slot.right, out);
            assert!(left.abs_diff(right) <= 1, "not balanced");
            assert_eq!(slot.height, left.max(right) + 1);
            slot.height
        }
        let mut nodes = Vec::new();
        let height = walk(self, self.root, &mut nodes);
        assert!(usize::from(height) < MAX_HEIGHT);
        let mut by_age = Vec::new();
        let (mut older, mut node) = (NIL, self.oldest);
        while let Some(slot) = self.get(node) {
            assert_eq!(slot.older, older);
            by_age.push(node);
            (older, node) = (node, slot.newer);
        }
        assert_eq!(self.newest, older);
        let mut same = by_age.clone();
        same.sort_unstable();
        let mut sorted = nodes.clone();
        sorted.sort_unstable();
        assert_eq!(same, sorted, "tree and list differ");
        assert_eq!(nodes.len(), self.len as usize);
        let maps = |nodes: Vec<u32>| nodes.iter().map(|n| self.get(*n).unwrap().map).collect();
        (maps(nodes), maps(by_age))
    }
}
