// SPDX-License-Identifier: GPL-2.0

//! The guests of this host: the open descriptors of `/dev/vhost-vsock`.

use crate::{fdinfo, processes};
use rustix::fs::{major, minor};
use serde::Serialize;
use std::{collections::BTreeMap, os::unix::fs::MetadataExt as _};

/// Number of the device: `include/linux/miscdevice.h`.
const MISC_MAJOR: u32 = 10;
const VHOST_VSOCK_MINOR: u32 = 241;

/// One descriptor. Copies of it, in the same process or another, are one guest: see [`list`].
#[derive(Clone, Debug, Serialize)]
pub struct Guest {
    pub pid: u32,
    pub fd: u32,
    pub program: String,
    pub uid: Option<u32>,
    /// Other processes that hold the same open file.
    pub shared_with: Vec<u32>,
    #[serde(flatten)]
    pub device: fdinfo::Device,
}

fn is_vhost_vsock(descriptor: &processes::Descriptor) -> bool {
    // The name says little: a node may be anywhere.
    if !descriptor.target.starts_with("/dev") && !descriptor.target.ends_with("vhost-vsock") {
        return false;
    }
    std::fs::metadata(descriptor.link()).is_ok_and(|meta| {
        (major(meta.rdev()), minor(meta.rdev())) == (MISC_MAJOR, VHOST_VSOCK_MINOR)
    })
}

/// All guests that may be seen, by CID.
pub fn list() -> Vec<Guest> {
    let mut guests: BTreeMap<(u64, u64, u32), Guest> = BTreeMap::new();
    for descriptor in processes::descriptors().filter(is_vhost_vsock) {
        let Ok(text) = descriptor.fdinfo() else {
            continue;
        };
        let device = fdinfo::parse(&text);
        // In a namespace, a CID belongs to one open file. Without one each descriptor counts.
        let key = match (device.cid, device.netns) {
            (Some(cid), Some(netns)) if cid != 0 => (cid, netns, 0),
            _ => (u64::MAX, u64::from(descriptor.pid), descriptor.fd),
        };
        if let Some(known) = guests.get_mut(&key) {
            if known.pid != descriptor.pid && !known.shared_with.contains(&descriptor.pid) {
                known.shared_with.push(descriptor.pid);
            }
            continue;
        }
        guests.insert(
            key,
            Guest {
                pid: descriptor.pid,
                fd: descriptor.fd,
                program: processes::program(descriptor.pid),
                uid: processes::uid(descriptor.pid),
                shared_with: Vec::new(),
                device,
            },
        );
    }
    guests.into_values().collect()
}
