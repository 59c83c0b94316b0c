// SPDX-License-Identifier: GPL-2.0

//! From the host to the guest: packets go into the buffers that the guest offers.

use crate::device::VhostVsock;
use kernel::{
    prelude::*,
    sync::atomic::Relaxed, //
};
use kernel_ext::owner_mm::InOwnerMm;
use kernel_ext::peek::Peek;
use vhost_core::{
    chain::{
        Active,
        Broken,
        Budget,
        Chain, //
    },
    inline::{
        Inlined,
        Left, //
    },
    reach::Reach,
    virtqueue::Idle,
};
use virtio_transport_common::{
    Fragment,
    TxPacket,
    TxPackets, //
};
use vsock_proto::header::HEADER_LEN;

/// What is done before others have their turn, as in C.
const PACKETS: u32 = 256;
const BYTES: usize = 512 * 1024;

/// How many packets are taken out of the queue at once.
const BATCH: usize = 16;

/// How many buffers in a row may be of no use, before the guest is given up.
const MAX_BAD_BUFFERS: u32 = 8;

/// A buffer has a piece of a packet.
pub(crate) struct Put {
    /// How much payload that is.
    pub(crate) bytes: usize,
    /// Nothing is left of the packet.
    pub(crate) last: bool,
}

/// Why a buffer is of no use.
pub(crate) enum Bad {
    /// It is too small, or not to be written.
    Useless,
    /// It cannot be written, or not all of it.
    Unwritable,
}

impl VhostVsock {
    /// Sends what is in the queue.
    ///
    /// Context: the worker.
    pub(crate) fn send_packets(&self, mm: &InOwnerMm) {
        let mut budget = Budget::new(PACKETS, BYTES);
        match self.rx.run(mm, |rx| self.fill(rx, &mut budget)) {
            // Without a worker, this is not the worker.
            Ok(true) => drop(self.rx.queue_work()),
            // The packets stay for when the queue is started, or its ring known.
            Ok(false) | Err(Idle::Stopped | Idle::Waiting) => (),
            // Also when the queue broke before, as somebody may have sent something since.
            Err(Idle::Broken) => self.cut_off(),
        }
        self.resume();
    }

    /// As [`send_packets`](Self::send_packets), for the thread that has kicked.
    ///
    /// Context: see [`Works::run_inline`](vhost_core::worker::Works::run_inline).
    pub(crate) fn send_inline(&self, mm: &InOwnerMm, begin: u64) -> Inlined {
        let mut budget = Budget::inline(begin);
        let ended = match self.rx.run_inline(mm, |rx| self.fill(rx, &mut budget)) {
            Ok(false) => Inlined::Drained,
            Ok(true) => Inlined::Budget,
            Err(left) => Inlined::Left(left),
        };
        self.resume();
        ended
    }

    /// Packets were taken out of the queue: a guest that was held back may go on.
    fn resume(&self) {
        if self.throttle.resume(&self.queue) {
            // Without a worker, the guest is not served anyway.
            let _ = self.tx.queue_work();
        }
    }

    /// Says whether there may be more to do.
    fn fill(&self, rx: &mut Active<'_>, budget: &mut Budget) -> core::result::Result<bool, Broken> {
        rx.disable_notify()?;

        let (mut held, mut packets) = (None, TxPackets::new());
        let done = self.fill_buffers(rx, budget, &mut held, &mut packets);
        if let Some(packet) = held {
            // Some of it may be with the guest: it stays the first one.
            packets.push_front(packet);
        }
        self.queue.put_back(packets);
        done
    }

