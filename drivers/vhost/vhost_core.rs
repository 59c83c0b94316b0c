// SPDX-License-Identifier: GPL-2.0

//! The core of vhost devices: what the host does for any virtio device whose queues it serves.
//!
//! A program, usually a VMM, opens the device, becomes its owner, describes the guest's memory and
//! the rings in it, and passes eventfds for notifications in both directions. A worker thread of
//! the owner's process then serves the rings. The parts:
//!
//! - [`device`]: the owner, and the ioctls that all devices have;
//! - [`feature`]: bits of features;
//! - [`virtqueue`]: a queue, its configuration and its life;
//! - [`state`]: what the lock of a queue protects;
//! - [`chain`]: work on the chains of buffers in a running queue;
//! - [`direct`]: that work by others than the worker;
//! - [`kick_work`], [`inline`]: what a kick of the driver does, and who does the work then;
//! - [`worker`]: a thread, and the set of works that it has to do;
//! - [`workers`], [`worker_ioctl`]: the workers of a device, and the ioctls for them;
//! - [`memory`]: the guest's memory, and how addresses are translated;
//! - [`reach`], [`ring_memory`], [`mapped`]: how the memory of a ring and of its buffers is
//!   reached;
//! - [`log`]: the dirty log;
//! - [`message`], [`answer`]: what queues with an IOTLB ask user space, and what it says;
//! - [`params`]: parameters of the module;
//! - [`uapi`]: numbers and structures of the ioctls.
//!
//! The ring itself, and all that looks at what a guest wrote there, is in the crate [`vring`]. A
//! device embeds a [`device::Device`], and implements [`worker::Works`].
//!
//! # Contexts
//!
//! Ioctls and the release of the file run in processes of user space, works in the worker; all of
//! them sleep. A kick may be a hard interrupt: it does nothing but to queue a work, or to leave it
//! to the thread that has kicked, for its way back to user space: see [`kick_work`]. Memory of the
//! owner is reached with an [`InOwnerMm`](kernel_ext::owner_mm::InOwnerMm) only.
//!
//! # Lock order
//!
//! The lock of the device < those of its queues in the order of their number < what the device
//! takes while it works on a chain, and that of [`message::Messages`]. The worker's lock for
//! flushes is taken with the lock of the device held, never with that of a queue.

#![deny(unsafe_code)]

use kernel::prelude::*;

#[path = "vhost_core/answer.rs"]
mod answer;
#[path = "vhost_core/chain.rs"]
pub mod chain;
#[path = "vhost_core/device.rs"]
pub mod device;
#[path = "vhost_core/direct.rs"]
pub mod direct;
#[path = "vhost_core/feature.rs"]
pub mod feature;
#[path = "vhost_core/info.rs"]
mod info;
#[path = "vhost_core/inline.rs"]
pub mod inline;
#[path = "vhost_core/kick_work.rs"]
mod kick_work;
#[cfg(CONFIG_KUNIT = "y")]
#[path = "vhost_core/kunit.rs"]
mod kunit;
#[path = "vhost_core/log.rs"]
mod log;
#[path = "vhost_core/mapped.rs"]
pub mod mapped;
#[path = "vhost_core/memory.rs"]
mod memory;
#[path = "vhost_core/message.rs"]
pub mod message;
#[path = "vhost_core/params.rs"]
mod params;
#[path = "vhost_core/reach.rs"]
pub mod reach;
#[path = "vhost_core/ring_ioctl.rs"]
mod ring_ioctl;
#[path = "vhost_core/ring_memory.rs"]
mod ring_memory;
#[path = "vhost_core/state.rs"]
mod state;
#[path = "vhost_core/uapi.rs"]
pub mod uapi;
#[path = "vhost_core/virtqueue.rs"]
pub mod virtqueue;
#[path = "vhost_core/worker.rs"]
pub mod worker;
#[path = "vhost_core/worker_ioctl.rs"]
mod worker_ioctl;
#[path = "vhost_core/workers.rs"]
pub mod workers;

/// The module: a library, which does nothing by itself.
struct VhostCore;

impl kernel::Module for VhostCore {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(VhostCore)
    }
}

module! {
    type: VhostCore,
    name: "vhost_core",
    authors: ["vsock-rust developers"],
    description: "Core of vhost devices, in Rust",
    license: "GPL",
}

kernel_ext::module_version!();
