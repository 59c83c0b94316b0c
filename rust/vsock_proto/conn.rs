// SPDX-License-Identifier: GPL-2.0

//! The state of a connection, and what a packet does to it.
//!
//! Pure decisions: [`receive`] says what to do with a packet, [`close`] what to do when the socket
//! is released. The caller holds the lock of the socket and has found it by the packet's addresses;
//! it has checked again, under the lock, that the socket is still the one for the packet.
//!
//! A packet that makes no sense is dropped if there is a connection, and answered with a RST if
//! there is none. A RST is never answered.
//!
//! C source: `net/vmw_vsock/virtio_transport_common.c`, `virtio_transport_recv_pkt()` and
//! `virtio_transport_close()`.
//!
//! Specification: virtio 1.3, section 5.10.6.

use crate::header::{
    Op,
    ShutdownFlags, //
};

/// The state of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum State {
    /// It waits for connections.
    #[doc(alias = "TCP_LISTEN")]
    Listen,
    /// It has sent a [`Op::Request`].
    #[doc(alias = "TCP_SYN_SENT")]
    Connecting,
    /// It has a peer.
    #[doc(alias = "TCP_ESTABLISHED")]
    Established,
    /// It is about to lose its peer.
    #[doc(alias = "TCP_CLOSING")]
    Closing,
    /// It has no peer and does not wait for one. Also every other state that a socket may have.
    #[doc(alias = "TCP_CLOSE")]
    Closed,
}

/// What else there is to know about a socket.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Local {
    /// Nothing more is to come or go: a RST came or went, or the socket was released.
    #[doc(alias = "SOCK_DONE")]
    pub done: bool,
    /// There is something that the user has not read yet.
    #[doc(alias = "vsock_stream_has_data")]
    pub unread: bool,
    /// What the peer has shut down so far.
    pub peer_shutdown: ShutdownFlags,
}

/// Why [`State::Connecting`] ended without a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ConnectError {
    /// The peer refused (`ECONNRESET`).
    Reset,
    /// The peer sent something else than an answer (`EPROTO`).
    Protocol,
}

/// What to do with a packet.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reaction {
    /// Make a connected socket and answer with a [`Op::Response`], or with a RST if that fails.
    #[doc(alias = "virtio_transport_recv_listen")]
    Accept,
    /// Answer with the RST of [`Header::reply_rst`](crate::header::Header::reply_rst); the socket
    /// stays as it is. Never said of a RST.
    #[doc(alias = "virtio_transport_reset_no_sock")]
    ResetPeer,
    /// The socket is [`State::Established`] now.
    Established,
    /// The socket is [`State::Closed`] now, and `connect()` fails.
    Fail {
        /// Send a RST to the peer.
        reset_peer: bool,
        /// Why.
        error: ConnectError,
    },
    /// Put the payload into the receive queue.
    #[doc(alias = "virtio_transport_recv_enqueue")]
    Deliver,
    /// Send a [`Op::CreditUpdate`].
    AnswerCredit,
    /// The peer has shut down something.
    PeerShutdown {
        /// All that the peer has shut down so far, to be remembered.
        flags: ShutdownFlags,
        /// Take the socket out of the tables: a new connection may have the same addresses.
        leave_tables: bool,
        /// First, send a RST and do as for [`Reaction::Close`]: there is nothing left to read.
        reset_and_close: bool,
        /// Wake up who waits for a change of state.
        notify: bool,
    },
    /// The connection is gone: mark it as done and as shut down by the peer. It is
    /// [`State::Closing`] now, unless there is something left to read.
    #[doc(alias = "virtio_transport_do_close")]
    Close,
    /// Drop the packet. (The credit was taken from it already, and a writer woken that waited for
    /// it.)
    Ignore,
}

/// Decides what to do with a packet with the given `op` and `flags` for a socket.
///
/// Before that, the credit in the packet is to be taken
/// ([`TxCredit::peer_update`](crate::credit::TxCredit::peer_update)), unless the socket is a
/// listener or done.
#[doc(alias = "virtio_transport_recv_pkt")]
#[inline]
pub fn receive(state: State, op: Op, flags: u32, ctx: &Local) -> Reaction {
    // A socket that is done has no peer any more, whatever its state says.
    let state = if ctx.done { State::Closed } else { state };

    match (state, op) {
        (State::Listen, Op::Request) => Reaction::Accept,
        (
            State::Listen,
            Op::Invalid
            | Op::Response
            | Op::Shutdown
            | Op::Rw
            | Op::CreditUpdate
            | Op::CreditRequest
            | Op::Unknown(_),
        ) => Reaction::ResetPeer,

        (State::Connecting, Op::Response) => Reaction::Established,
        (State::Connecting, Op::Invalid) => Reaction::Ignore,
        (State::Connecting, Op::Rst) => Reaction::Fail {
            reset_peer: false,
            error: ConnectError::Reset,
        },
        (
            State::Connecting,
            Op::Request
            | Op::Shutdown
            | Op::Rw
            | Op::CreditUpdate
            | Op::CreditRequest
            | Op::Unknown(_),
        ) => Reaction::Fail {
            reset_peer: true,
            error: ConnectError::Protocol,
        },

        (State::Established, Op::Rw) => Reaction::Deliver,
        (State::Established, Op::CreditRequest) => Reaction::AnswerCredit,
        (State::Established, Op::Shutdown) => peer_shutdown(flags, ctx),
        (
            State::Established,
            Op::Invalid | Op::Request | Op::Response | Op::CreditUpdate | Op::Unknown(_),
        ) => Reaction::Ignore,

        (State::Established | State::Closing, Op::Rst) => Reaction::Close,
        (
            State::Closing,
            Op::Invalid
            | Op::Request
            | Op::Response
            | Op::Shutdown
            | Op::Rw
            | Op::CreditUpdate
            | Op::CreditRequest
            | Op::Unknown(_),
        ) => Reaction::Ignore,

        (State::Listen | State::Closed, Op::Rst) => Reaction::Ignore,
        (
            State::Closed,
            Op::Invalid
            | Op::Request
            | Op::Response
            | Op::Shutdown
            | Op::Rw
            | Op::CreditUpdate
            | Op::CreditRequest
            | Op::Unknown(_),
        ) => Reaction::ResetPeer,
    }
}

