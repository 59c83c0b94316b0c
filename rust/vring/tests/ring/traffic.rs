// SPDX-License-Identifier: GPL-2.0

//! Traffic between a driver and the ring, with all that both may do.
//!
//! Each chain carries a request, of which the device returns a digest: nothing gets lost, changed,
//! or overtaken on the way to the device; and each chain returns exactly once. If both sides sleep
//! while there is work, a notification was lost.

use crate::driver::*;
use proptest::prelude::*;
use std::collections::VecDeque;
use vring::{
    event::need_event,
    layout,
    Chain,
    Segment,
    SplitRing, //
};

const SLOT: u64 = 256;

/// A source of decisions.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32 % bound
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }
}

/// A request that the device has.
struct Outstanding {
    first: u16,
    descs: Vec<u16>,
    number: u32,
    room: u32,
}

struct Guest {
    driver: Driver,
    free: Vec<u16>,
    outstanding: Vec<Outstanding>,
    sent: u32,
    returned: u32,
    total: u32,
    /// The available index when a kick was last considered.
    kicked: u16,
    last_used: u16,
    asleep: bool,
}

fn request(number: u32, len: u32) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend((4..len).map(|i| (number.wrapping_mul(31).wrapping_add(i)) as u8));
    bytes
}

fn answer(number: u32) -> [u8; 8] {
    u64::from(number)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .to_le_bytes()
}

impl Guest {
    /// Sends one request; `None` if there are no descriptors, or whether to kick.
    fn send(&mut self, random: &mut Random) -> Option<bool> {
        let size = u32::from(self.driver.config.size);
        let len = 4 + random.below(60);
        let room = random.below(9);
        let mut parts = 1 + random.below(3.min(size));
        if room > 0 && parts == size {
            parts -= 1;
        }
        let indirect = parts == 0 || random.chance(40);
        let parts = parts.max(1);
        let count = parts + u32::from(room > 0);
        if indirect && count > size {
            // Does not fit into a ring of one: the answer has no room.
            return self.send(random);
        }
        let needed = if indirect { 1 } else { count };
        if self.free.len() < needed as usize {
            return None;
        }
        let number = self.sent;
        self.sent += 1;

        // The buffers of a request: a place of its own, by the first descriptor.
        let descs = self.free.split_off(self.free.len() - needed as usize);
        let first = descs[0];
        let place = buffer(u64::from(first) * SLOT);
        self.driver
            .space
            .poke(place - GPA + USER, &request(number, len));
        let mut buffers = vec![];
        let mut done = 0;
        for part in 0..parts {
            let part_len = if part + 1 == parts {
                len - done
            } else {
                random.below(len - done + 1)
            };
            buffers.push((place + u64::from(done), part_len, 0));
            done += part_len;
        }
        if room > 0 {
            buffers.push((place + 128, room, WRITE));
        }

        // The order of the entries is no matter, as long as `next` is right.
        let more = |i: usize| if i + 1 < buffers.len() { NEXT } else { 0 };
        if indirect {
            let step = if buffers.len() > 1 && random.chance(50) {
                5
            } else {
                1
            };
            let entries = buffers.len() * step;
            let mut table_descs = vec![Desc::new(0, 9, WRITE, 0); entries];
            for (i, (at, len, flags)) in buffers.iter().enumerate() {
                let next = ((i + 1) * step) as u16;
                table_descs[i * step] = Desc::new(*at, *len, flags | more(i), next);
            }
            let offset = u64::from(first) * 512;
            self.driver.table(offset, &table_descs);
            let bytes = entries as u32 * 16;
            self.driver
                .desc(first, Desc::new(table(offset), bytes, INDIRECT, 0));
        } else {
            for (i, (at, len, flags)) in buffers.iter().enumerate() {
                let next = descs.get(i + 1).copied().unwrap_or(0xffff);
                self.driver
                    .desc(descs[i], Desc::new(*at, *len, flags | more(i), next));
            }
        }
        self.outstanding.push(Outstanding {
            first,
            descs,
            number,
            room,
        });
        self.driver.offer(first);
        if random.chance(50) {
            // Consider a kick later, for several.
            return Some(false);
        }
        Some(self.consider_kick())
    }

    fn consider_kick(&mut self) -> bool {
        let (new, old) = (self.driver.avail_idx, self.kicked);
        self.kicked = new;
        if self.driver.config.event_idx {
            need_event(self.driver.avail_event(), new, old)
        } else {
            old != new && self.driver.used_flags() & layout::USED_F_NO_NOTIFY == 0
        }
    }

    /// Takes one answer.
    fn receive(&mut self) -> Result<bool, TestCaseError> {
        if self.driver.used_idx() == self.last_used {
            return Ok(false);
        }
        let (head, len) = self.driver.used(self.last_used);
        self.last_used = self.last_used.wrapping_add(1);
        let found = self
            .outstanding
            .iter()
            .position(|o| u32::from(o.first) == head);
        let found = found.ok_or_else(|| TestCaseError::fail("returned what was not sent"))?;
        let request = self.outstanding.swap_remove(found);
        prop_assert_eq!(len, request.room);
        let mut bytes = vec![0; request.room as usize];
        let at = USER + BUFFERS + u64::from(request.first) * SLOT + 128;
        self.driver.space.peek(at, &mut bytes);
        prop_assert_eq!(&bytes[..], &answer(request.number)[..request.room as usize]);
        self.free.extend(request.descs);
        self.returned += 1;
        Ok(true)
    }

    fn want_interrupts(&mut self, want: bool) {
        if !self.driver.config.event_idx {
            let flags = if want {
                0
            } else {
                layout::AVAIL_F_NO_INTERRUPT
            };
            self.driver.set_avail_flags(flags);
        } else if want {
            self.driver.set_used_event(self.last_used);
        }
    }
}

