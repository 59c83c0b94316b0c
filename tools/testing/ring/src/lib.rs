// SPDX-License-Identifier: GPL-2.0

//! A driver for the rings of `/dev/vhost-vsock`: it plays the VMM and the guest, good or hostile,
//! and the programs of the host.
//!
//! - [`sys`]: system calls;
//! - [`abi`], [`packet`], [`ring`]: what is said to the device, with any value;
//! - [`device`]: an open device with guest memory and rings; [`host`]: sockets of the host;
//! - [`failure`]: why something could not be done;
//! - [`observe`]: what the device did with a chain, in one word;
//! - [`slab`]: how much memory the kernel has in use; [`klog`]: what it says;
//! - [`talk`]: a child process of a case that is told what to do;
//! - [`fuse`], [`stuck`]: a file whose page is answered late, and a user who waits for it;
//! - [`cases`]: what is tried and what must happen;
//! - [`fuzz`]: random rings and packets;
//! - [`runner`], [`differences`]: running cases, and comparing with the C modules.

use std::path::Path;

pub mod abi;
pub mod attr;
pub mod cases;
pub mod device;
pub mod differences;
pub mod failure;
pub mod fuse;
pub mod fuzz;
pub mod host;
pub mod klog;
pub mod observe;
pub mod packet;
pub mod ring;
pub mod rng;
pub mod runner;
pub mod slab;
pub mod stuck;
pub mod sys;
pub mod talk;

pub use failure::{Failure, Try};

/// Whether this is a kernel with all its checks, that of `make test-debug`: it is much slower, and
/// needs memory of its own for each object.
pub fn is_debug_kernel() -> bool {
    Path::new("/sys/kernel/debug/kmemleak").exists()
}

/// Prints a line for people.
pub fn note(text: impl AsRef<str>) {
    println!("# {}", text.as_ref());
}
