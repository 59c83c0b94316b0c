// SPDX-License-Identifier: GPL-2.0

//! The native back end of `vhost-user-vsock-pci` that plays the host of rig R2: a guest driver is
//! measured in a VM that counts instructions, and what its peer costs must not be in the count.
//!
//! - [`conn`]: one connection: credit, and the program of the host;
//! - [`host`]: all connections; [`counters`]: what happened;
//! - [`device`]: the rings;
//! - [`pace`]: when the host acts.
//!
//! Usage: `peer --socket PATH [--vm NAME] [--like c|ours] [--cid N]`. It ends when QEMU goes.
//! Without the name of the VM it is never in step with it: all is done at once.

mod conn;
mod counters;
mod device;
mod host;
mod pace;

use conn::Like;
use std::{
    process::ExitCode,
    sync::{Arc, RwLock},
};
use vhost_user_backend::VhostUserDaemon;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

struct Options {
    socket: String,
    vm: Option<String>,
    like: Like,
    cid: u64,
}

fn options() -> Option<Options> {
    let mut options = Options {
        socket: String::new(),
        vm: None,
        like: Like::C,
        cid: 3,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next()?;
        match argument.as_str() {
            "--socket" => options.socket = value,
            "--vm" => options.vm = Some(value),
            "--like" if value == "c" => options.like = Like::C,
            "--like" if value == "ours" => options.like = Like::Ours,
            "--cid" => options.cid = value.parse().ok()?,
            _ => return None,
        }
    }
    (!options.socket.is_empty()).then_some(options)
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!("usage: peer --socket PATH [--vm NAME] [--like c|ours] [--cid N]");
        return ExitCode::from(2);
    };
    let device = device::Device::new(options.cid, options.like, options.vm);
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let served = VhostUserDaemon::new("peer".to_owned(), Arc::new(RwLock::new(device)), memory)
        .and_then(|mut daemon| daemon.serve(&options.socket));
    if let Err(error) = served {
        eprintln!("peer: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
