// SPDX-License-Identifier: GPL-2.0

//! The way in: from a packet to the socket it is for.

use crate::{
    close,
    conn::{
        Conn,
        Control, //
    },
    ops::{
        Carrier,
        Over, //
    },
    packet::RxPacket,
    reset,
    rx_queue::{
        Payload,
        Refused,
        Segment, //
    },
    send::{
        self,
        wire_type, //
    }, //
};
use kernel::{
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    }, //
};
use kernel_ext::{
    gfp::Gfp,
    net::Net,
    skb::SkBuff,
    sock::{
        LockedSock,
        Shutdown,
        SockAddr,
        SockState, //
    },
    sock_table::Key,
    vsock, //
};
use vsock_proto::{
    addr::{
        Addr,
        Cid, //
    },
    conn::{
        ConnectError,
        Local,
        Reaction,
        State, //
    },
    header::{
        Header,
        Op,
        SeqFlags,
        ShutdownFlags,
        SocketType, //
    }, //
};

pub(crate) fn proto_state(state: SockState) -> State {
    match state {
        SockState::Listen => State::Listen,
        SockState::SynSent => State::Connecting,
        SockState::Established => State::Established,
        SockState::Closing => State::Closing,
        SockState::Close => State::Closed,
    }
}

pub(crate) fn proto_shutdown(how: Shutdown) -> ShutdownFlags {
    // The bits are the same: RCV_SHUTDOWN is VIRTIO_VSOCK_SHUTDOWN_RCV, and so on.
    ShutdownFlags::from_wire(how.bits())
}

fn sock_addr(addr: Addr) -> SockAddr {
    SockAddr {
        cid: addr.cid.get(),
        port: addr.port.get(),
    }
}

/// What the protocol has to know of a socket.
pub(crate) fn local<C: Carrier>(sock: &mut LockedSock<'_>) -> Local {
    Local {
        done: sock.is_done(),
        unread: has_unread::<C>(sock),
        peer_shutdown: proto_shutdown(sock.peer_shutdown()),
    }
}

/// Whether there are bytes to read.
pub(crate) fn has_unread<C: Carrier>(sock: &mut LockedSock<'_>) -> bool {
    let Some(conn) = sock.conn::<Over<C>>() else {
        return false;
    };
    conn.rx(sock).is_ok_and(|rx| rx.bytes() > 0)
}

/// Where packets come from, one after the other.
///
/// It is asked for the next one while the socket of the one before is locked, and must not wait for
/// anything that a user or a peer decides on.
pub trait Source {
    /// The next packet. The carrier has checked that it comes from where it says.
    fn next(&mut self) -> Option<RxPacket>;

    /// The namespace that a packet comes from, `None` if the carrier knows of none.
    fn net(&self, packet: &RxPacket) -> Option<ARef<Net>>;

    /// Whether a packet comes from that namespace.
    fn is_from(&self, packet: &RxPacket, net: Option<&Net>) -> bool;
}

/// No more packets.
struct Nothing;

impl Source for Nothing {
    fn next(&mut self) -> Option<RxPacket> {
        None
    }

    fn net(&self, _packet: &RxPacket) -> Option<ARef<Net>> {
        None
    }

    fn is_from(&self, _packet: &RxPacket, _net: Option<&Net>) -> bool {
        false
    }
}

/// Takes packets from the carrier `C` to the sockets they are for, until there is none.
///
/// Payload of one connection that comes in packets that follow each other is delivered under one hold
/// of the socket's lock: the socket is found once, and its reader is woken once.
///
/// Context: process context; locks sockets and may sleep. The carrier may hold the locks that come
/// before the socket lock.
pub fn receive_all<C: Carrier>(source: &mut impl Source) {
    let mut left = None;
    while let Some(packet) = left.take().or_else(|| source.next()) {
        let net = source.net(&packet);
        left = receive_some::<C>(packet, net.as_deref(), source);
    }
}

/// Takes one packet from the carrier `C` to the socket it is for.
///
/// `net` is the namespace that the packet comes from, `None` if the carrier knows of none. The
/// carrier has checked that the packet comes from where it says.
///
/// Context: as for [`receive_all`].
pub fn receive<C: Carrier>(packet: RxPacket, net: Option<&Net>) {
    // Nothing follows, thus nothing is left.
    let _ = receive_some::<C>(packet, net, &mut Nothing);
}

