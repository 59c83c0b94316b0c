// SPDX-License-Identifier: GPL-2.0

//! Memory that moves under a device that runs.
//!
//! The owner does with its memory what it likes, between two messages or beside them. What the
//! guest wrote last is what the host gets, and what the host sent is where the guest looks.

use super::{case, skip, Case, Ctx};
use crate::{
    device::{Device, Setup, BUFFERS, DATA, MEMORY, TX},
    host::{connect_stream, Peer},
    packet,
    rng::Rng,
    sys::{self, fault::Faults, memory::Mapping},
    Try,
};
use std::{
    fs, io,
    path::Path,
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
    thread,
    time::Duration,
};

const INTACT: &str = "intact, both ways";

/// Where nothing is kept between two messages: packets of the guest, and buffers for the host.
const LOOSE: [(usize, usize); 2] = [
    (DATA as usize, 0x20_0000),
    (BUFFERS as usize, MEMORY - BUFFERS as usize),
];

/// Largest message; a buffer of the guest has less room.
const LARGEST: u64 = 6000;

const KSM: &str = "/sys/kernel/mm/ksm/run";
const COMPACT: &str = "/proc/sys/vm/compact_memory";

pub const CASES: &[Case] = &[
    case("N40/dropped-private", INTACT, |ctx| {
        between(ctx, Mapping::private(MEMORY)?, |mem| {
            loose(|at, len| mem.advise(at, len, libc::MADV_DONTNEED))
        })
    })
    .seconds(900),
    case("N40/dropped-shared", INTACT, |ctx| {
        between(ctx, Mapping::shared(MEMORY)?, |mem| {
            mem.advise(0, MEMORY, libc::MADV_DONTNEED)
        })
    })
    .seconds(900),
    case("N40/hole-in-the-file", INTACT, |ctx| {
        let file = sys::memfd()?;
        file.set_len(MEMORY as u64)?;
        between(ctx, Mapping::of_file(&file, MEMORY)?, |mem| {
            loose(|at, len| mem.advise(at, len, libc::MADV_REMOVE))
        })
    })
    .seconds(900),
    case("N40/mapped-anew", INTACT, |ctx| {
        between(ctx, Mapping::private(MEMORY)?, |mem| {
            loose(|at, len| mem.map_anew(at, len))
        })
    })
    .seconds(900),
    case("N40/moved-away-and-back", INTACT, |ctx| {
        between(ctx, Mapping::private(MEMORY)?, |mem| {
            mem.move_away_and_back(0, MEMORY)
        })
    })
    .seconds(900),
    case("N40/read-only-for-a-moment", INTACT, |ctx| {
        between(ctx, Mapping::private(MEMORY)?, |mem| {
            mem.protect(0, MEMORY, libc::PROT_READ)?;
            mem.protect(0, MEMORY, libc::PROT_READ | libc::PROT_WRITE)
        })
    })
    .seconds(900),
    case("N40/write-protected-for-a-moment", INTACT, |ctx| {
        let mem = Mapping::private(MEMORY)?;
        let Ok(faults) = Faults::of_writes(&mem) else {
            return skip("this kernel has no userfaultfd for writes");
        };
        between(ctx, mem, |mem| {
            faults.protect(mem, true)?;
            faults.protect(mem, false)
        })
    })
    .seconds(900),
    case("N40/shared-with-a-child", INTACT, |ctx| {
        let mut children = Vec::new();
        let outcome = between(ctx, Mapping::private(MEMORY)?, |_| {
            // It has the pages as they are now, and so each is copied when it is written.
            children.push(sleeping_child()?);
            if children.len() > 2 {
                end(children.remove(0))?;
            }
            Ok(())
        });
        for child in children {
            end(child)?;
        }
        outcome
    })
    .seconds(900),
    case("N41/dropped-shared-beside", INTACT, |ctx| {
        beside(ctx, Mapping::shared(MEMORY)?, |mem| {
            mem.advise(0, MEMORY, libc::MADV_DONTNEED)
        })
    })
    .parallel()
    .seconds(900),
    case("N41/paged-out-beside", INTACT, |ctx| {
        beside(ctx, Mapping::private(MEMORY)?, |mem| {
            mem.advise(0, MEMORY, libc::MADV_PAGEOUT)
        })
    })
    .parallel()
    .seconds(900),
    case("N41/compacted-beside", INTACT, |ctx| {
        if !Path::new(COMPACT).exists() {
            return skip("this kernel does not compact memory");
        }
        beside(ctx, Mapping::private(MEMORY)?, |_| fs::write(COMPACT, "1"))
    })
    .parallel()
    .seconds(900),
    case("N41/merged-beside", INTACT, |ctx| {
        if !Path::new(KSM).exists() {
            return skip("this kernel does not merge pages");
        }
        let mem = Mapping::private(MEMORY)?;
        mem.advise(0, MEMORY, libc::MADV_MERGEABLE)?;
        fs::write("/sys/kernel/mm/ksm/sleep_millisecs", "1")?;
        fs::write("/sys/kernel/mm/ksm/pages_to_scan", "4096")?;
        fs::write(KSM, "1")?;
        let outcome = beside(ctx, mem, |_| Ok(()));
        // What was merged is not any more.
        fs::write(KSM, "2")?;
        outcome
    })
    .parallel()
    .seconds(900),
    case("N41/huge-pages-beside", INTACT, |ctx| {
        if !Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
            return skip("this kernel has no transparent huge pages");
        }
        beside(ctx, Mapping::private(2 * MEMORY)?, |mem| {
            mem.advise(0, 2 * MEMORY, libc::MADV_HUGEPAGE)?;
            // Memory may be short, or too scattered.
            let _ = mem.advise(0, 2 * MEMORY, MADV_COLLAPSE);
            mem.advise(0, 2 * MEMORY, libc::MADV_NOHUGEPAGE)?;
            // Part of a huge page goes, and so does the huge page.
            mem.advise(2 * MEMORY - 0x1000, 0x1000, libc::MADV_DONTNEED)
        })
    })
    .parallel()
    .seconds(900),
    case("N41/children-beside", INTACT, |ctx| {
        beside(ctx, Mapping::private(MEMORY)?, |_| end(sleeping_child()?))
    })
    .parallel()
    .seconds(900),
];

