// SPDX-License-Identifier: GPL-2.0

//! The device: its life, from probe to removal.

use crate::{
    address::Address,
    queues::{
        self,
        EventQueue,
        Hints,
        RxQueue,
        TxQueue, //
    }, //
};
use kernel::{
    device::Bound,
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        rcu,
        Arc,
        ArcBorrow,
        Mutex, //
    },
    workqueue::{
        impl_has_work,
        new_work,
        RawWorkItem,
        Work, //
    }, //
};
use kernel_ext::{
    peek::Peek,
    rcu::RcuSlot,
    virtio,
    work::WorkQueue, //
};
use virtio_transport_common::{
    reset_connections,
    Candidate,
    Orphans,
    Peers,
    Rooms,
    SendQueue, //
};
use vsock_proto::{
    addr::Cid,
    header::F_SEQPACKET, //
};

/// The device of this guest: there is at most one.
pub(crate) static DEVICE: RcuSlot<Device> = RcuSlot::new();

/// What runs the works of the driver that may sleep, while the module is loaded.
pub(crate) static WORKS: RcuSlot<WorkQueue> = RcuSlot::new();

/// What runs those in softirqs, as long.
pub(crate) static BH_WORKS: RcuSlot<WorkQueue> = RcuSlot::new();

/// The transport from a guest to its host. What the socket layer asks of it is in
/// [`carrier`](crate::carrier).
pub(crate) struct Guest;

