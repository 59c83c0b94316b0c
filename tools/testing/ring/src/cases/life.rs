// SPDX-License-Identifier: GPL-2.0

//! The life of a device: started, stopped, closed, killed, passed on, while packets go.

use super::{
    case, round_trips, rx,
    worker::{attach, new_worker},
    Case, Ctx,
};
use crate::{
    abi::{self, Region},
    device::{open_file, Device, Setup, RX, TX},
    host::{self, try_connect, verdict, Socket},
    note,
    observe::{answers, received, NOBODY},
    packet,
    slab::InUse,
    sys, talk, Try,
};
use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

pub const CASES: &[Case] = &[
    case("LC-01/started-and-stopped-in-traffic", "alive", |ctx| {
        in_traffic(ctx, |dev, n| Ok(dev.run(n % 2 == 1)?))
    })
    .parallel()
    .seconds(60),
    case("LC-02/memory-tables-swapped-in-traffic", "alive", |ctx| {
        in_traffic(ctx, |dev, n| {
            let count = 1 + u64::from(n % 60);
            Ok(dev.set_memory(&pieces(dev, count))?)
        })
    })
    .parallel()
    .seconds(60),
    case("LC-03/closed-in-traffic", "closed in time", closed).parallel(),
    case("LC-04/ring-addresses-changed-in-traffic", "alive", |ctx| {
        in_traffic(ctx, |dev, n| {
            for q in [RX, TX] {
                let mut addr = dev.ring_addr(q);
                if n % 3 == 0 {
                    // Refused: not in the owner's half of the address space.
                    addr.used = 0xffff_8880_0000_0000;
                }
                let ret = dev.io(abi::SET_VRING_ADDR, &mut addr.bytes());
                let wanted = if n % 3 == 0 { "EINVAL" } else { "ok" };
                let found = verdict(ret);
                if found != wanted {
                    return Err(format!("{found}, expected {wanted}").into());
                }
            }
            Ok(())
        })
    })
    .parallel()
    .seconds(60),
    case(
        "LC-05/owner-killed-in-traffic",
        "gone in time, ENODEV",
        killed,
    )
    .parallel()
    .seconds(120),
    case("LC-08/all-memory-gone", "1 error, ECONNRESET", |_| {
        no_memory()
    }),
    case(
        "LC-09/closed-while-a-program-reads",
        "ECONNRESET in time",
        |_| {
            let (dev, peer) = rx::connected(Setup::default())?;
            let begin = Instant::now();
            drop(dev);
            peer.socket.wait_readable(Duration::from_secs(5))?;
            let when = if begin.elapsed() < Duration::from_secs(1) {
                "in time"
            } else {
                "too late"
            };
            Ok(format!("{} {when}", peer.socket.state()))
        },
    ),
    case(
        "LC-10/other-cid-while-connected",
        "ENODEV; connect: ENODEV",
        |_| {
            let (dev, peer) = rx::connected(Setup::default())?;
            dev.set_cid(dev.cid + 64)?;
            let send = host::amount(peer.socket.send(b"x"));
            Ok(format!("{send}; connect: {}", try_connect(dev.cid)?))
        },
    ),
    case("LC-11/opened-and-closed-200-times", "no growth", lives).seconds(120),
    case("LC-13/owner-cid-and-close-race", "alive", race).parallel(),
    case(
        "LC-18/read-while-the-guest-pauses",
        "send: EHOSTUNREACH; read 200000; CREDIT_UPDATE",
        |_| {
            let (mut dev, peer) = rx::connected(Setup::default())?;
            for _ in 0..20 {
                let header = peer.header(&dev, packet::RW);
                dev.send_rw(header, &[0x42; 10_000])?;
            }
            dev.recv_all()?;
            dev.run(false)?;
            let send = host::amount(peer.socket.send(b"x"));
            let read = peer.socket.drain().0.len();
            dev.run(true)?;
            Ok(format!(
                "send: {send}; read {read}; {}",
                received(&mut dev, "nothing")?
            ))
        },
    ),
    case("LC-18/closed-while-the-guest-pauses", "SHUTDOWN", |_| {
        let (mut dev, peer) = rx::connected(Setup::default())?;
        dev.recv_all()?;
        dev.run(false)?;
        drop(peer.socket);
        dev.run(true)?;
        received(&mut dev, "nothing")
    }),
];

