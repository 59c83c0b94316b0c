// SPDX-License-Identifier: GPL-2.0

//! Any contents of the ring: the walk of a chain against a plain model of it (PC-02, N22, N23).

use crate::driver::*;
use proptest::prelude::*;
use vring::{
    event::need_event,
    layout,
    Gpa,
    Region,
    RingSize,
    Segment,
    UserAddr, //
};

/// Guest addresses of the second and the third region; the second one is not writable.
const SECOND: u64 = GPA + MEMORY;
const THIRD: u64 = SECOND + 40;
const END: u64 = THIRD + 1000;

fn driver(size: u32) -> Driver {
    let mut driver = Driver::new(size);
    driver.regions.push(Region {
        gpa_start: Gpa(SECOND),
        size: THIRD - SECOND,
        user_addr: UserAddr(USER + TABLES + 0x8000),
        writable: false,
    });
    driver.regions.push(Region {
        gpa_start: Gpa(THIRD),
        size: END - THIRD,
        user_addr: UserAddr(USER + TABLES + 0x4000),
        writable: true,
    });
    driver
}

/// The owner's address of a byte.
fn byte_at(regions: &[Region], at: u64, write: bool) -> Option<u64> {
    let region = regions
        .iter()
        .find(|r| r.gpa_start.0 <= at && at - r.gpa_start.0 < r.size)?;
    (region.writable || !write).then_some(region.user_addr.0 + (at - region.gpa_start.0))
}

fn bytes_at(regions: &[Region], at: u64, len: u32, write: bool) -> Option<Vec<u64>> {
    if byte_at(regions, at, write).is_none() && len > 0 {
        return None;
    }
    (0..u64::from(len))
        .map(|i| byte_at(regions, at.checked_add(i)?, write))
        .collect()
}

fn parse(raw: &[u8]) -> Desc {
    let field = |range: std::ops::Range<usize>| {
        let mut all = [0; 8];
        all[..range.len()].copy_from_slice(&raw[range]);
        u64::from_le_bytes(all)
    };
    Desc {
        addr: field(0..8),
        len: field(8..12) as u32,
        flags: field(12..14) as u16,
        next: field(14..16) as u16,
    }
}

/// The addresses of all readable and all writable bytes of a chain; [`None`] if it breaks a rule.
fn model(driver: &Driver, head: u16) -> Option<(Vec<u64>, Vec<u64>)> {
    let size = driver.config.size.get();
    let table = |desc: Desc| -> Option<Vec<Desc>> {
        if desc.len == 0 || desc.len % 16 != 0 || desc.len / 16 > 65536 {
            return None;
        }
        let bytes = bytes_at(&driver.regions, desc.addr, desc.len, false)?;
        let bytes = bytes.into_iter().map(|at| {
            let mut byte = [0];
            driver.space.peek(at, &mut byte);
            byte[0]
        });
        Some(bytes.collect::<Vec<_>>().chunks(16).map(parse).collect())
    };
    let mut raw = vec![0; usize::from(size) * 16];
    driver.space.peek(driver.config.desc.0, &mut raw);
    let mut descs = raw.chunks(16).map(parse).collect::<Vec<_>>();
    let mut buffers = vec![];
    let mut nested = false;
    let mut index = usize::from(head);
    loop {
        let desc = *descs.get(index)?;
        if buffers.len() >= usize::from(size) {
            return None;
        }
        if desc.flags & INDIRECT != 0 {
            if nested || desc.flags & NEXT != 0 {
                return None;
            }
            nested = true;
            descs = table(desc)?;
            index = 0;
            continue;
        }
        buffers.push(desc);
        if desc.flags & NEXT == 0 {
            break;
        }
        index = desc.next.into();
    }

    let (mut readable, mut writable) = (vec![], vec![]);
    let mut total = 0_u64;
    for desc in buffers {
        let write = desc.flags & WRITE != 0;
        if !write && !writable.is_empty() {
            return None;
        }
        total += u64::from(desc.len);
        if total > u64::from(u32::MAX) {
            return None;
        }
        let bytes = bytes_at(&driver.regions, desc.addr, desc.len, write)?;
        if write {
            writable.extend(bytes);
        } else {
            readable.extend(bytes);
        }
    }
    Some((readable, writable))
}

