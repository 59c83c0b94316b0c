// SPDX-License-Identifier: GPL-2.0

//! The way out: from a user's message, or a decision of the protocol, to a packet for the carrier.

use crate::{
    conn::{
        Conn,
        Control, //
    },
    ops::{
        Carrier,
        Over, //
    },
    packet::{
        header_to,
        RxPacket,
        TxPacket, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use kernel_ext::{
    iov::SendMsg,
    net::Net,
    sock::{
        LockedSock,
        SockAddr,
        SockType, //
    }, //
};
use vsock_proto::{
    addr::{
        Addr,
        Cid,
        Port, //
    },
    header::{
        Op,
        SeqFlags,
        SocketType,
        MAX_PKT_BUF_SIZE, //
    }, //
};

pub(crate) fn wire_type(ty: SockType) -> SocketType {
    match ty {
        SockType::Stream => SocketType::Stream,
        SockType::SeqPacket => SocketType::SeqPacket,
    }
}

fn wire_addr(addr: SockAddr) -> Addr {
    Addr::new(Cid::new(addr.cid), Port::new(addr.port))
}

/// Our address, with the CID that we have now, and that of the peer.
fn addrs<C: Carrier>(sock: &LockedSock<'_>) -> (Addr, Addr) {
    let local = Addr::new(C::local_cid(), Port::new(sock.local_addr().port));
    (local, wire_addr(sock.remote_addr()))
}

/// The state of a socket on carrier `C`.
///
/// # Errors
///
/// `ENOTCONN` if the socket is not on that carrier.
#[inline]
pub(crate) fn conn_of<C: Carrier>(sock: &LockedSock<'_>) -> Result<Arc<Conn>> {
    Ok(sock.conn::<Over<C>>().ok_or(ENOTCONN)?.into())
}

/// Sends a packet without payload to the peer of a socket, unless one of its kind waits to be sent.
///
/// Context: may sleep.
pub(crate) fn control<C: Carrier>(sock: &mut LockedSock<'_>, what: Control, reply: bool) -> Result {
    let conn = conn_of::<C>(sock)?;
    if !conn.queue_control(what) {
        return Ok(());
    }
    let (src, dst) = addrs::<C>(sock);
    let mut header = header_to(what.op(), wire_type(sock.ty()), src, dst, 0);
    if let Control::Shutdown(flags) = what {
        header.set_flags(flags.raw());
    }
    let packet = TxPacket::control(sock, conn, what, &header, reply)?;
    C::send(packet, Some(sock.net()))
}

/// Sends as much of a message as the peer has room for, at most `len` bytes, and returns how many.
///
/// Context: may sleep.
///
/// # Errors
///
/// `ENOMEM`, `EFAULT`, and what the carrier says, if nothing was sent.
pub(crate) fn data<C: Carrier>(
    sock: &mut LockedSock<'_>,
    msg: &mut SendMsg<'_>,
    len: usize,
) -> Result<usize> {
    let conn = conn_of::<C>(sock)?;
    let mut credit = conn.reserve(u32::try_from(len).unwrap_or(u32::MAX));
    let (src, dst) = addrs::<C>(sock);
    let ty = wire_type(sock.ty());
    let ends_record = msg.is_end_of_record();

    let mut sent = 0u32;
    while credit.left() > 0 {
        let piece = credit.take(MAX_PKT_BUF_SIZE);
        let header = header_to(Op::Rw, ty, src, dst, piece);
        let ret = msg.attempt(|source| {
            let packet = TxPacket::data(sock, conn.clone(), header, source, |source| {
                if ty == SocketType::SeqPacket && source.is_empty() {
                    if ends_record {
                        SeqFlags::EOM.union(SeqFlags::EOR)
                    } else {
                        SeqFlags::EOM
                    }
                } else {
                    SeqFlags::NONE
                }
            })?;
            C::send(packet, Some(sock.net()))
        });
        match ret {
            Ok(()) => sent = sent.saturating_add(piece),
            Err(_) if sent > 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(sent as usize)
}

/// Answers a packet that belongs to no connection with a RST, unless it is one.
///
/// Context: may sleep.
pub(crate) fn reset_no_sock<C: Carrier>(rx: &RxPacket, net: Option<&Net>) {
    // Without memory, or without a way to the peer, there is no answer: the peer has a timer.
    if let Some(Ok(packet)) = TxPacket::reset(rx) {
        let _ = C::send(packet, net);
    }
}
