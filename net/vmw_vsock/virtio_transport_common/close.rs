// SPDX-License-Identifier: GPL-2.0

//! The end of a connection.

use crate::{
    conn::{
        Conn,
        Control, //
    },
    ops::{
        Carrier,
        Over, //
    },
    orphans::Orphan,
    recv::{
        self,
        proto_shutdown,
        proto_state, //
    },
    send, //
};
use kernel::prelude::*;
use kernel_ext::{
    sock::{
        LockedSock,
        OnCloseTimeout,
        Shutdown,
        SockState, //
    },
    sock_table::Key,
    user::User,
    vsock, //
};
use vsock_proto::{
    addr::Cid,
    conn::CloseAction,
    header::ShutdownFlags, //
};

/// How long a socket that the user closed waits for the RST of its peer, in seconds.
const CLOSE_TIMEOUT: c_ulong = 8;

/// The peer is gone: what was received may still be read, and nothing more is sent.
pub(crate) fn do_close<C: Carrier>(sock: &mut LockedSock<'_>) {
    sock.set_done();
    sock.set_peer_shutdown(Shutdown::BOTH);
    forget_peer::<C>(sock);
    if !recv::has_unread::<C>(sock) {
        sock.set_state(SockState::Closing);
    }
    sock.state_change();

    // The user closed the socket already, and this is what the timer was for.
    if let Some(timer) = sock.cancel_close() {
        remove::<C>(sock);
        // Not the last reference: the caller has one, since the socket is locked.
        drop(timer);
    }
}

/// By what packets of the peer find the socket.
fn key_of<C: Carrier>(sock: &LockedSock<'_>) -> Key {
    let mut remote = sock.remote_addr();
    remote.cid = C::peer_cid(Cid::new(remote.cid)).get();
    Key::new(remote, sock.local_addr())
}

/// Lets packets of the peer find the socket.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn join_tables<C: Carrier>(sock: &mut LockedSock<'_>) -> Result {
    let membership = vsock::join::<Over<C>>(sock, key_of::<C>(sock))?;
    send::conn_of::<C>(sock)?.set_membership(sock, Some(membership));
    Ok(())
}

/// Packets do not find the socket any more: the next connection may have the same addresses.
pub(crate) fn forget_peer<C: Carrier>(sock: &mut LockedSock<'_>) {
    if let Some(conn) = sock.conn::<Over<C>>() {
        conn.set_membership(sock, None);
    }
}

/// As [`forget_peer`], and the socket is not one of the core's connections any more.
pub(crate) fn leave_tables<C: Carrier>(sock: &mut LockedSock<'_>) {
    forget_peer::<C>(sock);
    sock.remove_from_tables();
}

/// Whether packets of the peer find another socket, that of the next connection between the ports.
pub(crate) fn is_replaced<C: Carrier>(sock: &mut LockedSock<'_>) -> bool {
    let conn = sock.conn::<Over<C>>();
    let is_member = conn.is_some_and(|conn| conn.is_member(sock));
    !is_member && vsock::find_connection::<Over<C>>(key_of::<C>(sock), Some(sock.net())).is_some()
}

/// Forgets what nobody will read. The peer does not get its credit back: there is nobody to send to.
pub(crate) fn purge_unread<C: Carrier>(sock: &mut LockedSock<'_>) {
    if let Some(conn) = sock.conn::<Over<C>>() {
        if let Ok(rx) = conn.rx(sock) {
            rx.purge();
        }
    }
}

/// Forgets what nobody will read, and leaves the tables.
fn remove<C: Carrier>(sock: &mut LockedSock<'_>) {
    purge_unread::<C>(sock);
    leave_tables::<C>(sock);
}

/// The user closed the socket, or connects it to somewhere else.
///
/// Context: may sleep for `SO_LINGER`.
pub(crate) fn release<C: Carrier>(sock: &mut LockedSock<'_>) {
    let ctx = recv::local::<C>(sock);
    let state = sock.state();
    let told = proto_shutdown(sock.shutdown());
    match vsock_proto::conn::close(proto_state(state), &ctx, told) {
        CloseAction::RemoveNow => {
            if state == SockState::SynSent {
                // Or they would stay for as long as the peer does not take them.
                let _ = C::cancel(sock);
            }
        }
        CloseAction::ResetAndRemove => {
            // Since the peer has ended the connection, there may be another one between the ports.
            if !is_replaced::<C>(sock) {
                let _ = send::control::<C>(sock, Control::Rst, false);
            }
        }
        CloseAction::ShutdownThenWait { send_shutdown } => {
            if send_shutdown {
                let what = Control::Shutdown(ShutdownFlags::BOTH);
                let _ = send::control::<C>(sock, what, false);
            }
            sock.linger();
            if !sock.is_done() && leave_behind::<C>(sock) {
                purge_unread::<C>(sock);
                sock.schedule_close::<CloseTimer<C>>(CLOSE_TIMEOUT);
                return;
            }
        }
    }
    if sock.send_memory() > 0 {
        leave_behind::<C>(sock);
    }
    sock.set_done();
    remove::<C>(sock);
}

/// Counts a closed socket, and its packets that the peer did not take, as left behind. If its user has
/// too many of these already, its packets are dropped, the peer is to get a RST instead, and the result
/// is false: nobody is to wait for the peer.
fn leave_behind<C: Carrier>(sock: &mut LockedSock<'_>) -> bool {
    let (Ok(conn), Some(orphans)) = (send::conn_of::<C>(sock), C::orphans(sock)) else {
        return true;
    };
    C::reap(false);
    let (user, memory) = (User::of(sock), sock.send_memory());
    let room = conn.set_orphan(sock, || orphans.adopt(user, memory));
    if !room {
        reset_unsent::<C>(sock, &conn, || orphans.adopt_reset(user));
    }
    room
}

/// Drops what the peer did not take, and sends it a RST instead, so that it does not take a part for the
/// whole.
fn reset_unsent<C: Carrier>(
    sock: &mut LockedSock<'_>,
    conn: &Conn,
    adopt: impl FnOnce() -> Option<Orphan>,
) {
    let (asked, answered) = (
        conn.is_queued(Control::Request),
        conn.is_queued(Control::Response),
    );
    let _ = C::cancel(sock);
    // If the connection was over before, the peer has its RST, or that is in the queue, where it stays.
    // If it did not even see that we want to connect, it knows of nothing.
    if asked || sock.is_done() || is_replaced::<C>(sock) || !conn.set_orphan(sock, adopt) {
        return;
    }
    // Without memory for it, the peer learns it when it sends something. As an answer to its REQUEST it
    // counts as a reply, as the one that was dropped did: the peer is held back if it takes none.
    let _ = send::control::<C>(sock, Control::Rst, answered);
}

/// What happens to a closed socket whose peer does not answer.
struct CloseTimer<C: Carrier>(core::marker::PhantomData<C>);

impl<C: Carrier> OnCloseTimeout for CloseTimer<C> {
    fn close_timeout(sock: &mut LockedSock<'_>) {
        if !sock.is_done() {
            let _ = send::control::<C>(sock, Control::Rst, false);
            do_close::<C>(sock);
        }
        remove::<C>(sock);
    }
}
