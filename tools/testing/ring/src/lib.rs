// SPDX-License-Identifier: GPL-2.0

//! A driver for the rings of `/dev/vhost-vsock`: it plays the VMM and the guest, good or hostile,
//! and the programs of the host.
//!
//! - [`sys`]: system calls;
//! - [`abi`], [`packet`], [`ring`]: what is said to the device, with any value;
//! - [`device`]: an open device with guest memory and rings; [`host`]: sockets of the host;
//! - [`observe`]: what the device did with a chain, in one word;
//! - [`slab`]: how much memory the kernel has in use; [`klog`]: what it says;
//! - [`talk`]: a child process of a case that is told what to do;
//! - [`fuse`], [`stuck`]: a file whose page is answered late, and a user who waits for it;
//! - [`cases`]: what is tried and what must happen;
//! - [`fuzz`]: random rings and packets;
//! - [`runner`], [`differences`]: running cases, and comparing with the C modules.

use std::{fmt, io, path::Path};

pub mod abi;
pub mod cases;
pub mod device;
pub mod differences;
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

/// Why a case could not be run to its end.
#[derive(Debug)]
pub struct Failure(pub String);

/// What may fail for reasons that a person has to read.
pub type Try<T> = Result<T, Failure>;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(host::errno(&error))
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Failure {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// Whether this is a kernel with all its checks, that of `make test-debug`: it is much slower, and
/// needs memory of its own for each object.
pub fn is_debug_kernel() -> bool {
    Path::new("/sys/kernel/debug/kmemleak").exists()
}

/// Prints a line for people.
pub fn note(text: impl AsRef<str>) {
    println!("# {}", text.as_ref());
}
