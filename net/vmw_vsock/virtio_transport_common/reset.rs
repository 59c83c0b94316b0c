// SPDX-License-Identifier: GPL-2.0

//! Connections whose peer is gone without a word: the device, or the host, is not there any more.

use crate::{
    close,
    conn::Control,
    ops::{
        Carrier,
        Over, //
    },
    packet::TxPacket,
    send, //
};
use kernel::prelude::*;
use kernel_ext::{
    sock::{
        LockedSock,
        Shutdown,
        SockState, //
    },
    vsock, //
};
use vsock_proto::addr::Cid;

/// Resets the connections of carrier `C` to `peer`, or to anybody, for which `gone` is true; their
/// users get `ECONNRESET`. So do those who are still trying to connect.
///
/// What a user of a `SOCK_STREAM` socket has received can still be read. Connections to other peers are
/// not touched.
///
/// Context: locks sockets, may sleep. Needs no memory.
pub fn reset_connections<C: Carrier>(
    peer: Option<Cid>,
    mut gone: impl FnMut(&LockedSock<'_>) -> bool,
) {
    for sock in vsock::connections::<Over<C>>(peer.map(Cid::get)) {
        let mut sock = sock.lock();
        // It may have changed until it was locked.
        if !sock.is_on::<Over<C>>() || sock.is_done() || !gone(&sock) {
            continue;
        }
        fail::<C>(&mut sock, ECONNRESET);
    }
}

/// Resets the connection of a packet that cannot be sent, and tells the peer. The user gets
/// `ECONNRESET`.
///
/// The packet was [`cut`](TxPacket::cut) before.
///
/// Context: locks the socket, may sleep.
pub fn abort_connection<C: Carrier>(packet: TxPacket) {
    let Some(sock) = packet.sender() else {
        return;
    };
    let mut sock = sock.lock();
    if !sock.is_on::<Over<C>>() || sock.is_done() {
        return;
    }
    // Without memory for it, the peer learns it when it sends something.
    let _ = send::control::<C>(&mut sock, Control::Rst, false);
    fail::<C>(&mut sock, ECONNRESET);
}

/// Ends a connection, or the attempt to make one, with an error. A user of a `SOCK_STREAM` socket gets
/// it after what was received; the core gives it to one of a `SOCK_SEQPACKET` socket instead of each
/// message.
pub(crate) fn fail<C: Carrier>(sock: &mut LockedSock<'_>, err: Error) {
    match sock.state() {
        // It stays established for the core, which would tell a reader of an orderly end otherwise.
        SockState::Established if !sock.close_is_scheduled() => {
            sock.set_done();
            sock.set_peer_shutdown(Shutdown::BOTH);
            close::forget_peer::<C>(sock);
        }
        SockState::Established | SockState::Closing => close::do_close::<C>(sock),
        SockState::SynSent => {
            sock.set_state(SockState::Close);
            close::leave_tables::<C>(sock);
            // Or the next attempt would find its REQUEST sent already, to where this one was for.
            let _ = C::cancel(sock);
        }
        SockState::Listen | SockState::Close => return,
    }
    sock.report_error(err);
}
