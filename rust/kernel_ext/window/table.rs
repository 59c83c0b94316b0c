// SPDX-License-Identifier: GPL-2.0

//! Which pages of the owner the kernel can reach, and where.
//!
//! This is arithmetic on numbers: it neither reads nor writes any of that memory, and knows nothing
//! of locks.

use core::{
    cell::Cell,
    ops::DerefMut, //
};

/// How many pages a large window has.
pub(super) const PAGES: usize = 16;

/// How many places for windows there are at first, and at most. Powers of two.
const SLOTS: usize = 512;
const MOST_SLOTS: usize = 4096;

/// How many addresses without a window are remembered.
const MISSES: usize = 8;

/// A large window; its pages are one after the other for the kernel, too.
const LARGE: usize = 2;
/// A window of one page.
const SMALL: usize = 1;

/// A window, or none.
#[derive(Clone, Copy)]
pub(super) struct Window {
    /// Where it begins for the owner, with its kind in the low bits; 0 if there is none.
    key: usize,
    /// Where it begins for the kernel.
    kernel: usize,
}

impl Window {
    pub(super) const NONE: Self = Self { key: 0, kernel: 0 };

    /// The bytes that it has, with pages of `page` bytes; `None` if it is none.
    #[inline]
    fn len(&self, page: usize) -> Option<usize> {
        match self.key % page {
            LARGE => Some(page.wrapping_mul(PAGES)),
            SMALL => Some(page),
            _ => None,
        }
    }
}

/// Windows by the address that they have for the owner, `PAGE` bytes a page.
///
/// A window is found in the one place that its address has, or in none: the next one with the same
/// place takes it. Two kinds share the places: large ones, of [`PAGES`] pages, and small ones, of
/// one page.
///
/// `S` has the places, and is there from the first window on. Memory in pages that the kernel has
/// here and there needs one for each page: where windows take each other's places, there are to be
/// more of them.
///
/// # Invariants
///
/// The number of places is a power of two.
///
/// Of a window in `slots`, `key` without its low bits is a multiple of the size that the window
/// has, and so many bytes from `kernel` on are what [`install`](Self::install) was told; no
/// [`remove`](Self::remove) of any of them came after that.
pub(super) struct Table<S, const PAGE: usize> {
    slots: Option<S>,
    /// How many windows there are.
    count: usize,
    /// How many took the place of another since there are so many places.
    displaced: usize,
    /// Addresses that somebody looked for in vain.
    missed: [Cell<usize>; MISSES],
    misses: Cell<usize>,
    pub(super) filled: u64,
    pub(super) dropped: u64,
}

impl<S: DerefMut<Target = [Window]>, const PAGE: usize> Table<S, PAGE> {
    /// The bytes of a large window.
    pub(super) const LARGE_LEN: usize = PAGE * PAGES;

    pub(super) const fn new() -> Self {
        // INVARIANT: There is no window.
        Self {
            slots: None,
            count: 0,
            displaced: 0,
            missed: [const { Cell::new(0) }; MISSES],
            misses: Cell::new(0),
            filled: 0,
            dropped: 0,
        }
    }

    /// How many places [`set_slots`](Self::set_slots) should give the table; `None` if it has
    /// enough.
    #[inline]
    pub(super) fn wants_slots(&self) -> Option<usize> {
        match self.slots.as_ref().map(|slots| slots.len()) {
            None => Some(SLOTS),
            Some(len) if self.displaced > len && len < MOST_SLOTS => Some(MOST_SLOTS),
            Some(_) => None,
        }
    }

    /// Gives the table other places, which have no window, if there are more of them. The windows
    /// are kept.
    ///
    /// Returns what the table has no use for, to be dropped where the lock is not held.
    pub(super) fn set_slots(&mut self, slots: S) -> Option<S> {
        let len = self.slots.as_ref().map_or(0, |slots| slots.len());
        if !slots.len().is_power_of_two() || slots.len() <= len {
            return Some(slots);
        }
        // INVARIANT: Checked above; there is no window in them.
        let before = self.slots.replace(slots)?;
        (self.count, self.displaced) = (0, 0);
        for window in before.iter() {
            self.put(*window);
        }
        Some(before)
    }

    /// Goes on with the places that there are, for some time, and says whether there are any.
    pub(super) fn keep_slots(&mut self) -> bool {
        self.displaced = 0;
        self.slots.is_some()
    }

