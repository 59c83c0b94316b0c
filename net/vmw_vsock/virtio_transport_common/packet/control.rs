// SPDX-License-Identifier: GPL-2.0

//! What is kept with a packet to send.

use crate::{
    conn::Conn,
    kinds::Control, //
};
use kernel::sync::{
    atomic::{
        Atomic,
        Relaxed, //
    },
    Arc, //
};
use vsock_proto::turns::Turn;

/// Payload of a packet that was joined to others has at most so many bytes: with its header they
/// are in one buffer of a guest, and in 4 KiB here.
pub(crate) const MOST_JOINED: u32 = 3584;

/// What is kept with a packet to send, in its control block.
///
/// Dropping it is what ends the packet's accounting.
pub struct TxControl {
    /// The connection that has the packet in its books; none for the answer to a packet that
    /// belongs to no connection.
    pub(super) conn: Option<Arc<Conn>>,
    pub(super) control: Option<Control>,
    /// Payload bytes in the books of `conn`.
    pub(super) booked: Atomic<u32>,
    /// Payload bytes that went out in earlier fragments.
    pub(super) offset: u32,
    /// What [`Conn::purges`] was when the packet was made.
    pub(super) purges: u32,
    pub(super) is_reply: bool,
    /// See [`TxPacket::is_awaited`](crate::TxPacket::is_awaited).
    pub(super) awaited: bool,
    /// The peer may have seen it: the bytes are handed over, the control packet is not queued.
    pub(super) stamped: bool,
    pub(super) tapped: bool,
    /// See [`Conn::queue_behind`].
    pub(super) behind: bool,
    /// See [`TxPacket::is_purged`](crate::TxPacket::is_purged).
    pub(super) void: Atomic<bool>,
}

impl TxControl {
    pub(super) fn new(
        conn: Option<Arc<Conn>>,
        control: Option<Control>,
        booked: u32,
        is_reply: bool,
    ) -> Self {
        let purges = conn.as_ref().map_or(0, |conn| conn.purges.get());
        Self {
            conn,
            control,
            booked: Atomic::new(booked),
            offset: 0,
            purges,
            is_reply,
            awaited: false,
            stamped: false,
            tapped: false,
            behind: false,
            void: Atomic::new(false),
        }
    }
}

impl TxControl {
    /// See [`TxPacket::is_reply`](crate::TxPacket::is_reply).
    #[inline]
    pub(crate) fn is_reply(&self) -> bool {
        self.is_reply
    }

    /// Whether the packet must not be sent any more, see
    /// [`SendQueue::purge`](crate::SendQueue::purge).
    #[inline]
    pub(crate) fn is_purged(&self) -> bool {
        match &self.conn {
            Some(conn) if self.is_rst() => conn.is_superseded(),
            Some(conn) => conn.purges.get() != self.purges,
            None => self.void.load(Relaxed),
        }
    }

    /// Whether the packet begins a connection.
    #[inline]
    pub(crate) fn begins(&self) -> bool {
        matches!(self.control, Some(Control::Request | Control::Response))
    }

    /// Payload bytes in the books of the connection.
    #[inline]
    pub(super) fn booked(&self) -> u32 {
        self.booked.load(Relaxed)
    }

    /// Whether `len` more bytes of a stream, which are in the books of the connection, may go
    /// behind the payload: they are in those of the packet then.
    pub(crate) fn join(&self, len: u32) -> bool {
        let booked = self.booked().saturating_add(len);
        let joins = self.control.is_none() && !self.stamped && !self.awaited && !self.is_purged();
        if !joins || booked > MOST_JOINED {
            return false;
        }
        self.booked.store(booked, Relaxed);
        true
    }

    /// The packet belongs to no connection, and is not to be sent any more.
    pub(crate) fn set_void(&self) {
        self.void.store(true, Relaxed);
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
        let is_noted = self.stamped || (self.is_purged() && !self.is_rst());
        if let (Some(control), false) = (self.control, is_noted) {
            conn.unqueue_control(control);
        }
        if self.is_rst() {
            conn.rst_done();
        }
        conn.packet_done(self.booked(), !self.stamped);
        if self.behind {
            conn.leave_queue();
        }
    }
}
