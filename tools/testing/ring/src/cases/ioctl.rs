// SPDX-License-Identifier: GPL-2.0

//! Ioctls: what is refused, and how.

use super::{case, layout, Case, Ctx};
use crate::{
    abi::{self, feature, Region, RingAddr},
    device::{fresh_cid, open_file, Device, Setup, MEMORY, RX, TX},
    host::{self, verdict, Socket},
    packet,
    rng::Rng,
    sys::{self, memory::Mapping, process},
    talk, Try,
};
use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
    thread,
    time::Duration,
};

/// In the upper half of the address space, which is the kernel's.
const KERNEL: u64 = 0xffff_8880_0000_0000;
const UNUSED: u64 = 0x1_0000;

pub const CASES: &[Case] = &[
    case("ABI-01/bad-pointers-without-owner", "as listed", |_| {
        pointers(false)
    }),
    case("ABI-01/bad-pointers-with-owner", "as listed", |_| {
        pointers(true)
    }),
    case(
        "ABI-01/requests-that-vsock-has-not",
        "ENOTTY, ENOBUFS",
        |_| {
            let dev = owned()?;
            let mut found = Vec::new();
            let mut requests = vec![
                abi::RESET_OWNER,
                abi::SCSI_SET_ENDPOINT,
                abi::GET_FEATURES_ARRAY,
                abi::BOGUS,
            ];
            if !layout::has_byte_order(&dev) {
                requests.extend([abi::SET_VRING_ENDIAN, abi::GET_VRING_ENDIAN]);
            }
            for cmd in requests {
                let one = verdict(dev.io(cmd, &mut abi::ring_state(0, 0)));
                let other = verdict(dev.io(cmd, &mut abi::ring_state(7, 0)));
                found.push(format!("{one}, {other}"));
            }
            found.dedup();
            Ok(found.join("; "))
        },
    ),
    case("ABI-01/workers-without-owner", "EINVAL", |_| {
        worker_pointers(false)
    }),
    case("ABI-01/workers-with-owner", "EFAULT", |_| {
        worker_pointers(true)
    }),
    case(
        "ABI-02/sizes-of-rings",
        "EINVAL ok EINVAL ok ok EINVAL EINVAL EINVAL",
        |_| {
            let dev = owned()?;
            each(&[0, 1, 3, 128, 32768, 65535, 65536, 1 << 31], |num| {
                dev.io(abi::SET_VRING_NUM, &mut abi::ring_state(0, *num))
            })
        },
    ),
    case("ABI-03/numbers-of-rings", "ENOBUFS ENOBUFS ENOBUFS ENOBUFS", |_| {
        let dev = owned()?;
        each(&[2, 3, 0x7fff_ffff, u32::MAX], |index| {
            dev.io(abi::SET_VRING_NUM, &mut abi::ring_state(*index, 128))
        })
    }),
    case("ABI-04/bases-of-rings", "ok EINVAL; 65535", |_| {
        let dev = owned()?;
        let set = each(&[65535, 65536], |base| dev.set_base(0, *base))?;
        Ok(format!("{set}; {}", dev.base(0)?))
    }),
    case(
        "ABI-05/addresses-of-rings",
        "EOPNOTSUPP EINVAL EINVAL EINVAL ok ok",
        |_| {
            let dev = owned()?;
            let good = dev.ring_addr(0);
            let wrong = [
                RingAddr { flags: 2, ..good },
                RingAddr {
                    avail: good.avail + 1,
                    ..good
                },
                RingAddr {
                    used: good.used + 2,
                    ..good
                },
                RingAddr {
                    log: good.log + 2,
                    ..good
                },
                RingAddr {
                    desc: KERNEL,
                    ..good
                },
                RingAddr { flags: 1, ..good },
            ];
            each(&wrong, |addr| {
                dev.io(abi::SET_VRING_ADDR, &mut addr.bytes())
            })
        },
    ),
    case(
        "ABI-06/start-with-something-missing",
        "EFAULT EFAULT EFAULT",
        |_| missing(),
    ),
    case(
        "ABI-07/changes-while-running",
        "EBUSY EBUSY EINVAL ok ok",
        |_| while_running(),
    ),
    case(
        "ABI-08/memory-tables-while-stopped",
        "ok E2BIG EOPNOTSUPP EFAULT EFAULT ok ok ok",
        |_| tables(),
    ),
    case("ABI-08/memory-tables-while-running", "EFAULT ok", |_| {
        let dev = Setup::default().open()?;
        let kernel = Region {
            guest: 0,
            size: 1 << 20,
            user: KERNEL,
        };
        each(&[vec![kernel], dev.regions()], |table| {
            dev.set_memory(table)
        })
    }),
    case(
        "ABI-09/features-that-are-not-offered",
        "EOPNOTSUPP EOPNOTSUPP EOPNOTSUPP EOPNOTSUPP ok",
        |_| {
            let dev = owned()?;
            let features = each(&[u64::MAX, 1, 1 << 63], |f| dev.set_features(*f))?;
            let backend = each(&[0xff, 2u64], |f| {
                dev.io(
                    abi::SET_BACKEND_FEATURES,
                    &mut abi::arg(&[&f.to_ne_bytes()]),
                )
            })?;
            Ok(format!("{features} {backend}"))
        },
    ),
    case(
        "ABI-10/cids",
        "EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL ok ok ok; EADDRINUSE ok ok; free: ok",
        |_| cids(),
    ),
    case(
        "ABI-11/descriptors",
        "EBADF EINVAL EINVAL EINVAL ok ok EBADF ok",
        |_| descriptors(),
    ),
    case("ABI-11/each-eventfd", "EBADF EINVAL ok", |_| {
        let dev = owned()?;
        let file = File::open("/proc/self/exe")?;
        let mut found = Vec::new();
        for cmd in [abi::SET_VRING_KICK, abi::SET_VRING_CALL, abi::SET_VRING_ERR] {
            found.push(each(&[9999, file.as_raw_fd(), -1], |fd| {
                dev.io(cmd, &mut abi::ring_file(0, *fd))
            })?);
        }
        found.dedup();
        Ok(found.join("; "))
    }),
    case(
        "ABI-12/twice",
        "EBUSY ok ok ok; child: EPERM EPERM EPERM EPERM ok ok",
        |_| twice(),
    ),
    case(
        "ABI-13/start-again-that-fails",
        "EFAULT, then EHOSTUNREACH",
        |_| failed_start(),
    ),
    case("ABI-14/1000-devices-200-owners", "ok, 200 workers", |_| {
        many()
    })
    .seconds(120),
    case(
        "ABI-15/features-that-are-offered",
        "1 24 26 27 28 29 32 33, others: EOPNOTSUPP; backend: 1, others: EOPNOTSUPP",
        |_| features(),
    ),
    case(
        "ABI-15/not-the-owner",
        "without one: EPERM EPERM; another process: EPERM",
        |ctx| strangers(ctx),
    ),
    case("ABI-15/busy-loop-timeout", "ok, 50", |_| {
        let dev = owned()?;
        let set = verdict(dev.io(
            abi::SET_VRING_BUSYLOOP_TIMEOUT,
            &mut abi::ring_state(1, 50),
        ));
        let mut arg = abi::ring_state(1, 0);
        dev.io(abi::GET_VRING_BUSYLOOP_TIMEOUT, &mut arg)?;
        Ok(format!("{set}, {}", arg[4]))
    }),
    case("ABI-16/random-ioctls", "alive", random)
        .parallel()
        .seconds(240),
];

