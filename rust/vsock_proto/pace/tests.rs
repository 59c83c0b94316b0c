// SPDX-License-Identifier: GPL-2.0

use super::*;
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

/// What goes from `begin` on for some seconds if there is always something to send; whoever waits
/// is late by what `late` says.
fn flood(pacer: &mut Pacer, begin: u64, seconds: u64, sizes: &[usize], late: u64) -> (u64, u64) {
    let (mut now, mut packets, mut bytes) = (begin, 0, 0);
    for size in sizes.iter().cycle() {
        if let Some(wait) = pacer.wait(now) {
            now += wait + late;
        }
        if now >= begin + seconds * SECOND {
            break;
        }
        pacer.spend(now, *size);
        packets += 1;
        bytes += (*size + HEADER_LEN) as u64;
    }
    (packets, bytes)
}

#[test]
fn nothing_is_set() {
    let mut pacer = Pacer::new();
    pacer.spend(0, 1 << 16);
    assert_eq!(pacer.wait(0), None);
}

#[test]
fn bytes_and_packets_are_held() {
    for (bytes, packets) in [
        (1 << 20, 0),
        (0, 5000),
        (1 << 20, 50),
        (10_000_000, 100_000),
    ] {
        let rate = Rate {
            bytes,
            packets,
            burst: 20_000,
        };
        for size in [0, 1, 100, 4096, 1 << 16] {
            let mut pacer = Pacer::new();
            pacer.set(0, rate);
            let (p, b) = flood(&mut pacer, 7 * SECOND, 10, &[size], 3_000_000);
            // 10 s, what may come at once, and one more.
            let size = (size + HEADER_LEN) as f64;
            let most = [
                (bytes as f64 * 10.02 / size, bytes),
                (packets as f64 * 10.02, packets),
            ];
            let most = most.iter().filter(|(_, rate)| *rate != 0);
            let most = most.map(|(most, _)| *most).fold(f64::MAX, f64::min);
            assert!(p as f64 <= most + 1.0, "{rate:?} {size}: {p} of {most}");
            assert!(
                p as f64 >= most * 0.98 - 2.0,
                "{rate:?} {size}: {p} of {most}"
            );
            assert_eq!(b as f64, p as f64 * size);
        }
    }
}

#[test]
fn a_pause_gives_no_more_than_may_come_at_once() {
    let mut pacer = Pacer::new();
    pacer.set(
        0,
        Rate {
            packets: 1000,
            burst: 100_000,
            ..Rate::default()
        },
    );
    flood(&mut pacer, 0, 1, &[0], 0);
    let now = 1000 * SECOND;
    let mut at_once = 0;
    while pacer.wait(now).is_none() {
        pacer.spend(now, 0);
        at_once += 1;
    }
    assert_eq!(at_once, 101);
}

#[test]
fn setting_it_again_gives_nothing_back() {
    let rate = Rate {
        packets: 1000,
        burst: 100_000,
        ..Rate::default()
    };
    let mut pacer = Pacer::new();
    pacer.set(SECOND, rate);
    while pacer.wait(SECOND).is_none() {
        pacer.spend(SECOND, 0);
    }
    pacer.set(SECOND, rate);
    assert!(pacer.wait(SECOND).is_some());
    pacer.set(SECOND, Rate::default());
    pacer.set(SECOND, rate);
    assert!(pacer.wait(SECOND).is_some());
}

#[test]
fn a_faster_rate_counts_at_once() {
    let mut pacer = Pacer::new();
    pacer.set(
        0,
        Rate {
            bytes: 1,
            ..Rate::default()
        },
    );
    pacer.spend(SECOND, 1 << 16);
    let fast = Rate {
        bytes: 1 << 20,
        burst: 50_000,
        ..Rate::default()
    };
    pacer.set(SECOND, fast);
    let wait = pacer.wait(SECOND).expect("one packet is to be made good");
    assert!(wait < SECOND / 15, "{wait}");
    // Less at once gives no more back than that.
    pacer.set(
        SECOND,
        Rate {
            burst: 1_000,
            ..fast
        },
    );
    assert_eq!(pacer.wait(SECOND), Some(wait));
}

#[test]
fn a_long_time_is_over_some_day() {
    let mut pacer = Pacer::new();
    pacer.set(
        0,
        Rate {
            bytes: 1,
            ..Rate::default()
        },
    );
    pacer.spend(0, (1 << 16) - HEADER_LEN);
    assert_eq!(pacer.wait(0), Some(65536 * SECOND - 1_000_000));
    assert_eq!(pacer.wait(65536 * SECOND), None);
}

proptest! {
    /// In no interval more goes than the rate, what may come at once, and one packet.
    #[test]
    fn no_interval_has_more(
        bytes in 1000u64..1 << 32,
        burst in 0..MOST_BURST,
        steps in prop::collection::vec((0u64..50_000_000, 0usize..1 << 16), 1..200),
    ) {
        let mut pacer = Pacer::new();
        pacer.set(0, Rate { bytes, packets: 0, burst });
        let (mut now, mut went) = (0, Vec::new());
        for (pause, size) in steps {
            now += pause;
            if pacer.wait(now).is_none() {
                pacer.spend(now, size);
                went.push((now, (size + HEADER_LEN) as u64));
            }
        }
        let burst = f64::from(burst.max(LEAST_BURST)) / 1e6;
        for (n, (from, _)) in went.iter().enumerate() {
            let mut sum = 0;
            for (to, size) in &went[n..] {
                let time = (to - from) as f64 / 1e9 + burst;
                prop_assert!(sum as f64 <= bytes as f64 * time + 1.0);
                sum += size;
            }
        }
    }

    #[test]
    fn nothing_panics(
        bytes: u64, packets: u64, burst: u32, now: u64, payload: usize,
    ) {
        let mut pacer = Pacer::new();
        pacer.set(0, Rate { bytes, packets, burst });
        pacer.spend(now, payload);
        pacer.wait(now);
        pacer.spend(u64::MAX, payload);
        pacer.wait(0);
    }
}
