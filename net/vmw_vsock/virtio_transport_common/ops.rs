// SPDX-License-Identifier: GPL-2.0

//! The transport that the AF_VSOCK core sees, on top of a carrier of packets.

use crate::{
    carrier::{
        conn_of,
        Carrier,
        Over, //
    },
    close,
    conn::Conn,
    control,
    convert::wire_shutdown,
    keepalive,
    kinds::Control,
    rx_queue::{
        RxQueue,
        Taken, //
    },
    send,
    tables, //
};
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
    skb::SkBuff,
    sock::{
        LockedSock,
        Shutdown,
        SockAddr,
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
    conn::State,
    header::MAX_BUF_SIZE, //
};

/// The registration of the transport over a carrier; dropping it unregisters.
pub type Registration<C> = vsock::Registration<Over<C>>;

/// Gives back what a reader has in hand; the peer may have to be told of what it read.
#[inline]
fn put_back<C: Carrier>(sock: &LockedSock, conn: &Arc<Conn>, mut taken: Taken) {
    let mut gate = conn.gate();
    let freed = gate.queue.put_back(&mut taken);
    let tell = freed > 0 && gate.release(freed, sock.rcvlowat());
    drop(gate);
    if tell {
        // If there is no memory for this, the next read tries again, or the reader before it waits.
        let _ = control::credit_update::<C>(sock, conn);
    }
}

/// Takes something out of the queue for the user of a socket, who gets nothing that another part of
/// the kernel which took the socket over was not [told](close::offer_first) of.
#[inline]
fn take<C: Carrier, R>(
    sock: &mut LockedSock,
    conn: &Conn,
    what: impl FnOnce(&mut RxQueue) -> R,
) -> R {
    loop {
        let mut gate = conn.gate();
        if !gate.link.has_readable() || gate.telling || !sock.has_user_data() {
            return what(&mut gate.queue);
        }
        drop(gate);
        close::offer_first::<C>(sock);
    }
}

#[vtable]
impl<C: Carrier> Transport for Over<C> {
    type OwnerModule = C::OwnerModule;
    type Conn = Conn;

    const KIND: Kind = C::KIND;

