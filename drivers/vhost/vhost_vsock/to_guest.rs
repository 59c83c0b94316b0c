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
    virtqueue::Idle,
};
use virtio_transport_common::{
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

/// What became of a buffer.
enum Put {
    /// It has a piece of the packet of so many bytes, which was the last one or not.
    Done { bytes: usize, last: bool },
    /// It could not be used; the guest has it back, empty.
    Bad,
}

impl VhostVsock {
    /// Sends what is in the queue.
    ///
    /// Context: the worker.
    pub(crate) fn send_packets(&self, mm: &InOwnerMm) {
        match self.rx.run(mm, |rx| self.fill(rx)) {
            // The packets stay for when the queue is started, or its ring known.
            Ok(()) | Err(Idle::Stopped | Idle::Waiting) => (),
            // Also when the queue broke before, as somebody may have sent something since.
            Err(Idle::Broken) => self.cut_off(),
        }
        if self.throttle.resume(&self.queue) {
            // Without a worker, the guest is not served anyway.
            let _ = self.tx.queue_work();
        }
    }

    fn fill(&self, rx: &mut Active<'_>) -> core::result::Result<(), Broken> {
        rx.disable_notify()?;

        let (mut held, mut packets) = (None, TxPackets::new());
        let done = self.fill_buffers(rx, &mut held, &mut packets);
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
        held: &mut Option<TxPacket>,
        packets: &mut TxPackets,
    ) -> core::result::Result<(), Broken> {
        let mut budget = Budget::new(PACKETS, BYTES);
        let mut bad = self.bad_buffers.peek();
        loop {
            if held.as_ref().is_some_and(TxPacket::is_purged) {
                *held = None;
            }
            // A packet that spans buffers stays in hand until it is finished, or its connection is over.
            if held.as_ref().is_none_or(TxPacket::is_cut) {
                *held = packets.pop();
            }
            if held.is_none() {
                *packets = self.queue.pop_some(BATCH);
                *held = packets.pop();
            }
            let Some(packet) = held else {
                // As long as there is nothing to send, nobody needs to tell us of buffers.
                return Ok(());
            };
            let Some(chain) = rx.pop()? else {
                return Ok(());
            };

            let bytes = match put(packet, chain)? {
                Put::Done { bytes, last } => {
                    if last {
                        *held = None;
                    }
                    if core::mem::take(&mut bad) != 0 {
                        self.bad_buffers.store(0, Relaxed);
                    }
                    self.stats.to_guest.add(1);
                    self.stats.to_guest_bytes.add(bytes);
                    bytes
                }
                Put::Bad => {
                    // Nothing was lost: the packet waits for a better buffer.
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
            if !rx.spend(&mut budget, bytes) {
                // Without a worker, this is not the worker.
                let _ = self.rx.queue_work();
                return Ok(());
            }
        }
    }
}

/// Puts as much of a packet into a buffer as fits.
///
/// # Errors
///
/// The queue is Broken; the packet is as it was.
fn put(packet: &mut TxPacket, mut chain: Chain<'_, '_>) -> core::result::Result<Put, Broken> {
    let room = match chain.writable_len().checked_sub(HEADER_LEN) {
        // A frame without any payload of a packet that has some would be no progress.
        Some(room) if !chain.has_readable() && (room > 0 || packet.is_empty()) => room,
        _ => {
            chain.complete(0)?;
            return Ok(Put::Bad);
        }
    };

    let fragment = packet.fragment(room);
    let bytes = fragment.len();
    let copied = if let Some(whole) = fragment.as_bytes() {
        chain.write_at(0, whole).is_ok()
    } else if let Some(payload) = fragment.payload() {
        chain.write_at(0, fragment.header().as_bytes()).is_ok()
            && chain.write_at(HEADER_LEN, payload).is_ok()
    } else {
        chain.write_at(0, fragment.header().as_bytes()).is_ok()
            && fragment.copy_to(&mut chain.dest_at(HEADER_LEN)).is_ok()
    };
    if !copied {
        chain.fail()?;
        return Ok(Put::Bad);
    }
    // CAST: A fragment has at most 64 KiB.
    let written = HEADER_LEN.saturating_add(bytes) as u32;
    chain.complete(written)?;
    let last = fragment.finish();
    Ok(Put::Done { bytes, last })
}
