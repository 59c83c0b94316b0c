// SPDX-License-Identifier: GPL-2.0

//! The end of a connection, and what its socket is told of it.
//!
//! A connection ends at once, whatever its socket is doing: its link is
//! [ended](vsock_proto::link::Link::end) with the gate shut, packets do not find it any more. The
//! socket learns it by [`settle`], which waits for nobody.

use crate::{
    carrier::{
        conn_of,
        Carrier,
        Over, //
    },
    conn::{
        Conn,
        Gate, //
    },
    control,
    convert::{
        sock_shutdown,
        wire_shutdown, //
    },
    kinds::Control,
    orphans::Orphan,
    packet::TxPacket,
    tables, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use kernel_ext::{
    deferred::Token,
    lock::SpinLockBhGuard,
    net::Net,
    sock::{
        LockedSock,
        OnCloseTimeout,
        Shutdown,
        SockState,
        VsockSock, //
    },
    sock_table::Scope,
    user::User,
    vsock, //
};
use vsock_proto::{
    addr::Cid,
    conn::{
        CloseAction,
        State, //
    },
    header::ShutdownFlags,
    link::End, //
};

/// How long a socket that the user closed waits for the RST of its peer, in seconds.
const CLOSE_TIMEOUT: c_ulong = 8;

/// Tells a socket what happened to its connection: now if nobody has the socket, else when its
/// owner lets go.
///
/// Context: may sleep, but waits for no user and no peer. The gate is open.
#[inline]
pub(crate) fn settle<C: Carrier>(sock: &VsockSock, conn: &Conn) {
    settle_behind::<C>(sock, conn, conn.gate());
}

/// As [`settle`], of who has shut the gate already.
pub(crate) fn settle_behind<'a, C: Carrier>(
    sock: &VsockSock,
    conn: &'a Conn,
    mut gate: SpinLockBhGuard<'a, Gate>,
) {
    let mut token = None;
    loop {
        // If the socket is on its way to another transport, it has no use for this.
        if !gate.attached || !gate.link.has_news() || gate.deferred {
            return;
        }
        match sock.lock_or_defer(&mut token, usize::MAX) {
            Ok(Some(mut locked)) => {
                // It is still attached: this is the connection of the socket.
                tell_behind::<C>(&mut locked, conn, gate);
                return;
            }
            Ok(None) => {
                gate.deferred = true;
                return;
            }
            Err(_) => drop(gate),
        }
        // INVARIANT: As the connection is attached, the socket has the module until the backlog was
        // run: see `detach()`.
        token = Some(Token::new_no_fail(|sock, _| {
            if let Ok(conn) = conn_of::<C>(sock) {
                conn.gate().deferred = false;
            }
            tell::<C>(sock);
        }));
        gate = conn.gate();
    }
}

/// Tells a locked socket what happened to its connection.
///
/// Context: may sleep.
pub(crate) fn tell<C: Carrier>(sock: &mut LockedSock) {
    if let Ok(conn) = conn_of::<C>(sock).map(Arc::<Conn>::from) {
        tell_behind::<C>(sock, &conn, conn.gate());
    }
}

/// As [`tell`], of who has shut the gate of the socket's connection already.
fn tell_behind<C: Carrier>(
    sock: &mut LockedSock,
    conn: &Conn,
    mut gate: SpinLockBhGuard<'_, Gate>,
) {
    let news = gate.link.take_news();
    let (how, local_cid) = (gate.link.peer_shutdown(), gate.ends.local_cid);
    drop(gate);

    if news.local_cid {
        sock.set_local_cid(local_cid.get());
    }
    // Unless the user gave up just now.
    if news.connected && sock.state() == SockState::SynSent {
        sock.set_connected();
        sock.insert_connected();
        sock.state_change();
    }
    if news.shutdown {
        sock.set_peer_shutdown(sock_shutdown(how));
        if how.is_both() && news.end.is_none() {
            sock.remove_from_tables();
        }
        sock.state_change();
    }
    match news.end {
        Some(End::Closed) => do_close(sock, conn),
        Some(End::Failed(err)) => fail::<C>(sock, err),
        Some(End::Lost(err)) => lose::<C>(sock, conn, err),
        None => (),
    }
    if news.readable == 0 {
        return;
    }
    conn.gate().telling = true;
    // A BPF sockmap takes one buffer for each call.
    for _ in 0..news.readable {
        if conn.unread() == 0 {
            break;
        }
        sock.data_ready();
    }
    conn.gate().telling = false;
}

