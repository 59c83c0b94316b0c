// SPDX-License-Identifier: GPL-2.0

//! Tests of the IOTLB (IOT-02 to IOT-05, and the fixed bugs 70, 71, 82, 84).

use super::*;
use crate::{
    Endian,
    RingSize, //
};
use proptest::prelude::*;

type Tlb = Iotlb<Vec<Slot>>;

fn tlb(limit: u32) -> Tlb {
    Iotlb::new(limit, Vec::new()).unwrap()
}

fn map(start: u64, last: u64, user: u64, perm: Perm) -> Mapping {
    Mapping {
        start: Gpa(start),
        last: Gpa(last),
        user: UserAddr(user),
        perm,
    }
}

/// What the kernel does for an update.
fn update(tlb: &mut Tlb, map: Mapping) -> Result<(), EmptyRange> {
    if let Some(slots) = tlb.wants() {
        tlb.grow(vec![Slot::FREE; slots]);
    }
    tlb.insert(map)
}

fn at(tlb: &Tlb, addr: u64, access: Access) -> Result<u64, IotlbError> {
    tlb.lookup(Gpa(addr), 1, access).map(|piece| piece.addr.0)
}

fn miss(addr: u64, access: Access) -> IotlbError {
    IotlbError::Miss(Miss {
        at: Gpa(addr),
        access,
    })
}

#[test]
fn no_limit_is_no_iotlb() {
    assert!(Iotlb::new(0, Vec::new()).is_none());
}

#[test]
fn nothing_is_known_at_first() {
    let tlb = tlb(4);
    assert_eq!(at(&tlb, 0, Access::Read), Err(miss(0, Access::Read)));
    assert_eq!(
        at(&tlb, u64::MAX, Access::Write),
        Err(miss(u64::MAX, Access::Write))
    );
}

#[test]
fn iot02_ranges() {
    let mut tlb = tlb(4);
    assert_eq!(update(&mut tlb, map(1, 0, 0, Perm::BOTH)), Err(EmptyRange));
    assert!(tlb.is_empty());
    assert_eq!(update(&mut tlb, map(0, 0, 7, Perm::BOTH)), Ok(()));
    assert_eq!(at(&tlb, 0, Access::Read), Ok(7));
    assert_eq!(at(&tlb, 1, Access::Read), Err(miss(1, Access::Read)));
}

#[test]
fn the_whole_address_space() {
    let mut tlb = tlb(1);
    update(&mut tlb, map(0, u64::MAX, 0, Perm::READ)).unwrap();
    assert_eq!(at(&tlb, 0, Access::Read), Ok(0));
    assert_eq!(at(&tlb, 1 << 63, Access::Read), Ok(1 << 63));
    // The last byte of the owner's address space cannot be described: its end does not exist.
    assert_eq!(at(&tlb, u64::MAX - 1, Access::Read), Ok(u64::MAX - 1));
    assert_eq!(at(&tlb, u64::MAX, Access::Read), Err(IotlbError::Denied));
    let piece = tlb.lookup(Gpa(5), u32::MAX, Access::Read).unwrap();
    assert_eq!((piece.addr.0, piece.len), (5, u32::MAX));
    tlb.remove(Gpa(0), Gpa(u64::MAX)).unwrap();
    assert!(tlb.is_empty());
}

#[test]
fn permissions() {
    let mut tlb = tlb(8);
    for (page, perm) in [Perm::READ, Perm::WRITE, Perm::BOTH, Perm::from_bits(0xfc)]
        .into_iter()
        .enumerate()
    {
        let start = page as u64 * 10;
        update(&mut tlb, map(start, start + 9, 100, perm)).unwrap();
    }
    let allowed = |addr| [Access::Read, Access::Write].map(|access| at(&tlb, addr, access).is_ok());
    assert_eq!(allowed(0), [true, false]);
    assert_eq!(allowed(10), [false, true]);
    assert_eq!(allowed(20), [true, true]);
    assert_eq!(allowed(30), [false, false]);
    // Not "not yet": asking again would not help.
    assert_eq!(at(&tlb, 0, Access::Write), Err(IotlbError::Denied));
    assert_eq!(at(&tlb, 30, Access::Read), Err(IotlbError::Denied));
}

