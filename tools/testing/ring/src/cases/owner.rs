// SPDX-License-Identifier: GPL-2.0

//! Devices and their owners: one that goes while somebody else has the descriptor, one that is
//! frozen, one that got the descriptor from another process.

use super::{case, round_trips, skip, worker::Cgroup, Case, Ctx};
use crate::{
    abi,
    device::{fdinfo, fresh_cid, open_file, Device, Setup, RX, TX},
    host::{self, try_connect, verdict, Socket},
    note,
    observe::NOBODY,
    packet,
    ring::Queue,
    sys::{self, memory::Mapping, process, socket},
    talk::{self, Partner},
    Try,
};
use std::{
    fs::File,
    os::fd::OwnedFd,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// What those get who know a device whose worker is gone, until it is closed.
const ALONE: &str = "reader: ECONNRESET in time; connect: EHOSTUNREACH at once; send: ECONNRESET; \
                     SET_RUNNING: EPERM; closed in time: ENODEV";

pub const CASES: &[Case] = &[
    case(
        "LC-06/owner-exits-and-another-has-the-device",
        ALONE,
        |ctx| outlived(ctx, |_| process::exit(0)),
    ),
    case(
        "LC-06/owner-killed-and-another-has-the-device",
        ALONE,
        |ctx| outlived(ctx, |_| Ok(process::raise(libc::SIGKILL)?)),
    ),
    case("LC-07/owner-executes-another-program", ALONE, |ctx| {
        outlived(ctx, |dev| {
            process::keep_on_exec(dev.file())?;
            Err(process::exec(c"/bin/sleep", &[c"sleep", c"600"]).into())
        })
    }),
    case("LC-12/passed-to-another-process", "EPERM EPERM ok", |ctx| {
        passed_on(ctx)
    }),
    case(
        "LC-14/cgroup-frozen-and-killed",
        "frozen: ETIMEDOUT; killed in time: ENODEV",
        frozen,
    )
    .seconds(60),
    case(
        "LC-15/cid-of-one-process-rings-of-another",
        "SET_RUNNING: EPERM, GET_VRING_BASE: EPERM, SET_OWNER: EBUSY, GET_FEATURES: ok; answers",
        brokered,
    ),
    case(
        "LC-16/connect-to-each-state",
        "no device: ENODEV; not started: EHOSTUNREACH; silent: ETIMEDOUT; stopped: EHOSTUNREACH; \
         closed: ENODEV",
        |_| states(),
    ),
    case(
        "LC-17/kernel-thread-outlives-the-owner",
        "connect: ETIMEDOUT, a packet came; closed in time: ENODEV",
        kernel_thread,
    ),
];

/// A word for a time.
fn when(took: Duration, limit: Duration, ctx: &Ctx) -> &'static str {
    if took < limit * ctx.scale {
        "in time"
    } else {
        "too late"
    }
}

/// A device of another process, which has a connection to it and ends as `end` says when it is told
/// to. We have the descriptor, and the program's end of the connection.
struct Orphan {
    owner: Partner,
    file: File,
    mem: Arc<Mapping>,
    cid: u64,
    socket: Socket,
}

impl Orphan {
    fn new(setup: Setup, end: fn(&Device) -> Try<()>) -> Try<Self> {
        const PORT: u32 = 3000;
        let listener = Socket::listener(libc::SOCK_STREAM, PORT, 8)?;
        let cid = fresh_cid();
        let setup = Setup {
            cid: Some(cid),
            ..setup
        };
        let (file, mem) = (open_file()?, Arc::new(Mapping::shared(setup.memory)?));
        let mut owner = talk::fork(|talk| {
            let mut dev = setup.open_on(file.try_clone()?, mem.clone())?;
            let request = dev.header(packet::REQUEST, 50, PORT);
            dev.send(request.with(|h| h.buf_alloc = host::GUEST_BUFFER), &[])?;
            dev.expect(packet::RESPONSE)?;
            talk.tell("connected")?;
            talk.hear()?;
            end(&dev)
        })?;
        owner.talk.hear()?;
        Ok(Self {
            owner,
            file,
            mem,
            cid,
            socket: listener.accept()?,
        })
    }

