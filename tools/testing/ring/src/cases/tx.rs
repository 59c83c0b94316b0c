// SPDX-License-Identifier: GPL-2.0

//! Chains of the guest for its packets.

use super::{case, on_usual, worker, Case, Ctx};
use crate::{
    abi,
    device::{Device, Setup, DATA, LARGE, MEMORY, TABLE, TX},
    note,
    observe::{self, observe, NOBODY},
    packet::{self, HEADER_LEN, MAX_PAYLOAD},
    ring::{chained, table, Desc, INDIRECT, WRITE},
    sys::process,
    Try,
};
use std::{
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
    thread,
    time::{Duration, Instant},
};

/// Bytes of a header.
const H: u32 = HEADER_LEN as u32;
/// Far from all memory of the guest.
const NOWHERE: u64 = 0x7fff_0000_0000;

pub const CASES: &[Case] = &[
    case("T01/valid-request", "RST", |_| chain(&[Desc::new(DATA, H)])),
    case("T02/head-is-num", "BROKEN", |_| head(128)),
    case("T03/head-is-0xffff", "BROKEN", |_| head(0xffff)),
    case("T04/next-is-num", "BROKEN", |_| {
        chain(&[Desc::new(DATA, 20).next(128)])
    }),
    case("T05/self-loop", "BROKEN", |_| {
        chain(&[Desc::new(DATA, H).next(0)])
    }),
    case("T06/cycle-of-two", "BROKEN", |_| {
        chain(&[Desc::new(DATA, H).next(1), Desc::new(DATA, 1).next(0)])
    }),
    case("T07/loop-of-empty-descriptors", "BROKEN", |_| {
        let ring: Vec<_> = (0..128).map(|n| empty().next((n + 1) % 128)).collect();
        chain(&ring)
    }),
    case("T08/one-empty-descriptor", "RET0", |ctx| {
        counted(ctx, &[empty()])
    }),
    case("T09/90-empty-descriptors-then-header", "RST", |_| {
        let mut entries = vec![Desc::new(NOWHERE, 0); 90];
        entries.push(Desc::new(DATA, H));
        chain(&chained(&entries))
    }),
    case("T10/1-byte", "RET0", |ctx| {
        counted(ctx, &[Desc::new(DATA, 1)])
    }),
    case("T11/43-bytes", "RET0", |ctx| {
        counted(ctx, &[Desc::new(DATA, H - 1)])
    }),
    case("T12/header-in-44-descriptors", "RST", |_| {
        let bytes: Vec<_> = (0..44).map(|n| Desc::new(DATA + n, 1)).collect();
        chain(&chained(&bytes))
    }),
    case("T13/64-KiB-of-payload", "RST", |_| payload(MAX_PAYLOAD)),
    case("T14/64-KiB-of-payload-and-1", "RET0", |_| {
        payload(MAX_PAYLOAD + 1)
    }),
    case("T15/length-0xffffffff", "BROKEN", |_| {
        chain(&[Desc::new(DATA, u32::MAX)])
    }),
    case("T16/last-address", "BROKEN", |_| {
        chain(&[Desc::new(u64::MAX, H)])
    }),
    case("T17/address-wraps", "BROKEN", |_| {
        chain(&[Desc::new(u64::MAX - 4095, 8192)])
    }),
    case("T18/address-below-the-first-region", "BROKEN", |_| {
        in_regions(
            |user| vec![region(0x10_0000, MEMORY as u64 - 0x10_0000, user)],
            Desc::new(0xf_fff0, H),
        )
    }),
    case("T19/beyond-the-last-region", "BROKEN", |_| {
        chain(&[Desc::new(MEMORY as u64 - 20, H)])
    }),
    case("T20/memory-unmapped", "RET0", |_| {
        on_usual(|dev| {
            write_request(dev, LARGE);
            dev.mem.unmap(LARGE as usize, 4096)?;
            offer_large(dev);
            Ok(())
        })
    }),
    case("T21/memory-without-access", "RET0", |_| {
        on_usual(|dev| {
            write_request(dev, LARGE);
            dev.mem.protect(LARGE as usize, 4096, libc::PROT_NONE)?;
            offer_large(dev);
            Ok(())
        })
    }),
    case("T22/writable-header", "RET0", |ctx| {
        counted(ctx, &[Desc::new(DATA, H).flags(WRITE)])
    }),
    case("T23/readable-then-writable", "RET0", |ctx| {
        counted(
            ctx,
            &[
                Desc::new(DATA, H).next(1),
                Desc::new(DATA + 100, 10).flags(WRITE),
            ],
        )
    }),
    case("T24/writable-then-readable", "BROKEN", |_| {
        chain(&[
            Desc::new(DATA, H).flags(WRITE).next(1),
            Desc::new(DATA + 100, 10),
        ])
    }),
    case("T25/indirect", "RST", |_| {
        indirect(&chained(&[Desc::new(DATA, 20), Desc::new(DATA + 20, 24)]))
    }),
    case("T26/indirect-of-17-bytes", "BROKEN", |_| {
        indirect_as(&[Desc::new(DATA, H)], Desc::new(TABLE, 17))
    }),
    case("T27/indirect-of-no-bytes", "BROKEN", |_| {
        indirect_as(&[], Desc::new(TABLE, 0))
    }),
    case("T28/indirect-in-indirect", "BROKEN", |_| {
        indirect(&[Desc::new(DATA, 16).flags(INDIRECT)])
    }),
    case("T29/indirect-that-continues", "BROKEN", |_| {
        on_usual(|dev| {
            // The two parts are one valid packet, so that it is the chain that is judged.
            write_request(dev, DATA);
            dev.mem
                .write(TABLE as usize, &table(&[Desc::new(DATA, 22)]));
            dev.q[TX].set(0, Desc::new(TABLE, 16).flags(INDIRECT).next(1));
            dev.q[TX].set(1, Desc::new(DATA + 22, 22));
            dev.q[TX].offer(0);
            dev.kick(TX);
            Ok(())
        })
    }),
    case("T30/indirect-continues-past-its-end", "BROKEN", |_| {
        indirect(&[Desc::new(DATA, 20).next(1)])
    }),
    case("T31/indirect-out-of-order", "RST", |_| {
        let mut entries = vec![Desc::new(LARGE, 1); 6];
        entries[0] = Desc::new(DATA, 20).next(5);
        entries[5] = Desc::new(DATA + 20, 24);
        indirect(&entries)
    }),
    case("T32/indirect-self-loop", "BROKEN", |_| {
        indirect(&[Desc::new(DATA, 1).next(0); 4])
    }),
    case("T33/indirect-65536-empty-entries", "BROKEN", |_| {
        indirect(&loop_of_empty())
    }),
    case("T34/indirect-65537-entries", "BROKEN", |_| {
        indirect_as(&[empty()], Desc::new(TABLE, 65537 * 16))
    }),
    case("T35/indirect-nowhere", "BROKEN", |_| {
        indirect_as(&[], Desc::new(NOWHERE, 64))
    }),
    case("T36/indirect-writable", "RST", |_| {
        indirect_as(&[Desc::new(DATA, H)], Desc::new(TABLE, 16).flags(WRITE))
    }),
    case("T37/1025-segments", "BROKEN", |_| {
        let mut dev = Setup::num(2048).open()?;
        let entries = chained(&vec![Desc::new(DATA, 1); 1025]);
        offer_indirect(&mut dev, &entries, Desc::new(TABLE, 1025 * 16));
        observe(&mut dev)
    }),
    case("T38/available-index-129-ahead", "BROKEN", |_| ahead(129)),
    case("T39/available-index-0x8000-ahead", "BROKEN", |_| {
        ahead(0x8000)
    }),
    case("T40/available-index-back", "BROKEN", |_| ahead(0xffff)),
    case("T41/20000-kicks-for-nothing", "RST", |_| kicks()),
    case("T42/same-head-twice", "RST RST", |_| {
        on_usual(|dev| {
            write_request(dev, DATA);
            dev.q[TX].set(0, Desc::new(DATA, H));
            dev.q[TX].put(0);
            dev.q[TX].offer(0);
            dev.kick(TX);
            Ok(())
        })
    }),
    case("T44/reserved-flags", "RST", |_| {
        chain(&[Desc::new(DATA, H).flags(0xfff8)])
    }),
    case("T45/8-tables-of-65536", "BROKEN in time", |ctx| {
        tables(ctx, 8)
    })
    .not_on_c("keeps a worker busy for 0.2 s, more or less"),
    case("T45b/128-tables-of-65536", "BROKEN in time", |ctx| {
        tables(ctx, 128)
    })
    .not_on_c("keeps a worker busy for up to 50 s"),
    case("T45c/owner-killed-in-a-long-chain", "gone in time", killed)
        .not_on_c("keeps a process that was killed for 16 s"),
    case(
        "T47/32767-empty-descriptors-then-header",
        "RST in time",
        |ctx| {
            let mut dev = Setup::num(32768).open()?;
            let mut entries = vec![empty(); 32767];
            entries.push(Desc::new(DATA, H));
            write_request(&dev, DATA);
            dev.q[TX].set_all(&chained(&entries));
            worst(ctx, &mut dev)
        },
    )
    .not_on_c("a measurement of time"),
    case("T47/loop-of-32768", "BROKEN in time", |ctx| {
        let mut dev = Setup::num(32768).open()?;
        let entries: Vec<_> = (0..32768u16)
            .map(|n| empty().next((n + 1) % 32768))
            .collect();
        dev.q[TX].set_all(&entries);
        worst(ctx, &mut dev)
    })
    .not_on_c("a measurement of time"),
    case("T47/table-of-32768-in-64-regions", "RST in time", |ctx| {
        let setup = Setup {
            regions: Some(scattered),
            ..Setup::num(32768)
        };
        let mut dev = setup.open()?;
        let mut entries = vec![empty(); 32767];
        entries.push(Desc::new(DATA, H));
        write_request(&dev, DATA);
        dev.mem.write(TABLE as usize, &table(&chained(&entries)));
        dev.q[TX].set(0, Desc::new(TABLE, 32768 * 16).flags(INDIRECT));
        worst(ctx, &mut dev)
    })
    .not_on_c("a measurement of time"),
    case("T47/1024-segments-in-64-regions", "RST in time", |ctx| {
        let setup = Setup {
            regions: Some(scattered),
            ..Setup::num(1024)
        };
        let mut dev = setup.open()?;
        let header = dev
            .header(packet::RW, 1, NOBODY)
            .with(|h| h.len = 1023 * 64);
        dev.mem.write(DATA as usize, &header.bytes());
        let mut entries = vec![Desc::new(DATA, H)];
        entries.extend((0..1023).map(|n| Desc::new(LARGE + n * 4096 % 0x20_0000, 64)));
        dev.q[TX].set_all(&chained(&entries));
        worst(ctx, &mut dev)
    })
    .not_on_c("a measurement of time"),
    case(
        "T47/2000-heads-of-32768",
        "ioctl in time, close in time",
        bounded,
    )
    .not_on_c("a measurement of time"),
    case("T46/guest-rewrites-what-is-being-read", "alive", rewriting).parallel(),
];

