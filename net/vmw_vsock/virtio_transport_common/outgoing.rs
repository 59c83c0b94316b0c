// SPDX-License-Identifier: GPL-2.0

//! Payload of a user that goes to the peer without a packet in between.
//!
//! A carrier that has the buffers of the peer at hand copies into them what the user sends: one
//! copy instead of two, and no memory for a packet. Whatever does not work out here is sent as a
//! packet.

use crate::{
    conn::{
        Conn,
        Reservation, //
    },
    kinds::Urgency,
    packet::trace_made,
    send_queue::SendQueue, //
};
use core::mem::MaybeUninit;
use kernel::{
    iov::IovIterSource,
    prelude::*, //
};
use kernel_ext::iov::SendMsg;
use vsock_proto::{
    addr::Cid,
    header::{
        Header,
        SeqFlags,
        MAX_PKT_BUF_SIZE, //
    }, //
};

/// Up to so many bytes join a packet that waits.
pub(crate) const JOINS: usize = 512;

/// Some payload of a user, for the buffers of the peer.
pub struct Outgoing<'o, 'c, 'm> {
    conn: &'o Conn,
    msg: &'o mut SendMsg<'m>,
    credit: &'o mut Reservation<'c>,
    /// Of the next piece.
    header: Header,
    /// What may go out now.
    left: u32,
    /// It is a message, which goes out as a whole.
    flags: Option<SeqFlags>,
    /// Its memory was there a moment ago.
    present: bool,
    /// The peer is to be told at once.
    urgent: bool,
}

impl<'o, 'c, 'm> Outgoing<'o, 'c, 'm> {
    /// As much of what credit there is for as one packet may have. With `flags`, it is the rest of
    /// a message, of which those are for the last piece; it may go out in pieces if it is
    /// `present`.
    pub(crate) fn new(
        conn: &'o Conn,
        msg: &'o mut SendMsg<'m>,
        credit: &'o mut Reservation<'c>,
        header: Header,
        flags: Option<SeqFlags>,
        present: bool,
    ) -> Self {
        let left = credit.left().min(MAX_PKT_BUF_SIZE);
        Self {
            conn,
            msg,
            credit,
            header,
            left,
            flags,
            present,
            urgent: false,
        }
    }

    /// The peer.
    #[inline]
    pub fn dst_cid(&self) -> Result<Cid> {
        self.header.dst().map(|dst| dst.cid).map_err(|_| ENODEV)
    }

    /// How many bytes are to go out.
    #[inline]
    pub fn left(&self) -> usize {
        self.left as usize
    }

    /// Whether they have to go out as a whole: what of a message stays behind when a part of it is
    /// with the peer costs the connection, if there is no memory for it.
    #[inline]
    pub fn is_whole(&self) -> bool {
        self.flags.is_some()
    }

    /// Whether one can begin with a part of it: of a message only if its memory was there a moment
    /// ago, as the user may send another one if nothing of it went out.
    #[inline]
    pub fn may_part(&self) -> bool {
        self.flags.is_none() || self.present
    }

    /// Whether the sender probably has more to send, so that the peer can be told of what went out
    /// a bit later.
    #[inline]
    pub fn is_bulk(&self) -> bool {
        !self.urgent
    }

    /// Whether it could [join](Self::join) a packet that waits.
    #[inline]
    pub fn may_join(&self) -> bool {
        self.flags.is_none() && self.left as usize <= JOINS
    }

    /// Whether nothing must go out any more: see [`TxPacket::is_cut`](crate::TxPacket::is_cut).
    #[inline]
    pub fn is_cut(&self) -> bool {
        self.conn.is_cut()
    }

    /// Copies a piece; if that fails, the next one begins where this one did.
    ///
    /// # Errors
    ///
    /// Those of `copy`.
    #[inline]
    pub fn copy(&mut self, copy: impl FnOnce(&mut IovIterSource<'_>) -> Result) -> Result {
        self.msg.attempt(|msg| copy(msg.source()))
    }

    /// Appends all of it to a packet that waits in `queue`, if there is one with room. Says whether
    /// it did.
    #[inline]
    pub fn join(&mut self, queue: &SendQueue) -> bool {
        let len = self.left as usize;
        if !self.may_join() {
            return false;
        }
        let mut room = [const { MaybeUninit::<u8>::uninit() }; JOINS];
        let conn = self.conn;
        let joined = self.msg.attempt(|msg| {
            let bytes = room.get_mut(..len).and_then(|room| msg.copy_nofault(room));
            let joined = bytes.is_some_and(|bytes| queue.append(conn, bytes));
            joined.then_some(()).ok_or(EAGAIN)
        });
        if joined.is_ok() {
            self.credit.take(self.left);
            self.left = 0;
        }
        joined.is_ok()
    }

    /// The header of a piece of `len` bytes that was copied, and is about to be seen by the peer.
    #[inline]
    pub fn stamp(&mut self, len: usize) -> &Header {
        // CAST: At most what is left.
        let len = (len as u32).min(self.left);
        self.header.set_len(len);
        if let Some(flags) = self.flags.filter(|_| len == self.left) {
            self.header.set_flags(flags.raw());
        }
        let urgency = self.conn.stamp(&mut self.header, None, len);
        self.urgent |= urgency == Urgency::Reply;
        &self.header
    }

    /// The piece that was [stamped](Self::stamp) will not be seen after all.
    #[cold]
    pub fn take_back(&mut self) {
        self.conn.take_back(self.header.len());
    }

    /// The piece that was stamped is with the peer.
    #[inline]
    pub fn finish(&mut self) {
        let len = self.credit.take(self.header.len());
        self.left = self.left.saturating_sub(len);
        self.conn.packet_done(len, false);
        trace_made(&self.header, false);
    }
}
