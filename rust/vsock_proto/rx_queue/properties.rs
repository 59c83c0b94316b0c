// SPDX-License-Identifier: GPL-2.0

//! The queue against a model, with anything that may happen to it and with what is hardest for it.

use super::{
    model::{
        Bench,
        Event,
        Memory, //
    },
    *, //
};
use proptest::prelude::*;
use std::{
    collections::VecDeque,
    vec,
    vec::Vec, //
};

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        4 => 1..=4usize,
        4 => 1..400usize,
        2 => 400..5000usize,
        1 => 5000..=65536usize,
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let waste = prop_oneof![
        3 => Just(None),
        2 => (0..1000usize).prop_map(Some),
        1 => (0..80_000usize).prop_map(Some),
    ];
    prop_oneof![
        12 => (1..40usize, size(), waste, prop::bool::weighted(0.8))
            .prop_map(|(n, len, waste, ends)| Event::Push(n, len, waste, ends)),
        2 => (1000..6000usize, 1..3usize).prop_map(|(n, len)| Event::Push(n, len, None, true)),
        1 => (1..20usize).prop_map(Event::Nothing),
        6 => size().prop_map(Event::Take),
        2 => Just(Event::Take(usize::MAX)),
        3 => size().prop_map(Event::Peek),
        5 => size().prop_map(Event::Read),
        2 => Just(Event::Read(usize::MAX)),
        1 => (size(), size()).prop_map(|(n, at)| Event::Fault(n, at)),
        1 => Just(Event::Buffer),
        6 => Just(Event::PutBack),
    ]
}

/// The allowance of [`limit`].
const ALLOWANCE: usize = 2 * MAX_PKT_BUF_SIZE as usize;

fn ty() -> impl Strategy<Value = SocketType> {
    prop_oneof![Just(SocketType::Stream), Just(SocketType::SeqPacket)]
}

