// SPDX-License-Identifier: GPL-2.0

//! What a connection has of a queue of packets. The queues are those of the carriers of the models.

use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};
use kernel_ext::peek::Peek;
use vsock_proto::turns::Turn;

/// Its packets there: they are in the one list of the carrier.
pub(crate) struct Flow;

impl Flow {
    pub(crate) fn new(_turn: Turn) -> Self {
        Self
    }
}

/// How often they were purged.
pub(crate) struct Purges(Atomic<u32>);

impl Purges {
    pub(crate) const fn new() -> Self {
        Self(Atomic::new(0))
    }

    pub(crate) fn get(&self) -> u32 {
        self.0.peek()
    }

    pub(crate) fn add(&self) {
        self.0.store(self.get() + 1, Relaxed);
    }
}
