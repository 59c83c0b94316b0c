// SPDX-License-Identifier: GPL-2.0

//! The memory table (ABI-08, PC-04).

use proptest::prelude::*;
use vring::{
    Access,
    Gpa,
    Region,
    RegionError,
    Regions,
    Segment,
    Translate,
    TranslateError,
    UserAddr, //
};

fn region(start: u64, size: u64, user: u64) -> Region {
    Region {
        gpa_start: Gpa(start),
        size,
        user_addr: UserAddr(user),
        writable: true,
    }
}

/// What C does: of the regions that contain the address, the one that begins first.
fn first_match(regions: &[Region], at: u64) -> Option<(u64, bool)> {
    regions
        .iter()
        .filter(|r| r.gpa_start.0 <= at && at - r.gpa_start.0 < r.size)
        .min_by_key(|r| (r.gpa_start, u64::MAX - r.size, r.user_addr, r.writable))
        .map(|r| (r.user_addr.0 + (at - r.gpa_start.0), r.writable))
}

#[test]
fn abi08_no_regions() {
    let table = Regions::new_check(&mut []).unwrap();
    assert_eq!(
        table.lookup(Gpa(0), 1, Access::Read),
        Err(TranslateError::Unmapped)
    );
    assert_eq!(table.pieces(Gpa(0), 0, Access::Read).next(), None);
}

#[test]
fn abi08_refused_regions() {
    let check = |region| Regions::prepare(&mut [region]);
    assert_eq!(check(region(0, 0, 0)), Err(RegionError::Empty));
    assert_eq!(check(region(u64::MAX, 0, 0)), Err(RegionError::Empty));
    assert_eq!(check(region(u64::MAX, 2, 0)), Err(RegionError::Wrap));
    assert_eq!(check(region(1, u64::MAX, 0)), Ok(1));
    assert_eq!(check(region(2, u64::MAX, 0)), Err(RegionError::Wrap));
    assert_eq!(check(region(0, u64::MAX, 0)), Ok(1));
    assert_eq!(check(region(u64::MAX, 1, 0)), Ok(1));
}

#[test]
fn abi08_owner_address_wraps() {
    // Taken, but the part that does not exist has no translation.
    let mut table = [region(0, 4096, u64::MAX - 99)];
    let table = Regions::new_check(&mut table).unwrap();
    assert!(table.lookup(Gpa(0), 99, Access::Read).is_ok());
    assert_eq!(
        table.lookup(Gpa(0), 101, Access::Read),
        Err(TranslateError::Unmapped)
    );
    assert_eq!(
        table.lookup(Gpa(100), 1, Access::Read),
        Err(TranslateError::Unmapped)
    );
}

#[test]
fn abi08_overlap() {
    // The second one is hidden in part, the third one completely.
    let mut table = [
        region(0x1000, 0x1000, 0x10000),
        region(0x1800, 0x1000, 0x20000),
        region(0x1400, 0x100, 0x30000),
    ];
    assert_eq!(Regions::prepare(&mut table), Ok(2));
    assert_eq!(
        table[..2],
        [
            region(0x1000, 0x1000, 0x10000),
            region(0x2000, 0x800, 0x20800)
        ]
    );
}

#[test]
fn denied() {
    let mut table = [region(0, 10, 100), region(10, 10, 200)];
    table[1].writable = false;
    let table = Regions::new_check(&mut table).unwrap();
    let pieces = |access| table.pieces(Gpa(5), 10, access).collect::<Vec<_>>();
    let first = Segment {
        addr: UserAddr(105),
        len: 5,
    };
    let second = Segment {
        addr: UserAddr(200),
        len: 5,
    };
    assert_eq!(pieces(Access::Read), [Ok(first), Ok(second)]);
    assert_eq!(
        pieces(Access::Write),
        [
            Ok(first),
            Err(vring::translate::PieceError::Lookup(TranslateError::Denied))
        ]
    );
}

#[test]
fn many_regions_in_any_order() {
    // The order is no way to make it slow.
    const COUNT: u64 = 65535;
    let orders: [fn(u64) -> u64; 4] = [
        |i| i,
        |i| COUNT - 1 - i,
        |i| i * 7919 % COUNT,
        |i| i / 2 + (i % 2) * (COUNT / 2),
    ];
    for order in orders {
        let table = (0..COUNT).map(|i| region(order(i) * 16, 16, order(i) * 32));
        let mut table = table.collect::<Vec<_>>();
        let kept = Regions::prepare(&mut table).unwrap();
        assert!(table[..kept]
            .windows(2)
            .all(|w| w[0].gpa_start < w[1].gpa_start));
        assert!(kept >= COUNT as usize - 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn pc04_first_match_and_exact_cover(
        regions in prop::collection::vec((0_u64..64, 1_u64..24, 0_u64..8, any::<bool>()), 0..12),
        at in 0_u64..80,
        len in 0_u32..80,
        write in any::<bool>(),
    ) {
        let regions = regions
            .into_iter()
            .map(|(start, size, user, writable)| Region {
                writable,
                ..region(start, size, user * 1000)
            })
            .collect::<Vec<_>>();
        let mut table = regions.clone();
        let table = Regions::new_check(&mut table).unwrap();

        let prepared = table.as_slice();
        prop_assert!(prepared
            .windows(2)
            .all(|w| w[0].gpa_start.0 + w[0].size <= w[1].gpa_start.0));
        for at in 0..100 {
            let found = table.find(Gpa(at)).map(|r| {
                (r.user_addr.0 + (at - r.gpa_start.0), r.writable)
            });
            prop_assert_eq!(found, first_match(&regions, at));
        }

        let access = if write { Access::Write } else { Access::Read };
        let expected = (at..at + u64::from(len))
            .map(|at| first_match(&regions, at).filter(|(_, ok)| *ok || !write))
            .map(|found| found.map(|(user, _)| user))
            .collect::<Option<Vec<_>>>();
        let mut bytes = vec![];
        let result = table.translate(Gpa(at), len, access, |piece| {
            assert!(piece.len > 0);
            bytes.extend(piece.addr.0..piece.addr.0 + u64::from(piece.len));
            Ok::<(), vring::translate::PieceError<TranslateError>>(())
        });
        prop_assert_eq!(result.ok().map(|()| bytes), expected);
    }
}
