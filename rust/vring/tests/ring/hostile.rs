// SPDX-License-Identifier: GPL-2.0

//! The ring part of the catalogue of hostile guests: a name begins with the row.
//!
//! "Refused" is what makes the owner of the ring mark the queue broken.

use crate::driver::*;
use vring::{
    layout,
    Gpa,
    Malformed,
    Region,
    RingAddr,
    RingError,
    RingSize,
    Segment,
    TranslateError,
    UserAddr, //
};

const HEADER: u32 = 44;

fn segment(offset: u64, len: u32) -> Segment {
    Segment {
        addr: UserAddr(USER + BUFFERS + offset),
        len,
    }
}

#[test]
fn t01_valid_request() {
    let mut driver = Driver::new(128);
    driver.chain(&[(buffer(0), HEADER, 0)]);
    assert_eq!(driver.taken(), (HEADER, 0, vec![segment(0, HEADER)]));
}

#[test]
fn t02_head_is_num() {
    let mut driver = Driver::new(128);
    driver.offer(128);
    driver.malformed(Malformed::Head);
}

#[test]
fn t03_head_is_max() {
    let mut driver = Driver::new(128);
    driver.offer(0xffff);
    driver.malformed(Malformed::Head);
}

#[test]
fn t04_next_is_num() {
    let mut driver = Driver::new(128);
    driver.desc(0, Desc::new(buffer(0), HEADER, NEXT, 128));
    driver.offer(0);
    driver.malformed(Malformed::Next);
}

#[test]
fn t05_self_loop() {
    let mut driver = Driver::new(128);
    driver.desc(0, Desc::new(buffer(0), HEADER, NEXT, 0));
    driver.offer(0);
    driver.malformed(Malformed::TooLong);
}

#[test]
fn t06_cycle_of_two() {
    let mut driver = Driver::new(128);
    driver.desc(0, Desc::new(buffer(0), HEADER, NEXT, 1));
    driver.desc(1, Desc::new(buffer(64), 8, NEXT, 0));
    driver.offer(0);
    driver.malformed(Malformed::TooLong);
}

#[test]
fn t07_loop_of_empty_descriptors() {
    let mut driver = Driver::new(128);
    for i in 0..128 {
        driver.desc(i, Desc::new(buffer(0), 0, NEXT, (i + 1) % 128));
    }
    driver.offer(0);
    driver.malformed(Malformed::TooLong);
}

#[test]
fn t08_one_empty_descriptor() {
    let mut driver = Driver::new(128);
    driver.chain(&[(buffer(0), 0, 0)]);
    assert_eq!(driver.taken(), (0, 0, vec![]));
}

#[test]
fn t09_empty_unmapped_descriptors_before_the_header() {
    let mut driver = Driver::new(128);
    let mut parts = vec![(u64::MAX, 0, 0); 90];
    parts.push((buffer(0), HEADER, 0));
    driver.chain(&parts);
    assert_eq!(driver.taken(), (HEADER, 0, vec![segment(0, HEADER)]));
}

#[test]
fn t10_t11_short_chains() {
    for len in [1, 43] {
        let mut driver = Driver::new(128);
        driver.chain(&[(buffer(0), len, 0)]);
        assert_eq!(driver.taken(), (len, 0, vec![segment(0, len)]));
    }
}

#[test]
fn t13_t14_long_chains() {
    for len in [HEADER + 65536, HEADER + 65537] {
        let mut driver = Driver::new(128);
        driver.chain(&[(buffer(0), len, 0)]);
        assert_eq!(driver.taken().0, len);
    }
}

#[test]
fn t15_longest_descriptor() {
    let mut driver = Driver::new(128);
    driver.chain(&[(buffer(0), u32::MAX, 0)]);
    driver.unmapped();
}

