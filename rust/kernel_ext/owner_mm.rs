// SPDX-License-Identifier: GPL-2.0

//! The memory of the process that owns a device.
//!
//! A device of the vhost kind works on the memory of its owner: in ioctls of the owner, and in a
//! worker thread that shares the owner's address space. Both are the same to the code that reads
//! and writes there, so it asks for an [`InOwnerMm`], the evidence that the current thread is one
//! of the two.
//!
//! No Rust reference to that memory ever exists. Each access is a copy made by the functions of
//! C's uaccess, for which concurrent changes by user space are well defined.
//!
//! C header: [`include/linux/uaccess.h`](srctree/include/linux/uaccess.h).

use crate::bindings;
use kernel::{
    error::to_result,
    mm::{
        Mm,
        MmWithUser, //
    },
    prelude::*,
    sync::aref::ARef,
    types::NotThreadSafe,
    uaccess::UserSlice, //
};
use zerocopy::Immutable;

/// An address in the memory of the owner of a device.
///
/// It is a number that user space chose: having one proves nothing. In contrast to [`UserPtr`],
/// which is not [`Send`] because it refers to the memory of the current task, it may go from the
/// ioctls to the worker; it is of use only together with an [`InOwnerMm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerAddr(usize);

impl OwnerAddr {
    /// Makes an address out of a number that came from the owner.
    #[inline]
    pub const fn new(addr: usize) -> Self {
        Self(addr)
    }

    /// Makes an address out of a 64-bit field of an interface, or `None` if it is wider than an
    /// address of this machine.
    #[inline]
    pub fn from_u64(addr: u64) -> Option<Self> {
        usize::try_from(addr).ok().map(Self)
    }

    /// The number.
    #[inline]
    pub const fn get(self) -> usize {
        self.0
    }

    /// The address `bytes` further on, or `None` if there is none.
    #[inline]
    pub fn checked_add(self, bytes: usize) -> Option<Self> {
        self.0.checked_add(bytes).map(Self)
    }

    /// Says whether `len` bytes from here on are in the user half of the address space.
    ///
    /// That is no promise that there is memory: an access may still fail.
    #[inline]
    pub fn access_ok(self, len: usize) -> bool {
        // SAFETY: The function only compares numbers; it has no preconditions.
        unsafe { bindings::access_ok(self.user_ptr().as_const_ptr(), len) }
    }

    #[inline]
    pub(crate) fn user_ptr(self) -> UserPtr {
        UserPtr::from_addr(self.0)
    }
}

/// A counted reference to the address space of an owner, which keeps its memory in place.
///
/// Dropping it may sleep.
#[derive(Clone)]
pub struct OwnerMm(ARef<MmWithUser>);

impl OwnerMm {
    /// Takes the address space of the current task; `None` if it is a thread of the kernel.
    pub fn of_current() -> Option<Self> {
        current!().mm().map(|mm| Self(mm.into()))
    }

    /// Says whether the current task runs in this address space.
    #[inline]
    pub fn is_current(&self) -> bool {
        current!()
            .mm()
            .is_some_and(|mm| core::ptr::eq(mm.as_raw(), self.0.as_raw()))
    }

    #[inline]
    pub(crate) fn as_raw(&self) -> *mut bindings::mm_struct {
        self.0.as_raw()
    }

    /// Runs `f` with the evidence that the current task runs in this address space.
    ///
    /// # Errors
    ///
    /// `EPERM` if it does not, as for anybody who is not the owner of a device.
    pub fn enter<R>(&self, f: impl FnOnce(&InOwnerMm) -> R) -> Result<R> {
        if !self.is_current() {
            return Err(EPERM);
        }
        // A task changes its address space only by `exec`, not while it runs `f`; and the token
        // does not outlive the call.
        Ok(f(&InOwnerMm::new()))
    }
}

/// Which address space is that of an owner.
///
/// This keeps no memory in place, as an [`OwnerMm`] does, but only the identity: no other address
/// space is taken for it.
pub struct MmId(ARef<Mm>);

impl MmId {
    /// The identity of an address space.
    pub fn of(mm: &OwnerMm) -> Self {
        Self(ARef::from(&**mm.0))
    }

