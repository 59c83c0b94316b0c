// SPDX-License-Identifier: GPL-2.0

//! What one guest can do to others, and to those in other namespaces.

use super::{case, Case, Ctx};
use crate::{
    device::{Device, Setup, DATA, RX, TX},
    host::{errno, Socket},
    note,
    observe::NOBODY,
    packet,
    ring::Desc,
    sys::{memory::Mapping, process},
    Try,
};
use std::time::{Duration, Instant};

pub const CASES: &[Case] = &[
    case(
        "N21/device-in-a-local-namespace",
        "from outside: ENODEV; from inside: connects; listener outside: RST",
        |_| namespaces(),
    )
    .only_full(),
    case(
        "N26/64-devices-one-hostile",
        "at most 20 % slower",
        hostile_neighbour,
    )
    .parallel()
    .seconds(240)
    .not_on_c("a measurement of time")
    .only_full(),
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

fn namespaces() -> Try<String> {
    // One of our own, so that nothing is changed for others, and whose children are local.
    process::unshare(libc::CLONE_NEWNET)?;
    sysctl("child_ns_mode", "local")?;
    let _listener = Socket::listener(libc::SOCK_STREAM, PORT, 8)?;
    let cid = 0x5400_0000;
    let shared = Mapping::shared(4096)?;
    let mut child = process::fork(|| {
        let run = || -> Try<String> {
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
            let answers: Vec<_> = dev.recv_all()?.iter().map(|p| p.name()).collect();
            shared.store16(0, 1);
            while shared.load16(2) == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(format!(
                "from inside: {inside}; listener outside: {}",
                answers.join(" ")
            ))
        };
        let text = run().unwrap_or_else(|failure| failure.0);
        shared.write(8, text.as_bytes());
        shared.store16(0, 1);
        0
    })?;
    while shared.load16(0) == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let outside = begin_to_connect(cid);
    shared.store16(2, 1);
    child.wait(Duration::from_secs(5))?;
    let text = shared.read(8, 500);
    let text: String = text
        .iter()
        .take_while(|b| **b != 0)
        .map(|b| char::from(*b))
        .collect();
    Ok(format!("from outside: {outside}; {text}"))
}

/// Packets that some devices exchange with the host in a time.
fn throughput(devices: &mut [Device], time: Duration) -> Try<u32> {
    let begin = Instant::now();
    let mut answers = 0;
    while begin.elapsed() < time {
        for dev in devices.iter_mut() {
            for port in 0..8 {
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
    }
    Ok(answers)
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

fn hostile_neighbour(ctx: &mut Ctx) -> Try<String> {
    process::set_limit(libc::RLIMIT_NOFILE, 4096)?;
    let mut neighbour = process::fork(|| i32::from(hostile().is_err()))?;
    neighbour.kill(libc::SIGSTOP);
    let mut devices = Vec::new();
    for _ in 0..63 {
        devices.push(Setup::buffers(16).open()?);
    }
    let time = Duration::from_millis(500);
    throughput(&mut devices, time)?;
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for _ in 0..9 {
        alone.push(throughput(&mut devices, time)?);
        neighbour.kill(libc::SIGCONT);
        together.push(throughput(&mut devices, time)?);
        neighbour.kill(libc::SIGSTOP);
    }
    neighbour.kill(libc::SIGKILL);
    let status = neighbour.wait(Duration::from_secs(10))?;
    if status != Some(-libc::SIGKILL) {
        return Err(format!("the hostile one ended with {status:?}").into());
    }
    let _ = ctx;
    alone.sort_unstable();
    together.sort_unstable();
    // Medians.
    let (alone, together) = (alone[4], together[4]);
    note(format!(
        "63 devices: {alone} answers in {time:?}, {together} beside a hostile one"
    ));
    Ok(if together * 10 >= alone * 8 {
        "at most 20 % slower"
    } else {
        "more than 20 % slower"
    }
    .to_owned())
}
