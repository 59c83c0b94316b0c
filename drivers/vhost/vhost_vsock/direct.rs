// SPDX-License-Identifier: GPL-2.0

//! From the host to the guest without the worker: who sends a packet puts it into the guest's
//! buffers.
//!
//! # Order
//!
//! Packets are taken out of the queue, and handed over, with the ring locked. A sender does so with
//! the ring locked, too, and only if it finds the queue empty then: what a connection sent before
//! is with the guest. If it cannot finish a packet, that is in the queue before the ring is
//! unlocked, as the first one.
//!
//! # Nothing is left behind
//!
//! Whoever puts a packet into the queue queues the work. There is one exception: a sender that
//! found no buffer has asked the guest to kick, and looked again; the kick comes for sure, and its
//! work waits for the ring.
//!
//! # Signals
//!
//! A guest that is signalled for each packet pays for each. Of a sender that got no data since its
//! last packet, and probably has more, what it copies to the guest's buffers is signalled by the
//! worker, for several packets at once; where there is a packet already, the worker sends it, too:
//! to fill several buffers at a time is cheaper. Small ones wait for a worker that was told and did
//! not begin: the next ones join them, and need no buffer of their own. Who answers or asks, begins
//! or ends a connection, is not made to wait.
//!
//! # What is left to the worker
//!
//! Anything but the plain case: memory that is not mapped, a ring or a buffer that is wrong or of
//! no use, long chains. It finds what the sender found, and decides.

use crate::{
    device::VhostVsock,
    params,
    to_guest, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::Relaxed,
        rcu, //
    },
};
use kernel_ext::peek::Peek;
use vhost_core::{
    chain::Broken,
    direct::{
        MappedActive,
        Next,
        NotNow, //
    },
};
use virtio_transport_common::{
    Outgoing,
    TxPacket, //
};
use vsock_proto::header::HEADER_LEN;

/// How many buffers are filled for a packet: with 64 KiB, more than a Linux guest's of 4 KiB.
const BUFFERS: usize = 20;

/// What became of a packet.
enum Sent {
    /// The guest has it, or it must not be sent any more.
    Done,
    /// It is in the queue, and the work will be queued by the guest's kick.
    Waits,
    /// It is in the queue, for the worker, who has to be told.
    Queued,
    /// Nothing: it is to go to the queue.
    Not(TxPacket),
    /// Nothing: its connection cannot send to the guest.
    Refused(Error),
}

impl VhostVsock {
    /// Sends a packet to the guest, or queues it.
    ///
    /// Context: does not sleep.
    ///
    /// # Errors
    ///
    /// `EHOSTUNREACH` if the guest does not take packets.
    #[inline]
    pub(crate) fn send(&self, packet: TxPacket) -> Result {
        let guard = rcu::read_lock();
        let sent = if self.is_reachable(&guard) {
            self.send_now(packet)
        } else if self.waits_for_start(&packet, &guard) {
            Sent::Not(packet)
        } else {
            drop(guard);
            return Err(EHOSTUNREACH);
        };
        let served = match sent {
            Sent::Done => return Ok(()),
            Sent::Refused(err) => return Err(err),
            Sent::Waits => self.rx.has_worker(&guard),
            Sent::Queued => self.rx.queue_work_under(&guard).is_ok(),
            Sent::Not(packet) => {
                self.queue.push_back(packet)?;
                self.rx.queue_work_under(&guard).is_ok()
            }
        };
        drop(guard);
        if !served {
            // The worker was killed just now. Nobody will send what is in the queue, and maybe
            // `worker_died()` did not see the packet.
            self.queue.purge_all();
            return Err(EHOSTUNREACH);
        }
        Ok(())
    }

    /// Sends a packet to the guest, if that can be done here and now.
    ///
    /// Context: process context. Does not sleep; the socket may be locked, and any queue but the
    /// one to the guest.
    #[inline]
    fn send_now(&self, packet: TxPacket) -> Sent {
        // What is in the queue comes first.
        if !params::direct() || !self.queue.is_empty() || packet.is_bulk() {
            return Sent::Not(packet);
        }
        // It is dropped out here, if at all.
        let mut held = Some(packet);
        let sent = self.rx.try_run(|rx| self.fill_now(rx, &mut held));
        let sent = sent.unwrap_or_else(|why| {
            self.count(why);
            Now::Stuck
        });
        match (sent, held) {
            (Now::Done, _) => Sent::Done,
            (Now::Waits, _) => Sent::Waits,
            (Now::Refused(err), _) => Sent::Refused(err),
            (Now::Stuck, Some(packet)) => Sent::Not(packet),
            (Now::Stuck, None) => Sent::Queued,
        }
    }

    #[cold]
    fn count(&self, why: NotNow) {
        match why {
            NotNow::Busy => self.stats.busy.add_shared(1),
            NotNow::Unmapped => self.stats.unmapped.add_shared(1),
        }
    }

    fn fill_now(&self, rx: &mut MappedActive<'_>, held: &mut Option<TxPacket>) -> Now {
        if !self.queue.is_empty() {
            return Now::Stuck;
        }
        if self.to_guest.is_spent() {
            return Now::Stuck;
        }
        let now = match held {
            Some(packet) if !packet.is_purged() && !packet.is_cut() => self.fill_some(rx, packet),
            _ => return Now::Done,
        };
        let now = now.unwrap_or(Now::Stuck);
        let stays = match now {
            Now::Waits => {
                self.stats.no_buffer.add(1);
                true
            }
            Now::Stuck => held.as_ref().is_some_and(TxPacket::is_begun),
            Now::Done | Now::Refused(_) => false,
        };
        if stays {
            // With the ring locked: the kick finds it, and nothing comes before the rest of it.
            if let Some(Err(err)) = held.take().map(|packet| self.put_first(packet)) {
                return Now::Refused(err);
            }
        }
        now
    }