    /// Says whether the current thread is one of user space, in this address space, which will go
    /// back there, or to its guest: in a system call, say, and not in an interrupt, and no thread
    /// of the kernel that has borrowed the address space, nor one of a process that ends.
    ///
    /// It is not for one that is within [`Self::without_faults`], so that what is done on the way
    /// back does not lead to more of that.
    ///
    /// Context: any.
    #[inline]
    pub fn has_caller(&self) -> bool {
        // SAFETY: The pointer is only compared.
        unsafe { bindings::current_goes_back_to(self.0.as_raw()) }
    }

    /// Runs `f` with the evidence that the current thread runs in this address space; `None` if it
    /// does not.
    ///
    /// Nothing that user space can hold up is waited for meanwhile: an access to memory that is not
    /// there fails with `EFAULT` instead of getting it, whatever the reason that it is not there;
    /// and an allocation, if it has to make room, waits for no file system and no device.
    ///
    /// Context: process context.
    pub fn without_faults<R>(&self, f: impl FnOnce(&InOwnerMm) -> R) -> Option<R> {
        let is_here = |mm: &MmWithUser| core::ptr::eq(mm.as_raw(), self.0.as_raw());
        if !current!().mm().is_some_and(is_here) {
            return None;
        }
        // SAFETY: The end is below. There is no way out of `f` but its return.
        let flags = unsafe { bindings::begin_without_faults() };
        // As in `OwnerMm::enter()`.
        let ret = f(&InOwnerMm::new());
        // SAFETY: It began above, in the same thread.
        unsafe { bindings::end_without_faults(flags) };
        Some(ret)
    }
}

/// Evidence that the current thread runs in the address space of the owner of a device.
///
/// There are four sources: [`OwnerMm::enter`] for the system calls of the owner, the runner of
/// [`VhostTask`](crate::vhost_task::VhostTask), whose threads are created by the owner and share
/// its address space until they exit, that of [`MmKthread`](crate::mm_kthread::MmKthread), whose
/// threads borrow it, and [`MmId::without_faults`] for threads of the owner that do something for
/// the device on their way. It is handed out by reference only, so that it does not outlive any of
/// these, and it is not [`Send`].
///
/// Context: all accesses may fault, hence sleep; but with the last one, fail instead.
pub struct InOwnerMm(NotThreadSafe);

/// The result of an access that is done, or fails with `EFAULT`. That of the kernel crate is a
/// call.
#[inline(always)]
fn done(ret: c_int) -> Result {
    if ret == 0 {
        Ok(())
    } else {
        Err(EFAULT)
    }
}

impl InOwnerMm {
    #[inline]
    pub(crate) fn new() -> Self {
        Self(NotThreadSafe)
    }

    /// Reads an aligned `u16` with a single access.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    #[doc(alias = "get_user")]
    #[inline]
    pub fn get_u16(&self, addr: OwnerAddr) -> Result<u16> {
        let mut val = 0;
        // SAFETY: `val` is valid for writes; `get_user()` takes any user address, and fails for
        // what is none.
        done(unsafe { bindings::get_user_u16(&mut val, addr.user_ptr().as_const_ptr().cast()) })?;
        Ok(val)
    }

    /// Writes an aligned `u16` with a single access.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    #[doc(alias = "put_user")]
    #[inline]
    pub fn put_u16(&self, addr: OwnerAddr, val: u16) -> Result {
        // SAFETY: `put_user()` takes any user address, and fails for what is none.
        done(unsafe { bindings::put_user_u16(val, addr.user_ptr().as_mut_ptr().cast()) })
    }

    /// Sets the bits `mask` of an aligned `u32`, with a single atomic operation that orders
    /// everything before it against everything after it on most machines, though not on all.
    ///
    /// # Errors
    ///
    /// `EFAULT`; `EAGAIN` if others change the word again and again, on some machines, or the
    /// thread is being killed.
    #[inline]
    pub fn or_u32(&self, addr: OwnerAddr, mask: u32) -> Result {
        // SAFETY: The function checks that this is a user address, and fails for one that is not
        // mapped.
        to_result(unsafe { bindings::or_user_u32(mask, addr.user_ptr().as_mut_ptr().cast()) })
    }

