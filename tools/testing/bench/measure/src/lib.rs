// SPDX-License-Identifier: GPL-2.0

//! What the programs of the bench share: rows, the application's end of a connection, and what a
//! peer is asked to do.
//!
//! - [`Bench`]: which rows are wanted, and one line of output for each;
//! - [`counters`]: what is counted beside instructions;
//! - [`app`]: an application with blocking sockets of AF_VSOCK;
//! - [`service`]: what the application asks of its peer at the beginning of a connection.
//!
//! A row is measured between two marker instructions ([`ring::sys::marker`]), between which QEMU's
//! plugin counts what the VM executes. The line of a row has its name, the number of operations,
//! and what else was counted in all of them; the lab divides.

pub use counters::Counters;

use counters::context_switches;
use ring::{sys, sys::marker, Try};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

pub mod app;
pub mod counters;
pub mod service;

/// Which rows are wanted.
pub struct Bench {
    patterns: Vec<String>,
    prefix: String,
}

/// Windows that this process opened, of which each was closed.
static WINDOWS: AtomicU64 = AtomicU64::new(0);

impl Bench {
    /// Rows whose names match one of `patterns` (shell patterns, after `prefix`), or all if there
    /// is none.
    pub fn new(prefix: &str, patterns: Vec<String>) -> Self {
        Self {
            patterns,
            prefix: prefix.to_owned(),
        }
    }

    /// The same choice for rows that begin in another way.
    pub fn with_prefix(&self, prefix: &str) -> Self {
        Self::new(prefix, self.patterns.clone())
    }

    /// Whether a row is wanted.
    pub fn wants(&self, name: &str) -> bool {
        let full = self.full(name);
        self.patterns.is_empty() || self.patterns.iter().any(|p| sys::matches(p, &full))
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Runs `body`, which makes the row `name` if that is wanted. That it cannot be made is told,
    /// and the other rows go on: the C modules cannot do all of them. Returns false in that case.
    pub fn attempt(&self, name: &str, body: impl FnOnce() -> Try<()>) -> bool {
        if !self.wants(name) {
            return true;
        }
        let result = body();
        if let Err(e) = &result {
            println!("failed {} {e}", self.full(name));
        }
        result.is_ok()
    }

    /// Runs `body`, which does `ops` operations, and prints the row. `count` reads the counters
    /// of the peer.
    pub fn row(
        &self,
        name: &str,
        ops: u64,
        count: impl Fn() -> Try<Counters>,
        body: impl FnOnce() -> Try<()>,
    ) -> Try<()> {
        let before = count()?;
        // What was begun before is done by then, on a clock that counts instructions.
        std::thread::sleep(Duration::from_millis(20));
        let switches = context_switches()?;
        let begin = Instant::now();
        marker::open();
        let result = body();
        marker::close();
        let clock = begin.elapsed().as_nanos();
        let window = WINDOWS.fetch_add(1, Ordering::Relaxed);
        let switches = context_switches()? - switches;
        result?;
        let counted = count()?.since(before);
        println!(
            "row {} ops={ops} window={window} clock={clock} switches={switches}{counted}",
            self.full(name)
        );
        Ok(())
    }

    /// Prints a row with a figure that is not counted by the plugin: `kind` says what it is.
    pub fn figure(&self, name: &str, kind: &str, value: f64) {
        println!("row {} kind={kind} value={value:.1}", self.full(name));
    }
}
