// SPDX-License-Identifier: GPL-2.0

//! CIDs: who has one that somebody else wants, and how a free one is found.

use super::{case, Case, Ctx};
use crate::{
    abi, device::open_file, host::verdict, klog::KernelLog, note, sys, sys::process,
    sys::process::Usage, talk, Try,
};
use std::{
    fs::{self, File},
    thread,
    time::{Duration, Instant},
};

/// Why the kernel's log is not read with C.
const SILENT: &str = "C says nothing in the log";

pub const CASES: &[Case] = &[
    case(
        "CID-01/in-use-by-another-process",
        "EADDRINUSE; the log names the owner",
        names_the_owner,
    )
    .not_on_c(SILENT),
    case(
        "CID-02/in-use-500-times",
        "EADDRINUSE; the log names this process, fewer than 20 times",
        is_explained,
    )
    .not_on_c(SILENT),
    case(
        "CID-03/free-one-found-by-trying",
        "EADDRINUSE EADDRINUSE EADDRINUSE EADDRINUSE EADDRINUSE ok",
        |_| found_by_loop(),
    ),
    case("CID-04/many-that-somebody-chose", AT_ONCE, many_chosen).seconds(120),
];

fn set_cid(file: &File, cid: u64) -> String {
    let mut arg = abi::arg(&[&cid.to_ne_bytes()]);
    verdict(sys::ioctl(file, abi::SET_GUEST_CID, &mut arg))
}

