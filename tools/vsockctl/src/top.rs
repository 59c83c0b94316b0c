// SPDX-License-Identifier: GPL-2.0

//! `vsockctl top`: what goes on between two looks at the connections.

use crate::{
    connections::{self, Connection},
    error::Error,
    sockets::Address,
    table,
};
use serde::Serialize;
use std::{
    collections::HashMap,
    io::{stdout, Write as _},
    thread,
    time::{Duration, Instant},
};

/// Bytes are counted modulo this.
const MODULUS: u64 = 1 << 48;

/// A connection, and what went over it in a second.
#[derive(Clone, Debug, Serialize)]
pub struct Busy {
    pub received_per_second: u64,
    pub sent_per_second: u64,
    #[serde(flatten)]
    pub connection: Connection,
}

/// What was seen at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    pub connections: usize,
    /// Of which a writer waits for something.
    pub blocked: usize,
    pub received_per_second: u64,
    pub sent_per_second: u64,
    /// The busiest ones, and of those that are as busy the ones that wait for longest.
    pub busiest: Vec<Busy>,
}

type Key = (String, u64, Address, Address);

fn key(of: &Connection) -> Key {
    (of.transport.clone(), of.netns, of.local, of.peer)
}

/// How many bytes of each connection came and went until now.
pub struct Before(HashMap<Key, (u64, u64)>);

impl Before {
    pub fn of(connections: &[Connection]) -> Self {
        let counters = connections.iter().map(|c| (key(c), (c.received, c.sent)));
        Self(counters.collect())
    }
}

/// What happened in `elapsed`.
pub fn compare(before: &Before, now: Vec<Connection>, elapsed: Duration, count: usize) -> Sample {
    let rate = |before: u64, now: u64| {
        let bytes = now.wrapping_sub(before) % MODULUS;
        (bytes as f64 / elapsed.as_secs_f64().max(0.001)) as u64
    };
    let mut busiest: Vec<Busy> = now
        .into_iter()
        .map(|connection| {
            // A new one counts from 0.
            let (received, sent) = before.0.get(&key(&connection)).copied().unwrap_or_default();
            // Another one by now, between the same ports.
            let is_same =
                connection.received >= received || received - connection.received > MODULUS / 2;
            let (received, sent) = if is_same { (received, sent) } else { (0, 0) };
            Busy {
                received_per_second: rate(received, connection.received),
                sent_per_second: rate(sent, connection.sent),
                connection,
            }
        })
        .collect();
    let sample = Sample {
        connections: busiest.len(),
        blocked: busiest
            .iter()
            .filter(|busy| busy.connection.blocked_on.is_some())
            .count(),
        received_per_second: busiest.iter().map(|busy| busy.received_per_second).sum(),
        sent_per_second: busiest.iter().map(|busy| busy.sent_per_second).sum(),
        busiest: Vec::new(),
    };
    busiest.sort_by_key(|busy| {
        let bytes = busy.received_per_second + busy.sent_per_second;
        let waits = busy
            .connection
            .blocked_on
            .is_some()
            .then_some(busy.connection.idle_ms);
        std::cmp::Reverse((bytes, waits))
    });
    busiest.truncate(count);
    Sample { busiest, ..sample }
}

fn print(sample: &Sample) -> Result<(), Error> {
    let rows: Vec<Vec<String>> = sample.busiest.iter().map(row).collect();
    let titles = [
        "TRANSPORT",
        "TYPE",
        "STATE",
        "LOCAL",
        "PEER",
        "RECEIVES",
        "SENDS",
        "UNREAD",
        "IN FLIGHT",
        "UNSENT",
        "BLOCKED",
        "IDLE",
    ];
    let text = format!(
        "{} connections, {} blocked, receive {}/s, send {}/s\n\n{}",
        sample.connections,
        sample.blocked,
        table::bytes(sample.received_per_second),
        table::bytes(sample.sent_per_second),
        table::render(&titles, &rows)
    );
    // The screen is cleared, from the top.
    write!(stdout(), "\x1b[H\x1b[J{text}")?;
    stdout().flush()?;
    Ok(())
}

