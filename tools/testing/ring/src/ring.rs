// SPDX-License-Identifier: GPL-2.0

//! A split ring, as its driver sees it, without any of the driver's duties.

use crate::sys::memory::Mapping;
use std::sync::Arc;

/// Flags of a descriptor.
pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// A descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Desc {
    pub addr: u64,
    pub len: u32,
    pub flags: u16,
    pub next: u16,
}

impl Desc {
    pub const fn new(addr: u64, len: u32) -> Self {
        Self {
            addr,
            len,
            flags: 0,
            next: 0,
        }
    }

    pub const fn flags(mut self, flags: u16) -> Self {
        self.flags |= flags;
        self
    }

    /// Goes on at `next`.
    pub const fn next(mut self, next: u16) -> Self {
        self.flags |= NEXT;
        self.next = next;
        self
    }

    /// With the bytes of each field in the other order.
    pub const fn swapped(self) -> Self {
        Self {
            addr: self.addr.swap_bytes(),
            len: self.len.swap_bytes(),
            flags: self.flags.swap_bytes(),
            next: self.next.swap_bytes(),
        }
    }

    pub fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.addr.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// The bytes of a table.
pub fn table(entries: &[Desc]) -> Vec<u8> {
    entries.iter().flat_map(Desc::bytes).collect()
}

/// Entries that are a chain in order: the first one goes on at the second, and so on.
pub fn chained(entries: &[Desc]) -> Vec<Desc> {
    let last = entries.len().saturating_sub(1);
    entries
        .iter()
        .enumerate()
        .map(|(n, desc)| {
            if n < last {
                desc.next(n as u16 + 1)
            } else {
                *desc
            }
        })
        .collect()
}

/// An element of the used ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    pub id: u32,
    pub len: u32,
}

/// A ring in guest memory. Offsets are into the mapping.
pub struct Queue {
    mem: Arc<Mapping>,
    pub num: u16,
    pub desc: usize,
    pub avail: usize,
    pub used: usize,
    /// The available index as we wrote it last.
    pub avail_idx: u16,
    /// Up to where we have looked at the used ring.
    pub used_idx: u16,
    /// Big-endian, as a driver without `VERSION_1` may have it.
    pub big: bool,
}

impl Queue {
    /// A ring whose parts have room for 32768 entries, in the first or second MiB.
    pub fn new(mem: &Arc<Mapping>, index: usize, num: u16) -> Self {
        let base = index * 0x10_0000;
        Self {
            mem: mem.clone(),
            num,
            desc: base + 0x1_0000,
            avail: base + 0x9_0000,
            used: base + 0xb_0000,
            avail_idx: 0,
            used_idx: 0,
            big: false,
        }
    }

    fn load(&self, at: usize) -> u16 {
        let word = self.mem.load16(at);
        if self.big {
            word.swap_bytes()
        } else {
            word
        }
    }

    fn store(&self, at: usize, word: u16) {
        let word = if self.big { word.swap_bytes() } else { word };
        self.mem.store16(at, word);
    }

    /// Writes a descriptor.
    pub fn set(&self, index: u16, desc: Desc) {
        let desc = if self.big { desc.swapped() } else { desc };
        self.mem
            .write(self.desc + 16 * usize::from(index), &desc.bytes());
    }

    /// Writes a chain to the first descriptors, as it is.
    pub fn set_all(&self, entries: &[Desc]) {
        self.mem.write(self.desc, &table(entries));
    }

    /// Writes the next entry of the available ring, without making it visible.
    pub fn put(&mut self, head: u16) {
        let slot = usize::from(self.avail_idx % self.num);
        self.store(self.avail + 4 + 2 * slot, head);
        self.avail_idx = self.avail_idx.wrapping_add(1);
    }

    /// Makes what was put visible.
    pub fn publish(&self) {
        self.store(self.avail + 2, self.avail_idx);
    }

    /// Offers a chain.
    pub fn offer(&mut self, head: u16) {
        self.put(head);
        self.publish();
    }

