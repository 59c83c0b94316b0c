// SPDX-License-Identifier: GPL-2.0

//! Where a connection stands, and what its socket has not been told of it yet.
//!
//! A packet changes the connection at once, under a lock of its own. The socket belongs to whoever
//! has the socket lock, maybe for long: it is told later, by what is kept here as [`News`]. What
//! happens meanwhile is merged; there is never more to tell than one [`News`] holds.
//!
//! ```
//! use vsock_proto::{conn::{receive, State}, header::Op, link::{End, Link}};
//!
//! let mut link = Link::<i32>::new();
//! link.begin(State::Connecting);
//! for op in [Op::Response, Op::Rst] {
//!     let reaction = receive(link.state(), op, 0, &link.local(false));
//!     link.apply(&reaction, |_| 0);
//! }
//! // The owner of the socket had it for all of that time.
//! let news = link.take_news();
//! assert!(news.connected && news.end == Some(End::Closed));
//! assert!(link.take_news().is_empty());
//! ```

use crate::{
    conn::{
        ConnectError,
        Local,
        Reaction,
        State, //
    },
    header::ShutdownFlags, //
};

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End<E> {
    /// The peer is gone, as the socket layer knows it: what was received may be read.
    Closed,
    /// The peer refused it, or answered with nonsense: the user gets the error.
    Failed(E),
    /// It was lost, maybe before it came about: the user gets the error.
    Lost(E),
}

/// What the socket has not been told of yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct News<E> {
    /// `connect()` succeeded.
    pub connected: bool,
    /// The peer shut down something; all of it is [`Link::peer_shutdown`].
    pub shutdown: bool,
    /// The end of the connection.
    pub end: Option<End<E>>,
    /// How often something came that may be read, for another part of the kernel that took the
    /// socket over.
    pub readable: u32,
    /// The CID of this side is another one now.
    pub local_cid: bool,
}

impl<E> News<E> {
    /// Nothing.
    pub const NONE: Self = Self {
        connected: false,
        shutdown: false,
        end: None,
        readable: 0,
        local_cid: false,
    };

    /// Whether there is nothing to tell.
    #[inline]
    pub fn is_empty(&self) -> bool {
        !(self.connected || self.shutdown || self.local_cid)
            && self.readable == 0
            && self.end.is_none()
    }
}

/// What is left to do after a [`Reaction`] was applied.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rest {
    /// Packets find the connection no more: the next one may have the same addresses.
    pub leave: bool,
    /// The peer gets a RST; `Some(true)` if that is a reply to its packet.
    pub reset: Option<bool>,
}

/// The state of a connection. A socket has one; it may have several connections, one after the
/// other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link<E> {
    state: State,
    done: bool,
    peer_shutdown: ShutdownFlags,
    news: News<E>,
}

impl<E: Copy> Default for Link<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E: Copy> Link<E> {
    /// That of a socket that never had a connection.
    pub const fn new() -> Self {
        Self {
            state: State::Closed,
            done: false,
            peer_shutdown: ShutdownFlags::NONE,
            news: News::NONE,
        }
    }

    /// A connection begins.
    pub fn begin(&mut self, state: State) {
        *self = Self {
            state,
            ..Self::new()
        };
    }

    /// The state.
    #[inline]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Whether the connection is over, see [`Local::done`].
    #[inline]
    pub const fn is_done(&self) -> bool {
        self.done
    }

