// SPDX-License-Identifier: GPL-2.0

//! Packets that the device has read: when they are dropped.
//!
//! Nobody is in a hurry for that but who waits for it, and an interrupt costs more than to send a
//! small packet. So the device is asked for none as a rule. Packets that it used are looked for
//!
//! - when others are sent, now and then,
//! - after packets were received,
//! - by who asks how much is unsent, or has no memory left to send more ([`Carrier::reap`]),
//! - by a work, some milliseconds after the first one was sent, which is the last resort: what a
//!   packet holds, maybe a socket that was closed, is not held for more than 20 ms after the device
//!   used it.
//!
//! The device is asked for interrupts as long as somebody waits: packets in the [`SendQueue`] for
//! room in the ring, which need not be told before much of it is free; a user for the pages of
//! `MSG_ZEROCOPY`; or the callers of [`Carrier::reap`].
//!
//! # Locks
//!
//! [`Sent`] is under the lock of the send queue (`tx`). Packets are dropped with that lock held,
//! and maybe a socket locked: that wakes up writers, takes the locks of books, and may free a
//! socket that was closed, all of which never sleeps.
//!
//! Whoever drops packets while others wait for room ([`Sent::blocked`]) queues the work that sends
//! those: their interrupt may not come any more.
//!
//! [`Carrier::reap`]: virtio_transport_common::Carrier::reap
//! [`SendQueue`]: virtio_transport_common::SendQueue

use crate::{
    device::{
        queue_work,
        Device,
        REAP_WORK,
        SEND_WORK,
        TX_WORK, //
    },
    queues::{
        LiveTx,
        Sent, //
    }, //
};
use kernel::{
    sync::{
        atomic::Relaxed,
        ArcBorrow, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};
use kernel_ext::peek::Peek;
use virtio_transport_common::TxPacket;

/// How many packets are sent before those that the device used are looked for.
const BATCH: usize = 16;

/// How long the last resort waits. A packet that is sent right before it looks, and is used right
/// after that, is found by the next look: twice as much is less than 20 ms, whatever the clock's
/// ticks are.
const LAST_RESORT: Delta = Delta::from_millis(8);

impl Device {
    /// Begins anew with a queue that is empty.
    pub(crate) fn start_reaping(&self, queue: &mut LiveTx<'_>) {
        *queue.state() = Sent {
            reap_at: BATCH,
            ..Sent::default()
        };
        self.disarm(queue);
    }

    /// The device used packets, or says so.
    ///
    /// Context: hard interrupt.
    #[inline]
    pub(crate) fn sent(self: ArcBorrow<'_, Self>) {
        if self.sending.armed.peek() {
            queue_work::<TX_WORK>(self);
        } else {
            // Nobody asked: it has the interrupt together with another queue, or did not look in
            // time.
            self.watch();
        }
    }

    /// Sees to it that packets are looked for in a while, whoever else does.
    #[inline]
    pub(crate) fn watch(self: ArcBorrow<'_, Self>) {
        // Relaxed: the work takes the lock after it cleared the flag. Who has sent a packet has the
        // lock: if the flag is seen, that work will see the packet.
        let watched = &self.sending.watched;
        if !watched.peek() && !watched.xchg(true, Relaxed) {
            queue_work::<REAP_WORK>(self);
        }
    }

    /// Waits until the work that is the last resort has to look.
    ///
    /// Context: sleeps.
    pub(crate) fn await_last_resort(&self) {
        fsleep(LAST_RESORT);
        self.sending.watched.store(false, Relaxed);
    }

    /// Drops what the device used, if it is time to look, and says whether there was something.
    #[inline]
    pub(crate) fn reap_now_and_then(&self, queue: &mut LiveTx<'_>) -> bool {
        let due = queue.posted() >= queue.state().reap_at || queue.num_free() <= queue.size() / 4;
        due && self.reap(queue)
    }

    /// Drops what the device used, and says whether there was something.
    pub(crate) fn reap(&self, queue: &mut LiveTx<'_>) -> bool {
        let before = queue.state().used;
        // Bounded: there are no new packets while we have the lock.
        while let Some((skb, _)) = queue.pop() {
            drop(TxPacket::from_skb(skb));
            let sent = queue.state();
            sent.used = sent.used.wrapping_add(1);
        }
        let posted = queue.posted();
        let sent = queue.state();
        sent.reap_at = posted.saturating_add(BATCH);
        let (found, wanted) = (sent.used != before, sent.is_wanted());
        if !wanted && self.sending.armed.peek() {
            self.disarm(queue);
        }
        found
    }

    fn disarm(&self, queue: &mut LiveTx<'_>) {
        self.sending.armed.store(false, Relaxed);
        queue.disable_cb();
    }

    /// Asks for an interrupt if it is wanted. Says whether something was used meanwhile, of which
    /// there may be none.
    #[must_use]
    pub(crate) fn arm(&self, queue: &mut LiveTx<'_>) -> bool {
        if queue.is_broken() {
            // There is no interrupt to wait for, and nothing is used any more.
            return false;
        }
        if !queue.state().blocked && self.sending.wanted.peek() {
            self.sending.wanted.store(false, Relaxed);
            let sent = queue.state();
            sent.wanted = sent.posted;
        }
        let sent = queue.state();
        if !sent.is_wanted() {
            return false;
        }
        // A wish that waits for the ring to have room again is one, too.
        let only_room = sent.used >= sent.wanted && !self.sending.wanted.peek();
        // Before there can be one.
        self.sending.armed.store(true, Relaxed);
        // While no packets are received, the peer may wait for us to take some, and use no more of
        // ours until then.
        let done = if only_room && !self.rx_paused.peek() {
            queue.enable_cb_delayed()
        } else {
            queue.enable_cb()
        };
        !done
    }

    /// Drops what the device used, if nobody else is at it. With `wait` somebody waits for all that
    /// was sent: it is told by an interrupt, what is dropped wakes it up.
    ///
    /// Context: does not sleep; a socket lock may be held.
    pub(crate) fn reap_sent(self: ArcBorrow<'_, Self>, wait: bool) {
        if wait {
            self.sending.wanted.store(true, Relaxed);
        }
        let Some(mut queue) = self.tx.try_lock() else {
            if wait {
                queue_work::<TX_WORK>(self);
            }
            return;
        };
        let mut found = self.reap(&mut queue);
        while wait && self.arm(&mut queue) {
            found |= self.reap(&mut queue);
        }
        self.unblock(queue, found);
    }

    /// Gives the lock back. If packets were `found` to be used, those go on that wait for room.
    #[inline]
    pub(crate) fn unblock(self: ArcBorrow<'_, Self>, mut queue: LiveTx<'_>, found: bool) {
        let go_on = found && queue.state().blocked;
        drop(queue);
        if go_on {
            queue_work::<SEND_WORK>(self);
        }
    }

    /// Drops what the device used, after packets were received.
    #[inline]
    pub(crate) fn reap_after_rx(self: ArcBorrow<'_, Self>) {
        // Nothing was sent lately.
        if self.sending.watched.peek() {
            self.reap_sent(false);
        }
    }
}
