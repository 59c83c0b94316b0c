// SPDX-License-Identifier: GPL-2.0

//! Who does the work when the guest kicks: the thread that kicks, if it may, else the worker.
//! Whatever happens to either, no kick is lost, and nobody waits.

use super::{case, round_trips, skip, Case, Ctx};
use crate::{
    abi::{self, feature},
    device::{signal, Device, Setup, LARGE, RX, TX},
    host::try_connect,
    note,
    observe::NOBODY,
    packet::{self, HEADER_LEN},
    ring::Desc,
    sys::{self, fault::Faults, memory::Mapping, process, uring},
    talk, Try,
};
use std::{
    fs,
    os::fd::AsRawFd,
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
    thread,
    time::{Duration, Instant},
};

const C_HAS_A_WORKER: &str = "in C the worker does all of it";

pub const CASES: &[Case] = &[
    case(
        "KI-01/by-the-thread-that-kicks",
        "5 inline, 0 passed",
        |ctx| served(ctx, |dev| round_trips(dev, 5)),
    )
    .not_on_c(C_HAS_A_WORKER),
    case("KI-02/by-another-process", "0 inline, 1 passed", |ctx| {
        served(ctx, |dev| {
            let kick = dev.kick[TX].try_clone()?;
            request_by(dev, || {
                let mut child = process::fork(|| {
                    signal(&kick);
                    0
                })?;
                child.wait(Duration::from_secs(10))?;
                Ok(())
            })
        })
    })
    .not_on_c(C_HAS_A_WORKER),
    case("KI-03/by-io-uring", "1 inline, 0 passed", |ctx| {
        served(ctx, |dev| by_uring(dev, 0))
    })
    .not_on_c(C_HAS_A_WORKER),
    case(
        "KI-03/by-a-thread-of-io-uring",
        "0 inline, 1 passed",
        |ctx| served(ctx, |dev| by_uring(dev, uring::ASYNC)),
    )
    .not_on_c(C_HAS_A_WORKER),
    case(
        "KI-03/by-io-uring-that-waits-for-the-answer",
        "answered",
        by_uring_that_waits,
    ),
    case(
        "KI-04/by-the-worker-of-another-device",
        "0 inline, 1 passed",
        |ctx| served(ctx, |dev| by_other_device(dev, false)),
    )
    .not_on_c(C_HAS_A_WORKER),
    case(
        "KI-04/by-a-thread-of-the-kernel",
        "0 inline, 1 passed",
        |ctx| served(ctx, |dev| by_other_device(dev, true)),
    )
    .not_on_c(C_HAS_A_WORKER),
    case(
        "KI-05/page-that-does-not-come",
        "kicked in time; 1 fault; answered when it comes",
        page_does_not_come,
    )
    .not_on_c(C_HAS_A_WORKER),
    case("KI-06/device-kicks-itself", "alive", itself),
    case("KI-10/exec-with-kicks-pending", "gone in time", |ctx| {
        ends(ctx, |ctx, vmm| {
            vmm.talk.tell("exec")?;
            wait(ctx, vmm)
        })
    })
    .parallel()
    .seconds(120),
    case("KI-11/exit-with-kicks-pending", "gone in time", |ctx| {
        ends(ctx, |ctx, vmm| {
            vmm.talk.tell("exit")?;
            wait(ctx, vmm)
        })
    })
    .parallel()
    .seconds(120),
    case("KI-12/killed-with-kicks-pending", "gone in time", |ctx| {
        ends(ctx, |ctx, vmm| {
            vmm.process.kill(libc::SIGKILL);
            wait(ctx, vmm)
        })
    })
    .parallel()
    .seconds(120),
    case("KI-13/stopped-with-kicks-pending", "gone in time", |ctx| {
        ends(ctx, |ctx, vmm| {
            for _ in 0..20 {
                vmm.process.kill(libc::SIGSTOP);
                thread::sleep(Duration::from_millis(2));
                vmm.process.kill(libc::SIGCONT);
            }
            vmm.process.kill(libc::SIGSTOP);
            vmm.process.kill(libc::SIGKILL);
            wait(ctx, vmm)
        })
    })
    .parallel()
    .seconds(120),
    case("KI-14/closed-with-kicks-pending", "closed in time", closed)
        .parallel()
        .seconds(120),
];

/// Whether threads that kick do the work at all.
fn is_inline() -> bool {
    fs::read_to_string("/sys/module/vhost_vsock/parameters/inline")
        .is_ok_and(|value| value.trim_end() == "Y")
}