/// What a [`Op::Shutdown`] does to a connection.
#[inline]
fn peer_shutdown(flags: u32, ctx: &Local) -> Reaction {
    let all = ctx.peer_shutdown.union(ShutdownFlags::from_wire(flags));

    Reaction::PeerShutdown {
        flags: all,
        leave_tables: all.is_both(),
        reset_and_close: all.is_both() && !ctx.unread,
        // Like the C code: also for bits that have no meaning. Who is woken up looks for himself.
        notify: flags != 0,
    }
}

/// What to do when a socket is released.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CloseAction {
    /// Mark it as done and take it out of the tables.
    RemoveNow,
    /// Send a RST, then as for [`CloseAction::RemoveNow`].
    ResetAndRemove,
    /// Give the peer time to read what is under way.
    ///
    /// Linger, if the socket is to. If it is done then, [`CloseAction::RemoveNow`]; else wait for
    /// the peer's RST with a time-out, at which a RST is sent and the socket is closed as for
    /// [`Reaction::Close`].
    ShutdownThenWait {
        /// First, send a [`Op::Shutdown`] of [`ShutdownFlags::BOTH`].
        send_shutdown: bool,
    },
}

/// Decides what to do with a socket that is released.
///
/// `own_shutdown` is what we have shut down, and told the peer, so far.
///
/// There is one difference from the C code: it sends a second RST for a connection that is done,
/// which might hit the next connection with the same addresses.
#[doc(alias = "virtio_transport_close")]
#[inline]
pub fn close(state: State, ctx: &Local, own_shutdown: ShutdownFlags) -> CloseAction {
    match state {
        State::Listen | State::Connecting | State::Closed => CloseAction::RemoveNow,
        State::Established | State::Closing => {
            if ctx.done {
                CloseAction::RemoveNow
            } else if ctx.peer_shutdown.is_both() {
                CloseAction::ResetAndRemove
            } else {
                CloseAction::ShutdownThenWait {
                    send_shutdown: !own_shutdown.is_both(),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const STATES: [State; 5] = [
        State::Listen,
        State::Connecting,
        State::Established,
        State::Closing,
        State::Closed,
    ];

    /// One letter for each reaction, as in the table below.
    const RESET_PEER: char = 'R';
    const ACCEPT: char = 'A';
    const ESTABLISHED: char = 'E';
    const FAIL_RESET: char = 'f';
    const FAIL_PROTOCOL: char = 'F';
    const DELIVER: char = 'D';
    const ANSWER_CREDIT: char = 'Q';
    const PEER_SHUTDOWN: char = 'S';
    const CLOSE: char = 'C';
    const IGNORE: char = '.';

    /// What a state (line, in the order of `STATES`) makes of an operation (column, by number).
    ///
    /// The last column is for all the numbers without a meaning.
    const TABLE: [[char; 9]; 5] = [
        // INVALID  RST  RW    CREDIT_REQUEST
        //   | REQUEST| SHUTDOWN | others
        //   |   |   RESPONSE   CREDIT_UPDATE
        ['R', 'A', 'R', '.', 'R', 'R', 'R', 'R', 'R'],
        ['.', 'F', 'E', 'f', 'F', 'F', 'F', 'F', 'F'],
        ['.', '.', '.', 'C', 'S', 'D', '.', 'Q', '.'],
        ['.', '.', '.', 'C', '.', '.', '.', '.', '.'],
        ['R', 'R', 'R', '.', 'R', 'R', 'R', 'R', 'R'],
    ];

    /// As above, if the socket is done, in any state.
    const TABLE_DONE: [char; 9] = ['R', 'R', 'R', '.', 'R', 'R', 'R', 'R', 'R'];

    /// What the peer has shut down after (columns: the lowest two bits of the flags) what it had
    /// shut down before (lines).
    const SHUTDOWN: [[u32; 4]; 4] = [[0, 1, 2, 3], [1, 1, 3, 3], [2, 3, 2, 3], [3, 3, 3, 3]];

    fn letter(reaction: Reaction) -> char {
        match reaction {
            Reaction::Accept => ACCEPT,
            Reaction::ResetPeer => RESET_PEER,
            Reaction::Established => ESTABLISHED,
            Reaction::Fail {
                reset_peer: false,
                error: ConnectError::Reset,
            } => FAIL_RESET,
            Reaction::Fail {
                reset_peer: true,
                error: ConnectError::Protocol,
            } => FAIL_PROTOCOL,
            Reaction::Fail { .. } => '?',
            Reaction::Deliver => DELIVER,
            Reaction::AnswerCredit => ANSWER_CREDIT,
            Reaction::PeerShutdown { .. } => PEER_SHUTDOWN,
            Reaction::Close => CLOSE,
            Reaction::Ignore => IGNORE,
        }
    }

    /// Whether the peer gets a RST.
    fn sends_rst(reaction: Reaction) -> bool {
        match reaction {
            Reaction::ResetPeer => true,
            Reaction::Fail { reset_peer, .. } => reset_peer,
            Reaction::PeerShutdown {
                reset_and_close, ..
            } => reset_and_close,
            Reaction::Accept
            | Reaction::Established
            | Reaction::Deliver
            | Reaction::AnswerCredit
            | Reaction::Close
            | Reaction::Ignore => false,
        }
    }

    fn contexts() -> Vec<Local> {
        let mut all = Vec::new();
        for done in [false, true] {
            for unread in [false, true] {
                for peer in 0..4 {
                    all.push(Local {
                        done,
                        unread,
                        peer_shutdown: ShutdownFlags::from_wire(peer),
                    });
                }
            }
        }
        all
    }

    fn flag_words() -> impl Iterator<Item = u32> {
        (0..=8).chain([1 << 31, !3, !2, !1, !0])
    }

    #[test]
    fn every_packet_in_every_state() {
        for (line, state) in STATES.into_iter().enumerate() {
            for ctx in contexts() {
                for raw in 0..=u16::MAX {
                    let column = usize::from(raw.min(8));
                    let expected = if ctx.done {
                        TABLE_DONE[column]
                    } else {
                        TABLE[line][column]
                    };
                    for flags in flag_words() {
                        let reaction = receive(state, Op::from(raw), flags, &ctx);
                        assert_eq!(
                            letter(reaction),
                            expected,
                            "{state:?}, op {raw}, flags {flags:#x}, {ctx:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn every_shutdown() {
        for ctx in contexts().into_iter().filter(|ctx| !ctx.done) {
            for flags in flag_words() {
                let low = usize::try_from(flags & 3).unwrap();
                let before = usize::try_from(ctx.peer_shutdown.raw()).unwrap();
                let after = SHUTDOWN[before][low];

                assert_eq!(
                    receive(State::Established, Op::Shutdown, flags, &ctx),
                    Reaction::PeerShutdown {
                        flags: ShutdownFlags::from_wire(after),
                        leave_tables: after == 3,
                        reset_and_close: after == 3 && !ctx.unread,
                        notify: flags > 0,
                    },
                    "flags {flags:#x}, {ctx:?}"
                );
            }
        }
    }

    #[test]
    fn rst_is_never_answered_by_rst() {
        for state in STATES {
            for ctx in contexts() {
                for flags in flag_words() {
                    assert!(!sends_rst(receive(state, Op::Rst, flags, &ctx)));
                }
            }
        }
    }

    #[test]
    fn connected_only_by_request_or_response() {
        for state in STATES {
            for ctx in contexts() {
                for raw in 0..=u16::MAX {
                    match receive(state, Op::from(raw), 3, &ctx) {
                        Reaction::Accept => assert_eq!((state, raw), (State::Listen, 1)),
                        Reaction::Established => assert_eq!((state, raw), (State::Connecting, 2)),
                        _ => continue,
                    }
                    assert!(!ctx.done);
                }
            }
        }
    }

    #[test]
    fn data_and_credit_only_while_connected() {
        for state in STATES {
            for ctx in contexts() {
                for op in 0..=u16::MAX {
                    let reaction = receive(state, Op::from(op), 0, &ctx);
                    if matches!(reaction, Reaction::Deliver | Reaction::AnswerCredit) {
                        assert_eq!(state, State::Established);
                        assert!(!ctx.done);
                    }
                }
            }
        }
    }

    #[test]
    fn every_close() {
        for state in STATES {
            for ctx in contexts() {
                for own in 0..4 {
                    let connected = state == State::Established || state == State::Closing;
                    let expected = if !connected || ctx.done {
                        CloseAction::RemoveNow
                    } else if ctx.peer_shutdown.raw() == 3 {
                        CloseAction::ResetAndRemove
                    } else {
                        CloseAction::ShutdownThenWait {
                            send_shutdown: own != 3,
                        }
                    };
                    assert_eq!(
                        close(state, &ctx, ShutdownFlags::from_wire(own)),
                        expected,
                        "{state:?}, {ctx:?}, own {own}"
                    );
                }
            }
        }
    }
}
