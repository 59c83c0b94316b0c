// SPDX-License-Identifier: GPL-2.0

//! The guest's driver of the virtio-vsock device: it carries packets between the sockets of this
//! machine and its host.
//!
//! The module has the name of the C driver, whose place it takes.
//!
//! # Packets on their way
//!
//! *Out*: [`Carrier::send`] puts a packet into the device's queue right away if no other waits and
//! the queue's lock is free ([`tx`]), else into the [`SendQueue`], which a work empties. Packets
//! that the device used are dropped when that costs little, or somebody waits for it ([`reap`]).
//!
//! *In*: the receive queue is full of empty buffers ([`pool`]); a work takes the used ones out,
//! checks header and lengths once, on a private copy, and gives the packets to the connections. It
//! runs in the softirq of the interrupt, and leaves to a thread what cannot be done there ([`rx`]).
//!
//! *Events*: the host was migrated or restarted, connections with it are void, and our address may
//! be another ([`event`], [`address`]).
//!
//! # Trust
//!
//! The device may be hostile. Its lengths, headers and identifiers are checked ([`rx`]); no memory
//! of ours is visible to it but what it is meant to read; a queue that it broke is given up, and
//! with it all connections at once ([`life`]).
//!
//! # Contexts and locks
//!
//! Callbacks of queues run in hard interrupt context, and only queue works. Works may sleep, but
//! for the one that takes packets in a softirq.
//! [`Carrier::send`] is called with a socket locked, in process context, and must not sleep.
//!
//! Lock order, outer to inner:
//!
//! 1. the lock of the device's start ([`Device::fail`]), under that of the bus's device if both
//!    are,
//! 2. that of who has a received packet in hand ([`Device::rx_hand`]),
//! 3. the lock of the send queue ([`Device::tx`]): under a socket lock, it is only tried,
//! 4. the lock of the receive queue ([`Device::rx`]), a spinlock, held while packets are taken that
//!    need no other lock but the next ones,
//! 5. the lock of [`SendQueue`], and the gate of a connection, of which no two are held.
//!
//! With one of these held, a socket lock is only tried, never waited for.
//!
//! The lock of the event queue ([`Device::event`]) comes after the second, and is held together
//! with no other.
//!
//! # Ownership
//!
//! [`DEVICE`] and each queued work have a reference to the [`Device`]; the bus abstraction has one
//! for as long as it is bound. The workqueues belong to [`WORKS`] and [`BH_WORKS`], and are emptied
//! when the module goes, which is what makes the module outlive its works. A work in a softirq
//! never has the last reference: see [`wait_for_bh`].
//!
//! [`Carrier::send`]: virtio_transport_common::Carrier::send
//! [`SendQueue`]: virtio_transport_common::SendQueue
//! [`DEVICE`]: device::DEVICE
//! [`Device`]: device::Device
//! [`Device::fail`]: device::Device::fail
//! [`Device::rx`]: device::Device::rx
//! [`Device::rx_hand`]: device::Device::rx_hand
//! [`wait_for_bh`]: device::wait_for_bh
//! [`Device::tx`]: device::Device::tx
//! [`Device::event`]: device::Device::event

#![deny(unsafe_code)]

use kernel::{
    driver,
    prelude::*,
    sync::Arc, //
};
use kernel_ext::{
    virtio::Adapter,
    work::WorkQueue, //
};
use virtio_transport_common::{
    Registration,
    Watching, //
};

#[path = "virtio_vsock/address.rs"]
mod address;
#[path = "virtio_vsock/carrier.rs"]
mod carrier;
#[path = "virtio_vsock/device.rs"]
mod device;
#[path = "virtio_vsock/event.rs"]
mod event;
#[path = "virtio_vsock/feed.rs"]
mod feed;
#[path = "virtio_vsock/hand.rs"]
mod hand;
#[path = "virtio_vsock/life.rs"]
mod life;
#[path = "virtio_vsock/params.rs"]
mod params;
#[path = "virtio_vsock/pool.rs"]
mod pool;
#[path = "virtio_vsock/queues.rs"]
mod queues;
#[path = "virtio_vsock/reap.rs"]
mod reap;
#[path = "virtio_vsock/rx.rs"]
mod rx;
#[path = "virtio_vsock/tx.rs"]
mod tx;

use device::{
    Guest,
    BH_WORKS,
    WORKS, //
};
use life::VsockDriver;

/// Owns what is in [`WORKS`] and [`BH_WORKS`].
struct Works;

impl Works {
    fn new() -> Result<Self> {
        let works = Arc::new(WorkQueue::new(c"virtio_vsock")?, GFP_KERNEL)?;
        let bh_works = Arc::new(WorkQueue::new_bh(c"virtio_vsock_bh")?, GFP_KERNEL)?;
        WORKS.swap(Some(works));
        BH_WORKS.swap(Some(bh_works));
        Ok(Self)
    }
}

impl Drop for Works {
    fn drop(&mut self) {
        // After this no work is queued any more, and the queue is the only reference: dropping it
        // waits for the works that were queued before.
        drop(WORKS.swap(None));
        // Only now: the works above may wait for these.
        drop(BH_WORKS.swap(None));
    }
}

/// The state of the module.
///
/// The fields are dropped in this order: first the driver, which unbinds from the device, then the
/// transport, of which no socket is left since the module would be in use, then the workqueue.
#[pin_data]
struct GuestModule {
    #[pin]
    _driver: driver::Registration<Adapter<VsockDriver>>,
    #[pin]
    _transport: Registration<Guest>,
    _watching: Watching<Guest>,
    _works: Works,
}

impl kernel::InPlaceModule for GuestModule {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // In the opposite order.
        try_pin_init!(Self {
            _works: Works::new()?,
            _watching: Watching::new()?,
            _transport <- Registration::new(),
            _driver <- driver::Registration::new(
                <Self as kernel::ModuleMetadata>::NAME,
                module
            ),
        })
    }
}

module! {
    type: GuestModule,
    name: "vmw_vsock_virtio_transport",
    authors: ["vsock-rust developers"],
    description: "virtio transport for vsock, in Rust",
    license: "GPL",
}

kernel_ext::module_version!();