fn empty() -> Desc {
    Desc::new(DATA, 0)
}

/// All entries of the largest table: one does not see an end of it by its lengths.
fn loop_of_empty() -> Vec<Desc> {
    (0..=0xffffu16)
        .map(|n| empty().next(n.wrapping_add(1)))
        .collect()
}

fn region(guest: u64, size: u64, user: u64) -> abi::Region {
    abi::Region { guest, size, user }
}

/// Writes the bytes of a valid packet.
fn write_request(dev: &Device, at: u64) {
    let request = dev.header(packet::REQUEST, 1000, NOBODY);
    dev.mem.write(at as usize, &request.bytes());
}

/// What comes of a chain that begins at descriptor 0, with a valid packet at `DATA`.
fn chain(entries: &[Desc]) -> Try<String> {
    on_usual(|dev| {
        offer_chain(dev, entries);
        Ok(())
    })
}

fn offer_chain(dev: &mut Device, entries: &[Desc]) {
    write_request(dev, DATA);
    dev.q[TX].set_all(entries);
    dev.q[TX].offer(0);
    dev.kick(TX);
}

/// As [`chain`], and ours counts it as malformed.
fn counted(ctx: &Ctx, entries: &[Desc]) -> Try<String> {
    let mut dev = Setup::default().open()?;
    offer_chain(&mut dev, entries);
    let outcome = observe(&mut dev)?;
    let refused = dev.info("refused").join(" ");
    if ctx.ours() && !refused.starts_with("1 malformed") {
        return Err(format!("{outcome}, but fdinfo says: {refused}").into());
    }
    Ok(outcome)
}

