// SPDX-License-Identifier: GPL-2.0

//! Guest memory and rings in odd shapes and places.

use super::{case, rx, skip, Case, Ctx};
use crate::{
    abi::{feature, Region},
    device::{Device, Setup, DATA, LARGE, MEMORY, RX, TX},
    host::{connect_stream, errno, Socket},
    observe::{answers, observe, received, NOBODY},
    packet::{self, HEADER_LEN},
    ring::{Desc, Queue, WRITE},
    sys::{self, fault::Faults, memory::Mapping, process},
    Try,
};
use std::{
    path::Path,
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
    thread,
    time::{Duration, Instant},
};

const HUGE_PAGES: &str = "/proc/sys/vm/nr_hugepages";

pub const CASES: &[Case] = &[
    case("N01/random-used-event", "1000 answers", |ctx| {
        let mut dev = Setup::default().open()?;
        let seed = ctx.rng.word();
        let mut rng = crate::rng::Rng::new(seed, "used_event");
        requests(&mut dev, 1000, |dev| {
            for q in [RX, TX] {
                let at = dev.q[q].used_event();
                dev.mem.store16(at, rng.word() as u16);
            }
        })
    }),
    case("N02/no-interrupt-toggled", "1000 answers", |_| {
        let setup = Setup {
            features: feature::VERSION_1,
            ..Setup::default()
        };
        let mut dev = setup.open()?;
        let stop = Arc::new(AtomicBool::new(false));
        let toggle = {
            let (mem, stop) = (dev.mem.clone(), stop.clone());
            let flags = [dev.q[RX].avail, dev.q[TX].avail];
            thread::spawn(move || {
                let mut value = 0;
                while !stop.load(Ordering::Relaxed) {
                    value ^= 1;
                    for at in flags {
                        mem.store16(at, value);
                    }
                    thread::sleep(Duration::from_micros(100));
                }
            })
        };
        let outcome = requests(&mut dev, 1000, |_| ());
        stop.store(true, Ordering::Relaxed);
        toggle.join().map_err(|_| "a thread panicked")?;
        outcome
    })
    .parallel(),
    case("N03/indexes-wrap", "all answers, in order", |ctx| {
        wrap(ctx, feature::USUAL)
    })
    .seconds(120),
    case(
        "N03/indexes-wrap-without-event-index",
        "all answers, in order",
        |ctx| wrap(ctx, feature::VERSION_1),
    )
    .seconds(120),
    case("N04/rings-of-1", "RST", |_| size(1)),
    case("N04/rings-of-2", "RST", |_| size(2)),
    case("N04/rings-of-32768", "RST", |_| size(32768)),
    case("N05/base-65535", "RST", |_| {
        let mut dev = Setup {
            base: 65535,
            ..Setup::default()
        }
        .open()?;
        let header = dev.header(packet::REQUEST, 1, NOBODY);
        dev.put(header, &[]);
        dev.kick(TX);
        observe(&mut dev)
    }),
    case("N06/rings-on-top-of-each-other", "alive", |ctx| {
        overlapping(ctx.rng.word())
    }),
    case("N07/descriptors-in-a-buffer", "alive", |_| self_modifying()),
    case("N08/64-regions", "200 bytes intact, both ways", |_| {
        regions(64)
    }),
    case(
        "N08/regions-upside-down",
        "200 bytes intact, both ways",
        |_| upside_down(),
    ),
    case(
        "N08/one-page-in-64-places",
        "200 bytes intact, both ways",
        |_| aliases(),
    ),
    case("N09/file-truncated", "RET0", |_| truncated()),
    case("N10/page-that-never-comes", "killed in time", |ctx| {
        never_comes(ctx.scale)
    })
    .seconds(60),
    case("N11/memory-dropped-and-moved", "alive", |_| moving()).parallel(),
    case("N12/huge-pages", "RST", |_| {
        if !Path::new(HUGE_PAGES).exists() {
            return skip("this kernel has no huge pages");
        }
        std::fs::write(HUGE_PAGES, "16")?;
        let mem = Mapping::huge(2 * MEMORY);
        let outcome = mem.map_err(Into::into).and_then(in_memory);
        std::fs::write(HUGE_PAGES, "0")?;
        outcome
    }),
    case("N12/transparent-huge-pages", "RST", |_| {
        if !Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
            return skip("this kernel has no transparent huge pages");
        }
        let mem = Mapping::private(2 * MEMORY)?;
        mem.advise(0, mem.len(), libc::MADV_HUGEPAGE)?;
        mem.fill(0, mem.len(), 0);
        in_memory(mem)
    }),
    case("N30/payload-that-cannot-be-read", "RET0; RST, EIO", |_| {
        let mut dev = Setup::default().open()?;
        let peer = connect_stream(&mut dev)?;
        dev.recv_all()?;
        let len = 100;
        let header = peer.header(&dev, packet::RW).with(|h| h.len = len);
        // The header is at the end of a page, behind which there is none.
        let at = LARGE + 4096 - HEADER_LEN as u64;
        dev.mem.write(at as usize, &header.bytes());
        dev.mem.unmap(LARGE as usize + 4096, 4096)?;
        dev.q[TX].set(0, Desc::new(at, HEADER_LEN as u32 + len));
        dev.q[TX].offer(0);
        dev.kick(TX);
        dev.settle()?;
        let used = match dev.q[TX].take_all().as_slice() {
            [] => "nothing".to_owned(),
            [used] => format!("RET{}", used.len),
            more => format!("{} chains", more.len()),
        };
        let replies = received(&mut dev, "")?;
        Ok(format!("{used}; {replies}, {}", peer.socket.state()))
    }),
    case("N25/packed-rings", "EOPNOTSUPP", |_| {
        offered(feature::PACKED)
    }),
    case("N25/in-order", "EOPNOTSUPP", |_| offered(feature::IN_ORDER)),
];

