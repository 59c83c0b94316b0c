// SPDX-License-Identifier: GPL-2.0

//! Spinlocks: one that disables bottom halves, and one that does not.
//!
//! C header: [`include/linux/spinlock.h`](srctree/include/linux/spinlock.h).

use crate::bindings;
use kernel::{
    prelude::*,
    sync::lock::{
        Backend,
        Guard,
        Lock, //
    },
};

/// A `spinlock_t` lock backend that uses the `_bh` functions.
pub struct SpinLockBhBackend;

/// A spinlock that is also taken in softirq context.
pub type SpinLockBh<T> = Lock<T, SpinLockBhBackend>;

/// Evidence that a [`SpinLockBh`] is held.
pub type SpinLockBhGuard<'a, T> = Guard<'a, T, SpinLockBhBackend>;

/// A `spinlock_t` lock backend, as the kernel crate has one; but that calls a helper which calls
/// the function, and another one to assert what only lockdep knows.
pub struct SpinLockHotBackend;

/// A spinlock that is taken for each packet.
pub type SpinLockHot<T> = Lock<T, SpinLockHotBackend>;

/// Evidence that a [`SpinLockHot`] is held.
pub type SpinLockHotGuard<'a, T> = Guard<'a, T, SpinLockHotBackend>;

/// Implements [`Backend`] by functions of C for a `spinlock_t`. Where the condition holds, what C
/// has as an inline function is a call of the one behind the `=>`, which takes a `raw_spinlock_t`:
/// a `spinlock_t` begins with it.
macro_rules! impl_spinlock_backend {
    (
        $backend:ident,
        lock: $lock:ident, if $is_lock_call:meta => $raw_lock:ident,
        try_lock: $try_lock:ident,
        unlock: $unlock:ident, if $is_unlock_call:meta => $raw_unlock:ident $(,)?
    ) => {
        // SAFETY: The `spinlock_t` ensures mutual exclusion; `relock` uses the default
        // implementation.
        unsafe impl Backend for $backend {
            type State = bindings::spinlock_t;
            type GuardState = ();

            unsafe fn init(
                ptr: *mut Self::State,
                name: *const c_char,
                key: *mut bindings::lock_class_key,
            ) {
                // SAFETY: By the safety requirements, `ptr` is valid for writes, `name` and `key`
                // for reads.
                unsafe { bindings::__spin_lock_init(ptr, name, key) }
            }

            #[inline]
            unsafe fn lock(ptr: *mut Self::State) -> Self::GuardState {
                #[cfg($is_lock_call)]
                // SAFETY: By the safety requirements, `ptr` is initialized.
                unsafe {
                    bindings::$raw_lock(ptr.cast())
                }
                #[cfg(not($is_lock_call))]
                // SAFETY: By the safety requirements, `ptr` is initialized.
                unsafe {
                    bindings::$lock(ptr)
                }
            }

            #[inline]
            unsafe fn try_lock(ptr: *mut Self::State) -> Option<Self::GuardState> {
                // SAFETY: By the safety requirements, `ptr` is initialized.
                (unsafe { bindings::$try_lock(ptr) } != 0).then_some(())
            }

            #[inline]
            unsafe fn unlock(ptr: *mut Self::State, _guard_state: &Self::GuardState) {
                #[cfg($is_unlock_call)]
                // SAFETY: By the safety requirements, the caller owns the lock.
                unsafe {
                    bindings::$raw_unlock(ptr.cast())
                }
                #[cfg(not($is_unlock_call))]
                // SAFETY: By the safety requirements, the caller owns the lock.
                unsafe {
                    bindings::$unlock(ptr)
                }
            }

            #[inline]
            unsafe fn assert_is_held(ptr: *mut Self::State) {
                // The C macro is empty without lockdep, but the helper around it is a call for each
                // lock.
                #[cfg(CONFIG_LOCKDEP)]
                // SAFETY: By the safety requirements, `ptr` is initialized.
                unsafe {
                    bindings::spin_assert_is_held(ptr)
                }
                #[cfg(not(CONFIG_LOCKDEP))]
                let _ = ptr;
            }
        }
    };
}

impl_spinlock_backend! {
    SpinLockBhBackend,
    lock: spin_lock_bh,
        if all(CONFIG_SMP, not(CONFIG_PREEMPT_RT), not(CONFIG_INLINE_SPIN_LOCK_BH))
        => _raw_spin_lock_bh,
    try_lock: spin_trylock_bh,
    unlock: spin_unlock_bh,
        if all(CONFIG_SMP, not(CONFIG_PREEMPT_RT), not(CONFIG_INLINE_SPIN_UNLOCK_BH))
        => _raw_spin_unlock_bh,
}

impl_spinlock_backend! {
    SpinLockHotBackend,
    lock: spin_lock,
        if all(CONFIG_SMP, not(CONFIG_PREEMPT_RT), not(CONFIG_INLINE_SPIN_LOCK))
        => _raw_spin_lock,
    try_lock: spin_trylock,
    unlock: spin_unlock,
        if all(CONFIG_SMP, not(CONFIG_PREEMPT_RT), CONFIG_UNINLINE_SPIN_UNLOCK)
        => _raw_spin_unlock,
}

/// Creates a [`SpinLockBh`] initialiser with a newly-created lock class.
///
/// The name is a `static` like the class: in a function that other modules instantiate, a literal
/// would have an address in each of them, and lockdep takes the address for the name.
#[macro_export]
macro_rules! new_spinlock_bh {
    ($inner:expr, $name:literal) => {{
        static NAME: &::kernel::str::CStr = ::kernel::optional_name!($name);
        $crate::lock::SpinLockBh::new($inner, NAME, ::kernel::static_lock_class!())
    }};
}

/// As [`new_spinlock_bh!`](crate::new_spinlock_bh), of a [`SpinLockHot`].
#[macro_export]
macro_rules! new_spinlock_hot {
    ($inner:expr, $name:literal) => {{
        static NAME: &::kernel::str::CStr = ::kernel::optional_name!($name);
        $crate::lock::SpinLockHot::new($inner, NAME, ::kernel::static_lock_class!())
    }};
}