/// Lets another part of the kernel that took the socket over, such as a BPF sockmap, have what came
/// while its user has the socket: nothing of it is the user's before.
///
/// Context: may sleep; the caller may have said to the scheduler that it is about to, and looks
/// again.
#[inline]
pub(crate) fn offer_first<C: Carrier>(sock: &mut LockedSock) {
    if sock.has_user_data() {
        offer_taken_over::<C>(sock);
    }
}

#[cold]
fn offer_taken_over<C: Carrier>(sock: &mut LockedSock) {
    let Ok(conn) = conn_of::<C>(sock) else {
        return;
    };
    let gate = conn.gate();
    let is_due = gate.link.has_readable() && !gate.telling;
    drop(gate);
    if is_due {
        sock.stay_awake();
        tell::<C>(sock);
    }
}

/// The peer is gone: what was received may still be read, and nothing more is sent.
fn do_close(sock: &mut LockedSock, conn: &Conn) {
    sock.set_done();
    sock.set_peer_shutdown(Shutdown::BOTH);
    if conn.unread() == 0 {
        sock.set_state(SockState::Closing);
    }
    sock.state_change();

    // The user closed the socket already, and this is what the timer was for.
    if let Some(timer) = sock.cancel_close() {
        remove(sock, conn);
        // Not the last reference: the caller has one, since the socket is locked.
        drop(timer);
    }
}

/// The attempt to connect failed.
fn fail<C: Carrier>(sock: &mut LockedSock, err: Error) {
    if sock.state() != SockState::SynSent {
        return;
    }
    // Or the next attempt would find its REQUEST sent already, to where this one was for.
    let _ = C::cancel(sock);
    sock.set_state(SockState::Close);
    sock.remove_from_tables();
    sock.report_error(err);
}

/// The connection was lost. A user of a `SOCK_STREAM` socket gets the error after what was
/// received; the core gives it to one of a `SOCK_SEQPACKET` socket instead of each message.
fn lose<C: Carrier>(sock: &mut LockedSock, conn: &Conn, err: Error) {
    if sock.state() == SockState::SynSent {
        fail::<C>(sock, err);
        return;
    }
    if sock.state() == SockState::Established && !sock.close_is_scheduled() {
        // It stays established for the core, which would tell a reader of an orderly end otherwise.
        sock.set_done();
        sock.set_peer_shutdown(Shutdown::BOTH);
    } else {
        do_close(sock, conn);
    }
    sock.report_error(err);
}

/// Ends a connection, or the attempt to make one, with an error for its user. With `reset` the peer
/// is told.
///
/// Context: may sleep, but waits for no user and no peer. The gate is open; the socket may be
/// locked.
pub(crate) fn end<C: Carrier>(sock: &VsockSock, conn: &Arc<Conn>, err: Error, reset: bool) {
    let mut gate = conn.gate();
    if !gate.link.end(End::Lost(err)) {
        return;
    }
    conn.cut();
    let rst = if reset {
        gate.queue_control(Control::Rst)
    } else {
        None
    };
    let left = gate.leave();
    drop(gate);
    if let Some(ends) = rst {
        // Without memory for it, the peer learns it when it sends something.
        let _ = control::send_rst::<C>(sock, conn, ends, true);
    }
    drop(left);
    settle::<C>(sock, conn);
}

/// Whose connections are void.
#[derive(Clone, Copy)]
pub enum Peers<'a> {
    /// Those with a CID, of sockets in the namespaces that this one stands for.
    One(Cid, &'a Net),
    /// All.
    All,
}