    fn slot() -> &'static TransportSlot<Conn> {
        C::slot()
    }

    fn init(sock: &mut LockedSock) -> Result<Arc<Conn>> {
        Conn::new(sock)
    }

    fn release(sock: &mut LockedSock) {
        close::release::<C>(sock);
    }

    fn cancel(sock: &mut LockedSock) -> Result {
        close::cancel::<C>(sock)
    }

    fn detach(sock: &mut LockedSock, conn: ArcBorrow<'_, Conn>) {
        close::detach(sock, &conn);
    }

    fn connect(sock: &mut LockedSock) -> Result {
        let conn: Arc<Conn> = conn_of::<C>(sock)?.into();
        if !C::may_connect(sock) {
            return Err(EACCES);
        }
        conn.begin(sock, State::Connecting);
        // Before the peer can answer.
        let ret = tables::join::<C>(sock, &conn)
            .and_then(|had_rst| control::send_request::<C>(sock, &conn, had_rst));
        if ret.is_err() {
            conn.gate().link.give_up(State::Closed);
            tables::leave::<C>(sock);
        }
        ret
    }

    fn shutdown(sock: &mut LockedSock, how: Shutdown) -> Result {
        let conn: Arc<Conn> = conn_of::<C>(sock)?.into();
        control::send::<C>(sock, &conn, Control::Shutdown(wire_shutdown(how)), false)
    }

    fn stream_dequeue(
        sock: &mut LockedSock,
        msg: &mut RecvMsg<'_>,
        len: usize,
        peek: bool,
    ) -> Result<usize> {
        let conn: Arc<Conn> = conn_of::<C>(sock)?.into();
        let mut taken = take::<C, _>(sock, &conn, |queue| queue.take_stream(len));
        let ret = taken.copy_stream(msg, len, peek);
        put_back::<C>(sock, &conn, taken);
        ret
    }

    fn stream_enqueue(sock: &mut LockedSock, msg: &mut SendMsg<'_>, len: usize) -> Result<usize> {
        send::stream::<C>(sock, msg, len)
    }

    fn stream_has_data(sock: &mut LockedSock) -> usize {
        close::offer_first::<C>(sock);
        let Some(conn) = sock.conn::<Self>() else {
            return 0;
        };
        let bytes = conn.unread();
        if bytes < sock.rcvlowat() {
            keepalive::note::<C>(sock, false);
            control::before_wait::<C>(sock, &conn.into());
        }
        bytes
    }

    fn stream_has_space(sock: &mut LockedSock) -> usize {
        // The writer is going to wait if there is none.
        let _ = send::has_memory::<C>(sock);
        let Some(conn) = sock.conn::<Self>() else {
            return 0;
        };
        let room = conn.room(sock);
        if room.space == 0 {
            keepalive::note::<C>(sock, true);
        }
        if room.ask {
            control::credit_request::<C>(sock, &conn.into());
        }
        room.space as usize
    }

    fn send_begins(sock: &mut LockedSock) {
        // A writer that waited will say so again, if it still does.
        if let Some(conn) = sock.conn::<Self>() {
            conn.set_waiting(sock, 0);
        }
    }

    fn seqpacket_dequeue(
        sock: &mut LockedSock,
        msg: &mut RecvMsg<'_>,
        peek: bool,
    ) -> Result<usize> {
        let conn: Arc<Conn> = conn_of::<C>(sock)?.into();
        let Some(mut taken) = take::<C, _>(sock, &conn, RxQueue::take_message) else {
            return Ok(0);
        };
        let ret = taken.copy_message(msg, peek);
        put_back::<C>(sock, &conn, taken);
        ret
    }

    fn seqpacket_enqueue(
        sock: &mut LockedSock,
        msg: &mut SendMsg<'_>,
        len: usize,
    ) -> Result<usize> {
        send::message::<C>(sock, msg, len)
    }

    fn seqpacket_has_data(sock: &mut LockedSock) -> u32 {
        close::offer_first::<C>(sock);
        let Some(conn) = sock.conn::<Self>() else {
            return 0;
        };
        let messages = conn.messages();
        if messages == 0 {
            keepalive::note::<C>(sock, false);
            control::before_wait::<C>(sock, &conn.into());
        }
        messages
    }

    fn read_skb(sock: &mut LockedSock) -> Result<SkBuff<()>> {
        let conn: Arc<Conn> = conn_of::<C>(sock)?.into();
        let mut taken = conn.gate().queue.take_first();
        let ret = taken.skb().ok_or(EAGAIN);
        put_back::<C>(sock, &conn, taken);
        ret?
    }

    fn stream_allow(sock: &VsockSock, addr: SockAddr) -> bool {
        C::stream_allow(sock, Addr::new(Cid::new(addr.cid), Port::new(addr.port)))
    }

    fn seqpacket_allow(sock: &VsockSock, cid: u32) -> bool {
        C::seqpacket_allow(sock, Cid::new(cid))
    }

    fn buffer_size_changed(sock: &mut LockedSock, size: &mut u64) {
        *size = (*size).min(u64::from(MAX_BUF_SIZE));
        let Some(conn) = sock.conn::<Self>() else {
            return;
        };
        conn.set_buf_alloc(sock, u32::try_from(*size).unwrap_or(MAX_BUF_SIZE));
        let _ = control::credit_update::<C>(sock, &conn.into());
    }

    fn rcvlowat_changed(sock: &mut LockedSock, lowat: usize) -> Result {
        let conn = conn_of::<C>(sock)?;
        // The peer may wait for room that it does not know of, while the reader waits for more.
        if conn.release(0, lowat.max(1)) {
            control::credit_update::<C>(sock, &conn.into())?;
        }
        Ok(())
    }

    fn unsent_bytes(conn: ArcBorrow<'_, Conn>) -> usize {
        if conn.unsent() > 0 {
            // The caller may wait until there is nothing.
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