/// Of Linux 6.1.
const MADV_COLLAPSE: i32 = 25;

fn loose(f: impl Fn(usize, usize) -> io::Result<()>) -> io::Result<()> {
    LOOSE.iter().try_for_each(|(at, len)| f(*at, *len))
}

/// A process with a copy of all memory, until it is killed.
fn sleeping_child() -> io::Result<sys::process::Child> {
    sys::process::fork(|| loop {
        thread::sleep(Duration::from_secs(1000));
    })
}

fn end(mut child: sys::process::Child) -> io::Result<()> {
    child.kill(libc::SIGKILL);
    child.wait(Duration::from_secs(20)).map(|_| ())
}

/// A connection, and what went over it.
struct Traffic {
    dev: Device,
    peer: Peer,
    /// Bytes that the guest got.
    got: u32,
}

impl Traffic {
    fn new(mem: Mapping) -> Try<Self> {
        let mut dev = Setup::default().open_in(Arc::new(mem))?;
        let peer = connect_stream(&mut dev)?;
        Ok(Self { dev, peer, got: 0 })
    }

    /// A message of the guest and one of the host, each compared with what arrives.
    fn exchange(&mut self, rng: &mut Rng) -> Try<()> {
        let dev = &mut self.dev;
        let bytes = random(rng);
        let header = self.peer.header(dev, packet::RW).with(|h| {
            h.buf_alloc = crate::host::GUEST_BUFFER;
            h.fwd_cnt = self.got;
        });
        dev.send_rw(header, &bytes)?;
        dev.q[TX].take_all();
        let there = self.peer.socket.drain().0;
        if there != bytes {
            return Err(difference("the host", &bytes, &there).into());
        }

        let bytes = random(rng);
        if self.peer.socket.send(&bytes)? != bytes.len() {
            return Err("send() did not take all of it".into());
        }
        let mut there = Vec::new();
        for packet in dev.recv_all()? {
            if packet.header.op == packet::RW {
                there.extend(packet.payload);
            }
        }
        if there != bytes {
            return Err(difference("the guest", &bytes, &there).into());
        }
        self.got = self.got.wrapping_add(bytes.len() as u32);
        Ok(())
    }
}

fn random(rng: &mut Rng) -> Vec<u8> {
    let len = 1 + rng.word() % LARGEST;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < len {
        bytes.extend(rng.word().to_le_bytes());
    }
    bytes.truncate(len as usize);
    bytes
}

fn difference(who: &str, sent: &[u8], there: &[u8]) -> String {
    let (sent_len, len) = (sent.len(), there.len());
    let at = sent.iter().zip(there).position(|(a, b)| a != b);
    match at {
        Some(at) => format!("{who} got {len} of {sent_len} bytes, and byte {at} is another one"),
        None => format!("{who} got {len} of {sent_len} bytes"),
    }
}

/// Does `f` with the memory before each message, while the device runs.
fn between(
    ctx: &mut Ctx,
    mem: Mapping,
    mut f: impl FnMut(&Mapping) -> io::Result<()>,
) -> Try<String> {
    let mut traffic = Traffic::new(mem)?;
    for _ in 0..ctx.rounds(40, 20_000) {
        f(&traffic.dev.mem)?;
        // The first ones find what was there before.
        for _ in 0..3 {
            traffic.exchange(&mut ctx.rng)?;
        }
    }
    Ok(INTACT.to_owned())
}

/// Does `f` with the memory again and again, while messages go both ways. It leaves the content of
/// the memory as it is.
fn beside(
    ctx: &mut Ctx,
    mem: Mapping,
    mut f: impl FnMut(&Mapping) -> io::Result<()> + Send + 'static,
) -> Try<String> {
    let mut traffic = Traffic::new(mem)?;
    let stop = Arc::new(AtomicBool::new(false));
    let mover = {
        let (mem, stop) = (traffic.dev.mem.clone(), stop.clone());
        thread::spawn(move || -> io::Result<u32> {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                f(&mem)?;
                rounds += 1;
                thread::sleep(Duration::from_micros(200));
            }
            Ok(rounds)
        })
    };
    let mut done = Ok(());
    for _ in 0..ctx.rounds(150, 60_000) {
        done = traffic.exchange(&mut ctx.rng);
        if done.is_err() {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let rounds = mover.join().map_err(|_| "a thread panicked")??;
    done?;
    if rounds == 0 {
        return Err("nothing moved".into());
    }
    Ok(INTACT.to_owned())
}