/// The memory of a device in so many pieces.
fn pieces(dev: &Device, count: u64) -> Vec<Region> {
    let whole = dev.mem.len() as u64;
    let size = whole / count / 8 * 8;
    (0..count)
        .map(|n| Region {
            guest: n * size,
            size: if n + 1 == count {
                whole - n * size
            } else {
                size
            },
            user: dev.mem.addr() + n * size,
        })
        .collect()
}

/// Packets go both ways while `change` is done, again and again; the device works at the end.
fn in_traffic(ctx: &mut Ctx, change: impl Fn(&Device, u32) -> Try<()> + Sync) -> Try<String> {
    let time = Duration::from_millis(u64::from(ctx.rounds(700, 4000)));
    let mut dev = Setup::default().open()?;
    let (stop, changes) = (AtomicBool::new(false), AtomicU32::new(0));
    let mut packets = 0;
    // The thread that changes has a descriptor of the same device.
    let other = dev.again()?;
    let result = thread::scope(|scope| {
        let changer = scope.spawn(|| -> Try<()> {
            while !stop.load(Ordering::Relaxed) {
                change(&other, changes.fetch_add(1, Ordering::Relaxed))?;
            }
            Ok(())
        });
        let begin = Instant::now();
        let mut traffic = || -> Try<()> {
            while begin.elapsed() < time {
                for _ in 0..8 {
                    let header = dev.header(packet::REQUEST, packets, NOBODY);
                    dev.put(header, &[]);
                    packets += 1;
                }
                dev.kick(TX);
                let socket = Socket::stream()?;
                let _ = socket.connect(dev.cid, 1);
                dev.flush()?;
                while dev.q[TX].avail_idx.wrapping_sub(dev.q[TX].used_idx) > 64 {
                    dev.kick(TX);
                    dev.q[TX].take_all();
                    while dev.recv().is_some() {}
                    if begin.elapsed() > time * 4 {
                        return Err("packets are not taken any more".into());
                    }
                }
                dev.q[TX].take_all();
                while dev.recv().is_some() {}
            }
            Ok(())
        };
        let ret = traffic();
        stop.store(true, Ordering::Relaxed);
        changer.join().map_err(|_| "a thread panicked")??;
        ret
    });
    result?;
    let changes = changes.load(Ordering::Relaxed);
    note(format!("{changes} changes, {packets} packets"));
    // As it was in the beginning.
    dev.set_memory(&dev.regions())?;
    for q in [RX, TX] {
        dev.io(abi::SET_VRING_ADDR, &mut dev.ring_addr(q).bytes())?;
    }
    dev.run(true)?;
    for q in [RX, TX] {
        dev.kick(q);
    }
    dev.recv_all()?;
    dev.q[TX].take_all();
    if dev.errors(RX) + dev.errors(TX) > 0 {
        return Ok("a ring is broken".to_owned());
    }
    let alive = answers(&mut dev)?;
    Ok(if alive { "alive" } else { "no answer" }.to_owned())
}

fn closed(ctx: &mut Ctx) -> Try<String> {
    let mut worst = Duration::ZERO;
    for _ in 0..ctx.rounds(8, 100) {
        let (mut dev, peer) = rx::connected(Setup::default())?;
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..200 {
                    if peer.socket.send(&[0x11; 4096]).is_err() {
                        thread::yield_now();
                    }
                }
            });
            for n in 0..32 {
                let header = dev.header(packet::REQUEST, n, NOBODY);
                dev.put(header, &[]);
            }
            dev.kick(TX);
            let begin = Instant::now();
            drop(dev);
            worst = worst.max(begin.elapsed());
        });
    }
    note(format!("closed within {worst:?}"));
    let limit = Duration::from_secs(1) * ctx.scale;
    Ok(if worst < limit {
        "closed in time"
    } else {
        "too late"
    }
    .to_owned())
}

fn killed(ctx: &mut Ctx) -> Try<String> {
    let mut worst = Duration::ZERO;
    for n in 0..ctx.rounds(4, 20) {
        let cid = 0x5000_0000 + u64::from(n);
        let mut owner = talk::fork(|talk| {
            let setup = Setup {
                cid: Some(cid),
                ..Setup::default()
            };
            let mut dev = setup.open()?;
            let mut port = 0;
            loop {
                let header = dev.header(packet::REQUEST, port, NOBODY);
                if port == 100 {
                    talk.tell("running")?;
                }
                port += 1;
                dev.put(header, &[]);
                dev.kick(TX);
                dev.flush()?;
                dev.q[TX].take_all();
                while dev.recv().is_some() {}
            }
        })?;
        owner.talk.hear()?;
        let sockets: Vec<_> = (0..20)
            .filter_map(|port| {
                let socket = Socket::stream().ok()?;
                let _ = socket.connect(cid, port);
                Some(socket)
            })
            .collect();
        let begin = Instant::now();
        owner.process.kill(libc::SIGKILL);
        let status = owner.process.wait(Duration::from_secs(20) * ctx.scale)?;
        worst = worst.max(begin.elapsed());
        if status != Some(-libc::SIGKILL) {
            return Ok(format!("the owner ended with {status:?}"));
        }
        drop(sockets);
        let after = try_connect(cid)?;
        if after != "ENODEV" {
            return Ok(format!("{after} when it is gone"));
        }
    }
    note(format!("gone within {worst:?}"));
    let limit = Duration::from_secs(2) * ctx.scale;
    let when = if worst < limit { "in time" } else { "too late" };
    Ok(format!("gone {when}, ENODEV"))
}

