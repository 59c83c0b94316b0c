// SPDX-License-Identifier: GPL-2.0

//! Translations of guest addresses: messages, and what happens without them.

use super::{case, Case, Ctx};
use crate::{
    abi::{self, feature, Message},
    device::{Device, Setup, DATA, LARGE, MEMORY, RX, TX},
    host::verdict,
    note,
    observe::{answers, observe, NOBODY},
    packet::{self, HEADER_LEN},
    ring::Desc,
    slab::Growth,
    sys, Try,
};
use std::{
    io::{Read, Write},
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
    thread,
    time::{Duration, Instant},
};

const WHOLE: u64 = MEMORY as u64;
const KERNEL: u64 = 0xffff_8880_0000_0000;

pub const CASES: &[Case] = &[
    case(
        "IOT-01/messages-without-iotlb",
        "EFAULT EFAULT EINVAL EINVAL EFAULT; read: 0 EAGAIN",
        |_| without_iotlb(),
    ),
    case(
        "IOT-02/mappings-that-cannot-be",
        "EFAULT EINVAL EFAULT EFAULT",
        |_| {
            let dev = setup().open()?;
            let user = dev.mem.addr();
            let wrong = [
                Message::update(0x1000, 4096, KERNEL),
                Message::update(0x1000, 0, user),
                Message::update(u64::MAX - 4095, 8192, user),
                Message::update(0x1000, u64::MAX, user),
            ];
            Ok(tell_all(&dev, &wrong))
        },
    ),
    case("IOT-03/invalidations", "ok ok ok; then a miss", |_| {
        let mut dev = setup().open()?;
        let some = [
            Message::invalidate(0, 0),
            Message::invalidate(LARGE + 0x800, 0x100),
            Message::invalidate(0, u64::MAX),
        ];
        let told = tell_all(&dev, &some);
        send(&mut dev, DATA);
        Ok(format!("{told}; then {}", question(&dev)?))
    }),
    case("IOT-04/5000-mappings", "5000 ok, no growth", |_| {
        let dev = setup().open()?;
        let mut refused = 0;
        let growth = Growth::measure(2, || {
            for n in 0..5000u64 {
                // Far apart: none of them can be joined with another.
                let message = Message::update((1 << 40) + n * 8192, 4096, dev.mem.addr());
                refused += u32::from(dev.tell(&message).is_err());
            }
            Ok(())
        })?;
        note(growth.describe("5000 mappings"));
        let grows = if growth.is_zero(5000) {
            "no growth"
        } else {
            "grows"
        };
        Ok(match refused {
            0 => format!("5000 ok, {grows}"),
            n => format!("{n} refused"),
        })
    })
    .seconds(60),
    case(
        "IOT-05/rings-outside-of-the-map-while-running",
        "no access",
        |_| elsewhere(),
    ),
    case("IOT-06/iotlb-off-and-on-while-running", "alive", |_| {
        let mut dev = setup().open()?;
        for _ in 0..20 {
            dev.set_features(feature::USUAL)?;
            dev.kick(TX);
            dev.set_features(feature::USUAL | feature::ACCESS_PLATFORM)?;
            dev.kick(TX);
        }
        dev.map_all()?;
        repair(&mut dev)
    }),
    case(
        "IOT-07/every-byte-of-a-question",
        "a miss, nothing else",
        |_| {
            let mut dev = setup().open()?;
            send(&mut dev, 1 << 40);
            dev.settle()?;
            let Some(bytes) = dev.ask()? else {
                return Ok("no question".to_owned());
            };
            let message = Message::parse(&bytes);
            let what = name(&message);
            Ok(if message.bytes() == bytes {
                format!("{what}, nothing else")
            } else {
                format!("{what}, and bytes that are not part of it")
            })
        },
    ),
    case(
        "IOT-08/10000-misses-that-nobody-answers",
        "1 question, no growth",
        |_| unanswered(),
    )
    .seconds(60),
    case("IOT-09/mappings-taken-back-in-traffic", "alive", racing)
        .parallel()
        .seconds(60),
    case("IOT-10/miss-answered", "RST", |_| {
        let mut dev = setup().open()?;
        dev.tell(&Message::invalidate(LARGE, 4096))?;
        send(&mut dev, LARGE);
        if question(&dev)? != "a miss" {
            return Ok("no question".to_owned());
        }
        dev.tell(&Message::update(LARGE, 4096, dev.mem.addr() + LARGE))?;
        observe(&mut dev)
    }),
    case(
        "IOT-11/buffer-that-must-not-be-read",
        "BROKEN, nothing",
        |_| {
            let mut dev = setup().open()?;
            dev.tell(&Message::invalidate(LARGE, 4096))?;
            let write_only = Message {
                perm: 2,
                ..Message::update(LARGE, 4096, dev.mem.addr() + LARGE)
            };
            dev.tell(&write_only)?;
            send(&mut dev, LARGE);
            // A mapping that says no is an answer: nobody is asked for another one.
            let asked = question(&dev)?;
            Ok(format!("{}, {asked}", observe(&mut dev)?))
        },
    ),
    case(
        "IOT-12/answered-before-it-was-read",
        "RST; read: a miss; then a miss",
        |_| {
            let mut dev = setup().open()?;
            dev.tell(&Message::invalidate(LARGE, 4096))?;
            send(&mut dev, LARGE);
            dev.settle()?;
            dev.tell(&Message::update(LARGE, 4096, dev.mem.addr() + LARGE))?;
            let answer = observe(&mut dev)?;
            let late = question(&dev)?;
            send(&mut dev, 1 << 40);
            Ok(format!("{answer}; read: {late}; then {}", question(&dev)?))
        },
    ),
    case(
        "IOT-13/stopped-before-it-was-read",
        "alive; read: a miss; then a miss",
        |_| {
            let mut dev = setup().open()?;
            send(&mut dev, 1 << 40);
            dev.settle()?;
            dev.run(false)?;
            dev.q[TX].set(0, Desc::default());
            let alive = repair(&mut dev)?;
            let late = question(&dev)?;
            send(&mut dev, 1 << 41);
            Ok(format!("{alive}; read: {late}; then {}", question(&dev)?))
        },
    ),
];

