// SPDX-License-Identifier: GPL-2.0

//! Memory for large payloads, that is used over and over.
//!
//! It is not wiped: whoever takes a [`Room`] overwrites as much of it as the packet says it has,
//! before anybody else sees the packet. And what is in a block was there for the same [`Owner`]
//! before: a carrier keeps the blocks of a device, one direction, in [`Rooms`] of their own. Memory
//! that was anything else never gets there: blocks are zeroed when they are allocated, see
//! [`Block`].
//!
//! A block is back when the packet was dropped, without being told: see [`Lent`].
//!
//! # Bounds
//!
//! [`LIMIT`] bytes and [`SLOTS`] blocks are remembered at most. What is remembered and in use
//! counts where it is used: with the socket that sends, or that is to receive. While nothing is
//! used, all is given up within two calls of [`Rooms::age`], to be made once in a while for as long
//! as there are any blocks: who allocates one starts that. Rooms of an idle owner take no memory
//! but themselves.
//!
//! [`Lent`]: kernel_ext::skb::Lent

use crate::watch::{
    self,
    WatchSlot, //
};
use kernel::prelude::*;
use kernel_ext::{
    gfp::Gfp,
    lock::SpinLockHot,
    new_spinlock_hot,
    skb::{
        Block,
        Room, //
    },
    sock::VsockSock,
    user::User, //
};

#[cfg(CONFIG_KUNIT = "y")]
#[path = "rooms/kunit.rs"]
mod kunit;
#[path = "rooms/lent.rs"]
mod lent;

pub use lent::LentList;

/// How many bytes the blocks have at most.
const LIMIT: usize = 512 * 1024;

/// How many blocks there are at most.
const SLOTS: usize = 64;

/// How many blocks are looked at for one that is back and of use: they come back in the order in
/// which they were used, but for those that somebody slow has.
const LOOKS: usize = 4;

/// Payloads up to this size are allocated, and wiped, as fast as a block is found.
const SMALL: usize = 2048;

/// Blocks from this size on have only the payload in them if there is no room for more.
const FRAGMENT: usize = 16 * 1024;

/// The pages, as a power of two, of a block in which a payload of `len` bytes is to be, behind a
/// head of `headroom` bytes: then it takes no more than 5/2 of the payload. Nothing if the payload
/// is too small, or too large.
pub fn order_for(headroom: usize, len: usize) -> Option<u8> {
    if len <= SMALL {
        return None;
    }
    let order = (0..=Block::MAX_ORDER).find(|order| {
        let size = Block::len_of(*order);
        Room::has_linear(*order, headroom, len) || (size >= FRAGMENT && len <= size)
    })?;
    // Less by what the buffer takes beside it.
    let most = len.saturating_mul(12);
    (Block::len_of(order).saturating_mul(5) <= most).then_some(order)
}

/// Who has written to a block, and may do so again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// See [`Net::cookie`](kernel_ext::net::Net::cookie).
    net: u64,
    user: Option<User>,
}

impl Owner {
    /// The peer, if the rooms are those of a device.
    pub const DEVICE: Self = Self { net: 0, user: None };

    /// The user who has created a socket, in its namespace.
    #[inline]
    pub fn of(sock: &VsockSock) -> Self {
        Self {
            net: sock.net().cookie(),
            user: Some(User::of(sock)),
        }
    }
}

/// As long as a module has this, its rooms are aged once in a second, while there are any blocks.
pub struct Aging(&'static WatchSlot);

impl Aging {
    /// Begins, with `round`, which [ages](Rooms::age) all rooms of the module, and says whether
    /// there are any left. It may sleep.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(slot: &'static WatchSlot, round: fn() -> bool) -> Result<Self> {
        watch::begin(slot, round)?;
        Ok(Self(slot))
    }
}

impl Drop for Aging {
    fn drop(&mut self) {
        watch::end(self.0);
    }
}

/// How many blocks of an order are remembered.
fn most(order: u8) -> usize {
    let most = LIMIT.checked_div(Block::len_of(order));
    most.unwrap_or(1).clamp(1, SLOTS)
}

/// How many orders there are.
const ORDERS: usize = Block::MAX_ORDER as usize + 1;

/// The blocks by order, and what is known of them.
struct Lists {
    lent: [LentList<Owner>; ORDERS],
    /// Blocks of that order were used since that was asked for.
    used: [bool; ORDERS],
}

impl Lists {
    const fn new() -> Self {
        Self {
            lent: [const { LentList::none() }; ORDERS],
            used: [false; ORDERS],
        }
    }

    fn bytes(&self) -> usize {
        let add = |sum: usize, list: &LentList<Owner>| sum.saturating_add(list.bytes());
        self.lent.iter().fold(0, add)
    }

    fn has_slots(&self, order: u8) -> bool {
        let list = self.lent.get(usize::from(order));
        list.is_some_and(LentList::has_slots)
    }