/// A device that has an owner, and no more.
fn owned() -> Try<Device> {
    let dev = Device::bare(Arc::new(Mapping::shared(MEMORY)?), Setup::default())?;
    dev.io(abi::SET_OWNER, &mut abi::arg(&[]))?;
    Ok(dev)
}

/// What becomes of each of some values.
fn each<V, R>(values: &[V], mut f: impl FnMut(&V) -> io::Result<R>) -> Try<String> {
    let found: Vec<_> = values.iter().map(|value| verdict(f(value))).collect();
    Ok(found.join(" "))
}

/// All requests of vhost, with what is said of an address where nothing is: without an owner, and
/// with one.
const REQUESTS: [(u32, &str, &str); 27] = [
    (abi::GET_FEATURES, "EFAULT", "EFAULT"),
    (abi::SET_FEATURES, "EFAULT", "EFAULT"),
    (abi::SET_OWNER, "ok", "EBUSY"),
    (abi::RESET_OWNER, "EPERM", "EFAULT"),
    (abi::SET_MEM_TABLE, "EPERM", "EFAULT"),
    (abi::SET_LOG_BASE, "EPERM", "EFAULT"),
    (abi::SET_LOG_FD, "EPERM", "EFAULT"),
    (abi::SET_VRING_NUM, "EPERM", "EFAULT"),
    (abi::SET_VRING_ADDR, "EPERM", "EFAULT"),
    (abi::SET_VRING_BASE, "EPERM", "EFAULT"),
    (abi::GET_VRING_BASE, "EPERM", "EFAULT"),
    (abi::SET_VRING_ENDIAN, "EPERM", "EFAULT"),
    (abi::GET_VRING_ENDIAN, "EPERM", "EFAULT"),
    (abi::SET_VRING_KICK, "EPERM", "EFAULT"),
    (abi::SET_VRING_CALL, "EPERM", "EFAULT"),
    (abi::SET_VRING_ERR, "EPERM", "EFAULT"),
    (abi::SET_VRING_BUSYLOOP_TIMEOUT, "EPERM", "EFAULT"),
    (abi::GET_VRING_BUSYLOOP_TIMEOUT, "EPERM", "EFAULT"),
    (abi::SET_BACKEND_FEATURES, "EFAULT", "EFAULT"),
    (abi::GET_BACKEND_FEATURES, "EFAULT", "EFAULT"),
    (abi::SET_GUEST_CID, "EFAULT", "EFAULT"),
    (abi::SET_RUNNING, "EFAULT", "EFAULT"),
    (abi::SET_FORK_FROM_OWNER, "EFAULT", "EBUSY"),
    (abi::GET_FORK_FROM_OWNER, "EFAULT", "EFAULT"),
    (abi::GET_FEATURES_ARRAY, "EPERM", "EFAULT"),
    (abi::SCSI_SET_ENDPOINT, "EPERM", "EFAULT"),
    (abi::BOGUS, "EPERM", "EFAULT"),
];