fn check(driver: &mut Driver, head: u16) -> Result<bool, TestCaseError> {
    let expected = model(driver, head);
    let mut ring = driver.ring();
    driver.offer(head);
    let before = driver.space.reads.get();
    let (result, segments) = driver.pop_segments(&mut ring);
    // Index, head; a descriptor may have been scattered over at most two regions more.
    let reads = driver.space.reads.get() - before;
    prop_assert!(reads <= 2 + 3 * (u64::from(driver.config.size.get()) + 1));

    let expand = |part: &[Segment]| {
        part.iter()
            .flat_map(|s| s.addr.0..s.addr.0 + u64::from(s.len))
            .collect::<Vec<_>>()
    };
    let ok = expected.is_some();
    match result {
        Ok(chain) => {
            let chain = chain.ok_or_else(|| TestCaseError::fail("nothing there"))?;
            prop_assert!(segments.iter().all(|s| s.len > 0));
            prop_assert_eq!(chain.head(), head);
            prop_assert!(chain.descriptors() <= u32::from(driver.config.size) + 1);
            let split = chain.readable_segments() as usize;
            prop_assert_eq!(split + chain.writable_segments() as usize, segments.len());
            let (readable, writable) = segments.split_at(split);
            let (readable, writable) = (expand(readable), expand(writable));
            prop_assert_eq!(readable.len(), chain.readable_len() as usize);
            prop_assert_eq!(writable.len(), chain.writable_len() as usize);
            prop_assert_eq!(Some((readable, writable)), expected);
            ring.complete(&driver.space, chain, 0).unwrap();
            prop_assert_eq!(ring.vring_base(), 1);
        }
        Err(error) => {
            prop_assert!(expected.is_none(), "{error:?}");
            prop_assert_eq!(ring.vring_base(), 0);
            prop_assert_eq!(driver.used_idx(), 0);
        }
    }
    Ok(ok)
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        20 => Just(buffer(0)).prop_flat_map(|at| at..at + 512),
        6 => (SECOND - 20)..(END + 8),
        3 => (0_u64..16).prop_map(|i| table(i * 16)),
        1 => any::<u64>(),
        1 => Just(u64::MAX),
    ]
}

fn length() -> impl Strategy<Value = u32> {
    prop_oneof![10 => 0_u32..64, 1 => Just(0), 1 => 0_u32..3000, 1 => Just(u32::MAX)]
}

/// A descriptor of a table with about `size` entries.
fn descriptor(size: u16) -> impl Strategy<Value = Desc> {
    let flags = prop_oneof![
        12 => Just(NEXT),
        8 => Just(0),
        4 => Just(WRITE),
        4 => Just(WRITE | NEXT),
        1 => any::<u16>().prop_map(|f| f & !INDIRECT),
    ];
    let next = prop_oneof![30 => 0..size, 1 => any::<u16>(), 1 => Just(size)];
    (address(), length(), flags, next).prop_map(|(a, l, f, n)| Desc::new(a, l, f, n))
}

fn reference() -> impl Strategy<Value = Desc> {
    let flags = prop_oneof![10 => Just(INDIRECT), 1 => Just(INDIRECT | NEXT), 1 => 0_u16..8];
    let at = prop_oneof![
        10 => (0_u64..16).prop_map(|i| table(16 * i)),
        5 => (SECOND - 100)..END,
        1 => any::<u64>(),
    ];
    let len = prop_oneof![20 => (0_u32..20).prop_map(|n| n * 16), 1 => any::<u32>()];
    (at, len, flags).prop_map(|(a, l, f)| Desc::new(a, l, f, 0))
}

#[derive(Debug, Clone)]
struct Input {
    size: u32,
    descs: Vec<Desc>,
    /// Written to the tables, and to the second and the third region.
    table: Vec<Desc>,
    head: u16,
}

fn input() -> impl Strategy<Value = Input> {
    (0_u32..9).prop_flat_map(|log| {
        let size = 1_u16 << log;
        let descs = prop_oneof![
            6 => descriptor(size).boxed(),
            1 => reference().boxed(),
        ];
        (
            prop::collection::vec(descs, size as usize),
            prop::collection::vec(descriptor(20), 40),
            prop_oneof![10 => 0..size, 1 => any::<u16>()],
        )
            .prop_map(move |(descs, table, head)| Input {
                size: size.into(),
                descs,
                table,
                head,
            })
    })
}

