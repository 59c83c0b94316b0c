// SPDX-License-Identifier: GPL-2.0

//! What there is to say of a connection and its packets.

use vsock_proto::{
    addr::{
        Addr,
        Cid,
        Port, //
    },
    header::{
        Op,
        ShutdownFlags, //
    }, //
};

/// A packet without payload of which a connection needs at most one at a time in a queue.
///
/// What such a packet says is what is true when it is handed to the peer, so a second one would say
/// the same: a peer that asks for many answers gets one, and a queue holds at most one of each kind
/// for a connection (rule R9).
///
/// A [`Control::CreditRequest`] is another matter: it says that a writer waits behind the payload
/// that went before, so that one before that payload is not as good. There is one for a stall
/// ([`Room::ask`](vsock_proto::credit::Room::ask)), and none while the packets of the socket take
/// too much memory ([`Conn::room`](crate::Conn::room)): no peer can bring it about that there are
/// many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Control {
    Request,
    Response,
    Rst,
    Shutdown(ShutdownFlags),
    CreditUpdate,
    CreditRequest,
    /// A [`Control::CreditRequest`] for the sake of the answer, see
    /// [`keepalive`](crate::keepalive).
    Probe,
}

impl Control {
    pub(crate) fn op(self) -> Op {
        match self {
            Control::Request => Op::Request,
            Control::Response => Op::Response,
            Control::Rst => Op::Rst,
            Control::Shutdown(_) => Op::Shutdown,
            Control::CreditUpdate => Op::CreditUpdate,
            Control::CreditRequest | Control::Probe => Op::CreditRequest,
        }
    }

    /// The bit of the kind in `Gate::queued`; none if any number of them may be in a queue.
    pub(crate) fn bit(self) -> u8 {
        match self {
            Control::Request => 1,
            Control::Response => 2,
            Control::Rst => 4,
            Control::Shutdown(_) => 8,
            Control::CreditUpdate => 16,
            Control::CreditRequest => 0,
            Control::Probe => 32,
        }
    }
}

/// When the peer is told of a packet that its sender delivers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Urgency {
    /// The sender had data before, and may wait for more: now.
    Reply,
    /// The sender had none since its last packet, and probably has more to send: a worker tells the
    /// peer, of several packets at once.
    Bulk,
}

/// The addresses of a connection.
#[derive(Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) local_port: Port,
    /// The CID by which the socket knows this side; it may change with a reset of the transport.
    /// [`Cid::ANY`] if the socket does not know one.
    pub(crate) local_cid: Cid,
    pub(crate) peer: Addr,
}
