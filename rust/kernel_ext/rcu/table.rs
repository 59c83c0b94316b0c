// SPDX-License-Identifier: GPL-2.0

//! A list that readers walk without a lock.
//!
//! C header: [`include/linux/rculist.h`](srctree/include/linux/rculist.h).

use super::{
    private::Sealed,
    Retire, //
};
use crate::peek::Peek;
use core::ptr::NonNull;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Release, //
        },
        lock::{
            mutex::MutexBackend,
            Guard, //
        },
        rcu,
        Arc,
        Mutex, //
    }, //
};

/// A member of a list.
struct Link<T> {
    /// Stays as it is after the link left the list, for readers that are still there.
    next: Atomic<*mut Link<T>>,
    value: T,
}

/// A list of `T`s.
///
/// Readers ([`find`](Self::find)) never wait and may run in any context. Writers
/// ([`lock`](Self::lock), [`Entry`]) have a mutex, which is never held for a grace period.
///
/// # Invariants
///
/// `first`, and `next` of the links, are null or lead to a link that came from a `KBox`; they change
/// only with `writers` locked. A link that left the list is freed only after a grace period. Each link
/// in the list has an [`Entry`], which keeps the list.
#[pin_data]
pub struct RcuList<T: Send + Sync + 'static> {
    first: Atomic<*mut Link<T>>,
    #[pin]
    writers: Mutex<()>,
}

// SAFETY: The list leads to `T`s, which are `Send + Sync`.
unsafe impl<T: Send + Sync + 'static> Send for RcuList<T> {}
// SAFETY: As above; pointers are only accessed atomically.
unsafe impl<T: Send + Sync + 'static> Sync for RcuList<T> {}

impl<T: Send + Sync + 'static> RcuList<T> {
    /// Makes an empty list.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new() -> Result<Arc<Self>> {
        // INVARIANT: The list is empty.
        let list = pin_init!(Self {
            first: Atomic::new(core::ptr::null_mut()),
            writers <- new_mutex!((), "kernel_ext::RcuList::writers"),
        });
        Arc::pin_init(list, GFP_KERNEL)
    }

    /// Returns the first one, the latest first, that is `wanted`, for as long as the read section
    /// lasts. It may leave the list meanwhile.
    #[inline]
    pub fn find<'g>(&self, _guard: &'g rcu::Guard, wanted: impl Fn(&T) -> bool) -> Option<&'g T> {
        // Acquire: pairs with the release of `push_front()`, so that a link is seen as it was then.
        let mut next = self.first.load(Acquire);
        while !next.is_null() {
            // SAFETY: By the type invariants, the link is freed only after a grace period that ends
            // after the read section that `_guard` stands for, hence after `'g`.
            let link: &'g Link<T> = unsafe { &*next };
            if wanted(&link.value) {
                return Some(&link.value);
            }
            next = link.next.load(Acquire);
        }
        None
    }

    /// Takes the lock of the writers.
    ///
    /// Context: may sleep.
    pub fn lock<'a>(self: &'a Arc<Self>) -> Writer<'a, T> {
        Writer {
            list: self,
            _guard: self.writers.lock(),
        }
    }
}

/// A list that does not change but by who has this.
pub struct Writer<'a, T: Send + Sync + 'static> {
    list: &'a Arc<RcuList<T>>,
    _guard: Guard<'a, (), MutexBackend>,
}

impl<T: Send + Sync + 'static> Writer<'_, T> {
    /// Returns the first one that is `wanted`.
    pub fn find(&self, wanted: impl Fn(&T) -> bool) -> Option<&T> {
        let mut next = self.list.first.peek();
        while !next.is_null() {
            // SAFETY: By the type invariants, the link stays in the list for as long as the lock is
            // held, and `self` is borrowed for as long as the result is used.
            let link = unsafe { &*next };
            if wanted(&link.value) {
                return Some(&link.value);
            }
            next = link.next.peek();
        }
        None
    }

