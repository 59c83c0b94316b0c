// SPDX-License-Identifier: GPL-2.0

//! Some pages of a process, and where the kernel has them.

use super::{
    current,
    table, //
};
use kernel::page::PAGE_SIZE;

/// Where the kernel has some pages that lie one after the other for the current process.
pub(super) struct Pages {
    /// Where they begin for the process.
    at: usize,
    /// Where each is for the kernel; 0 for one that it has not, or does not want.
    kernel: [usize; table::PAGES],
}

impl Pages {
    /// No pages.
    pub(super) const NONE: Self = Self {
        at: 0,
        kernel: [0; table::PAGES],
    };

    /// `count` pages from `at` on, as far as they are there at this moment.
    pub(super) fn of_current(at: usize, count: usize) -> Self {
        Self {
            at,
            kernel: current::addresses(at, count),
        }
    }

    /// Where they are for the process, and for the kernel.
    pub(super) fn each(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let pages = self.kernel.iter().enumerate();
        // OVERFLOW: There are few pages, within the address space.
        pages
            .map(|(page, kernel)| (self.at.wrapping_add(page.wrapping_mul(PAGE_SIZE)), *kernel))
            .filter(|(_, kernel)| *kernel != 0)
    }

    /// Where the kernel has the page at `at`.
    pub(super) fn address_of(&self, at: usize) -> Option<usize> {
        let (_, kernel) = self.each().find(|(page, _)| *page == at)?;
        Some(kernel)
    }

    /// Where the kernel has those of a large window, if it has all of them, one after the other.
    pub(super) fn contiguous(&self) -> Option<usize> {
        let (first, rest) = self.kernel.split_first()?;
        let follows = rest
            .iter()
            .try_fold(*first, |before, next| {
                (*next == before.wrapping_add(PAGE_SIZE)).then_some(*next)
            })
            .is_some();
        (*first != 0 && follows).then_some(*first)
    }
}
