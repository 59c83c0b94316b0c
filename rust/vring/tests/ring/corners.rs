// SPDX-License-Identifier: GPL-2.0

//! The rows of the catalogue of hostile guests about notifications, indexes and memory; and what
//! else a ring has to stand.

use crate::driver::*;
use vring::{
    layout,
    Gpa,
    Malformed,
    Region,
    RingAddr,
    RingError,
    RingSize,
    UserAddr, //
};

#[test]
fn n01_random_used_event() {
    let mut driver = Driver::with(128, true, 0);
    driver.chain(&[(buffer(0), HEADER, 0)]);
    let mut ring = driver.ring();
    let mut state = 1_u16;
    for _ in 0..100_000 {
        state = state.wrapping_mul(25173).wrapping_add(13849);
        driver.set_used_event(state);
        driver.accepted(&mut ring);
        ring.should_signal(&driver.space).unwrap();
        driver.offer(0);
    }
}

#[test]
fn n02_interrupt_flag_toggles() {
    let mut driver = Driver::new(128);
    driver.chain(&[(buffer(0), HEADER, 0)]);
    let mut ring = driver.ring();
    for i in 0..1000 {
        driver.set_avail_flags(i % 2);
        driver.accepted(&mut ring);
        assert_eq!(ring.should_signal(&driver.space), Ok(i % 2 == 0));
        driver.offer(0);
    }
    // Other bits have no meaning.
    driver.set_avail_flags(0xfffe);
    assert_eq!(ring.should_signal(&driver.space), Ok(true));
}

#[test]
fn n03_indexes_wrap() {
    for event_idx in [false, true] {
        let mut driver = Driver::with(8, event_idx, 0);
        driver.desc(0, Desc::new(buffer(0), 4, WRITE, 0));
        let mut ring = driver.ring();
        for i in 0..70_000_u32 {
            driver.offer(0);
            let (result, segments) = driver.pop_segments(&mut ring);
            let chain = result.unwrap().unwrap();
            driver
                .space
                .write(segments[0].addr.0, &i.to_le_bytes())
                .unwrap();
            ring.complete(&driver.space, chain, 4).unwrap();
            assert_eq!(driver.used_idx(), (i as u16).wrapping_add(1));
            assert_eq!(driver.used(i as u16), (0, 4));
            let mut data = [0; 4];
            driver.space.peek(USER + BUFFERS, &mut data);
            assert_eq!(u32::from_le_bytes(data), i);
            // Asks for each one: is told about each one.
            driver.set_used_event(i as u16);
            assert_eq!(ring.should_signal(&driver.space), Ok(true));
            driver.set_used_event(i as u16);
            // Nothing new since.
            assert_eq!(ring.should_signal(&driver.space), Ok(!event_idx));
        }
    }
}

#[test]
fn n04_smallest_and_largest_ring() {
    for size in [1_u32, 32768] {
        let mut driver = Driver::new(size);
        driver.chain(&[(buffer(0), HEADER, 0)]);
        assert_eq!(driver.taken().0, HEADER);

        // As long a chain as there can be, without bytes.
        let mut driver = Driver::new(size);
        driver.chain(&vec![(0, 0, 0); size as usize]);
        assert_eq!(driver.taken(), (0, 0, vec![]));

        // A loop.
        driver.desc(size as u16 - 1, Desc::new(0, 0, NEXT, 0));
        driver.config.base = 0;
        driver.malformed(Malformed::TooLong);

        // All the ring at once.
        let mut driver = Driver::new(size);
        driver.desc(0, Desc::new(buffer(0), 1, 0, 0));
        driver.set_avail_idx(size as u16);
        let mut ring = driver.ring();
        for _ in 0..size {
            driver.accepted(&mut ring);
        }
        assert_eq!(driver.pop(&mut ring), Ok(None));
    }
}

#[test]
fn n05_base_at_the_end() {
    let mut driver = Driver::with(128, true, 65535);
    let mut ring = driver.ring();
    assert_eq!(driver.avail_event(), 65535);
    driver.chain(&[(buffer(0), HEADER, 0)]);
    driver.offer(0);
    assert_eq!(driver.accepted(&mut ring).0, HEADER);
    assert_eq!(ring.vring_base(), 0);
    assert_eq!(driver.accepted(&mut ring).0, HEADER);
    assert_eq!(ring.vring_base(), 1);
    ring.set_vring_base(0);
    assert_eq!(driver.accepted(&mut ring).0, HEADER);
}