    /// Puts a value in front of the others, until its entry is dropped.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn push_front(&mut self, value: T) -> Result<Entry<T>> {
        let first = &self.list.first;
        let next = Atomic::new(first.peek());
        let link = KBox::new(Link { next, value }, GFP_KERNEL_ACCOUNT)?;
        let link = NonNull::from(KBox::leak(link));
        // Release: see `find()`.
        //
        // INVARIANT: The link came from a `KBox`, and leads to what was the first; the lock is held.
        first.store(link.as_ptr(), Release);
        // INVARIANT: It was just linked.
        Ok(Entry {
            list: self.list.clone(),
            link,
        })
    }
}

/// That a value is in a list; dropping it takes the value out, and drops that after a grace period.
///
/// # Invariants
///
/// `link` is in `list`, and nothing else takes it out.
pub struct Entry<T: Send + Sync + 'static> {
    list: Arc<RcuList<T>>,
    link: NonNull<Link<T>>,
}

// SAFETY: The `T` is `Send + Sync`; the link is taken out under a lock, by whatever thread.
unsafe impl<T: Send + Sync + 'static> Send for Entry<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync + 'static> Sync for Entry<T> {}

impl<T: Send + Sync + 'static> Entry<T> {
    /// The value.
    pub fn value(&self) -> &T {
        // SAFETY: By the type invariants, the link is not freed before the entry is gone.
        let link = unsafe { self.link.as_ref() };
        &link.value
    }

    /// Takes the value out of the list, without waiting for the readers that found it.
    ///
    /// Context: may sleep.
    pub fn hide(self) -> Unlinked<T> {
        let this = core::mem::ManuallyDrop::new(self);
        // INVARIANT: There is no entry any more, and it was in the list.
        let unlinked = this.unlink();
        // SAFETY: `this` is not used any more, and not dropped.
        drop(unsafe { core::ptr::read(&this.list) });
        unlinked
    }

    /// The entry must go after this.
    fn unlink(&self) -> Unlinked<T> {
        let ours = self.link.as_ptr();
        let _writer = self.list.writers.lock();
        let mut at = &self.list.first;
        loop {
            let next = at.peek();
            if next == ours || next.is_null() {
                break;
            }
            // SAFETY: By the type invariants, the link stays in the list as the lock is held.
            at = unsafe { &(*next).next };
        }
        // SAFETY: By the type invariants, the link is not freed yet.
        let next = unsafe { self.link.as_ref() }.next.peek();
        // Release: readers get from here to a link that they have not seen.
        //
        // INVARIANT: `next` is a link of the list; the lock is held. By the type invariants, `at` led
        // to ours.
        at.store(next, Release);
        // INVARIANT: It is not in the list any more.
        Unlinked {
            link: self.link,
            waited: false,
        }
    }
}

impl<T: Send + Sync + 'static> Drop for Entry<T> {
    fn drop(&mut self) {
        drop(self.unlink());
    }
}

/// A value that was taken out of an [`RcuList`]. Dropping it drops the value, after a grace period.
///
/// # Invariants
///
/// `link` came from a `KBox`, and is in no list. If `waited`, no reader is there any more either.
#[must_use = "dropping it waits for a grace period"]
pub struct Unlinked<T: Send + Sync + 'static> {
    link: NonNull<Link<T>>,
    waited: bool,
}

// SAFETY: It owns a `T`, which is `Send + Sync`.
unsafe impl<T: Send + Sync + 'static> Send for Unlinked<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync + 'static> Sync for Unlinked<T> {}

impl<T: Send + Sync + 'static> Sealed for Unlinked<T> {
    fn readers_left(&mut self, _period: &super::GracePeriod) {
        // INVARIANT: By the contract of the trait.
        self.waited = true;
    }
}

impl<T: Send + Sync + 'static> Retire for Unlinked<T> {}

impl<T: Send + Sync + 'static> Drop for Unlinked<T> {
    fn drop(&mut self) {
        if !self.waited {
            rcu::synchronize_rcu();
        }
        // SAFETY: By the type invariants, the link came from a `KBox`, is in no list, and no reader is
        // there any more.
        drop(unsafe { KBox::from_raw(self.link.as_ptr()) });
    }
}
