// SPDX-License-Identifier: GPL-2.0

//! The way out: packets from the sockets to the device.

use crate::{
    device::{
        queue_work,
        Broken,
        Device,
        Guest,
        SEND_WORK, //
    },
    params,
    queues::LiveTx, //
};
use kernel::{
    pr_warn_once,
    prelude::*,
    sync::ArcBorrow,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};
use kernel_ext::gfp::Gfp;
use virtio_transport_common::{
    abort_connection,
    TxPacket, //
};

/// Most packets that are sent at once with the lock held, which keeps softirqs away.
const RUN: usize = 128;

/// How long to wait for memory when the device has nothing to complete.
const NO_MEMORY_DELAY: Delta = Delta::from_millis(20);

/// `VIRTIO_F_ANY_LAYOUT`: a device of before virtio 1 that does not care how a buffer is split.
const F_ANY_LAYOUT: u32 = 27;
/// `VIRTIO_F_VERSION_1`, which includes that.
const F_VERSION_1: u32 = 32;

/// What is left to do after packets were sent, without the lock.
enum Outcome {
    /// All are sent, or the device will say when it has room for more.
    Done,
    /// There may be more; others get their turn first.
    Again,
    /// Memory is short, or what a device needs to get at it is.
    Retry,
    /// The device broke the queue.
    Broken(Broken),
    /// The packet has more parts than the queue has descriptors. It was cut.
    Unfit(TxPacket),
}

/// Gives a packet to the device, or back. The device is not told. What comes after a packet that
/// was cut is dropped.
fn post(queue: &mut LiveTx<'_>, mut packet: TxPacket) -> Result<(), (Error, TxPacket)> {
    if packet.is_cut() {
        return Ok(());
    }
    packet.stamp();
    packet.deliver_tap();
    let awaited = packet.is_awaited();
    queue
        .add_out(packet.into_skb(), Gfp::Atomic)
        .map_err(|(e, skb)| (e, TxPacket::from_skb(skb)))?;
    queue.state().add(awaited);
    Ok(())
}

/// Prepares the send queue of a device that starts.
pub(crate) fn start(queue: &mut LiveTx<'_>) {
    let device = queue.device();
    let any_layout = device.has_feature(F_VERSION_1) || device.has_feature(F_ANY_LAYOUT);
    queue.join_parts(any_layout && !params::split_header());
}

impl Device {
    /// Sends a packet now if that is possible, or queues it.
    ///
    /// Context: does not sleep; a socket lock may be held.
    ///
    /// # Errors
    ///
    /// `ENODEV` if there is no way to where the packet goes.
    pub(crate) fn send(self: ArcBorrow<'_, Self>, packet: TxPacket) -> Result {
        if self.is_broken() {
            return Err(ENODEV);
        }
        // A packet to ourselves has another transport. One that answers a CID that is none goes to
        // the device, which knows whom it heard.
        if packet.dst().is_ok_and(|dst| dst.cid == self.cid()) {
            return Err(ENODEV);
        }

        let Err(packet) = self.send_now(packet) else {
            return Ok(());
        };
        self.send_queue.push_back(packet)?;
        queue_work::<SEND_WORK>(self);
        Ok(())
    }

    /// Gives a packet to the device, if nothing waits before it, or gives it back.
    fn send_now(self: ArcBorrow<'_, Self>, packet: TxPacket) -> Result<(), TxPacket> {
        let Some(mut queue) = self.tx.try_lock() else {
            return Err(packet);
        };
        // Packets of a socket stay in order: what it queued before is in the queue. It has to be
        // looked at with the lock held, as the work has a packet in hand that it may put back.
        if !self.send_queue.is_empty() {
            return Err(packet);
        }
        let mut found = self.reap_now_and_then(&mut queue);
        // Whatever the reason is, the work finds out about it.
        let ret = post(&mut queue, packet).map_err(|(_, packet)| packet);
        if ret.is_ok() {
            queue.kick();
            self.watch();
            while self.arm(&mut queue) {
                found |= self.reap(&mut queue);
            }
        }
        self.unblock(queue, found);
        ret
    }

    /// Drops what the device has sent, and sends what was queued meanwhile. Packets may be received
    /// again after this, see [`resume_rx`](Self::resume_rx).
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// If the device broke the queue.
    pub(crate) fn reap_and_send(self: ArcBorrow<'_, Self>) -> Result<(), Broken> {
        let Some(mut queue) = self.tx.lock() else {
            return Ok(());
        };
        let outcome = loop {
            self.reap(&mut queue);
            let outcome = self.post_queued(&mut queue);
            // Again, if there may be no interrupt for something that was used just now.
            if !matches!(outcome, Outcome::Done) || !self.arm(&mut queue) {
                break outcome;
            }
        };
        if queue.posted() > 0 {
            self.watch();
        }
        drop(queue);
        self.finish(outcome)
    }

    /// Gives queued packets to the device, until there are no more or it has no room.
    fn post_queued(&self, queue: &mut LiveTx<'_>) -> Outcome {
        let mut posted = false;
        queue.state().blocked = false;
        let mut left = RUN;
        let outcome = loop {
            if left == 0 {
                break Outcome::Again;
            }
            left = left.saturating_sub(1);
            let Some(packet) = self.send_queue.pop() else {
                break Outcome::Done;
            };
            let (e, packet) = match post(queue, packet) {
                Ok(()) => {
                    posted = true;
                    continue;
                }
                Err(failure) => failure,
            };
            if queue.is_broken() {
                break Outcome::Broken(self.broken_tx());
            }
            if e == EMSGSIZE {
                // Now, as long as nobody else can send what comes after it.
                packet.cut();
                break Outcome::Unfit(packet);
            }
            self.send_queue.push_front(packet);
            break if queue.posted() == 0 {
                Outcome::Retry
            } else {
                // The work runs again when the device has used some of those that it has.
                queue.state().blocked = true;
                Outcome::Done
            };
        };
        if posted {
            queue.kick();
        }
        if queue.is_broken() {
            return Outcome::Broken(self.broken_tx());
        }
        outcome
    }

    /// With the lock of the queue, which is broken.
    fn broken_tx(&self) -> Broken {
        Broken {
            queue: "send",
            epoch: self.epoch(),
        }
    }

    fn finish(self: ArcBorrow<'_, Self>, outcome: Outcome) -> Result<(), Broken> {
        match outcome {
            Outcome::Done => {}
            Outcome::Again => queue_work::<SEND_WORK>(self),
            Outcome::Retry => {
                fsleep(NO_MEMORY_DELAY);
                queue_work::<SEND_WORK>(self);
            }
            Outcome::Broken(broken) => return Err(broken),
            Outcome::Unfit(packet) => {
                pr_warn_once!("a packet does not fit the device's queue\n");
                // Its bytes are lost, hence its connection is.
                abort_connection::<Guest>(packet);
                queue_work::<SEND_WORK>(self);
            }
        }
        Ok(())
    }
}
