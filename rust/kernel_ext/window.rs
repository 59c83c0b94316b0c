// SPDX-License-Identifier: GPL-2.0

//! The memory of the owner of a device, through the kernel's own mapping.
//!
//! A *window* is a piece of the owner's memory that the kernel reaches by an address of its own: no
//! access to it faults, hence none sleeps, and the current thread may be in any address space.
//!
//! # Ownership
//!
//! No page is held. A window is a note of where a page is, and the notes of a range are thrown away
//! when the kernel is about to change any mapping of the range: see [`Windows`]. What user space
//! does to its memory (`munmap`, `mremap`, `mprotect`, `MADV_*`, `fork`, userfaultfd), and what the
//! kernel does (swap, migration, KSM, huge pages), thus works as if there were no windows.
//!
//! # What has a window
//!
//! Memory that belongs to processes: anonymous memory, shared memory, huge pages. Pages of files
//! have none, nor have those of devices. It is mapped, and writable, in the owner's page tables at
//! the time when the window is made; that time comes after an ordinary access, which made it so. A
//! window is never made by a fault.
//!
//! Whoever finds no window (`None`) does the access by [`InOwnerMm`], or leaves it to the worker.
//!
//! # What may be done in a read section
//!
//! The windows are locked by a spinlock for as long as there is a [`Reading`]: nothing may sleep,
//! user memory may be accessed with faults switched off only, and no other section may be entered
//! by the same thread. Whoever changes a mapping waits for the end of the section: it is for a
//! packet, not for a batch of them. What the section showed to others (entries of a used ring) is
//! to be published before anything that sleeps.
//!
//! # Contents
//!
//! The owner, and its guest, may change all of this at any time: as for user memory, everything is
//! copied, by volatile accesses or functions of C, and no reference to it ever exists.

use crate::{
    bindings,
    lock::SpinLockHotGuard,
    owner_mm::{
        InOwnerMm,
        OwnerAddr,
        OwnerMm, //
    },
    peek::Peek,
};
use core::ops::RangeInclusive;
use kernel::{
    iov::IovIterSource,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::Atomic,
        LockClassKey, //
    },
};

#[path = "window/current.rs"]
mod current;
#[cfg(CONFIG_KUNIT = "y")]
#[path = "window/kunit.rs"]
mod kunit;
#[path = "window/list.rs"]
mod list;
#[path = "window/notifier.rs"]
mod notifier;
#[path = "window/pages.rs"]
mod pages;
#[path = "window/shared.rs"]
mod shared;
#[path = "window/table.rs"]
mod table;

use notifier::Interval;
use shared::{
    Shared,
    Table, //
};
use table::Window;

/// The windows of a queue.
///
/// There is a subscription to all changes of a range of the owner's addresses. When one is about to
/// be made, the kernel waits until the windows that are affected are gone, i.e. for the end of the
/// [`Reading`] of somebody else; no new window is made of them before the change is done.
///
/// # Context
///
/// Made and dropped where one may sleep, and not in a read section; the address space must not be
/// locked.
pub struct Windows {
    shared: Pin<KBox<Interval<Shared>>>,
    /// Whether the table has noted a page for [`fill`](Self::fill): a hint.
    wanted: Atomic<bool>,
}

impl Windows {
    /// Prepares for windows of the addresses `range` of `mm`. There is none yet.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a range that has nothing, `EINTR`, `ENOMEM`.
    pub fn new(
        mm: &OwnerMm,
        range: RangeInclusive<usize>,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> Result<Self> {
        let (start, last) = range.into_inner();
        // Whole pages.
        let range = start & !(PAGE_SIZE - 1)..=last | (PAGE_SIZE - 1);
        if start > last {
            return Err(EINVAL);
        }
        Ok(Self {
            shared: Interval::new(mm, range.clone(), Shared::new(range, name, key))?,
            wanted: Atomic::new(false),
        })
    }

    /// Begins a read section.
    ///
    /// Context: does not sleep, and nothing may until the result is dropped.
    #[inline]
    pub fn read(&self) -> Reading<'_> {
        Reading {
            table: self.shared.target.table.lock(),
            wanted: &self.wanted,
        }
    }