#[test]
fn the_owner_address_wraps() {
    let mut tlb = tlb(8);
    update(&mut tlb, map(0, 99, u64::MAX - 9, Perm::BOTH)).unwrap();
    assert_eq!(at(&tlb, 8, Access::Read), Ok(u64::MAX - 1));
    assert_eq!(at(&tlb, 9, Access::Read), Err(IotlbError::Denied));
    assert_eq!(at(&tlb, 10, Access::Read), Err(IotlbError::Denied));
    assert_eq!(
        tlb.lookup(Gpa(0), 50, Access::Read),
        Err(IotlbError::Denied)
    );
    // Cutting it does not make up an address.
    update(&mut tlb, map(20, 20, 0, Perm::BOTH)).unwrap();
    assert_eq!(at(&tlb, 21, Access::Read), Err(miss(21, Access::Read)));
}

#[test]
fn iot03_a_part_removes_the_whole() {
    let mut tlb = tlb(8);
    for start in [0, 100, 200] {
        update(&mut tlb, map(start, start + 99, start, Perm::BOTH)).unwrap();
    }
    assert_eq!(tlb.remove(Gpa(150), Gpa(149)), Err(EmptyRange));
    assert_eq!(tlb.len(), 3);
    tlb.remove(Gpa(99), Gpa(100)).unwrap();
    assert_eq!(tlb.len(), 1);
    assert_eq!(at(&tlb, 200, Access::Read), Ok(200));
    assert_eq!(at(&tlb, 0, Access::Read), Err(miss(0, Access::Read)));
    tlb.remove(Gpa(0), Gpa(199)).unwrap();
    tlb.remove(Gpa(300), Gpa(u64::MAX)).unwrap();
    assert_eq!(tlb.len(), 1);
}

#[test]
fn iot04_the_oldest_ones_go() {
    let mut tlb = tlb(2048);
    for page in 0..5000_u64 {
        update(
            &mut tlb,
            map(page << 12, (page << 12) + 0xfff, page, Perm::BOTH),
        )
        .unwrap();
        assert!(tlb.len() <= 2048);
    }
    assert_eq!(tlb.len(), 2048);
    assert_eq!(tlb.wants(), None);
    assert!(at(&tlb, 2951 << 12, Access::Read).is_err());
    assert!(at(&tlb, 2952 << 12, Access::Read).is_ok());
    assert!(at(&tlb, 4999 << 12, Access::Read).is_ok());
    tlb.tree.check();
    // The array did not grow beyond the limit.
    assert_eq!(tlb.tree.room(), 2048);
}

#[test]
fn without_memory_older_ones_go_earlier() {
    let mut tlb = tlb(2048);
    tlb.grow(vec![Slot::FREE; 3]);
    for page in 0..10 {
        // `wants()` is not listened to.
        tlb.insert(map(page, page, page, Perm::BOTH)).unwrap();
    }
    assert_eq!(tlb.len(), 3);
    assert_eq!(tlb.wants(), Some(64));
    // Smaller is nothing to grow to.
    tlb.grow(vec![Slot::FREE; 2]);
    assert_eq!(tlb.len(), 3);
    // There may be no slot at all.
    let mut none = super::Iotlb::new(2048, Vec::new()).unwrap();
    none.insert(map(0, 0, 0, Perm::BOTH)).unwrap();
    assert!(none.is_empty());
}

