// SPDX-License-Identifier: GPL-2.0

//! The table of windows, and what changes it.

use super::{
    notifier::{
        Interval,
        Invalidate, //
    },
    pages::Pages,
    table::{
        self,
        Window, //
    }, //
};
use crate::lock::SpinLockHot;
use core::ops::RangeInclusive;
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::LockClassKey, //
};

/// How often a window is made again that was invalid before it was there.
const TRIES: u32 = 3;

pub(super) type Table = table::Table<KVVec<Window>, PAGE_SIZE>;

/// What the notifier calls: the table, with the lock of its own.
#[pin_data]
pub(super) struct Shared {
    #[pin]
    pub(super) table: SpinLockHot<Table>,
    /// The only pages that there may be windows of: changes of others are not told.
    range: RangeInclusive<usize>,
}

impl Shared {
    /// A table of windows in `range`, whole pages, without any.
    pub(super) fn new(
        range: RangeInclusive<usize>,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            table <- SpinLockHot::new(Table::new(), name, key),
            range,
        })
    }
}

impl Invalidate for Shared {
    fn invalidate(&self, range: RangeInclusive<usize>, set: impl FnOnce()) {
        let mut table = self.table.lock();
        set();
        table.remove(*range.start(), *range.end());
    }
}

impl Interval<Shared> {
    /// Makes a window of the page at `at`: a large one, if it can be part of one, else small ones
    /// of the pages around it, too, as far as these are there.
    ///
    /// Context: sleeps, while a change is under way; the current task runs in the address space.
    pub(super) fn fill_at(&self, at: usize) {
        let shared = &self.target;
        if !shared.range.contains(&at) {
            return;
        }
        let large = at & !(Table::LARGE_LEN - 1);
        let large_last = large | (Table::LARGE_LEN - 1);
        let large_ok = shared.range.contains(&large) && shared.range.contains(&large_last);
        for _ in 0..TRIES {
            let seen = self.begin();
            let mut pages = if large_ok {
                Pages::of_current(large, table::PAGES)
            } else {
                Pages::NONE
            };
            if pages.address_of(at).is_none() {
                pages = Pages::of_current(at, 1);
            }
            let mut table = shared.table.lock();
            if self.is_current(&seen) {
                match pages.contiguous() {
                    Some(kernel) => table.install(large, kernel, true),
                    None => pages
                        .each()
                        .for_each(|(at, kernel)| table.install(at, kernel, false)),
                }
                return;
            }
        }
    }
}
