// SPDX-License-Identifier: GPL-2.0

//! Packets without payload: what the protocol has to say to a peer.

use crate::{
    carrier::Carrier,
    conn::Conn,
    kinds::{
        Control,
        Ends, //
    },
    packet::{
        header_to,
        trace_made,
        RxPacket,
        TxPacket, //
    },
    tables, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use kernel_ext::{
    gfp::Gfp,
    net::Net,
    sock::{
        LockedSock,
        VsockSock, //
    }, //
};
use vsock_proto::{
    addr::Addr,
    header::Header, //
};

/// Sends a packet without payload to the peer of a connection, unless one of its kind waits to be
/// sent.
///
/// Context: may sleep; the socket may be locked, the gate is not.
pub(crate) fn send<C: Carrier>(
    sock: &VsockSock,
    conn: &Arc<Conn>,
    what: Control,
    reply: bool,
) -> Result {
    send_with::<C>(sock, conn, what, reply, Gfp::Kernel)
}

/// As [`send`]; sleeps only if `gfp` does.
fn send_with<C: Carrier>(
    sock: &VsockSock,
    conn: &Arc<Conn>,
    what: Control,
    reply: bool,
    gfp: Gfp,
) -> Result {
    match conn.queue_control(what) {
        Some(ends) => send_queued::<C>(sock, conn, what, ends, reply, gfp),
        None => Ok(()),
    }
}

/// Sends a RST that was [queued](crate::conn::Gate::queue_control) with the gate that ended the
/// connection between `ends`: the socket may have begun the next one.
///
/// Context: as for [`send`].
pub(crate) fn send_rst<C: Carrier>(
    sock: &VsockSock,
    conn: &Arc<Conn>,
    ends: Ends,
    reply: bool,
) -> Result {
    send_queued::<C>(sock, conn, Control::Rst, ends, reply, Gfp::Kernel)
}

/// Asks the peer for a connection. With `reset` it may not know that the one before is over, and is
/// told first: both packets are in the order of this connection.
///
/// Context: as for [`send`].
pub(crate) fn send_request<C: Carrier>(sock: &VsockSock, conn: &Arc<Conn>, reset: bool) -> Result {
    let rst = if reset {
        conn.queue_control(Control::Rst)
    } else {
        None
    };
    if let Some(ends) = rst {
        // In the queue: a worker may have the RST of the one before in hand.
        let packet = make::<C>(sock, conn, Control::Rst, ends, false, Gfp::Kernel)?;
        C::send(packet, Some(sock.net()))?;
    }
    send::<C>(sock, conn, Control::Request, false)
}

/// The header of a control packet, with the CID that we have now.
fn header_of<C: Carrier>(conn: &Conn, what: Control, ends: Ends) -> Header {
    let src = Addr::new(C::local_cid(), ends.local_port);
    let mut header = header_to(what.op(), conn.ty(), src, ends.peer, 0);
    if let Control::Shutdown(flags) = what {
        header.set_flags(flags.raw());
    }
    header
}

fn make<C: Carrier>(
    sock: &VsockSock,
    conn: &Arc<Conn>,
    what: Control,
    ends: Ends,
    reply: bool,
    gfp: Gfp,
) -> Result<TxPacket> {
    let header = header_of::<C>(conn, what, ends);
    TxPacket::control(sock, conn.clone(), what, &header, reply, gfp)
}

fn send_queued<C: Carrier>(
    sock: &VsockSock,
    conn: &Arc<Conn>,
    what: Control,
    ends: Ends,
    reply: bool,
    gfp: Gfp,
) -> Result {
    if what == Control::Rst && conn.is_superseded() {
        // It would hit the next connection.
        conn.unqueue_control(what);
        conn.rst_done();
        return Ok(());
    }
    // A peer on this machine takes it now, in no buffer: all that it waits for is memory.
    if C::IS_DIRECT && gfp != Gfp::Atomic {
        let mut header = header_of::<C>(conn, what, ends);
        if conn.stamp_control_if_first(&mut header, what) {
            trace_made(&header, false);
            deliver::<C>(header, Some(sock.net()));
            if what == Control::Rst {
                conn.rst_done();
            }
            return Ok(());
        }
    }
    let packet = make::<C>(sock, conn, what, ends, reply, gfp)?;
    C::send(packet, Some(sock.net()))
}

/// Delivers a packet that is nothing but a header.
fn deliver<C: Carrier>(header: Header, net: Option<&Net>) {
    if let Ok(mut packet) = RxPacket::of_bytes(header, &[]) {
        packet.deliver_tap();
        C::deliver(packet, net);
    }
}

/// Tells the peer how much room there is, unless the connection is over and the next one between
/// the same ports is there: its credit is another.
///
/// Context: may sleep.
pub(crate) fn credit_update<C: Carrier>(sock: &VsockSock, conn: &Arc<Conn>) -> Result {
    credit_update_with::<C>(sock, conn, Gfp::Kernel)
}

fn credit_update_with<C: Carrier>(sock: &VsockSock, conn: &Arc<Conn>, gfp: Gfp) -> Result {
    if tables::is_replaced::<C>(sock, conn) {
        return Ok(());
    }
    send_with::<C>(sock, conn, Control::CreditUpdate, false, gfp)
}

/// The user took `len` bytes out of the receive queue: the peer may have to be told.
///
/// Context: may sleep.
pub(crate) fn after_read<C: Carrier>(sock: &VsockSock, conn: &Arc<Conn>, len: u32) {
    if conn.release(len, sock.rcvlowat()) {
        // If there is no memory for this, the next read tries again, or the reader before it waits.
        let _ = credit_update::<C>(sock, conn);
    }
}

/// A reader finds less than it wants: the peer may have to be told, or it sends no more.
///
/// Context: does not sleep. The core calls this when it is about to sleep itself, and has said so
/// to the scheduler.
pub(crate) fn before_wait<C: Carrier>(sock: &VsockSock, conn: &Arc<Conn>) {
    if conn.must_tell_before_wait() {
        // If there is no memory for this, the next look tries again.
        let _ = credit_update_with::<C>(sock, conn, Gfp::Atomic);
    }
}

/// Asks the peer for its credit: a writer waits, and the peer cannot know of that.
///
/// Context: may sleep.
pub(crate) fn credit_request<C: Carrier>(sock: &LockedSock, conn: &Arc<Conn>) {
    if !conn.is_open() {
        return;
    }
    // If there is no memory for this, the next look asks.
    if send::<C>(sock, conn, Control::CreditRequest, false).is_ok() {
        conn.set_asked();
    }
}

/// Answers a packet that belongs to no connection with a RST, unless it is one.
///
/// Context: may sleep.
pub(crate) fn refuse<C: Carrier>(rx: &RxPacket<'_>, net: Option<&Net>) {
    if C::IS_DIRECT {
        if let Some(header) = rx.header().reply_rst() {
            trace_made(&header, false);
            deliver::<C>(header, net);
        }
        return;
    }
    // Without memory, or without a way to the peer, there is no answer: the peer has a timer.
    if let Some(Ok(packet)) = TxPacket::reset(rx) {
        let _ = C::send(packet, net);
    }
}
