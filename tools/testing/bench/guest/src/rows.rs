// SPDX-License-Identifier: GPL-2.0

//! The rows.

use crate::{
    counts::Counts,
    memory,
    socket::{Kind, Pace, Socket, CLOSE, ECHO, SINK, SOURCE},
};
use ring::{
    sys::{marker, process},
    Try,
};
use std::{
    thread,
    time::{Duration, Instant},
};

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
    turn: Turn,
}

/// How the program is scheduled beside the driver's kernel threads. By default a wake-up preempts or
/// not as it happens, from which two runs of the same row differ by several per cent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// As any program.
    Fair,
    /// After them: it runs when they have done their work (`SCHED_BATCH` preempts nobody).
    After,
    /// Before them: it runs until it waits (`SCHED_FIFO`).
    Before,
}

impl Turn {
    fn take(self) -> Try<()> {
        Ok(match self {
            Self::Fair => process::set_scheduler(libc::SCHED_OTHER, 0),
            Self::After => process::set_scheduler(libc::SCHED_BATCH, 0),
            Self::Before => process::set_scheduler(libc::SCHED_FIFO, 1),
        }?)
    }
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
        turn: match what {
            RoundTrip | Connect => Turn::Before,
            Receive => Turn::After,
            _ => Turn::Fair,
        },
    }
}

const fn at_once(row: Row) -> Row {
    Row {
        pace: Pace::AtOnce,
        ..row
    }
}

const fn in_step(row: Row) -> Row {
    Row {
        pace: Pace::InStep,
        turn: Turn::Fair,
        ..row
    }
}

use Kind::{Seqpacket, Stream};
use What::{Connect, Memory, Receive, RoundTrip, Send};

/// All of them, in the order in which they run: the last one takes the driver from its device.
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
    in_step(row("guest/rr_64_step", RoundTrip, Stream, 64, 5000)),
    at_once(row("guest/tx_64_fast", Send, Stream, 64, 32768)),
    at_once(row("guest/tx_4k_fast", Send, Stream, 4096, 8192)),
    at_once(row("guest/tx_64k_fast", Send, Stream, 65536, 2048)),
    row("guest/idle_rx_memory", Memory, Stream, 0, 1),
];

impl Row {
    /// Runs it and returns its line.
    pub fn run(&self) -> Try<String> {
        self.turn.take()?;
        let result = self.run_it();
        Turn::Fair.take()?;
        result
    }

    fn run_it(&self) -> Try<String> {
        match self.what {
            RoundTrip => self.round_trips(),
            Send => self.sends(),
            Receive => self.receives(),
            Connect => self.connections(),
            Memory => {
                let (slab, all) = memory::of_bound_driver()?;
                Ok(format!(
                    "row {} kind=memory bytes={slab} kernel_bytes={all}",
                    self.name
                ))
            }
        }
    }

    /// Runs what is counted between the marks.
    fn count(&self, run: impl FnOnce() -> Try<()>) -> Try<String> {
        let before = Counts::read()?;
        settle();
        let begin = Instant::now();
        marker::open();
        let result = run();
        marker::close();
        let clock = begin.elapsed();
        result?;
        settle();
        let counts = Counts::read()? - before;
        Ok(format!(
            "row {} ops={} clock={} switches={} tx_packets={} tx_data={} rx_packets={} interrupts={} kicks={}",
            self.name,
            self.count,
            clock.as_nanos(),
            counts.switches,
            counts.tx_packets,
            counts.tx_data,
            counts.rx_packets,
            counts.interrupts,
            counts.kicks
        ))
    }

    fn round_trips(&self) -> Try<String> {
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
        self.count(|| {
            for _ in 0..self.count {
                socket.send(&message)?;
                socket.recv_all(&mut answer)?;
            }
            Ok(())
        })
    }

    fn sends(&self) -> Try<String> {
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
        self.count(|| run(&socket, self.count))
    }

    fn receives(&self) -> Try<String> {
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
        self.count(|| run(&socket, self.count))
    }

    fn connections(&self) -> Try<String> {
        // The pace is that of the last command.
        Socket::connect(Stream, SINK)?.command(1, self.pace, 1)?;
        let run = |count: u64| {
            for _ in 0..count {
                drop(Socket::connect(Stream, CLOSE)?);
            }
            Ok(())
        };
        run(self.warm)?;
        self.count(|| run(self.count))
    }
}

/// Lets what was begun come to its end.
fn settle() {
    thread::sleep(Duration::from_millis(30));
}