/// Many requests to nobody; each is answered once, in order.
fn requests(dev: &mut Device, count: u32, mut each: impl FnMut(&Device)) -> Try<String> {
    let (mut sent, mut got) = (0, 0);
    let idle = Duration::from_secs(5);
    let mut last = Instant::now();
    while got < count {
        while sent < count && sent - got < 32 {
            let header = dev.header(packet::REQUEST, sent, NOBODY);
            dev.put(header, &[]);
            sent += 1;
        }
        each(dev);
        dev.kick(TX);
        dev.flush()?;
        dev.q[TX].take_all();
        while let Some(packet) = dev.recv() {
            if packet.header.op != packet::RST || packet.header.dst_port != got {
                let (name, port) = (packet.name(), packet.header.dst_port);
                return Ok(format!("{name} for {port} and not RST for {got}"));
            }
            got += 1;
            last = Instant::now();
        }
        if last.elapsed() > idle {
            return Ok(format!("{got} answers to {sent} requests"));
        }
    }
    Ok(format!("{got} answers"))
}

/// Indexes go around: at full length from the beginning, else from shortly before the end.
fn wrap(ctx: &Ctx, features: u64) -> Try<String> {
    let (base, count) = if ctx.full {
        (0, 70_000)
    } else {
        (65_000, 2000)
    };
    let mem = Arc::new(Mapping::shared(MEMORY)?);
    for q in [RX, TX] {
        mem.store16(Queue::new(&mem, q, 256).used + 2, base);
    }
    let mut dev = Setup {
        base,
        features,
        ..Setup::num(256)
    }
    .open_in(mem)?;
    for q in [RX, TX] {
        dev.q[q].used_idx = base;
    }
    Ok(match requests(&mut dev, count, |_| ())? {
        text if text == format!("{count} answers") => "all answers, in order".to_owned(),
        text => text,
    })
}

