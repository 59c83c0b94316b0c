// SPDX-License-Identifier: GPL-2.0

//! The device: its life, from probe to removal.

use crate::{
    carrier::Guest,
    event::{
        self,
        EventQueue, //
    },
    reap::Hints,
    rx::{
        self,
        RxQueue, //
    },
    tx::{
        self,
        TxQueue, //
    },
    DEVICE,
    WORKS, //
};
use kernel::{
    device::{
        Bound,
        Core, //
    },
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Full,
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
        Work,
        WorkItem, //
    }, //
};
use kernel_ext::{
    clock::monotonic_nanos,
    peek::Peek,
    virtio::{
        self,
        Adapter,
        QueueList, //
    }, //
};
use virtio_transport_common::{
    Orphans,
    SendQueue, //
};
use vsock_proto::{
    addr::{
        Cid,
        GuestCid, //
    },
    header::{
        Config,
        F_SEQPACKET,
        QUEUE_EVENT,
        QUEUE_RX,
        QUEUE_TX, //
    }, //
};

/// `VIRTIO_ID_VSOCK`.
const DEVICE_ID: u32 = 19;

/// A device that breaks a queue again within this time is not used any more, until its driver is
/// bound again, the machine has slept, or its parent is reset.
const RESTART_INTERVAL_NANOS: i64 = 1_000_000_000;

/// Which start of the device something belongs to.
///
/// Who finds a queue broken takes it with the queue locked, and says it in [`Device::fail`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

/// Work items of [`Device`], by id.
pub(crate) const RX_WORK: u64 = 0;
pub(crate) const TX_WORK: u64 = 1;
pub(crate) const SEND_WORK: u64 = 2;
pub(crate) const EVENT_WORK: u64 = 3;
pub(crate) const RESET_WORK: u64 = 4;
pub(crate) const REAP_WORK: u64 = 5;

/// The device, as far as interrupts, works and senders see it.
///
/// Counted: see the top of the crate.
#[pin_data]
pub(crate) struct Device {
    /// See [`rx`](crate::rx).
    pub(crate) rx: Arc<RxQueue>,
    /// See [`tx`](crate::tx).
    pub(crate) tx: Arc<TxQueue>,
    /// See [`event`](crate::event).
    pub(crate) event: Arc<EventQueue>,
    /// Packets for which there is no room in `tx`, or which come after such.
    #[pin]
    pub(crate) send_queue: SendQueue,
    /// What closed sockets leave behind for the host.
    pub(crate) orphans: Arc<Orphans>,
    /// Our address: the number of a [`GuestCid`].
    cid: Atomic<u32>,
    seqpacket: Atomic<bool>,
    /// Descriptors of the receive queue: more replies than these are not queued.
    pub(crate) max_replies: Atomic<usize>,
    /// Descriptors of the send queue: a packet in more parts than these is never sent.
    pub(crate) max_parts: Atomic<usize>,
    /// See [`reap`](crate::reap).
    pub(crate) sending: Hints,
    /// Packets that the receive queue has are left there until replies went out.
    pub(crate) rx_paused: Atomic<bool>,
    /// The device broke a queue: nothing can be sent nor received.
    broken: Atomic<bool>,
    /// How often it was started. Changes only with `started` locked.
    epoch: Atomic<u64>,
    /// When it was started, by [`monotonic_nanos`]. It is not started again while this is locked.
    #[pin]
    started: Mutex<Option<i64>>,
    dev: ARef<virtio::Device>,
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
}

impl_has_work! {
    impl HasWork<Device, RX_WORK> for Device { self.rx_work }
    impl HasWork<Device, TX_WORK> for Device { self.tx_work }
    impl HasWork<Device, SEND_WORK> for Device { self.send_work }
    impl HasWork<Device, EVENT_WORK> for Device { self.event_work }
    impl HasWork<Device, RESET_WORK> for Device { self.reset_work }
    impl HasWork<Device, REAP_WORK> for Device { self.reap_work }
}

impl WorkItem<RX_WORK> for Device {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.as_arc_borrow().receive_packets();
    }
}

impl WorkItem<TX_WORK> for Device {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.as_arc_borrow().reap_and_send();
    }
}

