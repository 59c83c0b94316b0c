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

use std::{env, process::ExitCode, thread, time::Duration};

fn main() -> ExitCode {
    let patterns: Vec<String> = env::args().skip(1).collect();
    // Self tests of the kernel disturb the first seconds.
    thread::sleep(Duration::from_secs(1));
    let mut status = ExitCode::SUCCESS;
    for row in rows::ROWS {
        let wanted = |pattern: &String| ring::sys::matches(pattern, row.name);
        if !patterns.is_empty() && !patterns.iter().any(wanted) {
            continue;
        }
        match row.run() {
            Ok(line) => println!("{line}"),
            Err(error) => {
                println!("failed {}: {error}", row.name);
                status = ExitCode::FAILURE;
            }
        }
    }
    status
}
