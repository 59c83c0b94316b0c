// SPDX-License-Identifier: GPL-2.0

//! The rows of the catalogue of hostile guests about indirect tables.

use crate::driver::*;
use vring::{
    Gpa,
    Malformed,
    Region,
    RingError,
    UserAddr, //
};

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
