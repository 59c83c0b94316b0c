// SPDX-License-Identifier: GPL-2.0

//! The host rig: a guest of our own on `/dev/vhost-vsock`, and applications of the host, on one CPU.
//!
//! - [`rings`]: the guest's rings; [`guest`]: what it does with them;
//! - [`kinds`]: how the guests behave that are measured;
//! - [`machine`]: a guest that runs beside the application;
//! - [`rows`]: rows that other rigs do not have: listeners, devices, latency, memory.

use crate::{
    guest::Behaviour,
    kinds::{C, HARNESS_RING, LARGE, OURS, RING},
    machine::Machine,
};
use measure::{app::Rows, Bench, Counters};
use ring::{Failure, Try};

mod guest;
mod kinds;
mod machine;
mod rings;
mod rows;

const NAMES: (&str, &str) = ("to_guest", "to_host");

/// Has `rows` made with a guest that behaves so.
fn with_guest(bench: &Bench, how: Behaviour, num: u16, rows: impl FnOnce(&dyn Common)) -> Try<()> {
    let machine = Machine::start(how, num)?;
    rows(&Rows {
        bench,
        cid: machine.cid(),
        port: machine::PORT,
        count: || Ok(machine.counters()),
    });
    Ok(())
}

/// [`Rows`], however they count.
trait Common {
    fn all(&self);
    fn round_trips_and_streams(&self);
    fn to_guest(&self);
}

impl<F: Fn() -> Try<Counters>> Common for Rows<'_, F> {
    fn all(&self) {
        Rows::all(self, NAMES.0, NAMES.1);
    }

    fn round_trips_and_streams(&self) {
        self.round_trip("rr", libc::SOCK_STREAM, 64);
        self.streams(NAMES.0, NAMES.1);
    }

    fn to_guest(&self) {
        for size in [64, 4096, 65536] {
            self.to_peer(NAMES.0, libc::SOCK_STREAM, size);
        }
    }
}

fn run() -> Result<(), Failure> {
    let bench = Bench::new("host/", std::env::args().skip(1).collect());
    with_guest(&bench, C, RING, |rows| rows.all())?;
    with_guest(&bench.with_prefix("host-ours/"), OURS, RING, |rows| {
        rows.all()
    })?;
    with_guest(&bench.with_prefix("host-64k/"), LARGE, RING, |rows| {
        rows.to_guest()
    })?;
    with_guest(&bench.with_prefix("host-256/"), C, HARNESS_RING, |rows| {
        rows.round_trips_and_streams()
    })?;
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
