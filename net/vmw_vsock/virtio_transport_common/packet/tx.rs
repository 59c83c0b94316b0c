// SPDX-License-Identifier: GPL-2.0

//! Packets on their way out.

use super::{
    control::TxControl,
    header::{
        header_to,
        trace_made, //
    }, //
};
use crate::{
    conn::Conn,
    kinds::{
        Control,
        Urgency, //
    },
    tap, //
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
    iov::SendMsg,
    skb::{
        Room,
        SkBuff, //
    },
    sock::VsockSock,
    zerocopy::Completion, //
};
use vsock_proto::{
    addr::{
        Addr,
        CidError, //
    },
    header::{
        Header,
        Op,
        SeqFlags,
        HEADER_LEN, //
    }, //
};
use zerocopy::FromZeros as _;

/// Where the payload of a packet comes from.
pub(crate) enum Payload<'a, 'm> {
    /// It is copied; a completion that the user waits for says so.
    Copy(Option<&'a Completion<'m>>),
    /// As above, into memory that was used before.
    Room(Room, Option<&'a Completion<'m>>),
    /// The pages of the user are sent.
    Pages(&'a Completion<'m>),
}

/// A packet to send: header and payload, owned.
///
/// The header is private memory at the head of the buffer, and a linear payload is right behind it.
/// Wherever the packet is dropped, its bytes do not count as unsent any more, and credit for bytes
/// that the peer never got is given back.
pub struct TxPacket(pub(super) SkBuff<TxControl>);

impl TxPacket {
    pub(super) fn alloc(header: &Header, payload: usize, cb: TxControl, gfp: Gfp) -> Result<Self> {
        let skb = SkBuff::alloc(HEADER_LEN, payload, gfp, cb)?;
        let mut this = Self(skb);
        this.set_header(header);
        Ok(this)
    }

    /// A packet of a connection without payload. The caller has queued `control` with `conn`; if
    /// this fails, it is not queued any more.
    ///
    /// Context: may sleep if `gfp` does.
    pub(crate) fn control(
        sock: &VsockSock,
        conn: Arc<Conn>,
        control: Control,
        header: &Header,
        is_reply: bool,
        gfp: Gfp,
    ) -> Result<Self> {
        let cb = TxControl::new(Some(conn), Some(control), 0, is_reply);
        let mut this = Self::alloc(header, 0, cb, gfp)?;
        this.0.set_owner(sock);
        trace_made(header, false);
        Ok(this)
    }

    /// A packet of payload from a user, whose `header.len()` bytes are in the books of `conn`. If
    /// this fails, they are not any more.
    ///
    /// With [`Payload::Pages`] the pages of the user are sent, else a copy. `flags` says which
    /// flags the header gets, once the payload was taken from the source.
    ///
    /// Context: may sleep.
    pub(crate) fn data(
        sock: &VsockSock,
        conn: Arc<Conn>,
        mut header: Header,
        msg: &mut SendMsg<'_>,
        payload: Payload<'_, '_>,
        room: usize,
        flags: impl FnOnce(&mut SendMsg<'_>) -> SeqFlags,
    ) -> Result<Self> {
        let len = header.len() as usize;
        let cb = TxControl::new(Some(conn), None, header.len(), false);
        let mut pages = false;
        let (mut this, completion) = match payload {
            Payload::Copy(completion) => (
                Self::alloc(&header, len.max(room), cb, Gfp::Kernel)?,
                completion,
            ),
            Payload::Room(pages, completion) => {
                let this = match SkBuff::alloc_in(HEADER_LEN, pages, len, Gfp::Kernel, cb) {
                    Ok(skb) => {
                        let mut this = Self(skb);
                        this.set_header(&header);
                        this
                    }
                    // Not without sleeping.
                    Err(cb) => Self::alloc(&header, len, cb, Gfp::Kernel)?,
                };
                (this, completion)
            }
            Payload::Pages(completion) => {
                pages = true;
                let this = Self::alloc(&header, 0, cb, Gfp::Kernel)?;
                (this, Some(completion))
            }
        };
        this.0.set_owner(sock);
        if let Some(completion) = completion {
            this.0.bind_completion(completion);
            this.0.cb_mut().awaited = true;
        }
        if pages {
            this.0.fill_from_pages(msg, len)?;
        } else {
            this.0.fill_from_iter(msg.source(), len)?;
        }
        // As with C, the tracepoint does not show where a message ends.
        trace_made(&header, pages);
        let flags = flags(msg);
        if flags != SeqFlags::NONE {
            header.set_flags(flags.raw());
            this.set_header(&header);
        }
        Ok(this)
    }

    /// The RST that goes before this packet, the REQUEST of a connection whose ports had another
    /// one before; nothing if one waits to be sent.
    ///
    /// Context: does not sleep.
    pub(crate) fn reset_before(&self) -> Option<Result<Self>> {
        let (conn, sock) = (self.conn()?, self.sender()?);
        let _ = conn.queue_control(Control::Rst)?;
        let of = self.header();
        let (Ok(src), Ok(dst)) = (of.src(), of.dst()) else {
            return None;
        };
        let header = header_to(Op::Rst, conn.ty(), src, dst, 0);
        let (conn, what) = (conn.clone(), Control::Rst);
        Some(Self::control(
            &sock,
            conn,
            what,
            &header,
            false,
            Gfp::Atomic,
        ))
    }

    /// Turns the packet into the buffer it is made of.
    #[inline]
    pub fn into_skb(self) -> SkBuff<TxControl> {
        self.0
    }

    /// Turns a buffer back into the packet it was.
    #[inline]
    pub fn from_skb(skb: SkBuff<TxControl>) -> Self {
        Self(skb)
    }

    /// The header as it is now.
    #[inline]
    pub fn header(&self) -> Header {
        // The head of the buffer always has a header's size.
        Header::read_from_prefix(self.0.head()).map_or_else(|_| Header::new_zeroed(), |(h, _)| h)
    }

    #[inline]
    fn set_header(&mut self, header: &Header) {
        // Cannot fail, see `header()`.
        let _ = header.write_to_prefix(self.0.head_mut());
    }

    /// Where the packet goes.
    ///
    /// # Errors
    ///
    /// The answer to a packet with a CID that is none has one, too.
    #[inline]
    pub fn dst(&self) -> Result<Addr, CidError> {
        self.header().dst()
    }

    /// Payload bytes that did not go out yet.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.len().saturating_sub(self.0.cb().offset as usize)
    }

