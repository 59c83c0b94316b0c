// SPDX-License-Identifier: GPL-2.0

//! A work that does something once in a second, as long as there is somebody to do it for.
//!
//! # Ownership
//!
//! A [`WatchSlot`] has a reference to its [`Watch`], the queued work another. [`end`] empties the
//! slot and waits for the work.

use crate::armed::Armed;
use kernel::{
    impl_has_work,
    new_condvar,
    new_mutex,
    new_work,
    prelude::*,
    sync::{
        rcu,
        Arc,
        CondVar,
        CondVarTimeoutResult,
        Mutex, //
    },
    time::msecs_to_jiffies,
    workqueue::{
        Work,
        WorkItem, //
    }, //
};
use kernel_ext::{
    rcu::RcuSlot,
    work::WorkQueue, //
};

/// Where a [`Watch`] is: a `static`.
pub type WatchSlot = RcuSlot<Watch>;

/// The work.
#[pin_data]
pub struct Watch {
    queue: WorkQueue,
    #[pin]
    work: Work<Watch>,
    armed: Armed,
    /// What is done once in a second: says whether there is somebody to do it for. May sleep.
    round: fn() -> bool,
    /// The work is to end.
    #[pin]
    stop: Mutex<bool>,
    #[pin]
    stopped: CondVar,
}

impl_has_work! {
    impl HasWork<Self> for Watch { self.work }
}

impl Watch {
    /// Waits for a second; false if the work is to end.
    fn second(&self) -> bool {
        let mut stop = self.stop.lock();
        let mut left = msecs_to_jiffies(1000);
        while !*stop {
            left = match self.stopped.wait_interruptible_timeout(&mut stop, left) {
                CondVarTimeoutResult::Woken { jiffies } => jiffies,
                CondVarTimeoutResult::Timeout => return !*stop,
                // A worker gets no signals.
                CondVarTimeoutResult::Signal { .. } => return false,
            };
        }
        false
    }
}

impl WorkItem for Watch {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let mut idle = false;
        while this.second() {
            if !this.armed.looked((this.round)(), &mut idle) {
                return;
            }
        }
    }
}

/// Makes the watch of a slot, where there was none.
///
/// Context: may sleep.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn begin(slot: &WatchSlot, round: fn() -> bool) -> Result {
    let watch = Arc::pin_init(
        try_pin_init!(Watch {
            queue: WorkQueue::new(c"vsock_watch")?,
            work <- new_work!("virtio_transport_common::Watch::work"),
            armed: Armed::new(),
            round,
            stop <- new_mutex!(false, "virtio_transport_common::Watch::stop"),
            stopped <- new_condvar!("virtio_transport_common::Watch::stopped"),
        }),
        GFP_KERNEL,
    )?;
    slot.swap(Some(watch));
    Ok(())
}

/// Has the work done within a second, and then once in each, as long as there is somebody to do it
/// for: the caller has seen to it that the work finds that somebody.
///
/// Context: does not sleep.
pub(crate) fn wake(slot: &WatchSlot) {
    let guard = rcu::read_lock();
    let Some(watch) = slot.load(&guard) else {
        return;
    };
    if watch.armed.set() {
        watch.queue.queue(Arc::from(watch));
    }
}

/// Ends the watch of a slot: its work runs no more.
///
/// Context: may sleep.
pub(crate) fn end(slot: &WatchSlot) {
    if let Some(watch) = slot.swap(None) {
        *watch.stop.lock() = true;
        watch.stopped.notify_all();
        // Nobody queues it any more. Ours is the last reference, as a work has none once it is
        // done: thus the queue is not destroyed by its own work.
        watch.queue.flush();
    }
}
