// SPDX-License-Identifier: GPL-2.0

//! Where the kernel has pages of the current process, which is the model's.

use super::{
    notifier::Mm,
    table, //
};
use kernel::page::PAGE_SIZE as PAGE;
use std::{
    cell::RefCell,
    sync::Arc, //
};

thread_local! {
    static CURRENT: RefCell<Option<Arc<Mm>>> = const { RefCell::new(None) };
}

/// Lets the current thread be of an address space.
///
/// Threads of Loom are no threads of their own: this is for the time of `f`, in which the thread
/// may be exchanged for another one of the same address space.
pub fn in_mm<R>(mm: &Arc<Mm>, f: impl FnOnce() -> R) -> R {
    CURRENT.with(|current| *current.borrow_mut() = Some(mm.clone()));
    f()
}

pub(super) fn addresses(at: usize, count: usize) -> [usize; table::PAGES] {
    let mut addresses = [0; table::PAGES];
    if let Some(mm) = CURRENT.with(|current| current.borrow().clone()) {
        for (n, address) in addresses.iter_mut().take(count).enumerate() {
            *address = mm.look_up(at + n * PAGE);
        }
    }
    addresses
}
