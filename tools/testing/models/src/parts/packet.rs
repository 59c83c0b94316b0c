// SPDX-License-Identifier: GPL-2.0

//! Packets: headers with the accounting of the real ones, and bytes on the way in.

use crate::{
    conn::Conn,
    kinds::{
        Control,
        Urgency, //
    },
    rx_queue::Payload as Received, //
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
    skb::SkBuff,
    sock::VsockSock, //
};
use vsock_proto::{
    addr::Addr,
    header::{
        Header,
        Op,
        SocketType, //
    }, //
};

/// A packet to send.
pub struct TxPacket {
    header: Header,
    of: Option<(VsockSock, Arc<Conn>, Option<Control>)>,
    /// The payload, in a buffer.
    payload: Option<SkBuff<()>>,
    booked: u32,
    stamped: bool,
    behind: bool,
    /// How often the packets of the connection were purged before.
    purges: u32,
}

impl TxPacket {
    pub(crate) fn control(
        sock: &VsockSock,
        conn: Arc<Conn>,
        what: Control,
        header: &Header,
        _reply: bool,
        _gfp: Gfp,
    ) -> Result<Self> {
        Ok(Self {
            header: *header,
            purges: conn.purges.get(),
            of: Some((sock.clone(), conn, Some(what))),
            payload: None,
            booked: 0,
            stamped: false,
            behind: false,
        })
    }

    /// A packet of payload, whose bytes are reserved.
    pub(crate) fn data(sock: &VsockSock, conn: Arc<Conn>, header: &Header, bytes: &[u8]) -> Self {
        let mut payload = SkBuff::alloc_linear(0, bytes.len(), Gfp::Kernel, ()).unwrap();
        payload.append(bytes).unwrap();
        Self {
            header: *header,
            purges: conn.purges.get(),
            of: Some((sock.clone(), conn, None)),
            payload: Some(payload),
            booked: header.len(),
            stamped: false,
            behind: false,
        }
    }

    pub(crate) fn reset(rx: &RxPacket<'_>) -> Option<Result<Self>> {
        Some(Ok(Self {
            header: rx.header.reply_rst()?,
            of: None,
            payload: None,
            booked: 0,
            stamped: false,
            behind: false,
            purges: 0,
        }))
    }

    pub(crate) fn header(&self) -> Header {
        self.header
    }

    pub(crate) fn stamp_if_first(&mut self) -> Option<Urgency> {
        let (_, conn, what) = self.of.as_ref()?;
        let urgency = conn.stamp_if_first(&mut self.header, *what, self.booked)?;
        self.stamped = true;
        Some(urgency)
    }

    pub(crate) fn queue_behind(&mut self) {
        if let (Some((_, conn, _)), false) = (&self.of, self.behind) {
            conn.queue_behind();
            self.behind = true;
        }
    }

    pub(crate) fn deliver_tap(&mut self) {}

    pub(crate) fn is_rst(&self) -> bool {
        self.header.op() == Op::Rst
    }

    /// Whether it is not to be handed over any more.
    pub(crate) fn is_purged(&self) -> bool {
        self.conn().is_some_and(|conn| match self.is_rst() {
            true => conn.is_superseded(),
            false => conn.purges.get() != self.purges,
        })
    }

    pub(crate) fn conn(&self) -> Option<&Arc<Conn>> {
        self.of.as_ref().map(|(_, conn, _)| conn)
    }

    pub(crate) fn sender(&self) -> Option<ARef<VsockSock>> {
        self.of.as_ref().map(|(sock, ..)| ARef(sock.clone()))
    }

    pub(crate) fn is_owned_by(&self, sock: &VsockSock) -> bool {
        self.of.as_ref().is_some_and(|(owner, ..)| owner.is(sock))
    }

    /// Hands it to the peer.
    pub(crate) fn stamp(&mut self) -> Header {
        if let Some((_, conn, what)) = &self.of {
            let hand_over = if self.stamped { 0 } else { self.booked };
            conn.stamp(&mut self.header, *what, hand_over);
        }
        self.stamped = true;
        self.header
    }
}

impl Drop for TxPacket {
    fn drop(&mut self) {
        let Some((_, conn, what)) = &self.of else {
            return;
        };
        let is_noted = self.stamped || (self.is_purged() && !self.is_rst());
        if let (Some(what), false) = (what, is_noted) {
            conn.unqueue_control(*what);
        }
        if self.is_rst() {
            conn.rst_done();
        }
        conn.packet_done(self.booked, !self.stamped);
        if self.behind {
            conn.leave_queue();
        }
    }
}

/// A packet that arrived.
pub struct RxPacket<'a> {
    header: Header,
    payload: Received<'a>,
    sender: Option<TxPacket>,
}

impl<'a> RxPacket<'a> {
    pub(crate) fn of_bytes(header: Header, payload: &'a [u8]) -> Result<Self> {
        let payload = Received::bytes(payload);
        Ok(Self {
            header,
            payload,
            sender: None,
        })
    }

    pub(crate) fn from_tx(mut packet: TxPacket) -> Self {
        packet.stamp();
        Self::from_stamped(packet)
    }

    pub(crate) fn from_stamped(mut packet: TxPacket) -> Self {
        Self {
            header: packet.header,
            payload: packet
                .payload
                .take()
                .map_or(Received::bytes(&[]), Received::skb),
            sender: Some(packet),
        }
    }

    pub(crate) fn into_tx(self) -> Option<TxPacket> {
        let mut packet = self.sender?;
        if packet.booked > 0 {
            packet.payload = Some(self.payload.into_skb()?);
        }
        Some(packet)
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    pub(crate) fn parts(&mut self) -> (&Header, &mut Received<'a>) {
        (&self.header, &mut self.payload)
    }

    pub(crate) fn deliver_tap(&mut self) {}
}

pub(crate) fn trace_dropped(_header: &Header, _why: kernel_ext::trace::Dropped) {}

pub(crate) fn trace_made(_header: &Header, _zerocopy: bool) {}

pub(crate) fn trace_received(_header: &Header) {}

pub(crate) fn header_to(op: Op, ty: SocketType, src: Addr, dst: Addr, len: u32) -> Header {
    Header::new(op, ty, src, dst, len, 0)
}
