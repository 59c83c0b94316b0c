// SPDX-License-Identifier: GPL-2.0

//! Changes of an address space, after `mm/mmu_notifier.c`, and one of its page tables.

use core::ops::RangeInclusive;
use kernel::page::PAGE_SIZE as PAGE;
use kernel::prelude::PinInit;
use loom::sync::{
    Condvar,
    Mutex,
    MutexGuard, //
};
use std::sync::Arc;

/// What is called before a change.
pub trait Invalidate {
    /// See the real one.
    fn invalidate(&self, range: RangeInclusive<usize>, set: impl FnOnce());
}

/// How many pages there are.
const PAGES: usize = 20;

struct State {
    /// Odd while changes are under way.
    seq: usize,
    /// Changes under way.
    changes: usize,
    /// The page that is mapped at each address, or 0.
    mapped: [usize; PAGES],
    /// How many pages were there, the first of which is page 32.
    count: usize,
}

/// An address space.
pub struct Mm {
    state: Mutex<State>,
    quiet: Condvar,
}

impl Mm {
    /// One in which the first pages lie one after the other, if `in_order`, or apart.
    pub fn new(in_order: bool) -> Arc<Self> {
        let mut mapped = [0; PAGES];
        for (n, page) in mapped.iter_mut().enumerate() {
            *page = 32 + if in_order { n } else { 2 * n };
        }
        Arc::new(Self {
            state: Mutex::new(State {
                seq: 0,
                changes: 0,
                mapped,
                count: 2 * PAGES,
            }),
            quiet: Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Where the kernel has the page at `at`: what page tables say at some moment.
    pub fn look_up(&self, at: usize) -> usize {
        self.state().mapped[at / PAGE] * PAGE
    }

    /// Says whether the page that the kernel has at `kernel` is still the one at `at`.
    pub fn is_mapped(&self, at: usize, kernel: usize) -> bool {
        kernel != 0 && self.look_up(at) == kernel
    }

    /// Maps another page at `at`, which nobody had before.
    pub fn change<T: Invalidate>(&self, at: usize, interval: &Interval<T>) {
        let seq = {
            let mut state = self.state();
            state.changes += 1;
            state.seq |= 1;
            state.seq
        };
        interval.target.invalidate(at..=at + (PAGE - 1), || {
            *interval.seq.lock().unwrap() = seq;
        });
        let mut state = self.state();
        state.count += 1;
        state.mapped[at / PAGE] = 32 + state.count;
        drop(state);
        let mut state = self.state();
        state.changes -= 1;
        if state.changes == 0 {
            state.seq += 1;
            self.quiet.notify_all();
        }
    }
}

/// A subscription.
pub struct Interval<T: Invalidate> {
    pub mm: Arc<Mm>,
    /// Written in [`Invalidate::invalidate`] only, as far as this is right.
    seq: Mutex<usize>,
    pub target: T,
}

/// How far the changes were.
pub struct Seen(usize);

impl<T: Invalidate> Interval<T> {
    pub fn new(mm: Arc<Mm>, target: impl PinInit<T>) -> Self {
        Self {
            mm,
            // As of a change that is over.
            seq: Mutex::new(usize::MAX),
            target: target.made(),
        }
    }

    /// `mmu_interval_read_begin()`
    pub fn begin(&self) -> Seen {
        let mut state = self.mm.state();
        let seq = *self.seq.lock().unwrap();
        while state.changes != 0 && state.seq == seq {
            state = self.mm.quiet.wait(state).unwrap();
        }
        Seen(seq)
    }

    /// `mmu_interval_read_retry()`
    pub fn is_current(&self, seen: &Seen) -> bool {
        *self.seq.lock().unwrap() == seen.0
    }
}
