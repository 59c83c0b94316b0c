// SPDX-License-Identifier: GPL-2.0

//! What a kick of the driver does.
//!
//! A kick is a write to an eventfd, mostly by the thread of the owner that runs the guest: KVM does
//! it in the middle of that thread's system call. The work of the queue is then done by that thread
//! itself, *inline*, before it goes back to the guest: no worker has to be woken up. Everything
//! else is for the worker: kicks by somebody else, what an inline run leaves, and all of it while
//! there is so much to do that the guest had better go on meanwhile.
//!
//! # The law of an inline run
//!
//! It waits for nothing that user space can hold up, and ends after a
//! [budget](crate::chain::Budget::inline) which is small. The lock of the queue is tried; memory
//! that is not there fails ([`MmId::without_faults`]), a socket is not locked, memory is not made.
//! Whatever does not work is left as it was, and to the worker, which finds it again: the chain
//! that could not be taken is the next one there, so that the order stays.
//!
//! # No kick is lost
//!
//! The driver makes a chain available, then kicks. Whoever works on the queue last looks at the
//! ring after asking for kicks. A kick either hands the work over to the current thread, which
//! looks at the ring after that (see [`ReturnWork`]); or that thread has it already, and will look;
//! or the worker gets it: if another thread has the work, since nobody knows how long that one
//! takes until it is back, and if an inline run finds the queue locked, since whoever has the lock
//! may have looked for the last time.
//!
//! # The end
//!
//! A thread that has the work to do owns a reference to this, not to the device: the device is
//! found by the worker's slot, which is emptied when the file is closed. Thus closing waits for
//! nobody who has not begun. An inline run that has begun has a reference to the device, and the
//! lock of the queue while it does anything; the device may thus be freed by that thread.
//!
//! Stopping a queue takes its lock: afterwards a thread that still has the work finds nothing to
//! do.

use crate::{
    inline::{
        Counts,
        Inlined,
        Left,
        Pace, //
    },
    worker::{
        NoWorker,
        WorkId,
        WorkerSlot,
        Works, //
    },
};
use kernel::{
    prelude::*,
    sync::{
        rcu,
        Arc,
        ArcBorrow,
        SetOnce, //
    }, //
};
use kernel_ext::{
    clock,
    kick::Kick,
    owner_mm::{
        MmId,
        OwnerMm, //
    },
    return_work::{
        Handed,
        HomeSlot,
        OnReturn,
        ReturnWork, //
    },
};

/// What is done when an eventfd is signalled: a work of a device.
pub(crate) struct KickWork {
    pub(crate) slot: WorkerSlot,
    pub(crate) work: WorkId,
    /// The owner, if its threads may do the work.
    owner: SetOnce<MmId>,
    is_inline: bool,
    pace: Pace,
    pub(crate) counts: Counts,
}

impl KickWork {
    /// A work without a worker. `is_inline` says whether threads of the owner may do it, when there
    /// is an owner.
    ///
    /// # Errors
    ///
    /// Those of [`ReturnWork::new`].
    pub(crate) fn new(
        home: &'static HomeSlot,
        work: WorkId,
        is_inline: bool,
    ) -> Result<Arc<ReturnWork<Self>>> {
        let this = Self {
            slot: WorkerSlot::new(),
            work,
            owner: SetOnce::new(),
            is_inline,
            pace: Pace::new(),
            counts: Counts::new(),
        };
        ReturnWork::new(home, this)
    }

    /// The device has an owner, until it is closed.
    pub(crate) fn set_owner(&self, mm: &OwnerMm) {
        if self.is_inline {
            self.owner.populate(MmId::of(mm));
        }
    }

    /// Whether kicks may be served inline at all.
    pub(crate) fn may_be_inline(&self) -> bool {
        self.owner.as_ref().is_some()
    }

    /// Queues the work with the worker.
    ///
    /// A kick that nobody is there for is not an error: whoever starts the device looks at the
    /// ring.
    #[inline]
    fn pass(&self) {
        let _: Result<(), NoWorker> = self.slot.queue(self.work);
    }

    /// The device, if there is a worker that takes what is left.
    fn works(&self) -> Option<Arc<dyn Works>> {
        self.slot.works(&rcu::read_lock())
    }
}

impl Kick for KickWork {
    #[inline]
    fn kick(this: ArcBorrow<'_, ReturnWork<Self>>) {
        if let Some(owner) = this.owner.as_ref() {
            if this.pace.is_inline() && owner.has_caller() {
                if ReturnWork::hand_to_current(this) == Handed::Current {
                    return;
                }
            }
            this.counts.passed.add();
        }
        this.pass();
    }
}

impl OnReturn for KickWork {
    fn on_return(this: &ReturnWork<Self>) {
        // Without a worker, and a device, there is nothing to do.
        let (Some(owner), Some(works)) = (this.owner.as_ref(), this.works()) else {
            return;
        };
        let begin = clock::local_nanos();
        let ended = owner.without_faults(|mm| works.run_inline(this.work, mm, begin));
        let end = clock::local_nanos();
        // A thread that ends has no memory any more.
        let ended = ended.unwrap_or(Inlined::Left(Left::Unready));
        this.counts.note(ended, end.wrapping_sub(begin));
        this.pace.note(ended, begin, end);
        if !ended.is_done() {
            this.pass();
        }
    }
}
