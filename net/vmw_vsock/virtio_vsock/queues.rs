// SPDX-License-Identifier: GPL-2.0

//! The queues of the device: what is in them, and what their locks protect.

use kernel::{
    prelude::*,
    sync::{
        atomic::Atomic,
        Arc, //
    }, //
};
use kernel_ext::{
    gfp::Gfp,
    new_virtqueue,
    skb::{
        ReceiveBuffer,
        SkBuff, //
    },
    virtio::{
        InBox,
        InBuffer as _,
        LiveQueue,
        Virtqueue,
        PAGE_BUFFER_LEN, //
    }, //
};
use virtio_transport_common::TxControl;
use vsock_proto::header::{
    Event,
    HEADER_LEN, //
};

/// The receive queue: full of empty buffers, most of the time.
pub(crate) type RxQueue = Virtqueue<ReceiveBuffer, RxState>;
pub(crate) type LiveRx<'a> = LiveQueue<'a, ReceiveBuffer, RxState>;

/// What the lock of the receive queue protects, besides the queue.
pub(crate) struct RxState {
    pub(crate) pool: RxPool,
    /// How many buffers the device had, at most.
    pub(crate) full: usize,
    /// The device was not told of all of its buffers yet.
    pub(crate) untold: bool,
    /// Whether packets are taken.
    pub(crate) running: bool,
    /// This run of the work has read our address again.
    pub(crate) asked: bool,
}

/// Where receive buffers come from.
///
/// All bytes of a buffer that the device gets are zero: it cannot read what was in that memory
/// before, and what it did not write is no secret if it claims to have written it.
pub(crate) struct RxPool;

impl RxPool {
    /// Size of a buffer, header included.
    pub(crate) const LEN: usize = PAGE_BUFFER_LEN;

    /// Makes a buffer.
    pub(crate) fn get(&mut self) -> Result<ReceiveBuffer> {
        ReceiveBuffer::new(
            HEADER_LEN,
            Self::LEN.saturating_sub(HEADER_LEN),
            Gfp::Kernel,
        )
    }

    /// Makes a buffer new again, to which the device claims to have written `written` bytes.
    pub(crate) fn renew(&mut self, mut buf: ReceiveBuffer, written: usize) -> ReceiveBuffer {
        buf.wipe(written);
        buf
    }
}

/// Makes the place for the receive queue.
pub(crate) fn new_rx() -> Result<Arc<RxQueue>> {
    Arc::pin_init(
        new_virtqueue!(
            RxState {
                pool: RxPool,
                full: 0,
                untold: false,
                running: false,
                asked: false,
            },
            "virtio_vsock::Device::rx"
        ),
        GFP_KERNEL,
    )
}

/// The send queue: packets that the device reads.
pub(crate) type TxQueue = Virtqueue<SkBuff<TxControl>, Sent>;
pub(crate) type LiveTx<'a> = LiveQueue<'a, SkBuff<TxControl>, Sent>;

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