#[test]
fn t16_t17_address_wraps() {
    let mut driver = Driver::new(128);
    driver.chain(&[(u64::MAX, HEADER, 0)]);
    driver.unmapped();

    // Also if there is memory at the very end.
    driver.space.map(USER + MEMORY, 4096);
    driver.regions.push(Region {
        gpa_start: Gpa(u64::MAX - 4095),
        size: 4096,
        user_addr: UserAddr(USER + MEMORY),
        writable: true,
    });
    driver.malformed(Malformed::Address);
    let mut driver2 = driver;
    driver2.desc(0, Desc::new(u64::MAX - 4095, 4097, 0, 0));
    driver2.malformed(Malformed::Address);
    // The last byte is not beyond the end.
    driver2.desc(0, Desc::new(u64::MAX - 4095, 4096, 0, 0));
    let expected = Segment {
        addr: UserAddr(USER + MEMORY),
        len: 4096,
    };
    assert_eq!(driver2.taken(), (4096, 0, vec![expected]));
}

#[test]
fn t18_below_first_region() {
    let mut driver = Driver::new(128);
    driver.chain(&[(GPA - 1, 1, 0)]);
    driver.unmapped();
    let mut driver = Driver::new(128);
    driver.chain(&[(GPA - 1, 2, 0)]);
    driver.unmapped();
    let mut driver = Driver::new(128);
    driver.chain(&[(0, HEADER, 0)]);
    driver.unmapped();
}

#[test]
fn t19_beyond_last_region() {
    let mut driver = Driver::new(128);
    driver.chain(&[(GPA + MEMORY - 43, HEADER, 0)]);
    driver.unmapped();
}

#[test]
fn t20_t21_buffer_not_accessible() {
    // The ring does not touch buffers: the caller notices, and returns the chain.
    let mut driver = Driver::new(128);
    driver.regions.push(Region {
        gpa_start: Gpa(GPA + MEMORY),
        size: 4096,
        user_addr: UserAddr(0x1000),
        writable: true,
    });
    driver.chain(&[(GPA + MEMORY, HEADER, 0)]);
    assert_eq!(driver.taken().0, HEADER);
}

#[test]
fn t22_header_is_writable() {
    let mut driver = Driver::new(128);
    driver.chain(&[(buffer(0), HEADER, WRITE)]);
    assert_eq!(driver.taken(), (0, HEADER, vec![segment(0, HEADER)]));
}

#[test]
fn t23_out_then_in() {
    let mut driver = Driver::new(128);
    driver.chain(&[(buffer(0), HEADER, 0), (buffer(100), 10, WRITE)]);
    let expected = vec![segment(0, HEADER), segment(100, 10)];
    assert_eq!(driver.taken(), (HEADER, 10, expected));
}

#[test]
fn t24_in_then_out() {
    let mut driver = Driver::new(128);
    driver.chain(&[(buffer(0), 10, WRITE), (buffer(100), HEADER, 0)]);
    driver.malformed(Malformed::Order);
    // As in C, a readable one is refused even if it is empty, but not after an empty writable one.
    driver.desc(1, Desc::new(buffer(100), 0, 0, 0));
    driver.malformed(Malformed::Order);
    driver.desc(0, Desc::new(buffer(0), 0, WRITE | NEXT, 1));
    driver.desc(1, Desc::new(buffer(100), HEADER, 0, 0));
    assert_eq!(driver.taken().0, HEADER);
}

#[test]
fn t25_indirect() {
    let mut driver = Driver::new(128);
    driver.table(
        0,
        &[
            Desc::new(buffer(0), HEADER, NEXT, 1),
            Desc::new(buffer(100), 1000, 0, 0),
        ],
    );
    // The write flag of the reference has no meaning.
    for flags in [INDIRECT, INDIRECT | WRITE] {
        driver.chain(&[(table(0), 32, flags)]);
        driver.config.base = driver.avail_idx.wrapping_sub(1);
        let expected = vec![segment(0, HEADER), segment(100, 1000)];
        assert_eq!(driver.taken(), (HEADER + 1000, 0, expected));
    }
}

#[test]
fn t25_indirect_after_direct() {
    let mut driver = Driver::new(128);
    driver.table(0, &[Desc::new(buffer(100), 1000, WRITE, 0)]);
    driver.chain(&[(buffer(0), HEADER, 0), (table(0), 16, INDIRECT)]);
    let expected = vec![segment(0, HEADER), segment(100, 1000)];
    assert_eq!(driver.taken(), (HEADER, 1000, expected));
}

#[test]
fn t26_t27_indirect_length() {
    for len in [17, 0, 1, 15] {
        let mut driver = Driver::new(128);
        driver.chain(&[(table(0), len, INDIRECT)]);
        driver.malformed(Malformed::IndirectLength);
    }
}

