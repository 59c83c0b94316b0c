// SPDX-License-Identifier: GPL-2.0

//! From the guest to the host: packets are taken out of the guest's buffers.
//!
//! Everything in a buffer is written by the guest, at any time. The header is copied once, and only
//! the copy is looked at; the payload is copied with the length that was checked.

use crate::{
    carrier::Host,
    device::{
        VhostVsock,
        AGING, //
    }, //
};
use core::mem::MaybeUninit;
use kernel::{
    prelude::*,
    sync::rcu,
    time::{
        delay::fsleep,
        Delta, //
    },
};
use kernel_ext::{
    gfp::Gfp,
    owner_mm::InOwnerMm,
    peek::Peek,
    skb::{
        Room,
        SkBuff, //
    },
    trace::{
        self,
        Dropped, //
    },
};
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
    virtqueue::Idle,
};
use virtio_transport_common::{
    payload_lost,
    receive,
    Owner,
    RxPacket, //
};
use vsock_proto::{
    addr::Cid,
    header::{
        Header,
        HEADER_LEN,
        MAX_PKT_BUF_SIZE, //
    },
};
use zerocopy::FromZeros as _;

/// What is done before others have their turn, as in C.
const PACKETS: u32 = 256;
const BYTES: usize = 512 * 1024;

/// How long to wait for memory.
const RETRY: Delta = Delta::from_millis(1);

/// Why a chain did not become a packet.
enum Refused {
    /// It is none.
    Malformed,
    /// Its payload cannot be read. The header is that of the packet.
    Unreadable(Header),
    /// There is no memory for it now.
    NoMemory,
}

/// How a run ended.
enum Run {
    /// There is nothing left, or the guest has to wait.
    Done,
    /// The budget is spent.
    More,
    /// There is no memory.
    NoMemory,
}

impl VhostVsock {
    /// Receives what the guest sent.
    ///
    /// Context: the worker.
    pub(crate) fn receive_packets(&self, mm: &InOwnerMm) {
        let mut budget = Budget::new(PACKETS, BYTES);
        let again = match self.tx.run(mm, |tx| self.drain(tx, &mut budget)) {
            Ok(Run::Done) | Err(Idle::Stopped | Idle::Waiting) => false,
            Ok(Run::More) => true,
            Ok(Run::NoMemory) => {
                // Nothing may be lost of a stream: the chain is still there.
                fsleep(RETRY);
                true
            }
            // It may have broken where nobody could clean up.
            Err(Idle::Broken) => {
                // The host would wait for answers that cannot come.
                self.cut_off();
                false
            }
        };
        if again {
            // Without a worker, this is not the worker.
            let _ = self.tx.queue_work();
        }
    }

    /// As [`receive_packets`](Self::receive_packets), for the thread that has kicked.
    ///
    /// Context: see [`Works::run_inline`](vhost_core::worker::Works::run_inline).
    pub(crate) fn receive_inline(&self, mm: &InOwnerMm, begin: u64) -> Inlined {
        let mut budget = Budget::inline(begin);
        let ended = self.tx.run_inline(mm, |tx| self.drain(tx, &mut budget));
        let was_answered = self.was_answered();
        match ended {
            Ok(Run::Done) if budget.is_bulk() => Inlined::Bulk,
            Ok(Run::Done) if was_answered => Inlined::Drained,
            Ok(Run::Done) => Inlined::Unanswered,
            Ok(Run::More) => Inlined::Budget,
            Ok(Run::NoMemory) => Inlined::Left(Left::NoMemory),
            Err(left) => Inlined::Left(left),
        }
    }

    /// Says whether the guest has got anything since the last call.
    fn was_answered(&self) -> bool {
        let now = self.stats.to_guest.get();
        let before = self.answers_seen.peek();
        self.answers_seen.poke(now);
        now != before
    }

    fn drain(&self, tx: &mut Active<'_>, budget: &mut Budget) -> core::result::Result<Run, Broken> {
        tx.disable_notify()?;

        let mut scratch = Scratch([const { MaybeUninit::uninit() }; HEADER_LEN + SMALL]);
        let gfp = if tx.is_inline() {
            Gfp::NoWait
        } else {
            Gfp::Kernel
        };
        // Once: a worker that dies resets all connections.
        let reachable = self.is_reachable(&rcu::read_lock());
        loop {
            if !reachable || !self.rx.is_running() {
                // The guest could not be answered: its packets wait until it can. If the other
                // queue is broken, its work cleans up after what this one did in the meantime.
                let _ = self.rx.queue_work();
                return Ok(Run::Done);
            }
            if self.throttle.hold(&self.queue, tx.size()) {
                // Whoever sends the replies queues this work again: the guest need not kick.
                return Ok(Run::Done);
            }
            if self.from_guest.holds() {
                // So does the timer.
                return Ok(Run::Done);
            }
            let Some(chain) = tx.pop()? else {
                return Ok(Run::Done);
            };
            // It stays where it is made: to move it costs as much as to find its connection.
            let mut taken = take(self, &chain, &mut scratch, gfp);
            let packet = match &mut taken {
                Ok(packet) => packet,
                Err(Refused::Malformed | Refused::Unreadable(_)) if gfp == Gfp::NoWait => {
                    // It may only be that its memory is not there now.
                    chain.give_back();
                    return Err(tx.leave(Left::Fault));
                }
                Err(refused @ (Refused::Malformed | Refused::Unreadable(_))) => {
                    self.stats.malformed.add(1);
                    self.from_guest.spend(0);
                    let cid = self.cid();
                    trace::vsock_drop(Dropped::Malformed as u32, cid, 0, Cid::HOST.get(), 0);
                    chain.complete(0)?;
                    if let Refused::Unreadable(header) = refused {
                        if self.is_addressed(header) {
                            payload_lost::<Host>(header, Some(self.net()));
                        }
                    }
                    if tx.spend(budget, HEADER_LEN) {
                        continue;
                    }
                    return Ok(Run::More);
                }
                Err(Refused::NoMemory) => {
                    chain.give_back();
                    return Ok(Run::NoMemory);
                }
            };
            // The packet is in private memory: the guest may have its buffers.
            chain.complete(0)?;

            let payload = packet.header().len() as usize;
            self.stats.from_guest.add(1);
            self.stats.from_guest_bytes.add(payload);
            self.from_guest.spend(payload);
            self.accept(packet);
            if !tx.spend(budget, payload.saturating_add(HEADER_LEN)) {
                // A worker that is there looks again; it is not woken up for nothing.
                return match tx.is_inline() && tx.pop()?.is_none() {
                    true => Ok(Run::Done),
                    false => Ok(Run::More),
                };
            }
        }
    }

