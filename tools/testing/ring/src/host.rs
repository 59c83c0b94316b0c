// SPDX-License-Identifier: GPL-2.0

//! The host's programs: sockets of AF_VSOCK, which never block.

pub use crate::failure::{errno, errno_name};
use crate::{
    device::Device,
    packet::{self, Header},
    sys::{self, socket},
    Try,
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

/// A socket.
pub struct Socket(OwnedFd);

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Socket {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

/// The name of a result.
pub fn verdict<T>(result: io::Result<T>) -> String {
    result.map_or_else(|e| errno(&e), |_| "ok".to_owned())
}

/// The name of a result, or the number of bytes.
pub fn amount(result: io::Result<usize>) -> String {
    result.map_or_else(|e| errno(&e), |n| n.to_string())
}

impl Socket {
    pub fn new(kind: i32) -> io::Result<Self> {
        socket::vsock(kind).map(Self)
    }

    pub fn stream() -> io::Result<Self> {
        Self::new(libc::SOCK_STREAM)
    }

    /// A listener for any CID.
    pub fn listener(kind: i32, port: u32, backlog: i32) -> io::Result<Self> {
        let this = Self::new(kind)?;
        this.listen(port, backlog)?;
        Ok(this)
    }

    pub fn listen(&self, port: u32, backlog: i32) -> io::Result<()> {
        self.bind(port)?;
        socket::listen(self.0.as_fd(), backlog)
    }

    /// Begins to connect.
    pub fn connect(&self, cid: u64, port: u32) -> io::Result<()> {
        match socket::connect(self.0.as_fd(), cid as u32, port) {
            Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
            ret => ret,
        }
    }

    pub fn bind(&self, port: u32) -> io::Result<()> {
        socket::bind(self.0.as_fd(), socket::CID_ANY, port)
    }

    pub fn accept(&self) -> io::Result<Self> {
        socket::accept(self.0.as_fd()).map(Self)
    }

    pub fn local_port(&self) -> io::Result<u32> {
        socket::local(self.0.as_fd()).map(|(_, port)| port)
    }

    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        socket::send(self.0.as_fd(), bytes, libc::MSG_DONTWAIT)
    }

    /// Sends as much as goes; returns how much, and why not more.
    pub fn send_all(&self, bytes: &[u8]) -> (usize, Option<io::Error>) {
        let mut sent = 0;
        while sent < bytes.len() {
            match self.send(&bytes[sent..]) {
                Ok(n) => sent += n,
                Err(e) => return (sent, Some(e)),
            }
        }
        (sent, None)
    }

    pub fn recv(&self, max: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; max];
        let n = socket::recv(self.0.as_fd(), &mut bytes, libc::MSG_DONTWAIT)?;
        bytes.truncate(n);
        Ok(bytes)
    }

    /// Receives until there is nothing, and returns why.
    pub fn drain(&self) -> (Vec<u8>, String) {
        let mut all = Vec::new();
        loop {
            match self.recv(65536) {
                Ok(bytes) if bytes.is_empty() => return (all, "end".to_owned()),
                Ok(bytes) => all.extend_from_slice(&bytes),
                Err(e) => return (all, errno(&e)),
            }
        }
    }

    /// What a reader would be told now: an error, "end", or "data".
    pub fn state(&self) -> String {
        match self.recv(1) {
            Ok(bytes) if bytes.is_empty() => "end".to_owned(),
            Ok(_) => "data".to_owned(),
            Err(e) => errno(&e),
        }
    }

    /// Sends nothing more.
    pub fn shutdown(&self) -> io::Result<()> {
        socket::shut_down_sending(self.0.as_fd())
    }

    /// Takes the pending error.
    pub fn error(&self) -> Try<String> {
        Ok(errno_name(socket::error(self.0.as_fd())?))
    }

    /// Whether `connect()` came to an end, with success or not.
    pub fn is_writable(&self) -> io::Result<bool> {
        self.wait_writable(Duration::ZERO)
    }

    /// Waits for something to read, an error or the end.
    pub fn wait_readable(&self, timeout: Duration) -> io::Result<bool> {
        Ok(sys::poll(&self.0, libc::POLLIN, timeout)? != 0)
    }

    /// Waits until `connect()` came to an end, with success or not.
    pub fn wait_writable(&self, timeout: Duration) -> io::Result<bool> {
        Ok(sys::poll(&self.0, libc::POLLOUT, timeout)? & libc::POLLOUT != 0)
    }

    /// Bytes that the peer did not get yet.
    pub fn unsent(&self) -> io::Result<usize> {
        socket::outq(self.0.as_fd())
    }

    /// Sets how long `connect()` waits for an answer; so long the core keeps the socket if it is
    /// closed meanwhile.
    pub fn set_connect_timeout(&self, timeout: Duration) -> io::Result<()> {
        const CONNECT_TIMEOUT: i32 = 6;
        let time = [timeout.as_secs(), u64::from(timeout.subsec_micros())];
        socket::set_vsock_option(self.0.as_fd(), CONNECT_TIMEOUT, &time)
    }

    /// Allows [`send_pages`](Self::send_pages): `SO_ZEROCOPY`.
    pub fn allow_zerocopy(&self) -> io::Result<()> {
        socket::allow_zerocopy(self.0.as_fd())
    }

    /// As [`send`](Self::send), with `MSG_ZEROCOPY`.
    pub fn send_pages(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_ZEROCOPY;
        socket::send(self.0.as_fd(), bytes, flags)
    }

    /// Has the peer watched: `SO_KEEPALIVE`.
    pub fn keep_alive(&self) -> io::Result<()> {
        socket::keep_alive(self.0.as_fd())
    }

    /// Sets the size of the receive buffer (and of what may be in flight).
    pub fn set_buffer(&self, size: u64) -> io::Result<()> {
        const SIZE: i32 = 0;
        const MAX: i32 = 2;
        socket::set_vsock_option(self.0.as_fd(), MAX, &[size])?;
        socket::set_vsock_option(self.0.as_fd(), SIZE, &[size])
    }
}

