// SPDX-License-Identifier: GPL-2.0

//! The time, without the checks of `kernel::time` that carry a panic, and without its calls.

use crate::bindings;

/// The lower bits of the tick counter: a time stamp for what is hot, good for [`ticks_since`].
///
/// Context: any.
#[doc(alias = "jiffies")]
#[inline]
pub fn ticks() -> u32 {
    // CAST: To the lower bits.
    //
    // SAFETY: The counter is a word that the kernel writes at any time, to be read as `READ_ONCE()`
    // does.
    unsafe { (&raw const bindings::jiffies).read_volatile() as u32 }
}

/// Milliseconds since [`ticks`] was `then`, unless that is longer ago than the counter goes: 49
/// days with 1000 ticks in a second.
pub fn ticks_since(then: u32) -> u64 {
    u64::from(ticks().wrapping_sub(then)).saturating_mul(1000) / u64::from(bindings::HZ)
}

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
