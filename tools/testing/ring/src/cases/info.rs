// SPDX-License-Identifier: GPL-2.0

//! What `/proc/PID/fdinfo` says of a device.

use super::{case, round_trips, Case, Ctx};
use crate::{
    abi::feature,
    device::{Device, Setup, DATA, RX, TX},
    observe::NOBODY,
    packet,
    ring::Desc,
    sys::{memory::Mapping, process},
    talk, Try,
};
use std::{os::unix::fs::MetadataExt, sync::Arc, time::Duration};

/// Why C has none of it.
const NONE: &str = "C has no fdinfo for a device";

pub const CASES: &[Case] = &[
    case(
        "INF-01/device-that-is-open",
        "cid 0, state stopped, worker0 none, netns of this process",
        |_| opened(),
    )
    .not_on_c(NONE),
    case(
        "INF-02/one-packet-each-way",
        "state running, from-guest 1 packets, 0 bytes, to-guest 1 packets, 0 bytes, \
         refused 0 malformed, 0 misaddressed, 0 buffers, queued 0 packets, 0 bytes of memory, \
         replies 0, queue0 running, size 128; cid and features are those; then state stopped",
        |_| in_use(),
    )
    .not_on_c(NONE),
    case(
        "INF-03/no-packet-and-one-of-somebody-else",
        "refused 1 malformed, 1 misaddressed, 0 buffers",
        |_| refused(),
    )
    .not_on_c(NONE),
    case(
        "INF-04/ten-replies-without-buffers",
        "replies 10, queued 10 packets with their memory; then replies 0, \
         queued 0 packets, 0 bytes of memory",
        |_| replies(),
    )
    .not_on_c(NONE),
    case(
        "INF-05/worker-in-a-namespace-of-processes",
        "worker0 0, thread 2",
        in_pid_namespace,
    )
    .not_on_c(NONE),
];

/// Some lines, with their names.
fn lines(dev: &Device, keys: &[&str]) -> String {
    let lines: Vec<_> = keys
        .iter()
        .map(|key| format!("{key} {}", dev.info(key).join(" ")))
        .collect();
    lines.join(", ")
}

fn opened() -> Try<String> {
    let dev = Device::bare(Arc::new(Mapping::shared(4096)?), Setup::num(1))?;
    let text = lines(&dev, &["cid", "state", "worker0"]);
    let netns = std::fs::metadata("/proc/self/ns/net")?.ino().to_string();
    Ok(if dev.info("netns") == [netns] {
        format!("{text}, netns of this process")
    } else {
        format!("{text}, {}", lines(&dev, &["netns"]))
    })
}

fn in_use() -> Try<String> {
    let mut dev = Setup {
        features: feature::VERSION_1,
        ..Setup::default()
    }
    .open()?;
    round_trips(&mut dev, 1)?;
    let keys = [
        "state",
        "from-guest",
        "to-guest",
        "refused",
        "queued",
        "replies",
    ];
    let text = lines(&dev, &keys);
    // The positions differ by the buffers that were offered.
    let queue = dev.info("queue0").join(" ");
    let queue = queue.split(", available").next().unwrap_or_default();
    let features = format!("{:#x}", feature::VERSION_1);
    let known = if dev.info("cid") == [dev.cid.to_string()] && dev.info("features") == [features] {
        "cid and features are those".to_owned()
    } else {
        lines(&dev, &["cid", "features"])
    };
    dev.run(false)?;
    let then = lines(&dev, &["state"]);
    Ok(format!("{text}, queue0 {queue}; {known}; then {then}"))
}

fn refused() -> Try<String> {
    let mut dev = Setup::default().open()?;
    let other = dev.header(packet::RST, 1, 2);
    dev.send(other.with(|h| h.src_cid += 1), &[])?;
    // A byte is missing.
    dev.q[TX].set(5, Desc::new(DATA, 43));
    dev.q[TX].offer(5);
    dev.kick(TX);
    dev.settle()?;
    Ok(lines(&dev, &["refused"]))
}

/// Replies that the guest does not take: the ring has no buffers.
fn replies() -> Try<String> {
    let mut dev = Setup::buffers(0).open()?;
    for port in 1..=10 {
        let request = dev.header(packet::REQUEST, port, NOBODY);
        dev.send(request, &[])?;
    }
    let queued = dev.info("queued").join(" ");
    let memory = queued
        .strip_prefix("10 packets, ")
        .and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
    let waiting = match memory {
        Some(bytes) if bytes > 440 => "10 packets with their memory".to_owned(),
        _ => queued,
    };
    let before = format!("{}, queued {waiting}", lines(&dev, &["replies"]));
    for n in 0..16 {
        dev.post(n, 4096);
    }
    dev.kick(RX);
    dev.settle()?;
    let after = lines(&dev, &["replies", "queued"]);
    Ok(format!("{before}; then {after}"))
}

/// The first process of the namespace, whose second thread the worker is.
fn in_pid_namespace(ctx: &mut Ctx) -> Try<String> {
    let patience = Duration::from_secs(5) * ctx.scale;
    let mut outer = talk::fork(|talk| {
        process::unshare(libc::CLONE_NEWPID)?;
        let mut inner = talk::fork(|talk| {
            let dev = Setup::default().open()?;
            dev.settle()?;
            talk.tell(&lines(&dev, &["worker0"]))
        })?;
        talk.tell(&inner.talk.hear()?)?;
        inner.finish(patience)
    })?;
    let said = outer.talk.hear()?;
    outer.finish(patience)?;
    Ok(said)
}