fn size(num: u16) -> Try<String> {
    let mut dev = Setup::num(num).open()?;
    let header = dev.header(packet::REQUEST, 1, NOBODY);
    dev.put(header, &[]);
    dev.kick(TX);
    observe(&mut dev)
}

fn offered(what: u64) -> Try<String> {
    let dev = Device::bare(Arc::new(Mapping::shared(4096)?), Setup::num(1))?;
    Ok(match dev.set_features(what) {
        Ok(()) => "ok".to_owned(),
        Err(e) => errno(&e),
    })
}

/// Whether a device works after another one was treated badly in some way, which does not matter.
fn alive(dev: &mut Device) -> Try<String> {
    for q in [RX, TX] {
        let fresh = Queue::new(&dev.mem, q, dev.setup.num);
        dev.mem.fill(fresh.desc, 16 * usize::from(fresh.num), 0);
        dev.q[q] = fresh;
        dev.q[q].set_avail_idx(0);
        dev.mem.store16(dev.q[q].used + 2, 0);
    }
    dev.run(false)?;
    for q in [RX, TX] {
        dev.configure(q)?;
    }
    dev.run(true)?;
    for n in 0..16 {
        dev.post(n, 4096);
    }
    dev.kick(RX);
    let alive = answers(dev)?;
    Ok(if alive { "alive" } else { "no answer" }.to_owned())
}

fn overlapping(seed: u64) -> Try<String> {
    let mut rng = crate::rng::Rng::new(seed, "overlapping");
    let mut dev = Setup::default().open()?;
    for _ in 0..200 {
        dev.run(false)?;
        let place = dev.q[TX].desc;
        for q in [RX, TX] {
            let mut at = || place + rng.below(0x800) as usize * 4;
            let (desc, avail, used) = (at(), at(), at());
            dev.q[q].desc = desc;
            dev.q[q].avail = avail;
            dev.q[q].used = used;
            dev.set_base(q, rng.below(4) as u32)?;
            let addr = dev.ring_addr(q).bytes();
            dev.io(crate::abi::SET_VRING_ADDR, &mut addr.clone())?;
        }
        dev.run(true)?;
        let words: Vec<u8> = (0..64).flat_map(|_| rng.word().to_le_bytes()).collect();
        dev.mem.write(place + rng.below(0x1000) as usize, &words);
        let socket = Socket::stream()?;
        let _ = socket.connect(dev.cid, 1);
        for q in [RX, TX] {
            dev.kick(q);
        }
        dev.flush()?;
    }
    alive(&mut dev)
}

/// The table of descriptors is in a buffer that the host writes packets to.
fn self_modifying() -> Try<String> {
    let mut dev = Setup::buffers(0).open()?;
    for shift in 0..64 {
        dev.restart()?;
        let table = dev.q[RX].desc as u64;
        for n in 0..8u16 {
            let at = table + u64::from(n) * 16 + shift;
            dev.post_desc(n, Desc::new(at, 100).flags(WRITE));
        }
        dev.kick(RX);
        for port in 0..8 {
            let socket = Socket::stream()?;
            let _ = socket.connect(dev.cid, port);
        }
        dev.flush()?;
    }
    alive(&mut dev)
}

/// A stream of 200 bytes each way through memory whose pieces are wherever `place` says.
fn both_ways(mut dev: Device, guest_buffer: u64, host_buffer: u64) -> Try<String> {
    let peer = crate::host::connect_stream(&mut dev)?;
    // From the host, into a buffer that lies across pieces.
    while dev.q[RX].used_idx != dev.q[RX].avail_idx {
        peer.socket.send(b"y")?;
        dev.settle()?;
        dev.take().ok_or("no packet came")?;
    }
    let len = HEADER_LEN as u32 + 200;
    dev.post_desc(100, Desc::new(host_buffer, len).flags(WRITE));
    dev.kick(RX);
    peer.socket.send(&rx::pattern(200))?;
    dev.settle()?;
    dev.q[RX].take().ok_or("no packet came")?;
    let there = read_guest(&dev, host_buffer + HEADER_LEN as u64, 200);
    // To the host, from such a one.
    let header = peer.header(&dev, packet::RW).with(|h| h.len = 200);
    let bytes = [&header.bytes()[..], &rx::pattern(200)].concat();
    write_guest(&dev, guest_buffer, &bytes);
    dev.q[TX].set(100, Desc::new(guest_buffer, bytes.len() as u32));
    dev.q[TX].offer(100);
    dev.kick(TX);
    dev.settle()?;
    let back = peer.socket.drain().0;
    Ok(match (rx::intact(&there, 200), rx::intact(&back, 200)) {
        (a, b) if a == b => format!("{a}, both ways"),
        (a, b) => format!("to the guest: {a}; to the host: {b}"),
    })
}