#[test]
fn t28_indirect_in_indirect() {
    let mut driver = Driver::new(128);
    driver.table(0, &[Desc::new(table(64), 16, INDIRECT, 0)]);
    driver.table(64, &[Desc::new(buffer(0), HEADER, 0, 0)]);
    driver.chain(&[(table(0), 16, INDIRECT)]);
    driver.malformed(Malformed::IndirectNested);
}

#[test]
fn t29_indirect_and_next() {
    let mut driver = Driver::new(128);
    driver.table(0, &[Desc::new(buffer(0), HEADER, 0, 0)]);
    driver.chain(&[(table(0), 16, INDIRECT), (buffer(100), 10, 0)]);
    driver.malformed(Malformed::IndirectNext);
}

#[test]
fn t30_indirect_next_beyond_table() {
    for next in [2, 3, 0xffff] {
        let mut driver = Driver::new(128);
        driver.table(
            0,
            &[
                Desc::new(buffer(0), HEADER, NEXT, 1),
                Desc::new(buffer(0), HEADER, NEXT, next),
                Desc::new(buffer(0), HEADER, 0, 0),
            ],
        );
        driver.chain(&[(table(0), 32, INDIRECT)]);
        driver.malformed(Malformed::Next);
    }
}

#[test]
fn t31_indirect_next_is_followed() {
    let mut driver = Driver::new(128);
    let filler = Desc::new(0, 1, 0, 0);
    let mut descs = [filler; 12];
    descs[0] = Desc::new(buffer(0), 10, NEXT, 5);
    descs[5] = Desc::new(buffer(10), 10, NEXT, 3);
    descs[3] = Desc::new(buffer(20), 10, NEXT, 11);
    descs[11] = Desc::new(buffer(30), 14, 0, 7);
    driver.table(0, &descs);
    driver.chain(&[(table(0), 12 * 16, INDIRECT)]);
    let (len, _, segments) = driver.taken();
    assert_eq!(len, HEADER);
    let expected = [(0, 10), (10, 10), (20, 10), (30, 14)].map(|(at, len)| segment(at, len));
    assert_eq!(segments, expected);
}

#[test]
fn t32_indirect_self_loop() {
    let mut driver = Driver::new(128);
    driver.table(0, &[Desc::new(buffer(0), HEADER, NEXT, 0); 4]);
    driver.chain(&[(table(0), 64, INDIRECT)]);
    driver.malformed(Malformed::TooLong);
}

#[test]
fn t33_largest_indirect_table() {
    let mut driver = Driver::new(128);
    let descs = (0..=0xffff_u16).map(|i| Desc::new(0, 0, NEXT, i.wrapping_add(1)));
    driver.table(0, &descs.collect::<Vec<_>>());
    driver.chain(&[(table(0), 65536 * 16, INDIRECT)]);
    driver.malformed(Malformed::TooLong);
}

#[test]
fn t33_indirect_table_as_large_as_the_ring() {
    // A table may be as long as the ring, of which the reference is no part.
    for size in [1, 2, 4, 8, 128] {
        for (count, ok) in [(size, true), (size + 1, false)] {
            let mut driver = Driver::new(size);
            let descs = (0..count as u16).map(|i| {
                let next = if u32::from(i) + 1 < count { NEXT } else { 0 };
                Desc::new(buffer(i.into()), 1, next, i + 1)
            });
            driver.table(0, &descs.collect::<Vec<_>>());
            driver.chain(&[(table(0), count * 16, INDIRECT)]);
            if ok {
                assert_eq!(driver.taken().0, count);
            } else {
                driver.malformed(Malformed::TooLong);
            }
        }
    }
}

#[test]
fn t34_indirect_table_too_large() {
    let mut driver = Driver::new(128);
    driver.chain(&[(table(0), 65537 * 16, INDIRECT)]);
    driver.malformed(Malformed::IndirectLength);
    driver.desc(0, Desc::new(table(0), u32::MAX - 15, INDIRECT, 0));
    driver.malformed(Malformed::IndirectLength);
}