fn head(head: u16) -> Try<String> {
    on_usual(|dev| {
        dev.q[TX].offer(head);
        dev.kick(TX);
        Ok(())
    })
}

fn payload(len: usize) -> Try<String> {
    on_usual(|dev| {
        let header = dev.header(packet::RW, 1000, NOBODY);
        let header = header.with(|h| h.len = len as u32);
        let at = dev.place(0, &[&header.bytes()[..], &vec![0x55; len]].concat());
        dev.q[TX].set(0, Desc::new(at, H + len as u32));
        dev.q[TX].offer(0);
        dev.kick(TX);
        Ok(())
    })
}

fn in_regions(regions: fn(u64) -> Vec<abi::Region>, desc: Desc) -> Try<String> {
    let mut dev = Setup {
        regions: Some(regions),
        ..Setup::buffers(0)
    }
    .open()?;
    dev.q[TX].set(0, desc);
    dev.q[TX].offer(0);
    dev.kick(TX);
    dev.settle()?;
    let errors = dev.errors(TX);
    dev.kick(TX);
    dev.settle()?;
    Ok(match (errors, dev.errors(TX)) {
        (1, 0) => "BROKEN".to_owned(),
        (_, 1..) => "STALL".to_owned(),
        _ => "nothing".to_owned(),
    })
}

