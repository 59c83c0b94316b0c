// SPDX-License-Identifier: GPL-2.0

//! The rows.

use crate::{
    counts, memory,
    socket::{Kind, Pace, Socket, CLOSE, ECHO, SINK, SOURCE},
};
use measure::Bench;
use ring::Try;

/// What a row does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// A message, and its answer.
    RoundTrip,
    /// Messages to the host.
    Send,
    /// Messages from the host, read with a buffer of 64 KiB.
    Receive,
    /// A connection, closed at once.
    Connect,
    /// The idle driver's memory.
    Memory,
}

/// A row.
pub struct Row {
    pub name: &'static str,
    what: What,
    kind: Kind,
    /// Bytes of a message.
    size: usize,
    /// Operations that are counted, and before them.
    count: u64,
    warm: u64,
    pace: Pace,
}

const fn row(name: &'static str, what: What, kind: Kind, size: usize, count: u64) -> Row {
    Row {
        name,
        what,
        kind,
        size,
        count,
        warm: count / 16 + 200,
        pace: match what {
            RoundTrip | Connect => Pace::AtOnce,
            _ => Pace::InStep,
        },
    }
}

const fn at_once(row: Row) -> Row {
    Row {
        pace: Pace::AtOnce,
        ..row
    }
}

use Kind::{Seqpacket, Stream};
use What::{Connect, Memory, Receive, RoundTrip, Send};

/// All of them, in the order in which they run: the last one takes the driver from its device.
///
/// Round trips and connections have a host that acts at once: the answer and its interrupt are
/// there before `send` returns. One-way rows have one in step, which moves all that there is when
/// the guest sleeps: a sender fills its ring or its window, and that is one interrupt. Rows `_fast`
/// are their other bound: an interrupt for each packet, unless the driver does not want it.
pub const ROWS: &[Row] = &[
    row("guest/rr_64", RoundTrip, Stream, 64, 5000),
    row("guest/rr_4k", RoundTrip, Stream, 4096, 5000),
    row("guest/tx_64", Send, Stream, 64, 32768),
    row("guest/tx_4k", Send, Stream, 4096, 8192),
    row("guest/tx_64k", Send, Stream, 65536, 2048),
    row("guest/rx_64", Receive, Stream, 64, 65536),
    row("guest/rx_4k", Receive, Stream, 4096, 8192),
    row("guest/rx_64k", Receive, Stream, 65536, 1024),
    row("guest/seq_rr_64", RoundTrip, Seqpacket, 64, 5000),
    row("guest/seq_tx_64", Send, Seqpacket, 64, 32768),
    row("guest/seq_rx_64", Receive, Seqpacket, 64, 32768),
    row("guest/connect_close", Connect, Stream, 0, 2000),
    at_once(row("guest/tx_64_fast", Send, Stream, 64, 32768)),
    at_once(row("guest/tx_4k_fast", Send, Stream, 4096, 8192)),
    at_once(row("guest/tx_64k_fast", Send, Stream, 65536, 2048)),
    row("guest/idle_rx_memory", Memory, Stream, 0, 1),
];

impl Row {
    /// Runs it and prints its line.
    pub fn run(&self, bench: &Bench) -> Try<()> {
        match self.what {
            RoundTrip => self.round_trips(bench),
            Send => self.sends(bench),
            Receive => self.receives(bench),
            Connect => self.connections(bench),
            Memory => {
                bench.figure(self.name, "bytes", memory::of_bound_driver()? as f64);
                Ok(())
            }
        }
    }

    /// Runs what is counted.
    fn count(&self, bench: &Bench, run: impl FnOnce() -> Try<()>) -> Try<()> {
        bench.row(self.name, self.count, counts::read, run)
    }

    fn round_trips(&self, bench: &Bench) -> Try<()> {
        let socket = Socket::connect(self.kind, ECHO)?;
        socket.command(self.size, self.pace, 0)?;
        let message: Vec<u8> = (0..self.size).map(|n| n as u8).collect();
        let mut answer = vec![0; self.size];
        for _ in 0..self.warm.min(500) {
            answer.fill(0);
            socket.send(&message)?;
            socket.recv_all(&mut answer)?;
            if answer != message {
                return Err("the echo is not what was sent".into());
            }
        }
        self.count(bench, || {
            for _ in 0..self.count {
                socket.send(&message)?;
                socket.recv_all(&mut answer)?;
            }
            Ok(())
        })
    }

    fn sends(&self, bench: &Bench) -> Try<()> {
        let message = vec![0xa5; self.size];
        let mut last = [0];
        let mut run = |socket: &Socket, count: u64| {
            for _ in 0..count {
                socket.send(&message)?;
            }
            // The host has read all.
            socket.recv_all(&mut last)
        };
        let warm = Socket::connect(self.kind, SINK)?;
        warm.command(self.size, self.pace, self.warm)?;
        run(&warm, self.warm)?;
        let socket = Socket::connect(self.kind, SINK)?;
        socket.command(self.size, self.pace, self.count)?;
        self.count(bench, || run(&socket, self.count))
    }

    fn receives(&self, bench: &Bench) -> Try<()> {
        let mut bytes = vec![0; 65536];
        let mut run = |socket: &Socket, count: u64| {
            socket.command(self.size, self.pace, count)?;
            let mut left = count * self.size as u64;
            while left > 0 {
                left -= socket.recv(&mut bytes)? as u64;
            }
            Ok(())
        };
        run(&Socket::connect(self.kind, SOURCE)?, self.warm)?;
        let socket = Socket::connect(self.kind, SOURCE)?;
        self.count(bench, || run(&socket, self.count))
    }

    fn connections(&self, bench: &Bench) -> Try<()> {
        // The pace is that of the last command.
        let sink = Socket::connect(Stream, SINK)?;
        sink.command(1, self.pace, 1)?;
        sink.send(&[0])?;
        sink.recv_all(&mut [0])?;
        let run = |count: u64| {
            for _ in 0..count {
                drop(Socket::connect(Stream, CLOSE)?);
            }
            Ok(())
        };
        run(self.warm)?;
        self.count(bench, || run(self.count))
    }
}
