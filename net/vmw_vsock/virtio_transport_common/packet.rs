// SPDX-License-Identifier: GPL-2.0

//! Packets, on their way out and in.

use crate::{
    conn::{
        Conn,
        Control,
        Urgency, //
    },
    rx_queue::Payload as Received,
    tap, //
};
use kernel::{
    iov::IovIterDest,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    }, //
};
use kernel_ext::{
    gfp::Gfp,
    iov::SendMsg,
    net::Net,
    skb::{
        Block,
        Filled,
        SkBuff, //
    },
    sock::VsockSock,
    trace,
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
        SocketType,
        HEADER_LEN, //
    },
    turns::Turn, //
};
use zerocopy::FromZeros as _;

/// What is kept with a packet to send, in its control block.
///
/// Dropping it is what ends the packet's accounting.
pub struct TxControl {
    /// The connection that has the packet in its books; none for the answer to a packet that
    /// belongs to no connection.
    conn: Option<Arc<Conn>>,
    control: Option<Control>,
    /// Payload bytes in the books of `conn`.
    booked: u32,
    /// Payload bytes that went out in earlier fragments.
    offset: u32,
    /// What [`Conn::purges`] was when the packet was made.
    purges: u32,
    is_reply: bool,
    /// See [`TxPacket::is_awaited`].
    awaited: bool,
    /// The peer may have seen it: the bytes are handed over, the control packet is not queued.
    stamped: bool,
    tapped: bool,
    /// See [`Conn::queue_behind`].
    behind: bool,
}

impl TxControl {
    fn new(conn: Option<Arc<Conn>>, control: Option<Control>, booked: u32, is_reply: bool) -> Self {
        let purges = conn.as_ref().map_or(0, |conn| conn.purges.get());
        Self {
            conn,
            control,
            booked,
            offset: 0,
            purges,
            is_reply,
            awaited: false,
            stamped: false,
            tapped: false,
            behind: false,
        }
    }
}

impl TxControl {
    /// See [`TxPacket::is_reply`].
    #[inline]
    pub(crate) fn is_reply(&self) -> bool {
        self.is_reply
    }

    /// Whether the packet must not be sent any more, see [`SendQueue::purge`].
    ///
    /// [`SendQueue::purge`]: crate::SendQueue::purge
    #[inline]
    pub(crate) fn is_purged(&self) -> bool {
        let conn = self.conn.as_ref();
        conn.is_some_and(|conn| conn.purges.get() != self.purges) && !self.is_rst()
    }

    /// Whether the packet says that its connection is over.
    #[inline]
    pub(crate) fn is_rst(&self) -> bool {
        self.control == Some(Control::Rst)
    }
}

kernel_ext::impl_in_flow! {
    impl InFlow<Turn> for TxControl { self.conn: Conn { flow } }
}

impl Drop for TxControl {
    fn drop(&mut self) {
        let Some(conn) = &self.conn else {
            return;
        };
        // Who purged it has noted that it is not queued, and maybe another one is by now.
        if let (Some(control), false) = (self.control, self.stamped || self.is_purged()) {
            conn.unqueue_control(control);
        }
        conn.packet_done(self.booked, !self.stamped);
        if self.behind {
            conn.leave_queue();
        }
    }
}

/// Where the payload of a packet comes from.
#[derive(Clone, Copy)]
pub(crate) enum Payload<'a, 'm> {
    /// It is copied; a completion that the user waits for says so.
    Copy(Option<&'a Completion<'m>>),
    /// The pages of the user are sent.
    Pages(&'a Completion<'m>),
}

/// Shows a packet that is going to be sent to who traces that.
#[inline(always)]
pub(crate) fn trace_made(header: &Header, zerocopy: bool) {
    trace::virtio_transport_alloc_pkt(
        header.src_cid_raw() as u32, // The tracepoint has room for 32 bits.
        header.src_port().get(),
        header.dst_cid_raw() as u32,
        header.dst_port().get(),
        header.len(),
        header.ty_raw(),
        header.op().raw(),
        header.flags(),
        zerocopy,
    );
}