struct Host {
    ring: SplitRing,
    /// Taken, with the segments, and how many bytes are written.
    held: VecDeque<(Chain, u32)>,
    next: u32,
    asleep: bool,
}

impl Host {
    fn serve(&mut self, guest: &mut Guest, random: &mut Random) -> Result<bool, TestCaseError> {
        let (result, segments) = guest.driver.pop_segments(&mut self.ring);
        let Some(chain) = result.map_err(|e| TestCaseError::fail(format!("{e:?}")))? else {
            return Ok(false);
        };
        if random.chance(10) {
            prop_assert!(self.ring.unpop(chain).is_ok());
            return Ok(true);
        }
        let space = &guest.driver.space;
        let (readable, writable) = segments.split_at(chain.readable_segments() as usize);
        let mut bytes = vec![];
        for Segment { addr, len } in readable {
            let mut part = vec![0; *len as usize];
            space.peek(addr.0, &mut part);
            bytes.extend(part);
        }
        prop_assert_eq!(&bytes, &request(self.next, chain.readable_len()));
        let answer = answer(self.next);
        let mut done = 0;
        for Segment { addr, len } in writable {
            let part = &answer[done..done + *len as usize];
            space.write(addr.0, part).unwrap();
            done += part.len();
        }
        self.next += 1;
        self.held.push_back((chain, done as u32));
        Ok(true)
    }

    /// Returns what is held, in any order; true if the driver is to be interrupted.
    fn finish(&mut self, guest: &Guest, random: &mut Random, all: bool) -> bool {
        let space = &guest.driver.space;
        let mut count = self.held.len();
        if !all {
            count = random.below(count as u32 + 1) as usize;
        }
        if random.chance(50) && count > 1 {
            let by = random.below(count as u32) as usize;
            self.held.rotate_left(by);
        }
        match random.below(3) {
            0 => {
                let chains = self.held.drain(..count);
                self.ring.complete_many(space, chains).unwrap();
            }
            1 => {
                for (chain, written) in self.held.drain(..count) {
                    self.ring.complete(space, chain, written).unwrap();
                }
            }
            _ => {
                for (chain, written) in self.held.drain(..count) {
                    self.ring.stage(space, chain, written).unwrap();
                }
            }
        }
        (all || random.chance(40)) && self.ring.should_signal(space).unwrap()
    }
}

fn traffic(
    size: u32,
    event_idx: bool,
    base: u16,
    total: u32,
    seed: u64,
) -> Result<(u32, u32), TestCaseError> {
    let mut random = Random(seed | 1);
    let driver = Driver::with(size, event_idx, base);
    let mut host = Host {
        ring: driver.ring(),
        held: VecDeque::new(),
        next: 0,
        asleep: false,
    };
    let mut guest = Guest {
        free: (0..size as u16).collect(),
        outstanding: vec![],
        sent: 0,
        returned: 0,
        total,
        kicked: base,
        last_used: base,
        asleep: false,
        driver,
    };
    let (mut kicks, mut interrupts) = (0, 0);

    while guest.returned < guest.total {
        prop_assert!(!(guest.asleep && host.asleep), "a notification was lost");
        if !guest.asleep && (host.asleep || random.chance(50)) {
            // The driver.
            guest.want_interrupts(false);
            let mut busy = true;
            for _ in 0..1 + random.below(8) {
                let sent = guest.sent < guest.total
                    && random.chance(70)
                    && match guest.send(&mut random) {
                        Some(kick) => {
                            kicks += u32::from(kick);
                            host.asleep &= !kick;
                            true
                        }
                        None => false,
                    };
                busy = sent | guest.receive()?;
            }
            let done = guest.sent == guest.total || guest.free.is_empty();
            if done && !busy {
                let kick = guest.consider_kick();
                kicks += u32::from(kick);
                host.asleep &= !kick;
                guest.want_interrupts(true);
                guest.asleep = guest.driver.used_idx() == guest.last_used;
            }
        } else if !host.asleep {
            // The device.
            host.ring.disable_notify(&guest.driver.space).unwrap();
            let mut empty = false;
            for _ in 0..1 + random.below(8) {
                empty = !host.serve(&mut guest, &mut random)?;
                if random.chance(30) {
                    let wake = host.finish(&guest, &mut random, false);
                    interrupts += u32::from(wake);
                    guest.asleep &= !wake;
                }
            }
            if empty {
                let wake = host.finish(&guest, &mut random, true);
                interrupts += u32::from(wake);
                guest.asleep &= !wake;
                host.asleep = !host.ring.enable_notify(&guest.driver.space).unwrap();
            }
        }
    }
    prop_assert_eq!(host.next, total);
    prop_assert_eq!(guest.free.len(), size as usize);
    prop_assert_eq!(host.ring.vring_base(), base.wrapping_add(total as u16));
    prop_assert_eq!(host.ring.last_used_idx(), base.wrapping_add(total as u16));
    Ok((kicks, interrupts))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn all_sizes(log in 0_u32..9, event_idx: bool, base: u16, seed: u64) {
        traffic(1 << log, event_idx, base, 2000, seed)?;
    }
}

#[test]
fn n03_more_packets_than_indexes() {
    for event_idx in [false, true] {
        for size in [4, 128] {
            let (kicks, interrupts) = traffic(size, event_idx, 60_000, 140_000, 7).unwrap();
            // They are suppressed, but not all of them.
            assert!((100..100_000).contains(&kicks), "{kicks}");
            assert!((100..100_000).contains(&interrupts), "{interrupts}");
        }
    }
}