#[test]
fn the_latest_counts() {
    let mut tlb = tlb(8);
    update(&mut tlb, map(0, 99, 1000, Perm::READ)).unwrap();
    update(&mut tlb, map(40, 59, 5000, Perm::BOTH)).unwrap();
    assert_eq!(at(&tlb, 39, Access::Read), Ok(1039));
    assert_eq!(at(&tlb, 40, Access::Write), Ok(5000));
    assert_eq!(at(&tlb, 59, Access::Read), Ok(5019));
    assert_eq!(at(&tlb, 60, Access::Read), Ok(1060));
    assert_eq!(at(&tlb, 60, Access::Write), Err(IotlbError::Denied));
    // The same once more does not add anything.
    for _ in 0..10 {
        update(&mut tlb, map(40, 59, 5000, Perm::BOTH)).unwrap();
    }
    assert_eq!(tlb.len(), 3);
    // A piece ends where its mapping does.
    let piece = tlb.lookup(Gpa(30), 100, Access::Read).unwrap();
    assert_eq!((piece.addr.0, piece.len), (1030, 10));
    let pieces: Vec<_> = tlb.pieces(Gpa(30), 60, Access::Read).collect();
    let pieces: Vec<_> = pieces.iter().map(|p| p.unwrap().len).collect();
    assert_eq!(pieces, [10, 20, 30]);
}

#[test]
fn a_single_slot() {
    let mut tlb = tlb(1);
    update(&mut tlb, map(0, 99, 1000, Perm::BOTH)).unwrap();
    update(&mut tlb, map(40, 59, 5000, Perm::BOTH)).unwrap();
    assert_eq!(tlb.len(), 1);
    assert_eq!(at(&tlb, 45, Access::Read), Ok(5005));
    assert!(at(&tlb, 0, Access::Read).is_err());
}

/// A ring with 4 entries: descriptors in 0..64, available ring in 64..78, used ring in 80..118.
fn config() -> Config {
    Config {
        size: RingSize::new(4).unwrap(),
        desc: RingAddr(0),
        avail: RingAddr(64),
        used: RingAddr(80),
        base: 0,
        event_idx: true,
        notify_on_empty: false,
        endian: Endian::Little,
    }
}

fn piece(tlb: &Tlb, at: u64, len: u32, access: Access) -> Result<(u64, u32), IotlbError> {
    tlb.ring_piece(RingAddr(at), len, access)
        .map(|piece| (piece.addr.0, piece.len))
}

#[test]
fn a_ring_in_one_mapping() {
    let mut tlb = tlb(8);
    update(&mut tlb, map(0, 117, 1000, Perm::BOTH)).unwrap();
    tlb.prefetch(&config().parts()).unwrap();
    assert_eq!(piece(&tlb, 16, 16, Access::Read), Ok((1016, 16)));
    assert_eq!(piece(&tlb, 66, 2, Access::Read), Ok((1066, 2)));
    assert_eq!(piece(&tlb, 116, 2, Access::Write), Ok((1116, 2)));
    // Beyond the ring the cache is no excuse.
    assert_eq!(piece(&tlb, 117, 2, Access::Write), Ok((1117, 1)));
    assert_eq!(
        piece(&tlb, 118, 2, Access::Write),
        Err(miss(118, Access::Write))
    );
}

#[test]
fn a_ring_in_pieces() {
    let mut tlb = tlb(64);
    for start in (0..118).step_by(10) {
        update(&mut tlb, map(start, start + 9, 10_000 - start, Perm::BOTH)).unwrap();
    }
    tlb.prefetch(&config().parts()).unwrap();
    assert_eq!(piece(&tlb, 16, 16, Access::Read), Ok((9996, 4)));
    assert_eq!(piece(&tlb, 70, 2, Access::Read), Ok((9930, 2)));
}

