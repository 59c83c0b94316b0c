// SPDX-License-Identifier: GPL-2.0

//! Messages of a device with an IOTLB, by `read()`, `write()` and `poll()`.
//!
//! An IOTLB exists if the driver negotiated `VIRTIO_F_ACCESS_PLATFORM`, which is not offered: here
//! are the answers of a device that has none.

use kernel::{
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    prelude::*, //
};
use zerocopy_derive::{
    Immutable,
    KnownLayout, //
};

/// Length of a message of the first version, the least that a reader must have room for.
#[doc(alias = "vhost_msg")]
const MSG_LEN: usize = 72;

/// The first and the second version of messages, which differ in their head.
const MSG_V1: u32 = 1;
const MSG_V2: u32 = 2;

/// There is a new mapping.
const IOTLB_UPDATE: u8 = 2;

/// The common part of the messages.
#[doc(alias = "vhost_iotlb_msg")]
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct IotlbMsg {
    iova: u64,
    size: u64,
    uaddr: u64,
    perm: u8,
    ty: u8,
    padding: [u8; 6],
}
static_assert!(size_of::<IotlbMsg>() == 32);

fn take<T: FromBytes + IntoBytes>(iov: &mut IovIterSource<'_>) -> Result<T> {
    let mut value = T::new_zeroed();
    let bytes = value.as_mut_bytes();
    if iov.copy_from_iter(bytes) != bytes.len() {
        return Err(EINVAL);
    }
    Ok(value)
}

/// A message from user space.
///
/// # Errors
///
/// `EINVAL` if it is too short or of an unknown kind, `EFAULT` otherwise, as there is no IOTLB.
#[doc(alias = "vhost_chr_write_iter")]
pub fn write(iov: &mut IovIterSource<'_>) -> Result<usize> {
    let kind: u32 = take(iov)?;
    if kind != MSG_V1 && kind != MSG_V2 {
        return Err(EINVAL);
    }
    // A hole in the first version, reserved in the second one.
    let _: u32 = take(iov)?;
    let msg: IotlbMsg = take(iov)?;
    if msg.ty == IOTLB_UPDATE && msg.size == 0 {
        return Err(EINVAL);
    }
    Err(EFAULT)
}

/// A message for user space, of which there is none.
///
/// # Errors
///
/// `EAGAIN` for a non-blocking reader, `EBADFD` for one that would wait for ever.
#[doc(alias = "vhost_chr_read_iter")]
pub fn read(iov: &mut IovIterDest<'_>, nonblocking: bool) -> Result<usize> {
    if iov.len() < MSG_LEN {
        return Ok(0);
    }
    Err(if nonblocking { EAGAIN } else { EBADFD })
}

/// The events that are ready: never any.
#[doc(alias = "vhost_chr_poll")]
pub fn poll() -> u32 {
    0
}