/// Requests for workers, which C has for other devices.
const WORKERS: [u32; 4] = [
    abi::NEW_WORKER,
    abi::FREE_WORKER,
    abi::ATTACH_VRING_WORKER,
    abi::GET_VRING_WORKER,
];

/// What is said of bad addresses for workers, each answer once.
fn worker_pointers(with_owner: bool) -> Try<String> {
    let mut found = Vec::new();
    for cmd in WORKERS {
        for address in [0, 1, KERNEL, UNUSED] {
            let file = open_file()?;
            if with_owner {
                sys::ioctl_wild(&file, abi::SET_OWNER, 0)?;
            }
            found.push(verdict(sys::ioctl_wild(&file, cmd, address)));
        }
    }
    found.dedup();
    Ok(found.join(" "))
}

fn pointers(with_owner: bool) -> Try<String> {
    let mut wrong = Vec::new();
    for (cmd, without, with) in REQUESTS {
        for address in [0, 1, KERNEL, UNUSED] {
            let file = open_file()?;
            if with_owner {
                sys::ioctl_wild(&file, abi::SET_OWNER, 0)?;
            }
            let found = verdict(sys::ioctl_wild(&file, cmd, address));
            if found != if with_owner { with } else { without } {
                wrong.push(format!("{:#x} at {address:#x}: {found}", cmd & 0xffff));
            }
        }
    }
    Ok(if wrong.is_empty() {
        "as listed".to_owned()
    } else {
        wrong.join(", ")
    })
}

fn missing() -> Try<String> {
    let without_memory = owned()?;
    for q in [RX, TX] {
        without_memory.configure(q)?;
    }
    let without_rings = owned()?;
    without_rings.set_memory(&without_rings.regions())?;
    let in_kernel = owned()?;
    in_kernel.set_memory(&in_kernel.regions())?;
    for q in [RX, TX] {
        in_kernel.configure(q)?;
        let addr = in_kernel.ring_addr(q);
        let addr = RingAddr {
            desc: KERNEL,
            ..addr
        };
        in_kernel.io(abi::SET_VRING_ADDR, &mut addr.bytes())?;
    }
    each(&[without_memory, without_rings, in_kernel], |dev| {
        dev.run(true)
    })
}

fn while_running() -> Try<String> {
    let dev = Setup::default().open()?;
    let kernel = RingAddr {
        desc: KERNEL,
        ..dev.ring_addr(0)
    };
    let found = [
        verdict(dev.io(abi::SET_VRING_NUM, &mut abi::ring_state(0, 64))),
        verdict(dev.set_base(0, 0)),
        verdict(dev.io(abi::SET_VRING_ADDR, &mut kernel.bytes())),
        verdict(dev.set_features(feature::VERSION_1)),
        verdict(dev.io(abi::SET_VRING_KICK, &mut abi::ring_file(0, -1))),
    ];
    Ok(found.join(" "))
}

