// SPDX-License-Identifier: GPL-2.0

//! Events of the device.

use crate::{
    address::Void,
    device::{
        queue_work,
        Broken,
        Device,
        Guest,
        EVENT_WORK,
        RESET_WORK, //
    },
    queues::LiveEvents, //
};
use kernel::{
    pr_err_once,
    prelude::*,
    sync::{
        atomic::{
            Full,
            Relaxed, //
        },
        ArcBorrow, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};
use kernel_ext::{
    gfp::Gfp,
    virtio::InBox, //
};
use vsock_proto::header::{
    Event,
    EVENT_TRANSPORT_RESET, //
};

/// How many events the device can have on their way.
const BUFFERS: usize = 8;

/// Most events that one run of the work takes.
const BUDGET: usize = 64;

/// How long the connections are left alone after they were reset, whatever the device says.
const RESET_INTERVAL: Delta = Delta::from_millis(10);

/// What a run of the work found.
struct Found {
    /// The connections are void, whether once or several times.
    reset: bool,
    /// There may be more events.
    more: bool,
}

impl Device {
    /// Fills the event queue.
    pub(crate) fn start_event(&self) -> Result {
        let mut queue = self.event.lock().ok_or(ENODEV)?;
        for _ in 0..BUFFERS {
            if queue.num_free() == 0 {
                break;
            }
            let buf = InBox::new(GFP_KERNEL)?;
            queue.add_in(buf, Gfp::Kernel).map_err(|(e, _)| e)?;
        }
        queue.kick();
        Ok(())
    }

    /// The work that handles events.
    ///
    /// # Errors
    ///
    /// If the device broke the queue.
    pub(crate) fn handle_events(self: ArcBorrow<'_, Self>) -> Result<(), Broken> {
        let Some(mut queue) = self.event.lock() else {
            return Ok(());
        };
        let found = take_events(&mut queue);
        if found.reset {
            let void = self.address.take(queue.device()).unwrap_or_else(|_| {
                pr_err_once!("the device has no valid CID for us, the old one is kept\n");
                Void::All
            });
            if void == Void::All {
                self.void.store(true, Relaxed);
            }
        }
        let (broken, epoch) = (queue.is_broken(), self.epoch());
        drop(queue);

        if broken {
            return Err(Broken {
                queue: "event",
                epoch,
            });
        }
        if found.reset {
            queue_work::<RESET_WORK>(self);
        }
        if found.more {
            queue_work::<EVENT_WORK>(self);
        }
        Ok(())
    }

    /// The work that ends connections: all of them after events that said so, or those of a former
    /// address after a packet for another one.
    ///
    /// An event that comes while it runs queues it again, for when it is done: the first of many is
    /// obeyed at once, and the last one within an interval.
    pub(crate) fn reset_transport(&self) {
        let all = self.void.xchg(false, Full);
        let own = self.cid();
        Guest::reset(|one| self.is_current() && (all || one.local != own));
        fsleep(RESET_INTERVAL);
    }
}

/// Takes events, and gives the buffers back.
fn take_events(queue: &mut LiveEvents<'_>) -> Found {
    let mut reset = false;
    let mut given_back = false;
    let mut left = BUDGET;
    let more = loop {
        queue.disable_cb();
        while left > 0 {
            let Some((mut buf, written)) = queue.pop() else {
                break;
            };
            left = left.saturating_sub(1);
            reset |= written.is(size_of::<Event>()) && buf.get().id() == EVENT_TRANSPORT_RESET;
            buf.wipe();
            // Cannot fail unless the queue is broken: there was room for it before.
            given_back |= queue.add_in(buf, Gfp::Kernel).is_ok();
        }
        if left == 0 {
            break true;
        }
        if queue.enable_cb() {
            break false;
        }
    };
    if given_back {
        queue.kick();
    }
    Found { reset, more }
}