/// A number of a line of fdinfo that stands before a word.
fn number(dev: &Device, key: &str, word: &str) -> Try<u32> {
    let lines = dev.info(key);
    let line = lines.first().ok_or("nothing is said of kicks")?;
    let part = line.split(", ").find(|part| part.ends_with(word));
    let number = part.and_then(|part| part.split(' ').next()?.parse().ok());
    Ok(number.ok_or_else(|| format!("{line} has no {word}"))?)
}

/// Who served the kicks of the guest while `f` ran.
fn served(_: &Ctx, f: impl FnOnce(&mut Device) -> Try<()>) -> Try<String> {
    if !is_inline() {
        return skip("the worker does all of it");
    }
    let mut dev = Setup::default().open()?;
    // The first run finds that there is no room for buffers yet.
    round_trips(&mut dev, 1)?;
    let count = |dev: &Device| -> Try<(u32, u32)> {
        // On a slow machine one packet takes as long as a run may.
        let inline = number(dev, "inline1", "drained")? + number(dev, "inline1", "spent")?;
        Ok((inline, number(dev, "inline1", "passed")?))
    };
    let before = count(&dev)?;
    f(&mut dev)?;
    let after = count(&dev)?;
    Ok(format!(
        "{} inline, {} passed",
        after.0 - before.0,
        after.1 - before.1
    ))
}

/// A request to nobody, kicked for by `kick`, is answered.
fn request_by(dev: &mut Device, kick: impl FnOnce() -> Try<()>) -> Try<()> {
    let request = dev.header(packet::REQUEST, 7, NOBODY);
    dev.put(request, &[]);
    kick()?;
    dev.settle()?;
    dev.q[TX].take_all();
    dev.expect(packet::RST)?;
    Ok(())
}

fn by_uring(dev: &mut Device, flags: u8) -> Try<()> {
    let kick = dev.kick[TX].try_clone()?;
    let ring = uring::Uring::new()?;
    request_by(dev, || Ok(ring.write(&kick, &1u64.to_ne_bytes(), flags)?))
}

/// The system call that kicks returns only when the device has signalled: the work is not left for
/// its end.
fn by_uring_that_waits(_: &mut Ctx) -> Try<String> {
    let setup = Setup {
        // Each packet that is used is signalled.
        features: feature::USUAL & !feature::EVENT_IDX,
        ..Setup::default()
    };
    let mut dev = setup.open()?;
    round_trips(&mut dev, 1)?;
    let (kick, call) = (dev.kick[TX].try_clone()?, dev.call[TX].try_clone()?);
    let ring = uring::Uring::new()?;
    dev.calls(TX);
    let request = dev.header(packet::REQUEST, 7, NOBODY);
    dev.put(request, &[]);
    ring.write_and_wait(&kick, &1u64.to_ne_bytes(), &call)?;
    dev.settle()?;
    dev.q[TX].take_all();
    dev.expect(packet::RST)?;
    Ok("answered".to_owned())
}

/// What another device signals to its guest is a kick for this one.
fn by_other_device(dev: &mut Device, kernel_thread: bool) -> Try<()> {
    let setup = Setup {
        kernel_thread,
        ..Setup::default()
    };
    let mut other = setup.open()?;
    let kick = dev.kick[TX].try_clone()?;
    let index = TX as u32;
    other.io(
        abi::SET_VRING_CALL,
        &mut abi::ring_file(index, kick.as_raw_fd()),
    )?;
    // What is not owned by the current process is not done by its threads.
    let other_kick = other.kick[TX].try_clone()?;
    request_by(dev, || {
        let request = other.header(packet::REQUEST, 8, NOBODY);
        other.put(request, &[]);
        let mut child = process::fork(|| {
            signal(&other_kick);
            0
        })?;
        child.wait(Duration::from_secs(10))?;
        Ok(other.settle()?)
    })
}

/// Nobody provides a page of a packet: whoever kicks goes on, and the worker has to wait.
fn page_does_not_come(ctx: &mut Ctx) -> Try<String> {
    if !is_inline() {
        return skip("the worker does all of it");
    }
    if matches!(Faults::new(), Err(e) if e.raw_os_error() == Some(libc::ENOSYS)) {
        return skip("this kernel has no userfaultfd");
    }
    let mem = Arc::new(Mapping::private(16 << 20)?);
    let faults = Faults::new()?;
    faults.register(&mem, LARGE as usize, 4096)?;
    let mut dev = Setup::default().open_in(mem)?;
    round_trips(&mut dev, 1)?;
    let before = number(&dev, "inline1", "faults")?;
    let data = dev.header(packet::RW, 9, NOBODY).with(|h| h.len = 100);
    let header = dev.place(100, &data.bytes());
    dev.q[TX].set(100, Desc::new(header, HEADER_LEN as u32).next(101));
    dev.q[TX].set(101, Desc::new(LARGE, 100));
    dev.q[TX].offer(100);
    let begin = Instant::now();
    dev.kick(TX);
    let limit = Duration::from_secs(1) * ctx.scale.min(3);
    let when = if begin.elapsed() < limit {
        "in time"
    } else {
        "too late"
    };
    let faulted = number(&dev, "inline1", "faults")? - before;
    // Whoever touches the page gets an empty one now.
    drop(faults);
    dev.settle()?;
    dev.q[TX].take_all();
    dev.expect(packet::RST)?;
    round_trips(&mut dev, 3)?;
    Ok(format!(
        "kicked {when}; {faulted} fault; answered when it comes"
    ))
}

