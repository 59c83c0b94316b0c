// SPDX-License-Identifier: GPL-2.0

//! What a device did, in numbers.

use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};
use kernel_ext::peek::Peek;

/// A number that only grows.
pub(crate) struct Counter(Atomic<u64>);

impl Counter {
    pub(crate) const fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// Adds to the counter; the caller holds the lock of the queue that the counter is of.
    #[inline]
    pub(crate) fn add(&self, n: usize) {
        // It wraps after longer than anybody looks.
        self.0.poke(self.0.peek().wrapping_add(n as u64));
    }

    /// As [`add`](Self::add), for those who hold no lock.
    #[cold]
    pub(crate) fn add_shared(&self, n: usize) {
        self.0.fetch_add(n as u64, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.peek()
    }
}

/// Counters of a device.
pub(crate) struct Stats {
    /// Packets, or pieces of them, that the guest got.
    pub(crate) to_guest: Counter,
    /// Their payload.
    pub(crate) to_guest_bytes: Counter,
    /// Packets of the guest.
    pub(crate) from_guest: Counter,
    /// Their payload.
    pub(crate) from_guest_bytes: Counter,
    /// Chains of the guest that were no packet.
    pub(crate) malformed: Counter,
    /// Packets of the guest that do not come from it, or are not for the host.
    pub(crate) misaddressed: Counter,
    /// Buffers of the guest that no packet could be put into.
    pub(crate) bad_buffers: Counter,
    /// Packets that their sender put into the guest's buffers.
    pub(crate) direct: Counter,
    /// How often a sender could not, as somebody else worked on the ring.
    pub(crate) busy: Counter,
    /// Likewise, as there was no buffer.
    pub(crate) no_buffer: Counter,
    /// Likewise, as the worker was needed: mostly for memory that is not mapped.
    pub(crate) unmapped: Counter,
    /// Connections that were too many for the [policy](crate::policy).
    pub(crate) denied_connections: Counter,
    /// Connections of the guest to a port that it may not reach.
    pub(crate) denied_ports: Counter,
    /// Connections to the guest of a user who may not.
    pub(crate) denied_users: Counter,
}

impl Stats {
    pub(crate) fn new() -> Self {
        Self {
            to_guest: Counter::new(),
            to_guest_bytes: Counter::new(),
            from_guest: Counter::new(),
            from_guest_bytes: Counter::new(),
            malformed: Counter::new(),
            misaddressed: Counter::new(),
            bad_buffers: Counter::new(),
            direct: Counter::new(),
            busy: Counter::new(),
            no_buffer: Counter::new(),
            unmapped: Counter::new(),
            denied_connections: Counter::new(),
            denied_ports: Counter::new(),
            denied_users: Counter::new(),
        }
    }

    /// How many connections the [policy](crate::policy) did not allow.
    pub(crate) fn denied(&self) -> u64 {
        self.denied_connections
            .get()
            .wrapping_add(self.denied_ports.get())
            .wrapping_add(self.denied_users.get())
    }
}
