// SPDX-License-Identifier: GPL-2.0

//! Being told of changes to a part of an address space.
//!
//! C header: [`include/linux/mmu_notifier.h`](srctree/include/linux/mmu_notifier.h).

use crate::{
    bindings,
    owner_mm::OwnerMm,
    peek::Peek, //
};
use core::{
    marker::PhantomPinned,
    ops::RangeInclusive, //
};
use kernel::{
    container_of,
    error::to_result,
    prelude::*,
    sync::atomic::Atomic,
    types::Opaque, //
};

/// What an [`Interval`] calls.
pub(super) trait Invalidate: Send + Sync {
    /// The pages in the range are about to be changed: when this returns, nobody reaches them by
    /// what was looked up before. `set` is called with a lock held that every caller of
    /// [`Seen::is_current`] has.
    ///
    /// Context: process context with any lock of memory management held. It must not sleep, nor
    /// wait for whoever may wait for memory.
    fn invalidate(&self, range: RangeInclusive<usize>, set: impl FnOnce());
}

/// A subscription to changes of a range of addresses.
///
/// # Invariants
///
/// If `inserted`, `sub` is in the tree of an address space, which it has a reference to (of the
/// kind that keeps the structure, not the memory).
#[pin_data(PinnedDrop)]
pub(super) struct Interval<T: Invalidate> {
    #[pin]
    sub: Opaque<bindings::mmu_interval_notifier>,
    inserted: Atomic<bool>,
    /// What is called.
    #[pin]
    pub(super) target: T,
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: A subscription may be ended by another thread than the one that made it; `T` is `Send`.
unsafe impl<T: Invalidate> Send for Interval<T> {}
// SAFETY: What is done with the subscription behind a shared reference is for any number of
// threads; `T` is `Sync`.
unsafe impl<T: Invalidate> Sync for Interval<T> {}

/// How far the changes of a range were, when somebody began to look it up.
pub(super) struct Seen(c_ulong);

impl<T: Invalidate> Interval<T> {
    const OPS: bindings::mmu_interval_notifier_ops = bindings::mmu_interval_notifier_ops {
        invalidate: Some(Self::invalidate_callback),
        ..pin_init::zeroed()
    };

    /// Subscribes to the addresses of `range`, whole pages, in `mm`.
    ///
    /// Context: sleeps.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `EOVERFLOW` for a range that is none, `EINTR`, `ENOMEM`.
    pub(super) fn new(
        mm: &OwnerMm,
        range: RangeInclusive<usize>,
        target: impl PinInit<T>,
    ) -> Result<Pin<KBox<Self>>> {
        let this = KBox::pin_init(
            pin_init!(Self {
                sub <- Opaque::ffi_init(|slot: *mut bindings::mmu_interval_notifier| {
                    // SAFETY: `slot` is valid for writes.
                    unsafe { slot.write(pin_init::zeroed()) };
                }),
                inserted: Atomic::new(false),
                target <- target,
                _pin: PhantomPinned,
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        let (start, last) = range.into_inner();
        let len = last.checked_sub(start).and_then(|len| len.checked_add(1));
        let len = len.ok_or(EINVAL)?;
        // SAFETY: The caller has a reference to the address space. The subscription is pinned, and
        // leaves the tree before it is dropped; the operations live for ever.
        to_result(unsafe {
            bindings::mmu_interval_notifier_insert(
                this.sub.get(),
                mm.as_raw(),
                start,
                len,
                const { &Self::OPS },
            )
        })?;
        // INVARIANT: It was just inserted.
        this.inserted.poke(true);
        Ok(this)
    }

    /// The address space, to be compared only.
    pub(super) fn mm(&self) -> *const bindings::mm_struct {
        // SAFETY: The field was set when the subscription was made, and does not change.
        unsafe { (*self.sub.get()).mm }
    }

    /// Begins to look pages up. Waits until no change is under way.
    ///
    /// Context: sleeps.
    pub(super) fn begin(&self) -> Seen {
        // SAFETY: By the type invariants, for whoever has a reference, it is inserted.
        Seen(unsafe { bindings::mmu_interval_read_begin(self.sub.get()) })
    }

    /// Says whether nothing was changed since `seen`: what was looked up since then is valid, until
    /// [`Invalidate::invalidate`] says otherwise.
    ///
    /// The caller holds the lock that `invalidate` calls `set` with.
    pub(super) fn is_current(&self, seen: &Seen) -> bool {
        // SAFETY: As in `begin()`.
        !unsafe { bindings::mmu_interval_read_retry(self.sub.get(), seen.0) }
    }

    /// # Safety
    ///
    /// Only called by the kernel for a subscription that is inserted, with a valid range.
    unsafe extern "C" fn invalidate_callback(
        sub: *mut bindings::mmu_interval_notifier,
        range: *const bindings::mmu_notifier_range,
        seq: c_ulong,
    ) -> bool {
        // SAFETY: By the safety requirements, `sub` is the field of an `Interval`, which waits in
        // its drop for this to return.
        let this = unsafe { &*container_of!(Opaque::cast_from(sub), Self, sub) };
        // SAFETY: By the safety requirements.
        let (start, end) = unsafe { ((*range).start, (*range).end) };
        // The end is not included.
        this.target.invalidate(start..=end.wrapping_sub(1), || {
            // SAFETY: The subscription is valid. The lock for it is held, as the trait says.
            unsafe { bindings::mmu_interval_set_seq(sub, seq) }
        });
        true
    }
}

#[pinned_drop]
impl<T: Invalidate> PinnedDrop for Interval<T> {
    fn drop(self: Pin<&mut Self>) {
        if self.inserted.peek() {
            // SAFETY: By the type invariants it is inserted. When this returns no callback runs.
            unsafe { bindings::mmu_interval_notifier_remove(self.sub.get()) };
        }
    }
}
