// SPDX-License-Identifier: GPL-2.0

//! Memory that the kernel and several threads of ours access at any time.

use super::check;
use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    ptr::NonNull,
    sync::{
        atomic::{AtomicU16, AtomicU64, AtomicU8, Ordering},
        Mutex,
    },
};

/// A mapping of pages, which are accessed as atomic bytes and words only.
///
/// Parts of it may be unmapped or protected, as a hostile VMM may do. Such a part must not be
/// accessed by us any more: that is a panic, or for a protected part a signal, and the end of the
/// process.
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
    /// Parts that are not ours any more, as (offset, length).
    holes: Mutex<Vec<(usize, usize)>>,
    /// Whether no part is ever unmapped, protected or moved, so that references into it are sound.
    whole: bool,
}

// SAFETY: All access is atomic.
unsafe impl Send for Mapping {}
// SAFETY: As above.
unsafe impl Sync for Mapping {}

fn map(len: usize, flags: libc::c_int, fd: libc::c_int) -> io::Result<Mapping> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: A new mapping replaces nothing.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, fd, 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(Mapping {
        base: NonNull::new(base.cast()).expect("nothing is mapped at 0"),
        len,
        holes: Mutex::new(Vec::new()),
        whole: false,
    })
}

impl Mapping {
    /// Memory without a file, shared with child processes.
    pub fn shared(len: usize) -> io::Result<Self> {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        map(len, flags, -1)
    }

    /// As [`Self::shared`], and no part can be taken out of it: it can be accessed by
    /// [`Self::words`].
    pub fn whole(len: usize) -> io::Result<Self> {
        let mut mapping = Self::shared(len)?;
        mapping.whole = true;
        Ok(mapping)
    }

    /// As QEMU has a guest's memory: not shared, of huge pages where the kernel has some, and no
    /// part can be taken out of it.
    pub fn of_guest(len: usize) -> io::Result<Self> {
        let mut mapping = Self::private(len)?;
        match mapping.advise(0, len, libc::MADV_HUGEPAGE) {
            // The kernel has none.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
            done => done?,
        }
        mapping.whole = true;
        Ok(mapping)
    }

    /// Memory without a file, not shared: such as huge pages are made of.
    pub fn private(len: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        map(len, flags, -1)
    }

    /// Memory of huge pages.
    pub fn huge(len: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB;
        map(len, flags, -1)
    }

    /// The memory of a file.
    pub fn of_file(file: &File, len: usize) -> io::Result<Self> {
        map(len, libc::MAP_SHARED, file.as_raw_fd())
    }

    /// The memory of a file, which does not get what is written here.
    pub fn private_of_file(file: &File, len: usize) -> io::Result<Self> {
        map(len, libc::MAP_PRIVATE, file.as_raw_fd())
    }

    /// Where it is.
    pub fn addr(&self) -> u64 {
        self.base.as_ptr() as u64
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes, which it never has.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The address of `len` bytes, which must be there.
    pub(super) fn at(&self, offset: usize, len: usize) -> *mut u8 {
        let end = offset.checked_add(len).expect("an offset too large");
        assert!(end <= self.len, "{offset:#x}+{len:#x} is outside");
        let holes = self.holes.lock().unwrap_or_else(|e| e.into_inner());
        assert!(
            !holes.iter().any(|(at, n)| offset < at + n && *at < end),
            "{offset:#x}+{len:#x} was unmapped"
        );
        // SAFETY: The result is in the mapping, as was just checked.
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// All of it in words of 64 bits, for a program that must not spend time on checks; only of
    /// [`Self::whole`].
    pub fn words(&self) -> &[AtomicU64] {
        assert!(self.whole, "parts of it may go");
        let (base, len) = (self.base.as_ptr().cast(), self.len / 8);
        // SAFETY: The mapping is aligned and zeroed, all access is atomic, and it stays as a whole
        // until `self` is dropped.
        unsafe { std::slice::from_raw_parts(base, len) }
    }

    /// As [`Self::words`], in words of 16 bits.
    pub fn halves(&self) -> &[AtomicU16] {
        assert!(self.whole, "parts of it may go");
        let (base, len) = (self.base.as_ptr().cast(), self.len / 2);
        // SAFETY: As above.
        unsafe { std::slice::from_raw_parts(base, len) }
    }

    /// Whether parts of it may be taken away.
    fn may_change(&self) -> io::Result<()> {
        if self.whole {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        Ok(())
    }

    /// Copies bytes in.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let mut to = self.at(offset, bytes.len());
        let mut bytes = bytes;
        while !bytes.is_empty() {
            if to as usize % 8 == 0 && bytes.len() >= 8 {
                let (word, rest) = bytes.split_at(8);
                let word = u64::from_ne_bytes(word.try_into().expect("8 bytes"));
                // SAFETY: In the mapping, aligned; all access is atomic.
                unsafe { AtomicU64::from_ptr(to.cast()) }.store(word, Ordering::Relaxed);
                // SAFETY: At most the end of the mapping.
                to = unsafe { to.add(8) };
                bytes = rest;
            } else {
                // SAFETY: In the mapping; all access is atomic.
                unsafe { AtomicU8::from_ptr(to) }.store(bytes[0], Ordering::Relaxed);
                // SAFETY: At most the end of the mapping.
                to = unsafe { to.add(1) };
                bytes = &bytes[1..];
            }
        }
    }

    /// Copies bytes out.
    pub fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        let mut from = self.at(offset, len);
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            if from as usize % 8 == 0 && len - bytes.len() >= 8 {
                // SAFETY: In the mapping, aligned; all access is atomic.
                let word = unsafe { AtomicU64::from_ptr(from.cast()) }.load(Ordering::Relaxed);
                bytes.extend_from_slice(&word.to_ne_bytes());
                // SAFETY: At most the end of the mapping.
                from = unsafe { from.add(8) };
            } else {
                // SAFETY: In the mapping; all access is atomic.
                bytes.push(unsafe { AtomicU8::from_ptr(from) }.load(Ordering::Relaxed));
                // SAFETY: At most the end of the mapping.
                from = unsafe { from.add(1) };
            }
        }
        bytes
    }

