// SPDX-License-Identifier: GPL-2.0

//! The attributes of a device: what `include/uapi/linux/vhost_vsock_attr.h` says.

use crate::{abi, sys};
use std::{fs::File, io};

pub const MAX_CONNECTIONS: u32 = 1;
pub const PORTS: u32 = 2;
pub const USERS: u32 = 3;
pub const RATE_TO_GUEST: u32 = 4;
pub const RATE_FROM_GUEST: u32 = 5;
pub const LOCKED: u32 = 7;

/// `struct vhost_vsock_attr`
pub fn attr(number: u32, size: usize, data: u64) -> Vec<u8> {
    abi::arg(&[
        &number.to_ne_bytes(),
        &(size as u32).to_ne_bytes(),
        &data.to_ne_bytes(),
    ])
}

pub fn set_bytes(file: &File, number: u32, value: &[u8]) -> io::Result<i32> {
    let data = value.as_ptr() as u64;
    sys::ioctl(file, abi::SET_ATTR, &mut attr(number, value.len(), data))
}

/// What is read, and the size that it is said to have.
pub fn get_bytes(file: &File, number: u32, room: usize) -> (io::Result<i32>, Vec<u8>, u32) {
    let mut value = vec![0u8; room];
    let mut arg = attr(number, room, value.as_mut_ptr() as u64);
    let ret = sys::ioctl(file, abi::GET_ATTR, &mut arg);
    let size = u32::from_ne_bytes([arg[4], arg[5], arg[6], arg[7]]);
    (ret, value, size)
}

pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// A list of `count` entries.
pub fn list(count: u32, entries: &[u32]) -> Vec<u8> {
    words(&[&[1, count], entries].concat())
}

/// The list that says that there is none.
pub const ALL: [u32; 2] = [0, 0];

/// `struct vhost_vsock_attr_rate`
#[derive(Clone, Copy, Default)]
pub struct Rate {
    /// In a second, with those of headers.
    pub bytes: u64,
    /// In a second.
    pub packets: u64,
    /// What may come at once, in microseconds.
    pub burst: u32,
}

impl Rate {
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = words(&[]);
        bytes.extend(self.bytes.to_ne_bytes());
        bytes.extend(self.packets.to_ne_bytes());
        bytes.extend(words(&[self.burst, 0]));
        bytes
    }

    pub fn set(&self, file: &File, number: u32) -> io::Result<i32> {
        set_bytes(file, number, &self.bytes())
    }
}