fn setup() -> Setup {
    Setup {
        features: feature::USUAL | feature::ACCESS_PLATFORM,
        ..Setup::default()
    }
}

fn tell_all(dev: &Device, messages: &[Message]) -> String {
    let told: Vec<_> = messages.iter().map(|m| verdict(dev.tell(m))).collect();
    told.join(" ")
}

/// The guest sends a valid packet that is at an address.
fn send(dev: &mut Device, at: u64) {
    let request = dev.header(packet::REQUEST, 1, NOBODY);
    if at < WHOLE {
        dev.mem.write(at as usize, &request.bytes());
    }
    dev.q[TX].set(0, Desc::new(at, HEADER_LEN as u32));
    dev.q[TX].offer(0);
    dev.kick(TX);
}

fn name(message: &Message) -> String {
    match message.kind {
        abi::MISS => "a miss".to_owned(),
        kind => format!("a message of type {kind}"),
    }
}

/// What the device asks, after the worker did what it could.
fn question(dev: &Device) -> Try<String> {
    dev.settle()?;
    Ok(match dev.ask()? {
        Some(bytes) => name(&Message::parse(&bytes)),
        None => "nothing".to_owned(),
    })
}

/// The rings as in the beginning, and whether the device works.
fn repair(dev: &mut Device) -> Try<String> {
    dev.run(false)?;
    for q in [RX, TX] {
        dev.q[q] = crate::ring::Queue::new(&dev.mem, q, dev.setup.num);
        dev.mem.store16(dev.q[q].used + 2, 0);
        dev.configure(q)?;
    }
    dev.run(true)?;
    for n in 0..8 {
        dev.post(n, 4096);
    }
    dev.kick(RX);
    let alive = answers(dev)?;
    Ok(if alive { "alive" } else { "no answer" }.to_owned())
}

