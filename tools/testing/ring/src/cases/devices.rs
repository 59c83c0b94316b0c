// SPDX-License-Identifier: GPL-2.0

//! Many devices: what it takes to give one its CID, and to close it.

use super::{case, Case, Ctx, TRIES};
use crate::{
    abi,
    device::open_file,
    note,
    sys::{self, process},
    Try,
};
use std::{
    fs::File,
    time::{Duration, Instant},
};

/// C waits for grace periods, with a lock held.
const C_WAITS: &str = "C closes one device after the other in 9 ms each";

pub const CASES: &[Case] = &[
    case("DV-01/2000-cids-a-power-of-two-apart", "in time", |ctx| {
        many(ctx, 256)
    })
    .seconds(120)
    .not_on_c(C_WAITS),
    case("DV-02/2000-cids-in-a-row", "in time", |ctx| many(ctx, 1))
        .seconds(120)
        .not_on_c(C_WAITS),
];

/// What either may take on average.
const LIMIT: Duration = Duration::from_millis(2);

/// Gives some devices their CIDs, one after the other, until it is clear that it takes too long;
/// the mean, and the longest.
fn set_cids(files: &[File], first: u64, step: u64, enough: Duration) -> Try<(Duration, Duration)> {
    let (mut all, mut worst, mut count) = (Duration::ZERO, Duration::ZERO, 0);
    for (number, file) in (0..).zip(files) {
        let cid: u64 = first + number * step;
        let mut arg = abi::arg(&[&cid.to_ne_bytes()]);
        let begin = Instant::now();
        sys::ioctl(file, abi::SET_GUEST_CID, &mut arg)?;
        let took = begin.elapsed();
        all += took;
        worst = worst.max(took);
        count += 1;
        if all > enough {
            break;
        }
    }
    Ok((all / count, worst))
}

/// Has many devices live; what is too long, if anything is.
fn live(ctx: &Ctx, step: u64) -> Try<Option<String>> {
    const GRACE_PERIODS: u32 = 20;
    process::set_limit(libc::RLIMIT_NOFILE, 4096)?;
    let count = ctx.rounds(2_000, 2_000);
    let enough = Duration::from_secs(3) * ctx.scale;
    let mut files = Vec::new();
    for _ in 0..count {
        let file = open_file()?;
        sys::ioctl(&file, abi::SET_OWNER, &mut abi::arg(&[]))?;
        files.push(file);
    }
    let (set, worst_set) = set_cids(&files, 0x6000_0000, step, enough)?;
    let (changed, worst_changed) = set_cids(&files, 0x6800_0000, step, enough)?;
    let begin = Instant::now();
    for _ in 0..GRACE_PERIODS {
        sys::rcu_barrier();
    }
    let grace = begin.elapsed() / GRACE_PERIODS;
    let begin = Instant::now();
    drop(files);
    let closed = begin.elapsed() / count;
    note(format!(
        "{count} devices: CID set in {set:?} each, {worst_set:?} at most; changed in {changed:?}, \
         {worst_changed:?}; closed in {closed:?}; {grace:?} is a grace period"
    ));
    // On a machine that has other things to do, all of it takes longer.
    let limit = grace.max(LIMIT * ctx.scale);
    let wrong = set.max(changed).max(closed) > limit;
    Ok(wrong.then(|| format!("set in {set:?}, changed in {changed:?}, closed in {closed:?}")))
}

/// Many devices live, as often as it takes for one time in which this machine had nothing else to
/// do.
fn many(ctx: &mut Ctx, step: u64) -> Try<String> {
    let mut wrong = None;
    for _ in 0..TRIES {
        wrong = live(ctx, step)?;
        if wrong.is_none() {
            break;
        }
    }
    Ok(wrong.unwrap_or_else(|| "in time".to_owned()))
}