    /// Says whether there may be something to do for [`fill`](Self::fill).
    #[inline]
    pub fn is_wanting(&self) -> bool {
        self.wanted.peek()
    }

    /// Makes windows of what others looked for in vain, as far as that can have any.
    ///
    /// The pages should have been accessed before; they are not faulted in.
    ///
    /// Context: sleeps, while a change is under way.
    pub fn fill(&self, _mm: &InOwnerMm) {
        // What is noted from here on sets it again.
        self.wanted.poke(false);
        // SAFETY: The current task is valid; it alone changes the field.
        let mm = unsafe { (*bindings::get_current()).mm };
        if !core::ptr::eq(mm, self.shared.mm()) {
            return;
        }
        loop {
            let table = self.shared.target.table.lock();
            let missed = table.take_missed();
            let wanted = table.wants_slots();
            drop(table);
            let Some(at) = missed else {
                return;
            };
            if !wanted.is_none_or(|count| self.make_slots(count)) {
                return;
            }
            self.shared.fill_at(at);
        }
    }

    /// Gives the table its memory, or more of it; says whether it has any.
    #[cold]
    fn make_slots(&self, count: usize) -> bool {
        let slots = no_windows(count);
        let mut table = self.shared.target.table.lock();
        let Ok(slots) = slots else {
            return table.keep_slots();
        };
        let unused = table.set_slots(slots);
        drop(table);
        drop(unused);
        true
    }

    /// How many windows were made, and how many of these were thrown away because the memory
    /// changed.
    pub fn counts(&self) -> (u64, u64) {
        let table = self.shared.target.table.lock();
        (table.filled, table.dropped)
    }
}

/// Places for so many windows. (`from_elem()` has a way to a panic.)
fn no_windows(count: usize) -> Result<KVVec<Window>> {
    let mut slots = KVVec::with_capacity(count, GFP_KERNEL_ACCOUNT)?;
    for _ in 0..count {
        slots
            .push_within_capacity(Window::NONE)
            .map_err(|_| ENOMEM)?;
    }
    Ok(slots)
}

/// A read section: the windows that there are, and what they show.
///
/// See [the module](self) for what may be done while there is one. It belongs to the thread that
/// began it.
///
/// All accesses return `None` if any of the memory has no window; the page is noted, for
/// [`Windows::fill`]. Of several pages, some may have been accessed then.
pub struct Reading<'a> {
    table: SpinLockHotGuard<'a, Table>,
    wanted: &'a Atomic<bool>,
}

