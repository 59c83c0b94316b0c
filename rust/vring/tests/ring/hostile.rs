// SPDX-License-Identifier: GPL-2.0

//! The ring part of the catalogue of hostile guests: a name begins with the row. Here are the rows
//! of what it sends; [`indirect`](crate::indirect) has those of indirect tables.
//!
//! "Refused" is what makes the owner of the ring mark the queue broken.

use crate::driver::*;
use vring::{
    Gpa,
    Malformed,
    Region,
    RingError,
    Segment,
    UserAddr, //
};

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
