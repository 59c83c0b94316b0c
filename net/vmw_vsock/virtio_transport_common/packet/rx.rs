// SPDX-License-Identifier: GPL-2.0

//! Packets on their way in, and the answer to those that are for nobody.

use super::{
    control::TxControl,
    header::trace_made,
    tx::TxPacket, //
};
use crate::{
    rx_queue::Payload as Received,
    tap, //
};
use kernel::{
    prelude::*,
    sync::aref::ARef, //
};
use kernel_ext::{
    gfp::Gfp,
    net::Net,
    skb::{
        Block,
        Filled,
        SkBuff, //
    }, //
};
use vsock_proto::header::Header;

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

impl TxPacket {
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
}