/// The offset of a guest address in the mapping, as the regions of the device say.
fn locate(dev: &Device, at: u64) -> usize {
    dev.regions()
        .iter()
        .find(|r| r.guest <= at && at - r.guest < r.size)
        .map(|r| (r.user + (at - r.guest) - dev.mem.addr()) as usize)
        .expect("an address in a region")
}

fn read_guest(dev: &Device, at: u64, len: u64) -> Vec<u8> {
    (at..at + len)
        .flat_map(|at| dev.mem.read(locate(dev, at), 1))
        .collect()
}

fn write_guest(dev: &Device, at: u64, bytes: &[u8]) {
    for (at, byte) in (at..).zip(bytes) {
        dev.mem.write(locate(dev, at), &[*byte]);
    }
}

const WHOLE: u64 = MEMORY as u64;

/// Small regions at the end, so that a buffer there lies in all of them.
fn regions(count: u64) -> Try<String> {
    assert_eq!(count, 64);
    // 63 regions of 4 bytes above one with all the rest.
    let setup = Setup {
        regions: Some(|user| {
            let low = WHOLE - 63 * 4;
            let mut all = vec![Region {
                guest: 0,
                size: low,
                user,
            }];
            all.extend((0..63).map(|n| Region {
                guest: low + 4 * n,
                size: 4,
                user: user + low + 4 * n,
            }));
            all
        }),
        ..Setup::buffers(2)
    };
    let at = WHOLE - 250;
    both_ways(setup.open()?, at, at)
}

/// Pages of which each is where the next one should be.
fn upside_down() -> Try<String> {
    let setup = Setup {
        regions: Some(|user| {
            let low = WHOLE - 8 * 4096;
            let mut all = vec![Region {
                guest: 0,
                size: low,
                user,
            }];
            all.extend((0..8).map(|n| Region {
                guest: low + 4096 * n,
                size: 4096,
                user: user + low + 4096 * (7 - n),
            }));
            all
        }),
        ..Setup::buffers(2)
    };
    let at = WHOLE - 8 * 4096 + 4096 - 100;
    both_ways(setup.open()?, at + 2 * 4096, at)
}

/// One page that the guest sees in many places.
fn aliases() -> Try<String> {
    let setup = Setup {
        regions: Some(|user| {
            let mut all = vec![Region {
                guest: 0,
                size: WHOLE,
                user,
            }];
            all.extend((1..64).map(|n| Region {
                guest: (n << 32) + LARGE,
                size: 4096,
                user: user + LARGE,
            }));
            all
        }),
        ..Setup::buffers(2)
    };
    both_ways(
        setup.open()?,
        (63 << 32) + LARGE + 8,
        (17 << 32) + LARGE + 400,
    )
}

