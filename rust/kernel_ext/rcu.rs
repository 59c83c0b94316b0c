// SPDX-License-Identifier: GPL-2.0

//! Shared objects that readers find without a lock.
//!
//! What readers could find, and cannot any more, is released only after a grace period, which is
//! the only thing that tells that no reader is left. Whoever hides several things at once waits
//! once for all of them: see [`wait_for_readers`].
//!
//! C header: [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h).

use crate::bindings;
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

#[path = "rcu/table.rs"]
mod table;

pub use self::table::{
    Entry,
    RcuTable,
    Unlinked, //
};

mod private {
    /// What [`wait_for_readers`](super::wait_for_readers) tells.
    pub trait Sealed {
        /// Says whether a reader may still be there, for all that is known.
        fn may_have_readers(&self) -> bool;

        /// A grace period has passed since the object was hidden. Only [`super::wait_for_readers`]
        /// can say so.
        fn readers_left(&mut self, period: &super::GracePeriod);
    }
}

/// That a grace period has passed; only made after one, and lent out in this module only.
pub struct GracePeriod(());

/// Something that readers cannot find any more, but some may still be using.
///
/// Dropping it waits for a grace period, unless [`wait_for_readers`] did.
pub trait Retire: private::Sealed {}

impl<R: Retire> private::Sealed for Option<R> {
    fn may_have_readers(&self) -> bool {
        self.as_ref().is_some_and(R::may_have_readers)
    }

    fn readers_left(&mut self, period: &GracePeriod) {
        if let Some(retired) = self {
            retired.readers_left(period);
        }
    }
}

impl<R: Retire> Retire for Option<R> {}

impl<R: Retire> private::Sealed for KVec<R> {
    fn may_have_readers(&self) -> bool {
        self.iter().any(R::may_have_readers)
    }

    fn readers_left(&mut self, period: &GracePeriod) {
        self.iter_mut().for_each(|one| one.readers_left(period));
    }
}

impl<R: Retire> Retire for KVec<R> {}

impl<A: Retire, B: Retire> private::Sealed for (A, B) {
    fn may_have_readers(&self) -> bool {
        self.0.may_have_readers() || self.1.may_have_readers()
    }

    fn readers_left(&mut self, period: &GracePeriod) {
        self.0.readers_left(period);
        self.1.readers_left(period);
    }
}

impl<A: Retire, B: Retire> Retire for (A, B) {}

/// Waits for one grace period, on behalf of all of these: releasing them waits no more. If there is
/// nothing that somebody could still use, it does not wait.
///
/// They exist, hence were hidden, before it begins.
///
/// Somebody waits for this, and may have many to release, one after the other: the grace period is
/// one that takes microseconds, not as long as it takes all CPUs to schedule. It interrupts the
/// CPUs that run something in the kernel, which is no right that a user gets by this: to unmount,
/// in a user namespace of one's own, does the same. Real-time kernels make it an ordinary one.
///
/// Context: sleeps; not in a read section.
pub fn wait_for_readers(all: &mut dyn Retire) {
    if !all.may_have_readers() {
        return;
    }
    // SAFETY: It may be called where one can sleep, outside of read sections: in one, a debug
    // kernel says so, and it waits for ever, as with `synchronize_rcu()`, which the kernel crate
    // calls safe.
    unsafe { bindings::synchronize_rcu_expedited() };
    let period = GracePeriod(());
    all.readers_left(&period);
}

/// What was taken out of an [`RcuSlot`]. The reference is released after a grace period.
///
/// # Invariants
///
/// If `waited`, a grace period has passed since the object left the slot.
#[must_use = "dropping it waits for a grace period"]
pub struct Retired<T: Send + Sync + 'static> {
    object: Option<Arc<T>>,
    waited: bool,
}

impl<T: Send + Sync + 'static> Retired<T> {
    /// Returns the reference, after a grace period.
    ///
    /// Context: sleeps, unless there is none, or it was waited for.
    pub fn wait(mut self) -> Option<Arc<T>> {
        self.settle();
        self.object.take()
    }

    fn settle(&mut self) {
        if self.object.is_some() && !self.waited {
            rcu::synchronize_rcu();
        }
        // INVARIANT: It just has, or there is no object.
        self.waited = true;
    }
}

impl<T: Send + Sync + 'static> private::Sealed for Retired<T> {
    fn may_have_readers(&self) -> bool {
        self.object.is_some() && !self.waited
    }

    fn readers_left(&mut self, _period: &GracePeriod) {
        // INVARIANT: By the contract of the trait.
        self.waited = true;
    }
}

impl<T: Send + Sync + 'static> Retire for Retired<T> {}

impl<T: Send + Sync + 'static> Drop for Retired<T> {
    fn drop(&mut self) {
        self.settle();
    }
}

/// A place for an `Arc<T>` that is read under RCU and replaced by writers.
///
/// It may be a `static`. Readers ([`load`](Self::load), [`get`](Self::get)) never wait and may run
/// in any context. Writers ([`swap`](Self::swap), [`compare_swap`](Self::compare_swap)) need no
/// lock among each other, but wait for a grace period before they give back what was in the slot:
/// they sleep.
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
        // As `rcu_dereference()`: one load, and what follows depends on its address, so that the
        // fields of the object are seen as they were when a writer's `Full` put it in place. The
        // atomic's own load is a call into the kernel. SAFETY: The pointer is valid, and all access
        // to it is atomic: an aligned word.
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
        self.replace(new).wait()
    }

    /// Replaces the content of the slot, and does not wait for the readers that found the old one.
    ///
    /// Context: any; what is returned sleeps when it is dropped, if there was something in the
    /// slot.
    pub fn replace(&self, new: Option<Arc<T>>) -> Retired<T> {
        // INVARIANT: The slot takes over the reference of `new`, and gives up that of the old one.
        let old = self.ptr.xchg(Self::into_ptr(new), Full);
        // SAFETY: `old` was just taken out of the slot.
        unsafe { Self::retire(old) }
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
            // SAFETY: `prev` was just taken out of the slot.
            Ok(prev) => Ok(unsafe { Self::retire(prev) }.wait()),
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

    /// # Safety
    ///
    /// `old` was taken out of a slot, whose reference the caller owns.
    unsafe fn retire(old: *mut T) -> Retired<T> {
        // INVARIANT: Nobody waited.
        Retired {
            // SAFETY: By the type invariants, the pointer is null or came from `into_ptr`; the
            // caller owns the reference. It is not released before readers are gone, see `Retired`.
            object: unsafe { Self::from_ptr(old) },
            waited: false,
        }
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
