// SPDX-License-Identifier: GPL-2.0

//! Where the kernel has pages.

use super::table;
use crate::bindings;
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

/// Where the kernel has `count` pages of the current process, if it has all of them, one after the
/// other.
pub(super) fn kernel_address(at: usize, count: usize) -> Option<usize> {
    let mut addresses = [core::ptr::null_mut(); table::PAGES];
    let count = count.min(table::PAGES);
    // SAFETY: There is room for so many addresses.
    let got = unsafe { bindings::current_pages(at, count as c_uint, addresses.as_mut_ptr()) };
    if got as usize != count {
        return None;
    }
    let first = addresses.first()?.expose_provenance();
    let mut expected = first;
    for address in addresses.iter().take(count) {
        if address.is_null() || address.addr() != expected {
            return None;
        }
        expected = expected.wrapping_add(PAGE_SIZE);
    }
    Some(first)
}
