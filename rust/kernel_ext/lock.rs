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

// SAFETY: The `spinlock_t` ensures mutual exclusion; `relock` uses the default implementation.
unsafe impl Backend for SpinLockBhBackend {
    type State = bindings::spinlock_t;
    type GuardState = ();

    unsafe fn init(ptr: *mut Self::State, name: *const c_char, key: *mut bindings::lock_class_key) {
        // SAFETY: By the safety requirements, `ptr` is valid for writes, `name` and `key` for
        // reads.
        unsafe { bindings::__spin_lock_init(ptr, name, key) }
    }

    #[inline]
    unsafe fn lock(ptr: *mut Self::State) -> Self::GuardState {
        // What `spin_lock_bh()` is: a `spinlock_t` begins with its `raw_spinlock_t`.
        #[cfg(all(CONFIG_SMP, not(CONFIG_PREEMPT_RT), not(CONFIG_INLINE_SPIN_LOCK_BH)))]
        // SAFETY: By the safety requirements, `ptr` is initialized.
        unsafe {
            bindings::_raw_spin_lock_bh(ptr.cast())
        }
        #[cfg(not(all(CONFIG_SMP, not(CONFIG_PREEMPT_RT), not(CONFIG_INLINE_SPIN_LOCK_BH))))]
        // SAFETY: By the safety requirements, `ptr` is initialized.
        unsafe {
            bindings::spin_lock_bh(ptr)
        }
    }

    #[inline]
    unsafe fn try_lock(ptr: *mut Self::State) -> Option<Self::GuardState> {
        // SAFETY: By the safety requirements, `ptr` is initialized.
        (unsafe { bindings::spin_trylock_bh(ptr) } != 0).then_some(())
    }

    #[inline]
    unsafe fn unlock(ptr: *mut Self::State, _guard_state: &Self::GuardState) {
        // As in `lock()`.
        #[cfg(all(CONFIG_SMP, not(CONFIG_PREEMPT_RT), not(CONFIG_INLINE_SPIN_UNLOCK_BH)))]
        // SAFETY: By the safety requirements, the caller owns the lock.
        unsafe {
            bindings::_raw_spin_unlock_bh(ptr.cast())
        }
        #[cfg(not(all(CONFIG_SMP, not(CONFIG_PREEMPT_RT), not(CONFIG_INLINE_SPIN_UNLOCK_BH))))]
        // SAFETY: By the safety requirements, the caller owns the lock.
        unsafe {
            bindings::spin_unlock_bh(ptr)
        }
    }

    #[inline]
    unsafe fn assert_is_held(ptr: *mut Self::State) {
        // The C macro is empty without lockdep, but the helper around it is a call for each lock.
        #[cfg(CONFIG_LOCKDEP)]
        // SAFETY: By the safety requirements, `ptr` is initialized.
        unsafe {
            bindings::spin_assert_is_held(ptr)
        }
        #[cfg(not(CONFIG_LOCKDEP))]
        let _ = ptr;
    }
}

/// A `spinlock_t` lock backend, as the kernel crate has one; but that calls a helper which calls
/// the function, and another one to assert what only lockdep knows.
pub struct SpinLockHotBackend;

/// A spinlock that is taken for each packet.
pub type SpinLockHot<T> = Lock<T, SpinLockHotBackend>;

/// Evidence that a [`SpinLockHot`] is held.
pub type SpinLockHotGuard<'a, T> = Guard<'a, T, SpinLockHotBackend>;

// SAFETY: The `spinlock_t` ensures mutual exclusion; `relock` uses the default implementation.
unsafe impl Backend for SpinLockHotBackend {
    type State = bindings::spinlock_t;
    type GuardState = ();

    unsafe fn init(ptr: *mut Self::State, name: *const c_char, key: *mut bindings::lock_class_key) {
        // SAFETY: By the safety requirements, `ptr` is valid for writes, `name` and `key` for
        // reads.
        unsafe { bindings::__spin_lock_init(ptr, name, key) }
    }

    #[inline]
    unsafe fn lock(ptr: *mut Self::State) -> Self::GuardState {
        // What `spin_lock()` is: a `spinlock_t` begins with its `raw_spinlock_t`.
        #[cfg(all(CONFIG_SMP, not(CONFIG_PREEMPT_RT), not(CONFIG_INLINE_SPIN_LOCK)))]
        // SAFETY: By the safety requirements, `ptr` is initialized.
        unsafe {
            bindings::_raw_spin_lock(ptr.cast())
        }
        #[cfg(not(all(CONFIG_SMP, not(CONFIG_PREEMPT_RT), not(CONFIG_INLINE_SPIN_LOCK))))]
        // SAFETY: By the safety requirements, `ptr` is initialized.
        unsafe {
            bindings::spin_lock(ptr)
        }
    }

    #[inline]
    unsafe fn try_lock(ptr: *mut Self::State) -> Option<Self::GuardState> {
        // SAFETY: By the safety requirements, `ptr` is initialized.
        (unsafe { bindings::spin_trylock(ptr) } != 0).then_some(())
    }

    #[inline]
    unsafe fn unlock(ptr: *mut Self::State, _guard_state: &Self::GuardState) {
        // As in `lock()`.
        #[cfg(all(CONFIG_SMP, not(CONFIG_PREEMPT_RT), CONFIG_UNINLINE_SPIN_UNLOCK))]
        // SAFETY: By the safety requirements, the caller owns the lock.
        unsafe {
            bindings::_raw_spin_unlock(ptr.cast())
        }
        #[cfg(not(all(CONFIG_SMP, not(CONFIG_PREEMPT_RT), CONFIG_UNINLINE_SPIN_UNLOCK)))]
        // SAFETY: By the safety requirements, the caller owns the lock.
        unsafe {
            bindings::spin_unlock(ptr)
        }
    }

    #[inline]
    unsafe fn assert_is_held(ptr: *mut Self::State) {
        // As for `SpinLockBhBackend`.
        #[cfg(CONFIG_LOCKDEP)]
        // SAFETY: By the safety requirements, `ptr` is initialized.
        unsafe {
            bindings::spin_assert_is_held(ptr)
        }
        #[cfg(not(CONFIG_LOCKDEP))]
        let _ = ptr;
    }
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
