// SPDX-License-Identifier: GPL-2.0

//! When the host acts: at once, or when the guest has nothing to do any more.
//!
//! The back end runs natively beside a VM that is a hundred times slower than a processor, and is
//! scheduled as it happens: how many packets share an interrupt would be chance. In step with the
//! guest, each act of the host (take all packets; fill buffers with all that waits) comes after the
//! VM's processor and its main loop went to sleep, so that a run of instructions of the guest
//! always begins with the same packets.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

const STEP: Duration = Duration::from_micros(60);
/// So many looks in a row must find it asleep.
const LOOKS: u32 = 3;
/// A VM that computes for so long is not waiting for us.
const LIMIT: Duration = Duration::from_secs(20);

/// The threads of QEMU that must sleep: its main loop and the processor.
pub struct Threads(Vec<PathBuf>);

impl Threads {
    /// Finds the QEMU that has `name` as a word of its command line.
    pub fn of_vm(name: &str) -> Option<Self> {
        for entry in fs::read_dir("/proc").ok()?.flatten() {
            let path = entry.path();
            let Ok(command) = fs::read(path.join("cmdline")) else {
                continue;
            };
            let mut words = command.split(|byte| *byte == 0);
            let is_qemu = words
                .next()
                .is_some_and(|word| word.starts_with(b"qemu-system"));
            if is_qemu && words.any(|word| word == name.as_bytes()) {
                return Self::of_process(&path);
            }
        }
        None
    }

    fn of_process(path: &Path) -> Option<Self> {
        let main = path.file_name()?.to_owned();
        let mut found = vec![path.join("task").join(&main).join("stat")];
        for entry in fs::read_dir(path.join("task")).ok()?.flatten() {
            let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            if comm.trim_end().ends_with("/TCG") {
                found.push(entry.path().join("stat"));
            }
        }
        (found.len() > 1).then_some(Self(found))
    }

    /// Whether all of them sleep. A thread that is gone does nothing, either.
    fn sleep(&self) -> bool {
        self.0.iter().all(|path| {
            fs::read_to_string(path).is_ok_and(|stat| is_asleep(&stat)) || !path.exists()
        })
    }
}

/// The state is the first word after the name, which is in parentheses and may contain any byte.
fn is_asleep(stat: &str) -> bool {
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with('S'))
}

/// How the host is paced.
pub struct Pace {
    /// Without it the host is never in step.
    vm: Option<String>,
    threads: Option<Threads>,
    in_step: bool,
}

impl Pace {
    pub fn new(vm: Option<String>) -> Self {
        Self {
            vm,
            threads: None,
            in_step: false,
        }
    }

    pub fn set_in_step(&mut self, on: bool) {
        self.in_step = on;
    }

    /// Returns when the host may act. An error: the VM does not come to rest, or is not found.
    pub fn wait(&mut self) -> Result<(), String> {
        let Some(vm) = self.vm.as_ref().filter(|_| self.in_step) else {
            return Ok(());
        };
        if self.threads.is_none() {
            self.threads = Threads::of_vm(vm);
        }
        let threads = self
            .threads
            .as_ref()
            .ok_or_else(|| format!("no QEMU with {vm} in its command line"))?;
        let end = Instant::now() + LIMIT;
        let mut looks = 0;
        while looks < LOOKS {
            thread::sleep(STEP);
            looks = if threads.sleep() { looks + 1 } else { 0 };
            if Instant::now() > end {
                return Err("the guest does not come to rest".to_owned());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_behind_any_name() {
        assert!(is_asleep("12 (CPU 0/TCG) S 1 2"));
        assert!(!is_asleep("12 (CPU 0/TCG) R 1 2"));
        assert!(is_asleep("12 (a) R (b) S 1 2"));
        assert!(!is_asleep("12"));
    }
}