fn offer_large(dev: &mut Device) {
    dev.q[TX].set(0, Desc::new(LARGE, H));
    dev.q[TX].offer(0);
    dev.kick(TX);
}

fn offer_indirect(dev: &mut Device, entries: &[Desc], desc: Desc) {
    write_request(dev, DATA);
    dev.mem.write(TABLE as usize, &table(entries));
    dev.q[TX].set(0, desc.flags(INDIRECT));
    dev.q[TX].set(1, Desc::new(DATA, H));
    dev.q[TX].offer(0);
    dev.kick(TX);
}

/// What comes of an indirect table.
fn indirect(entries: &[Desc]) -> Try<String> {
    indirect_as(entries, Desc::new(TABLE, entries.len() as u32 * 16))
}

/// What comes of a descriptor that refers to a table, followed by a valid one.
fn indirect_as(entries: &[Desc], desc: Desc) -> Try<String> {
    on_usual(|dev| {
        offer_indirect(dev, entries, desc);
        Ok(())
    })
}

/// What comes of an available index that is not what was offered.
fn ahead(by: u16) -> Try<String> {
    on_usual(|dev| {
        write_request(dev, DATA);
        dev.q[TX].set(0, Desc::new(DATA, H));
        dev.q[TX].put(0);
        dev.q[TX].set_avail_idx(by);
        dev.kick(TX);
        Ok(())
    })
}

fn kicks() -> Try<String> {
    let mut dev = Setup::default().open()?;
    let (begin, busy) = (Instant::now(), worker::busy()?);
    for _ in 0..20_000 {
        dev.kick(TX);
    }
    dev.settle()?;
    note(format!(
        "20000 kicks in {:?}, the worker was busy for {:?}",
        begin.elapsed(),
        worker::busy()?.saturating_sub(busy)
    ));
    offer_chain(&mut dev, &[Desc::new(DATA, H)]);
    observe(&mut dev)
}

/// The longest that a chain may keep the worker, in time of its CPU, in a VM without hardware
/// virtualization.
const CHAIN_LIMIT: Duration = Duration::from_millis(50);

/// A chain of tables, each with as many empty entries as there can be.
fn tables(ctx: &Ctx, count: u16) -> Try<String> {
    let mut dev = Setup::default().open()?;
    write_tables(&dev, count);
    worst(ctx, &mut dev)
}

/// Memory in 63 pieces where the large packets and tables are.
fn scattered(user: u64) -> Vec<abi::Region> {
    const STEP: u64 = 0x1_1000;
    let mut all = vec![region(0, LARGE, user)];
    all.extend((0..62).map(|n| region(LARGE + n * STEP, STEP, user + LARGE + n * STEP)));
    let done = LARGE + 62 * STEP;
    all.push(region(done, MEMORY as u64 - done, user + done));
    all
}

/// What comes of the chain at descriptor 0, and whether it took the worker long.
///
/// Pages that are touched for the first time, and others of this machine, are part of a time: the
/// least of some counts, and the last chain is the one that is looked at.
fn worst(ctx: &Ctx, dev: &mut Device) -> Try<String> {
    let limit = CHAIN_LIMIT * ctx.scale;
    let mut times = Vec::new();
    let when = loop {
        // What a start made it do is over.
        dev.flush()?;
        let begin = worker::busy()?;
        dev.q[TX].offer(0);
        dev.kick(TX);
        dev.flush()?;
        let took = worker::busy()?.saturating_sub(begin);
        times.push(took);
        if took < limit {
            break "in time";
        }
        if times.len() == 5 {
            break "too late";
        }
        dev.recv_all()?;
        dev.q[TX].take_all();
        dev.restart()?;
        dev.errors(TX);
    };
    note(format!("the worker was busy for {times:?}"));
    Ok(format!("{} {when}", observe(dev)?))
}

