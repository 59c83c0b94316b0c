// SPDX-License-Identifier: GPL-2.0

//! The device: the host's end of the packets of one guest.

use crate::{
    holder::Holder,
    pace::Pace,
    policy::Policies,
    stats::Stats,
    table::{
        CidTable,
        Hidden,
        InNet,
        Membership,
        Published,
        Refused, //
    },
    throttle::Throttle,
};
use kernel::{
    new_mutex, new_spinlock,
    prelude::*,
    static_lock_class,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        rcu,
        Arc,
        Mutex,
        SpinLock, //
    },
};
use kernel_ext::{
    net::Net,
    owner_mm::InOwnerMm,
    peek::Peek,
    ratelimit::RateLimit,
    rcu::wait_for_readers,
    return_work::HomeSlot,
    trace,
    vsock::cid_in_use, //
};
use vhost_core::{
    device::Device,
    feature,
    inline::{
        Inlined,
        Left, //
    },
    message::Messages,
    virtqueue::{
        Kicks,
        Virtqueue, //
    },
    worker::{
        WorkId,
        Works, //
    },
};
use virtio_transport_common::{
    Orphans,
    Rooms,
    SendQueue,
    TxPacket,
    WatchSlot, //
};
use vsock_proto::{
    addr::{
        Cid,
        GuestCid, //
    },
    header::Op,
};

/// Sockets of type `SOCK_SEQPACKET`.
#[doc(alias = "VIRTIO_VSOCK_F_SEQPACKET")]
pub(crate) const FEATURE_SEQPACKET: u64 = 1 << 1;

/// What the device offers.
const FEATURES: u64 = feature::COMMON | feature::ACCESS_PLATFORM | FEATURE_SEQPACKET;

/// To send to the guest.
const WORK_RX: WorkId = WorkId::new::<0>();
/// To receive from the guest.
const WORK_TX: WorkId = WorkId::new::<1>();

/// Limits messages about CIDs that somebody cannot have: programs try one after the other.
static IN_USE: RateLimit = RateLimit::new();

/// The module, for threads that do something for a device.
pub(crate) static HOME: HomeSlot = HomeSlot::new();

/// The devices that have a CID.
static TABLE: CidTable<VhostVsock> = CidTable::new();

/// Ages the memory of the devices.
pub(crate) static AGING: WatchSlot = WatchSlot::new();

/// Ages the memory of all devices that have a CID; says whether there is any left.
pub(crate) fn age() -> bool {
    let (mut index, mut any) = (0_usize, false);
    while TABLE.for_list(index, |device| any |= device.rooms.age()) {
        index = index.saturating_add(1);
    }
    any
}

/// Puts the table of devices in its place; dropping what is returned takes it away.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn publish() -> Result<Published<VhostVsock>> {
    TABLE.publish()
}

/// Does something with the device that has a CID: see [`CidTable::with`].
#[inline]
pub(crate) fn with_device<R>(
    cid: Cid,
    net: Option<&Net>,
    f: impl FnOnce(&VhostVsock) -> R,
) -> Option<R> {
    TABLE.with(cid, net, f)
}

/// See [`CidTable::for_list`].
pub(crate) fn for_list(index: usize, f: impl FnMut(&VhostVsock)) -> bool {
    TABLE.for_list(index, f)
}

/// An open `/dev/vhost-vsock`.
///
/// # Ownership
///
/// The file has a reference until it is released. While the device has a CID, so has the table of
/// CIDs, and while there is a worker, so has that. Both are given back in
/// [`release`](Self::release), which thus is the end.
///
/// # Lock order
///
/// `member` < lock of the table; both are never held together with those that follow.
/// `holder` is taken with nothing else.
/// Lock of [`Device`] < that of the queue to the guest (0) < that of the queue from the guest (1) <
/// gate of a connection, lock of the [`SendQueue`]. A work holds the lock of its own queue only,
/// and with it, a socket lock is only tried, never waited for.
#[pin_data]
pub(crate) struct VhostVsock {
    #[pin]
    pub(crate) core: Device,
    /// The queue to the guest.
    pub(crate) rx: Arc<Virtqueue>,
    /// The queue from the guest.
    pub(crate) tx: Arc<Virtqueue>,
    /// Packets for the guest.
    #[pin]
    pub(crate) queue: SendQueue,
    /// Holds back what comes from the guest, while it does not take the replies.
    pub(crate) throttle: Throttle,
    /// What closed sockets leave behind for the guest.
    pub(crate) orphans: Arc<Orphans>,
    /// Memory for what the guest sent, until it is read.
    #[pin]
    pub(crate) rooms: Rooms,
    pub(crate) stats: Stats,
    /// What the guest may do.
    #[pin]
    pub(crate) policies: Policies,
    /// How fast the guest may get packets.
    #[pin]
    pub(crate) to_guest: Pace,
    /// How fast it may send them.
    #[pin]
    pub(crate) from_guest: Pace,
    /// What [`Stats::to_guest`] was when a thread that kicked last received packets.
    pub(crate) answers_seen: Atomic<u64>,
    /// Buffers in a row that were of no use, since the device was started; only the work for `rx`
    /// adds to it.
    pub(crate) bad_buffers: Atomic<u32>,
    /// How much payload fits into a buffer of the guest, as far as is known: a hint, written with
    /// the RX queue locked.
    pub(crate) room: Atomic<usize>,
    /// The namespace of whoever opened the device.
    net: ARef<Net>,
    /// The CID of the guest as a number, 0 if there is none yet. Written with `member` locked.
    cid: Atomic<u32>,
    #[pin]
    pub(crate) member: Mutex<Member>,
    /// For messages to people. Others take the lock, so nothing that waits is done with it held.
    #[pin]
    pub(crate) holder: SpinLock<Holder>,
}