impl Reading<'_> {
    /// Where the byte at `at` is, and how many there are from it on. Valid as long as this section.
    #[inline]
    fn find(&self, at: usize) -> Option<(*mut u8, usize)> {
        let found = self.table.find(at);
        if found.is_none() {
            self.miss(at);
        }
        // The kernel's mapping of all memory, which nobody has a reference to.
        found.map(|(kernel, room)| (core::ptr::with_exposed_provenance_mut(kernel), room))
    }

    #[cold]
    fn miss(&self, at: usize) {
        self.table.miss(at);
        self.wanted.poke(true);
    }

    /// As [`find`](Self::find), for a field of `len` bytes that is aligned to them.
    #[inline]
    fn field(&self, at: OwnerAddr, len: usize) -> Option<*mut u8> {
        // An aligned field of a size that is a power of two lies in one page.
        if at.get() % len != 0 {
            return None;
        }
        self.find(at.get()).map(|(field, _)| field)
    }

    /// Calls `f` with the pieces that `len` bytes from `at` on consist of: where the kernel has
    /// each, how many bytes were before it, and how many it has.
    #[inline]
    fn pieces(
        &self,
        at: OwnerAddr,
        len: usize,
        mut f: impl FnMut(*mut u8, usize, usize) -> Option<()>,
    ) -> Option<()> {
        if len == 0 {
            return Some(());
        }
        let mut done = 0_usize;
        loop {
            let (piece, room) = self.find(at.get().checked_add(done)?)?;
            let part = room.min(len.wrapping_sub(done));
            f(piece, done, part)?;
            done = done.wrapping_add(part);
            if done == len {
                return Some(());
            }
        }
    }

    /// Says whether all of `len` bytes have windows; if so, nothing fails in this section that
    /// accesses them.
    #[inline]
    pub fn covers(&self, at: OwnerAddr, len: usize) -> bool {
        self.pieces(at, len, |_, _, _| Some(())).is_some()
    }

    /// Reads an aligned `u16` with a single access.
    #[inline]
    pub fn get_u16(&self, at: OwnerAddr) -> Option<u16> {
        let field = self.field(at, size_of::<u16>())?;
        // SAFETY: The window has two bytes there, aligned; it is valid during this section. All
        // accesses are volatile or of C.
        Some(unsafe { field.cast::<u16>().read_volatile() })
    }

    /// Writes an aligned `u16` with a single access.
    #[inline]
    pub fn put_u16(&self, at: OwnerAddr, value: u16) -> Option<()> {
        let field = self.field(at, size_of::<u16>())?;
        // SAFETY: As in `get_u16()`.
        unsafe { field.cast::<u16>().write_volatile(value) };
        Some(())
    }

    /// Writes two aligned `u32` that lie one after the other, with an access for each.
    #[inline]
    pub fn put_pair(&self, at: OwnerAddr, [low, high]: [u32; 2]) -> Option<()> {
        for (at, value) in [(at, low), (at.checked_add(4)?, high)] {
            let field = self.field(at, size_of::<u32>())?;
            // SAFETY: As in `get_u16()`, with four bytes.
            unsafe { field.cast::<u32>().write_volatile(value) };
        }
        Some(())
    }

    /// Copies bytes out of the owner's memory.
    #[inline]
    pub fn read(&self, at: OwnerAddr, out: &mut [u8]) -> Option<()> {
        // SAFETY: `out` is valid for writes of its length.
        unsafe { self.read_raw(at, out.as_mut_ptr(), out.len()) }
    }

    /// # Safety
    ///
    /// `to` is valid for writes of `len` bytes.
    #[inline]
    pub(crate) unsafe fn read_raw(&self, at: OwnerAddr, to: *mut u8, len: usize) -> Option<()> {
        self.pieces(at, len, |from, done, len| {
            // SAFETY: The pieces are at most `len` bytes together.
            let to = unsafe { to.add(done) };
            // SAFETY: As above; the window is valid for `len` bytes during this section.
            unsafe { bindings::window_copy(to.cast(), from.cast(), len) };
            Some(())
        })
    }

    /// Copies bytes into the owner's memory.
    #[inline]
    pub fn write(&self, at: OwnerAddr, data: &[u8]) -> Option<()> {
        self.pieces(at, data.len(), |to, done, len| {
            let from = data.get(done..)?.get(..len)?.as_ptr();
            // SAFETY: `from` is valid for reads of `len` bytes, the window for writes during this
            // section.
            unsafe { bindings::window_copy(to.cast(), from.cast(), len) };
            Some(())
        })
    }

    /// Copies up to `len` bytes from `source` into the owner's memory, and says how many that were:
    /// fewer if the source ends, or has memory of a user that is not there at this moment. It was
    /// advanced by so many bytes.
    ///
    /// No fault is taken, so this does not sleep: call
    /// `fault_in_iov_iter_readable` before the section.
    #[inline]
    pub fn write_from_iter(
        &self,
        at: OwnerAddr,
        len: usize,
        source: &mut IovIterSource<'_>,
    ) -> Option<usize> {
        let mut copied = 0_usize;
        self.pieces(at, len, |to, _, len| {
            // SAFETY: The window is valid for writes of `len` bytes during this section; the source
            // is valid by its own invariants.
            let got = unsafe { bindings::copy_from_iter_nofault(to.cast(), len, source.as_raw()) };
            copied = copied.saturating_add(got);
            (got == len).then_some(())
        })
        .or_else(|| (copied != 0).then_some(()))?;
        Some(copied)
    }
}
