// SPDX-License-Identifier: GPL-2.0

//! The way in: from a packet to the connection it is for.
//!
//! A packet's header finds the connection in the table. Payload and credit of an open connection go
//! through its gate right there, within an RCU read section, and the reader is woken: no count is
//! touched, no socket locked. What is left, [`Slow`], changes the connection with the gate shut and
//! tells the socket afterwards. A packet for no connection is for a listener, or answered with a
//! RST.

use crate::{
    accept::accept,
    carrier::Carrier,
    close,
    conn::{
        Conn,
        Gate, //
    },
    control,
    convert::{
        sock_addr,
        wire_type, //
    },
    kinds::{
        Control,
        Ends,
        Urgency, //
    },
    packet::{
        trace_dropped,
        trace_received,
        RxPacket,
        TxPacket, //
    },
    rx_queue::{
        Payload,
        Refused,
        Segment, //
    },
    tables, //
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
    sock::{
        SockAddr,
        SockState,
        VsockSock, //
    },
    sock_table::Found,
    trace::Dropped,
    vsock, //
};
use vsock_proto::{
    addr::{
        Cid,
        Port, //
    },
    conn::{
        self as protocol,
        ConnectError,
        Local,
        Reaction,
        State, //
    },
    header::{
        Header,
        Op,
        SeqFlags,
        SocketType, //
    }, //
};

/// What a wake-up is due for.
#[derive(Clone, Copy, Default)]
struct Wake {
    readers: bool,
    writers: bool,
    /// What the peer may have in flight has another bound now.
    resized: bool,
    /// Another part of the kernel has the socket, and is to be told first, which is noted.
    noted: bool,
}

/// A packet or what follows from it that needs more than the gate, and the connection it is for.
struct Slow {
    sock: ARef<VsockSock>,
    conn: Arc<Conn>,
    why: Why,
}

/// A packet between addresses that there are, of a type of sockets that there is.
struct Incoming<'p, 'a> {
    header: &'p Header,
    payload: &'p mut Payload<'a>,
    ty: SocketType,
    src: SockAddr,
    dst: SockAddr,
}

/// Why a packet is for nobody.
enum Unusable {
    /// No peer that could be answered has such an address.
    NoAddress,
    /// There is no such type of sockets, or no such port.
    Nonsense,
}

impl<'p, 'a> Incoming<'p, 'a> {
    #[inline]
    fn of(packet: &'p mut RxPacket<'a>) -> Result<Self, Unusable> {
        let (header, payload) = packet.parts();
        let (Ok(src), Ok(dst)) = (header.src(), header.dst()) else {
            return Err(Unusable::NoAddress);
        };
        match header.ty() {
            Some(ty) if header.has_ports() => Ok(Self {
                header,
                payload,
                ty,
                src: sock_addr(src),
                dst: sock_addr(dst),
            }),
            _ => Err(Unusable::Nonsense),
        }
    }
}

enum Why {
    /// Nothing of the packet was taken: the connection is not open, or the packet is none of its
    /// data.
    Other,
    /// The packet was not taken, or not all of it; but its credit was.
    Packet(Wake),
    /// It was, and this is left to do.
    Wake(Wake),
}

impl Wake {
    /// Whether nothing is due.
    #[inline]
    fn is_none(self) -> bool {
        !(self.readers || self.writers || self.resized)
    }
}

impl Why {
    /// What is due for what was taken.
    fn wake(self) -> Wake {
        match self {
            Why::Other => Wake::default(),
            Why::Packet(wake) | Why::Wake(wake) => wake,
        }
    }
}

/// What is left to do of a packet that needs more than its connection's gate.
///
/// It may wait for whoever can sleep; no other packet of the carrier may be taken before that.
#[must_use]
pub struct Rest(RestOf);

enum RestOf {
    /// It is for a connection.
    Connection(Slow),
    /// It is for no connection, but maybe for a listener.
    NoConnection,
    /// It is for nobody.
    Nonsense,
}

