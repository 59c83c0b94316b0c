// SPDX-License-Identifier: GPL-2.0

//! What a connection has for the queue that its packets wait in.

use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};
use kernel_ext::{
    flow_queue,
    peek::Peek, //
};
use vsock_proto::turns::Turn;

/// The packets of a connection in a queue. It is in one queue at a time, as long as it has packets
/// there.
pub(crate) type Flow = flow_queue::Flow<Turn>;

/// How often the packets of a connection were [purged](crate::SendQueue::purge), modulo the size of
/// the number.
pub(crate) struct Purges(Atomic<u32>);

impl Purges {
    pub(crate) const fn new() -> Self {
        Self(Atomic::new(0))
    }

    #[inline]
    pub(crate) fn get(&self) -> u32 {
        self.0.peek()
    }

    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}