    /// Closes our descriptor, the last one unless `kept` by the owner; whether that took long, and
    /// what a program gets then.
    fn close(mut self, ctx: &Ctx) -> Try<String> {
        let begin = Instant::now();
        drop(self.file);
        let took = begin.elapsed();
        // A program that it executes has the descriptor as well.
        self.owner.process.kill(libc::SIGKILL);
        self.owner
            .process
            .wait(Duration::from_secs(10) * ctx.scale)?;
        let when = when(took, Duration::from_secs(1), ctx);
        Ok(format!("closed {when}: {}", try_connect(self.cid)?))
    }
}

/// What holds whenever the worker of a device died and the device is still open.
fn outlived(ctx: &Ctx, end: fn(&Device) -> Try<()>) -> Try<String> {
    let mut orphan = Orphan::new(Setup::default(), end)?;
    let limit = Duration::from_secs(2);
    orphan.owner.talk.tell("end")?;
    let begin = Instant::now();
    orphan.socket.wait_readable(limit * ctx.scale)?;
    let when = when(begin.elapsed(), limit, ctx);
    let state = orphan.socket.state();
    let begin = Instant::now();
    let connect = try_connect(orphan.cid)?;
    // Those that wait do so for 0.5 s.
    let soon = if begin.elapsed() < Duration::from_millis(400) * ctx.scale {
        " at once"
    } else {
        ""
    };
    let send = host::amount(orphan.socket.send(b"x"));
    if ctx.ours() {
        let info = |key| fdinfo(&orphan.file, key).join(" ");
        let found = ["worker0", "worker1", "queued", "replies"].map(info);
        if found != ["killed", "killed", "0 packets, 0 bytes of memory", "0"] {
            return Err(format!("fdinfo says {found:?}").into());
        }
    }
    let mut zero = abi::arg(&[]);
    let stop = verdict(sys::ioctl(&orphan.file, abi::SET_RUNNING, &mut zero));
    let closed = orphan.close(ctx)?;
    Ok(format!(
        "reader: {state} {when}; connect: {connect}{soon}; send: {send}; SET_RUNNING: {stop}; {closed}"
    ))
}

/// A worker that is a thread of the kernel goes on without the owner, in the owner's memory.
fn kernel_thread(ctx: &mut Ctx) -> Try<String> {
    let setup = Setup {
        kernel_thread: true,
        ..Setup::default()
    };
    let mut orphan = Orphan::new(setup, |_| process::exit(0))?;
    orphan.owner.talk.tell("end")?;
    orphan
        .owner
        .process
        .wait(Duration::from_secs(10) * ctx.scale)?;
    // The guest has buffers left, and nobody answers.
    let queue = Queue::new(&orphan.mem, RX, 128);
    let before = queue.device_used_idx();
    let connect = try_connect(orphan.cid)?;
    let came = match queue.device_used_idx().wrapping_sub(before) {
        0 => "nothing came",
        _ => "a packet came",
    };
    let closed = orphan.close(ctx)?;
    Ok(format!("connect: {connect}, {came}; {closed}"))
}

fn passed_on(ctx: &Ctx) -> Try<String> {
    let dev = Setup::default().open()?;
    let (ours, theirs) = socket::pair()?;
    let mut child = talk::fork(|talk| {
        let file = socket::recv_fd(&theirs)?;
        let io = |cmd, arg: &mut [u8]| verdict(sys::ioctl(&file, cmd, arg));
        let found = [
            io(abi::GET_VRING_BASE, &mut abi::ring_state(0, 0)),
            io(abi::SET_RUNNING, &mut abi::arg(&[])),
            io(abi::GET_FEATURES, &mut abi::arg(&[])),
        ];
        talk.tell(&found.join(" "))
    })?;
    socket::send_fd(&ours, dev.file())?;
    let text = child.talk.hear()?;
    child.finish(Duration::from_secs(5) * ctx.scale)?;
    Ok(text)
}

