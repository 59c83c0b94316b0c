// SPDX-License-Identifier: GPL-2.0

//! Pages that are provided by a program, or never: `userfaultfd`.

use super::{check, memory::Mapping, owned, poll};
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

/// What provides pages of a mapping, when a program says so.
pub struct Faults(OwnedFd);

const UFFDIO_API: u32 = 0xc018_aa3f;
const UFFDIO_REGISTER: u32 = 0xc020_aa00;
const UFFDIO_COPY: u32 = 0xc028_aa03;
const UFFD_API: u64 = 0xaa;
const UFFDIO_WRITEPROTECT: u32 = 0xc018_aa06;
const MODE_MISSING: u64 = 1;
const MODE_WP: u64 = 2;

impl Faults {
    pub fn new() -> io::Result<Self> {
        // SAFETY: No memory is passed.
        let fd =
            unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK) };
        let this = Self(owned(fd as libc::c_int)?);
        let mut api = [UFFD_API, 0, 0];
        this.io(UFFDIO_API, &mut api)?;
        Ok(this)
    }

    /// Whether this kernel has no such thing.
    pub fn are_unknown() -> bool {
        matches!(Self::new(), Err(e) if e.raw_os_error() == Some(libc::ENOSYS))
    }

    fn io(&self, cmd: u32, arg: &mut [u64]) -> io::Result<()> {
        assert!(size_of_val(arg) >= ((cmd >> 16) & 0x3fff) as usize);
        let request = libc::Ioctl::from(cmd);
        // SAFETY: The argument is as large as the request says, and writable.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), request, arg.as_mut_ptr()) })?;
        Ok(())
    }

    /// Pages that are not there yet: whoever touches them waits from now on.
    pub fn register(&self, mem: &Mapping, offset: usize, len: usize) -> io::Result<()> {
        let begin = mem.addr() + offset as u64;
        self.io(UFFDIO_REGISTER, &mut [begin, len as u64, MODE_MISSING, 0])
    }

    /// Waits until a thread touches a page that is not there.
    pub fn wait(&self, timeout: Duration) -> io::Result<()> {
        if poll(&self.0, libc::POLLIN, timeout)? & libc::POLLIN == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut event = [0u64; 4];
        let (to, len) = (event.as_mut_ptr().cast(), size_of_val(&event));
        // SAFETY: An event has 32 bytes, for which there is room.
        check(unsafe { libc::read(self.0.as_raw_fd(), to, len) } as libc::c_int)?;
        Ok(())
    }

    /// Provides a page as a copy of another one; the threads that touched it go on.
    pub fn provide(&self, mem: &Mapping, offset: usize, page: &Mapping) -> io::Result<()> {
        const PAGE: u64 = 4096;
        assert!(offset as u64 + PAGE <= mem.len() as u64 && PAGE <= page.len() as u64);
        let to = mem.addr() + offset as u64;
        self.io(UFFDIO_COPY, &mut [to, page.addr(), PAGE, 0, 0])
    }

    /// Somebody who is to be asked before memory without a file is written, once it is protected.
    pub fn of_writes(mem: &Mapping) -> io::Result<Self> {
        let this = Self::new()?;
        let range = &mut [mem.addr(), mem.len() as u64, MODE_WP, 0];
        this.io(UFFDIO_REGISTER, range)?;
        Ok(this)
    }

    /// Protects all of the memory against writes, or not any more.
    pub fn protect(&self, mem: &Mapping, on: bool) -> io::Result<()> {
        let range = &mut [mem.addr(), mem.len() as u64, u64::from(on)];
        self.io(UFFDIO_WRITEPROTECT, range)
    }
}
