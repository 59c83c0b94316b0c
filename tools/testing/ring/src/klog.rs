// SPDX-License-Identifier: GPL-2.0

//! The kernel's log, from some moment on.

use crate::Try;
use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
};

/// A place in the log.
pub struct KernelLog(File);

impl KernelLog {
    /// The end, as it is now.
    pub fn now() -> Try<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self(file))
    }

    /// What was said since the last time, a line each.
    pub fn lines(&mut self) -> Try<Vec<String>> {
        let mut lines = Vec::new();
        let mut record = [0; 8192];
        loop {
            match self.0.read(&mut record) {
                Ok(len) => {
                    let text = String::from_utf8_lossy(&record[..len]);
                    // Numbers, then the text, then what else there is to know, a line each.
                    if let Some((_, text)) = text.split_once(';') {
                        let line = text.lines().next().unwrap_or_default();
                        // The file escapes the backslash.
                        lines.push(line.replace("\\x5c", "\\"));
                    }
                }
                Err(e) => match e.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(lines),
                    // A record that was overwritten before it was read.
                    Some(libc::EPIPE) => {}
                    _ => return Err(e.into()),
                },
            }
        }
    }
}
