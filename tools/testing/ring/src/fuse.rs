// SPDX-License-Identifier: GPL-2.0

//! A file system of a user without any privilege: one file of one page, which is answered when
//! the user likes to.
//!
//! Whoever reads or writes memory that the page is mapped to waits until then, in the kernel too.
//! It is what anybody can do: a user namespace of one's own, in it a mount of FUSE, and a program
//! that reads `/dev/fuse`. The protocol is that of `include/uapi/linux/fuse.h`.

use crate::{
    sys::{self, memory::Mapping, process},
    Try,
};
use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    time::{Duration, Instant},
};

/// Bytes of the page.
pub const PAGE: usize = 4096;

/// Where it is mounted, in a mount namespace of its own.
const PLACE: &str = "/tmp";

const ROOT: u64 = 1;
const FILE: u64 = 2;
const DIRECTORY_MODE: u32 = libc::S_IFDIR | 0o755;
const FILE_MODE: u32 = libc::S_IFREG | 0o644;
/// For how long the kernel may keep what it was told.
const FOR_EVER: u64 = 1 << 20;

/// What the kernel may ask; all else is refused with `ENOSYS`.
mod op {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const RELEASE: u32 = 18;
    pub const INIT: u32 = 26;
    pub const INTERRUPT: u32 = 36;
    pub const BATCH_FORGET: u32 = 42;
}

/// Goes to a user namespace and a mount namespace of its own and mounts the file system, as an
/// ordinary user with the number `uid`; returns the server's end of it.
///
/// To be called while this process has one thread.
pub fn mount(uid: u32) -> Try<File> {
    process::own_proc_files()?;
    process::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{uid} {uid} 1"))?;
    // It must be opened by a user of this namespace.
    let server = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")?;
    let options = format!(
        "fd={},rootmode=40000,user_id={uid},group_id={uid}",
        server.as_raw_fd()
    );
    let text = |text: &str| CString::new(text).map_err(|_| "a string with a zero");
    process::mount(c"fuse", &text(PLACE)?, &text(&options)?)?;
    Ok(server)
}

/// The page, mapped: nobody has asked for it yet. The file is served by another thread.
pub fn map() -> Try<Mapping> {
    let file = File::open(format!("{PLACE}/page"))?;
    Ok(Mapping::private_of_file(&file, PAGE)?)
}

/// Bytes of a reply, in the order of the machine.
#[derive(Default)]
struct Reply(Vec<u8>);

impl Reply {
    fn long(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn word(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    /// `struct fuse_attr`
    fn attributes(self, node: u64) -> Self {
        let (mode, size) = match node {
            ROOT => (DIRECTORY_MODE, 0),
            _ => (FILE_MODE, PAGE as u64),
        };
        let times = self.long(node).long(size).long(1).long(0).long(0).long(0);
        let owner = times.word(0).word(0).word(0).word(mode).word(1);
        owner.word(0).word(0).word(0).word(PAGE as u32).word(0)
    }

    /// `struct fuse_init_out`, with nothing that is optional.
    fn init() -> Self {
        let begin = Self::default().word(7).word(31).word(0).word(0);
        let sizes = begin.word(0).word(PAGE as u32).word(1).word(0);
        (0..8).fold(sizes, |reply, _| reply.word(0))
    }
}

/// The server.
pub struct Server {
    device: File,
    /// What the page is answered with.
    page: Vec<u8>,
    /// Who waits for the page.
    waiting: Vec<u64>,
}

impl Server {
    pub fn new(device: File, page: Vec<u8>) -> Self {
        assert_eq!(page.len(), PAGE);
        Self {
            device,
            page,
            waiting: Vec::new(),
        }
    }

    /// Serves until this process ends. Says a byte when somebody waits for the page; it is answered
    /// when a byte is said here, or after `patience`.
    pub fn run(mut self, mut control: UnixStream, patience: Duration) -> Try<()> {
        let mut since = None;
        loop {
            let tick = Duration::from_millis(20);
            if sys::poll(&self.device, libc::POLLIN, Duration::from_millis(1))? != 0 {
                self.request()?;
            }
            if since.is_none() && !self.waiting.is_empty() {
                since = Some(Instant::now());
                control.write_all(b"w")?;
            }
            let told = match since {
                None => false,
                Some(_) => sys::poll(&control, libc::POLLIN, tick)? != 0,
            };
            if told || since.is_some_and(|since| since.elapsed() > patience) {
                let page = std::mem::take(&mut self.page);
                for unique in std::mem::take(&mut self.waiting) {
                    self.reply(unique, 0, &page)?;
                }
                return Ok(());
            }
        }
    }

    fn request(&mut self) -> Try<()> {
        // As much as the kernel wants there to be room for.
        let mut bytes = [0; 8192 + 4096];
        let len = self.device.read(&mut bytes)?;
        let request = bytes.get(..len).unwrap_or_default();
        let word = |at: usize| {
            Some(u32::from_ne_bytes(
                request.get(at..at + 4)?.try_into().ok()?,
            ))
        };
        let long = |at: usize| {
            Some(u64::from_ne_bytes(
                request.get(at..at + 8)?.try_into().ok()?,
            ))
        };
        let (Some(opcode), Some(unique), Some(node)) = (word(4), long(8), long(16)) else {
            return Err(format!("a request of {len} bytes").into());
        };
        let name = request.get(40..).unwrap_or_default();
        match opcode {
            op::INIT => self.reply(unique, 0, &Reply::init().0),
            op::LOOKUP if node == ROOT && name == b"page\0" => {
                let entry = Reply::default().long(FILE).long(0).long(FOR_EVER);
                let entry = entry.long(FOR_EVER).word(0).word(0).attributes(FILE);
                self.reply(unique, 0, &entry.0)
            }
            op::LOOKUP => self.reply(unique, -libc::ENOENT, &[]),
            op::GETATTR => {
                let attributes = Reply::default().long(FOR_EVER).word(0).word(0);
                self.reply(unique, 0, &attributes.attributes(node).0)
            }
            op::OPEN => self.reply(unique, 0, &Reply::default().long(0).long(0).0),
            op::READ => {
                self.waiting.push(unique);
                Ok(())
            }
            op::RELEASE => self.reply(unique, 0, &[]),
            op::FORGET | op::BATCH_FORGET | op::INTERRUPT => Ok(()),
            _ => self.reply(unique, -libc::ENOSYS, &[]),
        }
    }

    /// Answers a request. One that nobody waits for any more is no failure.
    fn reply(&mut self, unique: u64, error: i32, bytes: &[u8]) -> Try<()> {
        let len = 16 + bytes.len() as u32;
        let head = Reply::default().word(len).word(error as u32).long(unique);
        match self.device.write_all(&[&head.0, bytes].concat()) {
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            ret => Ok(ret?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_as_long_as_the_kernel_wants() {
        assert_eq!(Reply::init().0.len(), 64);
        assert_eq!(Reply::default().attributes(FILE).0.len(), 88);
        let mode = |node| Reply::default().attributes(node).0[60..64].to_vec();
        assert_eq!(mode(ROOT), 0o040755u32.to_ne_bytes());
        assert_eq!(mode(FILE), 0o100644u32.to_ne_bytes());
    }
}
