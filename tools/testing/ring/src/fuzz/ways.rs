// SPDX-License-Identifier: GPL-2.0

//! Which way packets went into sockets, counted by probes of the kernel on functions of ours:
//! nothing is counted in the modules themselves.

use crate::Try;
use std::fs;

const TRACING: &str = "/sys/kernel/tracing";

/// A name for a probe, and the function.
const PROBES: [(&str, &str); 3] = [
    ("ring_fast", "rust_vsock_helper_sk_data_ready_unlocked"),
    ("ring_lock", "rust_vsock_helper_sock_lock_or_backlog"),
    ("ring_backlog", "rust_vsock_helper_sock_backlog_taken"),
];

/// Probes, which are gone when this is.
pub struct Ways(());

/// How many packets went each way.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// Through the gate, and the reader was woken, without the socket's lock.
    pub fast: u64,
    /// Under the lock, which nobody had.
    pub slow: u64,
    /// Into the backlog of a socket whose lock somebody had.
    pub backlog: u64,
}

fn control(file: &str, text: &str) -> Try<()> {
    use std::io::Write;
    let path = format!("{TRACING}/{file}");
    fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|e| format!("{path}: {text}: {e}").into())
}

impl Ways {
    pub fn watch() -> Try<Self> {
        let this = Self(());
        for (name, function) in PROBES {
            control("kprobe_events", &format!("p:{name} {function}\n"))?;
            control(&format!("events/kprobes/{name}/enable"), "1")?;
        }
        Ok(this)
    }

    pub fn counts(&self) -> Try<Counts> {
        let profile = fs::read_to_string(format!("{TRACING}/kprobe_profile"))?;
        let hits = |name: &str| {
            profile
                .lines()
                .map(|line| line.split_whitespace().collect::<Vec<_>>())
                .find(|words| words.first() == Some(&name))
                .and_then(|words| words.get(1)?.parse::<u64>().ok())
                .ok_or(format!("no probe {name} in {profile}"))
        };
        let (fast, lock, backlog) = (
            hits("ring_fast")?,
            hits("ring_lock")?,
            hits("ring_backlog")?,
        );
        Ok(Counts {
            fast,
            // A token in a backlog was put there by one that asked for the lock first.
            slow: lock.saturating_sub(backlog),
            backlog,
        })
    }
}

impl Drop for Ways {
    fn drop(&mut self) {
        for (name, _) in PROBES {
            let _ = control(&format!("events/kprobes/{name}/enable"), "0");
            let _ = control("kprobe_events", &format!("-:{name}\n"));
        }
    }
}
