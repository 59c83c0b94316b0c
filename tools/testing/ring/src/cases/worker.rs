// SPDX-License-Identifier: GPL-2.0

//! Workers: which there are, what they belong to, and who has them.

use super::{case, round_trips, skip, Case, Ctx};
use crate::{
    abi,
    device::{open_file, Device, Setup, RX, TX},
    host::{errno, verdict},
    note,
    observe::NOBODY,
    packet,
    sys::{self, memory::Mapping, process},
    talk, Try,
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicBool, AtomicU32, Ordering},
        Arc,
    },
    thread,
    time::{Duration, Instant},
};

/// Why C has none of it.
const NONE: &str = "C has no ioctls for workers of vsock";

pub const CASES: &[Case] = &[
    case(
        "W01/worker-is-a-thread-of-the-owner",
        "vhost-PID; answers; gone with the device",
        default_worker,
    ),
    case(
        "W02/new-attach-free",
        "new: 1 2; free: EBUSY; attach: ok ok, threads of their own; free: EBUSY ok ENODEV; \
         attach: ENODEV ENODEV ENOBUFS ok ok; free: ok; new: 0; nowhere: EFAULT; new: 2; answers",
        |_| ioctls(),
    )
    .not_on_c(NONE),
    case("W02/rings-that-are-not", "ENOBUFS", |_| {
        let dev = Setup::buffers(0).open()?;
        let mut found: Vec<_> = [2, 3, 0x7fff_ffff, u32::MAX]
            .map(|index| worker_of(&dev, index).unwrap_or_else(|e| errno(&e)))
            .into();
        found.dedup();
        Ok(found.join(" "))
    })
    .not_on_c(NONE),
    case(
        "W03/swapped-in-traffic",
        "nothing lost, nothing twice",
        swapped,
    )
    .parallel()
    .seconds(60)
    .not_on_c(NONE),
    case(
        "W04/kind-of-thread",
        "1; 2: EINVAL, nowhere: EFAULT, 0: ok; 0; with an owner: EBUSY; 0",
        |_| kind(),
    ),
    case(
        "W05/second-thread-of-the-kernel",
        "EFAULT, worker 0",
        |_| {
            let dev = Setup {
                kernel_thread: true,
                ..Setup::buffers(0)
            }
            .open()?;
            let new = verdict(new_worker(&dev));
            Ok(format!("{new}, worker {}", worker_of(&dev, 0)?))
        },
    )
    .not_on_c(NONE),
    case(
        "W06/thread-of-the-kernel",
        "child of kthreadd, in the cgroup of the owner; answers; gone with the device",
        |ctx| in_cgroup(ctx, kernel_thread),
    ),
    case(
        "W07/owner-moves-to-another-cgroup",
        "the worker too; answers",
        |ctx| in_cgroup(ctx, moved),
    ),
    case("W08/as-many-as-the-limit-of-threads", "10 to 20", |ctx| {
        limited(ctx)
    })
    .not_on_c(NONE),
];

/// Another worker for a device, and its number.
pub fn new_worker(dev: &Device) -> io::Result<u32> {
    let mut arg = abi::arg(&[]);
    dev.io(abi::NEW_WORKER, &mut arg)?;
    Ok(u32::from_ne_bytes(arg[..4].try_into().expect("4 bytes")))
}

/// Gives a ring to a worker.
pub fn attach(dev: &Device, q: usize, worker: u32) -> io::Result<i32> {
    let mut arg = abi::ring_state(q as u32, worker);
    dev.io(abi::ATTACH_VRING_WORKER, &mut arg)
}

fn free(dev: &Device, worker: u32) -> String {
    let mut arg = abi::arg(&[&worker.to_ne_bytes()]);
    verdict(dev.io(abi::FREE_WORKER, &mut arg))
}

fn worker_of(dev: &Device, index: u32) -> io::Result<String> {
    let mut arg = abi::ring_state(index, 77);
    dev.io(abi::GET_VRING_WORKER, &mut arg)?;
    let number = u32::from_ne_bytes(arg[4..8].try_into().expect("4 bytes"));
    Ok(number.to_string())
}

