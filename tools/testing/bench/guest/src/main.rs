// SPDX-License-Identifier: GPL-2.0

//! The program in the guest of rig R2: drives its rows against `peer` with blocking sockets, and
//! prints one line for each.
//!
//! Between the marks of [`ring::sys::marker`] nothing happens but the operations that are counted.
//! `clock` is the time of the guest: with `-icount shift=0` one instruction takes a nanosecond, but
//! the time in which the guest sleeps is in it, too.
//!
//! Usage: `guest [PATTERN...]`: rows whose name matches.

mod counts;
mod memory;
mod rows;
mod socket;

use measure::Bench;
use std::{env, process::ExitCode, thread, time::Duration};

fn main() -> ExitCode {
    // Names of rows have the rig already, as the peer may be one or the other.
    let bench = Bench::new("", env::args().skip(1).collect());
    // A wake-up of the driver's threads preempts this program or not as it happens, from which two
    // boots differ by 2 to 5 per cent. So it goes after them always: they do what there is to do,
    // then it goes on.
    if let Err(error) = ring::sys::process::set_scheduler(libc::SCHED_IDLE, 0) {
        println!("failed: {error}");
        return ExitCode::FAILURE;
    }
    // Self tests of the kernel disturb the first seconds.
    thread::sleep(Duration::from_secs(1));
    let mut status = ExitCode::SUCCESS;
    for row in rows::ROWS {
        if !bench.attempt(row.name, || row.run(&bench)) {
            status = ExitCode::FAILURE;
        }
    }
    status
}
