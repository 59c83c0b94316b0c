// SPDX-License-Identifier: GPL-2.0

//! What the socket layer asks of the driver.

use crate::device::{
    queue_work,
    Guest,
    DEVICE, //
    SEND_WORK,
};
use kernel::{
    prelude::*,
    sync::{
        rcu,
        Arc, //
    }, //
};
use kernel_ext::{
    gfp::Gfp,
    net::Net,
    peek::Peek,
    skb::Room,
    sock::{
        LockedSock,
        VsockSock, //
    },
    vsock::{
        Kind,
        TransportSlot, //
    }, //
};
use virtio_transport_common::{
    slots,
    Carrier,
    Conn,
    Orphans,
    Over,
    Owner,
    TxPacket,
    WatchSlot, //
};
use vsock_proto::addr::{
    Addr,
    Cid, //
};

static WATCH: WatchSlot = WatchSlot::new();

#[vtable]
impl Carrier for Guest {
    const KIND: Kind = Kind::GuestToHost;

    fn slot() -> &'static TransportSlot<Conn> {
        &slots::TO_HOST
    }

    fn watch() -> Option<&'static WatchSlot> {
        Some(&WATCH)
    }

    fn local_cid() -> Cid {
        let guard = rcu::read_lock();
        DEVICE.load(&guard).map_or(Cid::ANY, |dev| dev.cid())
    }

    /// The host may know of any machine.
    fn has_remote_cid(_sock: &VsockSock, _cid: Cid) -> bool {
        true
    }

    /// The device does not tell namespaces apart: only those that share the machine's may use it.
    fn stream_allow(sock: &VsockSock, _addr: Addr) -> bool {
        sock.net().is_global()
    }

    fn seqpacket_allow(sock: &VsockSock, _cid: Cid) -> bool {
        if !sock.net().is_global() {
            return false;
        }
        let guard = rcu::read_lock();
        DEVICE.load(&guard).is_some_and(|dev| dev.has_seqpacket())
    }

    fn send(packet: TxPacket, _net: Option<&Net>) -> Result {
        let guard = rcu::read_lock();
        let dev = DEVICE.load(&guard).ok_or(ENODEV)?;
        dev.send(packet)
    }

    fn room(_sock: &LockedSock, headroom: usize, len: usize) -> Option<Room> {
        // Memory may be allocated, which takes long: not within RCU.
        let dev = DEVICE.get()?;
        let taken = dev.rooms.get(headroom, len, Owner::DEVICE, Gfp::Kernel)?;
        if taken.is_new {
            // It is given up one day even if what it is for is not sent.
            dev.as_arc_borrow().watch();
        }
        Some(taken.room)
    }

    /// A packet that the whole queue has no room for would never be sent.
    fn zerocopy_fits(parts: usize) -> bool {
        let guard = rcu::read_lock();
        DEVICE
            .load(&guard)
            .is_some_and(|dev| parts <= dev.max_parts.peek())
    }

    fn reap(wait: bool) {
        let guard = rcu::read_lock();
        if let Some(dev) = DEVICE.load(&guard) {
            dev.reap_sent(wait);
        }
    }

    fn orphans(_sock: &LockedSock) -> Option<Arc<Orphans>> {
        let guard = rcu::read_lock();
        Some(DEVICE.load(&guard)?.orphans.clone())
    }

    fn cancel(sock: &mut LockedSock) -> Result {
        let guard = rcu::read_lock();
        let dev = DEVICE.load(&guard).ok_or(ENODEV)?;
        if let Some(conn) = sock.conn::<Over<Self>>() {
            let purged = dev.send_queue.purge(&conn);
            if purged.replies > 0 {
                dev.resume_rx();
            }
            if purged.wake {
                queue_work::<SEND_WORK>(dev);
            }
        }
        Ok(())
    }
}
