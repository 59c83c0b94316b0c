// SPDX-License-Identifier: GPL-2.0

//! Rows of the host rig that other rigs do not have.

use crate::{
    guest::LISTENER,
    kinds::{C, RING},
    machine::Machine,
    machine::PORT,
};
use measure::{
    app::{blocking, End, Rows},
    service::Service,
    Bench, Counters,
};
use ring::{
    device::{Device, Setup},
    rng::Rng,
    slab,
    sys::{self, memory::Mapping, process, socket},
    Try,
};
use std::{
    os::fd::AsFd,
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
    thread,
    time::Instant,
};

/// The counters of a row without a guest.
fn nothing() -> Try<Counters> {
    Ok(Counters::default())
}

/// More descriptors than any row needs.
fn raise_limit() -> Try<()> {
    Ok(process::set_limit(libc::RLIMIT_NOFILE, 64 << 10)?)
}

/// A message into one of many connections of one listener, which the guest sends when the
/// application read the one before.
pub fn listeners(bench: &Bench) -> Try<()> {
    const OPS: u64 = 1000;
    const COUNTS: [u64; 3] = [1, 1000, 10_000];
    let name = |count| format!("message_of_{count}");
    if !COUNTS.iter().any(|count| bench.wants(&name(*count))) {
        return Ok(());
    }
    raise_limit()?;
    let listener = blocking(libc::SOCK_STREAM)?;
    socket::bind(listener.as_fd(), socket::CID_ANY, LISTENER)?;
    socket::listen(listener.as_fd(), 4096)?;
    let machine = Machine::start(C, RING)?;
    let mut fds = Vec::new();
    for count in COUNTS {
        if !bench.wants(&name(count)) {
            continue;
        }
        while (fds.len() as u64) < count {
            let next = (fds.len() as u64 + 16).min(count);
            machine.shared.dial.store(next, Ordering::Release);
            machine.wake();
            while (fds.len() as u64) < next {
                let fd = socket::accept(listener.as_fd())?;
                sys::set_nonblocking(&fd, false)?;
                fds.push(fd);
            }
        }
        let mut random = Rng::new(1, "listeners");
        let mut messages = |ops| {
            (0..ops).try_for_each(|_| -> Try<()> {
                // Connections are accepted in the order in which they were made.
                let number = random.below(count);
                machine.shared.message.store(number + 1, Ordering::Release);
                machine.wake();
                let mut bytes = [0; 64];
                match socket::recv(fds[number as usize].as_fd(), &mut bytes, 0)? {
                    64 => Ok(()),
                    n => Err(format!("{n} bytes of 64").into()),
                }
            })
        };
        messages(200)?;
        let counters = || Ok(machine.counters());
        bench.row(&name(count), OPS, counters, || messages(OPS))?;
    }
    Ok(())
}

/// Opens a device and starts it, with memory that many of them share.
fn open(mem: &Arc<Mapping>, cid: u64) -> Try<Device> {
    let setup = Setup {
        buffers: 0,
        cid: Some(cid),
        ..Setup::default()
    };
    setup.open_in(mem.clone())
}

/// The first CID of devices that do nothing.
const IDLE_CID: u64 = 100_000;

/// A round trip beside other devices, and what these cost to open and to close.
pub fn devices(bench: &Bench) -> Try<()> {
    const COUNTS: [usize; 3] = [1, 100, 1000];
    raise_limit()?;
    let mem = Arc::new(Mapping::whole(ring::device::MEMORY)?);
    let mut idle = Vec::new();
    for count in COUNTS {
        let name = format!("rr_beside_{count}_devices");
        if !bench.wants(&name) {
            continue;
        }
        while idle.len() < count {
            idle.push(open(&mem, IDLE_CID + idle.len() as u64)?);
        }
        let machine = Machine::start(C, RING)?;
        Rows {
            bench,
            cid: machine.cid(),
            port: PORT,
            count: || Ok(machine.counters()),
        }
        .round_trip_called(&name, libc::SOCK_STREAM, 64);
    }
    idle.clear();
    if !bench.wants("device_open") && !bench.wants("device_close") {
        return Ok(());
    }
    const OPS: usize = 50;
    let batch = |first: u64| -> Try<Vec<Device>> {
        (0..OPS as u64).map(|n| open(&mem, first + n)).collect()
    };
    drop(batch(IDLE_CID)?);
    let mut devices = Vec::new();
    bench.row("device_open", OPS as u64, nothing, || {
        devices = batch(IDLE_CID + 1000)?;
        Ok(())
    })?;
    bench.row("device_close", OPS as u64, nothing, || {
        devices.clear();
        Ok(())
    })
}