    /// Copies bytes out of the owner's memory.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it is not all there; the content of `out` is then unspecified.
    #[doc(alias = "copy_from_user")]
    #[inline]
    pub fn read_slice(&self, addr: OwnerAddr, out: &mut [u8]) -> Result {
        UserSlice::new(addr.user_ptr(), out.len())
            .reader()
            .read_slice(out)
    }

    /// As [`read_slice`](Self::read_slice), but does not look for the object of the kernel that
    /// `out` belongs to: for what is done often.
    ///
    /// # Errors
    ///
    /// Those of [`read_slice`](Self::read_slice).
    #[inline]
    pub fn read_small(&self, addr: OwnerAddr, out: &mut [u8]) -> Result {
        // SAFETY: `out` is valid for writes of its length.
        unsafe { self.read_raw(addr, out.as_mut_ptr(), out.len()) }
    }

    /// # Safety
    ///
    /// `to` is valid for writes of `len` bytes.
    #[inline]
    pub(crate) unsafe fn read_raw(&self, addr: OwnerAddr, to: *mut u8, len: usize) -> Result {
        // SAFETY: By the safety requirements; the function checks that all of the rest is user
        // memory, and fails for what is not mapped.
        done(unsafe { bindings::read_user(to.cast(), addr.user_ptr().as_const_ptr(), len) })
    }

    /// As [`write_slice`](Self::write_slice), for what is done often: see
    /// [`read_small`](Self::read_small).
    ///
    /// # Errors
    ///
    /// Those of [`write_slice`](Self::write_slice).
    #[inline]
    pub fn write_small(&self, addr: OwnerAddr, data: &[u8]) -> Result {
        let (to, from) = (addr.user_ptr().as_mut_ptr(), data.as_ptr().cast());
        // SAFETY: `data` is valid for reads of its length; as for `read_raw()`.
        done(unsafe { bindings::write_user(to, from, data.len()) })
    }

    /// Writes the two words `elem` at `offset`, a multiple of 4, behind `used`, and after that, in
    /// the order that other processors see, `index` at the second two bytes of `used`. The accesses
    /// are of 4, 4 and 2 bytes, in memory order.
    ///
    /// # Errors
    ///
    /// `EFAULT`; nothing, or a part, may have been written, and the index was not.
    #[inline]
    pub fn put_used(&self, used: OwnerAddr, offset: usize, elem: [u32; 2], index: u16) -> Result {
        let [id, len] = elem;
        let used = used.user_ptr().as_mut_ptr();
        // SAFETY: The function checks that all of this is user memory, and fails for what is not
        // mapped.
        done(unsafe { bindings::put_user_used(used, offset, id, len, index) })
    }

    /// Copies bytes into the owner's memory.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it is not all there; a part may have been written.
    #[doc(alias = "copy_to_user")]
    #[inline]
    pub fn write_slice(&self, addr: OwnerAddr, data: &[u8]) -> Result {
        UserSlice::new(addr.user_ptr(), data.len())
            .writer()
            .write_slice(data)
    }

    /// Copies a value out of the owner's memory.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    #[inline]
    pub fn read<T: FromBytes + IntoBytes>(&self, addr: OwnerAddr) -> Result<T> {
        let mut val = T::new_zeroed();
        self.read_slice(addr, val.as_mut_bytes())?;
        Ok(val)
    }

    /// Copies a value into the owner's memory.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    #[inline]
    pub fn write<T: IntoBytes + Immutable>(&self, addr: OwnerAddr, val: &T) -> Result {
        self.write_slice(addr, val.as_bytes())
    }

    /// Lets other tasks run, between two pieces of a long work.
    #[doc(alias = "cond_resched")]
    #[inline]
    pub fn relax(&self) {
        // SAFETY: The token only exists in process context; a caller that holds a spinlock gets a
        // complaint of the kernel, not undefined behaviour.
        unsafe { bindings::cond_resched() };
    }
}
