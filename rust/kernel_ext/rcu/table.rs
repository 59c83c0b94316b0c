// SPDX-License-Identifier: GPL-2.0

//! A table that readers look things up in without a lock.
//!
//! C header: [`include/linux/rculist.h`](srctree/include/linux/rculist.h).

use super::{
    private::Sealed,
    GracePeriod,
    Retire, //
};
use crate::{
    bindings,
    peek::Peek, //
};
use core::ptr::NonNull;
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Release, //
        },
        rcu,
        Arc,
        SpinLock, //
    }, //
};

/// A member of a table.
struct Link<T> {
    /// Stays as it is after the link left the table, for readers that are still there.
    next: Atomic<*mut Link<T>>,
    key: u32,
    value: T,
}

/// A table of `T`s with keys, in `N` lists; more than one may have the same key.
///
/// Which keys share a list is random: whoever may choose keys cannot make a list long on purpose.
///
/// Readers ([`find`](Self::find)) never wait and may run in any context. Writers
/// ([`insert`](Self::insert), [`Entry`]) have a spinlock, with which nothing is done that waits, or
/// that needs memory.
///
/// # Invariants
///
/// Each of `heads`, and `next` of the links, is null or leads to a link that came from a `KBox`;
/// they change only with `writers` locked. A link is in the list of its key. One that left the
/// table is freed only after a grace period. Each link in the table has an [`Entry`], which keeps
/// the table.
#[pin_data]
pub struct RcuTable<T: Send + Sync + 'static, const N: usize> {
    heads: [Atomic<*mut Link<T>>; N],
    seed: u64,
    #[pin]
    writers: SpinLock<()>,
}

// SAFETY: The table leads to `T`s, which are `Send + Sync`.
unsafe impl<T: Send + Sync + 'static, const N: usize> Send for RcuTable<T, N> {}
// SAFETY: As above; pointers are only accessed atomically.
unsafe impl<T: Send + Sync + 'static, const N: usize> Sync for RcuTable<T, N> {}

impl<T: Send + Sync + 'static, const N: usize> RcuTable<T, N> {
    /// Makes an empty table.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new() -> Result<Arc<Self>> {
        // INVARIANT: The table is empty.
        let table = pin_init!(Self {
            heads: [const { Atomic::new(core::ptr::null_mut()) }; N],
            // SAFETY: The function has no requirements.
            seed: unsafe { bindings::get_random_u64() } | 1,
            writers <- new_spinlock!((), "kernel_ext::RcuTable::writers"),
        });
        Arc::pin_init(table, GFP_KERNEL)
    }

    /// Which list a key belongs to, less than `N`.
    #[inline]
    pub(crate) fn index(&self, key: u32) -> usize {
        const { assert!(N.is_power_of_two() && N <= 1 << 16) };
        // Multiply-shift by a random odd number: two keys share a list with a probability of at
        // most 2 / N, whatever they are, for somebody who does not know it.
        let product = u64::from(key).wrapping_mul(self.seed);
        // CAST: To the lower bits, of which these are. OVERFLOW: `N` is not 0.
        (product >> 32) as usize & N.wrapping_sub(1)
    }

    /// Where the list of a key begins.
    #[inline]
    fn head(&self, key: u32) -> &Atomic<*mut Link<T>> {
        // SAFETY: `index()` returns less than `N`.
        unsafe { self.heads.get_unchecked(self.index(key)) }
    }

    /// Returns the first one with a key, the latest first, that is `wanted`, for as long as the
    /// read section lasts. It may leave the table meanwhile.
    #[inline]
    pub fn find<'g>(
        &self,
        key: u32,
        _guard: &'g rcu::Guard,
        wanted: impl Fn(&T) -> bool,
    ) -> Option<&'g T> {
        // As `rcu_dereference()`: what follows depends on the address that was loaded, so that a
        // link is seen as it was at the release of `insert()`.
        let mut next = self.head(key).peek();
        while !next.is_null() {
            // SAFETY: By the type invariants, the link is freed only after a grace period that ends
            // after the read section that `_guard` stands for, hence after `'g`.
            let link: &'g Link<T> = unsafe { &*next };
            if link.key == key && wanted(&link.value) {
                return Some(&link.value);
            }
            next = link.next.peek();
        }
        None
    }

    /// What is in the list `index` of less than `N`, for as long as the read section lasts: who
    /// looks at all of them finds what is there all the time.
    pub fn list<'g>(&self, index: usize, _guard: &'g rcu::Guard) -> impl Iterator<Item = &'g T> {
        let mut next = self
            .heads
            .get(index)
            .map_or(core::ptr::null_mut(), |head| head.peek());
        core::iter::from_fn(move || {
            if next.is_null() {
                return None;
            }
            // SAFETY: As in `find()`.
            let link: &'g Link<T> = unsafe { &*next };
            next = link.next.peek();
            Some(&link.value)
        })
    }

    /// Puts a value into the table, until its entry is dropped, unless `refusal` finds a reason in
    /// one that has the same key.
    ///
    /// Context: may sleep; calls `refusal` with a spinlock held.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, as the outer result; the reason, as the inner one.
    pub fn insert<R>(
        self: &Arc<Self>,
        key: u32,
        value: T,
        refusal: impl Fn(&T) -> Option<R>,
    ) -> Result<core::result::Result<Entry<T, N>, R>> {
        let head = self.head(key);
        let next = Atomic::new(core::ptr::null_mut());
        // Dropped, if there is a reason, after the lock was given up.
        let link = KBox::new(Link { next, key, value }, GFP_KERNEL_ACCOUNT)?;
        let writers = self.writers.lock();
        let first = head.peek();
        let mut at = first;
        while !at.is_null() {
            // SAFETY: By the type invariants, the link stays in the table as the lock is held.
            let other = unsafe { &*at };
            if other.key == key {
                if let Some(reason) = refusal(&other.value) {
                    drop(writers);
                    return Ok(Err(reason));
                }
            }
            at = other.next.peek();
        }
        link.next.poke(first);
        let link = NonNull::from(KBox::leak(link));
        // Release: see `find()`.
        //
        // INVARIANT: The link came from a `KBox`, and leads to what was the first of the list of
        // its key; the lock is held.
        head.store(link.as_ptr(), Release);
        drop(writers);
        // INVARIANT: It was just linked.
        Ok(Ok(Entry {
            table: self.clone(),
            link,
        }))
    }

    /// Takes a link out of the table.
    fn unlink(&self, link: &Link<T>) {
        let ours = core::ptr::from_ref(link);
        let mut at = self.head(link.key);
        let _writers = self.writers.lock();
        loop {
            let next = at.peek();
            if next.is_null() {
                // By the invariants of `Entry` it is there.
                return;
            }
            if core::ptr::eq(next, ours) {
                break;
            }
            // SAFETY: By the type invariants, the link stays in the table as the lock is held.
            at = unsafe { &(*next).next };
        }
        // Release: readers get from here to a link that they have not seen.
        //
        // INVARIANT: What follows ours is a link of the same list; the lock is held.
        at.store(link.next.peek(), Release);
    }
}

