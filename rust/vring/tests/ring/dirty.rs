// SPDX-License-Identifier: GPL-2.0

//! Where the bits of a dirty log are (LOG-02, LOG-03, LOG-05).

use proptest::prelude::*;
use std::collections::BTreeSet;
use vring::{
    dirty,
    Gpa,
    Region,
    Regions,
    UserAddr, //
};

/// The pages whose bits are set, for a log at `base`: as user space reads the bitmap, by bytes.
fn set_pages(base: u64, at: u64, len: u64) -> Option<Vec<u64>> {
    let mut pages = Vec::new();
    for (word, mask) in dirty::words(UserAddr(base), Gpa(at), len)? {
        assert_eq!(word.0 % 4, 0);
        assert_ne!(mask, 0);
        for (index, byte) in mask.to_le_bytes().iter().enumerate() {
            for bit in 0..8 {
                if byte & 1 << bit != 0 {
                    pages.push((word.0 + index as u64 - base) * 8 + bit);
                }
            }
        }
    }
    Some(pages)
}

#[test]
fn nothing_to_log() {
    assert!(dirty::words(UserAddr(0), Gpa(5), 0).is_none());
    assert_eq!(dirty::extent(Gpa(5), 0), None);
    assert!(dirty::words(UserAddr(0), Gpa(u64::MAX), 2).is_none());
    assert_eq!(dirty::extent(Gpa(u64::MAX), 2), None);
}

#[test]
fn log02_the_end_of_the_address_space() {
    assert_eq!(dirty::extent(Gpa(u64::MAX), 1), Some(((1 << 49) - 1, 1)));
    assert_eq!(dirty::extent(Gpa(u64::MAX - 3), 1030), None);
    let last = u64::MAX / 4096;
    assert_eq!(set_pages(0, u64::MAX, 1), Some(vec![last]));
    // The log itself would go beyond the end.
    assert!(dirty::words(UserAddr(u64::MAX), Gpa(0), 1).is_none());
    assert!(dirty::words(UserAddr(u64::MAX - (1 << 49)), Gpa(u64::MAX), 1).is_none());
}

#[test]
fn one_byte_more() {
    assert_eq!(set_pages(64, 4095, 1), Some(vec![0]));
    assert_eq!(set_pages(64, 4095, 2), Some(vec![0, 1]));
    assert_eq!(set_pages(64, 4096, 4096), Some(vec![1]));
    assert_eq!(dirty::extent(Gpa(7 * 4096), 4096), Some((0, 1)));
    // C computes one byte here, and writes two.
    assert_eq!(dirty::extent(Gpa(7 * 4096), 8192), Some((0, 2)));
}

#[test]
fn a_log_that_is_not_aligned() {
    for base in 0..16 {
        assert_eq!(
            set_pages(base, 0, 100 * 4096),
            Some((0..100).collect::<Vec<_>>())
        );
    }
}

fn region(start: u64, size: u64, user: u64) -> Region {
    Region {
        gpa_start: Gpa(start),
        size,
        user_addr: UserAddr(user),
        writable: true,
    }
}

#[test]
fn an_alias_is_logged_too() {
    let mut regions = [
        region(0, 0x1000, 0x7000),
        region(0x10_0000, 0x1000, 0x7000),
        region(0x20_0000, 0x800, 0x7800),
    ];
    let table = Regions::new_check(&mut regions).unwrap();
    let areas: Vec<_> = table.guest_areas(UserAddr(0x77f0), 0x20).collect();
    assert_eq!(
        areas,
        [
            (Gpa(0x7f0), 0x20),
            (Gpa(0x10_07f0), 0x20),
            (Gpa(0x20_0000), 0x10),
        ]
    );
    assert_eq!(table.guest_areas(UserAddr(0x8000), 1).count(), 0);
    assert_eq!(table.guest_areas(UserAddr(0x6fff), 1).count(), 0);
    assert_eq!(table.guest_areas(UserAddr(0x7000), 0).count(), 0);
    assert_eq!(table.guest_areas(UserAddr(u64::MAX), 2).count(), 0);
}

proptest! {
    /// Exactly the pages of the area, in order, each once, and inside of the extent.
    #[test]
    fn the_pages_of_an_area(
        base in prop_oneof![0..64_u64, any::<u32>().prop_map(u64::from)],
        at in prop_oneof![0..1_u64 << 24, 1_u64 << 40..1 << 41],
        len in prop_oneof![1..10_000_u64, 1..2_000_000_u64],
    ) {
        let expected: Vec<u64> = (at / 4096..=(at + len - 1) / 4096).collect();
        let (first, bytes) = dirty::extent(Gpa(at), len).unwrap();
        prop_assert_eq!(first, expected[0] / 8);
        prop_assert_eq!(first + bytes - 1, expected[expected.len() - 1] / 8);
        prop_assert_eq!(set_pages(base, at, len), Some(expected));
    }

    /// Each byte of the area, under each address that the guest has for it.
    #[test]
    fn the_guest_addresses_of_an_area(
        regions in prop::collection::vec((0..200_u64, 1..60_u64, 0..200_u64), 0..12),
        user in 0..250_u64,
        len in 0..100_u64,
    ) {
        let mut regions: Vec<_> = regions.into_iter().map(|(g, s, u)| region(g, s, u)).collect();
        let table = Regions::new_check(&mut regions).unwrap();
        let mut expected = BTreeSet::new();
        for region in table.as_slice() {
            for offset in 0..region.size {
                if (user..user + len).contains(&(region.user_addr.0 + offset)) {
                    expected.insert(region.gpa_start.0 + offset);
                }
            }
        }
        let mut found = BTreeSet::new();
        for (at, len) in table.guest_areas(UserAddr(user), len) {
            for at in at.0..at.0 + len {
                prop_assert!(found.insert(at));
            }
        }
        prop_assert_eq!(found, expected);
    }
}