#[test]
fn a_ring_that_is_not_all_there() {
    let mut tlb = tlb(8);
    let parts = config().parts();
    let missing = |at, access| Err(PieceError::Lookup(miss(at, access)));
    assert_eq!(tlb.prefetch(&parts), missing(0, Access::Read));
    update(&mut tlb, map(0, 63, 1000, Perm::READ)).unwrap();
    assert_eq!(tlb.prefetch(&parts), missing(64, Access::Read));
    update(&mut tlb, map(64, 79, 2000, Perm::READ)).unwrap();
    assert_eq!(tlb.prefetch(&parts), missing(80, Access::Write));
    update(&mut tlb, map(80, 116, 3000, Perm::WRITE)).unwrap();
    assert_eq!(tlb.prefetch(&parts), missing(117, Access::Write));
    update(&mut tlb, map(117, 117, 4000, Perm::READ)).unwrap();
    assert_eq!(
        tlb.prefetch(&parts),
        Err(PieceError::Lookup(IotlbError::Denied))
    );
    update(&mut tlb, map(117, 117, 4000, Perm::WRITE)).unwrap();
    assert_eq!(tlb.prefetch(&parts), Ok(()));
    // The device reads the index of a used ring that it may only write, as with C.
    assert_eq!(piece(&tlb, 82, 2, Access::Read), Ok((3002, 2)));
    // But nothing is written where only reading was asked for.
    assert_eq!(piece(&tlb, 64, 2, Access::Write), Err(IotlbError::Denied));
}

#[test]
fn a_ring_at_the_end_of_the_address_space() {
    let mut tlb = tlb(8);
    update(&mut tlb, map(u64::MAX - 99, u64::MAX, 1000, Perm::BOTH)).unwrap();
    let mut config = config();
    config.desc = RingAddr(u64::MAX - 62);
    assert_eq!(tlb.prefetch(&config.parts()), Err(PieceError::Address));
}

#[test]
fn iot05_the_cache_is_for_one_ring() {
    let mut tlb = tlb(8);
    update(&mut tlb, map(0, 127, 1000, Perm::BOTH)).unwrap();
    let mut config = config();
    tlb.prefetch(&config.parts()).unwrap();
    // Other addresses (CVE-2026-74580), or more of them: asked for anew.
    config.used = RingAddr(4096);
    assert_eq!(
        tlb.prefetch(&config.parts()),
        Err(PieceError::Lookup(miss(4096, Access::Write)))
    );
    config.used = RingAddr(80);
    config.size = RingSize::new(8).unwrap();
    assert_eq!(
        tlb.prefetch(&config.parts()),
        Err(PieceError::Lookup(miss(128, Access::Write)))
    );
}

#[test]
fn every_change_empties_the_cache() {
    let parts = config().parts();
    let fresh = || {
        let mut tlb = tlb(8);
        update(&mut tlb, map(0, 127, 1000, Perm::BOTH)).unwrap();
        tlb.prefetch(&parts).unwrap();
        tlb
    };
    let mut tlb = fresh();
    tlb.remove(Gpa(117), Gpa(117)).unwrap();
    assert_eq!(
        piece(&tlb, 16, 2, Access::Read),
        Err(miss(16, Access::Read))
    );
    assert!(tlb.prefetch(&parts).is_err());

    let mut tlb = fresh();
    update(&mut tlb, map(16, 31, 5000, Perm::READ)).unwrap();
    assert_eq!(piece(&tlb, 16, 2, Access::Read), Ok((5000, 2)));
    tlb.prefetch(&parts).unwrap();
    assert_eq!(piece(&tlb, 16, 2, Access::Read), Ok((5000, 2)));

    // Even one that has nothing to do with it: it may retire a mapping.
    let mut tlb = super::Iotlb::new(1, vec![Slot::FREE; 1]).unwrap();
    tlb.insert(map(0, 127, 1000, Perm::BOTH)).unwrap();
    tlb.prefetch(&parts).unwrap();
    tlb.insert(map(9999, 9999, 0, Perm::BOTH)).unwrap();
    assert_eq!(
        piece(&tlb, 16, 2, Access::Read),
        Err(miss(16, Access::Read))
    );
}

/// The same, slowly: mappings by age, the oldest first.
#[derive(Default)]
struct Model(Vec<Mapping>);