fn without_iotlb() -> Try<String> {
    let dev = Setup::default().open()?;
    let map = Message::update(0x1000, 4096, dev.mem.addr());
    let old = Message { version: 1, ..map };
    let mut told = vec![verdict(dev.tell(&old)), verdict(dev.tell(&map))];
    told.push(verdict(dev.file().write(&map.bytes()[..10])));
    told.push(verdict(dev.tell(&Message { version: 9, ..map })));
    told.push(verdict(dev.tell(&Message { kind: 9, ..map })));
    sys::set_nonblocking(dev.file(), true)?;
    let short = dev.file().read(&mut [0; 10])?;
    let empty = verdict(dev.file().read(&mut [0; abi::MESSAGE_LEN]));
    Ok(format!("{}; read: {short} {empty}", told.join(" ")))
}

/// The rings are moved to where the guest has no memory, while they are in use.
fn elsewhere() -> Try<String> {
    let mut dev = setup().open()?;
    send(&mut dev, DATA);
    dev.recv_all()?;
    dev.q[TX].take_all();
    for q in [RX, TX] {
        let mut addr = dev.ring_addr(q);
        for part in [&mut addr.desc, &mut addr.avail, &mut addr.used] {
            *part += 1 << 40;
        }
        // Whether it is refused, or without effect until there are translations, does not matter.
        let _ = dev.io(abi::SET_VRING_ADDR, &mut addr.bytes());
    }
    send(&mut dev, DATA);
    // What the guest itself wrote.
    let mine = dev.mem.read(0, 0x20_0000);
    dev.settle()?;
    let after = dev.mem.read(0, 0x20_0000);
    let used = dev.q[TX].take_all().len();
    Ok(match (used, mine == after) {
        (0, true) => "no access".to_owned(),
        (n, same) => format!("{n} used, memory the same: {same}"),
    })
}

fn unanswered() -> Try<String> {
    let mut dev = setup().open()?;
    let mut questions = 0;
    let growth = Growth::measure(2, || {
        for n in 0..10_000u64 {
            if n < 100 {
                send(&mut dev, (1 << 40) + n * 4096);
            } else {
                dev.kick(TX);
            }
        }
        dev.settle()?;
        Ok(())
    })?;
    note(growth.describe("misses that nobody answers"));
    while dev.ask()?.is_some() {
        questions += 1;
    }
    let grows = if growth.is_zero(10_000) {
        "no growth"
    } else {
        "grows"
    };
    Ok(format!("{questions} question, {grows}"))
}

/// Threads take mappings back and give them again while packets are copied.
fn racing(ctx: &mut Ctx) -> Try<String> {
    let time = Duration::from_millis(u64::from(ctx.rounds(800, 5000)));
    let mut dev = setup().open()?;
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..4u64)
        .map(|n| {
            let (other, stop) = (dev.again(), stop.clone());
            thread::spawn(move || -> Try<u32> {
                let other = other?;
                let at = DATA + n * 0x10_0000;
                let mut rounds = 0;
                while !stop.load(Ordering::Relaxed) {
                    other.tell(&Message::invalidate(at, 0x10_0000))?;
                    other.tell(&Message::update(at, 0x10_0000, other.mem.addr() + at))?;
                    while other.ask()?.is_some() {}
                    rounds += 1;
                }
                Ok(rounds)
            })
        })
        .collect();
    let begin = Instant::now();
    let mut port = 0;
    while begin.elapsed() < time {
        for _ in 0..8 {
            let header = dev.header(packet::RW, port, NOBODY);
            port += 1;
            dev.put(header.with(|h| h.len = 3000), &[0x42; 3000]);
        }
        dev.kick(TX);
        dev.flush()?;
        while dev.q[TX].avail_idx.wrapping_sub(dev.q[TX].used_idx) > 64 {
            dev.q[TX].take_all();
            while dev.recv().is_some() {}
            if begin.elapsed() > time * 5 {
                break;
            }
        }
        dev.q[TX].take_all();
        while dev.recv().is_some() {}
    }
    stop.store(true, Ordering::Relaxed);
    let mut rounds = 0;
    for thread in threads {
        rounds += thread.join().map_err(|_| "a thread panicked")??;
    }
    note(format!("{rounds} mappings taken back, {port} packets"));
    dev.map_all()?;
    dev.kick(TX);
    dev.recv_all()?;
    if dev.errors(TX) + dev.errors(RX) > 0 {
        return Ok("a ring is broken".to_owned());
    }
    repair(&mut dev)
}