/// What a device is called, and was called.
pub(crate) struct Member {
    pub(crate) now: Option<Membership<VhostVsock>>,
    /// CIDs that the guest had before, of which there may be connections.
    pub(crate) before: KVec<Cid>,
    /// There were more of them than anybody needs.
    pub(crate) before_is_full: bool,
    /// By these somebody may still be using the device: nobody waits for that before the device
    /// ends, or there are many.
    pub(crate) hidden: KVec<Hidden<VhostVsock>>,
}

impl Member {
    /// How many CIDs of before are remembered.
    const MAX_BEFORE: usize = 64;

    pub(crate) const fn new() -> Self {
        Self {
            now: None,
            before: KVec::new(),
            before_is_full: false,
            hidden: KVec::new(),
        }
    }

    /// Notes the CID that the guest has, if any, as one that it had, and makes room for another
    /// [`hidden`](Self::hidden) one. If there was none left, `full` gets all of them.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    fn remember(&mut self, full: &mut KVec<Hidden<VhostVsock>>) -> Result {
        let Some(cid) = self.now.as_ref().map(|now| now.cid().get()) else {
            return Ok(());
        };
        if self.hidden.len() >= self.hidden.capacity() {
            let empty = KVec::with_capacity(Self::MAX_BEFORE, GFP_KERNEL_ACCOUNT)?;
            *full = core::mem::replace(&mut self.hidden, empty);
        }
        if self.before.contains(&cid) {
            return Ok(());
        }
        if self.before.len() >= Self::MAX_BEFORE {
            self.before_is_full = true;
            return Ok(());
        }
        if self.before.capacity() < Self::MAX_BEFORE {
            // Once, at the first CID to be remembered: growing has code to panic.
            self.before = KVec::with_capacity(Self::MAX_BEFORE, GFP_KERNEL)?;
        }
        self.before.push_within_capacity(cid).map_err(|_| ENOMEM)
    }

    /// The device has another CID from now on.
    fn replace(&mut self, new: Membership<VhostVsock>) {
        if let Some(old) = self.now.replace(new) {
            // There is room, or this waits for a grace period.
            drop(self.hidden.push_within_capacity(old.hide()));
        }
    }
}

impl InNet for VhostVsock {
    #[inline]
    fn net(&self) -> &Net {
        &self.net
    }
}

