// SPDX-License-Identifier: GPL-2.0

//! Sockets that their user closed, and what they leave behind for their peer.
//!
//! A closed socket waits for the answer of its peer, and what it sent waits in the queue of the
//! carrier until the peer takes it. No limit of open files counts these. A peer that neither
//! answers nor reads, with the help of a user or of a program that serves whoever connects, could
//! make their number grow without end; hence each user has a budget for each peer. Who closes a
//! socket beyond it resets the connection: what the peer did not take is lost, and the peer is told
//! so. Other users of the same peer have budgets of their own.
//!
//! The RST and its socket count, too, for as long as the peer does not take it, but there is as
//! much room again for these: who has used up that as well has made 16384 connections, or more, to
//! a peer that takes nothing. Such a peer is not told any more.

use kernel::{
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNode, //
    },
    sync::Arc, //
};
use kernel_ext::{
    lock::SpinLockBh,
    new_spinlock_bh,
    user::User, //
};

/// What the closed sockets of a user may have together for a peer, in bytes: enough for 256 that
/// had all that their credit allows under way, or for 16384 that only wait for an answer.
const LIMIT: u32 = 64 * 1024 * 1024;

/// As [`LIMIT`], for sockets that are reset.
const RESET_LIMIT: u32 = 2 * LIMIT;

/// What a socket takes apart from its packets.
const SOCKET: usize = 4096;

/// The closed sockets of a peer.
///
/// The lock is an innermost one: it is taken when the state of a connection is dropped, which may
/// be wherever a packet is.
#[pin_data]
pub struct Orphans {
    /// Bytes that those of each user take, for users that have any.
    #[pin]
    users: SpinLockBh<RBTree<User, u32>>,
}

impl Orphans {
    /// Creates the budgets of a peer.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                users <- new_spinlock_bh!(
                    RBTree::new(),
                    "virtio_transport_common::Orphans::users"
                ),
            }),
            GFP_KERNEL,
        )
    }

    /// Takes in a socket of a user whose packets take `memory` bytes, if there is room for it.
    ///
    /// Context: may sleep.
    pub(crate) fn adopt(self: &Arc<Self>, user: User, memory: usize) -> Option<Orphan> {
        self.adopt_up_to(LIMIT, user, memory)
    }

    /// Takes in a socket of which nothing but a RST is left, if there is room for it.
    ///
    /// Context: may sleep.
    pub(crate) fn adopt_reset(self: &Arc<Self>, user: User) -> Option<Orphan> {
        self.adopt_up_to(RESET_LIMIT, user, 0)
    }

    fn adopt_up_to(self: &Arc<Self>, limit: u32, user: User, memory: usize) -> Option<Orphan> {
        let memory = u32::try_from(memory.saturating_add(SOCKET)).ok();
        let memory = memory.filter(|memory| *memory <= limit)?;
        let mut users = self.users.lock();
        if users.get(&user).is_none() {
            drop(users);
            let new = RBTreeNode::new(user, 0, GFP_KERNEL).ok()?;
            users = self.users.lock();
            if users.get(&user).is_none() {
                users.insert(new);
            }
        }
        let used = users.get_mut(&user)?;
        *used = used.checked_add(memory).filter(|sum| *sum <= limit)?;
        Some(Orphan {
            of: self.clone(),
            user,
            memory,
        })
    }
}

/// A closed socket. It is kept with the state of the connection, to which the socket and each of
/// its packets have a reference: dropping it says that all of them are gone.
pub(crate) struct Orphan {
    of: Arc<Orphans>,
    user: User,
    memory: u32,
}

impl Drop for Orphan {
    fn drop(&mut self) {
        let mut users = self.of.users.lock();
        let Some(used) = users.get_mut(&self.user) else {
            return;
        };
        // `adopt()` added as much.
        *used = used.saturating_sub(self.memory);
        if *used == 0 {
            let last = users.remove_node(&self.user);
            drop(users);
            drop(last);
        }
    }
}

#[cfg(CONFIG_KUNIT = "y")]
#[kunit_tests(virtio_transport_orphans)]
mod tests {
    use super::*;

    const SIZE: usize = 256 * 1024;

    #[test]
    fn who_leaves_much_behind_pays() -> Result {
        let orphans = Orphans::new()?;
        let (rich, poor) = (User::new(1000), User::new(1001));
        let mut kept = KVec::new();
        while let Some(orphan) = orphans.adopt(rich, SIZE) {
            kept.push(orphan, GFP_KERNEL)?;
        }
        assert_eq!(kept.len(), LIMIT as usize / (SIZE + SOCKET));
        let other = orphans.adopt(poor, SIZE);
        assert!(other.is_some());
        drop(kept.pop());
        kept.push(orphans.adopt(rich, SIZE).ok_or(EINVAL)?, GFP_KERNEL)?;
        assert!(orphans.adopt(rich, SIZE).is_none());
        // It can be said of as many that they are reset.
        let mut resets = KVec::new();
        while let Some(orphan) = orphans.adopt_reset(rich) {
            resets.push(orphan, GFP_KERNEL)?;
        }
        assert!(resets.len() >= 16384);
        drop(resets);
        // Nothing is kept for a user who has none.
        drop(kept);
        assert!(orphans.users.lock().get(&rich).is_none());
        drop(other);
        assert!(orphans.users.lock().is_empty());
        Ok(())
    }

    #[test]
    fn more_than_anybody_may() -> Result {
        let orphans = Orphans::new()?;
        assert!(orphans.adopt(User::new(1), LIMIT as usize).is_none());
        assert!(orphans.adopt(User::new(1), usize::MAX).is_none());
        assert!(orphans.users.lock().is_empty());
        Ok(())
    }
}
