// SPDX-License-Identifier: GPL-2.0

//! Messages that somebody else could cause without end.

use crate::bindings;
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// Lets a few messages through in each interval of time, as `printk_ratelimited()` of C does.
///
/// It is meant to be a `static`. Two that ask at the moment in which an interval begins may get
/// some more than allowed; there is no lock.
pub struct RateLimit {
    /// When the interval began, in nanoseconds since the machine was started.
    begin: Atomic<i64>,
    /// How often the question was asked in it.
    asked: Atomic<u32>,
}

impl RateLimit {
    /// As for C.
    const INTERVAL: i64 = 5_000_000_000;
    const BURST: u32 = 10;

    /// Creates a limit of ten messages in five seconds.
    pub const fn new() -> Self {
        Self {
            begin: Atomic::new(i64::MIN),
            asked: Atomic::new(0),
        }
    }

    /// Says whether there may be a message now.
    ///
    /// Context: any.
    pub fn allows(&self) -> bool {
        // SAFETY: The function has no preconditions.
        let now = unsafe { bindings::ktime_get() };
        // Saturating: the first interval began before there was time.
        if now.saturating_sub(self.begin.load(Relaxed)) >= Self::INTERVAL {
            self.begin.store(now, Relaxed);
            self.asked.store(0, Relaxed);
        }
        // It does not wrap within an interval.
        self.asked.fetch_add(1, Relaxed) < Self::BURST
    }
}

impl Default for RateLimit {
    fn default() -> Self {
        Self::new()
    }
}