/// What the device signals is a kick of the same queue.
fn itself(_: &mut Ctx) -> Try<String> {
    let mut dev = Setup::default().open()?;
    for q in [RX, TX] {
        let kick = dev.kick[q].as_raw_fd();
        dev.io(abi::SET_VRING_CALL, &mut abi::ring_file(q as u32, kick))?;
    }
    round_trips(&mut dev, 50)?;
    Ok("alive".to_owned())
}

/// A guest whose threads kick all the time.
fn guest(cid: u64) -> Try<Device> {
    let setup = Setup {
        cid: Some(cid),
        ..Setup::default()
    };
    let mut dev = setup.open()?;
    for _ in 0..2 {
        let kicks = [dev.kick[RX].try_clone()?, dev.kick[TX].try_clone()?];
        thread::spawn(move || loop {
            kicks.iter().for_each(signal);
        });
    }
    round_trips(&mut dev, 20)?;
    Ok(dev)
}

/// Says something all the time.
fn talk_on(mut guest: Device) -> ! {
    loop {
        let request = guest.header(packet::REQUEST, 1, NOBODY);
        guest.put(request, &[]);
        guest.kick(TX);
        guest.q[TX].take_all();
        while guest.recv().is_some() {}
    }
}

/// A program that is such a guest until somebody kills it.
pub fn program() -> Try<()> {
    let guest = guest(0x6200_0000)?;
    println!("kicking");
    talk_on(guest)
}

/// A VMM with such a guest, which ends as it is told.
fn vmm(cid: u64) -> Try<talk::Partner> {
    talk::fork(move |talk| {
        let guest = guest(cid)?;
        talk.tell("running")?;
        thread::spawn(move || talk_on(guest));
        match talk.hear()?.as_str() {
            "exec" => Err(process::exec(c"/bin/true", &[c"true"]).into()),
            _ => process::exit(0),
        }
    })
}

fn wait(ctx: &Ctx, vmm: &mut talk::Partner) -> Try<()> {
    match vmm.process.wait(Duration::from_secs(20) * ctx.scale)? {
        Some(_) => Ok(()),
        None => Err("the VMM does not end".into()),
    }
}

/// VMMs end in some way, one after the other.
fn ends(ctx: &mut Ctx, end: fn(&Ctx, &mut talk::Partner) -> Try<()>) -> Try<String> {
    let mut worst = Duration::ZERO;
    for n in 0..ctx.rounds(4, 50) {
        let cid = 0x6000_0000 + u64::from(n);
        let mut vmm = vmm(cid)?;
        vmm.talk.hear()?;
        let begin = Instant::now();
        end(ctx, &mut vmm)?;
        worst = worst.max(begin.elapsed());
        let after = try_connect(cid)?;
        if after != "ENODEV" {
            return Ok(format!("{after} when it is gone"));
        }
    }
    note(format!("gone within {worst:?}"));
    let limit = Duration::from_secs(2) * ctx.scale;
    let when = if worst < limit { "in time" } else { "too late" };
    Ok(format!("gone {when}"))
}

/// A device is closed, and the next one has its CID, while other threads kick.
fn closed(ctx: &mut Ctx) -> Try<String> {
    let mut worst = Duration::ZERO;
    for _ in 0..ctx.rounds(10, 100) {
        let mut dev = Setup {
            cid: Some(0x6100_0000),
            ..Setup::default()
        }
        .open()?;
        round_trips(&mut dev, 2)?;
        let stop = AtomicBool::new(false);
        let kicks: Vec<_> = [RX, TX]
            .iter()
            .map(|q| dev.kick[*q].try_clone())
            .collect::<Result<_, _>>()?;
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        kicks.iter().for_each(signal);
                    }
                });
            }
            thread::sleep(Duration::from_millis(5));
            let begin = Instant::now();
            drop(dev);
            worst = worst.max(begin.elapsed());
            stop.store(true, Ordering::Relaxed);
        });
    }
    sys::rcu_barrier();
    note(format!("closed within {worst:?}"));
    let limit = Duration::from_secs(1) * ctx.scale.min(3);
    let when = if worst < limit { "in time" } else { "too late" };
    Ok(format!("closed {when}"))
}
