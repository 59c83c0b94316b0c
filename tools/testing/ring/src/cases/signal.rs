// SPDX-License-Identifier: GPL-2.0

//! Signals: when the driver is told that something was used or is wrong, and what kicks do.

use super::{case, round_trips, Case, Ctx};
use crate::{
    abi::{self, feature},
    device::{Device, Setup, RX, TX},
    host::{try_connect, verdict},
    observe::{answers, NOBODY},
    packet, Try,
};
use std::os::fd::AsRawFd;

/// A driver does not want to be told of what was used.
const NO_INTERRUPT: u16 = 1;

pub const CASES: &[Case] = &[
    case(
        "S01/flag-against-signals",
        "without it a signal, with it none",
        |_| {
            let mut dev = device(feature::VERSION_1)?;
            let without = packets(&mut dev, 3)?;
            dev.q[TX].set_flags(NO_INTERRUPT);
            let with = packets(&mut dev, 3)?;
            Ok(format!("without it {without}, with it {with}"))
        },
    ),
    case("S02/notify-on-empty", "a signal", |_| {
        let mut dev = device(feature::VERSION_1 | feature::NOTIFY_ON_EMPTY)?;
        dev.q[TX].set_flags(NO_INTERRUPT);
        Ok(packets(&mut dev, 3)?.to_owned())
    }),
    case(
        "S03/event-index",
        "before: none, at: a signal, after: none",
        |_| {
            let mut dev = device(feature::VERSION_1 | feature::EVENT_IDX)?;
            packets(&mut dev, 1)?;
            let event = dev.q[TX].used_idx.wrapping_add(4);
            dev.mem.store16(dev.q[TX].used_event(), event);
            let before = packets(&mut dev, 3)?;
            let at = packets(&mut dev, 3)?;
            let after = packets(&mut dev, 3)?;
            Ok(format!("before: {before}, at: {at}, after: {after}"))
        },
    ),
    case(
        "S04/kick-and-call-taken-away",
        "ok; without a kick nothing; the eventfd back: answers",
        |_| taken_away(),
    ),
    case(
        "S05/broken-ring",
        "1 error, 0 of the other ring; connect: EHOSTUNREACH; SET_VRING_NUM: EBUSY; \
         stopped at the chain; answers",
        broken,
    ),
];

fn device(features: u64) -> Try<Device> {
    Setup {
        features,
        ..Setup::default()
    }
    .open()
}

/// The guest sends packets that are answered by nothing, with one kick; whether it got a signal.
fn packets(dev: &mut Device, count: u32) -> Try<&'static str> {
    for port in 1..=count {
        let header = dev.header(packet::RST, port, NOBODY);
        dev.put(header, &[]);
    }
    dev.kick(TX);
    // The signal comes after the index.
    dev.settle()?;
    let used = dev.q[TX].take_all().len();
    if used != count as usize {
        return Err(format!("{used} of {count} packets were taken").into());
    }
    Ok(match dev.calls(TX) {
        0 => "none",
        _ => "a signal",
    })
}

/// Eventfds are taken away and given back while the rings are in use.
fn taken_away() -> Try<String> {
    let mut dev = Setup::default().open()?;
    let mut set = Vec::new();
    let mut file = |cmd, q: usize, fd| {
        set.push(verdict(dev.io(cmd, &mut abi::ring_file(q as u32, fd))));
    };
    file(abi::SET_VRING_CALL, RX, -1);
    file(abi::SET_VRING_CALL, RX, dev.call[RX].as_raw_fd());
    file(abi::SET_VRING_KICK, TX, -1);
    set.dedup();
    let request = dev.header(packet::REQUEST, 1, NOBODY);
    dev.send(request, &[])?;
    let without = match dev.recv() {
        None => "nothing",
        Some(packet) => packet.name(),
    };
    // An eventfd that was signalled before counts.
    let kick = dev.kick[TX].as_raw_fd();
    dev.io(abi::SET_VRING_KICK, &mut abi::ring_file(TX as u32, kick))?;
    dev.expect(packet::RST)?;
    dev.q[TX].take_all();
    round_trips(&mut dev, 1)?;
    Ok(format!(
        "{}; without a kick {without}; the eventfd back: answers",
        set.join(" ")
    ))
}

/// The error comes once, the ring is left alone, and a restart repairs it.
fn broken(ctx: &mut Ctx) -> Try<String> {
    let mut dev = Setup::default().open()?;
    round_trips(&mut dev, 1)?;
    let last = dev.q[TX].avail_idx;
    let num = dev.q[TX].num;
    dev.q[TX].offer(num);
    for _ in 0..20 {
        dev.kick(TX);
        dev.flush()?;
    }
    let errors = match dev.errors(TX) {
        1 => "1 error",
        _ => "many errors",
    };
    let state = dev.info("state").join(" ");
    let queue = dev.info("queue1").join(" ");
    let wrong = state == "broken" && queue.starts_with("broken, size 128: a chain begins");
    if ctx.ours() && !wrong {
        return Err(format!("fdinfo says state: {state}, queue1: {queue}").into());
    }
    let others = dev.errors(RX);
    let connect = try_connect(dev.cid)?;
    // Still started for the ioctls.
    let size = verdict(dev.io(abi::SET_VRING_NUM, &mut abi::ring_state(TX as u32, 64)));
    // The driver takes back what it should not have offered.
    dev.restart()?;
    let stopped = if dev.q[TX].avail_idx == last {
        "stopped at the chain"
    } else {
        "stopped elsewhere"
    };
    dev.kick(RX);
    dev.recv_all()?;
    let then = if answers(&mut dev)? {
        "answers"
    } else {
        "no answer"
    };
    Ok(format!(
        "{errors}, {others} of the other ring; connect: {connect}; SET_VRING_NUM: {size}; \
         {stopped}; {then}"
    ))
}
