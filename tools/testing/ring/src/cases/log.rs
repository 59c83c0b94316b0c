// SPDX-License-Identifier: GPL-2.0

//! The dirty log: every page that the device writes is in it.

use super::{case, rx, Case};
use crate::{
    abi::{self, feature},
    device::{Device, Setup, LARGE, MEMORY, RX, TABLE, TX},
    host::verdict,
    note,
    observe::NOBODY,
    packet,
    ring::{chained, table, Desc, INDIRECT, WRITE},
    sys::memory::Mapping,
    Try,
};
use std::sync::Arc;

const PAGE: usize = 4096;
const KERNEL: u64 = 0xffff_8880_0000_0000;
/// Log what is written to the used ring.
const LOG_RING: u32 = 1;

pub const CASES: &[Case] = &[
    case("LOG-01/log-in-the-kernel", "ok, start: EFAULT", |_| {
        let setup = Setup {
            running: false,
            ..setup()
        };
        let (dev, _bitmap) = logged(setup)?;
        dev.run(false)?;
        let base = verdict(set_base(&dev, KERNEL));
        Ok(format!("{base}, start: {}", verdict(dev.run(true))))
    }),
    case("LOG-02/used-ring-at-the-last-address", "EINVAL", |_| {
        let (dev, _bitmap) = logged(setup())?;
        let mut addr = dev.ring_addr(RX);
        addr.log = u64::MAX - 3;
        Ok(verdict(dev.io(abi::SET_VRING_ADDR, &mut addr.bytes())))
    }),
    case(
        "LOG-03/chains-with-nothing-and-with-1024-segments",
        "all logged, 100 bytes intact",
        |_| long_chains(),
    ),
    case(
        "LOG-04/log-that-cannot-be-written",
        "100 bytes intact",
        |_| {
            let (mut dev, bitmap) = logged(setup())?;
            bitmap.protect(0, bitmap.len(), libc::PROT_NONE)?;
            let peer = crate::host::connect_stream(&mut dev)?;
            peer.socket.send(&rx::pattern(100))?;
            let packet = dev.expect(packet::RW)?;
            bitmap.protect(0, bitmap.len(), libc::PROT_READ | libc::PROT_WRITE)?;
            Ok(rx::intact(&packet.payload, 100))
        },
    ),
    case("LOG-05/every-page-that-is-written", "all logged", |_| {
        every_page(feature::USUAL | feature::LOG_ALL)
    }),
    case(
        "LOG-05/every-page-without-event-index",
        "all logged",
        |_| every_page(feature::VERSION_1 | feature::LOG_ALL),
    ),
    case(
        "LOG-06/nothing-is-logged-that-is-not-written",
        "nothing",
        |_| {
            let (dev, bitmap) = logged(setup())?;
            dev.settle()?;
            clear(&bitmap);
            // Neither is there anything to be done.
            dev.kick(TX);
            dev.settle()?;
            let others: Vec<_> = pages(&bitmap)
                .into_iter()
                .filter(|page| !is_ring(&dev, *page))
                .collect();
            Ok(if others.is_empty() {
                "nothing".to_owned()
            } else {
                format!("pages {others:x?}")
            })
        },
    ),
];

fn setup() -> Setup {
    Setup {
        features: feature::USUAL | feature::LOG_ALL,
        ring_flags: LOG_RING,
        running: false,
        buffers: 0,
        ..Setup::default()
    }
}

fn set_base(dev: &Device, base: u64) -> std::io::Result<()> {
    dev.io(abi::SET_LOG_BASE, &mut abi::arg(&[&base.to_ne_bytes()]))?;
    Ok(())
}

/// A device whose writes are logged, with the bitmap for that; it runs if it is to have buffers.
fn logged(setup: Setup) -> Try<(Device, Arc<Mapping>)> {
    let bitmap = Arc::new(Mapping::shared(MEMORY / PAGE / 8 + PAGE)?);
    let features = setup.features;
    let stopped = Setup {
        running: false,
        buffers: 0,
        // The log has to be there before it is asked for.
        features: features & !feature::LOG_ALL,
        ..setup
    };
    let mut dev = stopped.open()?;
    set_base(&dev, bitmap.addr())?;
    dev.set_features(features)?;
    dev.run(true)?;
    for n in 0..32 {
        dev.post(n, 4096);
    }
    dev.kick(RX);
    dev.settle()?;
    Ok((dev, bitmap))
}

