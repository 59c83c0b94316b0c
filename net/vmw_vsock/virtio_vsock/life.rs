// SPDX-License-Identifier: GPL-2.0

//! The life of the device, from probe to removal, and what its works do.

use crate::{
    address::Void,
    device::{
        queue_work,
        wait_for_bh,
        Broken,
        Device,
        Epoch,
        Guest,
        DEVICE,
        EVENT_WORK,
        REAP_WORK,
        RESET_WORK,
        RX_BH_WORK,
        RX_WORK,
        SEND_WORK,
        TX_WORK, //
    },
    tx, //
};
use kernel::{
    device::Core,
    prelude::*,
    sync::{
        atomic::{
            Full,
            Relaxed, //
        },
        Arc,
        ArcBorrow, //
    },
    workqueue::WorkItem, //
};
use kernel_ext::{
    clock::monotonic_nanos,
    virtio::{
        self,
        Adapter,
        QueueList, //
    }, //
};
use vsock_proto::header::{
    F_SEQPACKET,
    QUEUE_EVENT,
    QUEUE_RX,
    QUEUE_TX, //
};

/// `VIRTIO_ID_VSOCK`.
const DEVICE_ID: u32 = 19;

/// A device that breaks a queue again within this time is not used any more, until its driver is
/// bound again, the machine has slept, or its parent is reset.
const RESTART_INTERVAL_NANOS: i64 = 1_000_000_000;

impl WorkItem<RX_WORK> for Device {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let this = this.as_arc_borrow();
        if let Err(broken) = this.receive_packets() {
            this.fail(broken);
        }
    }
}

impl WorkItem<RX_BH_WORK> for Device {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.as_arc_borrow().receive_bh();
    }
}

impl WorkItem<TX_WORK> for Device {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.as_arc_borrow().send_queued();
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
        let this = this.as_arc_borrow();
        if let Err(broken) = this.handle_events() {
            this.fail(broken);
        }
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
        this.await_last_resort();
        this.as_arc_borrow().send_queued();
        if this.rooms.age() {
            this.as_arc_borrow().watch();
        }
    }
}

impl Device {
    /// The work that drops what the device has sent, and sends what was queued meanwhile.
    fn send_queued(self: ArcBorrow<'_, Self>) {
        if let Err(broken) = self.reap_and_send() {
            self.fail(broken);
        }
        self.resume_rx();
    }

    /// The device broke a queue: ends all connections, and starts the device anew, unless that was
    /// done a moment ago. Nothing is done if the device was started again since that was found.
    ///
    /// Context: may sleep. No lock of a queue, a device or a socket is held.
    fn fail(self: ArcBorrow<'_, Self>, Broken { queue, epoch }: Broken) {
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
        // What the device has been given is taken from it, unless that was done: it would have
        // access to it forever, and sockets wait for what they sent.
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
        Guest::reset(|_| self.is_current());
        self.send_queue.purge_all();
        Some(again)
    }

    /// Lets senders find the device, and fills the queues.
    fn start(self: ArcBorrow<'_, Self>) -> Result {
        let mut started = self.started.lock();
        *started = Some(monotonic_nanos());
        self.set_epoch(self.epoch().next());
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
            Guest::reset(|_| true);
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
            RX => shared.received(),
            TX => shared.sent(),
            EVENT => queue_work::<EVENT_WORK>(shared),
            _ => {}
        }
    }

    fn settle(_shared: &Device) {
        wait_for_bh();
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
        // Nothing is left of before.
        let _: Void = shared
            .address
            .take(dev)
            .inspect_err(|_| dev_err!(dev, "the device has no valid CID for us\n"))?;
        shared.as_arc_borrow().start()
    }
}
