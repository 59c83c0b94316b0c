// SPDX-License-Identifier: GPL-2.0

//! Memory for large payloads on their way out, that is used over and over.
//!
//! It is not wiped: what is in a block was meant for this device before, and what a packet says it
//! has of it is overwritten by the user that sends. Memory that was anything else never gets there:
//! blocks are zeroed when they are allocated, and belong to one device, see [`Block`].
//!
//! A block is back when the packet was dropped, without being told: see [`Lent`]. While nothing is
//! sent, blocks are given up within two ticks of the last resort ([`Rooms::age`]), which goes on for
//! as long as there are any: who allocates one starts it.
//!
//! [`Lent`]: kernel_ext::skb::Lent

use crate::pool::{
    Class,
    LentList, //
};
use kernel::prelude::*;
use kernel_ext::{
    gfp::Gfp,
    lock::SpinLockBh,
    new_spinlock_bh,
    skb::{
        Block,
        Room, //
    }, //
};

/// How many bytes of blocks of a class there are at most.
const LIMIT: usize = 512 * 1024;

/// How many blocks are looked at for one that is back: they come back in the order in which they
/// were sent, but for those that a slow device has.
const LOOKS: usize = 2;

struct Inner {
    lent: [LentList; Class::COUNT],
    /// Some were used since that was asked for.
    used: bool,
}

/// The blocks of a device.
///
/// Lock: a spinlock of its own, within which no other is taken.
#[pin_data]
pub(crate) struct Rooms {
    #[pin]
    inner: SpinLockBh<Inner>,
}

impl Rooms {
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let list = |class: Class| LentList::new(LIMIT / class.size());
            let inner = Inner {
                lent: [
                    // See `Class::of_payload`.
                    LentList::none(),
                    list(Class::Medium)?,
                    list(Class::Large)?,
                ],
                used: false,
            };
            Ok(try_pin_init!(Self {
                inner <- new_spinlock_bh!(inner, "virtio_vsock::Rooms::inner"),
            }? Error))
        })
    }

    /// A block of `class`, and whether it is a new one. Nothing if there is no memory that need not
    /// be waited for.
    ///
    /// Context: may sleep.
    pub(crate) fn get(&self, class: Class) -> Option<(Room, bool)> {
        let (block, new) = match self.take(class) {
            Some(block) => (block, false),
            None => (Block::new(class.order(), Gfp::Kernel).ok()?, true),
        };
        let (room, lent) = block.split();
        let mut inner = self.inner.lock();
        inner.used = true;
        // If there are as many as there may be, the first one is forgotten: the packet has it.
        if let Some(list) = inner.lent.get_mut(class as usize) {
            list.push(lent);
        }
        Some((room, new))
    }

    fn take(&self, class: Class) -> Option<Block> {
        let mut inner = self.inner.lock();
        let list = inner.lent.get_mut(class as usize)?;
        for _ in 0..LOOKS {
            match list.pop()?.take_back() {
                Ok(block) => return Some(block),
                Err(lent) => list.push(lent),
            }
        }
        None
    }

    /// Gives all blocks up if none was used since the last call, and says whether there are any
    /// left.
    pub(crate) fn age(&self) -> bool {
        let mut inner = self.inner.lock();
        let used = core::mem::take(&mut inner.used);
        let mut any = false;
        for list in &mut inner.lent {
            if !used {
                while list.pop().is_some() {}
            }
            any |= list.bytes() > 0;
        }
        any
    }
}