/// Directories below `place` of threads with the name that the workers of this process have.
fn workers_in(place: &str) -> Try<Vec<PathBuf>> {
    let name = format!("vhost-{}\n", std::process::id());
    let mut found = Vec::new();
    for entry in fs::read_dir(place)? {
        let path = entry?.path();
        // A thread may end meanwhile.
        if fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm == name) {
            found.push(path);
        }
    }
    Ok(found)
}

/// The threads of this process that are its workers.
fn own_workers() -> Try<Vec<PathBuf>> {
    workers_in("/proc/self/task")
}

/// How long the workers of this process had a CPU.
pub fn busy() -> Try<Duration> {
    let mut nanos = 0;
    for worker in own_workers()? {
        let text = fs::read_to_string(worker.join("schedstat"))?;
        let first = text.split_whitespace().next().unwrap_or_default();
        nanos += first.parse::<u64>().map_err(|_| text.as_str())?;
    }
    Ok(Duration::from_nanos(nanos))
}

/// What our device says of the thread of a ring; nothing with C.
fn thread_of(dev: &Device, q: usize) -> Option<String> {
    let line = dev.info(&format!("worker{q}")).pop()?;
    Some(line.split("thread ").nth(1)?.to_owned())
}

/// Does the thread end with its device? It says that it has before it leaves `/proc`.
fn gone(path: &Path) -> &'static str {
    let end = Instant::now() + Duration::from_secs(5);
    while path.exists() {
        if Instant::now() > end {
            return "outlives the device";
        }
        thread::sleep(Duration::from_millis(5));
    }
    "gone with the device"
}

fn default_worker(ctx: &mut Ctx) -> Try<String> {
    let mut dev = Setup::default().open()?;
    round_trips(&mut dev, 1)?;
    let [worker] = own_workers()?
        .try_into()
        .map_err(|all: Vec<_>| format!("{} workers", all.len()))?;
    if ctx.ours() {
        let id = worker.file_name().map(|id| id.to_string_lossy().into());
        let told = [thread_of(&dev, RX), thread_of(&dev, TX)];
        if told != [id.clone(), id] {
            return Err(format!("fdinfo says {told:?}").into());
        }
        for q in [0, 1] {
            let number = worker_of(&dev, q)?;
            if number != "0" {
                return Err(format!("ring {q} has worker {number}").into());
            }
        }
    }
    drop(dev);
    Ok(format!("vhost-PID; answers; {}", gone(&worker)))
}

/// The errors are those of `vhost_worker_ioctl()` in C.
fn ioctls() -> Try<String> {
    let mut dev = Setup::default().open()?;
    let attach = |dev: &Device, q, worker| verdict(attach(dev, q, worker));
    let new = [new_worker(&dev)?, new_worker(&dev)?];
    let mut said = vec![
        format!("new: {} {}", new[0], new[1]),
        format!("free: {}", free(&dev, 0)),
    ];
    let attached = [attach(&dev, RX, 1), attach(&dev, TX, 2)].join(" ");
    round_trips(&mut dev, 1)?;
    let threads = [thread_of(&dev, RX), thread_of(&dev, TX)];
    let own = threads[0].is_some() && threads[1].is_some() && threads[0] != threads[1];
    let numbers = [worker_of(&dev, 0)?, worker_of(&dev, 1)?];
    said.push(match (own, numbers == ["1", "2"]) {
        (true, true) => format!("attach: {attached}, threads of their own"),
        _ => format!("attach: {attached}, workers {numbers:?}, threads {threads:?}"),
    });
    // One in use; the first one, of no use now; one that is gone.
    let some = [1, 0, 0].map(|worker| free(&dev, worker));
    said.push(format!("free: {}", some.join(" ")));
    let some = [(RX, 0), (RX, 7), (2, 1), (TX, 1), (TX, 1)];
    let some = some.map(|(q, worker)| attach(&dev, q, worker));
    said.push(format!("attach: {}", some.join(" ")));
    round_trips(&mut dev, 1)?;
    said.push(format!("free: {}", free(&dev, 2)));
    // The lowest number that is free.
    said.push(format!("new: {}", new_worker(&dev)?));
    let requests = [
        abi::NEW_WORKER,
        abi::FREE_WORKER,
        abi::ATTACH_VRING_WORKER,
        abi::GET_VRING_WORKER,
    ];
    let mut nowhere = requests
        .map(|cmd| verdict(sys::ioctl_wild(dev.file(), cmd, 0)))
        .to_vec();
    nowhere.dedup();
    said.push(format!("nowhere: {}", nowhere.join(" ")));
    // There is no worker that nobody was told of.
    said.push(format!("new: {}", new_worker(&dev)?));
    round_trips(&mut dev, 1)?;
    Ok(format!("{}; answers", said.join("; ")))
}

