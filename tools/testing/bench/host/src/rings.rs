// SPDX-License-Identifier: GPL-2.0

//! The guest's rings, as a driver of Linux uses them, without a check or an allocation that would
//! be counted.

use ring::{device::Device, ring::Desc, sys::memory::Mapping};
use std::sync::{
    atomic::{fence, Ordering},
    Arc,
};

/// How a packet of the guest is laid out in descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Header and payload in one descriptor.
    One,
    /// A descriptor for each, in a table of its own: what the C driver does.
    Indirect,
}

/// One ring.
pub struct Queue {
    mem: Arc<Mapping>,
    /// Offsets in halves (16 bits) and words (64 bits).
    avail: usize,
    used: usize,
    desc: usize,
    num: u16,
    avail_idx: u16,
    used_idx: u16,
    /// The available index when the device was last looked at for a kick.
    kicked: u16,
}

impl Queue {
    /// The ring of a device of which memory and rings are set up.
    pub fn of(dev: &Device, index: usize) -> Self {
        let ring = &dev.q[index];
        Self {
            mem: dev.mem.clone(),
            avail: ring.avail / 2,
            used: ring.used / 2,
            desc: ring.desc / 8,
            num: ring.num,
            avail_idx: 0,
            used_idx: 0,
            kicked: 0,
        }
    }

    fn half(&self, at: usize) -> u16 {
        u16::from_le(self.mem.halves()[at].load(Ordering::Acquire))
    }

    fn set_half(&self, at: usize, value: u16) {
        self.mem.halves()[at].store(value.to_le(), Ordering::Release);
    }

    /// Writes a descriptor of the ring.
    pub fn describe(&self, index: u16, desc: Desc) {
        write_desc(&self.mem, self.desc + 2 * usize::from(index), desc);
    }

    /// Chains that the device has not given back.
    pub fn in_flight(&self) -> u16 {
        self.avail_idx.wrapping_sub(self.used_idx)
    }

    /// The entry for the next chain.
    pub fn next(&self) -> u16 {
        self.avail_idx % self.num
    }

    /// Offers the chain of `head`, without telling the device.
    pub fn offer(&mut self, head: u16) {
        let slot = usize::from(self.avail_idx % self.num);
        self.set_half(self.avail + 2 + slot, head);
        self.avail_idx = self.avail_idx.wrapping_add(1);
    }

    /// Makes visible what was offered; whether the device wants a kick.
    pub fn publish(&mut self) -> bool {
        if self.avail_idx == self.kicked {
            return false;
        }
        self.set_half(self.avail + 1, self.avail_idx);
        fence(Ordering::SeqCst);
        let event = self.half(self.used + 2 + 4 * usize::from(self.num));
        let wanted = self.avail_idx.wrapping_sub(event).wrapping_sub(1)
            < self.avail_idx.wrapping_sub(self.kicked);
        self.kicked = self.avail_idx;
        wanted
    }

    /// The next chain that the device gave back, and how many bytes it wrote.
    pub fn take(&mut self) -> Option<(u16, u32)> {
        if self.half(self.used + 1) == self.used_idx {
            return None;
        }
        // An element has 8 bytes and begins 4 bytes after the beginning of the used ring.
        let at = self.used + 2 + 4 * usize::from(self.used_idx % self.num);
        self.used_idx = self.used_idx.wrapping_add(1);
        let len = u32::from(self.half(at + 2)) | u32::from(self.half(at + 3)) << 16;
        Some((self.half(at), len))
    }

    /// Takes back all chains that are done, which are so in the order in which they were offered.
    pub fn reclaim(&mut self) {
        self.used_idx = self.half(self.used + 1);
    }

    /// Asks for an interrupt when `after` more chains are given back than now; whether there are so
    /// many already.
    pub fn arm(&self, after: u16) -> bool {
        let event = self.used_idx.wrapping_add(after);
        self.set_half(self.avail + 2 + usize::from(self.num), event);
        fence(Ordering::SeqCst);
        let idx = self.half(self.used + 1);
        idx.wrapping_sub(self.used_idx) > after
    }
}

/// Writes a descriptor at an offset in words.
pub fn write_desc(mem: &Mapping, at: usize, desc: Desc) {
    let words = mem.words();
    let second = u64::from(desc.len) | u64::from(desc.flags) << 32 | u64::from(desc.next) << 48;
    words[at].store(desc.addr.to_le(), Ordering::Relaxed);
    words[at + 1].store(second.to_le(), Ordering::Relaxed);
}
