// SPDX-License-Identifier: GPL-2.0

//! The transport as the core of AF_VSOCK sees it, and what the core does with it: the functions of
//! `af_vsock.c` that are named, and `kernel_ext::vsock::shim`.

use super::{
    iov::{
        RecvMsg,
        SendMsg, //
    },
    net::Net,
    skb::SkBuff,
    sock::{
        LockedSock,
        Shutdown,
        SockAddr,
        SockState,
        SockType,
        Sockets,
        VsockSock, //
    },
    sock_table::{
        Found,
        Key,
        Membership,
        Scope,
        Table, //
    }, //
};
use crate::{
    kernel::{
        error::{
            Error,
            Result,
            EINTR,
            ENOTCONN, //
        },
        sync::{
            aref::ARef,
            Arc,
            ArcBorrow, //
        }, //
    },
    world::{
        self,
        check,
        Fault,
        Tried, //
    }, //
};
use core::{
    any::TypeId,
    marker::PhantomData, //
};

/// What a transport is for.
pub enum Kind {
    /// The only one here.
    GuestToHost,
}

/// Where a transport is registered: not used, as it is named by its type.
pub struct TransportSlot<T>(PhantomData<fn() -> T>);

/// A registration.
pub struct Registration<T>(PhantomData<T>);

/// See `kernel_ext::vsock`.
#[expect(missing_docs, reason = "they are said there")]
pub trait Transport: Send + Sync + 'static {
    type OwnerModule;
    type Conn: Send + Sync + 'static;
    const KIND: Kind;
    const HAS_HAS_REMOTE_CID: bool;
    fn slot() -> &'static TransportSlot<Self::Conn>;
    fn init(sock: &mut LockedSock) -> Result<Arc<Self::Conn>>;
    fn release(sock: &mut LockedSock);
    fn detach(sock: &mut LockedSock, conn: ArcBorrow<'_, Self::Conn>);
    fn cancel(sock: &mut LockedSock) -> Result;
    fn connect(sock: &mut LockedSock) -> Result;
    fn shutdown(sock: &mut LockedSock, how: Shutdown) -> Result;
    fn stream_dequeue(
        sock: &mut LockedSock,
        msg: &mut RecvMsg<'_>,
        len: usize,
        peek: bool,
    ) -> Result<usize>;
    fn stream_enqueue(sock: &mut LockedSock, msg: &mut SendMsg<'_>, len: usize) -> Result<usize>;
    fn stream_has_data(sock: &mut LockedSock) -> usize;
    fn stream_has_space(sock: &mut LockedSock) -> usize;
    fn send_begins(sock: &mut LockedSock);
    fn seqpacket_dequeue(sock: &mut LockedSock, msg: &mut RecvMsg<'_>, peek: bool)
        -> Result<usize>;
    fn seqpacket_enqueue(sock: &mut LockedSock, msg: &mut SendMsg<'_>, len: usize)
        -> Result<usize>;
    fn seqpacket_has_data(sock: &mut LockedSock) -> u32;
    fn read_skb(sock: &mut LockedSock) -> Result<SkBuff<()>>;
    fn stream_allow(sock: &VsockSock, addr: SockAddr) -> bool;
    fn seqpacket_allow(sock: &VsockSock, cid: u32) -> bool;
    fn buffer_size_changed(sock: &mut LockedSock, size: &mut u64);
    fn rcvlowat_changed(sock: &mut LockedSock, lowat: usize) -> Result;
    fn unsent_bytes(conn: ArcBorrow<'_, Self::Conn>) -> usize;
    fn local_cid() -> u32;
    fn has_remote_cid(sock: &VsockSock, cid: u32) -> bool;
}

impl LockedSock {
    /// The state that the transport has for the socket.
    pub fn conn<T: Transport>(&self) -> Option<ArcBorrow<'_, T::Conn>> {
        let trans = self.fields().trans.clone();
        let (_, conn) = trans.filter(|(id, _)| *id == TypeId::of::<T>())?;
        Some(ArcBorrow::new(conn.downcast().ok()?))
    }
}

/// See `kernel_ext::vsock`.
pub fn with_connection<T: Transport, R>(
    key: Key,
    _net: Option<&Net>,
    f: impl FnOnce(Found<'_, T::Conn>) -> R,
) -> Option<R> {
    let (sock, conn) = world::the::<Table>().find(TypeId::of::<T>(), key)?;
    Some(f(Found {
        sock: &sock,
        conn: ArcBorrow::new(conn),
    }))
}

/// As above.
pub fn join<T: Transport>(
    sock: &VsockSock,
    conn: Arc<T::Conn>,
    key: Key,
    _most: u32,
    is_live: impl FnMut(&T::Conn) -> bool,
) -> Result<Membership<T::Conn>> {
    let table = world::the::<Table>();
    table.insert(TypeId::of::<T>(), key, sock.clone(), conn.0, is_live)
}

/// As above.
pub fn connections<T: Transport>(
    peer: Option<(u32, Scope)>,
) -> impl Iterator<Item = (ARef<VsockSock>, Arc<T::Conn>)> {
    let table = world::the::<Table>();
    let members = table.members(TypeId::of::<T>(), peer.map(|(cid, _)| cid));
    members
        .into_iter()
        .map(|(sock, conn)| (ARef(sock), Arc(conn)))
}

/// As above.
pub fn find_bound(addr: SockAddr, _net: Option<&Net>) -> Option<ARef<VsockSock>> {
    world::the::<Sockets>().find_bound(addr.port).map(ARef)
}

/// As [`world::explore`], and nothing is to be left in the end. `assign` is how a child gets its
/// transport.
pub(crate) fn explore(
    preemptions: Option<usize>,
    fault: Fault,
    assign: fn(&mut LockedSock),
    f: impl Fn() + Send + Sync + 'static,
) -> Tried {
    world::explore(preemptions, fault, move || {
        // So that it is no thread's to make.
        let (sockets, table) = (world::the::<Sockets>(), world::the::<Table>());
        sockets.assign.set(Some(assign));
        f();
        check(table.len() == 0, "nobody is left in the table");
        check(sockets.count() == 0, "all sockets are freed");
    })
}

/// `Shim::init`.
pub(crate) fn init<T: Transport>(sock: &mut LockedSock) {
    let conn = T::init(sock).unwrap();
    sock.fields().trans = Some((TypeId::of::<T>(), conn.0));
}

/// `vsock_assign_transport()` of a socket that has one, which ends with `Shim::destruct`: from here
/// on, the module of the transport may go away.
pub(crate) fn leave_transport<T: Transport>(sock: &mut LockedSock) {
    T::release(sock);
    if let Some(timer) = sock.cancel_close() {
        sock.remove_from_tables();
        drop(timer);
    }
    let conn: Option<Arc<T::Conn>> = sock.conn::<T>().map(Into::into);
    if let Some(conn) = conn {
        T::detach(sock, ArcBorrow::new(conn.0));
    }
    let trans = sock.fields().trans.take();
    drop(trans);
    let mut fields = sock.fields();
    fields.done = false;
    fields.state = SockState::Close;
    fields.peer_shutdown = Shutdown::NONE;
}

/// `__vsock_release()`.
pub(crate) fn close<T: Transport>(sock: &VsockSock) {
    let mut locked = sock.lock();
    let has_transport = locked.fields().trans.is_some();
    if has_transport {
        T::release(&mut locked);
    } else {
        world::the::<Sockets>().unbind(sock);
    }
    locked.set_shutdown(Shutdown::BOTH);
    loop {
        let child = locked.fields().accept_queue.pop_front();
        let Some(child) = child else {
            break;
        };
        close::<T>(&child);
    }
}

/// How `connect()` waits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Until it is woken.
    Forever,
    /// A signal comes at any time.
    Signal,
    /// Not at all: `O_NONBLOCK`.
    None,
}

/// `vsock_connect()` of a bound socket that is on the transport.
pub(crate) fn connect<T: Transport>(sock: &VsockSock, to: SockAddr, how: Patience) -> Result {
    let mut locked = sock.lock();
    {
        let mut fields = locked.fields();
        fields.remote = to;
        fields.state = SockState::SynSent;
    }
    T::connect(&mut locked)?;
    locked.fields().err = None;
    if how == Patience::None {
        return Ok(());
    }
    sock.prepare_to_wait();
    loop {
        let (state, err) = (sock.state(), sock.fields().err);
        if matches!(state, SockState::Established | SockState::Closing) || err.is_some() {
            break;
        }
        locked.unlocked(|sock| {
            if how == Patience::Forever {
                sock.schedule();
            }
        });
        if matches!(sock.state(), SockState::Established | SockState::Closing) {
            sock.finish_wait();
            return Ok(());
        }
        if how == Patience::Signal {
            locked.set_state(SockState::Close);
            let _ = T::cancel(&mut locked);
            sock.finish_wait();
            return Err(EINTR);
        }
        sock.prepare_to_wait();
    }
    sock.finish_wait();
    let err = locked.fields().err.take();
    match err {
        Some(err) => {
            locked.set_state(SockState::Close);
            Err(err)
        }
        None => Ok(()),
    }
}

/// `__vsock_connectible_recvmsg()`: 0 bytes are the end.
pub(crate) fn recv<T: Transport>(sock: &VsockSock, len: usize, peek: bool) -> Result<Vec<u8>> {
    let mut locked = sock.lock();
    let (is_on, done) = {
        let fields = locked.fields();
        (fields.trans.is_some(), fields.done)
    };
    if !is_on || sock.state() != SockState::Established {
        return if done { Ok(Vec::new()) } else { Err(ENOTCONN) };
    }
    if sock.shutdown().bits() & 1 != 0 {
        return Ok(Vec::new());
    }
    // vsock_connectible_wait_data()
    let data = loop {
        sock.prepare_to_wait();
        let data = match sock.ty() {
            SockType::Stream => T::stream_has_data(&mut locked),
            SockType::SeqPacket => T::seqpacket_has_data(&mut locked) as usize,
        };
        let is_over = {
            let fields = locked.fields();
            fields.err.is_some()
                || fields.shutdown.bits() & 1 != 0
                || fields.peer_shutdown.bits() & Shutdown::SEND.bits() != 0
        };
        if data != 0 || is_over {
            break data;
        }
        locked.unlocked(VsockSock::schedule);
    };
    sock.finish_wait();
    let mut msg = RecvMsg::new(len);
    if data != 0 {
        match sock.ty() {
            SockType::Stream => {
                let n = T::stream_dequeue(&mut locked, &mut msg, len, peek)?;
                world::check(n == msg.bytes.len(), "as many bytes as were copied");
            }
            SockType::SeqPacket => {
                T::seqpacket_dequeue(&mut locked, &mut msg, peek)?;
            }
        }
    }
    let err = locked.fields().err;
    match err {
        Some(err) if msg.bytes.is_empty() => Err(err),
        _ => Ok(msg.bytes),
    }
}

/// `vsock_poll()` for `POLLOUT`, until there is room (`true`) or will not be: who polls is not
/// woken by what is for readers.
pub(crate) fn poll_out<T: Transport>(sock: &VsockSock) -> Result<bool, Error> {
    let mut locked = sock.lock();
    T::send_begins(&mut locked);
    loop {
        sock.prepare_to_poll_out();
        let (err, shutdown) = {
            let fields = locked.fields();
            (fields.err, fields.peer_shutdown)
        };
        let room = T::stream_has_space(&mut locked) > 0;
        if room || err.is_some() || shutdown.bits() & 1 != 0 {
            sock.finish_wait();
            return err.map_or(Ok(room), Err);
        }
        locked.unlocked(VsockSock::schedule);
    }
}
