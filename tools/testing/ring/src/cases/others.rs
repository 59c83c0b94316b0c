// SPDX-License-Identifier: GPL-2.0

//! What one guest can do to others, and to those in other namespaces.

use super::{case, Case, Ctx};
use crate::{
    device::{Device, Setup, DATA, RX, TX},
    host::{errno, Socket},
    note,
    observe::{received, NOBODY},
    packet,
    ring::Desc,
    sys::process,
    talk, Try,
};
use std::time::{Duration, Instant};

pub const CASES: &[Case] = &[
    case(
        "N21/device-in-a-local-namespace",
        "from outside: ENODEV; from inside: connects; listener outside: RST",
        |ctx| namespaces(ctx),
    ),
    case(
        "N26/64-devices-one-hostile",
        "at most 20 % slower",
        hostile_neighbour,
    )
    .only_full()
    .seconds(240)
    .not_on_c("a measurement of time"),
];

/// Where a listener is, outside of the namespace of the guest.
const PORT: u32 = 4321;

/// Changes a setting of the current namespace.
fn sysctl(name: &str, value: &str) -> Try<()> {
    Ok(std::fs::write(
        format!("/proc/sys/net/vsock/{name}"),
        value,
    )?)
}

fn begin_to_connect(cid: u64) -> String {
    let begin = || -> std::io::Result<()> { Socket::stream()?.connect(cid, 1) };
    match begin() {
        Ok(()) => "connects".to_owned(),
        Err(e) => errno(&e),
    }
}

fn namespaces(ctx: &Ctx) -> Try<String> {
    // One of our own, so that nothing is changed for others, and whose children are local.
    process::unshare(libc::CLONE_NEWNET)?;
    sysctl("child_ns_mode", "local")?;
    let _listener = Socket::listener(libc::SOCK_STREAM, PORT, 8)?;
    let cid = 0x5400_0000;
    let mut child = talk::fork(|talk| {
        process::unshare(libc::CLONE_NEWNET)?;
        let setup = Setup {
            cid: Some(cid),
            ..Setup::default()
        };
        let mut dev = setup.open()?;
        let inside = begin_to_connect(cid);
        dev.recv_all()?;
        let request = dev.header(packet::REQUEST, 1, PORT);
        dev.send(request, &[])?;
        let answers = received(&mut dev, "")?;
        talk.tell(&format!(
            "from inside: {inside}; listener outside: {answers}"
        ))?;
        talk.hear()?;
        Ok(())
    })?;
    let text = child.talk.hear()?;
    let outside = begin_to_connect(cid);
    child.talk.tell("enough")?;
    child.finish(Duration::from_secs(5) * ctx.scale)?;
    Ok(format!("from outside: {outside}; {text}"))
}

/// Packets that some devices exchange with the host in a second, measured for a time.
fn throughput(devices: &mut [Device], time: Duration) -> Try<u64> {
    let begin = Instant::now();
    let mut answers = 0;
    loop {
        for dev in devices.iter_mut() {
            for port in 0..2 {
                let header = dev.header(packet::REQUEST, port, NOBODY);
                dev.put(header, &[]);
            }
            dev.kick(TX);
        }
        for dev in devices.iter_mut() {
            dev.flush()?;
            dev.q[TX].take_all();
            while dev.recv().is_some() {
                answers += 1;
            }
        }
        let took = begin.elapsed();
        if took >= time {
            return Ok(answers * 1_000_000 / took.as_micros() as u64);
        }
    }
}

/// Chains of as many empty descriptors as the ring has, again and again.
fn hostile() -> Try<()> {
    let mut dev = Setup::num(32768).open()?;
    loop {
        for n in 0..32767u16 {
            dev.q[TX].set(n, Desc::new(DATA, 0).next(n + 1));
        }
        dev.q[TX].set(32767, Desc::new(DATA, 0).next(0));
        dev.q[TX].offer(0);
        for _ in 0..100 {
            dev.kick(TX);
            dev.kick(RX);
        }
        dev.flush()?;
        dev.restart()?;
    }
}

/// What has nothing to do with devices, and as much to do.
fn harmless() -> Try<()> {
    loop {
        std::hint::spin_loop();
    }
}

/// A process that runs when it is told to.
struct Neighbour(process::Child);

impl Neighbour {
    fn new(run: fn() -> Try<()>) -> Try<Self> {
        let child = process::fork(|| i32::from(run().is_err()))?;
        child.kill(libc::SIGSTOP);
        Ok(Self(child))
    }

    /// What some devices do beside it.
    fn beside(&self, devices: &mut [Device], time: Duration) -> Try<u64> {
        self.0.kill(libc::SIGCONT);
        let answers = throughput(devices, time)?;
        self.0.kill(libc::SIGSTOP);
        Ok(answers)
    }

    fn end(mut self, limit: Duration) -> Try<()> {
        self.0.kill(libc::SIGKILL);
        match self.0.wait(limit)? {
            Some(status) if status == -libc::SIGKILL => Ok(()),
            status => Err(format!("a neighbour ended with {status:?}").into()),
        }
    }
}

/// What some devices do beside a process that only computes, and beside one with a hostile device.
/// Either has a CPU for itself: the time of a CPU is what any process can take from another, and
/// the scheduler's to share out; this VM's CPUs may have to share one, too. The worker of the
/// hostile device has the CPU of its owner, so what is slower is slower for what the devices have
/// in common.
fn hostile_neighbour(ctx: &mut Ctx) -> Try<String> {
    process::set_limit(libc::RLIMIT_NOFILE, 4096)?;
    let harmless = Neighbour::new(|| {
        process::pin(1)?;
        harmless()
    })?;
    let hostile = Neighbour::new(|| {
        process::pin(1)?;
        hostile()
    })?;
    let mut devices = Vec::new();
    for _ in 0..63 {
        devices.push(Setup::buffers(16).open()?);
    }
    let time = Duration::from_millis(if ctx.full { 500 } else { 150 }) * ctx.scale;
    throughput(&mut devices, time)?;
    let mut found = [const { Vec::new() }; 2];
    // In turns: others of this machine come and go.
    for _ in 0..if ctx.full { 9 } else { 5 } {
        found[0].push(harmless.beside(&mut devices, time)?);
        found[1].push(hostile.beside(&mut devices, time)?);
    }
    for neighbour in [harmless, hostile] {
        neighbour.end(Duration::from_secs(10) * ctx.scale)?;
    }
    let [alone, together] = found.map(|mut all| {
        all.sort_unstable();
        // The median.
        all[all.len() / 2]
    });
    note(format!(
        "63 devices: {alone} answers in a second beside a harmless process, {together} beside a hostile one"
    ));
    Ok(if together * 10 >= alone * 8 {
        "at most 20 % slower"
    } else {
        "more than 20 % slower"
    }
    .to_owned())
}