#[test]
fn t35_indirect_table_unmapped() {
    let mut driver = Driver::new(128);
    driver.chain(&[(0, 16, INDIRECT)]);
    driver.unmapped();
    // In part, and not in the part that is used.
    driver.desc(0, Desc::new(GPA + MEMORY - 16, 32, INDIRECT, 0));
    driver.unmapped();
    // Mapped, but not for the owner.
    driver.regions.push(Region {
        gpa_start: Gpa(GPA + MEMORY),
        size: 4096,
        user_addr: UserAddr(0x1000),
        writable: true,
    });
    driver.desc(0, Desc::new(GPA + MEMORY, 16, INDIRECT, 0));
    driver.refused(RingError::Memory(Fault));
}

#[test]
fn t35_indirect_table_scattered() {
    // Each region has 24 bytes: entries lie across the borders.
    let mut driver = Driver::new(128);
    let descs = [
        Desc::new(buffer(0), 20, NEXT, 2),
        Desc::new(0, 1, 0, 0),
        Desc::new(buffer(20), 24, 0, 0),
    ];
    let bytes = descs.iter().flat_map(|desc| desc.to_bytes());
    for (index, part) in bytes.collect::<Vec<_>>().chunks(24).enumerate() {
        // In the owner's memory they are in reverse order.
        let at = USER + TABLES + 0x1000 - 0x100 * index as u64;
        driver.space.poke(at, part);
        driver.regions.push(Region {
            gpa_start: Gpa(GPA + MEMORY + 24 * index as u64),
            size: 24,
            user_addr: UserAddr(at),
            writable: false,
        });
    }
    driver.chain(&[(GPA + MEMORY, 48, INDIRECT)]);
    assert_eq!(
        driver.taken(),
        (HEADER, 0, vec![segment(0, 20), segment(20, 24)])
    );
    driver.regions.pop();
    driver.config.base = 0;
    driver.unmapped();
}

#[test]
fn t37_too_many_segments() {
    let mut driver = Driver::new(2048);
    driver.chain(&vec![(buffer(0), 1, 0); 1025]);
    driver.malformed(Malformed::Segments);
    driver.desc(1023, Desc::new(buffer(0), 1, 0, 0));
    assert_eq!(driver.taken().2.len(), 1024);
}

#[test]
fn t38_t39_t40_avail_index_jumps() {
    for jump in [129_u16, 0x8000, 0xffff] {
        let mut driver = Driver::new(128);
        driver.chain(&[(buffer(0), HEADER, 0)]);
        driver.set_avail_idx(jump);
        driver.malformed(Malformed::AvailIndex);
        let mut ring = driver.ring();
        let error = RingError::Malformed(Malformed::AvailIndex);
        assert_eq!(ring.enable_notify(&driver.space), Err(error));
        assert_eq!(ring.is_empty(&driver.space), Err(error));
    }
    let mut driver = Driver::new(128);
    driver.set_avail_idx(128);
    let mut ring = driver.ring();
    for _ in 0..128 {
        driver.accepted(&mut ring);
    }
    assert_eq!(driver.pop(&mut ring), Ok(None));
}

#[test]
fn t40_avail_index_goes_back() {
    let mut driver = Driver::new(128);
    driver.chain(&[(buffer(0), HEADER, 0)]);
    driver.offer(0);
    driver.offer(0);
    let mut ring = driver.ring();
    assert_eq!(ring.is_empty(&driver.space), Ok(false));
    driver.set_avail_idx(2);
    let error = RingError::Malformed(Malformed::AvailIndex);
    assert_eq!(ring.enable_notify(&driver.space), Err(error));
}

#[test]
fn t41_kicks_for_nothing() {
    let mut driver = Driver::new(128);
    let mut ring = driver.ring();
    for _ in 0..20_000 {
        let before = driver.space.reads.get();
        assert_eq!(ring.disable_notify(&driver.space), Ok(()));
        assert_eq!(driver.pop(&mut ring), Ok(None));
        assert_eq!(ring.enable_notify(&driver.space), Ok(false));
        assert_eq!(driver.space.reads.get() - before, 2);
    }
}

#[test]
fn t42_same_head_twice() {
    let mut driver = Driver::new(128);
    driver.chain(&[(buffer(0), HEADER, 0)]);
    driver.offer(0);
    let mut ring = driver.ring();
    assert_eq!(driver.accepted(&mut ring).0, HEADER);
    assert_eq!(driver.accepted(&mut ring).0, HEADER);
    assert_eq!(driver.pop(&mut ring), Ok(None));
}

