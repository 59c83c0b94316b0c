// SPDX-License-Identifier: GPL-2.0

//! Workqueues of our own, that can be flushed.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h).

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    prelude::*,
    sync::Arc,
    workqueue::{
        Queue,
        RawWorkItem, //
    },
};

/// An allocated workqueue; dropping it waits for its works and destroys it.
///
/// Context: creation, [`flush`](Self::flush) and drop sleep; [`queue`](Self::queue) may be called
/// from any context.
///
/// # Invariants
///
/// `0` is a workqueue that was allocated by `alloc_workqueue()` and not destroyed.
pub struct WorkQueue(NonNull<bindings::workqueue_struct>);

// SAFETY: A workqueue is used from any thread.
unsafe impl Send for WorkQueue {}
// SAFETY: A workqueue does its own locking.
unsafe impl Sync for WorkQueue {}

impl WorkQueue {
    /// Allocates a workqueue that runs a work on the CPU that queued it (`WQ_PERCPU`).
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(name: &CStr) -> Result<Self> {
        Self::with_flags(name, bindings::wq_flags_WQ_PERCPU)
    }

    /// As [`new`](Self::new), of a workqueue that runs works in softirqs (`WQ_BH`), right after the
    /// interrupt that queued them: they do not sleep. In real-time kernels that is a thread.
    ///
    /// A work is dropped there, too: its reference must not be the last one of something whose end
    /// sleeps. Who releases such a thing [flushes](Self::flush) the queue first.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new_bh(name: &CStr) -> Result<Self> {
        Self::with_flags(
            name,
            bindings::wq_flags_WQ_BH | bindings::wq_flags_WQ_PERCPU,
        )
    }

    fn with_flags(name: &CStr, flags: c_uint) -> Result<Self> {
        // SAFETY: The name is copied; `%s` is the format.
        let wq = unsafe { bindings::alloc_workqueue(name.as_char_ptr(), flags) };
        // INVARIANT: The queue was just allocated.
        NonNull::new(wq).map(Self).ok_or(ENOMEM)
    }

    /// Queues a work item, and says whether it was not queued before.
    ///
    /// The queue owns the reference until the work starts; if the item is queued already, the
    /// reference is dropped.
    #[inline]
    pub fn queue<T, const ID: u64>(&self, work: Arc<T>) -> bool
    where
        Arc<T>: RawWorkItem<ID, EnqueueOutput = Result<(), Arc<T>>> + Send + 'static,
    {
        // SAFETY: By the type invariants, the queue is alive for as long as `self`.
        let queue = unsafe { Queue::from_raw(self.0.as_ptr()) };
        queue.enqueue::<Arc<T>, ID>(work).is_ok()
    }

    /// Waits until all works that were queued before the call are done.
    pub fn flush(&self) {
        // SAFETY: By the type invariants, the queue is alive.
        unsafe { bindings::flush_workqueue(self.0.as_ptr()) };
    }
}

impl Drop for WorkQueue {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the queue is alive; nobody can refer to it any more.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) };
    }
}