    /// Sets the available index to anything.
    pub fn set_avail_idx(&mut self, idx: u16) {
        self.avail_idx = idx;
        self.publish();
    }

    /// The used index as the device wrote it last.
    pub fn device_used_idx(&self) -> u16 {
        self.load(self.used + 2)
    }

    /// The next element of the used ring, if there is one.
    pub fn take(&mut self) -> Option<Used> {
        if self.device_used_idx() == self.used_idx {
            return None;
        }
        let at = self.used + 4 + 8 * usize::from(self.used_idx % self.num);
        let bytes = self.mem.read(at, 8);
        self.used_idx = self.used_idx.wrapping_add(1);
        let word = |at: usize| {
            let word = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
            if self.big {
                word.swap_bytes()
            } else {
                word
            }
        };
        Some(Used {
            id: word(0),
            len: word(4),
        })
    }

    /// All elements of the used ring that we did not look at.
    pub fn take_all(&mut self) -> Vec<Used> {
        std::iter::from_fn(|| self.take()).collect()
    }

    /// Tells the device whether the driver wants signals (0) or not (1), without `EVENT_IDX`.
    pub fn set_flags(&self, flags: u16) {
        self.store(self.avail, flags);
    }

    /// Where the driver says after which used index it wants a signal.
    pub fn used_event(&self) -> usize {
        self.avail + 4 + 2 * usize::from(self.num)
    }

    /// Where the device says after which available index it wants a kick.
    pub fn avail_event(&self) -> usize {
        self.used + 4 + 8 * usize::from(self.num)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_little_endian() {
        let desc = Desc::new(0x0102_0304_0506_0708, 0x1112_1314)
            .flags(WRITE)
            .next(0x2122);
        let expected = [
            8, 7, 6, 5, 4, 3, 2, 1, 0x14, 0x13, 0x12, 0x11, 3, 0, 0x22, 0x21,
        ];
        assert_eq!(desc.bytes(), expected);
    }

    #[test]
    fn the_other_byte_order_is_that_of_all_fields() {
        let mem = Arc::new(Mapping::shared(1 << 21).expect("memory"));
        let mut queue = Queue::new(&mem, 0, 4);
        queue.big = true;
        queue.set(
            1,
            Desc::new(0x0102_0304_0506_0708, 0x1112_1314).next(0x2122),
        );
        let expected = [
            1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0, 1, 0x21, 0x22,
        ];
        assert_eq!(mem.read(queue.desc + 16, 16), expected);
        queue.offer(3);
        assert_eq!(mem.read(queue.avail, 6), [0, 0, 0, 1, 0, 3]);
        mem.write(queue.used + 2, &[0, 1, 0, 0, 0, 3, 0, 0, 0, 9]);
        assert_eq!(queue.take(), Some(Used { id: 3, len: 9 }));
    }

    #[test]
    fn a_chain_ends_at_its_last_entry() {
        let chain = chained(&[Desc::new(1, 1), Desc::new(2, 2), Desc::new(3, 3)]);
        let next: Vec<_> = chain.iter().map(|d| (d.flags, d.next)).collect();
        assert_eq!(next, [(NEXT, 1), (NEXT, 2), (0, 0)]);
        assert!(chained(&[]).is_empty());
    }

    #[test]
    fn what_is_used_is_seen_once_and_in_order() {
        let mem = Arc::new(Mapping::shared(1 << 21).expect("memory"));
        let mut queue = Queue::new(&mem, 0, 4);
        assert_eq!(queue.take(), None);
        for n in 0..6u32 {
            let at = queue.used + 4 + 8 * (n as usize % 4);
            mem.write(at, &[n.to_le_bytes(), (n * 10).to_le_bytes()].concat());
            mem.store16(queue.used + 2, n as u16 + 1);
            assert_eq!(queue.take(), Some(Used { id: n, len: n * 10 }));
            assert_eq!(queue.take(), None);
        }
    }
}
