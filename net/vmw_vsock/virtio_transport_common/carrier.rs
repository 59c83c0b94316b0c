// SPDX-License-Identifier: GPL-2.0

//! What a carrier of packets has to be able to.

use crate::{
    conn::Conn,
    orphans::Orphans,
    outgoing::Outgoing,
    packet::{
        RxPacket,
        TxPacket, //
    },
    watch::WatchSlot, //
};
use core::marker::PhantomData;
use kernel::{
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    }, //
};
use kernel_ext::{
    net::Net,
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
use vsock_proto::addr::{
    Addr,
    Cid,
    Port, //
};

/// What moves packets between this side and a peer.
///
/// The functions may be called from any number of threads as soon as the
/// [registration](crate::Registration) begins, and must not use more than `static` state.
#[vtable]
pub trait Carrier: Send + Sync + Sized + 'static {
    /// What the carrier is for.
    const KIND: Kind;

    /// Whether sender and receiver are on this machine, and a sender delivers what it can itself:
    /// see [`deliver_now`](crate::deliver_now) and [`deliver`](Self::deliver).
    const IS_DIRECT: bool = false;

    /// Where the transport of the carrier is registered: a `static` of its own.
    fn slot() -> &'static TransportSlot<Conn>;

    /// Where the watch over silent peers of the carrier is: a `static` of its own. Without it, none
    /// is watched.
    fn watch() -> Option<&'static WatchSlot> {
        None
    }

    /// Whether packets of a socket do not reach `peer` for now, and it cannot say anything, because
    /// somebody stopped it for a while. Without it, never.
    ///
    /// Context: does not sleep; the gate of the connection is shut.
    fn is_paused(_sock: &VsockSock, _peer: Cid) -> bool {
        false
    }

    /// The CID of this side, [`Cid::ANY`] if there is none. Does not sleep.
    fn local_cid() -> Cid;

    /// Whether the carrier reaches `cid` for a socket. Does not sleep.
    ///
    /// Without it, all CIDs above 2 go to a host's carrier.
    fn has_remote_cid(_sock: &VsockSock, _cid: Cid) -> bool {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// The one CID by which a peer is looked for that a socket, or a packet, calls `remote`.
    fn peer_cid(remote: Cid) -> Cid {
        remote
    }

    /// Whether a socket may connect to `addr`.
    fn stream_allow(sock: &VsockSock, addr: Addr) -> bool;

    /// Whether a `SOCK_SEQPACKET` socket may talk to `cid`.
    fn seqpacket_allow(sock: &VsockSock, cid: Cid) -> bool;

    /// Whether a socket may connect to its remote address, as far as its user matters.
    fn may_connect(_sock: &LockedSock) -> bool {
        true
    }

    /// Whether a peer may connect to a port of this side, for which there is a listener.
    fn admits(_peer: Cid, _port: Port, _net: Option<&Net>) -> bool {
        true
    }

    /// How many connections there may be with a peer.
    fn most_connections(_peer: Cid, _net: &Net) -> u32 {
        u32::MAX
    }

    /// A connection was refused, as there were [too many](Self::most_connections).
    fn has_too_many(_peer: Cid, _net: &Net) {}

    /// Sends a packet, or queues it; `net` is the namespace of the sender.
    ///
    /// Context: does not sleep. The caller may have locked the socket; the gate of no connection.
    ///
    /// # Errors
    ///
    /// `ENODEV` if nobody has the CID, `EHOSTUNREACH` if it takes no packets now.
    fn send(packet: TxPacket, net: Option<&Net>) -> Result;

    /// Gives a packet of this side to [`receive`](crate::receive): said for a carrier that [is
    /// direct](Self::IS_DIRECT).
    ///
    /// Context: as for [`receive`](crate::receive). The socket of the sender may be locked, and the
    /// listener that a reply comes from; no gate is shut.
    fn deliver(_packet: RxPacket<'_>, _net: Option<&Net>) {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// Whether [`send_from`](Self::send_from) does anything.
    fn fills_buffers() -> bool {
        false
    }

    /// Copies payload of a user to the buffers of the peer, if that can be done at once, or as much
    /// of it as possible. What is left then is sent as packets.
    ///
    /// Context: does not sleep; the sender's socket is locked.
    fn send_from(_sock: &LockedSock, _out: &mut Outgoing<'_, '_, '_>) {}

    /// Has [`wake_later`](crate::wake_later) called for a connection by a worker, soon: said for a
    /// carrier that [is direct](Self::IS_DIRECT). Without it, and if the result is false, readers
    /// are woken at once.
    ///
    /// Context: any but interrupts.
    fn defer_wake(_sock: &VsockSock, _conn: ArcBorrow<'_, Conn>) -> bool {
        false
    }

    /// Memory for `len` bytes of payload that a socket is about to send behind a head of `headroom`
    /// bytes, if the carrier has any that was used for such before. Without it, and if there is
    /// none, it is allocated.
    ///
    /// Context: may sleep.
    fn room(_sock: &LockedSock, _headroom: usize, _len: usize) -> Option<Room> {
        None
    }

    /// Whether a packet in `parts` pieces of memory can be sent at all; without it, always.
    fn zerocopy_fits(_parts: usize) -> bool {
        true
    }

    /// Drops packets that the carrier is done with, if it does not do that at once. With `wait`
    /// somebody waits for all that were sent until now, which are to be dropped as soon as
    /// possible.
    ///
    /// Context: does not sleep; a socket lock may be held.
    fn reap(_wait: bool) {}

    /// The budget for what closed sockets leave behind for the peer of a socket; without it they
    /// may leave anything.
    fn orphans(_sock: &LockedSock) -> Option<Arc<Orphans>> {
        None
    }

    /// Drops what a socket sent and what still waits in a queue.
    ///
    /// # Errors
    ///
    /// `ENODEV`.
    fn cancel(sock: &mut LockedSock) -> Result;
}

/// The transport over a carrier.
pub struct Over<C: Carrier>(PhantomData<C>);

/// The state of a socket on carrier `C`.
///
/// # Errors
///
/// `ENOTCONN` if the socket is not on that carrier.
#[inline]
pub(crate) fn conn_of<C: Carrier>(sock: &LockedSock) -> Result<ArcBorrow<'_, Conn>> {
    sock.conn::<Over<C>>().ok_or(ENOTCONN)
}
