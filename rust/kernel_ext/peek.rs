// SPDX-License-Identifier: GPL-2.0

//! Relaxed loads and stores that are one instruction.
//!
//! # Examples
//!
//! ```
//! use kernel::sync::atomic::Atomic;
//! use kernel_ext::peek::Peek;
//!
//! let running = Atomic::new(true);
//! running.poke(false);
//! assert!(!running.peek());
//! ```

use kernel::sync::atomic::{
    Atomic,
    AtomicType, //
};

/// A load and a store that order nothing: what `READ_ONCE()` and `WRITE_ONCE()` are in C.
///
/// The same as `load(Relaxed)` and `store(Relaxed)`, which are calls into the kernel where its
/// helpers are not inlined. A store may be lost to a read-modify-write of another CPU, as with
/// `store()`.
///
/// Context: any.
pub trait Peek {
    /// What is loaded.
    type Value;

    /// Loads the value as it is at this moment.
    fn peek(&self) -> Self::Value;

    /// Stores a value.
    fn poke(&self, value: Self::Value);
}

impl<T: AtomicType> Peek for Atomic<T> {
    type Value = T;

    #[inline(always)]
    fn peek(&self) -> T {
        const { assert!(size_of::<T>() <= size_of::<usize>()) };
        // SAFETY: The pointer is valid and aligned for as long as `self` is. All access to it is
        // atomic, and so is this: a volatile load of a word, or less, as in `READ_ONCE()`.
        unsafe { self.as_ptr().read_volatile() }
    }

    #[inline(always)]
    fn poke(&self, value: T) {
        const { assert!(size_of::<T>() <= size_of::<usize>()) };
        // SAFETY: As above, for a store.
        unsafe { self.as_ptr().write_volatile(value) }
    }
}
