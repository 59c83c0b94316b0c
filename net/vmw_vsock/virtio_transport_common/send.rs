// SPDX-License-Identifier: GPL-2.0

//! The way out: from a user's message to packets for the carrier.

use crate::{
    carrier::{
        conn_of,
        Carrier, //
    },
    close,
    conn::{
        self,
        Conn,
        Reservation, //
    },
    convert::wire_addr,
    kinds::Urgency,
    outgoing::{
        Outgoing,
        JOINS, //
    },
    packet::{
        header_to,
        trace_made,
        Payload,
        RxPacket,
        TxPacket,
        MOST_JOINED, //
    },
    recv,
    tap, //
};
use core::mem::MaybeUninit;
use kernel::{
    prelude::*,
    sync::Arc, //
};
use kernel_ext::{
    iov::SendMsg,
    skb_list::SkbList,
    sock::LockedSock,
    zerocopy::{
        Completion,
        MAX_PAGES, //
    }, //
};
use vsock_proto::{
    addr::{
        Addr,
        Port, //
    },
    header::{
        Op,
        SeqFlags,
        SocketType,
        HEADER_LEN,
        MAX_PKT_BUF_SIZE, //
    }, //
};

/// As [`conn::has_memory`], after the carrier was asked for what it holds and does not need. If it
/// is `false`, the carrier knows that somebody waits.
#[inline]
pub(crate) fn has_memory<C: Carrier>(sock: &LockedSock) -> bool {
    if conn::has_memory(sock) {
        return true;
    }
    C::reap(true);
    conn::has_memory(sock)
}

/// Our address, with the CID that we have now, and that of the peer.
fn addrs<C: Carrier>(sock: &LockedSock) -> (Addr, Addr) {
    let local = Addr::new(C::local_cid(), Port::new(sock.local_addr().port));
    (local, wire_addr(sock.remote_addr()))
}

/// What the packets of one message of a user have in common.
struct Writer<'c, 'm> {
    conn: &'c Arc<Conn>,
    ty: SocketType,
    src: Addr,
    dst: Addr,
    completion: Option<Completion<'m>>,
    /// Whether the pages of the user are sent, not a copy.
    pages: bool,
    /// More of the stream probably follows, and may join a packet that waits: the user sent more
    /// since the peer did, or something of theirs waits already.
    joins: bool,
}

impl<'c, 'm> Writer<'c, 'm> {
    /// `len` is how many bytes of the message are going to be sent.
    fn new<C: Carrier>(
        sock: &LockedSock,
        conn: &'c Arc<Conn>,
        msg: &mut SendMsg<'m>,
        len: usize,
    ) -> Result<Self> {
        let (src, dst) = addrs::<C>(sock);
        let mut completion = Completion::new(sock, msg, len)?;
        let pages = completion.is_some() && can_send_pages::<C>(msg, len);
        if let (Some(completion), false) = (&mut completion, pages) {
            completion.set_copied();
        }
        Ok(Self {
            conn,
            ty: conn.ty(),
            src,
            dst,
            completion,
            pages,
            joins: C::fills_buffers()
                && conn.ty() == SocketType::Stream
                && (conn.urgency() == Urgency::Bulk || conn.unsent() > len),
        })
    }

    /// Makes a packet of the next `len` bytes of the message.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, also for memory of the user that is not there: what the C transport says, and what
    /// the tests of the kernel expect.
    fn packet<C: Carrier>(
        &self,
        sock: &LockedSock,
        msg: &mut SendMsg<'m>,
        len: u32,
    ) -> Result<TxPacket> {
        let header = header_to(Op::Rw, self.ty, self.src, self.dst, len);
        let payload = match &self.completion {
            Some(completion) if self.pages => Payload::Pages(completion),
            other => match C::room(sock, HEADER_LEN, len as usize) {
                Some(room) => Payload::Room(room, other.as_ref()),
                None => Payload::Copy(other.as_ref()),
            },
        };
        let flags = |msg: &mut SendMsg<'_>| match (self.ty, msg.left()) {
            (SocketType::SeqPacket, 0) => last_flags(msg),
            _ => SeqFlags::NONE,
        };
        let room = if self.joins && (len as usize) <= JOINS {
            MOST_JOINED as usize
        } else {
            0
        };
        let packet = TxPacket::data(sock, self.conn.clone(), header, msg, payload, room, flags);
        packet.map_err(|_| ENOMEM)
    }

    /// All packets are made; `sent` says whether any of them is on its way.
    fn finish(self, sent: bool) {
        if let Some(completion) = self.completion {
            completion.finish(sent);
        }
    }
}