/// A program of the host connects to a guest that may not be there, and waits for 0.5 s; how that
/// ends.
pub fn try_connect(cid: u64) -> Try<String> {
    let socket = Socket::stream()?;
    socket.set_connect_timeout(Duration::from_millis(500))?;
    match socket.connect(cid, 1) {
        Err(e) => Ok(errno(&e)),
        Ok(()) if socket.wait_writable(Duration::from_secs(60))? => socket.error(),
        Ok(()) => Ok("nothing".to_owned()),
    }
}

/// A connection between a socket of the host and a port of the guest, as the guest sees it.
pub struct Peer {
    pub socket: Socket,
    /// Port of the guest.
    pub guest: u32,
    /// Port of the host.
    pub host: u32,
    pub ty: u16,
}

impl Peer {
    /// A header of a packet of the guest on this connection.
    pub fn header(&self, dev: &Device, op: u16) -> Header {
        dev.header(op, self.guest, self.host)
            .with(|h| h.ty = self.ty)
    }
}

/// How large the buffer is that the guest offers.
pub const GUEST_BUFFER: u32 = 1 << 20;

fn wire_type(kind: i32) -> u16 {
    if kind == libc::SOCK_SEQPACKET {
        packet::SEQPACKET
    } else {
        packet::STREAM
    }
}

/// The host connects to a port of the guest, which accepts.
pub fn connect(dev: &mut Device, kind: i32, port: u32) -> Try<Peer> {
    let socket = Socket::new(kind)?;
    connect_socket(dev, socket, wire_type(kind), port)
}

/// As [`connect`], with a socket that is there.
pub fn connect_socket(dev: &mut Device, socket: Socket, ty: u16, port: u32) -> Try<Peer> {
    socket.connect(dev.cid, port)?;
    let request = dev.expect(packet::REQUEST)?;
    let peer = Peer {
        socket,
        guest: port,
        host: request.header.src_port,
        ty,
    };
    let answer = peer.header(dev, packet::RESPONSE);
    dev.send(answer.with(|h| h.buf_alloc = GUEST_BUFFER), &[])?;
    dev.q[crate::device::TX].take_all();
    match peer.socket.error()?.as_str() {
        "ok" if peer.socket.is_writable()? => Ok(peer),
        "ok" => Err("the socket is not connected".into()),
        error => Err(format!("connect(): {error}").into()),
    }
}

/// The host connects to a port of the guest with a stream, which the guest accepts.
pub fn connect_stream(dev: &mut Device) -> Try<Peer> {
    connect(dev, libc::SOCK_STREAM, 7000)
}

/// As [`connect_stream`], `count` times, to ports one behind the other.
pub fn connect_streams(dev: &mut Device, count: u32) -> Try<Vec<Peer>> {
    (7000..7000 + count)
        .map(|port| connect(dev, libc::SOCK_STREAM, port))
        .collect()
}

/// The guest connects to a listener of the host, which accepts.
pub fn accept(dev: &mut Device, listener: &Socket, kind: i32, guest: u32) -> Try<Peer> {
    let ty = wire_type(kind);
    let port = listener.local_port()?;
    let request = dev.header(packet::REQUEST, guest, port);
    dev.send(
        request.with(|h| {
            h.ty = ty;
            h.buf_alloc = GUEST_BUFFER;
        }),
        &[],
    )?;
    dev.q[crate::device::TX].take_all();
    dev.expect(packet::RESPONSE)?;
    Ok(Peer {
        socket: listener.accept()?,
        guest,
        host: port,
        ty,
    })
}