    /// Where the kernel reaches the byte at `at`, and how many bytes it reaches from there on, of
    /// which there is one at least.
    #[inline]
    pub(super) fn find(&self, at: usize) -> Option<(usize, usize)> {
        if let Some(slots) = self.slots.as_deref() {
            // The masks hold under speculation, too.
            // OVERFLOW: There are places.
            let mask = slots.len().wrapping_sub(1);
            let large = slots.get((at / Self::LARGE_LEN) & mask)?;
            let within = at % Self::LARGE_LEN;
            // OVERFLOW: The remainder is not more than the number; a window ends within the
            // address space.
            if large.key == at.wrapping_sub(within) | LARGE {
                return Some((
                    large.kernel.wrapping_add(within),
                    Self::LARGE_LEN.wrapping_sub(within),
                ));
            }
            let small = slots.get((at / PAGE) & mask)?;
            let within = at % PAGE;
            // OVERFLOW: As above.
            if small.key == at.wrapping_sub(within) | SMALL {
                return Some((small.kernel.wrapping_add(within), PAGE.wrapping_sub(within)));
            }
        }
        None
    }

    /// Notes that somebody needs the page at `at`.
    #[cold]
    pub(super) fn miss(&self, at: usize) {
        // OVERFLOW: The remainder is not more than the number.
        let page = at.wrapping_sub(at % PAGE);
        let misses = self.misses.get();
        let noted = self.missed.get(..misses).unwrap_or_default();
        if noted.iter().any(|missed| missed.get() == page) {
            return;
        }
        if let Some(missed) = self.missed.get(misses) {
            missed.set(page);
            // OVERFLOW: There are few places.
            self.misses.set(misses.wrapping_add(1));
        }
    }

    /// Takes a page that was missed.
    pub(super) fn take_missed(&self) -> Option<usize> {
        let last = self.misses.get().checked_sub(1)?;
        self.misses.set(last);
        self.missed.get(last).map(Cell::get)
    }

    /// Adds a window.
    ///
    /// `at` is where it begins for the owner, `kernel` for the kernel; it is a large one, or a
    /// small one. Nothing happens without [`set_slots`](Self::set_slots), or if no such window can
    /// begin there.
    pub(super) fn install(&mut self, at: usize, kernel: usize, large: bool) {
        let (len, kind) = if large {
            (Self::LARGE_LEN, LARGE)
        } else {
            (PAGE, SMALL)
        };
        if self.slots.is_none() || at % len != 0 || kernel == 0 {
            return;
        }
        self.filled = self.filled.wrapping_add(1);
        // INVARIANT: It is aligned, as was just checked, and is what the caller says.
        self.put(Window {
            key: at | kind,
            kernel,
        });
    }

    /// Puts a window in its place, if there is one at all.
    fn put(&mut self, window: Window) {
        let (Some(len), Some(slots)) = (window.len(PAGE), &mut self.slots) else {
            return;
        };
        // OVERFLOW: There are places.
        let mask = slots.len().wrapping_sub(1);
        if let Some(slot) = slots.get_mut((window.key / len) & mask) {
            // OVERFLOW: At most as many as there are places; and nobody counts that far.
            if slot.key == 0 {
                self.count = self.count.wrapping_add(1);
            } else if slot.key != window.key {
                self.displaced = self.displaced.wrapping_add(1);
            }
            *slot = window;
        }
    }

    /// Removes all windows that have a byte of the range from `start` to `last`, both included.
    pub(super) fn remove(&mut self, start: usize, last: usize) {
        if self.count == 0 {
            return;
        }
        let Some(slots) = &mut self.slots else {
            return;
        };
        // OVERFLOW: There are places.
        let mask = slots.len().wrapping_sub(1);
        // INVARIANT: What is looked at is all places, or all that a window of the range can have.
        let mut removed = 0_usize;
        let mut check = |window: &mut Window| {
            let Some(len) = window.len(PAGE) else {
                return;
            };
            // OVERFLOW: The remainder is not more than the number; a window ends within the address
            // space.
            let first = window.key.wrapping_sub(window.key % PAGE);
            if first <= last && start <= first.wrapping_add(len.wrapping_sub(1)) {
                window.key = 0;
                removed = removed.wrapping_add(1);
            }
        };
        let pages = (last / PAGE).saturating_sub(start / PAGE);
        if pages < PAGES {
            // OVERFLOW: At most `pages` behind the first one, which is not beyond the last one.
            for page in 0..=pages {
                let page = (start / PAGE).wrapping_add(page);
                for place in [page, page / PAGES] {
                    if let Some(window) = slots.get_mut(place & mask) {
                        check(window);
                    }
                }
            }
        } else {
            slots.iter_mut().for_each(check);
        }
        self.count = self.count.wrapping_sub(removed);
        self.dropped = self.dropped.wrapping_add(removed as u64);
    }
}