#[test]
fn n06_parts_overlap() {
    // All parts of the ring at one address, or nearly: what we write is read as something else.
    for size in [1, 4, 128] {
        for (avail, used) in [(0, 0), (2, 4), (16, 0), (0, 16), (4, 2048)] {
            let mut driver = Driver::with(size, true, 0);
            driver.config.avail = RingAddr(USER + avail);
            driver.config.used = RingAddr(USER + used);
            driver.regions[0].gpa_start = Gpa(0);
            let mut ring = driver.ring();
            for round in 0..200_u16 {
                driver.set_avail_idx(round);
                if let Ok(Some(chain)) = driver.pop(&mut ring) {
                    let _ = ring.complete(&driver.space, chain, u32::MAX);
                }
                let _ = ring.enable_notify(&driver.space);
                let _ = ring.should_signal(&driver.space);
            }
        }
    }
}

#[test]
fn n07_descriptors_in_a_buffer() {
    // The receive buffer is the descriptor table.
    let mut driver = Driver::new(4);
    driver.desc(0, Desc::new(GPA, 64, WRITE, 0));
    let mut ring = driver.ring();
    for round in 0..1000_u16 {
        driver.offer(0);
        let (result, segments) = driver.pop_segments(&mut ring);
        let Ok(Some(chain)) = result else {
            // Set up again what was overwritten.
            driver.desc(0, Desc::new(GPA, 64, WRITE, 0));
            driver.avail_idx = ring.vring_base();
            driver.set_avail_idx(driver.avail_idx);
            continue;
        };
        for segment in segments {
            let data = (0..segment.len).map(|i| (i as u16).wrapping_mul(round | 1) as u8);
            let data = data.collect::<Vec<_>>();
            driver.space.write(segment.addr.0, &data).unwrap();
        }
        ring.complete(&driver.space, chain, 64).unwrap();
    }
}

#[test]
fn n08_many_regions() {
    // 64 regions, all at one place of the owner.
    let mut driver = Driver::new(128);
    driver.regions.clear();
    for i in 0..64 {
        driver.regions.push(Region {
            gpa_start: Gpa(GPA + 4096 * i),
            size: 4096,
            user_addr: UserAddr(USER + BUFFERS),
            writable: true,
        });
    }
    driver.chain(&[(GPA + 4000, 4096 * 62, WRITE)]);
    let (_, len, segments) = driver.taken();
    assert_eq!(len, 4096 * 62);
    assert_eq!(segments.len(), 63);
    assert_eq!(segments[0], segment(4000, 96));
    assert!(segments[1..62].iter().all(|s| *s == segment(0, 4096)));
    assert_eq!(segments[62], segment(0, 4000));
}

#[test]
fn n09_truncated_memory() {
    let mut driver = Driver::new(4);
    driver.chain(&[(buffer(0), HEADER, 0)]);
    // The descriptors are gone, the available ring is not.
    driver.config.desc = RingAddr(USER + MEMORY);
    driver.refused(RingError::Memory(Fault));
}

#[test]
fn lengths_overflow() {
    // 2^32 bytes, in regions that exist for the guest.
    let mut driver = Driver::new(128);
    driver.regions[0].size = 1 << 40;
    driver.chain(&[(GPA, u32::MAX, 0), (GPA, 1, 0)]);
    driver.malformed(Malformed::Length);
    driver.desc(1, Desc::new(GPA, 1, WRITE, 0));
    driver.malformed(Malformed::Length);
    driver.desc(1, Desc::new(GPA, 0, WRITE, 0));
    assert_eq!(driver.taken().0, u32::MAX);
}

#[test]
fn ring_address_wraps() {
    let driver = Driver::new(128);
    let size = RingSize::new(128).unwrap();
    for (part, bytes) in [
        (0, layout::desc_bytes(size)),
        (1, layout::avail_bytes(size, false)),
        (2, layout::used_bytes(size, false)),
    ] {
        let mut config = driver.config;
        let at = RingAddr(u64::MAX - bytes + 1);
        match part {
            0 => config.desc = at,
            1 => config.avail = at,
            _ => config.used = at,
        }
        let result = vring::SplitRing::new(config, &driver.space).map(|_| ());
        assert_eq!(result, Err(Malformed::RingAddress.into()));
    }
}