/// Messages up to this size need no buffer on their way to a receiver on this machine.
const SMALL: usize = 512;

/// Sends all of a small message to a receiver on this machine, if that can be done at once: nothing
/// of the sender waits in a queue, the receiver's connection is open and there is credit.
///
/// The message is copied to private memory first: what reads from the user may wait for ever, and
/// holds the lock of the sender only.
///
/// # Errors
///
/// `ENOMEM` as for [`Writer::packet`].
#[inline]
fn small<C: Carrier>(
    sock: &LockedSock,
    conn: &Arc<Conn>,
    msg: &mut SendMsg<'_>,
    len: usize,
    flags: SeqFlags,
) -> Result<bool> {
    if !C::IS_DIRECT || len > SMALL || msg.wants_zerocopy() {
        return Ok(false);
    }
    // CAST: Small.
    let want = len as u32;
    let mut credit = conn.reserve(want);
    if credit.left() < want {
        return Ok(false);
    }
    let mut room = [const { MaybeUninit::<u8>::uninit() }; SMALL];
    let ret = msg.attempt(|msg| {
        let room = room.get_mut(..len).ok_or(EINVAL)?;
        let bytes = &*msg.source().copy_from_iter_raw(room);
        if bytes.len() < len {
            return Err(ENOMEM);
        }
        let (src, dst) = addrs::<C>(sock);
        let mut header = header_to(Op::Rw, conn.ty(), src, dst, want);
        let urgency = conn.stamp_if_first(&mut header, None, want).ok_or(EAGAIN)?;
        // As with C, the tracepoint does not show where a message ends.
        trace_made(&header, false);
        header.set_flags(flags.raw());
        let mut packet = RxPacket::of_bytes(header, bytes)?;
        packet.deliver_tap();
        if !recv::offer::<C>(&mut packet, Some(sock.net()), urgency) {
            conn.take_back(want);
            return Err(EAGAIN);
        }
        Ok(())
    });
    match ret {
        Ok(()) => {
            conn.packet_done(credit.take(want), false);
            Ok(true)
        }
        // With a buffer, then.
        Err(EAGAIN) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Messages up to this size fit into one buffer of any driver that there is, so that nothing is to
/// be done for their second piece.
const ONE_PIECE: usize = 1024;

/// Copies what there is credit for to the buffers of the peer, as far as that can be done at once.
/// `flags` is for a message, which all of it is.
///
/// Monitoring devices are shown packets, and the pages of a user are sent in packets, too.
#[inline]
fn directly<C: Carrier>(
    sock: &LockedSock,
    conn: &Conn,
    msg: &mut SendMsg<'_>,
    credit: &mut Reservation<'_>,
    flags: Option<SeqFlags>,
) {
    if !C::fills_buffers() || msg.wants_zerocopy() || tap::is_watched() {
        return;
    }
    let (src, dst) = addrs::<C>(sock);
    // CAST: At most what one packet has, if there are flags.
    let len = credit.left() as usize;
    let present = flags.is_some() && len > ONE_PIECE && msg.fault_in(len).is_ok();
    loop {
        let header = header_to(Op::Rw, conn.ty(), src, dst, 0);
        let mut out = Outgoing::new(conn, msg, credit, header, flags, present);
        C::send_from(sock, &mut out);
        if out.left() > 0 || credit.left() == 0 {
            return;
        }
    }
}

/// Sends as much of a stream as the peer has room for, at most `len` bytes, and returns how many.
///
/// Context: may sleep.
///
/// # Errors
///
/// `ENOMEM`, and what the carrier says, if nothing was sent.
pub(crate) fn stream<C: Carrier>(
    sock: &mut LockedSock,
    msg: &mut SendMsg<'_>,
    len: usize,
) -> Result<usize> {
    let conn: Arc<Conn> = conn_of::<C>(sock)?.into();
    if small::<C>(sock, &conn, msg, len, SeqFlags::NONE)? {
        return Ok(len);
    }
    if !has_memory::<C>(sock) {
        return Ok(0);
    }
    let mut credit = conn.reserve(u32::try_from(len).unwrap_or(u32::MAX));
    if credit.left() == 0 {
        return Ok(0);
    }
    let want = credit.left();
    directly::<C>(sock, &conn, msg, &mut credit, None);
    let mut sent = want.saturating_sub(credit.left());
    if credit.left() == 0 {
        return Ok(sent as usize);
    }
    let writer = Writer::new::<C>(sock, &conn, msg, credit.left() as usize);
    let writer = match writer {
        Err(_) if sent > 0 => return Ok(sent as usize),
        writer => writer?,
    };
    let mut ret = Ok(());
    while credit.left() > 0 {
        let piece = credit.take(MAX_PKT_BUF_SIZE);
        ret = msg.attempt(|msg| {
            let packet = writer.packet::<C>(sock, msg, piece)?;
            C::send(packet, Some(sock.net()))
        });
        if ret.is_err() {
            break;
        }
        sent = sent.saturating_add(piece);
    }
    writer.finish(sent > 0);
    if sent == 0 {
        ret?;
    }
    Ok(sent as usize)
}

/// Sends the `len` bytes that a message has, or, if the peer has not room for all of it, nothing
/// (`Ok(0)`).
///
/// The packets of a message say where it ends, not where it begins: whatever comes next to the peer
/// after some of them becomes a part of it. And a writer that waits for room may give up at any
/// time (a signal, `SO_SNDTIMEO`, `O_NONBLOCK`), or let another thread write meanwhile. So the
/// packets of a message go out together, under one hold of the socket lock, after all of them were
/// made. What fails before that was never sent; the user may send it again, or something else.
///
/// There is room at the latest when the peer has read all that it got, since a message that is
/// longer than the window is refused. (A peer that does not tell of that could not be sent a
/// message as long as the window in pieces either.) Such a peer is asked. As long as a message
/// waits, [`Conn::room`] says that there is no room, so that neither the core tries again nor
/// `poll()` returns before the message fits. The next `send()` that begins makes that undone: a
/// short message overtakes a long one that waits.
///
/// Context: may sleep.
///
/// # Errors
///
/// - `EMSGSIZE` if the message can never be sent, as it is longer than the buffers are;
/// - `ENOMEM`, `ENODEV`, `EHOSTUNREACH`: nothing was sent. If the carrier fails after it took some
///   of the packets, the connection is reset, which is the only way left to end the message.
pub(crate) fn message<C: Carrier>(
    sock: &mut LockedSock,
    msg: &mut SendMsg<'_>,
    len: usize,
) -> Result<usize> {
    let conn: Arc<Conn> = conn_of::<C>(sock)?.into();
    let want = u32::try_from(len).map_err(|_| EMSGSIZE)?;
    if msg.left() == len && small::<C>(sock, &conn, msg, len, last_flags(msg))? {
        conn.set_waiting(sock, 0);
        return Ok(len);
    }
    let credit = conn.reserve_all(want)?;
    if !has_memory::<C>(sock) {
        return Ok(0);
    }
    let Some(mut credit) = credit else {
        conn.set_waiting(sock, want);
        return Ok(0);
    };
    conn.set_waiting(sock, 0);

    if msg.left() == len && want <= MAX_PKT_BUF_SIZE {
        let flags = last_flags(msg);
        directly::<C>(sock, &conn, msg, &mut credit, Some(flags));
        if credit.left() == 0 {
            return Ok(len);
        }
    }
    let mut sent = credit.left() < want;
    let ret = in_packets::<C>(sock, &conn, msg, &mut credit, &mut sent);
    if let (Err(err), true) = (ret, sent) {
        close::end::<C>(sock, &conn, err, true);
    }
    ret.map(|()| len)
}

/// Sends all that there is credit for as packets, of which the last one ends a message. `sent` says
/// whether the peer gets any part of the message.
///
/// # Errors
///
/// As for [`message`].
fn in_packets<C: Carrier>(
    sock: &LockedSock,
    conn: &Arc<Conn>,
    msg: &mut SendMsg<'_>,
    credit: &mut Reservation<'_>,
    sent: &mut bool,
) -> Result {
    let writer = Writer::new::<C>(sock, conn, msg, credit.left() as usize)?;
    let mut packets = SkbList::new();
    while credit.left() > 0 {
        let piece = credit.take(MAX_PKT_BUF_SIZE);
        packets.push_back(writer.packet::<C>(sock, msg, piece)?.into_skb());
    }
    let mut ret = Ok(());
    while let (Ok(()), Some(packet)) = (ret, packets.pop_front()) {
        ret = C::send(TxPacket::from_skb(packet), Some(sock.net()));
        *sent |= ret.is_ok();
    }
    writer.finish(*sent);
    ret
}

/// What the last packet of a message says.
fn last_flags(msg: &SendMsg<'_>) -> SeqFlags {
    if msg.is_end_of_record() {
        SeqFlags::EOM.union(SeqFlags::EOR)
    } else {
        SeqFlags::EOM
    }
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
