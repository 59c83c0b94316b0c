// SPDX-License-Identifier: GPL-2.0

//! Values that a socket has.

use crate::bindings;
use kernel::prelude::*;

/// `sk_state` of a vsock socket.
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
    /// `TCP_CLOSE`, and whatever a transport never sets.
    Close,
}

impl SockState {
    pub(super) fn from_raw(state: c_int) -> Self {
        match u32::try_from(state).unwrap_or(bindings::TCP_CLOSE) {
            bindings::TCP_LISTEN => Self::Listen,
            bindings::TCP_SYN_SENT => Self::SynSent,
            bindings::TCP_ESTABLISHED => Self::Established,
            bindings::TCP_CLOSING => Self::Closing,
            _ => Self::Close,
        }
    }

    pub(super) fn as_raw(self) -> c_int {
        (match self {
            Self::Listen => bindings::TCP_LISTEN,
            Self::SynSent => bindings::TCP_SYN_SENT,
            Self::Established => bindings::TCP_ESTABLISHED,
            Self::Closing => bindings::TCP_CLOSING,
            Self::Close => bindings::TCP_CLOSE,
        }) as c_int
    }
}

/// Type of a connection-oriented vsock socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SockType {
    /// `SOCK_STREAM`.
    Stream,
    /// `SOCK_SEQPACKET`.
    SeqPacket,
}

/// Directions of a shutdown, as in `sk_shutdown` and `peer_shutdown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown(u32);

impl Shutdown {
    /// Neither direction.
    pub const NONE: Self = Self(0);
    /// No more receiving: `RCV_SHUTDOWN`.
    pub const RCV: Self = Self(bindings::RCV_SHUTDOWN);
    /// No more sending: `SEND_SHUTDOWN`.
    pub const SEND: Self = Self(bindings::SEND_SHUTDOWN);
    /// Both directions: `SHUTDOWN_MASK`.
    pub const BOTH: Self = Self(bindings::SHUTDOWN_MASK);

    /// Keeps the bits that mean something.
    #[inline]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & bindings::SHUTDOWN_MASK)
    }

    /// The bits, as C has them.
    #[inline]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Says whether both directions are shut down.
    #[inline]
    pub fn is_both(self) -> bool {
        self == Self::BOTH
    }
}

/// An address of a socket: CID and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SockAddr {
    /// Context id.
    pub cid: u32,
    /// Port.
    pub port: u32,
}

impl SockAddr {
    #[inline]
    pub(super) fn from_c(addr: &bindings::sockaddr_vm) -> Self {
        Self {
            cid: addr.svm_cid,
            port: addr.svm_port,
        }
    }

    /// The address as C wants it.
    #[inline]
    pub(crate) fn to_c(self) -> bindings::sockaddr_vm {
        bindings::sockaddr_vm {
            svm_family: bindings::AF_VSOCK as u16,
            svm_port: self.port,
            svm_cid: self.cid,
            ..pin_init::zeroed()
        }
    }
}