fn buf_alloc() -> impl Strategy<Value = u32> {
    prop_oneof![
        0..5000u32,
        Just(64 * 1024),
        Just(256 * 1024),
        Just(1024 * 1024)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// What comes in comes out as it was, whoever has credit is not refused, and the memory is
    /// bounded.
    #[test]
    fn any_sequence(
        ty in ty(),
        buf_alloc in buf_alloc(),
        events in prop::collection::vec(event(), 0..120),
    ) {
        let mut bench = Bench::new(ty, buf_alloc);
        bench.run(&events);
        prop_assert!(bench.excess <= ALLOWANCE, "{} bytes", bench.excess);
    }

    #[test]
    fn purged_at_any_time(
        ty in ty(),
        before in prop::collection::vec(event(), 0..30),
        after in prop::collection::vec(event(), 0..30),
    ) {
        let mut bench = Bench::new(ty, 64 * 1024);
        let events: Vec<_> = before.into_iter().chain([Event::Purge]).chain(after).collect();
        bench.run(&events);
    }

    /// Without large buffers, only few segments may be less than full.
    #[test]
    fn small_packets(
        ty in ty(),
        rounds in prop::collection::vec((1..3usize, 1..5000usize, 1..4000usize, any::<bool>()), 0..60),
    ) {
        let mut bench = Bench::new(ty, 256 * 1024);
        for (len, n, read, peek) in rounds {
            bench.run_small(len, n, read, peek);
        }
        prop_assert!(bench.excess <= 20 * 1024, "{} bytes", bench.excess);
    }
}

/// A peer with credit is never refused, whatever the size of its packets: 1, 128, 200, 300 bytes,
/// the reader asleep, both types of socket.
#[test]
fn peer_with_credit_is_never_refused() {
    for ty in [SocketType::Stream, SocketType::SeqPacket] {
        for buf_alloc in [1, 100, 4096, 256 * 1024] {
            for len in [
                1, 2, 63, 64, 128, 200, 300, 700, 1500, 3700, 4096, 20_000, 65536,
            ] {
                for waste in [None, Some(0), Some(3000), Some(2 * 65536)] {
                    let mut bench = Bench::new(ty, buf_alloc);
                    while bench.queue.bytes() < bench.buf_alloc {
                        bench.push(len, waste, true);
                    }
                    assert!(bench.excess <= 20 * 1024);
                    bench.run(&[]);
                }
            }
        }
    }
}

/// Tiny ones and large ones take turns: the large ones pay for what the tiny ones waste.
#[test]
fn tiny_and_large_alternate() {
    for ty in [SocketType::Stream, SocketType::SeqPacket] {
        for len in [300, 1000, 1700, 3000, 5000, 65536] {
            for waste in 0..40 {
                let mut bench = Bench::new(ty, 1024 * 1024);
                while bench.queue.bytes() < bench.buf_alloc {
                    bench.push(1, None, true);
                    bench.push(len, Some(waste * len / 16), true);
                }
                assert!(bench.excess <= 20 * 1024, "{} bytes", bench.excess);
                bench.run(&[]);
            }
        }
    }
}

/// A reader looks, a byte comes meanwhile, again and again: with or without large ones in between.
#[test]
fn peeks_beside_tiny_deliveries() {
    for ty in [SocketType::Stream, SocketType::SeqPacket] {
        for (len, every) in [(1, 1), (1900, 2), (3000, 2), (1900, 3), (60_000, 5)] {
            let mut bench = Bench::new(ty, 256 * 1024);
            for n in 0.. {
                bench.take(usize::MAX);
                if n % every == 0 {
                    bench.push(len, Some(len * 9 / 20), true);
                } else {
                    bench.push(1, None, true);
                }
                bench.copy(usize::MAX, true, usize::MAX);
                bench.put_back();
                if bench.queue.bytes() == bench.buf_alloc {
                    break;
                }
                if n > 20_000 {
                    break;
                }
            }
            assert!(bench.excess <= 24 * 1024, "{} bytes", bench.excess);
            bench.run(&[]);
        }
    }
}

/// Messages of one byte, full segments of which come at each peek: the least that pays.
#[test]
fn peeks_beside_full_segments_of_tiny_messages() {
    for n in [1, 100, 1888, 1889, 3776, 3777, 10_000] {
        let mut bench = Bench::new(SocketType::SeqPacket, 256 * 1024);
        while bench.queue.bytes() < bench.buf_alloc {
            bench.run_small(1, n, 0, true);
        }
        assert!(bench.excess <= 20 * 1024, "{n}: {} bytes", bench.excess);
        bench.run(&[]);
    }
}

/// A small packet takes little more than its bytes, and the first one not the memory of many.
#[test]
fn small_packets_take_little() {
    for ty in [SocketType::Stream, SocketType::SeqPacket] {
        let mut bench = Bench::new(ty, 256 * 1024);
        bench.push(64, None, true);
        assert!(bench.queue.memory() <= 960);
        for _ in 1..1000 {
            bench.push(64, None, true);
        }
        assert!(bench.queue.memory() < 1000 * 84);
    }
}

/// Whoever sends messages of nothing without end is refused, with what came before intact.
#[test]
fn endless_messages_of_nothing() {
    let mut queue = Queue::new(SocketType::SeqPacket, VecDeque::new());
    let mut spare = None;
    let mut count = 0u32;
    loop {
        let mut payload = Payload::bytes(&[]);
        match queue.push(&mut payload, SeqFlags::EOM, limit(0), &mut spare) {
            Ok(()) => count += 1,
            Err(Refused::NeedsSegment(size)) => spare = Some(Memory::segment(size)),
            Err(Refused::NoRoom) => break,
        }
    }
    assert!(queue.memory() <= limit(0));
    assert!(count > 100_000);
    assert_eq!(queue.messages(), count);
    while let Some(mut hand) = queue.take_message() {
        let message = hand.message(false, |_, _, _| Err(()));
        assert_eq!((message.len, message.copied), (0, Ok(())));
        assert_eq!(queue.put_back(&mut hand), 0);
        count -= 1;
    }
    assert_eq!((count, queue.memory()), (0, 0));
}

/// A payload that cannot be read, or is pushed with a segment that is too small.
#[test]
fn segment_too_small() {
    let mut queue: Queue<VecDeque<Memory>> = Queue::new(SocketType::Stream, VecDeque::new());
    let bytes = vec![0; 5000];
    let mut payload = Payload::bytes(&bytes);
    let mut spare = Some(Memory::segment(FIRST_SEGMENT));
    let refused = queue.push(&mut payload, SeqFlags::NONE, limit(5000), &mut spare);
    assert_eq!(refused, Err(Refused::NeedsSegment(FULL_SEGMENT)));
    assert!(spare.is_some());
    assert_eq!((queue.memory(), payload.left()), (0, 5000));
}