/// Rings change their workers while packets go both ways.
fn swapped(ctx: &mut Ctx) -> Try<String> {
    let least = ctx.rounds(500, 5000);
    let limit = Duration::from_secs(10) * ctx.scale;
    let mut dev = Setup::num(256).open()?;
    let workers = [0, new_worker(&dev)?, new_worker(&dev)?];
    let other = dev.again()?;
    let (stop, swaps) = (AtomicBool::new(false), AtomicU32::new(0));
    let mut count = 0;
    let result = thread::scope(|scope| {
        let swapper = scope.spawn(|| -> Try<()> {
            while !stop.load(Ordering::Relaxed) {
                let n = swaps.fetch_add(1, Ordering::Relaxed) as usize;
                for q in [RX, TX] {
                    attach(&other, q, workers[(n + q) % 3])?;
                }
            }
            Ok(())
        });
        let mut traffic = || -> Try<()> {
            while swaps.load(Ordering::Relaxed) < 20 || count < least {
                let request = dev.header(packet::REQUEST, count, NOBODY);
                dev.put(request, &[]);
                dev.kick(TX);
                let begin = Instant::now();
                // Nobody knows which worker to wait for.
                let answer = loop {
                    if let Some(packet) = dev.recv() {
                        break packet.header;
                    }
                    if begin.elapsed() > limit {
                        return Err(format!("no answer to packet {count}").into());
                    }
                    thread::yield_now();
                };
                if (answer.op, answer.dst_port) != (packet::RST, count) {
                    return Err(format!("{answer:?} answers packet {count}").into());
                }
                dev.q[TX].take_all();
                count += 1;
            }
            Ok(())
        };
        let ret = traffic();
        stop.store(true, Ordering::Relaxed);
        swapper.join().map_err(|_| "a thread panicked")??;
        ret
    });
    result?;
    dev.settle()?;
    let swaps = swaps.load(Ordering::Relaxed);
    note(format!("{count} packets, workers swapped {swaps} times"));
    let wanted = [format!("{count} packets, 0 bytes")];
    let (from, to) = (dev.info("from-guest"), dev.info("to-guest"));
    Ok(if from == wanted && to == wanted && dev.recv().is_none() {
        "nothing lost, nothing twice".to_owned()
    } else {
        format!("{count} sent; from the guest {from:?}, to the guest {to:?}")
    })
}

/// Which kind of thread the worker is can be chosen until there is an owner.
fn kind() -> Try<String> {
    let file = open_file()?;
    let get = || -> io::Result<u8> {
        let mut arg = abi::arg(&[&[9]]);
        sys::ioctl(&file, abi::GET_FORK_FROM_OWNER, &mut arg)?;
        Ok(arg[0])
    };
    let set = |value: u8| {
        let mut arg = abi::arg(&[&[value]]);
        verdict(sys::ioctl(&file, abi::SET_FORK_FROM_OWNER, &mut arg))
    };
    let first = get()?;
    let two = set(2);
    let nowhere = verdict(sys::ioctl_wild(&file, abi::SET_FORK_FROM_OWNER, 0));
    let zero = set(0);
    let then = get()?;
    sys::ioctl_wild(&file, abi::SET_OWNER, 0)?;
    let owned = set(1);
    Ok(format!(
        "{first}; 2: {two}, nowhere: {nowhere}, 0: {zero}; {then}; with an owner: {owned}; {}",
        get()?
    ))
}

