// SPDX-License-Identifier: GPL-2.0

//! Where the kernel has the pages of the current process.

use super::table;
use crate::bindings;
use kernel::prelude::*;

/// Where the kernel has `count` pages of the current process, from `at` on; 0 for one that is not
/// there at this moment, or behind such a one, and for one that there may be no window of.
///
/// Context: does not sleep.
pub(super) fn addresses(at: usize, count: usize) -> [usize; table::PAGES] {
    let mut pages = [core::ptr::null_mut(); table::PAGES];
    let count = count.min(table::PAGES);
    // SAFETY: There is room for so many addresses.
    let got = unsafe { bindings::current_pages(at, count as c_uint, pages.as_mut_ptr()) };
    let mut addresses = [0; table::PAGES];
    // Null is 0.
    for (address, page) in addresses.iter_mut().zip(&pages).take(got as usize) {
        *address = page.expose_provenance();
    }
    addresses
}
