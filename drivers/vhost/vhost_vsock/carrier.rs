// SPDX-License-Identifier: GPL-2.0

//! What the sockets of the host see: a carrier of packets to all guests.

use crate::{
    device::{
        with_device,
        VhostVsock,
        FEATURE_SEQPACKET, //
    },
    params, //
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
    sock::{
        LockedSock,
        VsockSock, //
    },
    trace::{
        self,
        Dropped, //
    },
    user::User,
    vsock::{
        Kind,
        TransportSlot, //
    },
};
use virtio_transport_common::{
    slots,
    Carrier,
    Conn,
    Orphans,
    Outgoing,
    Over,
    TxPacket,
    WatchSlot, //
};
use vsock_proto::addr::{
    Addr,
    Cid,
    Port, //
};

static WATCH: WatchSlot = WatchSlot::new();

/// The carrier of packets between the host and its guests.
///
/// Each call finds the device by the guest's CID, under RCU.
pub(crate) struct Host;

#[vtable]
impl Carrier for Host {
    const KIND: Kind = Kind::HostToGuest;

    fn slot() -> &'static TransportSlot<Conn> {
        &slots::TO_GUESTS
    }

    fn watch() -> Option<&'static WatchSlot> {
        Some(&WATCH)
    }

    fn is_paused(sock: &VsockSock, peer: Cid) -> bool {
        with_device(peer, Some(sock.net()), |device| {
            !device.is_reachable(&rcu::read_lock())
        })
        .unwrap_or(false)
    }

    fn local_cid() -> Cid {
        Cid::HOST
    }

    fn has_remote_cid(sock: &VsockSock, cid: Cid) -> bool {
        with_device(cid, Some(sock.net()), |_| ()).is_some()
    }

    fn stream_allow(_sock: &VsockSock, _addr: Addr) -> bool {
        true
    }

    fn seqpacket_allow(sock: &VsockSock, cid: Cid) -> bool {
        with_device(cid, Some(sock.net()), |device| {
            device.core.features() & FEATURE_SEQPACKET != 0
        })
        .unwrap_or(false)
    }

    fn may_connect(sock: &LockedSock) -> bool {
        let (cid, user) = (Cid::new(sock.remote_addr().cid), User::of(sock));
        with_device(cid, Some(sock.net()), |device| device.may_connect(user)).unwrap_or(true)
    }

    fn admits(peer: Cid, port: Port, net: Option<&Net>) -> bool {
        with_device(peer, net, |device| device.admits(port.get())).unwrap_or(true)
    }

    fn most_connections(peer: Cid, net: &Net) -> u32 {
        with_device(peer, Some(net), VhostVsock::most_connections).unwrap_or(u32::MAX)
    }

    fn has_too_many(peer: Cid, net: &Net) {
        let _ = with_device(peer, Some(net), |device| {
            device.stats.denied_connections.add_shared(1);
            let (guest, host) = (peer.get(), Cid::HOST.get());
            trace::vsock_drop(Dropped::TooMany as u32, guest, 0, host, 0);
        });
    }

    fn send(packet: TxPacket, net: Option<&Net>) -> Result {
        let cid = packet.dst().map_err(|_| ENODEV)?.cid;
        with_device(cid, net, |device| device.send(packet)).unwrap_or(Err(ENODEV))
    }

    #[inline]
    fn fills_buffers() -> bool {
        params::direct()
    }

    #[inline]
    fn send_from(sock: &LockedSock, out: &mut Outgoing<'_, '_, '_>) {
        if let Ok(cid) = out.dst_cid() {
            // Without a device, or one that takes nothing now, packets tell why.
            let _ = with_device(cid, Some(sock.net()), |device| device.send_from(out));
        }
    }

    fn orphans(sock: &LockedSock) -> Option<Arc<Orphans>> {
        let cid = Cid::new(sock.remote_addr().cid);
        with_device(cid, Some(sock.net()), |device| device.orphans.clone())
    }

    fn cancel(sock: &mut LockedSock) -> Result {
        let cid = Cid::new(sock.remote_addr().cid);
        with_device(cid, Some(sock.net()), |device| {
            if let Some(conn) = sock.conn::<Over<Self>>() {
                if device.queue.purge(&conn).wake {
                    // Without a worker, there is nobody to tell.
                    let _ = device.rx.queue_work();
                }
            }
            if device.throttle.resume(&device.queue) {
                // Without a worker, the guest is not served anyway.
                let _ = device.tx.queue_work();
            }
        })
        .ok_or(ENODEV)
    }
}
