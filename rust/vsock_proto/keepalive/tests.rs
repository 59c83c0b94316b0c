// SPDX-License-Identifier: GPL-2.0

use super::*;
use proptest::prelude::*;

/// The seconds at which each is due.
fn timeline(keepalive: Keepalive, until: u16) -> (Vec<u16>, Option<u16>) {
    let mut asked = Vec::new();
    for quiet in 1..=until {
        match keepalive.due(quiet) {
            Due::Nothing => (),
            Due::Ask => asked.push(quiet),
            Due::GiveUp => return (asked, Some(quiet)),
        }
    }
    (asked, None)
}

#[test]
fn as_tcp_counts() {
    let keepalive = Keepalive {
        time: 7200,
        interval: 75,
        probes: 9,
    };
    let (asked, end) = timeline(keepalive, u16::MAX);
    assert_eq!(asked, (0..9).map(|n| 7200 + n * 75).collect::<Vec<_>>());
    assert_eq!(end, Some(7200 + 9 * 75));
}

#[test]
fn switched_off() {
    let keepalive = Keepalive {
        time: 0,
        interval: 1,
        probes: 1,
    };
    assert_eq!(timeline(keepalive, u16::MAX), (Vec::new(), None));
}

#[test]
fn zeros_are_ones() {
    let keepalive = Keepalive {
        time: 3,
        interval: 0,
        probes: 0,
    };
    assert_eq!(timeline(keepalive, 100), (vec![3], Some(4)));
}

#[test]
fn pauses_of_a_stall_grow() {
    let asked: Vec<u16> = (0..=300).filter(|&quiet| stalled(quiet)).collect();
    assert_eq!(asked, [1, 2, 4, 8, 16, 32, 64, 128, 192, 256]);
}

proptest! {
    /// Whatever the times are, a silent peer is asked before it is given up, and is given up.
    #[test]
    fn asked_then_given_up(time in 1..=u16::MAX, interval: u16, probes: u16) {
        let keepalive = Keepalive { time, interval, probes };
        let (asked, end) = timeline(keepalive, u16::MAX);
        prop_assert_eq!(asked.first().copied(), Some(time.min(LONGEST_TIME)));
        prop_assert!(asked.len() <= usize::from(probes.max(1)));
        prop_assert!(end.is_some_and(|end| end > time.min(LONGEST_TIME)));
        // Who missed a second still comes to an end.
        prop_assert_eq!(keepalive.due(u16::MAX), Due::GiveUp);
    }
}
