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
        Payload,
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
    },
    zerocopy::{
        Completion,
        MAX_PAGES, //
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
    if credit.left() == 0 {
        return Ok(0);
    }
    let (src, dst) = addrs::<C>(sock);
    let ty = wire_type(sock.ty());
    let ends_record = msg.is_end_of_record();

    let mut completion = Completion::new(sock, msg, credit.left() as usize)?;
    let pages = completion.is_some() && can_send_pages::<C>(msg, credit.left() as usize);
    if let (Some(completion), false) = (&mut completion, pages) {
        completion.set_copied();
    }

    let mut sent = 0u32;
    let mut ret = Ok(());
    while credit.left() > 0 {
        let piece = credit.take(MAX_PKT_BUF_SIZE);
        let header = header_to(Op::Rw, ty, src, dst, piece);
        let payload = match &completion {
            Some(completion) if pages => Payload::Pages(completion),
            other => Payload::Copy(other.as_ref()),
        };
        ret = msg.attempt(|msg| {
            let packet = TxPacket::data(sock, conn.clone(), header, msg, payload, |msg| {
                if ty == SocketType::SeqPacket && msg.left() == 0 {
                    if ends_record {
                        SeqFlags::EOM.union(SeqFlags::EOR)
                    } else {
                        SeqFlags::EOM
                    }
                } else {
                    SeqFlags::NONE
                }
            });
            // Also for memory of the user that is not there: what the C transport says, and what the
            // tests of the kernel expect.
            let packet = packet.map_err(|_| ENOMEM)?;
            C::send(packet, Some(sock.net()))
        });
        if ret.is_err() {
            break;
        }
        sent = sent.saturating_add(piece);
    }
    if let Some(completion) = completion {
        completion.finish(sent > 0);
    }
    if sent == 0 {
        ret?;
    }
    Ok(sent as usize)
}

/// Whether a message of `len` bytes can be sent without a copy: only if all of it goes out.
fn can_send_pages<C: Carrier>(msg: &mut SendMsg<'_>, len: usize) -> bool {
    if msg.left() > len {
        return false;
    }
    // One more for the header.
    msg.whole_pages(MAX_PAGES)
        .is_some_and(|pages| C::zerocopy_fits(pages.saturating_add(1)))
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
