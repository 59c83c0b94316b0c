// SPDX-License-Identifier: GPL-2.0

//! Shared objects that readers find without a lock.
//!
//! C header: [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h).

use core::marker::PhantomData;
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full, //
        },
        rcu,
        Arc,
        ArcBorrow, //
    }, //
};

/// A place for an `Arc<T>` that is read under RCU and replaced by writers.
///
/// It may be a `static`. Readers ([`load`](Self::load), [`get`](Self::get)) never wait and may run in
/// any context. Writers ([`swap`](Self::swap), [`compare_swap`](Self::compare_swap)) need no lock
/// among each other, but wait for a grace period before they give back what was in the slot: they
/// sleep.
///
/// # Invariants
///
/// The pointer is null or came from [`Arc::into_raw`]; then the slot owns that reference. A
/// reference that left the slot is released only after a grace period.
pub struct RcuSlot<T: Send + Sync + 'static> {
    ptr: Atomic<*mut T>,
    _t: PhantomData<Arc<T>>,
}

// SAFETY: The slot is a shared `Arc<T>`, and `T` is `Send + Sync`.
unsafe impl<T: Send + Sync + 'static> Send for RcuSlot<T> {}
// SAFETY: As above; the pointer is only accessed atomically.
unsafe impl<T: Send + Sync + 'static> Sync for RcuSlot<T> {}

impl<T: Send + Sync + 'static> RcuSlot<T> {
    /// Creates an empty slot.
    pub const fn new() -> Self {
        // INVARIANT: The pointer is null.
        Self {
            ptr: Atomic::new(core::ptr::null_mut()),
            _t: PhantomData,
        }
    }

    /// Returns what is in the slot, for as long as the read section lasts.
    #[inline]
    pub fn load<'g>(&self, _guard: &'g rcu::Guard) -> Option<ArcBorrow<'g, T>> {
        // As `rcu_dereference()`: one load, and what follows depends on its address, so that the fields
        // of the object are seen as they were when a writer's `Full` put it in place. The atomic's own
        // load is a call into the kernel.
        // SAFETY: The pointer is valid, and all access to it is atomic: an aligned word.
        let ptr = unsafe { self.ptr.as_ptr().read_volatile() };
        if ptr.is_null() {
            return None;
        }
        // SAFETY: By the type invariants the pointer came from `Arc::into_raw`. A writer that takes
        // it out of the slot releases the reference only after the read section that `_guard`
        // stands for, hence after `'g`.
        Some(unsafe { ArcBorrow::from_raw(ptr) })
    }

    /// Returns a counted reference to what is in the slot.
    #[inline]
    pub fn get(&self) -> Option<Arc<T>> {
        let guard = rcu::read_lock();
        self.load(&guard).map(Arc::from)
    }

    /// Replaces the content of the slot and returns the old one, after a grace period.
    ///
    /// Context: may sleep.
    pub fn swap(&self, new: Option<Arc<T>>) -> Option<Arc<T>> {
        // INVARIANT: The slot takes over the reference of `new`, and gives up that of the old one.
        let old = self.ptr.xchg(Self::into_ptr(new), Full);
        Self::retire(old)
    }

    /// Replaces the content of the slot if it still is `old` (by identity), and returns the old one
    /// after a grace period.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// Gives `new` back if the slot holds something else.
    pub fn compare_swap(
        &self,
        old: Option<&Arc<T>>,
        new: Option<Arc<T>>,
    ) -> Result<Option<Arc<T>>, Option<Arc<T>>> {
        let expected = old.map_or(core::ptr::null_mut(), |arc| Arc::as_ptr(arc).cast_mut());
        let new = Self::into_ptr(new);
        // The caller's reference to `old` keeps its address from being used again meanwhile.
        //
        // INVARIANT: On success the slot takes over `new` and gives up `old`.
        match self.ptr.cmpxchg(expected, new, Full) {
            Ok(prev) => Ok(Self::retire(prev)),
            // SAFETY: `new` is null or was made by `into_ptr` above and did not go into the slot.
            Err(_) => Err(unsafe { Self::from_ptr(new) }),
        }
    }

    fn into_ptr(arc: Option<Arc<T>>) -> *mut T {
        arc.map_or(core::ptr::null_mut(), |arc| Arc::into_raw(arc).cast_mut())
    }

    /// # Safety
    ///
    /// `ptr` is null or came from `into_ptr`, and the caller owns the reference.
    unsafe fn from_ptr(ptr: *mut T) -> Option<Arc<T>> {
        if ptr.is_null() {
            return None;
        }
        // SAFETY: By the safety requirements.
        Some(unsafe { Arc::from_raw(ptr) })
    }

    fn retire(old: *mut T) -> Option<Arc<T>> {
        if !old.is_null() {
            rcu::synchronize_rcu();
        }
        // SAFETY: `old` was taken out of the slot, which owned a reference by the type invariants;
        // the readers that found it there are done.
        unsafe { Self::from_ptr(old) }
    }
}

impl<T: Send + Sync + 'static> Default for RcuSlot<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Send + Sync + 'static> Drop for RcuSlot<T> {
    fn drop(&mut self) {
        drop(self.swap(None));
    }
}