/// Takes one packet from the carrier `C` to the connection or the listener it is for.
///
/// `net` is the namespace that the packet comes from, `None` if the carrier knows of none. The
/// carrier has checked that the packet comes from where it says.
///
/// Context: process context, may sleep, but waits for no user and no peer. The carrier may hold the
/// locks that come before the socket lock.
pub fn receive<C: Carrier>(packet: &mut RxPacket<'_>, net: Option<&Net>) {
    if let Some(rest) = receive_now::<C>(packet, net) {
        receive_rest::<C>(packet, rest, net);
    }
}

/// As [`receive`], as far as that is possible right now: data and credit of open connections. The
/// result is what is left to do, which may have to sleep to be dropped.
///
/// Context: any but hard interrupts; does not sleep. The carrier may hold spinlocks that come
/// before the gate of a connection.
#[inline]
pub fn receive_now<C: Carrier>(packet: &mut RxPacket<'_>, net: Option<&Net>) -> Option<Rest> {
    trace_received(packet.header());
    let rest = match Incoming::of(packet) {
        Ok(mut incoming) => match try_deliver::<C>(&mut incoming, net, None) {
            Some(Ok(())) => return None,
            Some(Err(slow)) => RestOf::Connection(slow),
            None => RestOf::NoConnection,
        },
        Err(Unusable::Nonsense) => RestOf::Nonsense,
        Err(Unusable::NoAddress) => return None,
    };
    Some(Rest(rest))
}

/// Does what is left to do of a packet.
///
/// Context: as for [`receive`].
pub fn receive_rest<C: Carrier>(packet: &mut RxPacket<'_>, Rest(rest): Rest, net: Option<&Net>) {
    let taken = match (rest, Incoming::of(packet)) {
        (RestOf::Connection(slow), Ok(mut incoming)) => finish::<C>(slow, &mut incoming),
        (RestOf::NoConnection, Ok(incoming)) => for_listener::<C>(&incoming, net),
        (RestOf::Nonsense, _) | (_, Err(_)) => false,
    };
    if !taken {
        trace_dropped(packet.header(), Dropped::Nobody);
        control::refuse::<C>(packet, net);
    }
}

/// Takes a packet of a local sender to the connection it is for, without a queue: if none of the
/// sender waits in one, and the connection is open. Else gives it back for the queue.
///
/// Context: as for [`Carrier::send`].
pub fn deliver_now<C: Carrier>(mut packet: TxPacket, net: Option<&Net>) -> Result<(), TxPacket> {
    let op = packet.header().op();
    let urgency = match op {
        Op::Rw | Op::CreditUpdate => packet.stamp_if_first(),
        _ => None,
    };
    let Some(urgency) = urgency else {
        packet.queue_behind();
        return Err(packet);
    };
    packet.deliver_tap();
    let mut packet = RxPacket::from_stamped(packet);
    if offer::<C>(&mut packet, net, urgency) {
        return Ok(());
    }
    // Nothing was taken, thus it is whole.
    let Some(mut packet) = packet.into_tx() else {
        return Ok(());
    };
    packet.queue_behind();
    Err(packet)
}

/// As [`receive`], for data and credit of an open connection: says whether it was one.
///
/// Context: as for [`Carrier::send`] without payload, else may sleep.
pub(crate) fn offer<C: Carrier>(
    packet: &mut RxPacket<'_>,
    net: Option<&Net>,
    urgency: Urgency,
) -> bool {
    let Ok(mut incoming) = Incoming::of(packet) else {
        return false;
    };
    let slow = match try_deliver::<C>(&mut incoming, net, Some(urgency)) {
        Some(Ok(())) => None,
        Some(Err(slow)) if !matches!(slow.why, Why::Other) => Some(slow),
        _ => return false,
    };
    trace_received(incoming.header);
    if let Some(slow) = slow {
        // If it is refused, the sender learns that its peer is gone by a RST that is under way.
        finish::<C>(slow, &mut incoming);
    }
    true
}

