// SPDX-License-Identifier: GPL-2.0

//! Many devices: what it takes to give one its CID, and to close it.

use super::{case, Case, Ctx};
use crate::{
    abi,
    device::open_file,
    note,
    sys::{self, process},
    Try,
};
use std::time::{Duration, Instant};

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

fn many(ctx: &mut Ctx, step: u64) -> Try<String> {
    const FIRST: u64 = 0x6000_0000;
    /// It is clear by then.
    const ENOUGH: Duration = Duration::from_secs(3);
    const GRACE_PERIODS: u32 = 20;
    process::set_limit(libc::RLIMIT_NOFILE, 4096)?;
    let count = ctx.rounds(2_000, 2_000);
    let mut files = Vec::new();
    let (mut set, mut worst) = (Duration::ZERO, Duration::ZERO);
    for number in 0..u64::from(count) {
        let file = open_file()?;
        sys::ioctl(&file, abi::SET_OWNER, &mut abi::arg(&[]))?;
        let cid = FIRST + number * step;
        let begin = Instant::now();
        let mut arg = abi::arg(&[&cid.to_ne_bytes()]);
        sys::ioctl(&file, abi::SET_GUEST_CID, &mut arg)?;
        let took = begin.elapsed();
        set += took;
        worst = worst.max(took);
        files.push(file);
        if set > ENOUGH * ctx.scale {
            break;
        }
    }
    let there = files.len() as u32;
    let set = set / there;
    let begin = Instant::now();
    for _ in 0..GRACE_PERIODS {
        sys::rcu_barrier();
    }
    let grace = begin.elapsed() / GRACE_PERIODS;
    let begin = Instant::now();
    drop(files);
    let close = begin.elapsed() / there;
    note(format!(
        "{there} devices, CID set in {set:?} each, {worst:?} at most; closed in {close:?} each; \
         {grace:?} is a grace period"
    ));
    // On a machine that has other things to do, all of it takes longer.
    let limit = (grace / 2).max(LIMIT * ctx.scale);
    Ok(if set.max(close) <= limit {
        "in time".to_owned()
    } else {
        format!("set in {set:?}, closed in {close:?}")
    })
}
