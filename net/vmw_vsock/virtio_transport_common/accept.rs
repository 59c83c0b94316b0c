// SPDX-License-Identifier: GPL-2.0

//! Connections that come in to a listener.
//!
//! The socket of the connection is made before the listener is locked, and packets find it from
//! then on. It is queued with the listener locked: now if nobody has the listener, else when its
//! owner lets go. The peer is answered only then.

use crate::{
    carrier::{
        conn_of,
        Carrier, //
    },
    close,
    conn::Conn,
    control,
    kinds::Control,
    tables, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use kernel_ext::{
    deferred::Token,
    sock::{
        LockedSock,
        NewChild,
        SockAddr,
        SockState,
        VsockSock, //
    }, //
};
use vsock_proto::{
    conn::State,
    header::Header, //
};

/// Makes a connection between `remote` and `local` to a listener.
///
/// Context: may sleep, but waits for no user.
///
/// # Errors
///
/// The peer is to be refused. It connects again, or gives up.
pub(crate) fn accept<C: Carrier>(
    listener: &VsockSock,
    request: &Header,
    remote: SockAddr,
    local: SockAddr,
) -> Result {
    check(listener)?;
    // Or a peer could have any number of them made for an owner that is stuck.
    if listener.backlog_is_full(most_deferred(listener)) {
        return Err(ENOBUFS);
    }
    let child = NewChild::new(listener)?;
    let mut sock = child.lock();
    sock.set_state(SockState::Established);
    sock.set_addrs(local, remote);
    sock.assign_transport(listener)?;
    // The address of the peer must lead to where the packet came from.
    let conn: Arc<Conn> = conn_of::<C>(&sock)?.into();
    conn.begin(&sock, State::Established);
    // Nobody waits for room yet: the user does not have the socket.
    let _ = conn.gate().peer_update(request).map_err(|_| EPROTO)?;
    // The peer knows that the one before is over: it needs no RST.
    let _ = tables::join::<C>(&sock, &conn)?;
    sock.insert_connected();
    drop(sock);
    if let Ok(Some(mut listener)) = listener.lock_or_defer(&mut None, 0) {
        queue::<C>(&mut listener, child, &conn);
        return Ok(());
    }
    defer::<C>(listener, child).map_err(|(e, child)| {
        give_up::<C>(child);
        e
    })
}

/// How many connections may wait for a listener to be unlocked: as many as it may have in its
/// queue, and one more.
fn most_deferred(listener: &VsockSock) -> usize {
    listener.max_accept_queue().saturating_add(1)
}

/// Leaves a connection in the backlog of its listener.
fn defer<C: Carrier>(listener: &VsockSock, child: NewChild) -> Result<(), (Error, NewChild)> {
    let run = |listener: &mut LockedSock, child: Option<NewChild>| {
        if let Some(child) = child {
            // On its own: the guard of the child is not to be held.
            let conn = conn_of::<C>(&child.lock()).map(Arc::from);
            if let Ok(conn) = conn {
                queue::<C>(listener, child, &conn);
            }
        }
    };
    let token = Token::with_child(run, child)?;
    let mut token = Some(token);
    let ret = listener.lock_or_defer(&mut token, most_deferred(listener));
    let child = token.and_then(Token::into_child);
    match (ret, child) {
        (Ok(Some(mut listener)), Some(child)) => run(&mut listener, Some(child)),
        (Err(e), Some(child)) => return Err((e, child)),
        _ => (),
    }
    Ok(())
}

/// Whether a connection may be queued.
fn check(listener: &VsockSock) -> Result {
    if listener.accept_queue_is_full() {
        return Err(ENOMEM);
    }
    // The queue of a listener that is being closed was emptied for the last time.
    if listener.state() != SockState::Listen || listener.shutdown().is_both() {
        return Err(ESHUTDOWN);
    }
    Ok(())
}

/// Queues a connection with the locked listener, and answers its peer.
fn queue<C: Carrier>(listener: &mut LockedSock, child: NewChild, conn: &Arc<Conn>) {
    if check(listener).is_err() {
        let _ = control::send::<C>(child.sock(), conn, Control::Rst, true);
        give_up::<C>(child);
        return;
    }
    let sock = child.enqueue(listener);
    // The peer connects again, or gives up, if there is no memory for this.
    let _ = control::send::<C>(&sock, conn, Control::Response, true);
    listener.accept_ready();
}

/// Nobody gets the socket: packets do not find it any more.
fn give_up<C: Carrier>(child: NewChild) {
    close::abandon::<C>(&mut child.lock());
}