fn tables() -> Try<String> {
    let dev = owned()?;
    let user = dev.mem.addr();
    let region = |guest, size, user| Region { guest, size, user };
    let many = |count| -> Vec<_> { (0..count).map(|n| region(n << 20, 1 << 20, user)).collect() };
    let set = |regions: &[Region], padding| {
        let count = regions.len() as u32;
        dev.io(
            abi::SET_MEM_TABLE,
            &mut abi::memory_table(regions, count, padding),
        )
    };
    let overlap = [region(0, 8192, user), region(4096, 8192, user)];
    let found = [
        verdict(set(&many(64), 0)),
        verdict(set(&many(65), 0)),
        verdict(set(&many(1), 1)),
        verdict(set(&[region(0x1000, 0, user)], 0)),
        verdict(set(&[region(u64::MAX - 4095, 8192, user)], 0)),
        verdict(set(&[region(0, 1 << 20, KERNEL)], 0)),
        verdict(set(&overlap, 0)),
        verdict(set(&[], 0)),
    ];
    Ok(found.join(" "))
}

fn cids() -> Try<String> {
    let [one, other] = [open_file()?, open_file()?];
    let set = |file: &File, cid: u64| {
        sys::ioctl(
            file,
            abi::SET_GUEST_CID,
            &mut abi::arg(&[&cid.to_ne_bytes()]),
        )
    };
    let own = fresh_cid();
    let any = u64::from(u32::MAX);
    let wrong = [
        0,
        1,
        2,
        any,
        1 << 32,
        (1 << 32) + 3,
        (1 << 32) + 5,
        u64::MAX,
    ];
    let wrong = each(&wrong, |cid| set(&one, *cid))?;
    let right = each(&[any - 1, own, own], |cid| set(&one, *cid))?;
    // One that was given up, and another one.
    let others = each(&[own, any - 1, own + 1], |cid| set(&other, *cid))?;
    drop(one);
    Ok(format!(
        "{wrong} {right}; {others}; free: {}",
        verdict(set(&other, own))
    ))
}

fn descriptors() -> Try<String> {
    let dev = owned()?;
    let file = File::open("/proc/self/exe")?;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    let event = sys::eventfd()?;
    let ring = |cmd, fd| dev.io(cmd, &mut abi::ring_file(0, fd));
    let log = |fd: i32| dev.io(abi::SET_LOG_FD, &mut abi::arg(&[&fd.to_ne_bytes()]));
    let found = [
        verdict(ring(abi::SET_VRING_KICK, 9999)),
        verdict(ring(abi::SET_VRING_KICK, file.as_raw_fd())),
        verdict(ring(abi::SET_VRING_CALL, socket.as_raw_fd())),
        verdict(log(file.as_raw_fd())),
        verdict(log(-1)),
        verdict(ring(abi::SET_VRING_ERR, -1)),
        verdict(ring(abi::SET_VRING_ERR, 9999)),
        verdict(ring(abi::SET_VRING_KICK, event.as_raw_fd())),
    ];
    Ok(found.join(" "))
}

fn twice() -> Try<String> {
    let dev = Setup::default().open()?;
    let own = [
        verdict(dev.io(abi::SET_OWNER, &mut abi::arg(&[]))),
        verdict(dev.run(true)),
        verdict(dev.run(false)),
        verdict(dev.run(false)),
    ];
    let mut child = talk::fork(|talk| {
        let found = [
            verdict(dev.run(true)),
            verdict(dev.base(0)),
            verdict(dev.set_memory(&[])),
            verdict(dev.io(abi::BOGUS, &mut abi::arg(&[]))),
            verdict(dev.io(abi::GET_FEATURES, &mut abi::arg(&[]))),
            verdict(dev.set_features(feature::VERSION_1)),
        ];
        talk.tell(&found.join(" "))
    })?;
    Ok(format!("{}; child: {}", own.join(" "), child.talk.hear()?))
}

/// Which features are offered, and that no others are taken.
fn features() -> Try<String> {
    let dev = owned()?;
    let all = |get, set| -> Try<String> {
        let mut arg = abi::arg(&[]);
        dev.io(get, &mut arg)?;
        let offered = u64::from_ne_bytes(arg[..8].try_into().expect("8 bytes"));
        let (mut some, mut others) = (Vec::new(), Vec::new());
        for bit in 0..64u32 {
            if (offered >> bit) & 1 != 0 {
                some.push(bit.to_string());
                continue;
            }
            others.push(verdict(
                dev.io(set, &mut abi::arg(&[&(1u64 << bit).to_ne_bytes()])),
            ));
        }
        others.dedup();
        Ok(format!("{}, others: {}", some.join(" "), others.join(" ")))
    };
    Ok(format!(
        "{}; backend: {}",
        all(abi::GET_FEATURES, abi::SET_FEATURES)?,
        all(abi::GET_BACKEND_FEATURES, abi::SET_BACKEND_FEATURES)?
    ))
}

