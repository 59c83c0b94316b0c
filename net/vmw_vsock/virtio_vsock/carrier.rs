// SPDX-License-Identifier: GPL-2.0

//! What the socket layer asks of the driver.

use crate::{
    device::{
        queue_work,
        SEND_WORK, //
    },
    DEVICE, //
};
use kernel::{
    prelude::*,
    sync::{
        rcu,
        Arc, //
    }, //
};
use kernel_ext::{
    net::Net,
    peek::Peek,
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
    ops::Over,
    reset_connections,
    Carrier,
    Orphans,
    TxPacket, //
};
use vsock_proto::addr::{
    Addr,
    Cid, //
};

static SLOT: TransportSlot = TransportSlot::new();

/// The transport from a guest to its host.
pub(crate) struct Guest;

impl Guest {
    /// Resets the connections of this transport for which `gone` is true.
    ///
    /// Context: locks sockets, may sleep.
    pub(crate) fn reset(gone: impl FnMut(&LockedSock<'_>) -> bool) {
        reset_connections::<Guest>(None, gone);
    }
}

#[vtable]
impl Carrier for Guest {
    const KIND: Kind = Kind::GuestToHost;

    fn slot() -> &'static TransportSlot {
        &SLOT
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

    fn orphans(_sock: &LockedSock<'_>) -> Option<Arc<Orphans>> {
        let guard = rcu::read_lock();
        Some(DEVICE.load(&guard)?.orphans.clone())
    }

    fn cancel(sock: &mut LockedSock<'_>) -> Result {
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
