// SPDX-License-Identifier: GPL-2.0

//! Random bytes in rings, while programs of the host connect and send.

use crate::{
    device::{Device, Setup, DATA, RX, TX},
    host::Socket,
    packet::Header,
    ring::{table, Desc},
    rng::Rng,
    Try,
};
use std::{
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
    thread,
    time::Duration,
};

/// Where the programs of the host listen.
const PORT: u32 = 5000;

/// What was done.
#[derive(Debug, Default)]
pub struct Done {
    pub iterations: u32,
    pub broken: u32,
    pub used: u64,
}

fn header(dev: &Device, rng: &mut Rng, len: u32) -> Header {
    let mostly = |rng: &mut Rng, n, usual: u64, other: u64| {
        if rng.one_in(n) {
            other
        } else {
            usual
        }
    };
    let word = rng.word();
    Header {
        src_cid: mostly(rng, 16, dev.cid, word),
        dst_cid: mostly(rng, 16, 2, word >> 3),
        src_port: mostly(rng, 4, word % 8, word >> 5) as u32,
        dst_port: mostly(rng, 4, u64::from(PORT) + word % 4, word >> 7) as u32,
        len: mostly(rng, 8, u64::from(len), word >> 9) as u32,
        ty: mostly(rng, 8, 1 + word % 2, word >> 11) as u16,
        op: mostly(rng, 16, 1 + word % 7, word >> 13) as u16,
        flags: mostly(rng, 4, 0, word >> 15) as u32,
        buf_alloc: (word >> 17) as u32,
        fwd_cnt: mostly(rng, 2, 0, word >> 19) as u32,
    }
}

/// Random words in the rings.
fn bytes(dev: &mut Device, rng: &mut Rng, q: usize) {
    let num = u64::from(dev.setup.num);
    for _ in 0..8 {
        let at = dev.q[q].desc + rng.below(num * 8) as usize * 2;
        dev.mem.store16(at, rng.word() as u16);
    }
    let head = rng.word() as u16;
    if rng.one_in(4) {
        dev.q[q].put(head);
        let idx = rng.word() as u16;
        dev.q[q].set_avail_idx(idx);
    } else {
        dev.q[q].offer(head % (2 * dev.setup.num));
    }
}

/// A chain that might be one.
fn chain(dev: &mut Device, rng: &mut Rng, q: usize) {
    let num = u64::from(dev.setup.num);
    let count = 1 + rng.below(3);
    let head = rng.below(num) as u16;
    let writable = if q == RX { 2 } else { 0 };
    let mut index = head;
    for n in 0..count {
        let len = match rng.below(4) {
            0 => rng.below(64) as u32,
            _ => 44 + rng.below(4096) as u32,
        };
        let at = DATA + rng.below(0x200) * 0x1000;
        let header = header(dev, rng, len.saturating_sub(44));
        dev.mem.write(at as usize, &header.bytes());
        let next = rng.below(num) as u16;
        let mut desc = Desc {
            addr: if rng.one_in(64) { rng.word() } else { at },
            len: if rng.one_in(64) {
                rng.word() as u32
            } else {
                len
            },
            flags: u16::from(n + 1 < count),
            next,
        };
        if !rng.one_in(16) {
            desc.flags |= writable;
        }
        if rng.one_in(32) {
            desc.flags |= rng.word() as u16 & 7;
        }
        if rng.one_in(24) {
            let entries: Vec<_> = (0..1 + rng.below(8))
                .map(|n| Desc {
                    addr: at,
                    len: 44 + rng.below(1000) as u32,
                    flags: 1 | writable,
                    next: n as u16 + 1,
                })
                .collect();
            let place = DATA + 0x1f_0000;
            dev.mem.write(place as usize, &table(&entries));
            desc = Desc::new(place, entries.len() as u32 * 16).flags(4);
        }
        dev.q[q].set(index, desc);
        index = next;
    }
    dev.q[q].offer(head);
}

fn restart(dev: &mut Device, rng: &mut Rng) -> Try<()> {
    dev.run(false)?;
    for q in [RX, TX] {
        let base = if rng.one_in(4) { rng.word() as u16 } else { 0 };
        dev.set_base(q, u32::from(base))?;
        dev.q[q].set_avail_idx(base);
    }
    dev.run(true)?;
    Ok(())
}

/// Programs of the host that connect to the guest, and answer it, until told to stop.
fn programs(cid: u64, seed: u64, stop: Arc<AtomicBool>) -> Try<thread::JoinHandle<()>> {
    let listener = Socket::listener(libc::SOCK_STREAM, PORT, 64)?;
    Ok(thread::spawn(move || {
        let mut rng = Rng::new(seed, "programs");
        let mut sockets = Vec::new();
        let data = [0x5a; 5000];
        while !stop.load(Ordering::Relaxed) {
            if let Ok(socket) = Socket::stream() {
                let _ = socket.connect(cid, rng.below(8) as u32);
                sockets.push(socket);
            }
            sockets.extend(listener.accept());
            for socket in &sockets {
                let _ = socket.send(&data[..rng.below(5000) as usize]);
                let _ = socket.recv(5000);
            }
            if sockets.len() > 8 {
                sockets.remove(rng.below(8) as usize);
            }
            thread::sleep(Duration::from_micros(rng.below(2000)));
        }
    }))
}

/// Does it so often.
pub fn run(rng: &mut Rng, iterations: u32) -> Try<(Device, Done)> {
    let mut dev = Setup::num(64).open()?;
    let stop = Arc::new(AtomicBool::new(false));
    let host = programs(dev.cid, rng.word(), stop.clone())?;
    let mut done = Done::default();
    let all = dev.regions();
    let mut result = Ok(());
    for n in 0..iterations {
        let q = rng.below(2) as usize;
        if (n >> 10) & 1 == 0 {
            bytes(&mut dev, rng, q);
        } else {
            chain(&mut dev, rng, q);
        }
        dev.kick(q);
        done.iterations += 1;
        if rng.one_in(16) {
            dev.flush()?;
        }
        let step = || -> Try<()> {
            if dev.errors(RX) + dev.errors(TX) > 0 {
                done.broken += 1;
                restart(&mut dev, rng)?;
            }
            done.used += dev.calls(RX) + dev.calls(TX);
            if rng.one_in(500) {
                match rng.below(3) {
                    0 => dev.set_memory(&all)?,
                    1 => dev.set_features(dev.setup.features ^ (1 << 29))?,
                    _ => dev.set_features(dev.setup.features)?,
                }
            }
            Ok(())
        };
        let mut step = step;
        result = step();
        if result.is_err() {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    host.join().map_err(|_| "a thread panicked")?;
    result?;
    dev.set_features(dev.setup.features)?;
    Ok((dev, done))
}
