// SPDX-License-Identifier: GPL-2.0

//! Values that a socket has.

/// `sk_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SockState {
    /// `TCP_LISTEN`.
    Listen,
    /// `TCP_SYN_SENT`.
    SynSent,
    /// `TCP_ESTABLISHED`.
    Established,
    /// `TCP_CLOSING`.
    Closing,
    /// `TCP_CLOSE`.
    Close,
}

/// Type of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SockType {
    /// `SOCK_STREAM`.
    Stream,
    /// `SOCK_SEQPACKET`.
    SeqPacket,
}

/// Directions of a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown(u32);

impl Shutdown {
    /// Neither.
    pub const NONE: Self = Self(0);
    /// `SEND_SHUTDOWN`.
    pub const SEND: Self = Self(2);
    /// Both.
    pub const BOTH: Self = Self(3);

    /// The bits that mean something.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & 3)
    }

    /// The bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether it is both.
    pub fn is_both(self) -> bool {
        self == Self::BOTH
    }
}

/// An address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SockAddr {
    /// Context id.
    pub cid: u32,
    /// Port.
    pub port: u32,
}