    /// Puts a packet into the queue, which is empty or has packets of others only.
    fn put_first(&self, packet: TxPacket) -> Result {
        if packet.is_begun() {
            self.queue.push_front(packet);
            return Ok(());
        }
        self.queue.push_back(packet).map(|_| ())
    }

    /// Fills buffers, until the packet is with the guest.
    fn fill_some(
        &self,
        rx: &mut MappedActive<'_>,
        packet: &mut TxPacket,
    ) -> core::result::Result<Now, Broken> {
        rx.disable_notify()?;
        for _ in 0..BUFFERS {
            let mut chain = match rx.pop()? {
                Next::Chain(chain) => chain,
                Next::None => return Ok(Now::Waits),
                Next::Worker => {
                    self.stats.unmapped.add_shared(1);
                    return Ok(Now::Stuck);
                }
            };
            // If it is of no use, the worker finds it again.
            let Ok(piece) = to_guest::copy(packet, &mut chain) else {
                self.stats.unmapped.add_shared(1);
                return Ok(Now::Stuck);
            };
            let put = self.hand_over(piece, chain)?;
            self.buffer_was_good();
            if put.last {
                self.stats.direct.add(1);
                return Ok(Now::Done);
            }
        }
        Ok(Now::Stuck)
    }
}

impl VhostVsock {
    /// Copies what a user sends to the guest's buffers, as far as that can be done here and now.
    ///
    /// Context: as [`send`](Self::send).
    #[inline]
    pub(crate) fn send_from(&self, out: &mut Outgoing<'_, '_, '_>) {
        let guard = rcu::read_lock();
        if !self.is_reachable(&guard) {
            return;
        }
        if !self.queue.is_empty() {
            // The worker is going to send it.
            let _ = out.join(&self.queue);
            return;
        }
        // It waits for the worker, so that the next ones join it.
        if out.is_bulk() && out.may_join() && self.rx.is_work_queued(&guard) {
            return;
        }
        let pieces = self.pieces(out);
        if pieces > 1 && !out.may_part() {
            return;
        }
        match self.rx.try_run(|rx| self.fill_from(rx, out, pieces)) {
            Ok(Ok(true)) => {
                // Without a worker, the guest is not served anyway.
                let _ = self.rx.queue_work_under(&guard);
            }
            // If there is no buffer, whoever sends the rest finds that out.
            Ok(_) => (),
            Err(why) => self.count(why),
        }
    }

    /// How many buffers the payload takes, if they are like the ones before.
    #[inline]
    fn pieces(&self, out: &Outgoing<'_, '_, '_>) -> usize {
        let room = self.room.peek();
        if out.left() <= room {
            1
        } else {
            out.left().div_ceil(room.max(1))
        }
    }

    /// Says whether the worker is to signal what was done. There are to be so many `pieces`.
    fn fill_from(
        &self,
        rx: &mut MappedActive<'_>,
        out: &mut Outgoing<'_, '_, '_>,
        pieces: usize,
    ) -> core::result::Result<bool, Broken> {
        if !self.queue.is_empty() || out.is_cut() {
            return Ok(false);
        }
        if self.to_guest.is_spent() {
            return Ok(false);
        }
        // What there are no buffers for is sent by the worker, all of it: several packets at once.
        // CAST: Few.
        if pieces > 1 && !(pieces <= BUFFERS && rx.has(pieces as u16)?) {
            return Ok(false);
        }
        rx.disable_notify()?;
        for _ in 0..BUFFERS {
            // If there is none, whoever puts the packet into the queue finds that out.
            let Next::Chain(mut chain) = rx.pop()? else {
                return Ok(false);
            };
            let Some(room) = to_guest::room(&chain).filter(|room| *room > 0) else {
                return Ok(false);
            };
            let len = room.min(out.left());
            if room < out.left() {
                if room < self.room.peek() {
                    self.room.store(room, Relaxed);
                }
                if pieces <= 1 && out.is_whole() {
                    return Ok(false);
                }
            }
            // What was written to a buffer that is not used does not matter.
            let copied = out.copy(|source| chain.write_from(HEADER_LEN, source, len));
            if copied.is_err() {
                return Ok(false);
            }
            if chain.write_at(0, out.stamp(len).as_bytes()).is_err() {
                out.take_back();
                return Ok(false);
            }
            // CAST: At most 64 KiB.
            let completed = chain.complete(HEADER_LEN.saturating_add(len) as u32);
            completed.inspect_err(|_| out.take_back())?;
            out.finish();
            self.stats.to_guest.add(1);
            self.stats.to_guest_bytes.add(len);
            self.to_guest.spend(len);
            self.buffer_was_good();
            if out.left() == 0 {
                self.stats.direct.add(1);
                if out.is_bulk() {
                    rx.defer_signal();
                }
                return Ok(out.is_bulk());
            }
        }
        Ok(false)
    }
}

/// How a try ended.
enum Now {
    /// The packet is with the guest, or dropped.
    Done,
    /// There is no buffer.
    Waits,
    /// Here is no way on.
    Stuck,
    /// The packet was dropped.
    Refused(Error),
}
