// SPDX-License-Identifier: GPL-2.0

//! The host rig: a guest of our own on `/dev/vhost-vsock`, and applications of the host, on one
//! CPU.
//!
//! - [`rings`]: the guest's rings; [`guest`]: what it does with them;
//! - [`kinds`]: how the guests behave that are measured;
//! - [`machine`]: a guest that runs beside the application;
//! - [`rows`]: rows that other rigs do not have: listeners, devices, latency, memory.

use crate::{
    guest::Behaviour,
    kinds::{C, HARNESS_RING, LARGE, OURS, OURS_BULK, OURS_SMALL, RING},
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
    fn to_guest(&self, sizes: &[usize]);
}

impl<F: Fn() -> Try<Counters>> Common for Rows<'_, F> {
    fn all(&self) {
        Rows::all(self, NAMES.0, NAMES.1);
    }

    fn round_trips_and_streams(&self) {
        self.round_trip("rr", libc::SOCK_STREAM, 64);
        self.streams(NAMES.0, NAMES.1);
    }

    fn to_guest(&self, sizes: &[usize]) {
        for size in sizes {
            self.to_peer(NAMES.0, libc::SOCK_STREAM, *size);
        }
    }
}

/// Each side with the guest that goes with it: ours with buffers as our driver has them, C as C.
fn own_guest(bench: &Bench) -> Try<()> {
    let ours = std::env::var_os("BENCH_SIDE").is_some_and(|side| side == "ours");
    let (small, bulk) = if ours {
        (OURS_SMALL, OURS_BULK)
    } else {
        (C, C)
    };
    with_guest(bench, small, RING, |rows| rows.to_guest(&[64]))?;
    with_guest(bench, bulk, RING, |rows| rows.to_guest(&[4096, 65536]))
}

fn run() -> Result<(), Failure> {
    let bench = Bench::new("host/", std::env::args().skip(1).collect());
    with_guest(&bench, C, RING, |rows| rows.all())?;
    with_guest(&bench.with_prefix("host-ours/"), OURS, RING, |rows| {
        rows.all()
    })?;
    with_guest(&bench.with_prefix("host-64k/"), LARGE, RING, |rows| {
        rows.to_guest(&[64, 4096, 65536])
    })?;
    own_guest(&bench.with_prefix("host-own/"))?;
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