/// Guest memory is a file, which becomes shorter than the memory.
fn truncated() -> Try<String> {
    let file = sys::memfd()?;
    file.set_len(WHOLE)?;
    let mem = Arc::new(Mapping::of_file(&file, MEMORY)?);
    let mut dev = Setup::default().open_in(mem)?;
    // Buffers of the host lie behind this.
    file.set_len(LARGE)?;
    dev.q[TX].set(0, Desc::new(LARGE, HEADER_LEN as u32));
    dev.q[TX].offer(0);
    dev.kick(TX);
    dev.settle()?;
    let used = dev.q[TX].take_all();
    let errors = dev.errors(TX);
    dev.kick(TX);
    dev.settle()?;
    let taken = dev.base(TX)?;
    Ok(match (used.as_slice(), errors, dev.errors(TX), taken) {
        ([one], 0, 0, 1) if one.len == 0 => "RET0",
        ([], _, 1.., _) => "STALL",
        ([], _, 0, 1) => "LEAKHEAD",
        ([], 1, 0, 0) => dev.broken(TX),
        _ => "something else",
    }
    .to_owned())
}

/// A page of the guest's memory is never provided; the VMM is killed meanwhile.
fn never_comes(scale: u32) -> Try<String> {
    if Faults::are_unknown() {
        return skip("this kernel has no userfaultfd");
    }
    let mut owner = process::fork(|| {
        let run = || -> Try<()> {
            let mem = Arc::new(Mapping::private(MEMORY)?);
            let faults = Faults::new()?;
            faults.register(&mem, LARGE as usize, 4096)?;
            let mut dev = Setup::default().open_in(mem)?;
            dev.q[TX].set(0, Desc::new(LARGE, HEADER_LEN as u32));
            dev.q[TX].offer(0);
            dev.kick(TX);
            loop {
                thread::sleep(Duration::from_secs(1));
            }
        };
        i32::from(run().is_err())
    })?;
    thread::sleep(Duration::from_millis(500));
    if let Some(status) = owner.wait(Duration::ZERO)? {
        return Err(format!("the owner ended with {status}").into());
    }
    let begin = Instant::now();
    owner.kill(libc::SIGKILL);
    let status = owner.wait(Duration::from_secs(30))?;
    let limit = Duration::from_secs(5) * scale;
    Ok(match status {
        Some(status) if status == -libc::SIGKILL && begin.elapsed() < limit => "killed in time",
        Some(_) => "killed too late",
        None => "cannot be killed",
    }
    .to_owned())
}

/// Pages go away, and move, while they are used.
fn moving() -> Try<String> {
    let mem = Arc::new(Mapping::private(MEMORY)?);
    let mut dev = Setup::default().open_in(mem)?;
    let stop = Arc::new(AtomicBool::new(false));
    let mover = {
        let (mem, stop) = (dev.mem.clone(), stop.clone());
        thread::spawn(move || -> std::io::Result<u32> {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                // Only where nothing of ours is looked at.
                mem.advise(LARGE as usize, 0x4_0000, libc::MADV_DONTNEED)?;
                mem.move_away_and_back(LARGE as usize + 0x4_0000, 0x1_0000)?;
                rounds += 1;
            }
            Ok(rounds)
        })
    };
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(800) {
        for n in 0..16u16 {
            let at = LARGE + u64::from(n % 8) * 0x1_0000;
            dev.q[TX].set(n, Desc::new(at, 20_000));
            dev.q[TX].offer(n);
        }
        dev.kick(TX);
        dev.settle()?;
        dev.q[TX].take_all();
        dev.recv_all()?;
        if dev.errors(TX) > 0 {
            dev.restart()?;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let rounds = mover.join().map_err(|_| "a thread panicked")??;
    if rounds == 0 {
        return Err("nothing moved".into());
    }
    alive(&mut dev)
}

fn in_memory(mem: Mapping) -> Try<String> {
    let mut dev = Setup::default().open_in(Arc::new(mem))?;
    let header = dev.header(packet::REQUEST, 1, NOBODY);
    let at = DATA + (1 << 20);
    dev.mem.write(at as usize, &header.bytes());
    dev.q[TX].set(0, Desc::new(at, HEADER_LEN as u32));
    dev.q[TX].offer(0);
    dev.kick(TX);
    observe(&mut dev)
}
