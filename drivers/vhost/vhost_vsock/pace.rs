// SPDX-License-Identifier: GPL-2.0

//! Holding one direction of a guest's packets to a rate.
//!
//! Whoever works on a ring asks before each packet, and leaves the ring alone if that has to wait:
//! what the guest offered stays in the ring, what it is to get stays in the queue, and senders wait
//! for credit as they do for any slow peer. Nobody sleeps, and no other guest notices. When the
//! time has come, a timer queues the work of the ring.
//!
//! A rate belongs to the device: to stop it, another CID, or another descriptor of it change
//! nothing.
//!
//! # Ownership
//!
//! The device has the pace and, while somebody waits, the [`Waiting`] has another reference to the
//! timer. It is dropped in [`Pace::end`] at the latest, which waits for a timer that is just
//! running: no code of this module runs after that.
//!
//! # Locks
//!
//! `pacer` and `waiting` are taken with the lock of the ring held, or with nothing, and nothing is
//! taken with them. The timer, which runs in interrupts, takes neither.

use crate::stats::Counter;
use kernel::{
    impl_has_hr_timer, new_mutex, new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        ArcBorrow,
        Mutex,
        SpinLock, //
    },
    time::{
        hrtimer::{
            ArcHrTimerHandle,
            HrTimer,
            HrTimerCallback,
            HrTimerCallbackContext,
            HrTimerPointer,
            HrTimerRestart,
            RelativeMode, //
        },
        Delta,
        Monotonic, //
    },
};
use kernel_ext::{
    clock::monotonic_nanos,
    peek::Peek, //
};
use vhost_core::virtqueue::Virtqueue;
use vsock_proto::pace::{
    Pacer,
    Rate, //
};

/// The timer of a pace.
#[pin_data]
struct Alarm {
    queue: Arc<Virtqueue>,
    #[pin]
    timer: HrTimer<Self>,
}

impl_has_hr_timer! {
    impl HasHrTimer<Self> for Alarm {
        mode: RelativeMode<Monotonic>, field: self.timer
    }
}

impl HrTimerCallback for Alarm {
    type Pointer<'a> = Arc<Self>;

    fn run(
        this: ArcBorrow<'_, Self>,
        _context: HrTimerCallbackContext<'_, Self>,
    ) -> HrTimerRestart {
        // Without a worker, the guest is not served anyway.
        let _ = this.queue.queue_work();
        HrTimerRestart::NoRestart
    }
}

/// That somebody waits, or did; dropping it waits for the timer, if that is just running.
type Waiting = ArcHrTimerHandle<Alarm>;

/// The rate of one direction.
#[pin_data]
pub(crate) struct Pace {
    /// Whether there is a rate: all that is looked at for others.
    on: Atomic<bool>,
    alarm: Arc<Alarm>,
    #[pin]
    pacer: SpinLock<Pacer>,
    #[pin]
    waiting: Mutex<Option<Waiting>>,
    /// How often somebody found that the next packet has to wait.
    pub(crate) held: Counter,
}

fn now() -> u64 {
    u64::try_from(monotonic_nanos()).unwrap_or(0)
}

impl Pace {
    /// The pace of a queue, without a rate.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(queue: &Arc<Virtqueue>) -> impl PinInit<Self, Error> {
        let queue = queue.clone();
        pin_init::pin_init_scope(move || {
            let alarm = Arc::pin_init(
                pin_init!(Alarm {
                    queue,
                    timer <- HrTimer::new(),
                }),
                GFP_KERNEL_ACCOUNT,
            )?;
            Ok(try_pin_init!(Self {
                on: Atomic::new(false),
                alarm,
                pacer <- new_spinlock!(Pacer::new(), "vhost_vsock::Pace::pacer"),
                waiting <- new_mutex!(None, "vhost_vsock::Pace::waiting"),
                held: Counter::new(),
            }))
        })
    }

    /// Sets the rate, from now on.
    ///
    /// Context: sleeps.
    pub(crate) fn set(&self, rate: Rate) {
        self.pacer.lock().set(now(), rate);
        self.on.store(rate.is_set(), Relaxed);
        // Who waits may wait less from now on. Without a worker, nobody does.
        let _ = self.alarm.queue.queue_work();
    }

    /// Says whether the next packet has to wait. If so, the work of the queue is queued when it may
    /// go.
    ///
    /// Context: sleeps, but for nobody; the queue is locked.
    #[inline]
    pub(crate) fn holds(&self) -> bool {
        self.on.peek() && self.wait()
    }

    /// As [`holds`](Self::holds), for those who leave the packet to the work of the queue, which
    /// they queue.
    #[inline]
    pub(crate) fn is_spent(&self) -> bool {
        self.on.peek() && self.pacer.lock().wait(now()).is_some()
    }

    #[cold]
    fn wait(&self) -> bool {
        let Some(nanos) = self.pacer.lock().wait(now()) else {
            return false;
        };
        self.held.add_shared(1);
        let mut waiting = self.waiting.lock();
        // Before it is set again, as this cancels it.
        drop(waiting.take());
        let wait = Delta::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX));
        *waiting = Some(self.alarm.clone().start(wait));
        true
    }

    /// A packet with so much payload went.
    ///
    /// Context: the queue is locked.
    #[inline]
    pub(crate) fn spend(&self, payload: usize) {
        if self.on.peek() {
            self.spend_some(payload);
        }
    }

    #[cold]
    fn spend_some(&self, payload: usize) {
        self.pacer.lock().spend(now(), payload);
    }

    /// Nobody works on the queue any more: nor does the timer.
    ///
    /// Context: sleeps.
    pub(crate) fn end(&self) {
        drop(self.waiting.lock().take());
    }
}