/// Delivers payload and credit to an open connection, if the packet is for a connection. Of a
/// sender that delivers itself, `urgency` is how urgent the packet is.
#[inline]
fn try_deliver<C: Carrier>(
    packet: &mut Incoming<'_, '_>,
    net: Option<&Net>,
    urgency: Option<Urgency>,
) -> Option<Result<(), Slow>> {
    tables::with_connection::<C, _>(packet.src, packet.dst, net, |found| {
        deliver::<C>(&found, packet, urgency).map_err(|why| Slow {
            sock: found.sock.into(),
            conn: found.conn.into(),
            why,
        })
    })
}

/// Does what is left of a packet; the result is false if it is to be refused.
fn finish<C: Carrier>(Slow { sock, conn, why }: Slow, packet: &mut Incoming<'_, '_>) -> bool {
    match why {
        Why::Wake(wake) => {
            after::<C>(&sock, &conn, wake);
            true
        }
        why => take::<C>(&sock, &conn, packet, why.wake()),
    }
}

/// The payload of a packet could not be read: its connection, if it has one, is reset, so that no
/// byte is lost in silence. The user gets `EIO`, the peer a RST.
///
/// Checked before, and context: as for [`receive`].
pub fn payload_lost<C: Carrier>(header: &Header, net: Option<&Net>) {
    let (Ok(src), Ok(dst), Op::Rw) = (header.src(), header.dst(), header.op()) else {
        return;
    };
    let found = tables::with_connection::<C, _>(sock_addr(src), sock_addr(dst), net, |found| {
        let is_its = found.conn.is_open() && Some(found.conn.ty()) == header.ty();
        is_its.then(|| (ARef::from(found.sock), Arc::from(found.conn)))
    });
    if let Some(Some((sock, conn))) = found {
        close::end::<C>(&sock, &conn, EIO, true);
    }
}

fn seq_flags(header: &Header, ty: SocketType) -> SeqFlags {
    match ty {
        SocketType::Stream => SeqFlags::NONE,
        SocketType::SeqPacket => SeqFlags::from_wire(header.flags()),
    }
}

/// Bytes of a payload that are in no queue yet.
#[inline]
fn wire_len(payload: &Payload<'_>) -> u32 {
    // It came in a packet, which has a length of 32 bits.
    u32::try_from(payload.len()).unwrap_or(u32::MAX)
}

impl Gate {
    /// Whether the socket knows this side by that CID, or by none.
    #[inline]
    fn is_known_as(&self, cid: u32) -> bool {
        let known = self.ends.local_cid;
        known == Cid::ANY || known.get() == cid
    }

    /// Puts the payload of a packet into the receive queue.
    #[inline]
    fn store(
        &mut self,
        Incoming {
            header,
            payload,
            ty,
            ..
        }: &mut Incoming<'_, '_>,
        spare: &mut Option<Segment>,
        taken_over: bool,
    ) -> Result<(), Refused> {
        let left = wire_len(payload);
        if !self.rx.fits(left) {
            return Err(Refused::NoRoom);
        }
        if self.discard {
            // What is left of it is nowhere.
            let _ = self.rx.accept(left);
            self.heard = true;
            return Ok(());
        }
        let buf_alloc = self.rx.buf_alloc();
        let ret = self
            .queue
            .push(payload, seq_flags(header, *ty), buf_alloc, spare);
        self.heard |= ret.is_ok();
        // Also a part: as soon as the gate is open, the user may read it, and give its credit back.
        // It fits.
        let _ = self.rx.accept(left.saturating_sub(wire_len(payload)));
        if taken_over {
            // Also a part, with the gate shut: its user may have the socket.
            self.link.note_readable();
        }
        ret
    }
}

