// SPDX-License-Identifier: GPL-2.0

//! The device: the host's end of the packets of one guest.

use crate::{
    carrier::Host,
    holder::Holder,
    stats::Stats,
    table::{
        with_device,
        Membership,
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
    sock::LockedSock,
    vsock::cid_in_use, //
};
use vhost_core::{
    device::Device,
    message::Messages,
    virtqueue::{
        feature,
        Virtqueue, //
    },
    worker::{
        WorkId,
        Works, //
    },
};
use virtio_transport_common::{
    reset_connections,
    Orphans,
    SendQueue,
    TxPacket, //
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
/// `member` < lock of a bucket of the table; both are never held together with those that follow.
/// `holder` is taken with nothing else.
/// Lock of [`Device`] < that of the queue to the guest (0) < that of the queue from the guest (1) <
/// socket locks < lock of the [`SendQueue`]. A work holds the lock of its own queue only.
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
    pub(crate) stats: Stats,
    /// Buffers in a row that were of no use, since the device was started; only the work for `rx`
    /// adds to it.
    pub(crate) bad_buffers: Atomic<u32>,
    /// The namespace of whoever opened the device.
    net: ARef<Net>,
    /// The CID of the guest as a number, 0 if there is none yet. Written with `member` locked.
    cid: Atomic<u32>,
    #[pin]
    member: Mutex<Member>,
    /// For messages to people. Others take the lock, so nothing that waits is done with it held.
    #[pin]
    holder: SpinLock<Holder>,
}

/// What a device is called, and was called.
struct Member {
    now: Option<Membership>,
    /// CIDs that the guest had before, of which there may be connections.
    before: KVec<Cid>,
    /// There were more of them than anybody needs.
    before_is_full: bool,
}

impl Member {
    /// How many CIDs of before are remembered.
    const MAX_BEFORE: usize = 64;

    const fn new() -> Self {
        Self {
            now: None,
            before: KVec::new(),
            before_is_full: false,
        }
    }

    /// Notes the CID that the guest has, if any, as one that it had.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    fn remember(&mut self) -> Result {
        let Some(cid) = self.now.as_ref().map(|now| now.cid().get()) else {
            return Ok(());
        };
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
}

impl VhostVsock {
    /// Creates the device of a file that is being opened.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let messages = Messages::new(2)?;
        let rx = Virtqueue::new(&messages, WORK_RX, c"vhost_vsock::rx", static_lock_class!())?;
        let tx = Virtqueue::new(&messages, WORK_TX, c"vhost_vsock::tx", static_lock_class!())?;
        let mut queues = KVec::with_capacity(2, GFP_KERNEL)?;
        for queue in [&rx, &tx] {
            queues
                .push_within_capacity(queue.clone())
                .map_err(|_| ENOMEM)?;
        }
        let orphans = Orphans::new()?;
        Arc::pin_init(
            pin_init!(Self {
                core <- Device::new(FEATURES, messages, queues),
                rx,
                tx,
                queue <- SendQueue::new(),
                throttle: Throttle::new(),
                orphans,
                stats: Stats::new(),
                bad_buffers: Atomic::new(0),
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
    /// A VMM stops the device of a guest that pauses. Whoever sends data, or connects, is told so; but
    /// what a connection has to say once only (how much room there is, that it ends) would be missed
    /// for ever. There is at most one packet of each kind for a connection.
    fn waits_for_start(&self, packet: &TxPacket, guard: &rcu::Guard) -> bool {
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
    fn join(self: &Arc<Self>, cid: GuestCid) -> core::result::Result<(), Refused> {
        let mut member = self.member.lock();
        if member.now.as_ref().is_some_and(|now| now.cid() == cid) {
            return Ok(());
        }
        let new = Membership::new(self, cid)?;
        member.remember()?;
        self.cid.store(cid.get().get(), Relaxed);
        // The old one, if any, goes after the new one is there.
        member.now = Some(new);
        Ok(())
    }

    /// The current process just became the owner.
    pub(crate) fn note_owner(&self) {
        *self.holder.lock() = Holder::owned_by_current();
    }

    /// Queues a packet for the guest.
    ///
    /// Context: does not sleep.
    ///
    /// # Errors
    ///
    /// `EHOSTUNREACH` if the guest does not take packets.
    #[inline]
    pub(crate) fn send(&self, packet: TxPacket) -> Result {
        let guard = rcu::read_lock();
        if !self.is_reachable(&guard) && !self.waits_for_start(&packet, &guard) {
            drop(guard);
            return Err(EHOSTUNREACH);
        }
        self.queue.push_back(packet)?;
        let queued = self.rx.queue_work_under(&guard);
        drop(guard);
        if queued.is_err() {
            // The worker was killed just now. Nobody will send what is in the queue, and maybe
            // `worker_died()` did not see the packet.
            self.queue.purge_all();
            return Err(EHOSTUNREACH);
        }
        Ok(())
    }

    /// The guest does not take part any more: forgets what it was to get, and resets its
    /// connections.
    ///
    /// Context: sleeps, locks sockets.
    pub(crate) fn cut_off(&self) {
        self.queue.purge_all();
        let cid = self.cid();
        reset_connections::<Host>(Some(Cid::new(cid)), |sock| {
            sock.remote_addr().cid == cid && Net::reachable(Some(sock.net()), Some(self.net()))
        });
    }

    /// The file was closed, by the owner or by whoever had it last.
    ///
    /// The order matters: first nobody finds the device any more, then sockets learn of it, at once,
    /// before another device has the CID. Then the queues end, and those who found the device before
    /// that, and the worker; then what they left is dropped. A connection that the worker was just about
    /// to make is reset in the end.
    ///
    /// Those who found the device do so in an RCU read section, and so do those who found the worker of
    /// a queue: one grace period, in [`Device::release`], is the end of both.
    ///
    /// Context: sleeps.
    pub(crate) fn release(&self) {
        let mut member = core::mem::replace(&mut *self.member.lock(), Member::new());
        let mut hidden = member.now.take().map(Membership::hide);
        let had_cid = hidden.is_some();
        if had_cid {
            self.reset_gone(&member);
        }
        self.core.release(&mut hidden);
        drop(hidden);
        if had_cid {
            self.reset_gone(&member);
        }
        self.queue.purge_all();
    }

    /// Resets connections with the CIDs that the guest had, unless somebody else has them now.
    fn reset_gone(&self, member: &Member) {
        let gone = |sock: &LockedSock<'_>| {
            with_device(Cid::new(sock.remote_addr().cid), Some(sock.net()), |_| ()).is_none()
        };
        if member.before_is_full {
            return reset_connections::<Host>(None, gone);
        }
        for cid in &member.before {
            reset_connections::<Host>(Some(*cid), gone);
        }
        reset_connections::<Host>(Some(Cid::new(self.cid())), gone);
    }
}

impl Works for VhostVsock {
    fn run(&self, work: WorkId, mm: &InOwnerMm) {
        match work {
            WORK_RX => self.send_packets(mm),
            WORK_TX => self.receive_packets(mm),
            _ => (),
        }
    }

    fn worker_died(&self) {
        self.cut_off();
    }
}
