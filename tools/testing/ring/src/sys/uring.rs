// SPDX-License-Identifier: GPL-2.0

//! One write by io_uring, in the system call of the caller or by a thread of the kernel, which may
//! wait for another file as well.

use super::{check, owned};
use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    ptr,
    sync::atomic::{AtomicU32, Ordering},
};

const OP_POLL_ADD: u8 = 6;
const OP_WRITE: u8 = 23;
/// The size of an entry.
const ENTRY: usize = 64;
const OFF_SQ_RING: i64 = 0;
const OFF_SQES: i64 = 0x1000_0000;
const ENTER_GETEVENTS: u32 = 1;
/// Where the offsets of the ring of submissions begin in `struct io_uring_params`, in words:
/// `head`, `tail`, `ring_mask`, `ring_entries`, `flags`, `dropped`, `array`.
const SQ_OFF: usize = 10;
const PAGE: usize = 4096;

/// An entry is for a thread of the kernel.
pub const ASYNC: u8 = 1 << 4;

/// A ring of two entries.
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
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 2, params.as_mut_ptr()) };
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
        let entry = entry(OP_WRITE, flags, file, bytes.as_ptr());
        // SAFETY: The bytes are there until this returns.
        unsafe { self.submit(&[entry]) }
    }

    /// Writes eight bytes, and waits in the same system call until another file can be read.
    pub fn write_and_wait(&self, to: &File, bytes: &[u8; 8], from: &File) -> io::Result<()> {
        let write = entry(OP_WRITE, 0, to, bytes.as_ptr());
        let mut poll = [0u8; ENTRY];
        poll[0] = OP_POLL_ADD;
        poll[4..8].copy_from_slice(&from.as_raw_fd().to_ne_bytes());
        poll[28..32].copy_from_slice(&(libc::POLLIN as u32).to_ne_bytes());
        // SAFETY: The bytes are there until this returns.
        unsafe { self.submit(&[write, poll]) }
    }

    /// Submits entries, and waits until they are done.
    ///
    /// # Safety
    ///
    /// Their memory is there until this returns.
    unsafe fn submit(&self, entries: &[[u8; ENTRY]]) -> io::Result<()> {
        let count = entries.len();
        assert!(count <= 2 && self.tail + 4 <= PAGE && self.array + 8 <= PAGE);
        for (n, entry) in entries.iter().enumerate() {
            let to = self.entries.wrapping_add(n * ENTRY);
            // SAFETY: The page of entries has room for two.
            unsafe { ptr::copy_nonoverlapping(entry.as_ptr(), to, ENTRY) };
            let slot = self.ring.wrapping_add(self.array + n * 4);
            // SAFETY: Within the page, as was just looked at, and aligned, as the kernel has it.
            let slot = unsafe { AtomicU32::from_ptr(slot.cast()) };
            slot.store(n as u32, Ordering::Relaxed);
        }
        let tail = self.ring.wrapping_add(self.tail);
        // SAFETY: As above.
        let tail = unsafe { AtomicU32::from_ptr(tail.cast()) };
        tail.fetch_add(count as u32, Ordering::Release);
        let none = ptr::null::<libc::sigset_t>();
        // SAFETY: No memory is passed but by the entries, which the caller keeps.
        let done = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.fd.as_raw_fd(),
                count as u32,
                count as u32,
                ENTER_GETEVENTS,
                none,
                0,
            )
        };
        check(done as libc::c_int)?;
        Ok(())
    }
}

/// An entry for eight bytes.
fn entry(op: u8, flags: u8, file: &File, bytes: *const u8) -> [u8; ENTRY] {
    let mut entry = [0u8; ENTRY];
    entry[0] = op;
    entry[1] = flags;
    entry[4..8].copy_from_slice(&file.as_raw_fd().to_ne_bytes());
    entry[16..24].copy_from_slice(&(bytes as u64).to_ne_bytes());
    entry[24..28].copy_from_slice(&8u32.to_ne_bytes());
    entry
}

impl Drop for Uring {
    fn drop(&mut self) {
        for at in [self.ring, self.entries] {
            // SAFETY: A mapping of ours, which nothing refers to any more.
            unsafe { libc::munmap(at.cast(), PAGE) };
        }
    }
}