impl Model {
    fn insert(&mut self, new: Mapping, limit: usize) {
        let mut count = self.0.len();
        let mut kept = Vec::new();
        // From the last address to the first, as it is done.
        let mut order: Vec<usize> = (0..self.0.len()).collect();
        order.sort_by_key(|i| std::cmp::Reverse(self.0[*i].start));
        let mut cut = vec![Vec::new(); self.0.len()];
        for i in order {
            let old = self.0[i];
            if old.last < new.start || old.start > new.last {
                cut[i].push(old);
                continue;
            }
            count -= 1;
            if old.start < new.start {
                cut[i].push(Mapping {
                    last: Gpa(new.start.0 - 1),
                    ..old
                });
                count += 1;
            }
            if old.last > new.last && (cut[i].is_empty() || count < limit) {
                cut[i].push(Mapping {
                    start: Gpa(new.last.0 + 1),
                    user: UserAddr(old.user.0 + (new.last.0 + 1 - old.start.0)),
                    ..old
                });
                count += 1;
            }
        }
        cut.into_iter().for_each(|parts| kept.extend(parts));
        while kept.len() >= limit {
            kept.remove(0);
        }
        kept.push(new);
        self.0 = kept;
    }

    fn remove(&mut self, start: u64, last: u64) {
        self.0
            .retain(|map| map.last.0 < start || map.start.0 > last);
    }

    fn lookup(&self, at: u64, access: Access) -> Result<u64, IotlbError> {
        let map = self.0.iter().find(|m| m.start.0 <= at && at <= m.last.0);
        match map {
            None => Err(miss(at, access)),
            Some(map) if !map.perm.allows(access) => Err(IotlbError::Denied),
            Some(map) => Ok(map.user.0 + (at - map.start.0)),
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u64, u64, u8),
    Remove(u64, u64),
}

fn steps(space: u64, longest: u64) -> impl Strategy<Value = Vec<Step>> {
    let range = (0..space, 0..longest);
    prop::collection::vec(
        prop_oneof![
            5 => (range.clone(), 1..4_u8).prop_map(|((s, l), p)| Step::Insert(s, l, p)),
            1 => range.prop_map(|(s, l)| Step::Remove(s, l)),
        ],
        1..300,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Mappings, their ages and all lookups are those of the model, and the tree is a tree.
    #[test]
    fn like_the_model(
        steps in prop_oneof![steps(300, 40), steps(300, 3), steps(5000, 10)],
        limit in prop_oneof![1..5_u32, 5..80_u32, Just(2048)],
    ) {
        let (mut tlb, mut model) = (tlb(limit), Model::default());
        for (number, step) in steps.into_iter().enumerate() {
            let user = (number as u64 + 1) << 32;
            match step {
                Step::Insert(start, more, perm) => {
                    let new = map(start, start + more, user, Perm::from_bits(perm));
                    update(&mut tlb, new).unwrap();
                    model.insert(new, limit as usize);
                }
                Step::Remove(start, more) => {
                    tlb.remove(Gpa(start), Gpa(start + more)).unwrap();
                    model.remove(start, start + more);
                }
            }
            let (by_address, by_age) = tlb.tree.check();
            prop_assert!(by_address.windows(2).all(|two| two[0].last < two[1].start));
            prop_assert_eq!(&by_age, &model.0);
        }
        for addr in 0..400 {
            for access in [Access::Read, Access::Write] {
                prop_assert_eq!(at(&tlb, addr, access), model.lookup(addr, access));
            }
        }
    }
}

/// Lookups do not get slower than the height of a balanced tree, whatever the order of insertions.
#[test]
fn the_tree_stays_low() {
    for order in 0..3_u64 {
        let mut tlb = tlb(1 << 16);
        for n in 0..1_u64 << 16 {
            let start = match order {
                0 => n,
                1 => (1 << 16) - n,
                _ => n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20,
            };
            update(&mut tlb, map(start, start, start, Perm::BOTH)).unwrap();
        }
        // `check()` verifies the balance of each subtree, thus the height.
        tlb.tree.check();
    }
}