    /// A block that is back.
    #[inline]
    fn reuse(&mut self, order: u8, whose: Owner) -> Option<Room> {
        let list = self.lent.get_mut(usize::from(order))?;
        for _ in 0..LOOKS.min(list.len()) {
            let (lent, of) = list.pop()?;
            if of != whose {
                list.push(lent, of);
                continue;
            }
            match lent.take_back() {
                Ok(block) => {
                    let (room, lent) = block.split();
                    list.push(lent, whose);
                    if let Some(used) = self.used.get_mut(usize::from(order)) {
                        *used = true;
                    }
                    return Some(room);
                }
                Err(lent) => list.push(lent, of),
            }
        }
        None
    }

    /// Remembers a new block; `slots` are for the first one of its order.
    fn lend(&mut self, block: Block, whose: Owner, slots: &mut LentList<Owner>) -> Room {
        let order = usize::from(block.order());
        let (room, lent) = block.split();
        // If there are as many as there may be, some are forgotten: packets have them, or nobody.
        // First those of other orders, then those that were used first.
        let mut spare = LIMIT.saturating_sub(self.bytes());
        for n in 1..=ORDERS {
            let other = order.wrapping_add(n) % ORDERS;
            while spare < lent.size() {
                let Some((old, _)) = self.lent.get_mut(other).and_then(LentList::pop) else {
                    break;
                };
                spare = spare.saturating_add(old.size());
            }
        }
        if let (Some(list), Some(used)) = (self.lent.get_mut(order), self.used.get_mut(order)) {
            if !list.has_slots() {
                core::mem::swap(list, slots);
            }
            list.push(lent, whose);
            *used = true;
        }
        room
    }

    /// Gives up the blocks of orders that were not used since the last call, and says whether there
    /// are any left.
    fn age(&mut self) -> bool {
        let mut any = false;
        for (list, used) in self.lent.iter_mut().zip(&mut self.used) {
            if core::mem::take(used) {
                any = true;
            } else {
                *list = LentList::none();
            }
        }
        any
    }
}

/// Blocks, each with its owner.
///
/// Lock: a spinlock of its own, within which no other is taken.
#[pin_data]
pub struct Rooms {
    /// Nothing if none were used lately.
    #[pin]
    lists: SpinLockHot<Option<KBox<Lists>>>,
}

/// A room, and whether it is new.
pub struct Taken {
    /// To be filled.
    pub room: Room,
    /// Somebody is to see to it that [`Rooms::age`] is called: [`aged_by`](Self::aged_by) does.
    pub is_new: bool,
}

impl Taken {
    /// The room; if it is new, the [`Aging`] of `slot` is to find its block.
    ///
    /// Context: does not sleep.
    #[inline]
    pub fn aged_by(self, slot: &WatchSlot) -> Room {
        if self.is_new {
            watch::wake(slot);
        }
        self.room
    }
}

impl Rooms {
    /// Rooms without a block.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            lists <- new_spinlock_hot!(None, "virtio_transport_common::Rooms::lists"),
        })
    }

    /// A room in which a payload of `len` bytes is to be, behind a head of `headroom` bytes, that
    /// was there for `whose` before, or is new. Nothing if the payload is [not of a
    /// size](order_for) for that, or there is no memory that need not be waited for.
    ///
    /// Context: process context; sleeps if `gfp` does.
    pub fn get(&self, headroom: usize, len: usize, whose: Owner, gfp: Gfp) -> Option<Taken> {
        let order = order_for(headroom, len)?;
        let (mut has_lists, mut has_slots) = (false, false);
        if let Some(lists) = &mut *self.lists.lock() {
            if let Some(room) = lists.reuse(order, whose) {
                return Some(Taken {
                    room,
                    is_new: false,
                });
            }
            (has_lists, has_slots) = (true, lists.has_slots(order));
        }
        self.make(order, whose, (has_lists, has_slots), gfp)
    }

    /// As [`get`](Self::get), of a room that is new; `has` says whether there are lists now, and
    /// one with slots for that order.
    #[cold]
    fn make(&self, order: u8, whose: Owner, has: (bool, bool), gfp: Gfp) -> Option<Taken> {
        let block = Block::new(order, gfp).ok()?;
        let (has_lists, has_slots) = has;
        let mut made = match has_lists {
            true => None,
            false => Some(KBox::new(Lists::new(), gfp.as_flags()).ok()?),
        };
        let mut slots = match has_slots {
            true => LentList::none(),
            false => LentList::new(most(order), gfp).ok()?,
        };
        let mut guard = self.lists.lock();
        if guard.is_none() {
            core::mem::swap(&mut *guard, &mut made);
        }
        let room = match &mut *guard {
            Some(lists) => lists.lend(block, whose, &mut slots),
            // They were given up just now, and so is this one when it was used.
            None => block.split().0,
        };
        drop(guard);
        Some(Taken { room, is_new: true })
    }

    /// Gives up blocks of sizes that were not used since the last call, and says whether there are
    /// any left.
    ///
    /// Context: does not sleep.
    pub fn age(&self) -> bool {
        let mut guard = self.lists.lock();
        let any = match &mut *guard {
            Some(lists) => lists.age(),
            None => false,
        };
        let unused = if any { None } else { guard.take() };
        drop(guard);
        drop(unused);
        any
    }

    /// Gives all blocks up.
    ///
    /// Context: does not sleep.
    pub fn clear(&self) {
        let unused = self.lists.lock().take();
        drop(unused);
    }
}
