// SPDX-License-Identifier: GPL-2.0

//! The transport that the AF_VSOCK core sees, on top of a carrier of packets.

use crate::{
    close,
    conn::{
        Conn,
        Control, //
    },
    orphans::Orphans,
    packet::TxPacket,
    recv::proto_shutdown,
    send, //
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
    iov::{
        RecvMsg,
        SendMsg, //
    },
    net::Net,
    skb::SkBuff,
    sock::{
        LockedSock,
        Shutdown,
        SockAddr,
        SockState,
        VsockSock, //
    },
    vsock::{
        self,
        Kind,
        Transport,
        TransportSlot, //
    }, //
};
use vsock_proto::{
    addr::{
        Addr,
        Cid,
        Port, //
    },
    header::MAX_BUF_SIZE, //
};

/// What moves packets between this side and a peer.
///
/// The functions may be called from any number of threads as soon as the [`Registration`] begins, and
/// must not use more than `static` state.
#[vtable]
pub trait Carrier: Send + Sync + Sized + 'static {
    /// What the carrier is for.
    const KIND: Kind;

    /// Where the transport of the carrier is registered: a `static` of its own.
    fn slot() -> &'static TransportSlot;

    /// The CID of this side, [`Cid::ANY`] if there is none. Does not sleep.
    fn local_cid() -> Cid;

    /// Whether the carrier reaches `cid` for a socket. Does not sleep.
    ///
    /// Without it, all CIDs above 2 go to a host's carrier.
    fn has_remote_cid(_sock: &VsockSock, _cid: Cid) -> bool {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// The CID that packets come from which a socket's peer with the CID `remote` sends.
    fn peer_cid(remote: Cid) -> Cid {
        remote
    }

    /// Whether a socket may connect to `addr`.
    fn stream_allow(sock: &VsockSock, addr: Addr) -> bool;

    /// Whether a `SOCK_SEQPACKET` socket may talk to `cid`.
    fn seqpacket_allow(sock: &VsockSock, cid: Cid) -> bool;

    /// Sends a packet, or queues it; `net` is the namespace of the sender.
    ///
    /// Context: does not sleep. The caller may have locked the socket.
    ///
    /// # Errors
    ///
    /// `ENODEV` if nobody has the CID, `EHOSTUNREACH` if it takes no packets now.
    fn send(packet: TxPacket, net: Option<&Net>) -> Result;

    /// Whether a packet in `parts` pieces of memory can be sent at all; without it, always.
    fn zerocopy_fits(_parts: usize) -> bool {
        true
    }

    /// Drops packets that the carrier is done with, if it does not do that at once. With `wait` somebody
    /// waits for all that were sent until now, which are to be dropped as soon as possible.
    ///
    /// Context: does not sleep; a socket lock may be held.
    fn reap(_wait: bool) {}

    /// The budget for what closed sockets leave behind for the peer of a socket; without it they may
    /// leave anything.
    fn orphans(_sock: &LockedSock<'_>) -> Option<Arc<Orphans>> {
        None
    }

    /// Drops what a socket sent and what still waits in a queue.
    ///
    /// # Errors
    ///
    /// `ENODEV`.
    fn cancel(sock: &mut LockedSock<'_>) -> Result;
}

/// The transport over a carrier.
pub struct Over<C: Carrier>(PhantomData<C>);

/// The registration of the transport over a carrier; dropping it unregisters.
pub type Registration<C> = vsock::Registration<Over<C>>;

#[vtable]
impl<C: Carrier> Transport for Over<C> {
    type OwnerModule = C::OwnerModule;
    type Conn = Conn;

    const KIND: Kind = C::KIND;

    fn slot() -> &'static TransportSlot {
        C::slot()
    }

    fn init(sock: &mut LockedSock<'_>) -> Result<Arc<Conn>> {
        Conn::new(sock)
    }

    fn release(sock: &mut LockedSock<'_>) {
        close::release::<C>(sock);
    }

    fn cancel(sock: &mut LockedSock<'_>) -> Result {
        // The core gives up to connect.
        if sock.state() != SockState::Established {
            close::leave_tables::<C>(sock);
        }
        C::cancel(sock)
    }

    fn connect(sock: &mut LockedSock<'_>) -> Result {
        // Before the peer can answer.
        close::join_tables::<C>(sock)?;
        let ret = send::control::<C>(sock, Control::Request, false);
        if ret.is_err() {
            close::leave_tables::<C>(sock);
        }
        ret
    }

    fn shutdown(sock: &mut LockedSock<'_>, how: Shutdown) -> Result {
        send::control::<C>(sock, Control::Shutdown(proto_shutdown(how)), false)
    }

    fn stream_dequeue(
        sock: &mut LockedSock<'_>,
        msg: &mut RecvMsg<'_>,
        len: usize,
        peek: bool,
    ) -> Result<usize> {
        let conn = send::conn_of::<C>(sock)?;
        let mut taken = conn.rx(sock)?.take_stream(len);
        let ret = taken.copy_stream(msg, len, peek);
        let freed = conn.rx(sock)?.put_back(&mut taken);
        if !peek && ret.is_ok() {
            send::after_read::<C>(sock, &conn, freed);
        }
        ret
    }

    fn stream_enqueue(
        sock: &mut LockedSock<'_>,
        msg: &mut SendMsg<'_>,
        len: usize,
    ) -> Result<usize> {
        send::stream::<C>(sock, msg, len)
    }

    fn stream_has_data(sock: &mut LockedSock<'_>) -> usize {
        let Some(conn) = sock.conn::<Self>() else {
            return 0;
        };
        let bytes = conn.rx(sock).map_or(0, |rx| rx.bytes());
        if bytes < sock.rcvlowat() {
            send::before_wait::<C>(sock, &conn);
        }
        bytes
    }

    fn stream_has_space(sock: &mut LockedSock<'_>) -> usize {
        // The writer is going to wait if there is none.
        let _ = send::has_memory::<C>(sock);
        let Some(conn) = sock.conn::<Self>() else {
            return 0;
        };
        let room = conn.room(sock);
        if room.ask {
            send::credit_request::<C>(sock, &conn);
        }
        room.space as usize
    }

    fn send_begins(sock: &mut LockedSock<'_>) {
        // Whoever waited will say so again, if it still does.
        if let Some(conn) = sock.conn::<Self>() {
            conn.set_waiting(sock, 0);
        }
    }

    fn seqpacket_dequeue(
        sock: &mut LockedSock<'_>,
        msg: &mut RecvMsg<'_>,
        peek: bool,
    ) -> Result<usize> {
        let conn = send::conn_of::<C>(sock)?;
        let Some(mut taken) = conn.rx(sock)?.take_message() else {
            return Ok(0);
        };
        let ret = taken.copy_message(msg, peek);
        let freed = conn.rx(sock)?.put_back(&mut taken);
        if !peek {
            send::after_read::<C>(sock, &conn, freed);
        }
        ret
    }

    fn seqpacket_enqueue(
        sock: &mut LockedSock<'_>,
        msg: &mut SendMsg<'_>,
        len: usize,
    ) -> Result<usize> {
        send::message::<C>(sock, msg, len)
    }

    fn seqpacket_has_data(sock: &mut LockedSock<'_>) -> u32 {
        let Some(conn) = sock.conn::<Self>() else {
            return 0;
        };
        let messages = conn.rx(sock).map_or(0, |rx| rx.messages());
        if messages == 0 {
            send::before_wait::<C>(sock, &conn);
        }
        messages
    }

    fn read_skb(sock: &mut LockedSock<'_>) -> Result<SkBuff<()>> {
        let conn = send::conn_of::<C>(sock)?;
        let mut taken = conn.rx(sock)?.take_first();
        let ret = taken.skb().ok_or(EAGAIN);
        let freed = conn.rx(sock)?.put_back(&mut taken);
        let skb = ret??;
        send::after_read::<C>(sock, &conn, freed);
        Ok(skb)
    }

    fn stream_allow(sock: &VsockSock, addr: SockAddr) -> bool {
        C::stream_allow(sock, Addr::new(Cid::new(addr.cid), Port::new(addr.port)))
    }

    fn seqpacket_allow(sock: &VsockSock, cid: u32) -> bool {
        C::seqpacket_allow(sock, Cid::new(cid))
    }

    fn buffer_size_changed(sock: &mut LockedSock<'_>, size: &mut u64) {
        *size = (*size).min(u64::from(MAX_BUF_SIZE));
        let Ok(conn) = send::conn_of::<C>(sock) else {
            return;
        };
        conn.set_buf_alloc(sock, u32::try_from(*size).unwrap_or(MAX_BUF_SIZE));
        let _ = send::credit_update::<C>(sock);
    }

    fn rcvlowat_changed(sock: &mut LockedSock<'_>, lowat: usize) -> Result {
        let conn = send::conn_of::<C>(sock)?;
        // The peer may wait for room that it does not know of, while the reader waits for more.
        if conn.release(0, lowat.max(1)) {
            send::credit_update::<C>(sock)?;
        }
        Ok(())
    }

    fn unsent_bytes(conn: ArcBorrow<'_, Conn>) -> usize {
        if conn.unsent() > 0 {
            // Whoever asks may wait until there is nothing.
            C::reap(true);
        }
        conn.unsent()
    }

    fn local_cid() -> u32 {
        C::local_cid().get()
    }

    const HAS_HAS_REMOTE_CID: bool = C::HAS_HAS_REMOTE_CID;

    fn has_remote_cid(sock: &VsockSock, cid: u32) -> bool {
        C::has_remote_cid(sock, Cid::new(cid))
    }
}
