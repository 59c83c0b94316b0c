// SPDX-License-Identifier: GPL-2.0

//! Ways around a rate: what a guest could do to send more than it may. See [`super::limits`].

use crate::{
    attr::{Rate, RATE_FROM_GUEST},
    device::{self, Device, Setup, DATA, TX},
    observe::NOBODY,
    packet::{self, HEADER_LEN},
    ring::{chained, Desc},
    Try,
};
use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// Whether no more went in `time` than a rate allows, and what may come at once.
fn is_held(packets: u64, bytes: u64, time: Duration, rate: &Rate) -> bool {
    let at_once = f64::from(rate.burst.max(1000)) / 1e6;
    let within = |went: u64, rate: u64, one: u64| {
        rate == 0 || (went as f64) <= rate as f64 * (time.as_secs_f64() + at_once) + one as f64
    };
    let one = bytes.checked_div(packets).unwrap_or(0) + 1;
    within(packets, rate.packets, 1) && within(bytes, rate.bytes, one)
}

/// What the device took from the guest, be it a packet or not.
fn taken(dev: &Device) -> Try<u64> {
    let number = |key: &str| -> Try<u64> {
        let line = dev.info(key).join(" ");
        let word = line.split(' ').next().unwrap_or_default();
        Ok(word.parse().map_err(|_| format!("{key}: {line}"))?)
    };
    Ok(number("from-guest")? + number("refused")?)
}

/// A way around: what is done again and again, and how large its packets are.
struct Way {
    name: &'static str,
    rate: Rate,
    size: usize,
    round: fn(&mut Device, u32) -> Try<()>,
}

const BYTES: Rate = Rate {
    bytes: 8800,
    packets: 0,
    burst: 10_000,
};
const PACKETS: Rate = Rate {
    bytes: 0,
    packets: 200,
    burst: 10_000,
};

fn room(dev: &Device) -> u16 {
    let queue = &dev.q[TX];
    (queue.num / 2).saturating_sub(queue.avail_idx.wrapping_sub(queue.used_idx))
}

/// Offers as many packets as the ring has room for.
fn put(dev: &mut Device, change: impl Fn(&mut packet::Header)) -> Try<()> {
    for _ in 0..room(dev) {
        let header = dev.header(packet::RST, 5000, NOBODY).with(&change);
        dev.put(header, &vec![7; header.len as usize]);
    }
    dev.kick(TX);
    Ok(())
}

/// The ring is set up again, with nothing in it.
fn anew(dev: &mut Device) -> Try<()> {
    dev.run(false)?;
    let base = dev.base(TX)?;
    dev.q[TX].set_avail_idx(base);
    dev.q[TX].used_idx = dev.q[TX].device_used_idx();
    dev.configure(TX)?;
    dev.run(true)?;
    Ok(())
}

const WAYS: &[Way] = &[
    Way {
        name: "no bytes",
        rate: BYTES,
        size: HEADER_LEN,
        round: |dev, _| put(dev, |_| ()),
    },
    Way {
        name: "SEQPACKET",
        rate: PACKETS,
        size: 0,
        round: |dev, _| put(dev, |h| h.ty = packet::SEQPACKET),
    },
    Way {
        name: "other types",
        rate: PACKETS,
        size: 0,
        round: |dev, _| {
            put(dev, |h| {
                h.ty = 9;
                h.op = 77;
            })
        },
    },
    Way {
        name: "other CIDs",
        rate: PACKETS,
        size: 0,
        round: |dev, _| put(dev, |h| h.src_cid += 1),
    },
    Way {
        name: "no packets",
        rate: BYTES,
        size: HEADER_LEN,
        round: |dev, n| {
            for _ in 0..room(dev) {
                let index = n as u16 % 64;
                dev.q[TX].set(index, Desc::new(DATA, 10));
                dev.q[TX].offer(index);
            }
            dev.kick(TX);
            Ok(())
        },
    },
    Way {
        name: "kicks",
        rate: PACKETS,
        size: 0,
        round: |dev, _| {
            put(dev, |_| ())?;
            for _ in 0..100 {
                dev.kick(TX);
            }
            Ok(())
        },
    },
    Way {
        name: "credit requests",
        rate: PACKETS,
        size: 0,
        round: |dev, _| {
            put(dev, |h| h.op = packet::CREDIT_REQUEST)?;
            while dev.recv().is_some() {}
            Ok(())
        },
    },
    Way {
        name: "many ports",
        rate: PACKETS,
        size: 0,
        round: |dev, n| put(dev, |h| h.src_port += n),
    },
    Way {
        name: "stop and start",
        rate: PACKETS,
        size: 0,
        round: |dev, _| {
            put(dev, |_| ())?;
            dev.restart()
        },
    },
    Way {
        name: "new CIDs",
        rate: PACKETS,
        size: 0,
        round: |dev, _| {
            dev.cid = device::fresh_cid();
            dev.set_cid(dev.cid)?;
            put(dev, |_| ())
        },
    },
    Way {
        name: "set again",
        rate: PACKETS,
        size: 0,
        round: |dev, _| {
            put(dev, |_| ())?;
            PACKETS.set(dev.file(), RATE_FROM_GUEST)?;
            Ok(())
        },
    },
    Way {
        name: "less at once",
        rate: PACKETS,
        size: 0,
        round: |dev, n| {
            put(dev, |_| ())?;
            let less = Rate {
                burst: PACKETS.burst - n.min(9_000),
                ..PACKETS
            };
            less.set(dev.file(), RATE_FROM_GUEST)?;
            Ok(())
        },
    },
    Way {
        name: "chains",
        rate: BYTES,
        size: HEADER_LEN,
        round: |dev, _| {
            let bytes = dev.header(packet::RST, 5000, NOBODY).bytes();
            dev.mem.write(DATA as usize, &bytes);
            let parts: Vec<_> = (0..11).map(|n| Desc::new(DATA + 4 * n, 4)).collect();
            dev.q[TX].set_all(&chained(&parts));
            for _ in 0..room(dev) {
                dev.q[TX].offer(0);
            }
            dev.kick(TX);
            Ok(())
        },
    },
    Way {
        name: "rings anew",
        rate: PACKETS,
        size: 0,
        round: |dev, _| {
            put(dev, |_| ())?;
            anew(dev)
        },
    },
    Way {
        name: "large ones",
        rate: Rate {
            bytes: 1_000_000,
            ..BYTES
        },
        size: HEADER_LEN + packet::MAX_PAYLOAD,
        round: |dev, _| put(dev, |h| h.len = packet::MAX_PAYLOAD as u32),
    },
];

pub(super) fn ways_around() -> Try<String> {
    let mut said = Vec::new();
    let mut all = "all held".to_owned();
    for way in WAYS {
        let mut dev = Setup::default().open()?;
        way.rate.set(dev.file(), RATE_FROM_GUEST)?;
        let (begin, before) = (Instant::now(), taken(&dev)?);
        let mut n = 0;
        while begin.elapsed() < Duration::from_millis(300) {
            n += 1;
            (way.round)(&mut dev, n)?;
            sleep(Duration::from_millis(1));
            dev.q[TX].take_all();
        }
        let packets = taken(&dev)? - before;
        let bytes = packets * way.size as u64;
        if packets == 0 || !is_held(packets, bytes, begin.elapsed(), &way.rate) {
            all = format!("{} is one: {packets} packets", way.name);
        }
        said.push(way.name);
    }
    Ok(format!("{}: {all}", said.join(", ")))
}
