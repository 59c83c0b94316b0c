// SPDX-License-Identifier: GPL-2.0

//! One write by io_uring: in the system call of the caller, or by a thread of the kernel.

use super::{check, owned};
use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    ptr,
    sync::atomic::{AtomicU32, Ordering},
};

const OP_WRITE: u8 = 23;
const OFF_SQ_RING: i64 = 0;
const OFF_SQES: i64 = 0x1000_0000;
const ENTER_GETEVENTS: u32 = 1;
/// Where the offsets of the ring of submissions begin in `struct io_uring_params`, in words: `head`,
/// `tail`, `ring_mask`, `ring_entries`, `flags`, `dropped`, `array`.
const SQ_OFF: usize = 10;
const PAGE: usize = 4096;

/// An entry is for a thread of the kernel.
pub const ASYNC: u8 = 1 << 4;

/// A ring of one entry.
pub struct Uring {
    fd: OwnedFd,
    ring: *mut u8,
    entries: *mut u8,
    tail: usize,
    array: usize,
}

impl Uring {
    pub fn new() -> io::Result<Self> {
        let mut params = [0u32; 30];
        // SAFETY: The parameters are as large as the structure, and writable.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
        let fd = owned(fd as libc::c_int)?;
        let map = |offset: i64| {
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            let fd = fd.as_raw_fd();
            // SAFETY: A new mapping, wherever there is room.
            let at =
                unsafe { libc::mmap(ptr::null_mut(), PAGE, prot, libc::MAP_SHARED, fd, offset) };
            if at == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            Ok(at.cast::<u8>())
        };
        let (ring, entries) = (map(OFF_SQ_RING)?, map(OFF_SQES)?);
        Ok(Self {
            fd,
            ring,
            entries,
            tail: params[SQ_OFF + 1] as usize,
            array: params[SQ_OFF + 6] as usize,
        })
    }

    /// Writes eight bytes, and waits until that is done.
    pub fn write(&self, file: &File, bytes: &[u8; 8], flags: u8) -> io::Result<()> {
        let mut entry = [0u8; 64];
        entry[0] = OP_WRITE;
        entry[1] = flags;
        entry[4..8].copy_from_slice(&file.as_raw_fd().to_ne_bytes());
        entry[16..24].copy_from_slice(&(bytes.as_ptr() as u64).to_ne_bytes());
        entry[24..28].copy_from_slice(&8u32.to_ne_bytes());
        assert!(self.tail + 4 <= PAGE && self.array + 4 <= PAGE);
        // SAFETY: The page of entries has room for the only one.
        unsafe { ptr::copy_nonoverlapping(entry.as_ptr(), self.entries, entry.len()) };
        let (array, tail) = (
            self.ring.wrapping_add(self.array),
            self.ring.wrapping_add(self.tail),
        );
        // SAFETY: Within the page, as was just looked at, and aligned, as the kernel has it.
        let array = unsafe { AtomicU32::from_ptr(array.cast()) };
        // SAFETY: As above.
        let tail = unsafe { AtomicU32::from_ptr(tail.cast()) };
        array.store(0, Ordering::Relaxed);
        tail.fetch_add(1, Ordering::Release);
        let none = ptr::null::<libc::sigset_t>();
        // SAFETY: No memory is passed but by the entry, which waits for its end here.
        let done = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.fd.as_raw_fd(),
                1,
                1,
                ENTER_GETEVENTS,
                none,
                0,
            )
        };
        check(done as libc::c_int)?;
        Ok(())
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        for at in [self.ring, self.entries] {
            // SAFETY: A mapping of ours, which nothing refers to any more.
            unsafe { libc::munmap(at.cast(), PAGE) };
        }
    }
}
