// SPDX-License-Identifier: GPL-2.0

//! The time, without the checks of `kernel::time` that carry a panic.

use crate::bindings;

/// Nanoseconds of `CLOCK_MONOTONIC`.
///
/// Context: any, as long as timekeeping is not suspended.
#[doc(alias = "ktime_get")]
#[inline]
pub fn monotonic_nanos() -> i64 {
    // SAFETY: No preconditions.
    unsafe { bindings::ktime_get() }
}

/// Nanoseconds of a clock of this CPU, to measure something short: that of another CPU may be
/// different.
///
/// Context: any.
#[doc(alias = "local_clock")]
#[inline]
pub fn local_nanos() -> u64 {
    // SAFETY: No preconditions.
    unsafe { bindings::local_nanos() }
}