    /// Whether data comes and goes.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.state == State::Established && !self.done
    }

    /// What the peer shut down so far.
    #[inline]
    pub const fn peer_shutdown(&self) -> ShutdownFlags {
        self.peer_shutdown
    }

    /// What the protocol has to know of the connection.
    #[inline]
    pub fn local(&self, unread: bool) -> Local {
        Local {
            done: self.done,
            unread,
            peer_shutdown: self.peer_shutdown,
        }
    }

    /// Does what a packet brought about. Reactions that do not change the state are left alone.
    pub fn apply(&mut self, reaction: &Reaction, error: impl FnOnce(ConnectError) -> E) -> Rest {
        match *reaction {
            Reaction::Established => {
                self.state = State::Established;
                self.news.connected = true;
                Rest::default()
            }
            Reaction::Fail {
                reset_peer,
                error: why,
            } => {
                self.state = State::Closed;
                self.news.end = Some(End::Failed(error(why)));
                Rest {
                    leave: true,
                    reset: reset_peer.then_some(true),
                }
            }
            Reaction::PeerShutdown {
                flags,
                leave_tables,
                reset_and_close,
                notify,
            } => {
                self.news.shutdown |= notify;
                self.peer_shutdown = flags;
                if reset_and_close {
                    self.end(End::Closed);
                }
                Rest {
                    leave: leave_tables,
                    reset: reset_and_close.then_some(false),
                }
            }
            Reaction::Close => Rest {
                leave: self.end(End::Closed),
                reset: None,
            },
            Reaction::Accept
            | Reaction::ResetPeer
            | Reaction::Deliver
            | Reaction::AnswerCredit
            | Reaction::Ignore => Rest::default(),
        }
    }

    /// Ends the connection, or the attempt to make one, and says whether there was any.
    pub fn end(&mut self, how: End<E>) -> bool {
        match self.state {
            _ if self.done => return false,
            State::Listen | State::Closed => return false,
            // The socket may try again.
            State::Connecting => self.state = State::Closed,
            State::Established | State::Closing => self.done = true,
        }
        self.news.end = Some(how);
        true
    }

    /// The user gave the connection up: nobody is to be told of anything. Says whether there was
    /// one.
    pub fn give_up(&mut self, state: State) -> bool {
        let was_open = self.is_open();
        self.state = state;
        self.news = News::NONE;
        was_open
    }

    /// The socket is released: nothing comes or goes, and nobody is to be told.
    pub fn release(&mut self) {
        self.done = true;
        self.news = News::NONE;
    }

    /// Something came that may be read, see [`News::readable`].
    pub fn note_readable(&mut self) {
        self.news.readable = self.news.readable.saturating_add(1);
    }

    /// Whether something came that may be read, and is to be told, see [`News::readable`].
    #[inline]
    pub fn has_readable(&self) -> bool {
        self.news.readable > 0
    }

    /// See [`News::local_cid`].
    pub fn note_local_cid(&mut self) {
        self.news.local_cid = true;
    }

    /// Whether there is anything to tell.
    #[inline]
    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// What is to be told now, and is not any more.
    pub fn take_news(&mut self) -> News<E> {
        core::mem::replace(&mut self.news, News::NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        conn::receive,
        header::Op, //
    };
    use std::vec::Vec;

    const OPS: [(Op, u32); 8] = [
        (Op::Request, 0),
        (Op::Response, 0),
        (Op::Rst, 0),
        (Op::Shutdown, 1),
        (Op::Shutdown, 2),
        (Op::Shutdown, 3),
        (Op::Rw, 0),
        (Op::CreditUpdate, 0),
    ];

    fn step(link: &mut Link<i32>, (op, flags): (Op, u32), unread: bool) -> Rest {
        let reaction = receive(link.state(), op, flags, &link.local(unread));
        link.apply(&reaction, |why| why as i32)
    }

    /// What a socket looks like after it was told.
    #[derive(Default, PartialEq, Eq, Debug, Clone)]
    struct Socket {
        connected: bool,
        shutdown: u32,
        end: Option<End<i32>>,
    }

    impl Socket {
        fn tell(&mut self, link: &mut Link<i32>) {
            let news = link.take_news();
            self.connected |= news.connected;
            if news.shutdown {
                self.shutdown = link.peer_shutdown().raw();
            }
            if news.end.is_some() {
                assert!(self.end.is_none(), "the end comes once");
                self.end = news.end;
            }
        }
    }

    /// Whether the socket is told of each packet or of all at once makes no difference.
    #[test]
    fn news_that_wait_are_the_same() {
        for state in [State::Connecting, State::Established] {
            for unread in [false, true] {
                for n in 0..OPS.len().pow(4) {
                    let ops: Vec<_> = (0..4)
                        .map(|i| OPS[n / OPS.len().pow(i) % OPS.len()])
                        .collect();
                    let (mut at_once, mut later) = (Link::new(), Link::new());
                    at_once.begin(state);
                    later.begin(state);
                    let (mut a, mut b) = (Socket::default(), Socket::default());
                    for op in ops {
                        let rest = step(&mut at_once, op, unread);
                        assert_eq!(rest, step(&mut later, op, unread));
                        a.tell(&mut at_once);
                    }
                    b.tell(&mut later);
                    assert_eq!(a, b);
                    assert_eq!(at_once, later);
                }
            }
        }
    }

    #[test]
    fn ends_once() {
        let mut link = Link::<i32>::new();
        assert!(!link.end(End::Lost(1)));
        link.begin(State::Established);
        assert!(link.end(End::Lost(1)));
        assert!(!link.end(End::Lost(2)));
        assert!(!link.is_open());
        assert_eq!(link.take_news().end, Some(End::Lost(1)));
        assert!(!link.has_news());
    }

    #[test]
    fn lost_while_connecting_fails() {
        let mut link = Link::<i32>::new();
        link.begin(State::Connecting);
        assert!(link.end(End::Lost(7)));
        assert_eq!(link.state(), State::Closed);
        assert!(!link.is_done());
        assert_eq!(link.take_news().end, Some(End::Lost(7)));
        link.begin(State::Connecting);
        assert_eq!(link.take_news(), News::NONE);
    }

    #[test]
    fn user_gives_up_while_the_answer_waits() {
        let mut link = Link::<i32>::new();
        link.begin(State::Connecting);
        assert_eq!(step(&mut link, (Op::Response, 0), false), Rest::default());
        // The peer has to be told.
        assert!(link.give_up(State::Closed));
        assert!(!link.has_news());
        assert!(!link.give_up(State::Closed));
    }
}
