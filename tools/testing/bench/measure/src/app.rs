// SPDX-License-Identifier: GPL-2.0

//! An application with blocking sockets of AF_VSOCK.

use crate::{service::Service, Bench, Counters};
use ring::{
    sys::{self, socket},
    Try,
};
use std::os::fd::{AsFd, OwnedFd};

/// The most that an application reads or writes at once.
pub const MOST: usize = 64 * 1024;

/// The end of a connection.
pub struct End {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

/// A socket that blocks.
pub fn blocking(kind: i32) -> Try<OwnedFd> {
    let fd = socket::vsock(kind)?;
    sys::set_nonblocking(&fd, false)?;
    Ok(fd)
}

impl End {
    /// The end that a socket is.
    pub fn of(fd: OwnedFd) -> Self {
        Self {
            fd,
            buffer: vec![0x5a; MOST],
        }
    }

    /// Connects.
    pub fn connect(kind: i32, cid: u32, port: u32) -> Try<Self> {
        let fd = blocking(kind)?;
        socket::connect(fd.as_fd(), cid, port)?;
        Ok(Self::of(fd))
    }

    /// Connects, and asks the peer for a service.
    pub fn ask(kind: i32, cid: u32, port: u32, service: Service) -> Try<Self> {
        let mut end = Self::connect(kind, cid, port)?;
        socket::send(end.fd.as_fd(), &service.bytes(), 0)?;
        end.receive(1)?;
        Ok(end)
    }

    /// The same without room for large messages, for thousands of them.
    pub fn small(mut self) -> Self {
        self.buffer = vec![0; 64];
        self
    }

    /// Sends one message of `size` bytes, at most [`MOST`].
    pub fn send(&mut self, size: usize) -> Try<()> {
        let bytes = self.buffer.get(..size).ok_or("too much to send")?;
        match socket::send(self.fd.as_fd(), bytes, 0)? {
            n if n == size => Ok(()),
            n => Err(format!("{n} bytes of {size} were sent").into()),
        }
    }

    /// Receives exactly `size` bytes, at most [`MOST`].
    pub fn receive(&mut self, size: usize) -> Try<()> {
        let mut left = size;
        while left > 0 {
            let room = self.buffer.get_mut(..left).ok_or("too much to receive")?;
            match socket::recv(self.fd.as_fd(), room, 0)? {
                0 => return Err(format!("the peer closed with {left} bytes to come").into()),
                n => left -= n,
            }
        }
        Ok(())
    }

    /// Receives `total` bytes, as much at once as there is.
    pub fn drain(&mut self, total: u64) -> Try<()> {
        let mut left = total;
        while left > 0 {
            match socket::recv(self.fd.as_fd(), &mut self.buffer, 0)? {
                0 => return Err(format!("the peer closed with {left} bytes to come").into()),
                n => {
                    left = left
                        .checked_sub(n as u64)
                        .ok_or("more came than was sent")?
                }
            }
        }
        Ok(())
    }
}

/// Where the peer is, and how it is measured: the rows that are the same on each rig.
pub struct Rows<'a, F: Fn() -> Try<Counters>> {
    pub bench: &'a Bench,
    pub cid: u32,
    /// Where the peer listens for streams; one more for SEQPACKET.
    pub port: u32,
    pub count: F,
}

/// Operations of a row of messages of `size` bytes.
fn operations(size: usize) -> u32 {
    match size {
        0..=1024 => 20_000,
        1025..=16384 => 6_000,
        _ => 800,
    }
}

/// The name of a size.
pub fn size_name(size: usize) -> String {
    match size {
        size if size >= 1024 => format!("{}k", size / 1024),
        size => size.to_string(),
    }
}

impl<F: Fn() -> Try<Counters>> Rows<'_, F> {
    fn ask(&self, kind: i32, service: Service) -> Try<End> {
        let port = self.port + u32::from(kind == libc::SOCK_SEQPACKET);
        End::ask(kind, self.cid, port, service)
    }

    /// A message and its answer.
    pub fn round_trip(&self, name: &str, kind: i32, size: usize) {
        self.round_trip_called(&format!("{name}_{}", size_name(size)), kind, size);
    }

    /// As [`Self::round_trip`], with the whole name of the row.
    pub fn round_trip_called(&self, name: &str, kind: i32, size: usize) {
        const OPS: u64 = 1500;
        self.bench.attempt(name, || {
            let mut end = self.ask(kind, Service::Echo { size: size as u32 })?;
            let mut trips = |count| {
                (0..count).try_for_each(|_| {
                    end.send(size)?;
                    end.receive(size)
                })
            };
            trips(200)?;
            self.bench.row(name, OPS, &self.count, || trips(OPS))
        });
    }

    /// Messages to the peer, as many as it takes.
    pub fn to_peer(&self, name: &str, kind: i32, size: usize) {
        let ops = operations(size);
        let name = format!("{name}_{}", size_name(size));
        self.bench.attempt(&name, || {
            let total = u64::from(ops / 4) * size as u64;
            let mut end = self.ask(kind, Service::Sink { total })?;
            let mut part = || {
                (0..ops / 4).try_for_each(|_| end.send(size))?;
                end.receive(1)
            };
            part()?;
            self.bench.row(&name, u64::from(ops), &self.count, || {
                (0..4).try_for_each(|_| part())
            })
        });
    }

    /// Messages of the peer, as many as we take.
    pub fn from_peer(&self, name: &str, kind: i32, size: usize) {
        let ops = operations(size);
        let name = format!("{name}_{}", size_name(size));
        self.bench.attempt(&name, || {
            let service = Service::Source {
                size: size as u32,
                count: ops / 4,
            };
            let mut end = self.ask(kind, service)?;
            let total = u64::from(ops / 4) * size as u64;
            let mut part = || {
                end.send(1)?;
                end.drain(total)
            };
            part()?;
            self.bench.row(&name, u64::from(ops), &self.count, || {
                (0..4).try_for_each(|_| part())
            })
        });
    }

    /// Connections that are made and closed.
    pub fn connect_close(&self, name: &str) {
        const OPS: u64 = 400;
        self.bench.attempt(name, || {
            let connections = |count| {
                (0..count).try_for_each(|_| {
                    let fd = blocking(libc::SOCK_STREAM)?;
                    Ok(socket::connect(fd.as_fd(), self.cid, self.port)?)
                })
            };
            connections(100)?;
            self.bench.row(name, OPS, &self.count, || connections(OPS))
        });
    }

    /// Streams of small, middle and large messages, to the peer and from it by the names given.
    pub fn streams(&self, to: &str, from: &str) {
        for size in [64, 4096, 65536] {
            self.to_peer(to, libc::SOCK_STREAM, size);
        }
        for size in [64, 4096, 65536] {
            self.from_peer(from, libc::SOCK_STREAM, size);
        }
    }

    /// All rows that are the same on each rig.
    pub fn all(&self, to: &str, from: &str) {
        let (stream, seqpacket) = (libc::SOCK_STREAM, libc::SOCK_SEQPACKET);
        for size in [64, 4096] {
            self.round_trip("rr", stream, size);
        }
        self.streams(to, from);
        self.round_trip("seq_rr", seqpacket, 64);
        for size in [64, 4096, 65536] {
            self.to_peer(&format!("seq_{to}"), seqpacket, size);
        }
        for size in [64, 4096, 65536] {
            self.from_peer(&format!("seq_{from}"), seqpacket, size);
        }
        self.connect_close("connect_close");
    }
}
