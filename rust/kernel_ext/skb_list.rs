// SPDX-License-Identifier: GPL-2.0

//! First-in first-out lists of socket buffers, linked through the buffers themselves.

use crate::{
    bindings,
    skb::SkBuff, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};

pub(crate) type Link = Option<NonNull<bindings::sk_buff>>;

/// Where a buffer has its links: `next` and `prev`, and one more in the place of `dev`.
///
/// They are for whoever owns the buffer.
#[inline]
pub(crate) fn link(
    skb: NonNull<bindings::sk_buff>,
) -> *mut bindings::sk_buff__bindgen_ty_1__bindgen_ty_1 {
    // They are the first field.
    const { assert!(core::mem::offset_of!(bindings::sk_buff, __bindgen_anon_1) == 0) };
    skb.as_ptr().cast()
}

/// A list of owned buffers; dropping it drops them.
///
/// It needs no memory of its own and no pinning. It has no lock: its owner has one.
///
/// # Invariants
///
/// `first` and the `next` pointers from there on are a chain of buffers that ends at `last`; the
/// list owns each of them as a [`SkBuff<C>`].
pub struct SkbList<C> {
    first: Link,
    last: Link,
    _p: PhantomData<SkBuff<C>>,
}

// SAFETY: The list owns its buffers.
unsafe impl<C: Send> Send for SkbList<C> {}
// SAFETY: `&SkbList` only gives `&SkBuff`.
unsafe impl<C: Sync> Sync for SkbList<C> {}

impl<C> SkbList<C> {
    /// An empty list.
    pub const fn new() -> Self {
        // INVARIANT: A chain of no buffers.
        Self {
            first: None,
            last: None,
            _p: PhantomData,
        }
    }

    /// Says whether the list is empty.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    #[inline]
    fn next(skb: NonNull<bindings::sk_buff>) -> Link {
        // SAFETY: By the type invariants, the buffer is valid; the field is the link of its owner.
        NonNull::new(unsafe { (*link(skb)).next })
    }

    #[inline]
    fn set_next(skb: NonNull<bindings::sk_buff>, next: Link) {
        let next = next.map_or(core::ptr::null_mut(), NonNull::as_ptr);
        // SAFETY: As above; the caller has the list exclusively.
        unsafe { (*link(skb)).next = next };
    }

    /// Appends a buffer.
    #[inline]
    pub fn push_back(&mut self, skb: SkBuff<C>) {
        let skb = skb.into_raw();
        // INVARIANT: The chain has one more buffer, which is the last.
        Self::set_next(skb, None);
        match self.last {
            Some(last) => Self::set_next(last, Some(skb)),
            None => self.first = Some(skb),
        }
        self.last = Some(skb);
    }

    /// Puts a buffer before all others.
    #[inline]
    pub fn push_front(&mut self, skb: SkBuff<C>) {
        let skb = skb.into_raw();
        // INVARIANT: The chain has one more buffer, which is the first.
        Self::set_next(skb, self.first);
        if self.last.is_none() {
            self.last = Some(skb);
        }
        self.first = Some(skb);
    }

    /// Moves all buffers of another list behind those of this one.
    #[inline]
    pub fn append(&mut self, other: &mut Self) {
        let mut other = core::mem::take(other);
        // INVARIANT: The chain goes on with that of the other list, which is left without any.
        let first = other.first.take();
        if first.is_none() {
            return;
        }
        match self.last {
            Some(last) => Self::set_next(last, first),
            None => self.first = first,
        }
        self.last = other.last.take();
    }

    /// Takes the first buffer.
    #[inline]
    pub fn pop_front(&mut self) -> Option<SkBuff<C>> {
        let skb = self.first?;
        // INVARIANT: The chain begins with the next buffer, if there is one.
        self.first = Self::next(skb);
        if self.first.is_none() {
            self.last = None;
        }
        Self::set_next(skb, None);
        // SAFETY: By the type invariants, the list owned it as a `SkBuff<C>`, and gave it up.
        Some(unsafe { SkBuff::from_raw(skb) })
    }

    /// The first buffer.
    #[inline]
    pub fn front(&self) -> Option<&SkBuff<C>> {
        self.first.as_ref().map(Self::borrow)
    }

    /// The last buffer.
    #[inline]
    pub fn back(&self) -> Option<&SkBuff<C>> {
        self.last.as_ref().map(Self::borrow)
    }

    #[inline]
    fn borrow(skb: &NonNull<bindings::sk_buff>) -> &SkBuff<C> {
        // SAFETY: `SkBuff` is a transparent wrapper of this pointer, and by the type invariants of
        // the list the buffer is a valid `SkBuff<C>` for as long as the list is not changed.
        unsafe { &*core::ptr::from_ref(skb).cast() }
    }

    /// The buffers, first to last.
    #[inline]
    pub fn iter(&self) -> Iter<'_, C> {
        Iter {
            next: self.first,
            _p: PhantomData,
        }
    }
}

impl<C> Default for SkbList<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> Drop for SkbList<C> {
    fn drop(&mut self) {
        while let Some(skb) = self.pop_front() {
            drop(skb);
        }
    }
}

/// An iterator over the buffers of a [`SkbList`].
pub struct Iter<'a, C> {
    next: Link,
    _p: PhantomData<&'a SkBuff<C>>,
}

impl<'a, C> Iterator for Iter<'a, C> {
    type Item = SkbRef<'a, C>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let skb = self.next?;
        self.next = SkbList::<C>::next(skb);
        Some(SkbRef {
            skb,
            _p: PhantomData,
        })
    }
}

/// A buffer in a [`SkbList`].
pub struct SkbRef<'a, C> {
    skb: NonNull<bindings::sk_buff>,
    _p: PhantomData<&'a SkBuff<C>>,
}

impl<C> core::ops::Deref for SkbRef<'_, C> {
    type Target = SkBuff<C>;

    #[inline]
    fn deref(&self) -> &SkBuff<C> {
        SkbList::<C>::borrow(&self.skb)
    }
}