/// Delivers payload and credit to an open connection.
///
/// Context: an RCU read section.
#[inline]
fn deliver<C: Carrier>(
    found: &Found<'_, Conn>,
    packet: &mut Incoming<'_, '_>,
    urgency: Option<Urgency>,
) -> Result<(), Why> {
    let op = packet.header.op();
    let conn = &*found.conn;
    if !matches!(op, Op::Rw | Op::CreditUpdate) || conn.ty() != packet.ty {
        return Err(Why::Other);
    }
    // What another part of the kernel took over is told under a lock that a sender may not wait
    // for.
    if urgency.is_some() && found.sock.has_user_data() {
        return Err(Why::Other);
    }
    let (mut spare, mut wake) = (None, Wake::default());
    loop {
        let mut gate = conn.gate();
        let is_for = gate.link.is_open()
            && gate.is_known_as(packet.dst.cid)
            && tables::is_between::<C>(&gate.ends, packet.src, packet.dst);
        if !is_for {
            return Err(Why::Other);
        }
        let Ok(change) = gate.peer_update(packet.header) else {
            break;
        };
        wake.writers |= change.wake;
        wake.resized |= change.resized;
        if op == Op::CreditUpdate {
            drop(gate);
            return wake_now(found.sock, wake);
        }
        wake.noted |= found.sock.has_user_data();
        match gate.store(packet, &mut spare, wake.noted) {
            Ok(()) if wake.noted => {
                drop(gate);
                wake.readers = true;
                return wake_now(found.sock, wake);
            }
            Ok(()) => {
                let readable = gate.is_readable(found.sock.rcvlowat());
                let later = readable && urgency == Some(Urgency::Bulk);
                let deferred = later && core::mem::replace(&mut gate.woken_later, true);
                drop(gate);
                wake.readers = readable && !deferred;
                if later && !deferred {
                    if C::defer_wake(found.sock, found.conn) {
                        wake.readers = false;
                    } else {
                        conn.gate().woken_later = false;
                    }
                }
                return wake_now(found.sock, wake);
            }
            Err(Refused::NeedsSegment(size)) => {
                drop(gate);
                match Segment::alloc(size, Gfp::Atomic) {
                    Ok(segment) => spare = Some(segment),
                    Err(_) => break,
                }
            }
            Err(Refused::NoRoom) => break,
        }
    }
    Err(Why::Packet(wake))
}

/// Wakes who can go on.
#[inline]
fn wake_now(sock: &VsockSock, mut wake: Wake) -> Result<(), Why> {
    if core::mem::take(&mut wake.writers) {
        sock.write_space();
    }
    if wake.readers && !wake.noted && sock.wake_readers() {
        wake.readers = false;
    }
    if wake.readers || wake.resized {
        return Err(Why::Wake(wake));
    }
    Ok(())
}

/// Wakes the reader of a connection for which [`Carrier::defer_wake`] was called.
///
/// Context: may sleep.
pub fn wake_later<C: Carrier>(sock: &VsockSock, conn: &Arc<Conn>) {
    // First: what comes from here on is not seen by a reader that wakes now.
    conn.gate().woken_later = false;
    let wake = Wake {
        readers: true,
        ..Wake::default()
    };
    if let Err(Why::Wake(wake)) = wake_now(sock, wake) {
        after::<C>(sock, conn, wake);
    }
}

/// What is left after a packet was taken.
fn after<C: Carrier>(sock: &VsockSock, conn: &Arc<Conn>, wake: Wake) {
    if wake.resized {
        control::after_read::<C>(sock, conn, 0);
    }
    if wake.readers {
        if !wake.noted {
            conn.gate().link.note_readable();
        }
        close::settle::<C>(sock, conn);
    }
}

/// What became of a packet with the gate shut, and is left to do with the gate open.
enum Step {
    /// The connection is not for it.
    Refuse,
    /// The peer broke the rules, or there is no memory.
    Abort(Error),
    /// The peer asked for our credit.
    Answer,
    /// The peer gets a RST, if it is to be between these; `true` if that is a reply to its packet.
    Reset(Option<Ends>, bool),
    Done,
}

