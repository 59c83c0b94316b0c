// SPDX-License-Identifier: GPL-2.0

//! By what packets of a peer find a connection, and how long they do.

use crate::{
    carrier::{
        conn_of,
        Carrier,
        Over, //
    },
    conn::Conn,
    convert::sock_addr,
    kinds::Ends, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use kernel_ext::{
    net::Net,
    sock::{
        LockedSock,
        SockAddr,
        VsockSock, //
    },
    sock_table::{
        Found,
        Key, //
    },
    vsock, //
};
use vsock_proto::addr::Cid;

/// By what packets of the peer find a connection.
fn key_of<C: Carrier>(ends: &Ends) -> Key {
    let mut remote = sock_addr(ends.peer);
    remote.cid = C::peer_cid(ends.peer.cid).get();
    let local = SockAddr {
        cid: ends.local_cid.get(),
        port: ends.local_port.get(),
    };
    Key::new(remote, local)
}

/// Whether a connection is between these addresses. One that was found by them may be another one
/// by now: its socket connects to somewhere else.
#[inline]
pub(crate) fn is_between<C: Carrier>(ends: &Ends, src: SockAddr, dst: SockAddr) -> bool {
    ends.peer.port.get() == src.port
        && ends.local_port.get() == dst.port
        && C::peer_cid(ends.peer.cid) == C::peer_cid(Cid::new(src.cid))
}

/// Calls `f` with the connection that a packet from `src` to `dst` is for, if there is one.
///
/// Context: as for [`vsock::with_connection`].
#[inline]
pub(crate) fn with_connection<C: Carrier, R>(
    src: SockAddr,
    dst: SockAddr,
    net: Option<&Net>,
    f: impl FnOnce(Found<'_, Conn>) -> R,
) -> Option<R> {
    let src = SockAddr {
        cid: C::peer_cid(Cid::new(src.cid)).get(),
        ..src
    };
    vsock::with_connection::<Over<C>, R>(Key::new(src, dst), net, f)
}

/// Lets packets of the peer find the connection. Says whether there was another one before between
/// the ports that had a RST for the peer: the peer did not get that, and may not know.
///
/// Context: may sleep.
///
/// # Errors
///
/// `ENOMEM`; `EACCES` if there are [too many](Carrier::most_connections); `EADDRINUSE` if another
/// user has a connection between the same ports, whose packets this one would get.
pub(crate) fn join<C: Carrier>(sock: &VsockSock, conn: &Arc<Conn>) -> Result<bool> {
    let gate = conn.gate();
    let (key, peer) = (key_of::<C>(&gate.ends), gate.ends.peer.cid);
    drop(gate);
    let most = C::most_connections(peer, sock.net());
    let mut had_rst = false;
    let membership = vsock::join::<Over<C>>(sock, conn.clone(), key, most, |other| {
        // A socket that tries again: its packets have one order.
        if core::ptr::eq(other, &**conn) {
            return false;
        }
        let is_live = other.is_live();
        if !is_live {
            had_rst |= other.supersede();
        }
        is_live
    })
    .map_err(|e| match e {
        EDQUOT => {
            C::has_too_many(peer, sock.net());
            EACCES
        }
        e => e,
    })?;
    drop(conn.set_membership(Some(membership)));
    Ok(had_rst)
}

/// Packets do not find the connection any more, and the socket is not one of the core's
/// connections.
pub(crate) fn leave<C: Carrier>(sock: &mut LockedSock) {
    if let Ok(conn) = conn_of::<C>(sock) {
        let left = conn.gate().leave();
        drop(left);
    }
    sock.remove_from_tables();
}

/// Whether packets of the peer find another connection, the next one between the ports.
pub(crate) fn is_replaced<C: Carrier>(sock: &VsockSock, conn: &Conn) -> bool {
    let gate = conn.gate();
    let (is_member, key) = (gate.is_member(), key_of::<C>(&gate.ends));
    drop(gate);
    // It may have left just now, and be found still.
    let is_other = |found: Found<'_, Conn>| !core::ptr::eq(&*found.conn, conn);
    !is_member
        && vsock::with_connection::<Over<C>, _>(key, Some(sock.net()), is_other).unwrap_or(false)
}
