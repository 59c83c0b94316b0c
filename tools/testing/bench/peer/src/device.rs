// SPDX-License-Identifier: GPL-2.0

//! The device: rings of the guest in, rings of the guest out, as `vhost_vsock` works them.
//!
//! Runs in one thread, that of the back end's event loop. The order is that of C: all packets of
//! the guest are taken and given back, one interrupt if the driver wants one; then what waits goes
//! to the guest, one interrupt.

use crate::{
    conn::{Like, Outgoing},
    counters::Counters,
    host::{piece, Host},
    pace::Pace,
};
use ring::packet::{Header, HEADER_LEN, MAX_PAYLOAD};
use std::io::{self, Read, Write};
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackendMut, VringRwLock, VringT};
use virtio_bindings::{
    virtio_config::VIRTIO_F_VERSION_1,
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};
use virtio_queue::QueueT;
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

const RX: usize = 0;
const TX: usize = 1;
const QUEUE_SIZE: usize = 1024;
/// Buffers filled in one act: what the ring of QEMU's own device (`vhost-vsock-pci`) has. C's guest
/// resets a connection on which hundreds of small records come before its reader runs.
const BATCH: usize = 128;
const F_SEQPACKET: u64 = 1 << 1;
const F_PROTOCOL: u64 = 1 << 30;

/// The device.
pub struct Device {
    cid: u64,
    memory: Memory,
    host: Host,
    pace: Pace,
    counters: Counters,
    /// Bytes of the first packet that waits which the guest has already.
    done: usize,
    told: bool,
}