    /// Fills the buffers that there are. What is left in `held` and, behind that, in `packets` was
    /// taken out of the queue and is not finished.
    fn fill_buffers(
        &self,
        rx: &mut Active<'_>,
        budget: &mut Budget,
        held: &mut Option<TxPacket>,
        packets: &mut TxPackets,
    ) -> core::result::Result<bool, Broken> {
        let mut bad = self.bad_buffers.peek();
        loop {
            if held.as_ref().is_some_and(TxPacket::is_purged) {
                *held = None;
            }
            // A packet that spans buffers stays in hand until it is finished, or its connection is
            // over.
            if held.as_ref().is_none_or(TxPacket::is_cut) {
                *held = packets.pop();
            }
            if held.is_none() {
                *packets = self.queue.pop_some(BATCH);
                *held = packets.pop();
            }
            let Some(packet) = held else {
                // As long as there is nothing to send, nobody needs to tell us of buffers.
                return Ok(false);
            };
            if self.to_guest.holds() {
                // The timer queues this work again.
                return Ok(false);
            }
            let Some(mut chain) = rx.pop()? else {
                return Ok(false);
            };

            let copied = copy(packet, &mut chain);
            let bytes = match copied {
                Ok(piece) => {
                    let put = self.hand_over(piece, chain)?;
                    if put.last {
                        *held = None;
                    }
                    if core::mem::take(&mut bad) != 0 {
                        self.bad_buffers.store(0, Relaxed);
                    }
                    put.bytes
                }
                Err(Bad::Unwritable) if chain.is_inline() => {
                    // It may only be that its memory is not there now.
                    chain.give_back();
                    return Err(rx.leave(Left::Fault));
                }
                Err(why) => {
                    // Nothing was lost: the packet waits for a better buffer. This one the guest
                    // has back, empty.
                    match why {
                        Bad::Useless => chain.complete(0)?,
                        Bad::Unwritable => chain.fail()?,
                    }
                    self.stats.bad_buffers.add(1);
                    bad = bad.saturating_add(1);
                    self.bad_buffers.store(bad, Relaxed);
                    if bad >= MAX_BAD_BUFFERS {
                        self.bad_buffers.store(0, Relaxed);
                        return Err(rx.give_up());
                    }
                    0
                }
            };
            if !rx.spend(budget, bytes) {
                return Ok(true);
            }
        }
    }

    /// A buffer in between was of use.
    #[inline]
    pub(crate) fn buffer_was_good(&self) {
        if self.bad_buffers.peek() != 0 {
            self.bad_buffers.store(0, Relaxed);
        }
    }

    /// Gives a buffer that has a piece of a packet to the guest.
    ///
    /// # Errors
    ///
    /// The queue is Broken; the packet is as it was.
    #[inline]
    pub(crate) fn hand_over<M: Reach>(
        &self,
        piece: Fragment<'_>,
        chain: Chain<'_, '_, M>,
    ) -> core::result::Result<Put, Broken> {
        let bytes = piece.len();
        // CAST: A fragment has at most 64 KiB.
        chain.complete(HEADER_LEN.saturating_add(bytes) as u32)?;
        let last = piece.finish();
        if bytes > self.room.peek() {
            self.room.store(bytes, Relaxed);
        }
        self.stats.to_guest.add(1);
        self.stats.to_guest_bytes.add(bytes);
        self.to_guest.spend(bytes);
        Ok(Put { bytes, last })
    }
}

/// How much payload fits into a buffer; nothing if it is of no use.
#[inline]
pub(crate) fn room<M: Reach>(chain: &Chain<'_, '_, M>) -> Option<usize> {
    let room = chain.writable_len().checked_sub(HEADER_LEN);
    room.filter(|_| !chain.has_readable())
}

/// Copies as much of a packet into a buffer as fits.
#[inline]
pub(crate) fn copy<'p, M: Reach>(
    packet: &'p mut TxPacket,
    chain: &mut Chain<'_, '_, M>,
) -> core::result::Result<Fragment<'p>, Bad> {
    // A frame without any payload of a packet that has some would be no progress.
    let room = room(chain).filter(|room| *room > 0 || packet.is_empty());
    let room = room.ok_or(Bad::Useless)?;

    let fragment = packet.fragment(room);
    let copied = if let Some(whole) = fragment.as_bytes() {
        chain.write_at(0, whole)
    } else {
        chain
            .write_at(0, fragment.header().as_bytes())
            .and_then(|()| {
                if let Some(payload) = fragment.payload() {
                    return chain.write_at(HEADER_LEN, payload);
                }
                let (skb, from) = fragment.buffer();
                chain.write_skb(HEADER_LEN, skb, from, fragment.len())
            })
    };
    copied.map_err(|_| Bad::Unwritable)?;
    Ok(fragment)
}