impl VhostVsock {
    /// Creates the device of a file that is being opened.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let messages = Messages::new(2)?;
        let kicks = Kicks {
            home: &HOME,
            are_inline: crate::params::are_kicks_inline(),
        };
        let (rx, tx) = (static_lock_class!(), static_lock_class!());
        let rx = Virtqueue::new(&messages, WORK_RX, kicks, c"vhost_vsock::rx", rx)?;
        let tx = Virtqueue::new(&messages, WORK_TX, kicks, c"vhost_vsock::tx", tx)?;
        let mut queues = KVec::with_capacity(2, GFP_KERNEL)?;
        for queue in [&rx, &tx] {
            queues
                .push_within_capacity(queue.clone())
                .map_err(|_| ENOMEM)?;
        }
        let orphans = Orphans::new()?;
        Arc::pin_init(
            try_pin_init!(Self {
                to_guest <- Pace::new(&rx),
                from_guest <- Pace::new(&tx),
                core <- Device::new(FEATURES, messages, queues),
                rx,
                tx,
                queue <- SendQueue::new(),
                throttle: Throttle::new(),
                orphans,
                rooms <- Rooms::new(),
                stats: Stats::new(),
                policies <- Policies::new(),
                answers_seen: Atomic::new(0),
                bad_buffers: Atomic::new(0),
                room: Atomic::new(usize::MAX),
                net: Net::of_current(),
                cid: Atomic::new(0),
                member <- new_mutex!(Member::new(), "vhost_vsock::VhostVsock::member"),
                holder <- new_spinlock!(Holder::Nobody, "vhost_vsock::VhostVsock::holder"),
            }),
            GFP_KERNEL,
        )
    }

    /// The namespace that the device belongs to.
    #[inline]
    pub(crate) fn net(&self) -> &Net {
        &self.net
    }

    /// The CID of the guest as a number, 0 if there is none.
    #[inline]
    pub(crate) fn cid(&self) -> u32 {
        self.cid.peek()
    }

    /// Says whether the guest can take packets, and answer them.
    pub(crate) fn is_reachable(&self, guard: &rcu::Guard) -> bool {
        [&self.rx, &self.tx]
            .iter()
            .all(|queue| queue.is_running() && queue.has_worker(guard))
    }

    /// Says whether a packet waits for the guest that cannot take it now.
    ///
    /// A VMM stops the device of a guest that pauses. Whoever sends data, or connects, is told so;
    /// but what a connection has to say once only (how much room there is, that it ends) would be
    /// missed for ever. There is at most one packet of each kind for a connection.
    pub(crate) fn waits_for_start(&self, packet: &TxPacket, guard: &rcu::Guard) -> bool {
        let ends = matches!(
            packet.header().op(),
            Op::Rst | Op::Shutdown | Op::CreditUpdate
        );
        ends && [&self.rx, &self.tx]
            .iter()
            .all(|queue| !queue.is_broken() && queue.has_worker(guard))
    }

    /// Gives the guest a CID, or another one. Connections of the old one stay, but have nobody to
    /// send to.
    ///
    /// # Errors
    ///
    /// `EINVAL` if no guest can have it, `EADDRINUSE` if this machine or another guest has it,
    /// `ENOMEM`.
    pub(crate) fn set_cid(self: &Arc<Self>, cid: u64) -> Result {
        let cid = GuestCid::try_from(cid).map_err(|_| EINVAL)?;
        // A guest of this machine's host cannot have this machine's CID: packets for it would be
        // taken for our own.
        if cid_in_use(cid.get().get()) {
            if IN_USE.allows() {
                pr_notice!(
                    "CID {} is the one of this machine itself\n",
                    cid.get().get()
                );
            }
            return Err(EADDRINUSE);
        }
        match self.join(cid) {
            Ok(()) => {
                self.holder.lock().set_by_current();
                Ok(())
            }
            Err(Refused::InUse(other)) => {
                if IN_USE.allows() {
                    let holder = *other.holder.lock();
                    pr_notice!("CID {} is in use by {holder}\n", cid.get().get());
                }
                Err(EADDRINUSE)
            }
            Err(Refused::Other(err)) => Err(err),
        }
    }

    /// Puts the device into the table of CIDs, or moves it there.
    fn join(self: &Arc<Self>, cid: GuestCid) -> core::result::Result<(), Refused<Self>> {
        let mut full = KVec::new();
        let ret = self.join_locked(cid, &mut full);
        // Of many changes one waits.
        wait_for_readers(&mut full);
        ret
    }

    fn join_locked(
        self: &Arc<Self>,
        cid: GuestCid,
        full: &mut KVec<Hidden<Self>>,
    ) -> core::result::Result<(), Refused<Self>> {
        let mut member = self.member.lock();
        if member.now.as_ref().is_some_and(|now| now.cid() == cid) {
            return Ok(());
        }
        member.remember(full)?;
        let new = TABLE.join(self, cid)?;
        self.cid.store(cid.get().get(), Relaxed);
        // The old one, if any, goes after the new one is there.
        member.replace(new);
        Ok(())
    }

    /// Works on a ring, and shows what was moved to who traces that.
    #[inline]
    fn traced<R>(&self, to_guest: bool, inlined: bool, work: impl FnOnce() -> R) -> R {
        let stats = &self.stats;
        let (packets, bytes) = if to_guest {
            (&stats.to_guest, &stats.to_guest_bytes)
        } else {
            (&stats.from_guest, &stats.from_guest_bytes)
        };
        let before = (packets.get(), bytes.get());
        let done = work();
        trace::vhost_vsock_run(
            self.cid(),
            to_guest,
            inlined,
            packets.get().wrapping_sub(before.0),
            bytes.get().wrapping_sub(before.1),
        );
        done
    }

    /// The current process just became the owner.
    pub(crate) fn note_owner(&self) {
        *self.holder.lock() = Holder::owned_by_current();
    }
}

impl Works for VhostVsock {
    fn run(&self, work: WorkId, mm: &InOwnerMm) {
        match work {
            WORK_RX => self.traced(true, false, || self.send_packets(mm)),
            WORK_TX => self.traced(false, false, || self.receive_packets(mm)),
            _ => (),
        }
    }

    fn run_inline(&self, work: WorkId, mm: &InOwnerMm, begin: u64) -> Inlined {
        match work {
            WORK_RX => self.traced(true, true, || self.send_inline(mm, begin)),
            WORK_TX => self.traced(false, true, || self.receive_inline(mm, begin)),
            _ => Inlined::Left(Left::Unready),
        }
    }

    fn worker_died(&self) {
        self.cut_off();
    }
}