/// While the owner's cgroup is frozen nothing moves, and nobody hangs; then it is killed.
fn frozen(ctx: &mut Ctx) -> Try<String> {
    let Some(cgroup) = Cgroup::new()? else {
        return skip("this kernel has no cgroups");
    };
    let cid = 0x5600_0001;
    let mut owner = talk::fork(|talk| {
        cgroup.join()?;
        let mut dev = Setup {
            cid: Some(cid),
            ..Setup::default()
        }
        .open()?;
        round_trips(&mut dev, 1)?;
        talk.tell("running")?;
        // Without ioctls: one that waits for a worker that is frozen cannot be frozen itself.
        loop {
            let request = dev.header(packet::REQUEST, 1, NOBODY);
            dev.put(request, &[]);
            dev.kick(TX);
            while dev.q[TX].take_all().is_empty() {
                thread::yield_now();
            }
            while dev.recv().is_some() {}
        }
    })?;
    owner.talk.hear()?;
    let limit = Duration::from_secs(10) * ctx.scale;
    cgroup.set("cgroup.freeze", "1")?;
    cgroup.wait_for("frozen 1", limit)?;
    let connect = try_connect(cid)?;
    cgroup.set("cgroup.freeze", "0")?;
    cgroup.wait_for("frozen 0", limit)?;
    cgroup.set("cgroup.freeze", "1")?;
    cgroup.wait_for("frozen 1", limit)?;
    let begin = Instant::now();
    cgroup.set("cgroup.kill", "1")?;
    let status = owner.process.wait(limit)?;
    if status != Some(-libc::SIGKILL) {
        return Ok(format!(
            "frozen: {connect}; the owner ended with {status:?}"
        ));
    }
    let took = begin.elapsed();
    note(format!("killed within {took:?}"));
    let when = when(took, Duration::from_secs(2), ctx);
    Ok(format!(
        "frozen: {connect}; killed {when}: {}",
        try_connect(cid)?
    ))
}

/// One process sets the CID, another one gets the descriptor and becomes the owner.
fn brokered(ctx: &mut Ctx) -> Try<String> {
    let cid = 0x5600_0002u64;
    let file = open_file()?;
    let io = |cmd, arg: &mut [u8]| verdict(sys::ioctl(&file, cmd, arg));
    let set = io(abi::SET_GUEST_CID, &mut abi::arg(&[&cid.to_ne_bytes()]));
    if set != "ok" {
        return Ok(format!("SET_GUEST_CID: {set}"));
    }
    let (ours, theirs) = socket::pair()?;
    let mut owner = talk::fork(|talk| {
        let file: OwnedFd = socket::recv_fd(&theirs)?;
        // Sets the same CID again.
        let setup = Setup {
            cid: Some(cid),
            ..Setup::default()
        };
        let mem = Arc::new(Mapping::shared(setup.memory)?);
        let mut dev = setup.open_on(file.into(), mem)?;
        round_trips(&mut dev, 1)?;
        talk.tell("running")?;
        talk.hear()?;
        round_trips(&mut dev, 1)?;
        talk.tell("answers")
    })?;
    socket::send_fd(&ours, &file)?;
    owner.talk.hear()?;
    // It is not ours any more, except for what needs no owner.
    let found = [
        ("SET_RUNNING", io(abi::SET_RUNNING, &mut abi::arg(&[]))),
        (
            "GET_VRING_BASE",
            io(abi::GET_VRING_BASE, &mut abi::ring_state(0, 0)),
        ),
        ("SET_OWNER", io(abi::SET_OWNER, &mut abi::arg(&[]))),
        ("GET_FEATURES", io(abi::GET_FEATURES, &mut abi::arg(&[]))),
    ];
    let found = found.map(|(name, found)| format!("{name}: {found}"));
    owner.talk.tell("go on")?;
    let then = owner.talk.hear()?;
    owner.finish(Duration::from_secs(10) * ctx.scale)?;
    Ok(format!("{}; {then}", found.join(", ")))
}

/// What a program of the host gets if there is no guest, or one that does not take part.
fn states() -> Try<String> {
    let cid = 0x5600_0003;
    let nobody = try_connect(cid)?;
    let dev = Setup {
        running: false,
        cid: Some(cid),
        ..Setup::default()
    }
    .open()?;
    let not_started = try_connect(cid)?;
    dev.run(true)?;
    dev.kick(RX);
    let silent = try_connect(cid)?;
    dev.run(false)?;
    let stopped = try_connect(cid)?;
    drop(dev);
    let closed = try_connect(cid)?;
    Ok(format!(
        "no device: {nobody}; not started: {not_started}; silent: {silent}; stopped: {stopped}; \
         closed: {closed}"
    ))
}