/// That a value is in a table; dropping it takes the value out, and drops that after a grace
/// period.
///
/// # Invariants
///
/// `link` is in `table`, and nothing else takes it out.
pub struct Entry<T: Send + Sync + 'static, const N: usize> {
    table: Arc<RcuTable<T, N>>,
    link: NonNull<Link<T>>,
}

// SAFETY: The `T` is `Send + Sync`; the link is taken out under a lock, by whatever thread.
unsafe impl<T: Send + Sync + 'static, const N: usize> Send for Entry<T, N> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync + 'static, const N: usize> Sync for Entry<T, N> {}

impl<T: Send + Sync + 'static, const N: usize> Entry<T, N> {
    fn link(&self) -> &Link<T> {
        // SAFETY: By the type invariants, the link is not freed before the entry is gone.
        unsafe { self.link.as_ref() }
    }

    /// The value.
    pub fn value(&self) -> &T {
        &self.link().value
    }

    /// Takes the value out of the table, without waiting for the readers that found it.
    ///
    /// Context: any but a hard or soft interrupt; what is returned sleeps when it is dropped.
    pub fn hide(self) -> Unlinked<T> {
        let this = core::mem::ManuallyDrop::new(self);
        let unlinked = this.unlink();
        // SAFETY: `this` is not used any more, and not dropped.
        drop(unsafe { core::ptr::read(&this.table) });
        unlinked
    }

    /// The entry must go after this.
    fn unlink(&self) -> Unlinked<T> {
        self.table.unlink(self.link());
        // INVARIANT: It is not in the table any more, and by the invariants of the table it came
        // from a `KBox`. Nobody waited.
        Unlinked {
            link: self.link,
            waited: false,
        }
    }
}

impl<T: Send + Sync + 'static, const N: usize> Drop for Entry<T, N> {
    fn drop(&mut self) {
        drop(self.unlink());
    }
}

/// A value that was taken out of an [`RcuTable`]. Dropping it drops the value, after a grace
/// period.
///
/// # Invariants
///
/// `link` came from a `KBox`, and is in no table. If `waited`, no reader is there any more either.
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
    fn may_have_readers(&self) -> bool {
        !self.waited
    }

    fn readers_left(&mut self, _period: &GracePeriod) {
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
        // SAFETY: By the type invariants, the link came from a `KBox`, is in no table, and no
        // reader is there any more.
        drop(unsafe { KBox::from_raw(self.link.as_ptr()) });
    }
}