fn other(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

impl Device {
    pub fn new(cid: u64, like: Like, vm: Option<String>) -> Self {
        Self {
            cid,
            memory: GuestMemoryAtomic::new(GuestMemoryMmap::new()),
            host: Host::new(like),
            pace: Pace::new(vm),
            counters: Counters::default(),
            done: 0,
            told: false,
        }
    }

    /// Works until neither direction has anything to do.
    fn run(&mut self, rx: &VringRwLock, tx: &VringRwLock) -> io::Result<()> {
        loop {
            self.wait();
            for (number, ring) in [rx, tx].into_iter().enumerate() {
                // Of several kicks since the last look one is seen; with EVENT_IDX there is only
                // one.
                if ring.read_kick().is_ok() && ring.get_ref().get_kick().is_some() {
                    self.counters.kick(number);
                }
            }
            let taken = self.take(tx)?;
            if taken {
                // In step with the guest the interrupt of one queue is dealt with before the
                // other's.
                self.wait();
            }
            if !self.fill(rx)? && !taken {
                return Ok(());
            }
        }
    }

    fn wait(&mut self) {
        if let Err(why) = self.pace.wait() {
            if !std::mem::replace(&mut self.told, true) {
                eprintln!("peer: {why}");
            }
        }
    }

    /// Takes all packets of the guest. True if there was one.
    fn take(&mut self, ring: &VringRwLock) -> io::Result<bool> {
        let memory = self.memory.memory();
        let mut taken = 0;
        loop {
            let before = taken;
            loop {
                let chain = ring
                    .get_mut()
                    .get_queue_mut()
                    .pop_descriptor_chain(memory.clone());
                let Some(chain) = chain else {
                    break;
                };
                taken += 1;
                let head = chain.head_index();
                let mut bytes = [0; HEADER_LEN];
                let mut reader = chain.reader::<()>(&memory).map_err(other)?;
                reader.read_exact(&mut bytes)?;
                let header = Header::parse(&bytes).ok_or_else(|| other("no header"))?;
                let mut data = vec![0; (header.len as usize).min(MAX_PAYLOAD)];
                reader.read_exact(&mut data)?;
                ring.add_used(head, 0).map_err(other)?;
                self.host.packet(&header, &data, &mut self.counters);
            }
            // A ring that was stopped keeps what nobody can take any more: no second look at that.
            if !ring.enable_notification().map_err(other)? || taken == before {
                break;
            }
        }
        if taken > 0 {
            self.interrupt(ring, TX)?;
            if let Some(command) = self.host.settle(&self.counters) {
                self.pace.set_in_step(command.pace == 1);
            }
        }
        Ok(taken > 0)
    }

    /// Gives the guest what waits, as far as it has buffers. True if it was given anything.
    fn fill(&mut self, ring: &VringRwLock) -> io::Result<bool> {
        let memory = self.memory.memory();
        let mut given = 0;
        let mut looked = None;
        while given < BATCH {
            let Some(packet) = self.host.out.front() else {
                break;
            };
            let chain = ring
                .get_mut()
                .get_queue_mut()
                .pop_descriptor_chain(memory.clone());
            let Some(chain) = chain else {
                // Only now a kick is of use. As above: twice the same is enough.
                if ring.enable_notification().map_err(other)? && looked != Some(given) {
                    looked = Some(given);
                    continue;
                }
                break;
            };
            let head = chain.head_index();
            let mut writer = chain.writer::<()>(&memory).map_err(other)?;
            let room = writer
                .available_bytes()
                .checked_sub(HEADER_LEN)
                .ok_or_else(|| other("a buffer without room for a header"))?;
            let (header, bytes) = piece(packet, self.done, room);
            writer.write_all(&header.bytes())?;
            writer.write_all(
                packet
                    .data
                    .get(self.done..self.done + bytes)
                    .unwrap_or_default(),
            )?;
            ring.add_used(head, (HEADER_LEN + bytes) as u32)
                .map_err(other)?;
            given += 1;
            self.finish(bytes);
        }
        if given > 0 {
            self.interrupt(ring, RX)?;
        }
        Ok(given > 0)
    }

    /// A piece of the first packet is with the guest.
    fn finish(&mut self, bytes: usize) {
        let Some(Outgoing { data, counted, .. }) = self.host.out.front() else {
            return;
        };
        if *counted {
            self.counters.given();
        }
        self.done += bytes;
        if self.done >= data.len() {
            self.done = 0;
            self.host.out.pop_front();
        }
    }

    /// Interrupts the guest if its driver wants to know of what was used.
    fn interrupt(&mut self, ring: &VringRwLock, number: usize) -> io::Result<()> {
        if ring.needs_notification().map_err(other)? {
            self.counters.interrupt(number);
            ring.signal_used_queue()?;
        }
        Ok(())
    }
}

impl VhostUserBackendMut for Device {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        2
    }

    fn max_queue_size(&self) -> usize {
        QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        F_SEQPACKET
            | F_PROTOCOL
            | (1 << VIRTIO_F_VERSION_1)
            | (1 << VIRTIO_RING_F_EVENT_IDX)
            | (1 << VIRTIO_RING_F_INDIRECT_DESC)
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::REPLY_ACK
    }

    /// The driver starts the device, again maybe.
    fn acked_features(&mut self, _features: u64) {
        self.host.reset();
        self.done = 0;
        self.pace.set_in_step(false);
    }

    fn set_event_idx(&mut self, _enabled: bool) {}

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let config = self.cid.to_le_bytes();
        let (begin, size) = (offset as usize, size as usize);
        config
            .get(begin..begin.saturating_add(size))
            .unwrap_or_default()
            .to_vec()
    }

    fn update_memory(&mut self, memory: Memory) -> io::Result<()> {
        self.memory = memory;
        Ok(())
    }

    fn handle_event(
        &mut self,
        event: u16,
        _events: EventSet,
        rings: &[VringRwLock],
        _thread: usize,
    ) -> io::Result<()> {
        self.counters.kick(usize::from(event));
        let [rx, tx] = rings else {
            return Err(other("the device has two queues"));
        };
        if let Err(error) = self.run(rx, tx) {
            eprintln!("peer: {error}");
            return Err(error);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