    /// Says whether no payload is left.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the peer has a piece of the packet already.
    #[inline]
    pub fn is_begun(&self) -> bool {
        self.0.cb().offset != 0
    }

    /// Whether nobody waits for what the peer says to the packet: it has data, and its sender got
    /// none since its last one, and probably has more to send.
    ///
    /// A connection that begins or ends never has more to send, and who makes many of them waits
    /// for each.
    #[inline]
    pub fn is_bulk(&self) -> bool {
        let cb = self.0.cb();
        match &cb.conn {
            Some(conn) if cb.control.is_none() => conn.urgency() == Urgency::Bulk,
            _ => false,
        }
    }

    /// Whether the packet answers one of the peer: such packets are throttled.
    #[inline]
    pub fn is_reply(&self) -> bool {
        self.0.cb().is_reply()
    }

    /// Whether a user waits for the carrier to be done with the packet: see [`Completion`].
    #[inline]
    pub fn is_awaited(&self) -> bool {
        self.0.cb().awaited
    }

    /// Whether the packet must not be sent any more, see
    /// [`SendQueue::purge`](crate::SendQueue::purge).
    #[inline]
    pub fn is_purged(&self) -> bool {
        self.0.cb().is_purged()
    }

    /// Whether another packet goes between the same addresses.
    pub(crate) fn is_beside(header: &Header, other: &SkBuff<TxControl>) -> bool {
        let Ok((of, _)) = Header::read_from_prefix(other.head()) else {
            return false;
        };
        of.src() == header.src() && of.dst() == header.dst()
    }

    /// Whether the packet was sent by `sock`.
    #[inline]
    pub fn is_of(&self, sock: &VsockSock) -> bool {
        self.0.is_owned_by(sock)
    }

    /// The connection of the packet, if it belongs to one.
    pub(crate) fn conn(&self) -> Option<&Arc<Conn>> {
        self.0.cb().conn.as_ref()
    }

    /// The socket that sent the packet, unless it is being freed.
    pub(crate) fn sender(&self) -> Option<ARef<VsockSock>> {
        self.0.owner()
    }

    /// The peer will never get this packet: of its connection, it is to get nothing after it but a
    /// RST, or there would be a hole in what it reads. See
    /// [`abort_connection`](crate::abort_connection).
    ///
    /// To be called under the lock under which packets are handed over, as
    /// [`is_cut`](Self::is_cut).
    pub fn cut(&self) {
        if let Some(conn) = &self.0.cb().conn {
            conn.cut();
        }
    }

