// SPDX-License-Identifier: GPL-2.0

//! Holding a guest back that does not take the replies to what it sends.
//!
//! A packet of the guest may be answered by one of ours. So that these do not pile up, the queue
//! from the guest is not worked on while as many replies wait as its ring has entries.

use kernel::sync::{
    atomic::{
        Atomic,
        Full,
        Relaxed, //
    },
    barrier::smp_mb, //
};
use kernel_ext::peek::Peek;
use virtio_transport_common::SendQueue;

/// Whether the guest is held back.
pub(crate) struct Throttle {
    /// With how many replies it may go on: with less than this. 0 if it is not held back.
    limit: Atomic<u32>,
}

impl Throttle {
    pub(crate) fn new() -> Self {
        Self {
            limit: Atomic::new(0),
        }
    }

    /// Says whether the guest has to wait, since there are `limit` replies.
    ///
    /// If so, the next [`resume`](Self::resume) after there are less says so.
    pub(crate) fn hold(&self, queue: &SendQueue, limit: u16) -> bool {
        if queue.replies() < usize::from(limit) {
            return false;
        }
        self.limit.store(u32::from(limit), Relaxed);
        // Pairs with the one in `resume()`: either that sees the limit, or this sees that there are
        // less replies.
        smp_mb(Full);
        if queue.replies() < usize::from(limit) {
            self.limit.store(0, Relaxed);
            return false;
        }
        true
    }

    /// Says whether the guest may go on, after replies were taken out of the queue. Only one caller
    /// is told so.
    pub(crate) fn resume(&self, queue: &SendQueue) -> bool {
        // Pairs with the one in `hold()`.
        smp_mb(Full);
        let limit = self.limit.peek();
        // CAST: From 16 bits, stored above.
        limit != 0 && queue.replies() < limit as usize && self.limit.xchg(0, Full) != 0
    }

    /// Says whether the guest is held back, for those who are curious.
    pub(crate) fn is_held(&self) -> bool {
        self.limit.peek() != 0
    }
}
