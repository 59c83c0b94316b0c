// SPDX-License-Identifier: GPL-2.0

//! The ioctls for attributes of a device, for which no library has a safe function: the only place
//! of this program with `unsafe`.

#![allow(unsafe_code)]

use rustix::{
    io,
    ioctl::{ioctl, opcode, Opcode, Updater},
};
use std::os::fd::AsFd;

/// `VHOST_VIRTIO` of `include/uapi/linux/vhost.h`.
const VHOST: u8 = 0xaf;

/// `struct vhost_vsock_attr`
#[repr(C)]
struct Attr {
    attr: u32,
    size: u32,
    data: u64,
}

const SET_ATTR: Opcode = opcode::write::<Attr>(VHOST, 0xe0);
const GET_ATTR: Opcode = opcode::read_write::<Attr>(VHOST, 0xe1);

/// Calls [`SET_ATTR`] or [`GET_ATTR`], and returns the size that the kernel says.
fn call<const CODE: Opcode>(fd: impl AsFd, attr: u32, value: &mut [u8]) -> io::Result<usize> {
    let mut argument = Attr {
        attr,
        size: u32::try_from(value.len()).map_err(|_| io::Errno::INVAL)?,
        data: value.as_mut_ptr().expose_provenance() as u64,
    };
    // SAFETY: Both codes say that the kernel reads an `Attr`, and may write one.
    let updater = unsafe { Updater::<CODE, Attr>::new(&mut argument) };
    // SAFETY: A device that knows the code reads or writes `size` bytes at `data`, which are those
    // of `value`, and keeps neither address. No other device has these numbers.
    unsafe { ioctl(fd, updater) }?;
    Ok(argument.size as usize)
}

/// Sets an attribute of a `/dev/vhost-vsock`.
///
/// # Errors
///
/// `ENOTTY` with the C module; see Documentation/vhost-vsock.rst for others.
pub fn set_attribute(fd: impl AsFd, attr: u32, value: &[u8]) -> io::Result<()> {
    // The kernel only reads it; it is writable all the same, so that nothing rests on that.
    call::<SET_ATTR>(fd, attr, &mut value.to_vec()).map(|_| ())
}

/// Reads an attribute of a `/dev/vhost-vsock`, of at most `room` bytes.
///
/// # Errors
///
/// As for [`set_attribute`]; `ENOSPC` if there is more.
pub fn attribute(fd: impl AsFd, attr: u32, room: usize) -> io::Result<Vec<u8>> {
    let mut value = vec![0; room];
    let size = call::<GET_ATTR>(fd, attr, &mut value)?;
    value.truncate(size);
    Ok(value)
}
