// SPDX-License-Identifier: GPL-2.0

//! The carrier of the models, its peer, and what they have in common.

pub(crate) use crate::{
    carrier::{
        self,
        Carrier,
        Over, //
    },
    close::{
        self,
        Peers, //
    },
    conn::Conn,
    control,
    kinds::Control,
    packet::{
        header_to,
        RxPacket,
        TxPacket, //
    },
    recv,
    tables, //
};
pub(crate) use kernel::{
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    }, //
};
pub(crate) use kernel_ext::{
    net::Net,
    sock::{
        LockedSock,
        Shutdown,
        SockAddr,
        SockState,
        SockType,
        Sockets,
        VsockSock, //
    },
    vsock::{
        self,
        Kind,
        Patience,
        TransportSlot, //
    },
    world::{
        self,
        check,
        Fault,
        Tried, //
    }, //
};
pub(crate) use loom::thread;
pub(crate) use std::{
    collections::VecDeque,
    rc::Rc, //
};
pub(crate) use vsock_proto::{
    addr::{
        Addr,
        Cid,
        Port, //
    },
    conn::State,
    header::{
        Header,
        Op,
        ShutdownFlags,
        SocketType, //
    }, //
};

pub(crate) type On = Over<Wire>;

/// The carrier: a queue, from which a worker takes packets for the peer.
pub(crate) struct Wire;

#[derive(Default)]
pub(crate) struct Lines {
    pub(crate) gone: bool,
    pub(crate) queue: VecDeque<TxPacket>,
    /// What the peer saw.
    pub(crate) seen: Vec<Header>,
}

pub(crate) fn lines() -> Rc<loom::sync::Mutex<Lines>> {
    world::the()
}

impl Carrier for Wire {
    type OwnerModule = ();
    const KIND: Kind = Kind::GuestToHost;

    fn slot() -> &'static TransportSlot<Conn> {
        unreachable!()
    }

    fn local_cid() -> Cid {
        Cid::new(HERE)
    }

    fn stream_allow(_sock: &VsockSock, _addr: Addr) -> bool {
        true
    }

    fn seqpacket_allow(_sock: &VsockSock, _cid: Cid) -> bool {
        true
    }

    fn send(packet: TxPacket, _net: Option<&Net>) -> Result {
        let lines = lines();
        let mut lines = lines.lock().unwrap();
        if lines.gone {
            drop(lines);
            drop(packet);
            return Err(ENODEV);
        }
        lines.queue.push_back(packet);
        Ok(())
    }

    /// `SendQueue::purge()`, which leaves a RST.
    fn cancel(sock: &mut LockedSock) -> Result {
        let conn = conn_of(sock);
        conn.purges.add();
        let lines = lines();
        let mut lines = lines.lock().unwrap();
        let all = core::mem::take(&mut lines.queue);
        let is_dropped = |packet: &TxPacket| packet.is_owned_by(sock) && !packet.is_rst();
        let (out, rest): (VecDeque<_>, VecDeque<_>) = all.into_iter().partition(is_dropped);
        lines.queue = rest;
        drop(lines);
        drop(out);
        for kind in [
            Control::Request,
            Control::Response,
            Control::Shutdown(ShutdownFlags::NONE),
            Control::CreditUpdate,
        ] {
            conn.unqueue_control(kind);
        }
        Ok(())
    }
}

/// The worker hands all that is queued to the peer.
pub(crate) fn transmit() {
    let lines = lines();
    let packets = core::mem::take(&mut lines.lock().unwrap().queue);
    for mut packet in packets {
        if packet.is_purged() {
            continue;
        }
        let header = packet.stamp();
        drop(packet);
        lines.lock().unwrap().seen.push(header);
    }
}

/// How many packets of a kind went to a peer.
pub(crate) fn seen(op: Op, peer: Addr) -> usize {
    let lines = lines();
    let lines = lines.lock().unwrap();
    let is_it = |header: &&Header| header.op() == op && header.dst() == Ok(peer);
    lines.seen.iter().filter(is_it).count()
}

pub(crate) const HERE: u32 = 3;

pub(crate) const LOCAL: Addr = Addr::new(Cid::new(HERE), Port::new(1000));

pub(crate) const PEER: Addr = Addr::new(Cid::new(2), Port::new(2000));

pub(crate) const OTHER: Addr = Addr::new(Cid::new(2), Port::new(3000));

pub(crate) fn addr(addr: Addr) -> SockAddr {
    SockAddr {
        cid: addr.cid.get(),
        port: addr.port.get(),
    }
}

