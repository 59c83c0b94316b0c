// SPDX-License-Identifier: GPL-2.0

//! When a work is done inline, by a thread of the owner that has kicked, and what became of it: see
//! [`kick_work`](crate::kick_work).

use kernel::sync::atomic::Atomic;
use kernel_ext::{
    clock,
    peek::Peek, //
};

/// Why an inline run left something to the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Somebody else works on the queue.
    Busy,
    /// The queue does not run, has no ring yet, or is one that only the worker serves.
    Unready,
    /// Memory of the owner is not there at the moment, or never was.
    Fault,
    /// There is no memory that is free.
    NoMemory,
    /// The queue broke.
    Broken,
}

/// How an inline run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inlined {
    /// There is nothing left to do.
    Drained,
    /// As [`Drained`](Self::Drained), and the guest has got nothing since the run before: it kicks
    /// for what it has to say, and does not wait for an answer.
    Unanswered,
    /// As [`Drained`](Self::Drained), and what took the time was to copy: next to that, nothing is
    /// saved if no worker has to be woken up.
    Bulk,
    /// The budget is spent.
    Budget,
    /// See [`Left`].
    Left(Left),
}

impl Inlined {
    /// Says whether nothing is left for the worker.
    #[inline]
    pub(crate) fn is_done(self) -> bool {
        matches!(self, Self::Drained | Self::Unanswered | Self::Bulk)
    }
}

/// From how many points on a queue is left to the worker.
const MANY: u32 = 16;
/// What a run counts that leaves something to the worker; one for which the worker might have been
/// better; and what one takes off that was good. Who asks, and has an answer, may say two things at
/// a time.
const LEAVES: u32 = 4;
const MIGHT: u32 = 1;
const GOOD: u32 = 2;
/// What is left after that: a few runs show whether it is over.
const AFTER: u32 = 14;
/// For how long, in nanoseconds.
const PAUSE: u64 = 10_000_000;
/// How soon after a run, in nanoseconds, the worker would have been there for another kick.
const SOON: u64 = 50_000;

/// Whether a queue is served inline.
///
/// It is if the guest has one thing to say, and then waits: it waits the less. If it has many, one
/// after the other, the worker is better: it takes what comes meanwhile without another kick, and
/// in one go, and the guest goes on meanwhile. That shows in runs that end by their budget or copy
/// much, and in kicks that follow each other closely though the guest has got nothing that it could
/// have waited for.
pub(crate) struct Pace {
    points: Atomic<u32>,
    /// Until when it is left to the worker, by the clock of any CPU; 0 if it is not.
    until: Atomic<u64>,
    /// When the last run ended.
    last: Atomic<u64>,
}

impl Pace {
    pub(crate) const fn new() -> Self {
        Self {
            points: Atomic::new(0),
            until: Atomic::new(0),
            last: Atomic::new(0),
        }
    }

    /// Says whether a kick is to be served inline.
    #[inline]
    pub(crate) fn is_inline(&self) -> bool {
        let until = self.until.peek();
        until == 0 || self.is_over(until)
    }

    #[cold]
    fn is_over(&self, until: u64) -> bool {
        // Clocks of two CPUs may be apart; a difference that makes no sense is no reason to wait.
        let is_over = until.wrapping_sub(clock::local_nanos()) > PAUSE.wrapping_mul(2);
        if is_over {
            self.until.poke(0);
        }
        is_over
    }

    /// A run ended that took from `begin` to `end`. Another one may end at the same time, and be
    /// forgotten.
    #[inline]
    pub(crate) fn note(&self, ended: Inlined, begin: u64, end: u64) {
        let is_soon = begin.wrapping_sub(self.last.peek()) < SOON;
        self.last.poke(end);
        let old = self.points.peek();
        let count = match ended {
            Inlined::Unanswered if is_soon => MIGHT,
            Inlined::Bulk => MIGHT,
            Inlined::Drained | Inlined::Unanswered => {
                if old != 0 {
                    self.points.poke(old.saturating_sub(GOOD));
                }
                return;
            }
            Inlined::Budget | Inlined::Left(_) => LEAVES,
        };
        let new = old.saturating_add(count);
        if new < MANY {
            self.points.poke(new);
        } else {
            self.until.poke(end.wrapping_add(PAUSE).max(1));
            self.points.poke(AFTER);
        }
    }
}

/// A number for people. Two that add to it at the same time may count as one.
pub(crate) struct Count(Atomic<u32>);

impl Count {
    const fn new() -> Self {
        Self(Atomic::new(0))
    }

    #[inline]
    pub(crate) fn add(&self) {
        self.0.poke(self.0.peek().wrapping_add(1));
    }

    pub(crate) fn get(&self) -> u32 {
        self.0.peek()
    }
}

/// Ends of the classes of [`Counts::took`], in nanoseconds; the last one has no end.
pub(crate) const CLASSES: [u64; 4] = [10_000, 50_000, 100_000, u64::MAX];

/// What became of kicks.
pub(crate) struct Counts {
    /// Inline runs that found nothing left, or something.
    pub(crate) drained: Count,
    pub(crate) spent: Count,
    /// What was left to the worker by a run, by [`Left`].
    pub(crate) left: [Count; 5],
    /// Kicks that were for the worker, as the current thread could not do the work, or another one
    /// had it.
    pub(crate) passed: Count,
    /// How long inline runs took, by [`CLASSES`].
    pub(crate) took: [Count; CLASSES.len()],
}

impl Counts {
    pub(crate) const fn new() -> Self {
        Self {
            drained: Count::new(),
            spent: Count::new(),
            left: [const { Count::new() }; 5],
            passed: Count::new(),
            took: [const { Count::new() }; CLASSES.len()],
        }
    }

    #[inline]
    pub(crate) fn note(&self, ended: Inlined, nanos: u64) {
        let count = match ended {
            Inlined::Drained | Inlined::Unanswered | Inlined::Bulk => Some(&self.drained),
            Inlined::Budget => Some(&self.spent),
            Inlined::Left(left) => self.left.get(left as usize),
        };
        if let Some(count) = count {
            count.add();
        }
        let class = CLASSES.iter().position(|end| nanos < *end);
        if let Some(count) = class.and_then(|class| self.took.get(class)) {
            count.add();
        }
    }
}