impl WorkItem<SEND_WORK> for Device {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.as_arc_borrow().send_queued();
    }
}

impl WorkItem<EVENT_WORK> for Device {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.as_arc_borrow().handle_events();
    }
}

impl WorkItem<RESET_WORK> for Device {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.reset_transport();
    }
}

impl WorkItem<REAP_WORK> for Device {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.as_arc_borrow().reap_at_last();
    }
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

/// Reads our address from the configuration space.
fn read_cid(dev: &virtio::Device<Bound>) -> Result<GuestCid> {
    let config: Config = dev.read_config(0)?;
    config.guest_cid().map_err(|_| EINVAL)
}

impl Device {
    fn new(dev: &virtio::Device<Bound>) -> impl PinInit<Self, Error> + '_ {
        pin_init::pin_init_scope(move || {
            let cid = read_cid(dev)
                .inspect_err(|_| dev_err!(dev, "the device has no valid CID for us\n"))?;
            Ok(try_pin_init!(Self {
                rx: rx::new_queue()?,
                tx: tx::new_queue()?,
                event: event::new_queue()?,
                send_queue <- SendQueue::new(),
                orphans: Orphans::new()?,
                cid: Atomic::new(Cid::from(cid).get()),
                seqpacket: Atomic::new(dev.has_feature(F_SEQPACKET)),
                max_replies: Atomic::new(0),
                max_parts: Atomic::new(0),
                sending: Hints::new(),
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
            }? Error))
        })
    }

    /// Our address.
    #[inline]
    pub(crate) fn cid(&self) -> Cid {
        Cid::new(self.cid.peek())
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

    /// Whether senders find this device, and no other one.
    pub(crate) fn is_current(&self) -> bool {
        let guard = rcu::read_lock();
        DEVICE
            .load(&guard)
            .is_some_and(|dev| core::ptr::eq::<Self>(&*dev, self))
    }

    /// Takes our address from the configuration space again; a bad one is not taken.
    pub(crate) fn update_cid(&self, dev: &virtio::Device<Bound>) -> Result {
        let cid = read_cid(dev)?;
        self.cid.store(Cid::from(cid).get(), Relaxed);
        Ok(())
    }

    /// The device broke a queue in `epoch`: ends all connections, and starts the device anew, unless
    /// that was done a moment ago. Nothing is done if the device was started again since.
    ///
    /// Context: may sleep. No lock of a queue, a device or a socket is held.
    pub(crate) fn fail(self: ArcBorrow<'_, Self>, queue: &str, epoch: Epoch) {
        let Some(again) = self.disconnect(queue, epoch) else {
            return;
        };
        let this = Arc::from(self);
        let still = |dev: &Self| dev.epoch() == epoch;
        if !again {
            // Without a device to start there is nothing to tell.
            match Adapter::<VsockDriver>::restart(&self.dev, &this, still) {
                Ok(()) | Err(ENODEV) => return,
                Err(e) => pr_err!("the device does not start again ({:?})\n", e),
            }
        }
        // What the device has been given is taken from it, unless that was done: it would have access
        // to it forever, and sockets wait for what they sent.
        if Adapter::<VsockDriver>::halt(&self.dev, &this, still).is_ok() {
            // What a work put back while the queue was taken from it.
            self.send_queue.purge_all();
        }
    }

    /// Ends all connections, unless somebody else did, since a queue was broken in `epoch`. Returns
    /// whether the device had only just been started.
    fn disconnect(&self, queue: &str, epoch: Epoch) -> Option<bool> {
        // A device that starts meanwhile waits, and what is ended here belongs to `epoch`.
        let started = self.started.lock();
        if self.epoch() != epoch {
            return None;
        }
        if self.broken.xchg(true, Full) {
            self.send_queue.purge_all();
            return None;
        }
        let again = started.is_some_and(|started| {
            monotonic_nanos().wrapping_sub(started) < RESTART_INTERVAL_NANOS
        });
        pr_err!(
            "the device broke its {} queue, {} it\n",
            queue,
            if again { "giving up" } else { "restarting" }
        );
        self.stop_rx();
        Guest::reset(|| self.is_current());
        self.send_queue.purge_all();
        Some(again)
    }

    /// Lets senders find the device, and fills the queues.
    fn start(self: ArcBorrow<'_, Self>) -> Result {
        let mut started = self.started.lock();
        *started = Some(monotonic_nanos());
        let epoch = self.epoch.peek().wrapping_add(1);
        self.epoch.store(epoch, Relaxed);
        self.broken.store(false, Relaxed);
        drop(started);

        let mut queue = self.tx.lock().ok_or(ENODEV)?;
        // Who breaks it from here on knows the new epoch.
        if queue.is_broken() {
            return Err(EIO);
        }
        self.max_parts.store(queue.size(), Relaxed);
        tx::start(&mut queue);
        self.start_reaping(&mut queue);
        drop(queue);
        DEVICE
            .compare_swap(None, Some(self.into()))
            .map_err(|_| EBUSY)?;
        // Only now, since packets that arrive may have answers.
        self.start_rx()
            .and_then(|()| self.start_event())
            .inspect_err(|_| self.stop())
    }

    /// Lets no sender find the device any more, takes no more packets from it, and ends the
    /// connections.
    fn stop(self: ArcBorrow<'_, Self>) {
        let this = Arc::from(self);
        if DEVICE.compare_swap(Some(&this), None).is_ok() {
            // Before the connections are ended, or there might be new ones meanwhile.
            self.stop_rx();
            Guest::reset(|| true);
        }
        self.send_queue.purge_all();
    }
}