    /// Fills with a byte.
    pub fn fill(&self, offset: usize, len: usize, byte: u8) {
        self.write(offset, &vec![byte; len]);
    }

    /// Reads 16 bits of little endian, and what was written before they were.
    pub fn load16(&self, offset: usize) -> u16 {
        let at = self.at(offset, 2).cast::<u16>();
        assert!(at.is_aligned());
        // SAFETY: In the mapping, aligned; all access is atomic.
        u16::from_le(unsafe { AtomicU16::from_ptr(at) }.load(Ordering::Acquire))
    }

    /// Writes 16 bits as little endian, after all that was written before.
    pub fn store16(&self, offset: usize, value: u16) {
        let at = self.at(offset, 2).cast::<u16>();
        assert!(at.is_aligned());
        // SAFETY: In the mapping, aligned; all access is atomic.
        unsafe { AtomicU16::from_ptr(at) }.store(value.to_le(), Ordering::Release);
        // What we read next (whether to kick) is read after it is visible.
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    /// Changes the protection of pages (`libc::PROT_*`).
    pub fn protect(&self, offset: usize, len: usize, prot: i32) -> io::Result<()> {
        self.may_change()?;
        let at = self.at(offset, len);
        // SAFETY: These are pages of ours, without references into them.
        check(unsafe { libc::mprotect(at.cast(), len, prot) })?;
        Ok(())
    }

    /// Gives advice (`libc::MADV_*`).
    pub fn advise(&self, offset: usize, len: usize, advice: i32) -> io::Result<()> {
        let at = self.at(offset, len);
        // SAFETY: These are pages of ours, without references into them.
        check(unsafe { libc::madvise(at.cast(), len, advice) })?;
        Ok(())
    }

    /// Unmaps pages: they are not to be accessed any more.
    pub fn unmap(&self, offset: usize, len: usize) -> io::Result<()> {
        self.may_change()?;
        let at = self.at(offset, len);
        self.holes
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .push((offset, len));
        // SAFETY: These were pages of ours; `at()` refuses them from now on.
        check(unsafe { libc::munmap(at.cast(), len) })?;
        Ok(())
    }

    /// Unmaps pages, and maps others in their place, without any content.
    pub fn map_anew(&self, offset: usize, len: usize) -> io::Result<()> {
        self.may_change()?;
        let at = self.at(offset, len).cast();
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: These are pages of ours, without references into them.
        let new = unsafe { libc::mmap(at, len, prot, flags, -1, 0) };
        if new == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Moves pages out of their place and back, with a hole in between.
    pub fn move_away_and_back(&self, offset: usize, len: usize) -> io::Result<()> {
        self.may_change()?;
        let at = self.at(offset, len).cast();
        // SAFETY: Pages of ours; until they are back, others must not access them, as the caller
        // knows: in this program only the kernel does.
        let away = unsafe { libc::mremap(at, len, len * 2, libc::MREMAP_MAYMOVE) };
        if away == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: The place is where the pages were, a hole in our mapping.
        let back = unsafe { libc::mremap(away, len * 2, len, flags, at) };
        if back == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // In one go only if nobody else can have got a part of it meanwhile.
        if self.holes.get_mut().is_ok_and(|holes| holes.is_empty()) {
            // SAFETY: The mapping is ours, and nobody has a reference to it any more.
            unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
        }
    }
}
