// SPDX-License-Identifier: GPL-2.0

//! What user space and a vhost device say to each other.
//!
//! The structures are plain bytes without padding: they are copied as a whole, in and out.
//!
//! C headers: [`include/uapi/linux/vhost.h`](srctree/include/uapi/linux/vhost.h),
//! [`include/uapi/linux/vhost_types.h`](srctree/include/uapi/linux/vhost_types.h).

use kernel::{
    ioctl::{
        _IO,
        _IOR,
        _IOW,
        _IOWR, //
    },
    prelude::*,
    uaccess::UserSlice, //
};
use zerocopy::Immutable;
use zerocopy_derive::{
    Immutable,
    KnownLayout, //
};

/// The type of all ioctls.
#[doc(alias = "VHOST_VIRTIO")]
pub const TYPE: u32 = 0xaf;

/// A file descriptor that stands for none.
#[doc(alias = "VHOST_FILE_UNBIND")]
pub const UNBIND: i32 = -1;

/// Returns the features that the device offers.
#[doc(alias = "VHOST_GET_FEATURES")]
pub const GET_FEATURES: u32 = _IOR::<u64>(TYPE, 0x00);
/// Chooses features.
#[doc(alias = "VHOST_SET_FEATURES")]
pub const SET_FEATURES: u32 = _IOW::<u64>(TYPE, 0x00);
/// Makes the caller's process the owner.
#[doc(alias = "VHOST_SET_OWNER")]
pub const SET_OWNER: u32 = _IO(TYPE, 0x01);
/// Describes the guest's memory, with a [`Memory`] and what follows it.
#[doc(alias = "VHOST_SET_MEM_TABLE")]
pub const SET_MEM_TABLE: u32 = _IOW::<Memory>(TYPE, 0x03);
/// Says where the dirty log is.
#[doc(alias = "VHOST_SET_LOG_BASE")]
pub const SET_LOG_BASE: u32 = _IOW::<u64>(TYPE, 0x04);
/// Names an eventfd to be signalled when something was logged.
#[doc(alias = "VHOST_SET_LOG_FD")]
pub const SET_LOG_FD: u32 = _IOW::<i32>(TYPE, 0x07);
/// Creates another worker, and returns its number in a [`WorkerState`].
#[doc(alias = "VHOST_NEW_WORKER")]
pub const NEW_WORKER: u32 = _IOR::<WorkerState>(TYPE, 0x08);
/// Frees a worker that works for no ring.
#[doc(alias = "VHOST_FREE_WORKER")]
pub const FREE_WORKER: u32 = _IOW::<WorkerState>(TYPE, 0x09);
/// Sets the number of entries of a ring.
#[doc(alias = "VHOST_SET_VRING_NUM")]
pub const SET_VRING_NUM: u32 = _IOW::<RingState>(TYPE, 0x10);
/// Says where the parts of a ring are.
#[doc(alias = "VHOST_SET_VRING_ADDR")]
pub const SET_VRING_ADDR: u32 = _IOW::<RingAddr>(TYPE, 0x11);
/// Sets the available index to begin with.
#[doc(alias = "VHOST_SET_VRING_BASE")]
pub const SET_VRING_BASE: u32 = _IOW::<RingState>(TYPE, 0x12);
/// Returns the available index to continue with.
#[doc(alias = "VHOST_GET_VRING_BASE")]
pub const GET_VRING_BASE: u32 = _IOWR::<RingState>(TYPE, 0x12);
/// Says which byte order the rings of a legacy driver have: 0 for little, 1 for big endian.
#[doc(alias = "VHOST_SET_VRING_ENDIAN")]
#[cfg(CONFIG_VHOST_CROSS_ENDIAN_LEGACY)]
pub const SET_VRING_ENDIAN: u32 = _IOW::<RingState>(TYPE, 0x13);
/// Returns what [`SET_VRING_ENDIAN`] set.
#[doc(alias = "VHOST_GET_VRING_ENDIAN")]
#[cfg(CONFIG_VHOST_CROSS_ENDIAN_LEGACY)]
pub const GET_VRING_ENDIAN: u32 = _IOW::<RingState>(TYPE, 0x14);
/// Says which worker works for a ring, with a [`RingWorker`].
#[doc(alias = "VHOST_ATTACH_VRING_WORKER")]
pub const ATTACH_VRING_WORKER: u32 = _IOW::<RingWorker>(TYPE, 0x15);
/// Returns which worker works for a ring.
#[doc(alias = "VHOST_GET_VRING_WORKER")]
pub const GET_VRING_WORKER: u32 = _IOWR::<RingWorker>(TYPE, 0x16);
/// Names the eventfd by which the driver says that there are buffers.
#[doc(alias = "VHOST_SET_VRING_KICK")]
pub const SET_VRING_KICK: u32 = _IOW::<RingFile>(TYPE, 0x20);
/// Names the eventfd by which the device says that it has used buffers.
#[doc(alias = "VHOST_SET_VRING_CALL")]
pub const SET_VRING_CALL: u32 = _IOW::<RingFile>(TYPE, 0x21);
/// Names the eventfd by which the device says that a ring is broken.
#[doc(alias = "VHOST_SET_VRING_ERR")]
pub const SET_VRING_ERR: u32 = _IOW::<RingFile>(TYPE, 0x22);
/// Sets how long to poll a ring, in microseconds. Kept, and without any effect, as in C.
#[doc(alias = "VHOST_SET_VRING_BUSYLOOP_TIMEOUT")]
pub const SET_VRING_BUSYLOOP_TIMEOUT: u32 = _IOW::<RingState>(TYPE, 0x23);
/// Returns what [`SET_VRING_BUSYLOOP_TIMEOUT`] set.
#[doc(alias = "VHOST_GET_VRING_BUSYLOOP_TIMEOUT")]
pub const GET_VRING_BUSYLOOP_TIMEOUT: u32 = _IOW::<RingState>(TYPE, 0x24);
/// Chooses features of the interface between user space and the kernel.
#[doc(alias = "VHOST_SET_BACKEND_FEATURES")]
pub const SET_BACKEND_FEATURES: u32 = _IOW::<u64>(TYPE, 0x25);
/// Returns the features of the interface between user space and the kernel.
#[doc(alias = "VHOST_GET_BACKEND_FEATURES")]
pub const GET_BACKEND_FEATURES: u32 = _IOR::<u64>(TYPE, 0x26);
/// Chooses what kind of thread the worker is.
#[doc(alias = "VHOST_SET_FORK_FROM_OWNER")]
pub const SET_FORK_FROM_OWNER: u32 = _IOW::<u8>(TYPE, 0x84);
/// Returns what kind of thread the worker is.
#[doc(alias = "VHOST_GET_FORK_FROM_OWNER")]
pub const GET_FORK_FROM_OWNER: u32 = _IOR::<u8>(TYPE, 0x85);