/// A cgroup for one case, which goes with this.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// `None` if this kernel has no cgroups.
    pub fn new() -> Try<Option<Self>> {
        if !Path::new("/sys/fs/cgroup/cgroup.procs").exists() {
            return Ok(None);
        }
        let path = PathBuf::from(format!("/sys/fs/cgroup/ring-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Some(Self(path)))
    }

    /// Moves this process to it, with all its threads.
    pub fn join(&self) -> Try<()> {
        self.set("cgroup.procs", &std::process::id().to_string())
    }

    pub fn set(&self, file: &str, value: &str) -> Try<()> {
        Ok(fs::write(self.0.join(file), value)?)
    }

    /// Waits until `cgroup.events` has a line.
    pub fn wait_for(&self, event: &str, limit: Duration) -> Try<()> {
        let end = Instant::now() + limit;
        while !fs::read_to_string(self.0.join("cgroup.events"))?
            .lines()
            .any(|line| line == event)
        {
            if Instant::now() > end {
                return Err(format!("the cgroup does not come to {event}").into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Whether a thread, of which this is the directory in `/proc`, is in it.
    fn has(&self, thread: &Path) -> Try<bool> {
        let name = self.0.file_name().unwrap_or_default().to_string_lossy();
        let text = fs::read_to_string(thread.join("cgroup"))?;
        Ok(text.lines().any(|line| line.ends_with(&format!("/{name}"))))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// What a child process says that is free to go to a cgroup.
fn in_cgroup(ctx: &Ctx, f: fn(&Cgroup) -> Try<String>) -> Try<String> {
    let Some(cgroup) = Cgroup::new()? else {
        return skip("this kernel has no cgroups");
    };
    let mut child = talk::fork(|talk| {
        let text = f(&cgroup)?;
        talk.tell(&text)
    })?;
    let text = child.talk.hear()?;
    child.finish(Duration::from_secs(10) * ctx.scale)?;
    Ok(text)
}

/// The worker is a thread of the kernel: in the owner's cgroup, not in its process.
fn kernel_thread(cgroup: &Cgroup) -> Try<String> {
    cgroup.join()?;
    let mut dev = Setup {
        kernel_thread: true,
        ..Setup::default()
    }
    .open()?;
    round_trips(&mut dev, 1)?;
    if !own_workers()?.is_empty() {
        return Ok("it is a thread of the owner".to_owned());
    }
    let [worker] = workers_in("/proc")?
        .try_into()
        .map_err(|all: Vec<_>| format!("{} workers", all.len()))?;
    let status = fs::read_to_string(worker.join("status"))?;
    let parent = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:\t"))
        .unwrap_or_default();
    let parent = match parent {
        "2" => "child of kthreadd".to_owned(),
        pid => format!("child of {pid}"),
    };
    let place = match cgroup.has(&worker)? {
        true => "in the cgroup of the owner",
        false => "in another cgroup",
    };
    drop(dev);
    Ok(format!("{parent}, {place}; answers; {}", gone(&worker)))
}

/// The worker is a thread of the owner, and moves with it.
fn moved(cgroup: &Cgroup) -> Try<String> {
    let mut dev = Setup::default().open()?;
    let [worker] = own_workers()?
        .try_into()
        .map_err(|all: Vec<_>| format!("{} workers", all.len()))?;
    cgroup.join()?;
    let place = match cgroup.has(&worker)? {
        true => "the worker too",
        false => "the worker does not",
    };
    round_trips(&mut dev, 1)?;
    Ok(format!("{place}; answers"))
}

/// Workers are threads of the owner, thus within its limit of threads: not root's, so as a user.
fn limited(ctx: &Ctx) -> Try<String> {
    const LIMIT: u64 = 20;
    let mem = Arc::new(Mapping::shared(4096)?);
    let dev = Device::bare(mem, Setup::num(1))?;
    let mut child = talk::fork(|talk| {
        process::set_limit(libc::RLIMIT_NPROC, LIMIT)?;
        process::become_user(1234)?;
        dev.io(abi::SET_OWNER, &mut abi::arg(&[]))?;
        let made = (0..100).take_while(|_| new_worker(&dev).is_ok()).count();
        talk.tell(&made.to_string())
    })?;
    let made = child.talk.hear()?;
    child.finish(Duration::from_secs(10) * ctx.scale)?;
    Ok(match made.parse::<u32>() {
        Ok(11..20) => "10 to 20".to_owned(),
        _ => made,
    })
}