#[test]
fn t44_reserved_flags() {
    let mut driver = Driver::new(128);
    driver.chain(&[(buffer(0), HEADER, 0xfff8)]);
    assert_eq!(driver.taken().0, HEADER);
}

#[test]
fn t45_chain_of_tables() {
    // In C a chain could continue behind a table.
    for flags in [INDIRECT, INDIRECT | NEXT] {
        let mut driver = Driver::new(128);
        let descs = (0..=0xffff_u16).map(|i| Desc::new(0, 0, NEXT, i.wrapping_add(1)));
        let mut descs = descs.collect::<Vec<_>>();
        descs[0xffff].flags = 0;
        driver.table(0, &descs);
        for i in 0..128 {
            driver.desc(i, Desc::new(table(0), 65536 * 16, flags, i + 1));
        }
        driver.offer(0);
        driver.malformed(if flags & NEXT != 0 {
            Malformed::IndirectNext
        } else {
            Malformed::TooLong
        });
    }
}

#[test]
fn t46_driver_changes_what_is_read() {
    let mut driver = Driver::new(8);
    driver.config.event_idx = false;
    let mut state = 0x1234_5678_9abc_def1_u64;
    for i in 0..8 {
        driver.desc(i, Desc::new(buffer(0), HEADER, NEXT, (i + 1) % 8));
    }
    driver.table(0, &[Desc::new(buffer(64), 64, NEXT, 1); 8]);
    *driver.space.mutator.borrow_mut() = Some(Box::new(move |bytes| {
        if bytes.len() % 16 != 0 {
            return;
        }
        for bytes in bytes.chunks_exact_mut(16) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let addresses = [buffer(0), table(0), GPA + MEMORY - 10, 0];
            let desc = Desc::new(
                addresses[state as usize % 4],
                (state >> 8) as u32 % 200,
                (state >> 24) as u16 % 8,
                (state >> 40) as u16 % 9,
            );
            bytes.copy_from_slice(&desc.to_bytes());
        }
    }));
    let mut taken = 0;
    for _ in 0..20_000 {
        let mut ring = driver.ring();
        driver.avail_idx = ring.vring_base();
        driver.offer(0);
        let (result, segments) = driver.pop_segments(&mut ring);
        let Ok(Some(chain)) = result else {
            continue;
        };
        taken += 1;
        // What was checked is what is delivered.
        let split = chain.readable_segments() as usize;
        let sum = |part: &[Segment]| part.iter().map(|s| s.len).sum::<u32>();
        assert_eq!(chain.readable_len(), sum(&segments[..split]));
        assert_eq!(chain.writable_len(), sum(&segments[split..]));
        for segment in segments {
            assert!(segment.addr.0 >= USER);
            assert!(segment.addr.0 + u64::from(segment.len) <= USER + MEMORY);
        }
        assert_eq!(ring.unpop(chain), Ok(()));
    }
    assert!(taken > 1000, "{taken}");
}

#[test]
fn r01_receive_buffer() {
    let mut driver = Driver::new(128);
    driver.chain(&[(buffer(0), 4096, WRITE)]);
    assert_eq!(driver.taken(), (0, 4096, vec![segment(0, 4096)]));
}

#[test]
fn r02_r03_not_a_receive_buffer() {
    let mut driver = Driver::new(128);
    driver.chain(&[(buffer(0), 4096, 0)]);
    assert_eq!(driver.taken(), (4096, 0, vec![segment(0, 4096)]));
    let mut driver = Driver::new(128);
    driver.chain(&[(buffer(0), 43, WRITE)]);
    assert_eq!(driver.taken().1, 43);
}

#[test]
fn r04_receive_buffer_unmapped() {
    let mut driver = Driver::new(128);
    driver.chain(&[(0, 4096, WRITE)]);
    driver.unmapped();
}

#[test]
fn r05_receive_buffer_read_only() {
    let mut driver = Driver::new(128);
    driver.regions.push(Region {
        gpa_start: Gpa(GPA + MEMORY),
        size: 4096,
        user_addr: UserAddr(USER),
        writable: false,
    });
    driver.chain(&[(GPA + MEMORY, 4096, WRITE)]);
    driver.refused(RingError::Translate(TranslateError::Denied));
    driver.desc(0, Desc::new(GPA + MEMORY, 4096, 0, 0));
    assert_eq!(driver.taken().0, 4096);
}