/// Takes a packet to its socket, and those to the same that follow; returns one that came and is
/// for another.
fn receive_some<C: Carrier>(
    packet: RxPacket,
    net: Option<&Net>,
    source: &mut impl Source,
) -> Option<RxPacket> {
    packet.trace();
    let header = *packet.header();
    let (Ok(src), Ok(dst)) = (header.src(), header.dst()) else {
        // Nobody that could be answered has such an address.
        return None;
    };
    let Some(ty) = header.ty() else {
        return refuse::<C>(&packet, net);
    };
    let (src, dst) = (sock_addr(src), sock_addr(dst));
    let found = vsock::find_connection::<Over<C>>(Key::new(src, dst), net)
        .or_else(|| vsock::find_bound(dst, net));
    let Some(sock) = found else {
        return refuse::<C>(&packet, net);
    };
    if wire_type(sock.ty()) != ty {
        return refuse::<C>(&packet, net);
    }

    let mut sock = sock.lock();
    // All that was true when the socket was found may have changed.
    let state = sock.state();
    let conn = if state == SockState::Listen {
        None
    } else if sock.check_source::<Over<C>>(src) {
        sock.conn::<Over<C>>().map(Arc::from)
    } else {
        return refuse::<C>(&packet, net);
    };
    if sock.is_done() {
        return refuse::<C>(&packet, net);
    }

    if let Some(conn) = &conn {
        if take_credit::<C>(&mut sock, conn, &packet).is_err() {
            return None;
        }
        // It may have changed with a reset of the transport.
        if sock.local_addr().cid != Cid::ANY.get() {
            sock.set_local_cid(dst.cid);
        }
    }

    let ctx = local::<C>(&mut sock);
    let reaction =
        vsock_proto::conn::receive(proto_state(state), header.op(), header.flags(), &ctx);
    match reaction {
        Reaction::Accept => accept::<C>(&mut sock, &packet, net),
        Reaction::ResetPeer => send::reset_no_sock::<C>(&packet, net),
        Reaction::Established => {
            sock.set_connected();
            sock.insert_connected();
            sock.state_change();
        }
        Reaction::Fail { reset_peer, error } => {
            if reset_peer {
                let _ = send::control::<C>(&mut sock, Control::Rst, true);
            }
            sock.set_state(SockState::Close);
            close::leave_tables::<C>(&mut sock);
            sock.report_error(match error {
                ConnectError::Reset => ECONNRESET,
                ConnectError::Protocol => EPROTO,
            });
        }
        Reaction::Deliver => {
            if let Some(conn) = conn {
                return deliver_all::<C>(&mut sock, &conn, ty, packet, net, source);
            }
        }
        Reaction::AnswerCredit => {
            if let Some(conn) = conn {
                conn.peer_asks();
            }
            let _ = send::control::<C>(&mut sock, Control::CreditUpdate, false);
        }
        Reaction::PeerShutdown {
            flags,
            leave_tables,
            reset_and_close,
            notify,
        } => {
            sock.set_peer_shutdown(Shutdown::from_bits(flags.raw()));
            if reset_and_close {
                let _ = send::control::<C>(&mut sock, Control::Rst, false);
                close::do_close::<C>(&mut sock);
            }
            if leave_tables {
                close::leave_tables::<C>(&mut sock);
            }
            if notify {
                sock.state_change();
            }
        }
        Reaction::Close => close::do_close::<C>(&mut sock),
        Reaction::Ignore => (),
    }
    None
}

/// Answers a packet that is for no socket.
fn refuse<C: Carrier>(packet: &RxPacket, net: Option<&Net>) -> Option<RxPacket> {
    send::reset_no_sock::<C>(packet, net);
    None
}

/// Bytes that are delivered under one hold of a socket's lock, before its reader may take some.
const RUN: u32 = 64 * 1024;

/// Delivers a packet, and those of the same kind and connection that follow; returns one that came
/// and is not.
///
/// The socket stays locked, so that what [`receive_some`] found out of it stays true.
fn deliver_all<C: Carrier>(
    sock: &mut LockedSock<'_>,
    conn: &Conn,
    ty: SocketType,
    packet: RxPacket,
    net: Option<&Net>,
    source: &mut impl Source,
) -> Option<RxPacket> {
    let first = *packet.header();
    let (mut packet, mut bytes) = (packet, 0u32);
    // Whether the reader was told of all that was delivered.
    let mut told;
    let left = loop {
        // A packet without payload costs as well.
        bytes = bytes.saturating_add(packet.header().len().max(RUN / 256));
        if !deliver::<C>(sock, conn, ty, packet) {
            return None;
        }
        told = sock.has_user_data();
        if told {
            // A socket in a BPF sockmap: its reader takes one buffer for each call.
            sock.data_ready();
        }
        if bytes >= RUN {
            break None;
        }
        let Some(next) = source.next() else {
            break None;
        };
        if !next.header().is_alike(&first) || !source.is_from(&next, net) {
            break Some(next);
        }
        next.trace();
        if take_credit::<C>(sock, conn, &next).is_err() {
            return None;
        }
        packet = next;
    };
    if !told {
        sock.data_ready();
    }
    left
}

