// SPDX-License-Identifier: GPL-2.0

//! The processes of this machine and what they have open, as `/proc` tells. Processes come and go
//! meanwhile: what is gone is skipped.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// An open descriptor of a process.
pub struct Descriptor {
    pub pid: u32,
    pub fd: u32,
    /// What `/proc/PID/fd/FD` refers to.
    pub target: PathBuf,
}

impl Descriptor {
    /// The link itself, which `stat` follows to the open file.
    pub fn link(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", self.pid, self.fd).into()
    }

    /// What the kernel tells of it.
    pub fn fdinfo(&self) -> std::io::Result<String> {
        fs::read_to_string(format!("/proc/{}/fdinfo/{}", self.pid, self.fd))
    }
}

fn numbers(directory: &Path) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// All descriptors that may be seen; as root, all.
pub fn descriptors() -> impl Iterator<Item = Descriptor> {
    numbers(Path::new("/proc")).flat_map(|pid| {
        let directory = PathBuf::from(format!("/proc/{pid}/fd"));
        numbers(&directory)
            .filter_map(move |fd| {
                let target = fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?;
                Some(Descriptor { pid, fd, target })
            })
            .collect::<Vec<_>>()
    })
}

/// The name of a process's program.
pub fn program(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .map_or_else(|_| "?".into(), |name| name.trim_end().into())
}

/// The user that a process runs as.
pub fn uid(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Whether this process is root's, which sees everything.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