/// Requests with good arguments, before there is an owner, and by a process that is not.
fn strangers(ctx: &Ctx) -> Try<String> {
    let dev = Device::bare(Arc::new(Mapping::shared(4096)?), Setup::num(1))?;
    let start = || [false, true].map(|on| verdict(dev.run(on))).join(" ");
    let without = start();
    dev.io(abi::SET_OWNER, &mut abi::arg(&[]))?;
    let mut child = talk::fork(|talk| {
        let owners = REQUESTS
            .iter()
            .filter(|(_, without, _)| *without == "EPERM");
        let mut found: Vec<_> = owners
            .map(|(cmd, ..)| cmd)
            .chain(&WORKERS)
            .map(|cmd| verdict(dev.io(*cmd, &mut abi::arg(&[]))))
            .collect();
        found.push(start());
        let mut words: Vec<_> = found.iter().flat_map(|one| one.split(' ')).collect();
        words.dedup();
        talk.tell(&words.join(" "))
    })?;
    let stranger = child.talk.hear()?;
    child.finish(Duration::from_secs(5) * ctx.scale)?;
    Ok(format!(
        "without one: {without}; another process: {stranger}"
    ))
}

/// A device that runs is started again, and that fails: both rings are stopped.
fn failed_start() -> Try<String> {
    let dev = Setup::default().open()?;
    // A table that is taken while stopped, and not at the start.
    let kernel = Region {
        guest: 0,
        size: 1 << 20,
        user: KERNEL,
    };
    dev.run(false)?;
    dev.set_memory(&[kernel])?;
    let again = verdict(dev.run(true));
    let socket = Socket::stream()?;
    Ok(format!(
        "{again}, then {}",
        verdict(socket.connect(dev.cid, 1))
    ))
}

fn many() -> Try<String> {
    process::set_limit(libc::RLIMIT_NOFILE, 4096)?;
    let files: Vec<_> = (0..1000).map(|_| open_file()).collect::<io::Result<_>>()?;
    for (file, cid) in files.iter().zip(0x4800_0000u64..).take(200) {
        let mut cid = abi::arg(&[&cid.to_ne_bytes()]);
        sys::ioctl(file, abi::SET_GUEST_CID, &mut cid)?;
        sys::ioctl_wild(file, abi::SET_OWNER, 0)?;
    }
    // All of them go with the process.
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    Ok(format!("ok, {} workers", threads - 1))
}

/// An argument that may mean something.
fn argument(rng: &mut Rng, mem: &Mapping, fds: &[i32]) -> Vec<u8> {
    let mut bytes = abi::arg(&[]);
    for at in (0..64).step_by(4) {
        let word = match rng.below(8) {
            0 => rng.word() as u32,
            1 => rng.pick(fds) as u32,
            2..5 => 0,
            _ => rng.below(3) as u32,
        };
        bytes[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    // Addresses, in structures that have some.
    for at in (8..40).step_by(8) {
        if rng.one_in(2) {
            let place = mem.addr() + rng.below(mem.len() as u64) / 64 * 64;
            bytes[at..at + 8].copy_from_slice(&place.to_ne_bytes());
        }
    }
    bytes
}

fn random(ctx: &mut Ctx) -> Try<String> {
    let dev = Setup::default().open()?;
    let count = ctx.rounds(2000, 25_000);
    let event = sys::eventfd()?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for n in 0..4 {
            let mut rng = Rng::new(ctx.rng.word(), "ioctl");
            let (dev, stop) = (&dev, &stop);
            let fds = [event.as_raw_fd(), dev.kick[n % 2].as_raw_fd(), -1, 9999, 0];
            scope.spawn(move || {
                for _ in 0..count {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let cmd = match rng.below(8) {
                        0 => rng.pick(&WORKERS),
                        _ => rng.pick(&REQUESTS).0,
                    };
                    // The owner stays; a worker may be gone for a while.
                    let mut bytes = argument(&mut rng, &dev.mem, &fds);
                    let _ = dev.io(cmd, &mut bytes);
                    dev.kick(n % 2);
                    if rng.one_in(16) {
                        let _ = dev.run(true);
                    }
                }
            });
        }
    });
    drop(dev);
    let mut dev = Setup::default().open()?;
    let peer = host::connect_stream(&mut dev)?;
    peer.socket.send(b"x")?;
    dev.expect(packet::RW)?;
    Ok("alive".to_owned())
}