#[test]
fn every_write_is_noted() {
    for event_idx in [false, true] {
        let mut driver = Driver::with(8, event_idx, 0);
        driver.desc(0, Desc::new(buffer(0), 1, WRITE, 0));
        let mut ring = driver.ring();
        for _ in 0..20 {
            for _ in 0..5 {
                driver.offer(0);
            }
            ring.disable_notify(&driver.space).unwrap();
            driver.accepted(&mut ring);
            let mut chains = vec![];
            while let Some(chain) = driver.pop(&mut ring).unwrap() {
                chains.push((chain, 1));
            }
            ring.complete_many(&driver.space, chains).unwrap();
            ring.enable_notify(&driver.space).unwrap();
        }
        let bytes = |ranges: &[(u64, u64)]| {
            let all = ranges.iter().flat_map(|(at, len)| *at..at + len);
            all.collect::<Vec<_>>()
        };
        assert_eq!(
            bytes(&driver.space.written.borrow()),
            bytes(&driver.space.noted.borrow())
        );
    }
}

#[test]
fn chains_are_given_back_in_order() {
    let mut driver = Driver::new(8);
    for i in 0..3 {
        driver.desc(i, Desc::new(buffer(0), 1 + u32::from(i), 0, 0));
        driver.offer(i);
    }
    let mut ring = driver.ring();
    let first = driver.pop(&mut ring).unwrap().unwrap();
    let second = driver.pop(&mut ring).unwrap().unwrap();
    let first = ring.unpop(first).expect_err("not the last one");
    assert_eq!(ring.unpop(second), Ok(()));
    assert_eq!(ring.unpop(first), Ok(()));
    for i in 1..=3 {
        assert_eq!(driver.accepted(&mut ring).0, i);
    }
}

#[test]
fn staged_chains_are_not_visible() {
    for staged in 1..=20_u16 {
        let mut driver = Driver::new(8);
        driver.desc(0, Desc::new(buffer(0), 1, WRITE, 0));
        driver.desc(1, Desc::new(buffer(0), 1, WRITE, 0));
        let mut ring = driver.ring();
        for i in 0..staged {
            driver.offer(i % 2);
            let chain = driver.pop(&mut ring).unwrap().unwrap();
            ring.stage(&driver.space, chain, 2).unwrap();
            // The driver does not wait: the ring is published when it is full.
            assert_eq!(driver.used_idx(), i / 8 * 8);
        }
        assert_eq!(ring.should_signal(&driver.space), Ok(true));
        assert_eq!(driver.used_idx(), staged);
        for i in staged.saturating_sub(8)..staged {
            // More than the chain has is never claimed.
            assert_eq!(driver.used(i), (u32::from(i % 2), 1));
        }
    }
}

#[test]
fn notify_on_empty() {
    let mut driver = Driver::new(8);
    driver.config.notify_on_empty = true;
    driver.set_avail_flags(layout::AVAIL_F_NO_INTERRUPT);
    driver.desc(0, Desc::new(buffer(0), 1, 0, 0));
    driver.offer(0);
    driver.offer(0);
    let mut ring = driver.ring();
    driver.accepted(&mut ring);
    assert_eq!(ring.should_signal(&driver.space), Ok(false));
    driver.accepted(&mut ring);
    assert_eq!(ring.should_signal(&driver.space), Ok(true));
}

#[test]
fn first_signal_and_after_going_around() {
    let mut driver = Driver::with(8, true, 0);
    driver.desc(0, Desc::new(buffer(0), 1, 0, 0));
    let mut ring = driver.ring();
    // An event that is not reached.
    driver.set_used_event(1000);
    driver.offer(0);
    driver.accepted(&mut ring);
    assert_eq!(ring.should_signal(&driver.space), Ok(true));
    driver.offer(0);
    driver.accepted(&mut ring);
    assert_eq!(ring.should_signal(&driver.space), Ok(false));
    // 65536 entries without a signal: the old index says nothing.
    driver.set_used_event(1);
    for _ in 0..65536 {
        driver.offer(0);
        driver.accepted(&mut ring);
    }
    assert_eq!(ring.should_signal(&driver.space), Ok(true));
}