fn no_memory() -> Try<String> {
    let (dev, peer) = rx::connected(Setup::default())?;
    dev.mem.protect(0, dev.mem.len(), libc::PROT_NONE)?;
    for _ in 0..1000 {
        dev.kick(RX);
        dev.kick(TX);
    }
    dev.flush()?;
    dev.flush()?;
    let what = match dev.errors(RX) + dev.errors(TX) {
        1 => "1 error",
        0 => "no error",
        _ => "many errors",
    };
    Ok(format!("{what}, {}", peer.socket.state()))
}

/// A device that comes, is used and goes while something waits in it; each second one with a worker
/// that is a thread of the kernel, the others with one that was made for it.
fn life(ctx: &Ctx, number: u32) -> Try<()> {
    let setup = Setup {
        kernel_thread: number % 2 == 0,
        // There are few, which come back.
        cid: Some(0x5700_0000 + u64::from(number % 3)),
        ..Setup::buffers(8)
    };
    let mut dev = setup.open()?;
    round_trips(&mut dev, 1)?;
    if ctx.ours() && number % 2 == 1 {
        attach(&dev, RX, new_worker(&dev)?)?;
    }
    let request = dev.header(packet::REQUEST, 7, NOBODY);
    dev.put(request, &[]);
    dev.kick(TX);
    let socket = Socket::stream()?;
    socket.set_connect_timeout(Duration::from_millis(1))?;
    Ok(socket.connect(dev.cid, 1)?)
}

/// Nothing grows by an object for each device, in three rounds. What is freed after a grace period,
/// or kept by a CPU for its next allocation, is in use for a few seconds yet.
fn lives(ctx: &mut Ctx) -> Try<String> {
    let count = ctx.rounds(40, 200).max(10);
    for number in 0..10 {
        life(ctx, number)?;
    }
    let mut grown = Vec::new();
    for _ in 0..3 {
        let before = InUse::read()?;
        for number in 0..count {
            life(ctx, number)?;
        }
        for _ in 0..5 {
            grown = InUse::read()?.grown(&before, count);
            if grown.is_empty() {
                return Ok("no growth".to_owned());
            }
            thread::sleep(Duration::from_millis(500));
        }
    }
    Ok(format!("{} by {count} devices", grown.join(", ")))
}

/// Threads that set owner and CID of devices which others close.
fn race(ctx: &mut Ctx) -> Try<String> {
    let time = Duration::from_millis(u64::from(ctx.rounds(700, 5000)));
    let begin = Instant::now();
    let mut rounds = 0u32;
    while begin.elapsed() < time {
        let file = std::sync::Arc::new(open_file()?);
        thread::scope(|scope| {
            for n in 0..4u64 {
                let file = file.clone();
                scope.spawn(move || {
                    let cid = 0x5300_0000 + n / 2;
                    let _ = if n == 0 {
                        sys::ioctl_wild(&*file, abi::SET_OWNER, 0)
                    } else {
                        sys::ioctl(
                            &*file,
                            abi::SET_GUEST_CID,
                            &mut abi::arg(&[&cid.to_ne_bytes()]),
                        )
                    };
                    // Whoever is last closes it.
                    drop(file);
                });
            }
            drop(file);
        });
        rounds += 1;
    }
    note(format!("{rounds} rounds"));
    for cid in [0x5300_0000, 0x5300_0001u64] {
        let left = try_connect(cid)?;
        if left != "ENODEV" {
            return Ok(format!("{left} for a CID that nobody has"));
        }
    }
    let mut dev = Setup::buffers(2).open()?;
    Ok(if answers(&mut dev)? {
        "alive"
    } else {
        "no answer"
    }
    .to_owned())
}