fn set_up(input: &Input) -> Driver {
    let driver = driver(input.size);
    for (index, desc) in input.descs.iter().enumerate() {
        driver.desc(index as u16, *desc);
    }
    for at in [0, 0x4000, 0x8000] {
        driver.table(at, &input.table);
    }
    driver
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn n23_chains_as_the_model_says(input in input()) {
        let mut driver = set_up(&input);
        check(&mut driver, input.head)?;
    }

    #[test]
    fn n22_random_bytes(
        log in 0_u32..6,
        bytes in prop::collection::vec(any::<u8>(), 2048),
        avail_idx in any::<u16>(),
    ) {
        let mut driver = driver(1 << log);
        driver.space.poke(USER, &bytes);
        driver.set_avail_idx(avail_idx);
        let mut ring = driver.ring();
        for _ in 0..4 {
            if let Ok(Some(chain)) = driver.pop(&mut ring) {
                ring.complete(&driver.space, chain, 0).unwrap();
            }
            let _ = ring.enable_notify(&driver.space);
            let _ = ring.should_signal(&driver.space);
            let _ = ring.is_empty(&driver.space);
        }
    }

    #[test]
    fn need_event_is_membership(event: u16, old: u16, count: u16) {
        let new = old.wrapping_add(count);
        // Walking all of `old..new` would be slow.
        let expected = event.wrapping_sub(old) < count;
        prop_assert_eq!(need_event(event, new, old), expected);
    }
}

#[test]
fn the_generator_makes_good_chains_and_bad_ones() {
    use proptest::{
        strategy::ValueTree,
        test_runner::TestRunner, //
    };
    let mut runner = TestRunner::deterministic();
    let (mut good, mut indirect) = (0, 0);
    for _ in 0..1000 {
        let input = input().new_tree(&mut runner).unwrap().current();
        let mut driver = set_up(&input);
        if check(&mut driver, input.head).unwrap() {
            good += 1;
            let head = input.descs[usize::from(input.head)];
            indirect += u32::from(head.flags & INDIRECT != 0);
        }
    }
    assert!((150..900).contains(&good), "{good}");
    assert!(indirect > 5, "{indirect}");
}

#[test]
fn need_event_exhaustive() {
    // All of a ring of indexes modulo 16, spread over 16 bits.
    for old in 0..16_u16 {
        for count in 0..16_u16 {
            let used = (0..count).map(|i| (old + i) % 16).collect::<Vec<_>>();
            let new = (old + count) % 16;
            for event in 0..16_u16 {
                assert_eq!(
                    need_event(event << 12, new << 12, old << 12),
                    used.contains(&event),
                    "{event} {new} {old}"
                );
            }
        }
    }
    // All events and all distances from one index.
    for old in [0, 1, 0x7fff, 0x8000, 0xffff_u16] {
        for count in [0, 1, 2, 255, 0x7fff, 0x8000, 0xffff_u16] {
            let new = old.wrapping_add(count);
            for event in 0..=u16::MAX {
                let expected = event.wrapping_sub(old) < count;
                assert_eq!(need_event(event, new, old), expected);
            }
        }
    }
}

#[test]
fn sizes() {
    for entries in 0..=70_000_u32 {
        let ok = entries.is_power_of_two() && entries <= 32768;
        let size = RingSize::new(entries);
        assert_eq!(size.is_some(), ok);
        if let Some(size) = size {
            assert_eq!(u32::from(size.get()), entries);
            assert_eq!(u32::from(size), entries);
            for index in [0, 1, entries - 1, entries, 0xffff] {
                let index = index as u16;
                assert_eq!(u32::from(size.mask(index)), u32::from(index) % entries);
            }
            // The structures of the specification.
            let n = u64::from(entries);
            assert_eq!(layout::desc_bytes(size), 16 * n);
            assert_eq!(layout::avail_bytes(size, false), 4 + 2 * n);
            assert_eq!(layout::avail_bytes(size, true), 6 + 2 * n);
            assert_eq!(layout::used_bytes(size, false), 4 + 8 * n);
            assert_eq!(layout::used_bytes(size, true), 6 + 8 * n);
        }
    }
    assert_eq!(RingSize::new(1 << 31), None);
    assert_eq!(RingSize::new(u32::MAX), None);
    assert_eq!(RingSize::new(32768), Some(RingSize::MAX));
}

#[test]
fn nospec_is_the_identity_below_the_bound() {
    use vring::nospec::below;
    for bound in [1_u64, 2, 3, 128, 32768, 65535, 65536] {
        for index in 0..bound {
            assert_eq!(below(index, bound), index);
        }
    }
    // What speculation might see.
    let edges = [
        0,
        1,
        2,
        65535,
        65536,
        u64::from(u32::MAX),
        1 << 40,
        (1 << 63) - 1,
    ];
    for bound in edges {
        for index in edges {
            let wanted = if index < bound { index } else { 0 };
            assert_eq!(below(index, bound), wanted, "{index} {bound}");
        }
    }
}