    /// Whether the packet must not be handed over, because one before it was [`cut`](Self::cut).
    #[inline]
    pub fn is_cut(&self) -> bool {
        let cb = self.0.cb();
        cb.conn.as_ref().is_some_and(|conn| conn.is_cut()) && !cb.is_rst()
    }

    /// Completes the header, and returns it: to be called before the peer can see the packet.
    ///
    /// It may be called again if the packet could not be handed over after all.
    #[inline]
    pub fn stamp(&mut self) -> Header {
        let mut header = self.header();
        let cb = self.0.cb_mut();
        let Some(conn) = &cb.conn else {
            return header;
        };
        let (control, hand_over) = if cb.stamped {
            (None, 0)
        } else {
            // Some may have joined.
            if cb.control.is_none() {
                header.set_len(cb.booked());
            }
            (cb.control, cb.booked())
        };
        conn.stamp(&mut header, control, hand_over);
        cb.stamped = true;
        self.set_header(&header);
        header
    }

    /// As [`stamp`](Self::stamp), if the carrier has no packet of the connection in its
    /// [queue](Self::queue_behind): if not, this one has to go there, too.
    #[inline]
    pub(crate) fn stamp_if_first(&mut self) -> Option<Urgency> {
        let mut header = self.header();
        let cb = self.0.cb_mut();
        let urgency = cb
            .conn
            .as_ref()?
            .stamp_if_first(&mut header, cb.control, cb.booked())?;
        cb.stamped = true;
        self.set_header(&header);
        Some(urgency)
    }

    /// The packet goes to the queue of a carrier that delivers packets at once otherwise.
    pub(crate) fn queue_behind(&mut self) {
        let cb = self.0.cb_mut();
        if let (Some(conn), false) = (&cb.conn, cb.behind) {
            conn.queue_behind();
            cb.behind = true;
        }
    }

    /// Shows the packet to the monitoring devices, once.
    ///
    /// To be called after [`stamp`](Self::stamp).
    #[inline]
    pub fn deliver_tap(&mut self) {
        if !core::mem::replace(&mut self.0.cb_mut().tapped, true) {
            tap::deliver(&self.header(), tap::Payload::Skb(&self.0, 0));
        }
    }

    /// The next piece of a packet that may be too large for one buffer of the peer: at most `room`
    /// bytes of payload.
    ///
    /// The packet is stamped, and goes on where it was if the fragment is dropped without
    /// [`Fragment::finish`].
    #[inline]
    pub fn fragment(&mut self, room: usize) -> Fragment<'_> {
        // The other pieces say what the first one said of the credit: no packet of the connection
        // comes in between.
        let mut header = if self.0.cb().offset == 0 {
            self.stamp()
        } else {
            self.header()
        };
        let len = self.len().min(room);
        if len < self.len() {
            let flags = SeqFlags::EOM.union(SeqFlags::EOR).raw();
            header.set_flags(header.flags() & !flags);
        }
        // Not more than the payload, whose length fits.
        header.set_len(len as u32);
        Fragment {
            packet: self,
            header,
            len,
        }
    }
}

/// A piece of a [`TxPacket`].
pub struct Fragment<'a> {
    packet: &'a mut TxPacket,
    header: Header,
    len: usize,
}

impl Fragment<'_> {
    /// The header of this piece.
    #[inline]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Payload bytes of this piece.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Says whether the piece has no payload.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The header and the payload, one behind the other, if they lie like that: the piece is all of
    /// the packet, and the payload is linear.
    #[inline]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        let skb = &self.packet.0;
        // The packet has the same header then, since it has the same length.
        if self.len != skb.len() {
            return None;
        }
        skb.head_and_linear()
    }

    /// The payload, if it is linear.
    #[inline]
    pub fn payload(&self) -> Option<&[u8]> {
        let skb = &self.packet.0;
        let rest = skb.linear()?.get(skb.cb().offset as usize..)?;
        rest.get(..self.len)
    }

    /// The buffer that has the payload, and from where on.
    #[inline]
    pub fn buffer(&self) -> (&SkBuff<TxControl>, usize) {
        let skb = &self.packet.0;
        (skb, skb.cb().offset as usize)
    }

    /// The piece is with the peer. Returns whether it was the last one.
    #[inline]
    pub fn finish(self) -> bool {
        let skb = &mut self.packet.0;
        let payload = tap::Payload::Skb(&*skb, skb.cb().offset as usize);
        tap::deliver(&self.header, payload);
        let cb = skb.cb_mut();
        cb.offset = cb.offset.saturating_add(self.header.len());
        self.packet.is_empty()
    }
}