/// Takes a packet of any kind for a connection, and tells the socket if that changed. The result is
/// false if the packet is to be refused.
///
/// `wake` is what is due already, for what was taken of the packet before.
///
/// Context: may sleep.
fn take<C: Carrier>(
    sock: &VsockSock,
    conn: &Arc<Conn>,
    packet: &mut Incoming<'_, '_>,
    mut wake: Wake,
) -> bool {
    let header = packet.header;
    let (mut left, mut spare) = (None, None);
    let step = loop {
        let mut gate = conn.gate();
        let is_for = gate.attached && tables::is_between::<C>(&gate.ends, packet.src, packet.dst);
        if !is_for || gate.link.is_done() || conn.ty() != packet.ty {
            break Step::Refuse;
        }
        // A RST may come from where nobody knows of the connection.
        if header.op() != Op::Rst {
            match gate.peer_update(header) {
                Ok(change) => {
                    wake.writers |= change.wake;
                    wake.resized |= change.resized;
                }
                Err(_) => break Step::Abort(EPROTO),
            }
        }
        if !gate.is_known_as(packet.dst.cid) {
            // It may have changed with a reset of the transport.
            gate.ends.local_cid = Cid::new(packet.dst.cid);
            gate.link.note_local_cid();
        }
        let state = gate.link.state();
        wake.noted |= sock.has_user_data();
        let size = match protocol::receive(state, header.op(), header.flags(), &gate.local()) {
            Reaction::Deliver => match gate.store(packet, &mut spare, wake.noted) {
                Ok(()) => {
                    wake.readers = wake.noted || gate.is_readable(sock.rcvlowat());
                    break Step::Done;
                }
                // Data would be lost: the connection cannot go on.
                Err(Refused::NoRoom) => break Step::Abort(ENOBUFS),
                Err(Refused::NeedsSegment(size)) => size,
            },
            Reaction::AnswerCredit => {
                gate.rx.peer_asks();
                break Step::Answer;
            }
            Reaction::Accept | Reaction::ResetPeer => break Step::Refuse,
            reaction => {
                let rest = gate.link.apply(&reaction, connect_error);
                let step = match rest.reset {
                    Some(reply) => Step::Reset(gate.queue_control(Control::Rst), reply),
                    None => Step::Done,
                };
                if rest.leave {
                    conn.cut();
                    left = gate.leave();
                } else if matches!(step, Step::Done) && wake.is_none() {
                    // The socket is all that is to be told.
                    close::settle_behind::<C>(sock, conn, gate);
                    return true;
                }
                break step;
            }
        };
        drop(gate);
        match Segment::alloc(size, Gfp::Kernel) {
            Ok(segment) => spare = Some(segment),
            Err(_) => break Step::Abort(ENOBUFS),
        }
    };
    let refused = matches!(step, Step::Refuse);
    match step {
        Step::Abort(err) => close::end::<C>(sock, conn, err, true),
        Step::Answer => {
            let _ = control::send::<C>(sock, conn, Control::CreditUpdate, false);
        }
        Step::Reset(Some(ends), reply) => {
            let _ = control::send_rst::<C>(sock, conn, ends, reply);
        }
        Step::Reset(None, _) | Step::Refuse | Step::Done => (),
    }
    drop(left);
    if let Err(Why::Wake(wake)) = wake_now(sock, wake) {
        after::<C>(sock, conn, wake);
    }
    close::settle::<C>(sock, conn);
    !refused
}

fn connect_error(why: ConnectError) -> Error {
    match why {
        ConnectError::Reset => ECONNRESET,
        ConnectError::Protocol => EPROTO,
    }
}

/// Takes a packet that is for no connection; the result is false if it is to be refused.
fn for_listener<C: Carrier>(packet: &Incoming<'_, '_>, net: Option<&Net>) -> bool {
    let header = packet.header;
    let Some(sock) = vsock::find_bound(packet.dst, net) else {
        return false;
    };
    if wire_type(sock.ty()) != packet.ty {
        return false;
    }
    // It may stop to listen at any time: this is looked at again with the socket locked.
    let state = match sock.state() {
        SockState::Listen => State::Listen,
        _ => State::Closed,
    };
    match protocol::receive(state, header.op(), header.flags(), &Local::default()) {
        Reaction::Accept => {
            C::admits(Cid::new(packet.src.cid), Port::new(packet.dst.port), net)
                && accept::<C>(&sock, header, packet.src, packet.dst).is_ok()
        }
        reaction => reaction == Reaction::Ignore,
    }
}
