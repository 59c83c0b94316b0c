// SPDX-License-Identifier: GPL-2.0

//! The carrier of packets that do not leave the machine: CID 1, and the machine's own.
//!
//! A packet goes from [`Carrier::send`] through a queue to a work, which gives it, the same buffer,
//! to the receiver: the sender may hold its socket lock, which the receiver's path takes.

#![deny(unsafe_code)]

use kernel::{
    impl_has_work,
    new_work,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        rcu,
        Arc,
        ArcBorrow, //
    },
    workqueue::{
        Work,
        WorkItem, //
    },
    InPlaceModule, //
};
use kernel_ext::{
    gfp::Gfp,
    lock::SpinLockBh,
    net::Net,
    new_spinlock_bh,
    peek::Peek,
    rcu::RcuSlot,
    skb::Room,
    sock::{
        LockedSock,
        VsockSock, //
    },
    vsock::{
        Kind,
        TransportSlot, //
    },
    work::WorkQueue, //
};
use virtio_transport_common::{
    deliver_now,
    receive,
    slots,
    wake_later,
    Aging,
    Carrier,
    Conn,
    Over,
    Owner,
    Registration,
    Rooms,
    RxPacket,
    SendQueue,
    TxPacket,
    TxPackets,
    WatchSlot, //
};
use vsock_proto::addr::{
    Addr,
    Cid, //
};

static LOOPBACK: RcuSlot<Loopback> = RcuSlot::new();

/// Ages the memory for payloads.
static AGING: WatchSlot = WatchSlot::new();

/// How many parts the memory for payloads has: senders on different CPUs mostly use different ones.
const PARTS: usize = 4;

/// The queue and what empties it.
///
/// It is in [`LOOPBACK`] from before the registration of the carrier until after its end. The
/// workqueue outlives its works, which have references to this: the last one is dropped by the
/// module, after a flush.
#[pin_data]
struct Loopback {
    #[pin]
    queue: SendQueue,
    #[pin]
    work: Work<Loopback>,
    workqueue: WorkQueue,
    /// Memory for payloads, of which each user gets its own back.
    #[pin]
    rooms: [Rooms; PARTS],
    /// Connections whose readers the work wakes.
    #[pin]
    sleepers: SpinLockBh<Sleepers>,
    /// There may be some: written with the lock held, read without. The work is queued after it is
    /// set.
    has_sleepers: Atomic<bool>,
}

/// A socket and its connection.
type Sleeper = (ARef<VsockSock>, Arc<Conn>);

/// How many readers wait for the work to wake them, at most; others are woken at once.
type Sleepers = [Option<Sleeper>; 8];

impl_has_work! {
    impl HasWork<Self> for Loopback { self.work }
}

impl Loopback {
    fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            try_pin_init!(Self {
                queue <- SendQueue::new(),
                work <- new_work!("vsock_loopback::Loopback::work"),
                workqueue: WorkQueue::new(c"vsock-loopback")?,
                rooms <- pin_init::pin_init_array_from_fn(|_| Rooms::new()),
                sleepers <- new_spinlock_bh!(
                    [const { None }; 8],
                    "vsock_loopback::Loopback::sleepers"
                ),
                has_sleepers: Atomic::new(false),
            }),
            GFP_KERNEL,
        )
    }
}

impl Loopback {
    /// Wakes the readers that wait for it.
    #[cold]
    fn wake_sleepers(&self) {
        let mut sleepers = self.sleepers.lock();
        let woken = core::mem::replace(&mut *sleepers, [const { None }; 8]);
        self.has_sleepers.store(false, Relaxed);
        drop(sleepers);
        for (sock, conn) in woken.into_iter().flatten() {
            wake_later::<Local>(&sock, &conn);
        }
    }
}

/// Ages the memory for payloads; says whether there is any left.
fn age() -> bool {
    LOOPBACK.get().is_some_and(|loopback| {
        let mut any = false;
        for rooms in &loopback.rooms {
            any |= rooms.age();
        }
        any
    })
}

impl WorkItem for Loopback {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        if this.has_sleepers.peek() {
            this.wake_sleepers();
        }
        let mut run = Run::new(&this.queue);
        // Most packets come from the same namespace.
        let mut net = None;
        while let Some(packet) = run.pop() {
            let mut packet = RxPacket::from_tx(packet);
            packet.deliver_tap();
            if !packet.is_from(net.as_deref()) {
                net = packet.net();
            }
            receive::<Local>(&mut packet, net.as_deref());
        }
        if !this.queue.rest() {
            // What came meanwhile: others may run before that.
            this.workqueue.queue(this.clone());
        }
    }
}

/// How many packets one run of the work moves at most, before others may run.
const RUN: usize = 256;

/// How many packets are taken out of the queue at once.
const BATCH: usize = 16;

/// The packets that one run of the work moves.
///
/// Few are in hand at a time, so that a packet that is waited for comes soon, whatever waits before
/// it.
struct Run<'a> {
    queue: &'a SendQueue,
    packets: TxPackets,
    /// How many may still be taken.
    left: usize,
}

