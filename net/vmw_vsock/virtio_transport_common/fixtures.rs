// SPDX-License-Identifier: GPL-2.0

//! What the KUnit suites of packets and of their queues have in common.

use crate::{
    conn::Conn,
    kinds::Control,
    packet::{
        header_to,
        Payload,
        TxPacket, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use kernel_ext::{
    gfp::Gfp,
    kunit::{
        sending,
        KernelSock, //
    },
    sock::SockType, //
};
use vsock_proto::{
    addr::{
        Addr,
        Cid,
        Port, //
    },
    header::{
        Header,
        Op,
        SeqFlags,
        SocketType, //
    }, //
};

pub(crate) const LOCAL: Addr = Addr::new(Cid::LOCAL, Port::new(1));
pub(crate) const PEER: Addr = Addr::new(Cid::LOCAL, Port::new(2));

/// A connection, and its socket.
pub(crate) struct Connected {
    pub(crate) sock: KernelSock,
    pub(crate) conn: Arc<Conn>,
}

impl Connected {
    /// One whose peer has room for that many bytes.
    pub(crate) fn new(room: u32) -> Result<Self> {
        let sock = KernelSock::new(SockType::Stream)?;
        let conn = Conn::new(&mut sock.sock().lock())?;
        let this = Self { sock, conn };
        this.update(room, 0)?;
        Ok(this)
    }

    /// The peer says what it has.
    pub(crate) fn update(&self, buf_alloc: u32, fwd_cnt: u32) -> Result {
        let mut header = header(Op::CreditUpdate, 0);
        header.set_credit(buf_alloc, fwd_cnt);
        self.conn
            .gate()
            .peer_update(&header)
            .map(|_| ())
            .map_err(|_| EPROTO)
    }

    /// A packet of data; its bytes are in the books of the connection.
    pub(crate) fn data(&self, bytes: &[u8], flags: SeqFlags) -> Result<TxPacket> {
        self.data_in(bytes, 0, flags)
    }

    /// As [`data`](Self::data), in memory for at least `room` bytes of payload.
    pub(crate) fn data_in(&self, bytes: &[u8], room: usize, flags: SeqFlags) -> Result<TxPacket> {
        let want = u32::try_from(bytes.len())?;
        let mut credit = self.conn.reserve(want);
        let len = credit.take(want);
        sending(bytes, |msg| {
            let (conn, header) = (self.conn.clone(), header(Op::Rw, len));
            let payload = Payload::Copy(None);
            TxPacket::data(self.sock.sock(), conn, header, msg, payload, room, |_| {
                flags
            })
        })?
    }

    /// A packet without payload.
    pub(crate) fn control(&self, what: Control, is_reply: bool) -> Result<TxPacket> {
        let (conn, header) = (self.conn.clone(), header(what.op(), 0));
        TxPacket::control(self.sock.sock(), conn, what, &header, is_reply, Gfp::Kernel)
    }

    /// Space, bytes on their way, and memory of packets.
    pub(crate) fn books(&self) -> (u32, usize, usize) {
        let memory = self.sock.sender_memory();
        (self.space(), self.conn.unsent(), memory)
    }

    /// Room to send.
    pub(crate) fn space(&self) -> u32 {
        self.conn.room(&self.sock.sock().lock()).space
    }
}

/// The header of a packet between these two.
pub(crate) fn header(op: Op, len: u32) -> Header {
    header_to(op, SocketType::Stream, LOCAL, PEER, len)
}