    /// Gives a packet to the socket that it is for, if it comes from where it says and is for us.
    fn accept(&self, packet: &mut RxPacket<'_>) {
        packet.deliver_tap();
        if self.is_addressed(packet.header()) {
            receive::<Host>(packet, Some(self.net()));
        } else {
            self.stats.misaddressed.add(1);
            self.trace_drop(Dropped::Misaddressed, packet.header());
        }
    }

    /// Shows a packet that was not taken to who traces that.
    fn trace_drop(&self, why: Dropped, header: &Header) {
        trace::vsock_drop(
            why as u32,
            // CAST: The tracepoint has room for 32 bits.
            header.src_cid_raw() as u32,
            header.src_port().get(),
            header.dst_cid_raw() as u32,
            header.dst_port().get(),
        );
    }

    /// Says whether a packet comes from the guest, and is for the host.
    fn is_addressed(&self, header: &Header) -> bool {
        header.src_cid_raw() == u64::from(self.cid())
            && header.dst_cid_raw() == u64::from(Cid::HOST.get())
    }
}

/// Packets with a payload up to this size are read at once, and their payload is copied from there;
/// others get a buffer.
const SMALL: usize = 512;

/// Private memory for a small packet.
struct Scratch([MaybeUninit<u8>; HEADER_LEN + SMALL]);

/// Copies a packet out of a chain.
fn take<'s>(
    device: &VhostVsock,
    chain: &Chain<'_, '_>,
    scratch: &'s mut Scratch,
    gfp: Gfp,
) -> core::result::Result<RxPacket<'s>, Refused> {
    let len = chain.readable_len();
    let Some(room) = len.checked_sub(HEADER_LEN) else {
        return Err(Refused::Malformed);
    };
    if chain.has_writable() || room > MAX_PKT_BUF_SIZE as usize {
        return Err(Refused::Malformed);
    }

    if let Some(bytes) = scratch.0.get_mut(..len) {
        // If it fails, the header may be readable all the same.
        if let Ok(bytes) = chain.read_new_at(0, bytes) {
            let (header, rest) =
                Header::read_from_prefix(&*bytes).map_err(|_| Refused::Malformed)?;
            let payload = rest
                .get(..header.len() as usize)
                .ok_or(Refused::Malformed)?;
            return RxPacket::of_bytes(header, payload).map_err(|_| Refused::Malformed);
        }
    }
    let mut header = Header::new_zeroed();
    if chain.read_at(0, header.as_mut_bytes()).is_err() {
        return Err(Refused::Malformed);
    }
    let payload = header.len() as usize;
    if payload > room {
        return Err(Refused::Malformed);
    }
    let skb = if payload == 0 {
        None
    } else {
        let mut skb = device.alloc(payload, gfp).map_err(|_| Refused::NoMemory)?;
        chain
            .fill(&mut skb, HEADER_LEN, payload)
            .map_err(|_| Refused::Unreadable(header))?;
        Some(skb)
    };
    RxPacket::new(header, skb).map_err(|_| Refused::Malformed)
}

impl VhostVsock {
    /// A buffer for a payload, in memory that was used for one of this guest before if there is
    /// any.
    fn alloc(&self, payload: usize, gfp: Gfp) -> Result<SkBuff<()>> {
        if let Some(room) = self.room(payload, gfp) {
            if let Ok(skb) = SkBuff::alloc_in(0, room, payload, gfp, ()) {
                return Ok(skb);
            }
        }
        SkBuff::alloc(0, payload, gfp, ())
    }

    fn room(&self, payload: usize, gfp: Gfp) -> Option<Room> {
        // Nobody would age it.
        if self.cid() == 0 {
            return None;
        }
        let taken = self.rooms.get(0, payload, Owner::DEVICE, gfp)?;
        Some(taken.aged_by(&AGING))
    }
}