impl Guest {
    /// Resets the connections of this transport for which `gone` is true.
    ///
    /// Context: may sleep, but waits for no user.
    pub(crate) fn reset(gone: impl FnMut(&Candidate<'_>) -> bool) {
        reset_connections::<Guest>(Peers::All, gone);
    }
}

/// Which start of the device something belongs to.
///
/// Who finds a queue broken takes it with the queue locked, and says it in [`Broken`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

impl Epoch {
    /// The start after this one.
    pub(crate) fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// The device broke a queue.
///
/// Whoever finds that returns it, so that [`Device::fail`] is called when no lock is held any more.
#[must_use]
pub(crate) struct Broken {
    /// The name of the queue.
    pub(crate) queue: &'static str,
    /// When it was found.
    pub(crate) epoch: Epoch,
}

/// Work items of [`Device`], by id.
pub(crate) const RX_WORK: u64 = 0;
pub(crate) const TX_WORK: u64 = 1;
pub(crate) const SEND_WORK: u64 = 2;
pub(crate) const EVENT_WORK: u64 = 3;
pub(crate) const RESET_WORK: u64 = 4;
pub(crate) const REAP_WORK: u64 = 5;
/// In a softirq.
pub(crate) const RX_BH_WORK: u64 = 6;

/// The device, as far as interrupts, works and senders see it.
///
/// Counted: see the top of the crate.
#[pin_data]
pub(crate) struct Device {
    /// See [`rx`](crate::rx).
    pub(crate) rx: Arc<RxQueue>,
    /// Held by the work that has a packet of `rx` in hand.
    #[pin]
    pub(crate) rx_hand: Mutex<()>,
    /// See [`tx`](crate::tx).
    pub(crate) tx: Arc<TxQueue>,
    /// Memory for what is sent.
    #[pin]
    pub(crate) rooms: Rooms,
    /// See [`event`](crate::event).
    pub(crate) event: Arc<EventQueue>,
    /// Packets for which there is no room in `tx`, or which come after such.
    #[pin]
    pub(crate) send_queue: SendQueue,
    /// What closed sockets leave behind for the host.
    pub(crate) orphans: Arc<Orphans>,
    /// See [`address`](crate::address).
    pub(crate) address: Address,
    /// All connections are void, and not those of former addresses only: for the work that ends
    /// them.
    pub(crate) void: Atomic<bool>,
    pub(crate) seqpacket: Atomic<bool>,
    /// Descriptors of the receive queue: more replies than these are not queued.
    pub(crate) max_replies: Atomic<usize>,
    /// Descriptors of the send queue: a packet in more parts than these is never sent.
    pub(crate) max_parts: Atomic<usize>,
    /// See [`reap`](crate::reap).
    pub(crate) sending: Hints,
    /// The last packet that was received needed a thread.
    pub(crate) rx_by_thread: Atomic<bool>,
    /// Packets that the receive queue has are left there until replies went out.
    pub(crate) rx_paused: Atomic<bool>,
    /// The device broke a queue: nothing can be sent nor received.
    pub(crate) broken: Atomic<bool>,
    /// How often it was started. Changes only with `started` locked.
    epoch: Atomic<u64>,
    /// When it was started, by [`monotonic_nanos`]. It is not started again while this is locked.
    #[pin]
    pub(crate) started: Mutex<Option<i64>>,
    pub(crate) dev: ARef<virtio::Device>,
    #[pin]
    rx_work: Work<Device, RX_WORK>,
    #[pin]
    tx_work: Work<Device, TX_WORK>,
    #[pin]
    send_work: Work<Device, SEND_WORK>,
    #[pin]
    event_work: Work<Device, EVENT_WORK>,
    #[pin]
    reset_work: Work<Device, RESET_WORK>,
    #[pin]
    reap_work: Work<Device, REAP_WORK>,
    #[pin]
    rx_bh_work: Work<Device, RX_BH_WORK>,
}

impl_has_work! {
    impl HasWork<Device, RX_WORK> for Device { self.rx_work }
    impl HasWork<Device, TX_WORK> for Device { self.tx_work }
    impl HasWork<Device, SEND_WORK> for Device { self.send_work }
    impl HasWork<Device, EVENT_WORK> for Device { self.event_work }
    impl HasWork<Device, RESET_WORK> for Device { self.reset_work }
    impl HasWork<Device, REAP_WORK> for Device { self.reap_work }
    impl HasWork<Device, RX_BH_WORK> for Device { self.rx_bh_work }
}

/// Runs a work of a device soon; in any context.
pub(crate) fn queue_work<const ID: u64>(dev: ArcBorrow<'_, Device>)
where
    Arc<Device>: RawWorkItem<ID, EnqueueOutput = Result<(), Arc<Device>>>,
{
    let guard = rcu::read_lock();
    // Without the queue the module is about to go, and the device is already gone.
    if let Some(works) = WORKS.load(&guard) {
        works.queue::<_, ID>(dev.into());
    }
}

/// Takes packets soon, in a softirq; in any context, but with the receive queue locked if it is not
/// the interrupt of that queue: see [`wait_for_bh`].
pub(crate) fn queue_bh(dev: ArcBorrow<'_, Device>) {
    let guard = rcu::read_lock();
    if let Some(works) = BH_WORKS.load(&guard) {
        works.queue::<_, RX_BH_WORK>(dev.into());
    }
}

/// Waits for what was queued by [`queue_bh`].
///
/// That must not have the last reference to a device, which it would drop in a softirq. It has not
/// if this is called when the device has no queue any more, and somebody has a reference until
/// after this: nobody queues the work without one.
///
/// Context: sleeps.
pub(crate) fn wait_for_bh() {
    if let Some(works) = BH_WORKS.get() {
        works.flush();
    }
}

impl Device {
    pub(crate) fn new(dev: &virtio::Device<Bound>) -> impl PinInit<Self, Error> + '_ {
        pin_init::pin_init_scope(move || {
            let address = Address::new(dev)
                .inspect_err(|_| dev_err!(dev, "the device has no valid CID for us\n"))?;
            Ok(try_pin_init!(Self {
                rx: queues::new_rx()?,
                rx_hand <- new_mutex!((), "virtio_vsock::Device::rx_hand"),
                tx: queues::new_tx()?,
                rooms <- Rooms::new(),
                event: queues::new_event()?,
                send_queue <- SendQueue::new(),
                orphans: Orphans::new()?,
                address,
                void: Atomic::new(false),
                seqpacket: Atomic::new(dev.has_feature(F_SEQPACKET)),
                max_replies: Atomic::new(0),
                max_parts: Atomic::new(0),
                sending: Hints::new(),
                rx_by_thread: Atomic::new(false),
                rx_paused: Atomic::new(false),
                broken: Atomic::new(false),
                epoch: Atomic::new(0),
                started <- new_mutex!(None, "virtio_vsock::Device::started"),
                dev: dev.counted(),
                rx_work <- new_work!("virtio_vsock::Device::rx_work"),
                tx_work <- new_work!("virtio_vsock::Device::tx_work"),
                send_work <- new_work!("virtio_vsock::Device::send_work"),
                event_work <- new_work!("virtio_vsock::Device::event_work"),
                reset_work <- new_work!("virtio_vsock::Device::reset_work"),
                reap_work <- new_work!("virtio_vsock::Device::reap_work"),
                rx_bh_work <- new_work!("virtio_vsock::Device::rx_bh_work"),
            }? Error))
        })
    }

    /// Our address.
    #[inline]
    pub(crate) fn cid(&self) -> Cid {
        self.address.cid()
    }

    /// Whether `SOCK_SEQPACKET` was negotiated.
    #[inline]
    pub(crate) fn has_seqpacket(&self) -> bool {
        self.seqpacket.peek()
    }

    /// Whether the device broke a queue.
    #[inline]
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.peek()
    }

    /// The start that this is, to be read with the lock of the queue that it is read for.
    #[inline]
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.peek())
    }

    /// It is another start from here on; with `started` locked.
    pub(crate) fn set_epoch(&self, epoch: Epoch) {
        self.epoch.store(epoch.0, Relaxed);
    }

    /// Whether senders find this device, and no other one.
    pub(crate) fn is_current(&self) -> bool {
        let guard = rcu::read_lock();
        DEVICE
            .load(&guard)
            .is_some_and(|dev| core::ptr::eq::<Self>(&*dev, self))
    }
}