/// The driver, for the bus.
pub(crate) struct VsockDriver;

kernel_ext::virtio_device_table!(ID_TABLE, [virtio::DeviceId::new(DEVICE_ID)]);

#[vtable]
impl virtio::Driver for VsockDriver {
    type Shared = Device;
    type Data<'bound> = ();

    const ID_TABLE: virtio::IdTable = &ID_TABLE;
    const FEATURES: &'static [u32] = &[F_SEQPACKET];

    fn shared(dev: &virtio::Device<Core<'_>>) -> impl PinInit<Device, Error> {
        Device::new(dev)
    }

    fn queues(shared: &Device, list: &mut QueueList) -> Result {
        // In the order of `QUEUE_RX`, `QUEUE_TX` and `QUEUE_EVENT`.
        list.push(c"rx", shared.rx.clone())?;
        list.push(c"tx", shared.tx.clone())?;
        list.push(c"event", shared.event.clone())
    }

    fn queue_used(shared: ArcBorrow<'_, Device>, index: u32) {
        const RX: u32 = QUEUE_RX as u32;
        const TX: u32 = QUEUE_TX as u32;
        const EVENT: u32 = QUEUE_EVENT as u32;

        match index {
            RX => queue_work::<RX_WORK>(shared),
            TX => shared.sent(),
            EVENT => queue_work::<EVENT_WORK>(shared),
            _ => {}
        }
    }

    fn probe<'bound>(
        dev: &'bound virtio::Device<Core<'_>>,
        shared: Arc<Device>,
    ) -> impl PinInit<(), Error> + 'bound {
        pin_init::pin_init_scope(move || {
            Ok(shared.as_arc_borrow().start().inspect_err(|&e| {
                if e == EBUSY {
                    dev_err!(dev, "this guest has a vsock device already\n");
                }
            }))
        })
    }

    fn unbind<'bound>(
        _dev: &'bound virtio::Device<Core<'_>>,
        _data: Pin<&()>,
        shared: ArcBorrow<'_, Device>,
    ) {
        shared.stop();
    }

    fn freeze(_dev: &virtio::Device<Core<'_>>, shared: ArcBorrow<'_, Device>) {
        shared.stop();
    }

    fn restore(dev: &virtio::Device<Core<'_>>, shared: Arc<Device>) -> Result {
        shared
            .seqpacket
            .store(dev.has_feature(F_SEQPACKET), Relaxed);
        shared.rx_paused.store(false, Relaxed);
        // What a work put back while the queue was taken from it.
        shared.send_queue.purge_all();
        shared
            .update_cid(dev)
            .inspect_err(|_| dev_err!(dev, "the device has no valid CID for us\n"))?;
        shared.as_arc_borrow().start()
    }
}