/// What is said in the log when a device wants a CID that another one has. There are at most ten
/// messages in five seconds: if cases before this one used them up, it is tried again.
fn refusal(ctx: &Ctx, log: &mut KernelLog, file: &File, cid: u64) -> Try<String> {
    let end = Instant::now() + Duration::from_secs(15) * ctx.scale;
    loop {
        let found = set_cid(file, cid);
        if found != "EADDRINUSE" {
            return Err(format!("{found} for a CID in use").into());
        }
        let cid = format!("CID {cid} ");
        if let Some(line) = log.lines()?.into_iter().find(|line| line.contains(&cid)) {
            return Ok(line);
        }
        if Instant::now() > end {
            return Err("the log says nothing".into());
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// The owner is named, not the one that set the CID and passed the descriptor on.
fn names_the_owner(ctx: &mut Ctx) -> Try<String> {
    let cid = 0x5500_0000;
    let device = open_file()?;
    set_cid(&device, cid);
    let mut owner = talk::fork(|talk| {
        fs::write("/proc/self/comm", "the\nowner")?;
        sys::ioctl_wild(&device, abi::SET_OWNER, 0)?;
        talk.tell("owner")?;
        talk.hear()?;
        Ok(())
    })?;
    owner.talk.hear()?;
    let mut log = KernelLog::now()?;
    let line = refusal(ctx, &mut log, &open_file()?, cid)?;
    owner.talk.tell("enough")?;
    owner.finish(Duration::from_secs(5) * ctx.scale)?;
    // The name cannot begin a line of its own in the log.
    let wanted = format!("process {} (the\\nowner)", owner.process.pid());
    Ok(if line.contains(&wanted) {
        "EADDRINUSE; the log names the owner".to_owned()
    } else {
        format!("the log says: {line}, and not {wanted}")
    })
}

/// The log says by which process a CID is used, and not without end. Those after this case get no
/// message for 5 s.
fn is_explained(ctx: &mut Ctx) -> Try<String> {
    let cid = 0x5500_0001;
    let (device, other) = (open_file()?, open_file()?);
    set_cid(&device, cid);
    let mut log = KernelLog::now()?;
    let line = refusal(ctx, &mut log, &other, cid)?;
    let comm = fs::read_to_string("/proc/self/comm")?;
    let wanted = format!("process {} ({})", std::process::id(), comm.trim_end());
    if !line.contains(&wanted) {
        return Ok(format!("the log says: {line}, and not {wanted}"));
    }
    let mut found: Vec<_> = (0..500).map(|_| set_cid(&other, cid)).collect();
    found.dedup();
    let cid = format!("CID {cid} ");
    let lines = log.lines()?;
    let more = lines.iter().filter(|line| line.contains(&cid)).count();
    let times = if more < 20 {
        "fewer than 20 times".to_owned()
    } else {
        format!("{more} times")
    };
    Ok(format!(
        "{}; the log names this process, {times}",
        found.join(" ")
    ))
}

/// libvirt, systemd-vmspawn, LXD and Kata try CIDs until one is free.
fn found_by_loop() -> Try<String> {
    let first = 0x5500_0010;
    let taken = (0..5)
        .map(|n| {
            let file = open_file()?;
            match set_cid(&file, first + n).as_str() {
                "ok" => Ok(file),
                error => Err(error.into()),
            }
        })
        .collect::<Try<Vec<_>>>()?;
    let device = open_file()?;
    let mut tries = Vec::new();
    for cid in first..first + 10 {
        tries.push(set_cid(&device, cid));
        if tries.last().is_some_and(|found| found != "EADDRINUSE") {
            break;
        }
    }
    drop(taken);
    Ok(tries.join(" "))
}

/// What a series of steps took: the CPU time of the one in the middle, as a tick or another virtual
/// machine is in that of some, and the waits of all.
fn usage(count: u32, mut step: impl FnMut(u32) -> Try<()>) -> Try<Usage> {
    let mut each = Vec::new();
    for n in 0..count {
        let before = Usage::now()?;
        step(n)?;
        each.push(Usage::now()?.since(before));
    }
    each.sort_by_key(|usage| usage.cpu);
    Ok(Usage {
        cpu: each.get(each.len() / 2).ok_or("no step")?.cpu,
        waits: each.iter().map(|usage| usage.waits).sum(),
    })
}

/// What the life of `devices` took whose CIDs are these.
struct Life {
    opened: Usage,
    renamed: Usage,
    closed: Usage,
}

impl Life {
    fn of(devices: u32, cid: impl Fn(u32) -> u32, later: impl Fn(u32) -> u32) -> Try<Self> {
        let rename = |file: &File, cid: u32| match set_cid(file, cid.into()).as_str() {
            "ok" => Ok(()),
            error => Err(error.to_owned().into()),
        };
        let mut files = Vec::new();
        let opened = usage(devices, |n| {
            let file = open_file()?;
            rename(&file, cid(n))?;
            files.push(file);
            Ok(())
        })?;
        let mut others = files.iter().zip(0..);
        let renamed = usage(devices, |_| {
            let (file, n) = others.next().ok_or("too few devices")?;
            rename(file, later(n))
        })?;
        let closed = usage(devices, |_| {
            drop(files.pop());
            Ok(())
        })?;
        Ok(Self {
            opened,
            renamed,
            closed,
        })
    }

    /// What a device took: time on a CPU and waits.
    fn of_each(&self, devices: u32) -> String {
        [
            ("opened", self.opened),
            ("renamed", self.renamed),
            ("closed", self.closed),
        ]
        .map(|(what, usage)| {
            let waits = usage.waits * 1000 / u64::from(devices);
            format!("{what} in {:?} with {waits}/1000 waits", usage.cpu)
        })
        .join(", ")
    }
}

const AT_ONCE: &str = "opened and renamed as quickly as others and without a wait, closed with one";

/// Whoever may open the device chooses CIDs with the low bits in common: that makes none of them
/// slow. A device waits for at most one grace period in its life, when it is closed.
///
/// Time on a CPU and waits are counted, not what a clock says, which other programs are in.
fn many_chosen(ctx: &mut Ctx) -> Try<String> {
    let devices = ctx.rounds(500, 2000);
    process::set_limit(libc::RLIMIT_NOFILE, 4096)?;
    let others = Life::of(devices, |n| 0x5600_0000 + n, |n| 0x5700_0000 + n)?;
    let chosen = Life::of(
        devices,
        |n| 0x5600_0000 + (n << 12),
        |n| 0x5700_0000 + (n << 12),
    )?;
    note(format!("others {}", others.of_each(devices)));
    note(format!("chosen {}", chosen.of_each(devices)));
    let quick = |what: fn(&Life) -> Usage| what(&chosen).cpu < 2 * what(&others).cpu;
    let (none, one) = (u64::from(devices) / 50, u64::from(devices));
    Ok(
        if quick(|life| life.opened)
            && quick(|life| life.renamed)
            && chosen.opened.waits.max(chosen.renamed.waits) <= none
            && chosen.closed.waits <= one + none
        {
            AT_ONCE.to_owned()
        } else {
            chosen.of_each(devices)
        },
    )
}
