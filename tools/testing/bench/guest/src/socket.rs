// SPDX-License-Identifier: GPL-2.0

//! Blocking sockets of the guest, to the host.

use ring::{
    packet,
    sys::{self, socket},
    Try,
};
use std::os::fd::{AsFd, OwnedFd};

/// The services of the peer, by port: see `peer::conn::Service`.
pub const SINK: u32 = 9000;
pub const SOURCE: u32 = 9001;
pub const ECHO: u32 = 9002;
pub const CLOSE: u32 = 9003;
pub const CONTROL: u32 = 9004;

/// How the peer is paced during a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// It acts as soon as it is kicked.
    AtOnce,
    /// It acts when the guest has nothing to do.
    InStep,
}

/// Which sockets a row uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Stream,
    Seqpacket,
}

/// A connected socket.
pub struct Socket(OwnedFd);

impl Socket {
    pub fn connect(kind: Kind, port: u32) -> Try<Self> {
        let ty = match kind {
            Kind::Stream => libc::SOCK_STREAM,
            Kind::Seqpacket => libc::SOCK_SEQPACKET,
        };
        let fd = socket::vsock(ty)?;
        sys::set_nonblocking(&fd, false)?;
        socket::connect(fd.as_fd(), packet::HOST as u32, port)?;
        Ok(Self(fd))
    }

    /// Tells the service what to do: `count` messages of `size` bytes.
    pub fn command(&self, size: usize, pace: Pace, count: u64) -> Try<()> {
        let mut bytes = [0; 16];
        bytes[0..4].copy_from_slice(&(size as u32).to_le_bytes());
        bytes[4..8].copy_from_slice(&u32::from(pace == Pace::InStep).to_le_bytes());
        bytes[8..16].copy_from_slice(&count.to_le_bytes());
        self.send(&bytes)
    }

    /// Sends all of it.
    pub fn send(&self, mut bytes: &[u8]) -> Try<()> {
        while !bytes.is_empty() {
            let sent = socket::send(self.0.as_fd(), bytes, 0)?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    /// What one call gives; an end of the connection is an error.
    pub fn recv(&self, bytes: &mut [u8]) -> Try<usize> {
        match socket::recv(self.0.as_fd(), bytes, 0)? {
            0 => Err("the peer closed the connection".into()),
            got => Ok(got),
        }
    }

    /// Fills `bytes`.
    pub fn recv_all(&self, bytes: &mut [u8]) -> Try<()> {
        let mut done = 0;
        while done < bytes.len() {
            done += self.recv(&mut bytes[done..])?;
        }
        Ok(())
    }
}