/// The worker takes a packet from a peer, which has `fwd_cnt` bytes of ours behind it.
pub(crate) fn packet(from: Addr, op: Op, flags: u32, bytes: &[u8], fwd_cnt: u32) {
    let mut header = Header::new(
        op,
        SocketType::Stream,
        from,
        LOCAL,
        bytes.len() as u32,
        flags,
    );
    header.set_credit(4096, fwd_cnt);
    recv::receive::<Wire>(&mut RxPacket::of_bytes(header, bytes).unwrap(), None);
}

pub(crate) fn packet_to(from: Addr, to: Addr, op: Op, bytes: &[u8]) {
    let mut header = Header::new(op, SocketType::Stream, from, to, bytes.len() as u32, 0);
    header.set_credit(4096, 0);
    recv::receive::<Wire>(&mut RxPacket::of_bytes(header, bytes).unwrap(), None);
}

pub(crate) fn comes(op: Op) {
    packet(PEER, op, if op == Op::Shutdown { 3 } else { 0 }, &[], 0);
}

/// How a model is run.
#[derive(Clone, Copy)]
pub(crate) struct How {
    /// At most so many preemptions; all orders if there is no bound.
    pub(crate) preemptions: Option<usize>,
    pub(crate) fault: Fault,
}

/// A model: what is there before the threads, and a look at the end.
pub(crate) fn explore(how: How, f: impl Fn() + Send + Sync + 'static) -> Tried {
    vsock::explore(how.preemptions, how.fault, vsock::init::<On>, move || {
        // So that it is no thread's to make.
        let lines = lines();
        f();
        let queue = core::mem::take(&mut lines.lock().unwrap().queue);
        drop(queue);
    })
}

/// A socket on the transport.
pub(crate) fn socket() -> VsockSock {
    let sock = VsockSock::create(SockType::Stream, true);
    let mut locked = sock.lock();
    locked.set_addrs(addr(LOCAL), addr(PEER));
    vsock::init::<On>(&mut locked);
    drop(locked);
    sock
}

pub(crate) fn conn_of(sock: &LockedSock) -> Arc<Conn> {
    carrier::conn_of::<Wire>(sock).unwrap().into()
}

/// A connected socket, whose peer has room for that many bytes.
pub(crate) fn connected(room: u32) -> (VsockSock, Arc<Conn>) {
    let sock = socket();
    let mut locked = sock.lock();
    locked.set_state(SockState::Established);
    let conn = conn_of(&locked);
    conn.begin(&locked, State::Established);
    let _ = conn.gate().tx.peer_update(room, 0).unwrap();
    tables::join::<Wire>(&locked, &conn).unwrap();
    locked.insert_connected();
    drop(locked);
    (sock, conn)
}

/// What is true when all threads are done.
pub(crate) fn quiet(sock: &VsockSock, conn: &Conn) {
    sock.check_idle();
    let gate = conn.gate();
    let waits = gate.attached && (gate.link.has_news() || gate.deferred);
    drop(gate);
    check(!waits, "the socket was told of everything");
}

/// The user closes it, and nobody answers.
pub(crate) fn finish(sock: VsockSock) {
    vsock::close::<On>(&sock);
    sock.fire_close_timer();
    sock.check_idle();
    let conn = conn_of(&sock.lock());
    check(conn.unread() == 0, "a closed socket keeps nothing");
    drop(conn);
    transmit();
    check(sock.references() == 1, "nobody refers to a closed socket");
}

/// All that the user can read.
pub(crate) fn read_all(sock: &VsockSock, len: usize) -> (Vec<u8>, Result) {
    let mut all = Vec::new();
    loop {
        match vsock::recv::<On>(sock, len, false) {
            Ok(bytes) if bytes.is_empty() => return (all, Ok(())),
            Ok(bytes) => all.extend(bytes),
            Err(e) => return (all, Err(e)),
        }
    }
}

/// The next `total` bytes.
pub(crate) fn read_some(sock: &VsockSock, len: usize, total: usize) -> (Vec<u8>, Result) {
    let mut all = Vec::new();
    while all.len() < total {
        match vsock::recv::<On>(sock, len, false) {
            Ok(bytes) => all.extend(bytes),
            Err(e) => return (all, Err(e)),
        }
    }
    (all, Ok(()))
}

/// The peer's count of bytes that were read, and what is left.
pub(crate) fn check_credit(conn: &Conn, bytes: u32) {
    let gate = conn.gate();
    let (used, read) = (gate.rx.used(), gate.rx.peek_stamp().fwd_cnt);
    drop(gate);
    check(used == 0 && read == bytes, "the peer gets its credit back");
}
