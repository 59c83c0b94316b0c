// SPDX-License-Identifier: GPL-2.0

//! What is read ahead is never older than the chain that it belongs to, and never counts as taken.

use crate::driver::*;
use vring::{
    layout,
    Access,
    Gpa,
    LastRegion,
    Malformed,
    Region,
    Regions,
    RingAddr,
    RingError,
    Translate,
    UserAddr, //
};

/// Offers a chain of one descriptor.
fn offer(driver: &mut Driver, head: u16, offset: u64, len: u32) {
    driver.desc(head, Desc::new(buffer(offset), len, 0, 0));
    driver.offer(head);
}

#[track_caller]
fn expect(driver: &mut Driver, ring: &mut vring::SplitRing, head: u16, offset: u64, len: u32) {
    let (result, segments) = driver.pop_segments(ring);
    let chain = result.expect("refused").expect("nothing there");
    assert_eq!(chain.head(), head);
    assert_eq!(segments.len(), 1);
    assert_eq!(segments[0].addr.0, USER + BUFFERS + offset);
    assert_eq!(segments[0].len, len);
    ring.complete(&driver.space, chain, 0).expect("complete");
}

#[test]
fn a_descriptor_is_not_older_than_its_chain() {
    let mut driver = Driver::new(16);
    let mut ring = driver.ring();
    driver.desc(1, Desc::new(buffer(0), 7, 0, 0));
    offer(&mut driver, 0, 64, 1);
    // Reads descriptor 1, too, which is in no chain.
    expect(&mut driver, &mut ring, 0, 64, 1);
    offer(&mut driver, 1, 128, 2);
    expect(&mut driver, &mut ring, 1, 128, 2);
    assert_eq!(driver.pop(&mut ring), Ok(None));

    // The same if the index is read by something else.
    driver.desc(3, Desc::new(buffer(0), 7, 0, 0));
    offer(&mut driver, 2, 64, 3);
    offer(&mut driver, 4, 192, 4);
    expect(&mut driver, &mut ring, 2, 64, 3);
    offer(&mut driver, 3, 256, 5);
    assert_eq!(ring.enable_notify(&driver.space), Ok(true));
    expect(&mut driver, &mut ring, 4, 192, 4);
    expect(&mut driver, &mut ring, 3, 256, 5);
}

#[test]
fn heads_are_taken_one_by_one_over_the_end_of_the_ring() {
    for base in [0, 3, 30, 65530] {
        let mut driver = Driver::with(32, false, base);
        let mut ring = driver.ring();
        for round in 0..4 {
            for n in 0..32_u16 {
                let head = n * 5 % 32;
                offer(
                    &mut driver,
                    head,
                    u64::from(head) * 64,
                    u32::from(n) + round + 1,
                );
            }
            for n in 0..32_u16 {
                let head = n * 5 % 32;
                let before = ring.vring_base();
                expect(
                    &mut driver,
                    &mut ring,
                    head,
                    u64::from(head) * 64,
                    u32::from(n) + round + 1,
                );
                assert_eq!(ring.vring_base(), before.wrapping_add(1));
            }
            assert_eq!(driver.pop(&mut ring), Ok(None));
        }
        // Another device finds the next chain where this one stopped.
        for n in 0..8 {
            offer(&mut driver, n, u64::from(n) * 64, 9);
        }
        for n in 0..3 {
            expect(&mut driver, &mut ring, n, u64::from(n) * 64, 9);
        }
        driver.config.base = ring.vring_base();
        let mut other = driver.ring();
        for n in 3..8 {
            expect(&mut driver, &mut other, n, u64::from(n) * 64, 9);
        }
    }
}

#[test]
fn a_chain_that_was_given_back_is_read_again() {
    let mut driver = Driver::new(16);
    let mut ring = driver.ring();
    for n in 0..4 {
        offer(&mut driver, n, u64::from(n) * 64, 1);
    }
    let chain = driver.pop(&mut ring).expect("refused").expect("nothing");
    assert_eq!(ring.unpop(chain), Ok(()));
    for n in 0..4 {
        driver.desc(n, Desc::new(buffer(u64::from(n) * 64), 2, 0, 0));
    }
    for n in 0..4 {
        expect(&mut driver, &mut ring, n, u64::from(n) * 64, 2);
    }
}

#[test]
fn what_nobody_asked_for_need_not_exist() {
    let mut driver = Driver::new(16);
    let table = USER + MEMORY;
    driver.space.map(table, 16);
    driver.config.desc = RingAddr(table);
    let mut ring = driver.ring();
    offer(&mut driver, 0, 64, 5);
    expect(&mut driver, &mut ring, 0, 64, 5);
    // What was asked for has to.
    driver.offer(1);
    assert_eq!(driver.pop(&mut ring), Err(RingError::Memory(Fault)));
}

#[test]
fn a_wrong_head_breaks_only_its_own_turn() {
    let mut driver = Driver::new(16);
    let mut ring = driver.ring();
    offer(&mut driver, 0, 64, 1);
    driver.offer(16);
    offer(&mut driver, 2, 64, 3);
    expect(&mut driver, &mut ring, 0, 64, 1);
    let base = ring.vring_base();
    for _ in 0..3 {
        let error = RingError::Malformed(Malformed::Head);
        assert_eq!(driver.pop(&mut ring), Err(error));
        assert_eq!(ring.vring_base(), base);
    }
    // It is read again after that.
    let slot = driver.config.size.mask(base);
    let at = driver.config.avail.0 + layout::avail_offset(slot);
    driver.desc(1, Desc::new(buffer(128), 2, 0, 0));
    driver.poke_u16(at, 1);
    expect(&mut driver, &mut ring, 1, 128, 2);
    expect(&mut driver, &mut ring, 2, 64, 3);
}

#[test]
fn the_last_region_answers_as_all_of_them() {
    let region = |start, size, user, writable| Region {
        gpa_start: Gpa(start),
        size,
        user_addr: UserAddr(user),
        writable,
    };
    let table = [
        region(0x1000, 0x1000, 0x7000_0000, true),
        region(0x2000, 0x800, 0x9000_0000, false),
        region(0x4000, 0x3000, u64::MAX - 0xfff, true),
        region(u64::MAX - 0xfff, 0x1000, 0x1_0000_0000, true),
    ];
    let all = Regions::from_prepared(&table);
    let last = LastRegion::new(all);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut found = 0;
    for _ in 0..100_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let at = match state % 8 {
            0 => u64::MAX - (state >> 8) % 0x2000,
            _ => (state >> 8) % 0x8000,
        };
        let len = [1, 16, 0x800, 0x1000, 0x1001, u32::MAX][(state >> 40) as usize % 6];
        let access = [Access::Read, Access::Write][(state >> 48) as usize % 2];
        let expected = all.lookup(Gpa(at), len, access);
        assert_eq!(
            last.lookup(Gpa(at), len, access),
            expected,
            "{at:#x} {len:#x}"
        );
        found += u32::from(expected.is_ok());
    }
    assert!(found > 10_000, "{found}");
}
