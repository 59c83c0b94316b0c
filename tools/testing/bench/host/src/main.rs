// SPDX-License-Identifier: GPL-2.0

//! The host rig: a guest of our own on `/dev/vhost-vsock`, and applications of the host, on one CPU.
//!
//! - [`rings`]: the guest's rings; [`guest`]: what it does with them;
//! - [`machine`]: a guest that runs beside the application;
//! - [`rows`]: rows that other rigs do not have: listeners, devices, latency, memory.

use crate::{guest::Behaviour, machine::Machine, rings::Layout};
use measure::{app::Rows, Bench};
use ring::{Failure, Try};

mod guest;
mod machine;
mod rings;
mod rows;

/// As the C driver behaves in a guest of QEMU.
const C: Behaviour = Behaviour {
    layout: Layout::Indirect,
    buffer: 3776 + 44,
    window: 256 * 1024,
    update_always: true,
    tx_interrupts: true,
};

/// As our driver does.
const OURS: Behaviour = Behaviour {
    layout: Layout::One,
    update_always: false,
    tx_interrupts: false,
    ..C
};

/// As the C driver would, with buffers that take the largest packet.
const LARGE: Behaviour = Behaviour {
    buffer: 65536 + 44,
    ..C
};

/// Entries of a ring, as QEMU has it, and as the public harness for host halves has it.
const RING: u16 = 128;
const HARNESS_RING: u16 = 256;

/// The rows that are the same on each rig.
fn common(bench: &Bench, how: Behaviour, num: u16) -> Try<()> {
    let machine = Machine::start(how, num)?;
    Rows {
        bench,
        cid: machine.cid(),
        port: machine::PORT,
        count: || machine.counters(),
    }
    .all("to_guest", "to_host");
    Ok(())
}

fn run() -> Result<(), Failure> {
    let bench = Bench::new("host/", std::env::args().skip(1).collect());
    common(&bench, C, RING)?;
    common(&bench.with_prefix("host-ours/"), OURS, RING)?;
    common(&bench.with_prefix("host-64k/"), LARGE, RING)?;
    common(&bench.with_prefix("host-256/"), C, HARNESS_RING)?;
    rows::devices(&bench)?;
    rows::latency(&bench)?;
    rows::memory(&bench)?;
    // Its thousands of sockets stay for a while, and would be in the way of others.
    rows::listeners(&bench)
}

fn main() {
    if let Err(e) = run() {
        println!("not ok {e}");
        std::process::exit(1);
    }
}