/// The 99th percentile of a round trip while others send as much as they can.
pub fn latency(bench: &Bench) -> Try<()> {
    const NAME: &str = "rr_p99_beside_8_streams";
    const SAMPLES: usize = 1000;
    if !bench.wants(NAME) {
        return Ok(());
    }
    let machine = Machine::start(C, RING)?;
    let (cid, kind) = (machine.cid(), libc::SOCK_STREAM);
    let stop = Arc::new(AtomicBool::new(false));
    let total = 1 << 20;
    let streams: Vec<_> = (0..8)
        .map(|_| {
            let stop = stop.clone();
            thread::spawn(move || -> Try<()> {
                let mut end = End::ask(kind, cid, PORT, Service::Sink { total })?;
                while !stop.load(Ordering::Relaxed) {
                    (0..total >> 16).try_for_each(|_| end.send(1 << 16))?;
                    end.receive(1)?;
                }
                Ok(())
            })
        })
        .collect();
    let mut end = End::ask(kind, cid, PORT, Service::Echo { size: 64 })?;
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        let begin = Instant::now();
        end.send(64)?;
        end.receive(64)?;
        samples.push(begin.elapsed().as_nanos());
    }
    stop.store(true, Ordering::Relaxed);
    for stream in streams {
        stream.join().map_err(|_| "a stream panicked")??;
    }
    samples.sort_unstable();
    let p99 = samples[SAMPLES * 99 / 100] as f64;
    bench.figure(NAME, "instructions", p99);
    Ok(())
}

/// Bytes of kernel memory of what does nothing.
pub fn memory(bench: &Bench) -> Try<()> {
    let names = [
        "memory_device",
        "memory_connection",
        "memory_packet",
        "memory_packet_of_64",
    ];
    if !names.iter().any(|name| bench.wants(name)) {
        return Ok(());
    }
    raise_limit()?;
    // The first ones have slabs and tables made that stay.
    let bytes = |before: &slab::Reading, after: &slab::Reading, count: usize| {
        (after.slab - before.slab) as f64 * 1024.0 / count as f64
    };
    const DEVICES: usize = 500;
    let mem = Arc::new(Mapping::whole(ring::device::MEMORY)?);
    let many = |first: u64, count: usize| -> Try<Vec<Device>> {
        (0..count as u64).map(|n| open(&mem, first + n)).collect()
    };
    drop(many(IDLE_CID, 20)?);
    let before = slab::read()?;
    let devices = many(IDLE_CID + 1000, DEVICES)?;
    let after = slab::read()?;
    bench.figure("memory_device", "bytes", bytes(&before, &after, DEVICES));
    drop(devices);

    const CONNECTIONS: usize = 2000;
    let machine = Machine::start(C, RING)?;
    let connect = |connections: usize, count: u32| -> Try<Vec<End>> {
        let service = Service::Source { size: 64, count };
        (0..connections)
            .map(|_| End::ask(libc::SOCK_STREAM, machine.cid(), PORT, service).map(End::small))
            .collect()
    };
    drop(connect(50, 1)?);
    let before = slab::read()?;
    let mut ends = connect(CONNECTIONS, 1)?;
    let after = slab::read()?;
    bench.figure(
        "memory_connection",
        "bytes",
        bytes(&before, &after, CONNECTIONS),
    );
    for end in &mut ends {
        end.send(1)?;
    }
    let queued = slab::read()?;
    bench.figure(
        "memory_packet",
        "bytes",
        bytes(&after, &queued, CONNECTIONS),
    );
    drop(ends);

    // What a connection that is not read has for each packet of many. Both drivers put several of
    // these packets into a buffer: C about four of them, so that it takes a quarter of what it
    // takes for the one above. The payload alone is 64 bytes, 0.27 of that.
    const QUEUES: usize = 200;
    const PACKETS: usize = 64;
    let mut ends = connect(QUEUES, PACKETS as u32)?;
    let before = slab::read()?;
    for end in &mut ends {
        end.send(1)?;
    }
    // The guest sends in a thread of its own.
    std::thread::sleep(std::time::Duration::from_millis(500));
    let after = slab::read()?;
    bench.figure(
        "memory_packet_of_64",
        "bytes",
        bytes(&before, &after, QUEUES * PACKETS),
    );
    Ok(())
}