impl<'a> Run<'a> {
    fn new(queue: &'a SendQueue) -> Self {
        Self {
            queue,
            packets: queue.pop_some(BATCH),
            left: RUN,
        }
    }

    /// The next packet of those that were there before the work looked last: for others, it looks
    /// again.
    fn pop(&mut self) -> Option<TxPacket> {
        loop {
            if let Some(packet) = self.packets.pop() {
                self.left = self.left.saturating_sub(1);
                return Some(packet);
            }
            if self.left == 0 || !self.packets.has_more() {
                return None;
            }
            self.packets = self.queue.pop_some(BATCH.min(self.left));
        }
    }
}

/// The carrier.
///
/// It has no budget for what closed sockets leave behind: no peer decides when that is taken, the
/// work does.
struct Local;

#[vtable]
impl Carrier for Local {
    const KIND: Kind = Kind::Local;

    fn slot() -> &'static TransportSlot<Conn> {
        &slots::LOOPBACK
    }

    fn local_cid() -> Cid {
        Cid::LOCAL
    }

    /// A socket may call the machine by its other CIDs; packets always come from this one.
    fn peer_cid(_remote: Cid) -> Cid {
        Cid::LOCAL
    }

    fn stream_allow(_sock: &VsockSock, _addr: Addr) -> bool {
        true
    }

    /// As for streams: the queue keeps namespaces apart. (C refuses it in local mode, for no
    /// reason that its queue has.)
    fn seqpacket_allow(_sock: &VsockSock, _cid: Cid) -> bool {
        true
    }

    const IS_DIRECT: bool = true;

    fn send(packet: TxPacket, net: Option<&Net>) -> Result {
        let Err(packet) = deliver_now::<Local>(packet, net) else {
            return Ok(());
        };
        let guard = rcu::read_lock();
        let loopback = LOOPBACK.load(&guard).ok_or(ENODEV)?;
        if loopback.queue.push_back(packet)? {
            loopback.workqueue.queue(Arc::from(loopback));
        }
        Ok(())
    }

    fn deliver(mut packet: RxPacket<'_>, net: Option<&Net>) {
        receive::<Self>(&mut packet, net);
    }

    fn defer_wake(sock: &VsockSock, conn: ArcBorrow<'_, Conn>) -> bool {
        let guard = rcu::read_lock();
        let Some(loopback) = LOOPBACK.load(&guard) else {
            return false;
        };
        let mut sleepers = loopback.sleepers.lock();
        let Some(place) = sleepers.iter_mut().find(|place| place.is_none()) else {
            return false;
        };
        *place = Some((sock.into(), conn.into()));
        loopback.has_sleepers.store(true, Relaxed);
        drop(sleepers);
        loopback.workqueue.queue(Arc::from(loopback));
        true
    }

    fn room(sock: &LockedSock, headroom: usize, len: usize) -> Option<Room> {
        let loopback = LOOPBACK.get()?;
        // Sockets are far apart in memory.
        let part = (core::ptr::from_ref(sock).addr() / 1024) % PARTS;
        let rooms = loopback.rooms.get(part)?;
        let taken = rooms.get(headroom, len, Owner::of(sock), Gfp::Kernel)?;
        Some(taken.aged_by(&AGING))
    }

    fn cancel(sock: &mut LockedSock) -> Result {
        let loopback = LOOPBACK.get().ok_or(ENODEV)?;
        if let Some(conn) = sock.conn::<Over<Self>>() {
            if loopback.queue.purge(&conn).wake {
                loopback.workqueue.queue(loopback.clone());
            }
        }
        Ok(())
    }
}

/// The module; fields are dropped in the order in which they are declared.
#[pin_data]
struct LoopbackModule {
    #[pin]
    registration: Registration<Local>,
    aging: Aging,
    published: Published,
}

/// Keeps the loopback in its place; dropping it waits for what it still does.
struct Published;

impl Published {
    fn new() -> Result<Self> {
        LOOPBACK.swap(Some(Loopback::new()?));
        Ok(Self)
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        if let Some(loopback) = LOOPBACK.swap(None) {
            // Nobody sends any more: once the work rests, none has a reference, thus the workqueue
            // is not destroyed by its own work.
            while !loopback.queue.is_idle() {
                loopback.workqueue.flush();
            }
            loopback.workqueue.flush();
            loopback.queue.purge_all();
        }
    }
}

impl InPlaceModule for LoopbackModule {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            published: Published::new()?,
            aging: Aging::new(&AGING, age)?,
            registration <- Registration::<Local>::new(),
        })
    }
}

module! {
    type: LoopbackModule,
    name: "vsock_loopback",
    authors: ["vsock-rust developers"],
    description: "Loopback transport for vsock, in Rust",
    license: "GPL",
    alias: ["net-pf-40"],
}

kernel_ext::module_version!();
