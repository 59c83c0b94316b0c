// SPDX-License-Identifier: GPL-2.0

//! The lists of flows that take turns, and how packets are linked.

use crate::{
    bindings,
    skb_list::{
        link,
        Link, //
    }, //
};
use core::ptr::NonNull;

pub(super) type Packet = NonNull<bindings::sk_buff>;

/// A list of flows that have packets. The first flow of the first list that is not empty is the
/// next one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The first list.
    Now,
    /// The second list.
    Later,
    /// The third list. When the others are empty, it becomes the second one.
    Next,
}

/// The flows of a queue that have packets, as lists of their first packets, one for each [`Place`].
///
/// # Invariants
///
/// Each is empty, or begins with a packet that is in a ring through `prev` and `dev`, of packets
/// that are valid as long as they are in a list.
pub(super) struct Turns {
    now: Link,
    later: Link,
    next: Link,
}

impl Turns {
    /// No flows.
    pub(super) const fn new() -> Self {
        Self {
            now: None,
            later: None,
            next: None,
        }
    }

    /// Says whether there is no flow.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.now.is_none() && self.later.is_none() && self.next.is_none()
    }

    /// The first packet of the first flow, and its list, see [`Place`].
    #[inline]
    pub(super) fn first(&mut self) -> Option<(Packet, Place)> {
        if let Some(first) = self.now {
            return Some((first, Place::Now));
        }
        if let Some(first) = self.later {
            return Some((first, Place::Later));
        }
        self.later = self.next.take();
        Some((self.later?, Place::Next))
    }

    /// Puts a packet that is in no list to the end of one. It is taken out before it is given up.
    #[inline]
    pub(super) fn enter(&mut self, packet: Packet, place: Place) {
        let list = match place {
            Place::Now => &mut self.now,
            Place::Later => &mut self.later,
            Place::Next => &mut self.next,
        };
        // INVARIANT: The ring has one more packet, before the first one: that is the end.
        match *list {
            Some(first) => {
                let last = before(first);
                set_before(packet, last);
                set_behind(packet, Some(first));
                if let Some(last) = last {
                    set_behind(last, Some(packet));
                }
                set_before(first, Some(packet));
            }
            None => {
                set_before(packet, Some(packet));
                set_behind(packet, Some(packet));
                *list = Some(packet);
            }
        }
    }

    /// As [`enter`](Self::enter), to the beginning.
    pub(super) fn enter_first(&mut self, packet: Packet, place: Place) {
        self.enter(packet, place);
        // INVARIANT: The same ring, begun with another packet of it.
        match place {
            Place::Now => self.now = Some(packet),
            Place::Later => self.later = Some(packet),
            Place::Next => self.next = Some(packet),
        }
    }

    /// The list that begins with `packet`, if any, begins with `by` instead.
    #[inline]
    fn set_first(&mut self, packet: Packet, by: Link) {
        if self.now == Some(packet) {
            self.now = by;
        } else if self.later == Some(packet) {
            self.later = by;
        } else if self.next == Some(packet) {
            self.next = by;
        }
    }

    /// Takes a packet out of its list.
    #[inline]
    pub(super) fn remove(&mut self, packet: Packet) {
        // INVARIANT: The ring has one packet less.
        match (before(packet), behind(packet)) {
            (Some(last), Some(next)) if next != packet => {
                set_behind(last, Some(next));
                set_before(next, Some(last));
                self.set_first(packet, Some(next));
            }
            _ => self.set_first(packet, None),
        }
        set_before(packet, None);
        set_behind(packet, None);
    }

    /// Puts a packet into the place of another one.
    #[inline]
    pub(super) fn replace(&mut self, packet: Packet, by: Packet) {
        // INVARIANT: The ring has the one instead of the other.
        match (before(packet), behind(packet)) {
            (Some(last), Some(next)) if next != packet => {
                set_before(by, Some(last));
                set_behind(by, Some(next));
                set_behind(last, Some(by));
                set_before(next, Some(by));
            }
            _ => {
                set_before(by, Some(by));
                set_behind(by, Some(by));
            }
        }
        self.set_first(packet, Some(by));
        set_before(packet, None);
        set_behind(packet, None);
    }
}

/// The next packet of the same flow.
#[inline]
pub(super) fn next(packet: Packet) -> Link {
    // SAFETY: The caller, a queue or what was taken from one, owns the packet: by the type
    // invariants, it is valid. The field is the link of its owner. This holds for all that follow.
    NonNull::new(unsafe { (*link(packet)).next })
}

#[inline]
pub(super) fn set_next(packet: Packet, to: Link) {
    // SAFETY: See `next()`; the caller has the packet exclusively.
    unsafe { (*link(packet)).next = raw(to) };
}

/// The first packet of the flow before that of a first packet.
#[inline]
fn before(packet: Packet) -> Link {
    // SAFETY: See `next()`.
    NonNull::new(unsafe { (*link(packet)).prev })
}

#[inline]
fn set_before(packet: Packet, to: Link) {
    // SAFETY: See `set_next()`.
    unsafe { (*link(packet)).prev = raw(to) };
}

/// The first packet of the flow behind that of a first packet.
///
/// It is in the place of `dev`, which is the third word of what the owner of a packet may use as a
/// link (the C side puts a `struct rb_node` there). A packet that leaves the queue has null there.
#[inline]
fn behind(packet: Packet) -> Link {
    // SAFETY: See `next()`. A pointer is there, of whatever type.
    let dev = unsafe { (*link(packet)).__bindgen_anon_1.dev };
    NonNull::new(dev.cast())
}

#[inline]
fn set_behind(packet: Packet, to: Link) {
    // SAFETY: See `set_next()`.
    unsafe { (*link(packet)).__bindgen_anon_1.dev = raw(to).cast() };
}

#[inline]
pub(super) fn raw(to: Link) -> *mut bindings::sk_buff {
    to.map_or(core::ptr::null_mut(), NonNull::as_ptr)
}