/// However long the chains, an ioctl that waits for the worker is not kept waiting, nor is who
/// closes the device.
fn bounded(ctx: &mut Ctx) -> Try<String> {
    let mut dev = Setup::num(32768).open()?;
    let chain: Vec<_> = (0..32768).map(|_| empty()).collect();
    dev.q[TX].set_all(&chained(&chain));
    for _ in 0..2000 {
        dev.q[TX].put(0);
    }
    dev.q[TX].publish();
    dev.kick(TX);
    let mut worst = Duration::ZERO;
    let end = Instant::now() + Duration::from_secs(1) * ctx.scale;
    while Instant::now() < end {
        let begin = Instant::now();
        dev.flush()?;
        worst = worst.max(begin.elapsed());
    }
    let begin = Instant::now();
    drop(dev);
    let closing = begin.elapsed();
    note(format!(
        "an ioctl took {worst:?} at most, close() {closing:?}"
    ));
    let limit = Duration::from_secs(1) * ctx.scale;
    let when = |took| if took < limit { "in time" } else { "too late" };
    Ok(format!("ioctl {}, close {}", when(worst), when(closing)))
}

fn write_tables(dev: &Device, count: u16) {
    let mut entries = loop_of_empty();
    entries[65535] = empty();
    dev.mem.write(TABLE as usize, &table(&entries));
    for n in 0..count {
        let desc = Desc::new(TABLE, 65536 * 16).flags(INDIRECT);
        let last = n == count - 1;
        dev.q[TX].set(n, if last { desc } else { desc.next(n + 1) });
    }
}

/// The owner is killed while its worker walks a long chain.
fn killed(ctx: &mut Ctx) -> Try<String> {
    let mut owner = process::fork(|| {
        let Ok(mut dev) = Setup::default().open() else {
            return 1;
        };
        write_tables(&dev, 128);
        dev.q[TX].offer(0);
        dev.kick(TX);
        loop {
            thread::sleep(Duration::from_secs(1));
        }
    })?;
    thread::sleep(Duration::from_millis(500));
    let begin = Instant::now();
    owner.kill(libc::SIGKILL);
    let limit = Duration::from_secs(2) * ctx.scale;
    let status = owner.wait(Duration::from_secs(20))?;
    note(format!("gone after {:?}", begin.elapsed()));
    Ok(match status {
        Some(status) if status == -libc::SIGKILL && begin.elapsed() < limit => "gone in time",
        Some(1) => "could not be set up",
        _ => "not gone in time",
    }
    .to_owned())
}

/// Several threads change what the device reads, all the time.
fn rewriting(ctx: &mut Ctx) -> Try<String> {
    let mut dev = Setup::default().open()?;
    let seconds = u64::from(ctx.rounds(1, 3));
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..2u64)
        .map(|n| {
            let (mem, stop) = (dev.mem.clone(), stop.clone());
            let mut rng = crate::rng::Rng::new(ctx.rng.word(), "rewriting");
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let word = rng.word();
                    let slot = (rng.below(128) * 0x2000 + DATA) as usize;
                    let desc = 0x11_0000 + rng.below(128) as usize * 16;
                    if n == 0 {
                        // Length, type, operation, destination port.
                        let field = [24, 28, 30, 20][(word % 4) as usize];
                        mem.store16(slot + field, (word >> 8) as u16);
                    } else {
                        // Length, flags, next.
                        let field = [8, 12, 14][(word % 3) as usize];
                        mem.store16(desc + field, (word >> 8) as u16 % 256);
                    }
                }
            })
        })
        .collect();

    let begin = Instant::now();
    let (mut broken, mut packets) = (0u32, 0u32);
    while begin.elapsed() < Duration::from_secs(seconds) {
        for n in 0..16 {
            let header = dev.header(packet::RW, 1000 + n, NOBODY);
            dev.put(header.with(|h| h.len = 4000), &[0x33; 4000]);
        }
        dev.kick(TX);
        dev.settle()?;
        packets += dev.q[TX].take_all().len() as u32;
        dev.recv_all()?;
        if dev.errors(TX) > 0 {
            broken += 1;
            dev.restart()?;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().map_err(|_| "a thread panicked")?;
    }
    note(format!("{packets} packets, broken {broken} times"));
    dev.restart()?;
    dev.q[TX].take_all();
    Ok(if observe::answers(&mut dev)? {
        "alive"
    } else {
        "no answer"
    }
    .to_owned())
}