fn row(busy: &Busy) -> Vec<String> {
    let connection = &busy.connection;
    let rate = |value: u64| match value {
        0 => "-".into(),
        _ => format!("{}/s", table::bytes(value)),
    };
    let bytes = [busy.received_per_second, busy.sent_per_second].map(rate);
    columns(connection, bytes)
}

/// The columns of a table of connections, with what is to be said of the bytes each way.
pub fn columns(connection: &Connection, bytes: [String; 2]) -> Vec<String> {
    let mut row = vec![
        connection.transport.clone(),
        connection.kind.clone(),
        connection.state.clone(),
        table::address(connection.local),
        table::address(connection.peer),
    ];
    row.extend(bytes);
    row.extend(state(connection));
    row
}

/// What waits, and for how long: the last columns of a table of connections.
fn state(connection: &Connection) -> [String; 5] {
    let seconds = |ms: u64| format!("{}.{} s", ms / 1000, ms % 1000 / 100);
    let blocked = match (&connection.blocked_on, connection.blocked_ms) {
        (Some(on), Some(ms)) => format!("{on} {}", seconds(ms)),
        (Some(on), None) => on.clone(),
        (None, _) => "-".into(),
    };
    [
        table::bytes(connection.unread),
        table::bytes(connection.in_flight),
        table::bytes(connection.unsent),
        blocked,
        seconds(connection.idle_ms),
    ]
}

/// Looks again and again; prints for people, or a line of JSON for each look.
///
/// # Errors
///
/// The connections cannot be read, or nobody reads what is printed.
pub fn run(
    interval: Duration,
    samples: Option<u64>,
    count: usize,
    json: bool,
) -> Result<(), Error> {
    let mut before = (Instant::now(), Before::of(&connections::list()?));
    let mut left = samples;
    while left != Some(0) {
        thread::sleep(interval);
        let found = connections::list()?;
        let now = (Instant::now(), Before::of(&found));
        let sample = compare(&before.1, found, now.0 - before.0, count);
        if json {
            writeln!(stdout(), "{}", serde_json::to_string(&sample)?)?;
        } else {
            print(&sample)?;
        }
        before = now;
        left = left.map(|left| left - 1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connections::{
        parse,
        tests::{cpu_time, many},
    };

    #[test]
    fn rates_and_the_order() {
        let old = parse(&many(3, 100)).unwrap();
        let mut new = old.clone();
        new[1].sent = 2100;
        new[2].received = 1100;
        new[0].blocked_on = Some("credit".into());
        let sample = compare(&Before::of(&old), new, Duration::from_secs(2), 2);
        assert_eq!((sample.connections, sample.blocked), (3, 1));
        assert_eq!(
            (sample.received_per_second, sample.sent_per_second),
            (500, 1000)
        );
        let ports: Vec<u32> = sample
            .busiest
            .iter()
            .map(|b| b.connection.peer.port)
            .collect();
        assert_eq!(ports, [1, 2]);
    }

    #[test]
    fn counters_that_wrap_and_connections_that_are_new() {
        let mut old = parse(&many(2, 0)).unwrap();
        old[0].received = MODULUS - 10;
        old[1].received = 5000;
        let mut new = old.clone();
        new[0].received = 90;
        // Another one between the same ports.
        new[1].received = 40;
        let sample = compare(&Before::of(&old), new, Duration::from_secs(1), 2);
        let rates: Vec<u64> = sample
            .busiest
            .iter()
            .map(|b| b.received_per_second)
            .collect();
        assert_eq!(rates, [100, 40]);
    }

    #[test]
    fn ten_thousand_are_compared_in_less_than_50_ms() {
        let (old, new) = (
            parse(&many(10_000, 1)).unwrap(),
            parse(&many(10_000, 2)).unwrap(),
        );
        let taken = cpu_time(|| {
            let sample = compare(&Before::of(&old), new, Duration::from_secs(1), 20);
            assert_eq!(sample.sent_per_second, 10_000);
        });
        assert!(taken.as_millis() < 50, "{taken:?}");
    }
}