/// Shows a packet that came to who traces that.
#[inline(always)]
pub(crate) fn trace_received(header: &Header) {
    trace::virtio_transport_recv_pkt(
        header.src_cid_raw() as u32, // The tracepoint has room for 32 bits.
        header.src_port().get(),
        header.dst_cid_raw() as u32,
        header.dst_port().get(),
        header.len(),
        header.ty_raw(),
        header.op().raw(),
        header.flags(),
        header.buf_alloc(),
        header.fwd_cnt(),
    );
}

/// A packet to send: header and payload, owned.
///
/// The header is private memory at the head of the buffer, and a linear payload is right behind it.
/// Wherever the packet is dropped, its bytes do not count as unsent any more, and credit for bytes
/// that the peer never got is given back.
pub struct TxPacket(SkBuff<TxControl>);

impl TxPacket {
    fn alloc(header: &Header, payload: usize, cb: TxControl, gfp: Gfp) -> Result<Self> {
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
        flags: impl FnOnce(&mut SendMsg<'_>) -> SeqFlags,
    ) -> Result<Self> {
        let len = header.len() as usize;
        let cb = TxControl::new(Some(conn), None, header.len(), false);
        let room = match payload {
            Payload::Pages(_) => 0,
            Payload::Copy(_) => len,
        };
        let mut this = Self::alloc(&header, room, cb, Gfp::Kernel)?;
        this.0.set_owner(sock);
        if let Payload::Copy(Some(completion)) | Payload::Pages(completion) = payload {
            this.0.bind_completion(completion);
            this.0.cb_mut().awaited = true;
        }
        match payload {
            Payload::Pages(_) => this.0.fill_from_pages(msg, len)?,
            Payload::Copy(_) => this.0.fill_from_iter(msg.source(), len)?,
        }
        // As with C, the tracepoint does not show where a message ends.
        trace_made(&header, matches!(payload, Payload::Pages(_)));
        let flags = flags(msg);
        if flags != SeqFlags::NONE {
            header.set_flags(flags.raw());
            this.set_header(&header);
        }
        Ok(this)
    }

    /// The RST that answers a packet which belongs to no connection; nothing if that was a RST.
    pub(crate) fn reset(rx: &RxPacket<'_>) -> Option<Result<Self>> {
        let header = rx.header.reply_rst()?;
        let cb = TxControl::new(None, None, 0, true);
        Some(Self::alloc(&header, 0, cb, Gfp::Kernel).map(|mut this| {
            // The namespace of whom we answer is that of the owner, if there is one: loopback.
            if let Some(payload) = rx.payload.as_skb() {
                this.0.set_owner_of(payload);
            }
            trace_made(&header, false);
            this
        }))
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
            (cb.control, cb.booked)
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
            .stamp_if_first(&mut header, cb.control, cb.booked)?;
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

    /// Copies the payload.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    #[inline]
    pub fn copy_to(&self, dest: &mut IovIterDest<'_>) -> Result {
        if self.len == 0 {
            return Ok(());
        }
        let skb = &self.packet.0;
        skb.copy_to_iter(skb.cb().offset as usize, dest, self.len)
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

/// A packet that arrived: a header, copied once from wherever it came, and its payload.
///
/// # Invariants
///
/// The payload has the length that the header says, until it is taken; a packet without payload may
/// have a buffer.
pub struct RxPacket<'a> {
    header: Header,
    payload: Received<'a>,
    tapped: bool,
    /// That of a packet of loopback: the sender is not done with it before the receiver has it.
    sender: Option<TxControl>,
}

impl<'a> RxPacket<'a> {
    /// Makes a packet of what a device or a guest sent.
    ///
    /// # Errors
    ///
    /// `EBADMSG` if the payload has not the length that the header says.
    #[inline]
    pub fn new(header: Header, payload: Option<SkBuff<()>>) -> Result<Self> {
        Self::with(header, payload.map_or(Received::bytes(&[]), Received::skb))
    }

    /// As [`new`](Self::new), of payload in private memory, which is copied.
    #[inline]
    pub fn of_bytes(header: Header, payload: &'a [u8]) -> Result<Self> {
        Self::with(header, Received::bytes(payload))
    }

    /// As [`new`](Self::new), of payload in a block, which is copied:
    /// [`into_block`](Self::into_block) gives the block back.
    #[inline]
    pub fn of_filled(header: Header, filled: Filled) -> Result<Self> {
        Self::with(header, Received::filled(filled))
    }

    #[inline]
    fn with(header: Header, payload: Received<'a>) -> Result<Self> {
        if payload.len() != header.len() as usize {
            return Err(EBADMSG);
        }
        // INVARIANT: Checked above.
        Ok(Self {
            header,
            payload,
            tapped: false,
            sender: None,
        })
    }

    /// Turns a packet around, for loopback: the same buffer goes to the receiver.
    ///
    /// The sender stays the owner of the buffer, until a receiver takes the payload.
    #[inline]
    pub fn from_tx(mut packet: TxPacket) -> Self {
        packet.stamp();
        Self::from_stamped(packet)
    }

    /// As [`from_tx`](Self::from_tx), of a packet that was stamped just now.
    pub(crate) fn from_stamped(packet: TxPacket) -> Self {
        let header = packet.header();
        let (skb, cb) = packet.0.replace_cb(());
        // INVARIANT: A packet that is sent has a header that says the length of its payload.
        Self {
            header,
            payload: Received::skb(skb),
            tapped: cb.tapped,
            sender: Some(cb),
        }
    }

    /// Makes of it the packet again that it was, unless any of its payload was taken.
    pub(crate) fn into_tx(self) -> Option<TxPacket> {
        let mut cb = self.sender?;
        cb.tapped = self.tapped;
        let (skb, ()) = self.payload.into_skb()?.replace_cb(cb);
        Some(TxPacket(skb))
    }

    /// The header.
    #[inline]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The block of the payload, whatever became of that; `None` if it came in none.
    #[inline]
    pub fn into_block(self) -> Option<Block> {
        self.payload.into_filled().map(Filled::into_block)
    }

    /// The header, and the payload, to be put into a queue.
    #[inline]
    pub(crate) fn parts(&mut self) -> (&Header, &mut Received<'a>) {
        (&self.header, &mut self.payload)
    }

    /// Shows the packet to the monitoring devices, once.
    #[inline]
    pub fn deliver_tap(&mut self) {
        if !core::mem::replace(&mut self.tapped, true) {
            let payload = match (self.payload.as_skb(), self.payload.as_filled()) {
                (Some(skb), _) => tap::Payload::Skb(skb, 0),
                (None, Some(filled)) => tap::Payload::Filled(filled),
                (None, None) => tap::Payload::Bytes(self.payload.as_bytes()),
            };
            tap::deliver(&self.header, payload);
        }
    }

    /// The namespace of the sender, if a socket of this machine sent the packet.
    pub fn net(&self) -> Option<ARef<Net>> {
        self.payload.as_skb()?.owner_net()
    }

    /// Whether the sender is in that namespace.
    #[inline]
    pub fn is_from(&self, net: Option<&Net>) -> bool {
        match self.payload.as_skb() {
            Some(skb) => skb.is_owned_in(net),
            None => net.is_none(),
        }
    }
}

/// The header of a packet of `sock` to its peer.
pub(crate) fn header_to(op: Op, ty: SocketType, src: Addr, dst: Addr, len: u32) -> Header {
    Header::new(op, ty, src, dst, len, 0)
}