/// The worker is a kernel thread.
#[doc(alias = "VHOST_FORK_OWNER_KTHREAD")]
pub const FORK_OWNER_KTHREAD: u8 = 0;
/// The worker is a thread of the owner.
#[doc(alias = "VHOST_FORK_OWNER_TASK")]
pub const FORK_OWNER_TASK: u8 = 1;

/// The flag of [`RingAddr`] that asks for writes to the used ring to be logged.
#[doc(alias = "VHOST_VRING_F_LOG")]
pub const RING_F_LOG: u32 = 1 << 0;

/// The first part of a memory table; `count` times a [`MemoryRegion`] follow.
#[doc(alias = "vhost_memory")]
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Memory {
    /// Number of regions.
    pub count: u32,
    /// Zero.
    pub padding: u32,
}
static_assert!(size_of::<Memory>() == 8);

/// A piece of guest memory.
#[doc(alias = "vhost_memory_region")]
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MemoryRegion {
    /// Where it is for the guest.
    pub guest_addr: u64,
    /// How many bytes it has.
    pub size: u64,
    /// Where it is for the owner.
    pub user_addr: u64,
    /// Without a meaning so far.
    pub flags: u64,
}
static_assert!(size_of::<MemoryRegion>() == 32);

/// A number for a ring.
#[doc(alias = "vhost_vring_state")]
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RingState {
    /// Which ring.
    pub index: u32,
    /// The number.
    pub num: u32,
}
static_assert!(size_of::<RingState>() == 8);

/// A file for a ring.
#[doc(alias = "vhost_vring_file")]
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RingFile {
    /// Which ring.
    pub index: u32,
    /// A file descriptor or [`UNBIND`].
    pub fd: i32,
}
static_assert!(size_of::<RingFile>() == 8);

/// Where the parts of a ring are.
#[doc(alias = "vhost_vring_addr")]
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RingAddr {
    /// Which ring.
    pub index: u32,
    /// [`RING_F_LOG`].
    pub flags: u32,
    /// Where the descriptor table is, for the owner.
    pub desc: u64,
    /// Where the used ring is, for the owner.
    pub used: u64,
    /// Where the available ring is, for the owner.
    pub avail: u64,
    /// Where the used ring is, for the guest.
    pub log: u64,
}
static_assert!(size_of::<RingAddr>() == 40);

/// The number of a worker.
#[doc(alias = "vhost_worker_state")]
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct WorkerState {
    /// The number.
    pub worker: u32,
}
static_assert!(size_of::<WorkerState>() == 4);

/// The worker of a ring.
#[doc(alias = "vhost_vring_worker")]
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RingWorker {
    /// Which ring.
    pub index: u32,
    /// Which worker.
    pub worker: u32,
}
static_assert!(size_of::<RingWorker>() == 8);

/// The argument of an ioctl: an address in the memory of whoever calls.
///
/// Context: the system call.
#[derive(Clone, Copy)]
pub struct Arg(usize);

impl Arg {
    /// Takes the argument.
    pub fn new(arg: usize) -> Self {
        Self(arg)
    }

    /// Copies a value out of the caller's memory.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub fn read<T: FromBytes + IntoBytes>(self) -> Result<T> {
        self.read_at(0)
    }

    /// Copies a value out of the caller's memory, `offset` bytes behind the argument.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub(crate) fn read_at<T: FromBytes + IntoBytes>(self, offset: usize) -> Result<T> {
        let addr = self.0.checked_add(offset).ok_or(EFAULT)?;
        let mut value = T::new_zeroed();
        UserSlice::new(UserPtr::from_addr(addr), size_of::<T>())
            .reader()
            .read_slice(value.as_mut_bytes())?;
        Ok(value)
    }

    /// Copies a value into the caller's memory.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub fn write<T: IntoBytes + Immutable>(self, value: &T) -> Result {
        UserSlice::new(UserPtr::from_addr(self.0), size_of::<T>())
            .writer()
            .write_slice(value.as_bytes())
    }
}
