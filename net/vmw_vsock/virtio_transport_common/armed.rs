// SPDX-License-Identifier: GPL-2.0

//! Whether a work that looks for those who wait runs: who begins to wait starts it only if not.

use kernel::sync::{
    atomic::{
        Atomic,
        Relaxed, //
    },
    barrier::{
        smp_mb,
        Full, //
    },
};
use kernel_ext::peek::Peek;

/// Whether the work runs, or is going to: then it sees who begins to wait.
///
/// The work says after each look whether it saw somebody ([`looked`](Self::looked)). If not, it is
/// unarmed, looks once more, and ends if there still is nobody. Whoever waits first says so where
/// the work looks, then calls [`set`](Self::set). There is a full barrier on both sides, between
/// what each says and what it looks at, so one of them sees the other: who finds the work armed
/// waits before its last look.
///
/// A work that is queued while it runs, runs again. It is armed twice at worst.
pub(crate) struct Armed(Atomic<bool>);

impl Armed {
    pub(crate) fn new() -> Self {
        Self(Atomic::new(false))
    }

    /// Somebody waits; says whether the work is to be queued.
    ///
    /// Context: any.
    #[inline]
    pub(crate) fn set(&self) -> bool {
        smp_mb(Full);
        if self.0.peek() {
            return false;
        }
        self.0.store(true, Relaxed);
        true
    }

    /// The work looked; `busy` says whether it saw somebody who waits, `idle` whether it saw nobody
    /// at the look before. Returns whether it is to look again; otherwise it ends.
    pub(crate) fn looked(&self, busy: bool, idle: &mut bool) -> bool {
        if !busy && *idle {
            return false;
        }
        *idle = !busy;
        self.0.store(busy, Relaxed);
        smp_mb(Full);
        true
    }
}