#[test]
fn r09_used_ring_unmapped() {
    let mut driver = Driver::with(128, true, 0);
    // The used ring gets a mapping of its own.
    let used = USER + MEMORY;
    driver.space.map(used, 4096);
    driver.config.used = RingAddr(used);
    driver.chain(&[(buffer(0), HEADER, 0)]);
    driver.offer(0);
    driver.offer(0);
    let mut ring = driver.ring();
    assert_eq!(ring.enable_notify(&driver.space), Ok(true));
    assert_eq!(ring.disable_notify(&driver.space), Ok(()));

    let fault = RingError::Memory(Fault);
    let first = driver.pop(&mut ring).unwrap().unwrap();
    let second = driver.pop(&mut ring).unwrap().unwrap();
    let third = driver.pop(&mut ring).unwrap().unwrap();
    driver.space.protect(used, false, false);
    let used_idx = ring.last_used_idx();
    assert_eq!(ring.complete(&driver.space, first, 0), Err(fault));
    assert_eq!(
        ring.complete_many(&driver.space, [(second, 0), (third, 0)]),
        Err(fault)
    );
    assert_eq!(ring.enable_notify(&driver.space), Err(fault));
    assert_eq!(ring.last_used_idx(), used_idx);
    let error = vring::SplitRing::new(driver.config, &driver.space).map(|_| ());
    assert_eq!(error, Err(fault));
}

#[test]
fn r09_ring_unmapped() {
    let mut driver = Driver::new(128);
    driver.chain(&[(buffer(0), HEADER, 0)]);
    let mut ring = driver.ring();
    driver.space.protect(USER, false, true);
    let fault = RingError::Memory(Fault);
    assert_eq!(driver.pop(&mut ring), Err(RingError::Memory(Fault)));
    assert_eq!(ring.is_empty(&driver.space), Err(fault));
    assert_eq!(ring.should_signal(&driver.space), Err(fault));
    driver.space.protect(USER, true, false);
    let chain = driver.pop(&mut ring).unwrap().unwrap();
    assert_eq!(ring.disable_notify(&driver.space), Err(fault));
    assert_eq!(ring.complete(&driver.space, chain, 0), Err(fault));
}

#[test]
fn r10_no_receive_buffers() {
    let mut driver = Driver::new(128);
    let mut ring = driver.ring();
    ring.disable_notify(&driver.space).unwrap();
    assert_eq!(driver.used_flags(), layout::USED_F_NO_NOTIFY);
    assert_eq!(driver.pop(&mut ring), Ok(None));
    assert_eq!(ring.enable_notify(&driver.space), Ok(false));
    assert_eq!(driver.used_flags(), 0);
    assert_eq!(ring.is_empty(&driver.space), Ok(true));
}

#[test]
fn r11_indirect_receive_buffers() {
    let mut driver = Driver::new(128);
    driver.table(
        0,
        &[
            Desc::new(buffer(0), 44, WRITE | NEXT, 1),
            Desc::new(buffer(100), 100, WRITE | NEXT, 2),
            Desc::new(buffer(300), 4096, WRITE, 0),
        ],
    );
    driver.chain(&[(table(0), 48, INDIRECT)]);
    let expected = vec![segment(0, 44), segment(100, 100), segment(300, 4096)];
    assert_eq!(driver.taken(), (0, 4240, expected));
}

#[test]
fn r12_receive_buffers_for_the_header_only() {
    let mut driver = Driver::new(128);
    driver.chain(&[(buffer(0), HEADER, WRITE)]);
    for _ in 0..103 {
        driver.offer(0);
    }
    let mut ring = driver.ring();
    for _ in 0..104 {
        let chain = driver.pop(&mut ring).unwrap().unwrap();
        assert_eq!(chain.writable_len(), HEADER);
        // Returned without a frame; not more than the chain has can be claimed.
        ring.complete(&driver.space, chain, 0).unwrap();
    }
    assert_eq!(driver.used_idx(), 104);
    assert_eq!(driver.used(103), (0, 0));
}

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
