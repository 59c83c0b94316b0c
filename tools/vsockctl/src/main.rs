// SPDX-License-Identifier: GPL-2.0

//! `vsockctl`: what the vsock stack of this machine does, and which one it is.
//!
//! The parts: [`cli`] has the commands and their options; [`guests`], [`sockets`] and
//! [`connections`] read what the kernel tells, [`top`] compares two looks, [`modules`] which
//! modules there are; [`doctor`] finds usual mistakes, [`switch`] changes between ours and C;
//! [`limit`] shows and sets what a guest may do, with the [`attributes`] of its device and the
//! ioctls of [`sys`]; [`prometheus`] and [`table`] print.

mod attributes;
mod cli;
mod connections;
mod doctor;
mod error;
mod fdinfo;
mod guests;
mod limit;
mod modules;
mod processes;
mod prometheus;
mod show;
mod sockets;
mod switch;
mod sys;
mod table;
mod top;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    match show::run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("vsockctl: {error}");
            ExitCode::FAILURE
        }
    }
}
