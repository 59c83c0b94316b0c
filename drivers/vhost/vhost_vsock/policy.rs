// SPDX-License-Identifier: GPL-2.0

//! What a guest may do, and who may do something with it.
//!
//! Who may connect is looked at when a connection begins, and never after that: it costs those that
//! are there nothing, and they stay when it changes. A rate is what [`pace`](crate::pace) keeps. A
//! policy belongs to the device, whatever CID, owner or network that has, and whoever has the
//! descriptor.
//!
//! Who has the descriptor may only tighten it: what an administrator set, and what the owner gave
//! up itself, is not undone by a VMM that is taken over. What was locked is not undone by anybody.
//!
//! # Locks
//!
//! Readers use RCU. Writers have a mutex, with which nothing else is locked but what the
//! [`Pace`](crate::pace::Pace) of a direction locks, nor memory of the caller read.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        rcu,
        Arc,
        Mutex, //
    }, //
};
use kernel_ext::{
    rcu::RcuSlot,
    user::is_administrator, //
};
use vsock_proto::pace::Rate;

/// A port or more, or a user.
pub(crate) type Entries = Arc<KVec<[u32; 2]>>;

/// What was set; the default is that nothing was.
#[derive(Clone, Default)]
pub(crate) struct Policy {
    /// 0 is any number.
    pub(crate) max_connections: u32,
    /// First and last ones.
    pub(crate) ports: Option<Entries>,
    /// As if they were ranges of one.
    pub(crate) users: Option<Entries>,
    /// Of packets to the guest.
    pub(crate) to_guest: Rate,
    /// Of packets from it.
    pub(crate) from_guest: Rate,
    /// An administrator locked it.
    pub(crate) locked: bool,
}

/// Whether `value` is in one of the ranges, or there are none.
pub(crate) fn has(entries: &Option<Entries>, value: u32) -> bool {
    entries.as_ref().is_none_or(|ranges| {
        let mut ranges = ranges.iter();
        ranges.any(|[first, last]| (*first..=*last).contains(&value))
    })
}

/// Whether nothing is in `new` that is not in `old`.
fn is_within(new: &Option<Entries>, old: &Option<Entries>) -> bool {
    let (Some(new), Some(old)) = (new, old) else {
        return old.is_none();
    };
    new.iter().all(|[first, last]| {
        let mut old = old.iter();
        old.any(|[from, to]| from <= first && last <= to)
    })
}

impl Policy {
    fn is_tighter_than(&self, old: &Self) -> bool {
        let most = |policy: &Self| policy.max_connections.wrapping_sub(1);
        most(self) <= most(old)
            && is_within(&self.ports, &old.ports)
            && is_within(&self.users, &old.users)
            && self.to_guest.is_within(&old.to_guest)
            && self.from_guest.is_within(&old.from_guest)
            && self.locked >= old.locked
    }

    /// How many ranges of ports and how many users there are, if only those.
    pub(crate) fn counts(&self) -> (u32, Option<usize>, Option<usize>) {
        let count = |entries: &Option<Entries>| entries.as_ref().map(|entries| entries.len());
        (self.max_connections, count(&self.ports), count(&self.users))
    }
}

/// The policy of a device.
#[pin_data]
pub(crate) struct Policies {
    now: RcuSlot<Policy>,
    #[pin]
    writers: Mutex<()>,
}

impl Policies {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            now: RcuSlot::new(),
            writers <- new_mutex!((), "vhost_vsock::Policies::writers"),
        })
    }

    /// Does something with the policy, if anything was set.
    ///
    /// Context: any; `f` must not sleep.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&Policy) -> R) -> Option<R> {
        let guard = rcu::read_lock();
        self.now.load(&guard).map(|policy| f(&policy))
    }

    /// What is set now.
    pub(crate) fn get(&self) -> Option<Arc<Policy>> {
        self.now.get()
    }

    /// The device is about to go: nobody begins a connection any more.
    ///
    /// Context: sleeps.
    pub(crate) fn clear(&self) {
        drop(self.now.swap(None));
    }

    /// Changes the policy, and has done what follows from it: `apply` must not lock what is locked
    /// when this is called.
    ///
    /// Context: sleeps.
    ///
    /// # Errors
    ///
    /// `EPERM` if that would allow anything that was not, and the caller is no administrator or the
    /// policy is locked; or if no administrator would lock it. `ENOMEM`.
    pub(crate) fn change(
        &self,
        change: impl FnOnce(&mut Policy),
        apply: impl FnOnce(&Policy),
    ) -> Result {
        let _guard = self.writers.lock();
        let old = self.now.get();
        let old = old.as_deref().cloned().unwrap_or_default();
        let mut new = old.clone();
        change(&mut new);
        let needs_administrator = !new.is_tighter_than(&old) || new.locked != old.locked;
        if needs_administrator && (old.locked || !is_administrator()) {
            return Err(EPERM);
        }
        let new = Arc::new(new, GFP_KERNEL_ACCOUNT)?;
        drop(self.now.swap(Some(new.clone())));
        apply(&new);
        Ok(())
    }
}