/// What [`reset_connections`] tells of a connection.
pub struct Candidate<'a> {
    /// The CID of the peer.
    pub peer: Cid,
    /// The CID by which the socket knows this side, maybe [`Cid::ANY`].
    pub local: Cid,
    /// The namespace of the socket.
    pub net: &'a Net,
}

/// Resets the connections of carrier `C` for which `gone` is true. Their users get `ECONNRESET`,
/// and so do those that still try to connect.
///
/// What a user of a `SOCK_STREAM` socket has received can still be read. Connections to other peers
/// are not touched.
///
/// Context: may sleep, but waits for no user: it ends in a time that depends on how many
/// connections there are only.
pub fn reset_connections<C: Carrier>(
    peers: Peers<'_>,
    mut gone: impl FnMut(&Candidate<'_>) -> bool,
) {
    let peer = match peers {
        Peers::One(cid, net) => Some((cid.get(), Scope::of(net))),
        Peers::All => None,
    };
    for (sock, conn) in vsock::connections::<Over<C>>(peer) {
        let ends = conn.gate().ends;
        let candidate = Candidate {
            peer: ends.peer.cid,
            local: ends.local_cid,
            net: sock.net(),
        };
        if gone(&candidate) {
            end::<C>(&sock, &conn, ECONNRESET, false);
        }
    }
}

/// Resets the connection of a packet that cannot be sent, and tells the peer. The user gets
/// `ECONNRESET`.
///
/// The packet was [`cut`](TxPacket::cut) before.
///
/// Context: as for [`reset_connections`].
pub fn abort_connection<C: Carrier>(packet: TxPacket) {
    if let (Some(sock), Some(conn)) = (packet.sender(), packet.conn()) {
        end::<C>(&sock, conn, ECONNRESET, true);
    }
}

/// Forgets what nobody will read, and leaves the tables.
fn remove(sock: &mut LockedSock, conn: &Conn) {
    conn.remove();
    sock.remove_from_tables();
}

/// A connection that no user has is over, and its peer is told elsewhere.
pub(crate) fn abandon<C: Carrier>(sock: &mut LockedSock) {
    let Ok(conn) = conn_of::<C>(sock).map(Arc::from) else {
        return;
    };
    sock.set_done();
    remove(sock, &conn);
}

/// The core gives up to connect, or what was to be sent.
pub(crate) fn cancel<C: Carrier>(sock: &mut LockedSock) -> Result {
    if sock.state() != SockState::Established {
        let conn: Arc<Conn> = conn_of::<C>(sock)?.into();
        let state = match sock.state() {
            SockState::Closing => State::Closing,
            _ => State::Closed,
        };
        give_up::<C>(sock, &conn, state);
        tables::leave::<C>(sock);
    }
    C::cancel(sock)
}

/// The user gives up the attempt to connect. The peer may have answered just now, and nobody was
/// told: it gets a RST.
fn give_up<C: Carrier>(sock: &VsockSock, conn: &Arc<Conn>, state: State) {
    let answered = conn.gate().link.give_up(state);
    if answered {
        let _ = control::send::<C>(sock, conn, Control::Rst, false);
    }
}

/// The user closed the socket, or connects it to somewhere else.
///
/// Context: may sleep for `SO_LINGER`.
pub(crate) fn release<C: Carrier>(sock: &mut LockedSock) {
    let Ok(conn) = conn_of::<C>(sock).map(Arc::<Conn>::from) else {
        return;
    };
    let mut gate = conn.gate();
    if gate.link.has_news() {
        tell_behind::<C>(sock, &conn, gate);
        gate = conn.gate();
    }
    let (state, ctx) = (gate.link.state(), gate.local());
    drop(gate);
    match vsock_proto::conn::close(state, &ctx, wire_shutdown(sock.shutdown())) {
        CloseAction::RemoveNow => {
            if state == State::Connecting {
                // Or they would stay for as long as the peer does not take them.
                let _ = C::cancel(sock);
                give_up::<C>(sock, &conn, State::Closed);
            }
        }
        CloseAction::ResetAndRemove => {
            // Since the peer has ended the connection, there may be another one between the ports.
            if !tables::is_replaced::<C>(sock, &conn) {
                let _ = control::send::<C>(sock, &conn, Control::Rst, false);
            }
        }
        CloseAction::ShutdownThenWait { send_shutdown } => {
            if send_shutdown {
                shut_down::<C>(sock, &conn);
            }
            sock.linger();
            if !conn.is_done() && leave_behind::<C>(sock, &conn) {
                conn.discard();
                sock.schedule_close::<CloseTimer<C>>(CLOSE_TIMEOUT);
                return;
            }
        }
    }
    if sock.send_memory() > 0 {
        leave_behind::<C>(sock, &conn);
    }
    sock.set_done();
    remove(sock, &conn);
}

/// Tells the peer that the user closed the socket. If the peer answers at once, the socket is told
/// of that here, not by way of its backlog.
fn shut_down<C: Carrier>(sock: &mut LockedSock, conn: &Arc<Conn>) {
    let what = Control::Shutdown(ShutdownFlags::BOTH);
    if !C::IS_DIRECT {
        let _ = control::send::<C>(sock, conn, what, false);
        return;
    }
    let has_token = core::mem::replace(&mut conn.gate().deferred, true);
    let _ = control::send::<C>(sock, conn, what, false);
    conn.gate().deferred = has_token;
    // What came until here was left to us, what comes from here on goes to the backlog.
    tell::<C>(sock);
}

/// The socket gets another transport: what packets and the backlog have of it ends.
pub(crate) fn detach(sock: &mut LockedSock, conn: &Conn) {
    let mut gate = conn.gate();
    gate.link.release();
    gate.attached = false;
    let left = gate.leave();
    drop(gate);
    drop(left);
    sock.flush_backlog();
}

/// Counts a closed socket, and its packets that the peer did not take, as left behind. If its user
/// has too many of these already, its packets are dropped, the peer is to get a RST instead, and
/// the result is false: nobody is to wait for the peer.
fn leave_behind<C: Carrier>(sock: &mut LockedSock, conn: &Arc<Conn>) -> bool {
    let Some(orphans) = C::orphans(sock) else {
        return true;
    };
    C::reap(false);
    let (user, memory) = (User::of(sock), sock.send_memory());
    let room = conn.set_orphan(|| orphans.adopt(user, memory));
    if !room {
        reset_unsent::<C>(sock, conn, || orphans.adopt_reset(user));
    }
    room
}

/// Drops what the peer did not take, and resets the connection instead, if the peer knows of one.
fn reset_unsent<C: Carrier>(
    sock: &mut LockedSock,
    conn: &Arc<Conn>,
    adopt: impl FnOnce() -> Option<Orphan>,
) {
    let (asked, answered) = (
        conn.is_queued(Control::Request),
        conn.is_queued(Control::Response),
    );
    let _ = C::cancel(sock);
    // If the connection was over before, the peer has its RST, or that is in the queue, where it
    // stays. If it did not even see that we want to connect, it knows of nothing.
    if asked || conn.is_done() || tables::is_replaced::<C>(sock, conn) || !conn.set_orphan(adopt) {
        return;
    }
    // Without memory for it, the peer learns it when it sends something. As an answer to its
    // REQUEST it counts as a reply, as the one that was dropped did: the peer is held back if it
    // takes none.
    let _ = control::send::<C>(sock, conn, Control::Rst, answered);
}

/// What happens to a closed socket whose peer does not answer.
struct CloseTimer<C: Carrier>(core::marker::PhantomData<C>);

impl<C: Carrier> OnCloseTimeout for CloseTimer<C> {
    fn close_timeout(sock: &mut LockedSock) {
        let Ok(conn) = conn_of::<C>(sock).map(Arc::from) else {
            return;
        };
        let ended = conn.gate().link.end(End::Closed);
        if ended {
            let _ = control::send::<C>(sock, &conn, Control::Rst, false);
        }
        tell::<C>(sock);
        remove(sock, &conn);
    }
}