fn clear(bitmap: &Mapping) {
    bitmap.fill(0, bitmap.len(), 0);
}

/// The pages whose bits are set.
fn pages(bitmap: &Mapping) -> Vec<usize> {
    let bytes = bitmap.read(0, bitmap.len());
    (0..bytes.len() * 8)
        .filter(|page| (bytes[page / 8] >> (page % 8)) & 1 != 0)
        .collect()
}

fn is_ring(dev: &Device, page: usize) -> bool {
    [RX, TX].iter().any(|q| {
        let used = dev.q[*q].used;
        (used / PAGE..=(used + 4 + 8 * usize::from(dev.q[*q].num) + 2) / PAGE).contains(&page)
    })
}

/// Pages that differ between two copies of the memory, and are not in the log.
fn missed(before: &[u8], after: &[u8], bitmap: &Mapping) -> (usize, Vec<usize>) {
    let changed: Vec<_> = before
        .chunks(PAGE)
        .zip(after.chunks(PAGE))
        .enumerate()
        .filter(|(_, (a, b))| a != b)
        .map(|(page, _)| page)
        .collect();
    let logged = pages(bitmap);
    let count = changed.len();
    let missed = changed
        .into_iter()
        .filter(|p| !logged.contains(p))
        .collect();
    (count, missed)
}

fn verdict_of(count: usize, missed: &[usize]) -> String {
    match (count, missed) {
        (0, _) => "nothing was written".to_owned(),
        (_, []) => "all logged".to_owned(),
        (_, missed) => {
            note(format!(
                "{} of {count} pages not logged: {missed:x?}",
                missed.len()
            ));
            "some are not logged".to_owned()
        }
    }
}

/// Traffic both ways; the whole memory is compared with the log.
fn every_page(features: u64) -> Try<String> {
    let (mut dev, bitmap) = logged(Setup {
        features,
        ..setup()
    })?;
    let peer = crate::host::connect_stream(&mut dev)?;
    let (mut written, mut all_missed) = (0, Vec::new());
    for round in 0..6 {
        for n in 0..4 {
            let header = dev.header(packet::REQUEST, 100 + round * 4 + n, NOBODY);
            dev.put(header, &[]);
        }
        clear(&bitmap);
        let before = dev.mem.read(0, MEMORY);
        dev.kick(TX);
        peer.socket.send(&rx::pattern(9000))?;
        dev.settle()?;
        let after = dev.mem.read(0, MEMORY);
        let (count, missed) = missed(&before, &after, &bitmap);
        written += count;
        all_missed.extend(missed);
        dev.recv_all()?;
        dev.q[TX].take_all();
    }
    Ok(verdict_of(written, &all_missed))
}

fn long_chains() -> Try<String> {
    let (mut dev, bitmap) = logged(Setup {
        num: 1024,
        ..setup()
    })?;
    let peer = crate::host::connect_stream(&mut dev)?;
    while dev.q[RX].used_idx != dev.q[RX].avail_idx {
        peer.socket.send(b"y")?;
        dev.settle()?;
        dev.take().ok_or("no packet came")?;
    }
    // One without any bytes, then one of as many pieces as there can be.
    dev.post_desc(40, Desc::new(LARGE, 0).flags(WRITE));
    let pieces: Vec<_> = (0..1024)
        .map(|n| Desc::new(LARGE + n * 40, 1).flags(WRITE))
        .collect();
    dev.mem.write(TABLE as usize, &table(&chained(&pieces)));
    dev.post_desc(41, Desc::new(TABLE, 1024 * 16).flags(INDIRECT));
    // The device may look at them now, and say how far it has seen.
    dev.kick(RX);
    dev.settle()?;
    clear(&bitmap);
    let before = dev.mem.read(0, MEMORY);
    peer.socket.send(&rx::pattern(100))?;
    dev.settle()?;
    let after = dev.mem.read(0, MEMORY);
    let used = dev.q[RX].take_all();
    let (count, missed) = missed(&before, &after, &bitmap);
    let bytes: Vec<u8> = (44..144).map(|n| after[LARGE as usize + n * 40]).collect();
    let intact = match used.last() {
        Some(last) if last.len == 144 => rx::intact(&bytes, 100),
        _ => format!("used {used:?}"),
    };
    Ok(format!("{}, {intact}", verdict_of(count, &missed)))
}
