// SPDX-License-Identifier: GPL-2.0

//! Threads that change what the device reads, while it does.

use crate::{
    device::{Device, DATA, RX, TABLE, TX},
    rng::Rng,
    sys::memory::Mapping,
};
use std::{
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        Arc,
    },
    thread,
};

/// Some threads; dropping it ends them.
pub struct Mutators {
    stop: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
    threads: Vec<thread::JoinHandle<()>>,
}

/// The parts of a device that are written to.
#[derive(Clone, Copy)]
struct Places {
    desc: [usize; 2],
    avail: [usize; 2],
    num: u64,
}

fn write(mem: &Mapping, places: Places, rng: &mut Rng) {
    let value = rng.word();
    let q = (value & 1) as usize;
    match rng.below(64) {
        // Fields of descriptors.
        0..24 => {
            let field = rng.pick(&[0, 2, 4, 6, 8, 10, 12, 14]);
            let small = (value >> 8) & 0xff;
            let word = if rng.one_in(4) { value >> 16 } else { small };
            let at = places.desc[q] + 16 * rng.below(places.num) as usize + field;
            mem.store16(at, word as u16);
        }
        // Headers of packets, and the entries of tables.
        24..56 => {
            let slot = DATA + rng.below(256) * 0x2000 + rng.below(22) * 2;
            let entry = TABLE + rng.below(64) * 2;
            let at = if rng.one_in(4) { entry } else { slot };
            mem.store16(at as usize, (value >> 8) as u16);
        }
        // Entries of the available ring.
        56..63 => {
            let at = places.avail[q] + 4 + 2 * rng.below(places.num) as usize;
            mem.store16(at, (value >> 8) as u16 % (2 * places.num as u16));
        }
        // Its flags and, by a little, its index.
        _ => {
            if rng.one_in(8) {
                let at = places.avail[q] + 2;
                mem.store16(at, mem.load16(at).wrapping_add((value >> 8) as u16 & 3));
            } else {
                mem.store16(places.avail[q], (value >> 8) as u16);
            }
        }
    }
}

impl Mutators {
    /// Starts `count` threads.
    pub fn start(dev: &Device, count: usize, rng: &mut Rng) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let writes = Arc::new(AtomicU64::new(0));
        let places = Places {
            desc: [dev.q[RX].desc, dev.q[TX].desc],
            avail: [dev.q[RX].avail, dev.q[TX].avail],
            num: u64::from(dev.setup.num),
        };
        let threads = (0..count)
            .map(|_| {
                let (mem, stop, writes) = (dev.mem.clone(), stop.clone(), writes.clone());
                let mut rng = Rng::new(rng.word(), "mutator");
                thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        for _ in 0..64 {
                            write(&mem, places, &mut rng);
                        }
                        writes.fetch_add(64, Ordering::Relaxed);
                        // The device is to get something done as well.
                        thread::yield_now();
                    }
                })
            })
            .collect();
        Self {
            stop,
            writes,
            threads,
        }
    }

    /// How much was written so far.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }
}

impl Drop for Mutators {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It does not panic.
            let _ = thread.join();
        }
    }
}
