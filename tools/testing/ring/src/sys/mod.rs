// SPDX-License-Identifier: GPL-2.0

//! System calls that `std` does not have, behind functions that are safe to call.
//!
//! This is the only place of the ring driver with `unsafe`.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::Duration,
};

pub mod fault;
pub mod marker;
pub mod memory;
pub mod process;
pub mod socket;
pub mod uring;

/// The result of a system call that returns -1 and sets `errno`.
pub(crate) fn check(ret: libc::c_int) -> io::Result<libc::c_int> {
    if ret < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(ret)
    }
}

/// Takes a descriptor that was just made.
fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    let fd = check(fd)?;
    // SAFETY: The descriptor is new, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An ioctl whose argument is a buffer that the kernel reads or writes.
///
/// The buffer must have room for what the kernel writes for `cmd`: 304 bytes are enough for any
/// request of vhost, and smaller ones are refused.
pub fn ioctl(fd: &impl AsRawFd, cmd: u32, arg: &mut [u8]) -> io::Result<i32> {
    assert!(arg.len() >= 304 || arg.len() >= ((cmd >> 16) & 0x3fff) as usize);
    // SAFETY: `arg` is writable, and as large as the request says; the kernel checks the rest.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::Ioctl::from(cmd), arg.as_mut_ptr()) })
}

/// An ioctl with any argument, which is an address to the kernel. It must be one that the kernel
/// cannot write to: nothing, or nothing of ours, is mapped there.
pub fn ioctl_wild(fd: &impl AsRawFd, cmd: u32, arg: u64) -> io::Result<i32> {
    assert!(arg <= 0x10000 || arg >= 1 << 47);
    // SAFETY: Nothing is mapped below `vm.mmap_min_addr`, nor above the user half.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::Ioctl::from(cmd), arg) })
}

/// A new eventfd that does not block.
pub fn eventfd() -> io::Result<File> {
    // SAFETY: No memory is passed.
    let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    Ok(File::from(owned(fd)?))
}

/// A file in memory.
pub fn memfd() -> io::Result<File> {
    // SAFETY: The name is a C string.
    let fd = unsafe { libc::memfd_create(c"ring".as_ptr(), libc::MFD_CLOEXEC) };
    Ok(File::from(owned(fd)?))
}

/// Waits until one of `events` (`libc::POLLIN`...) is there; returns those that are.
pub fn poll(fd: &impl AsRawFd, events: i16, timeout: Duration) -> io::Result<i16> {
    let mut one = libc::pollfd {
        fd: fd.as_raw_fd(),
        events,
        revents: 0,
    };
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: One structure is passed, and it is writable.
    let ret = unsafe { libc::poll(&mut one, 1, millis) };
    check(ret)?;
    Ok(one.revents)
}

/// Switches `O_NONBLOCK`.
pub fn set_nonblocking(fd: &impl AsRawFd, on: bool) -> io::Result<()> {
    // SAFETY: No memory is passed.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    let flags = if on {
        flags | libc::O_NONBLOCK
    } else {
        flags & !libc::O_NONBLOCK
    };
    // SAFETY: No memory is passed.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) })?;
    Ok(())
}

/// Waits for a grace period of RCU, so that what was given to it is freed soon.
pub fn rcu_barrier() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_long = 1;
    // SAFETY: No memory is passed. It fails with `nohz_full` only; then the caller waits less.
    unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
}

/// Whether `name` matches the shell pattern `pattern`.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (Ok(pattern), Ok(name)) = (
        std::ffi::CString::new(pattern),
        std::ffi::CString::new(name),
    ) else {
        return false;
    };
    // SAFETY: Both are C strings.
    unsafe { libc::fnmatch(pattern.as_ptr(), name.as_ptr(), 0) == 0 }
}
