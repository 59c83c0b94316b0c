// SPDX-License-Identifier: GPL-2.0

//! The queues of the device: what is in them, and what their locks protect.

use crate::{
    hand::Hand,
    pool::RxPool, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::Atomic,
        Arc, //
    }, //
};
use kernel_ext::{
    lock::SpinLockBhBackend,
    new_virtqueue,
    skb::{
        Block,
        SkBuff, //
    },
    virtio::{
        InBox,
        LiveQueue,
        Virtqueue, //
    }, //
};
use virtio_transport_common::{
    Rest,
    RxPacket,
    TxControl, //
};
use vsock_proto::header::{
    Event,
    Header, //
};

/// The receive queue: full of empty buffers, most of the time.
pub(crate) type RxQueue = Virtqueue<Block, RxState, SpinLockBhBackend>;
pub(crate) type LiveRx<'a> = LiveQueue<'a, Block, RxState, SpinLockBhBackend>;

/// A packet whose header was checked against what the device says it wrote.
pub(crate) struct Checked {
    pub(crate) header: Header,
    pub(crate) payload: usize,
}

/// A packet that waits for the work that may sleep.
pub(crate) enum Held {
    /// It was not taken, or not all of it.
    Packet(RxPacket<'static>, Rest),
    /// It is for another address than ours, which may be ours by now.
    Misaddressed(Block, Checked),
}

/// What the lock of the receive queue protects, besides the queue.
pub(crate) struct RxState {
    pub(crate) pool: RxPool,
    /// The device was not told of all of its buffers yet.
    pub(crate) untold: bool,
    /// This run has read our address again.
    pub(crate) asked: bool,
    /// Who takes packets. What is held is dropped without the lock.
    pub(crate) hand: Hand<Held>,
}

/// Makes the place for the receive queue.
pub(crate) fn new_rx() -> Result<Arc<RxQueue>> {
    Arc::pin_init(
        new_virtqueue!(
            RxState {
                pool: RxPool::none(),
                untold: false,
                asked: false,
                hand: Hand::new(),
            },
            "virtio_vsock::Device::rx"
        ),
        GFP_KERNEL,
    )
}

/// The send queue: packets that the device reads.
pub(crate) type TxQueue = Virtqueue<SkBuff<TxControl>, Sent, SpinLockBhBackend>;
pub(crate) type LiveTx<'a> = LiveQueue<'a, SkBuff<TxControl>, Sent, SpinLockBhBackend>;

/// Makes the place for the send queue.
pub(crate) fn new_tx() -> Result<Arc<TxQueue>> {
    Arc::pin_init(
        new_virtqueue!(Sent::default(), "virtio_vsock::Device::tx"),
        GFP_KERNEL,
    )
}

/// What is known of the packets that the device has; protected by the lock of the send queue.
#[derive(Default)]
pub(crate) struct Sent {
    /// How many were given to the device since it was started.
    pub(crate) posted: u64,
    /// How many of them it used.
    pub(crate) used: u64,
    /// Somebody waits for so many to be used.
    pub(crate) wanted: u64,
    /// When the device has so many, those that it used are looked for.
    pub(crate) reap_at: usize,
    /// Packets wait for room.
    pub(crate) blocked: bool,
}

impl Sent {
    /// The device has another packet, which somebody waits for if it is `awaited`.
    #[inline]
    pub(crate) fn add(&mut self, awaited: bool) {
        self.posted = self.posted.wrapping_add(1);
        if awaited {
            self.wanted = self.posted;
        }
    }

    /// Whether an interrupt is wanted.
    #[inline]
    pub(crate) fn is_wanted(&self) -> bool {
        self.blocked || self.used < self.wanted
    }
}

/// What those see of [`Sent`] who do not have the lock.
pub(crate) struct Hints {
    /// The device was asked for interrupts. Only changes with the lock held.
    pub(crate) armed: Atomic<bool>,
    /// Somebody waits for what is sent now.
    pub(crate) wanted: Atomic<bool>,
    /// The last resort is on its way.
    pub(crate) watched: Atomic<bool>,
}

impl Hints {
    pub(crate) const fn new() -> Self {
        Self {
            armed: Atomic::new(false),
            wanted: Atomic::new(false),
            watched: Atomic::new(false),
        }
    }
}

/// The event queue.
pub(crate) type EventQueue = Virtqueue<InBox<Event>>;
pub(crate) type LiveEvents<'a> = LiveQueue<'a, InBox<Event>>;

/// Makes the place for the event queue.
pub(crate) fn new_event() -> Result<Arc<EventQueue>> {
    Arc::pin_init(
        new_virtqueue!((), "virtio_vsock::Device::event"),
        GFP_KERNEL,
    )
}