/// The payload of a packet could not be read: its connection, if it has one, is reset, so that no byte
/// is lost in silence. The user gets `EIO`, the peer a RST.
///
/// Checked before, and context: as for [`receive`].
pub fn payload_lost<C: Carrier>(header: &Header, net: Option<&Net>) {
    let (Ok(src), Ok(dst), Op::Rw) = (header.src(), header.dst(), header.op()) else {
        return;
    };
    let src = sock_addr(src);
    let Some(sock) = vsock::find_connection::<Over<C>>(Key::new(src, sock_addr(dst)), net) else {
        return;
    };
    let mut sock = sock.lock();
    if sock.state() == SockState::Established
        && !sock.is_done()
        && Some(wire_type(sock.ty())) == header.ty()
        && sock.check_source::<Over<C>>(src)
    {
        abort::<C>(&mut sock, EIO);
    }
}

/// Takes the credit in a packet of the peer; the connection is reset if that is a lie.
#[inline]
fn take_credit<C: Carrier>(sock: &mut LockedSock<'_>, conn: &Conn, packet: &RxPacket) -> Result {
    // A RST may come from where nobody knows of the connection.
    if packet.header().op() == Op::Rst {
        return Ok(());
    }
    match conn.peer_update(packet.header()) {
        Ok(change) => {
            if change.wake {
                sock.write_space();
            }
            // What the peer may have in flight has another bound now.
            if change.resized {
                send::after_read::<C>(sock, conn, 0);
            }
            Ok(())
        }
        Err(_) => {
            abort::<C>(sock, EPROTO);
            Err(EPROTO)
        }
    }
}

/// Ends a connection whose peer broke the rules, or for which there is no memory.
pub(crate) fn abort<C: Carrier>(sock: &mut LockedSock<'_>, err: Error) {
    let _ = send::control::<C>(sock, Control::Rst, true);
    reset::fail::<C>(sock, err);
}

/// Puts the payload of a packet into the receive queue, and says whether there is a reader to be
/// woken.
#[inline]
fn deliver<C: Carrier>(
    sock: &mut LockedSock<'_>,
    conn: &Conn,
    ty: SocketType,
    packet: RxPacket,
) -> bool {
    let header = *packet.header();
    let flags = match ty {
        SocketType::Stream => SeqFlags::NONE,
        SocketType::SeqPacket => SeqFlags::from_wire(header.flags()),
    };
    let pushed = conn
        .accept(header.len())
        .and_then(|buf_alloc| push(sock, conn, packet.into_payload(), flags, buf_alloc));
    if pushed.is_ok() && sock.close_is_scheduled() {
        // There is no reader any more, and no reason to keep it until the peer has answered.
        close::purge_unread::<C>(sock);
        return false;
    }
    if pushed.is_err() {
        // Data would be lost: the connection cannot go on.
        abort::<C>(sock, ENOBUFS);
    }
    pushed.is_ok()
}

/// Puts a payload into the receive queue.
///
/// Context: may sleep.
fn push(
    sock: &mut LockedSock<'_>,
    conn: &Conn,
    payload: Option<SkBuff<()>>,
    flags: SeqFlags,
    buf_alloc: u32,
) -> Result {
    let mut payload = payload.map_or(Payload::bytes(&[]), Payload::skb);
    let mut spare = None;
    loop {
        match conn
            .rx(sock)?
            .push(&mut payload, flags, buf_alloc, &mut spare)
        {
            Ok(()) => return Ok(()),
            Err(Refused::NeedsSegment(size)) => {
                spare = Some(Segment::alloc(size, Gfp::Kernel)?);
            }
            Err(Refused::NoRoom) => return Err(ENOBUFS),
        }
    }
}

/// Makes a connection to a listener.
fn accept<C: Carrier>(listener: &mut LockedSock<'_>, packet: &RxPacket, net: Option<&Net>) {
    if try_accept::<C>(listener, packet).is_err() {
        send::reset_no_sock::<C>(packet, net);
    }
}

fn try_accept<C: Carrier>(listener: &mut LockedSock<'_>, packet: &RxPacket) -> Result {
    let header = packet.header();
    let local = sock_addr(header.dst().map_err(|_| EINVAL)?);
    let remote = sock_addr(header.src().map_err(|_| EINVAL)?);

    if listener.accept_queue_is_full() {
        return Err(ENOMEM);
    }
    // The queue of a listener that is being closed was emptied for the last time.
    if listener.shutdown().is_both() {
        return Err(ESHUTDOWN);
    }
    let child_ref = listener.create_child()?;
    let mut child = listener.lock_child(&child_ref);
    child.set_state(SockState::Established);
    child.set_addrs(local, remote);
    child.assign_transport(listener)?;
    // The address of the peer must lead to where the packet came from.
    let conn = send::conn_of::<C>(&child)?;
    // Nobody waits for room yet: the user does not have the socket.
    let _ = conn.peer_update(header).map_err(|_| EPROTO)?;
    close::join_tables::<C>(&mut child)?;
    child.insert_connected();
    listener.enqueue_accept(&mut child);
    // The peer connects again, or gives up, if there is no memory for this.
    let _ = send::control::<C>(&mut child, Control::Response, true);
    drop(child);
    listener.accept_ready();
    Ok(())
}
