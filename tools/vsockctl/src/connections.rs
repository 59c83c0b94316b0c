// SPDX-License-Identifier: GPL-2.0

//! The connections of this machine, as `/sys/kernel/debug/vsock/connections` lists them. Its source
//! is `virtio_transport_common/seen.rs` of the kernel modules, and Documentation/debugfs.rst tells
//! what the columns mean; those that are not known here are left alone.

use crate::{error::Error, sockets::Address};
use serde::Serialize;
use std::{fs, io::ErrorKind};

const FILE: &str = "/sys/kernel/debug/vsock/connections";

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Connection {
    pub transport: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub state: String,
    pub netns: u64,
    pub local: Address,
    pub peer: Address,
    pub unread: u64,
    pub messages: u64,
    pub rx_memory: u64,
    pub in_flight: u64,
    pub unsent: u64,
    pub tx_memory: u64,
    pub window: u64,
    pub received: u64,
    pub sent: u64,
    /// What a writer waits for; `None` if there is none.
    pub blocked_on: Option<String>,
    /// Since when, if that is known.
    pub blocked_ms: Option<u64>,
    pub idle_ms: u64,
}

/// Where the columns are that are known here.
struct Columns([usize; 17]);

impl Columns {
    const NAMES: [&'static str; 17] = [
        "transport",
        "type",
        "state",
        "netns",
        "local",
        "peer",
        "unread",
        "messages",
        "rx_memory",
        "in_flight",
        "unsent",
        "tx_memory",
        "window",
        "received",
        "sent",
        "blocked",
        "idle_ms",
    ];

    fn of(titles: &str) -> Result<Self, Error> {
        let titles: Vec<&str> = titles.split_whitespace().collect();
        let mut places = [0; 17];
        for (place, name) in places.iter_mut().zip(Self::NAMES) {
            *place = titles
                .iter()
                .position(|title| *title == name)
                .ok_or_else(|| {
                    format!("{FILE} has no column '{name}': it is of another version")
                })?;
        }
        Ok(Self(places))
    }
}

fn address(text: &str) -> Option<Address> {
    let (cid, port) = text.split_once(':')?;
    Some(Address {
        cid: cid.parse().ok()?,
        port: port.parse().ok()?,
    })
}

fn connection(columns: &Columns, words: &[&str]) -> Option<Connection> {
    let word = |column: usize| words.get(*columns.0.get(column)?).copied();
    let number = |column: usize| word(column)?.parse().ok();
    let blocked = word(15)?;
    let (on, since) = match blocked.split_once(':') {
        Some((on, since)) => (on, Some(since.parse().ok()?)),
        None => (blocked, None),
    };
    Some(Connection {
        transport: word(0)?.into(),
        kind: word(1)?.into(),
        state: word(2)?.into(),
        netns: number(3)?,
        local: address(word(4)?)?,
        peer: address(word(5)?)?,
        unread: number(6)?,
        messages: number(7)?,
        rx_memory: number(8)?,
        in_flight: number(9)?,
        unsent: number(10)?,
        tx_memory: number(11)?,
        window: number(12)?,
        received: number(13)?,
        sent: number(14)?,
        blocked_on: (on != "-").then(|| on.into()),
        blocked_ms: since,
        idle_ms: number(16)?,
    })
}

/// Reads the text of the file.
///
/// # Errors
///
/// A column that is needed is missing, or a line makes no sense.
pub fn parse(text: &str) -> Result<Vec<Connection>, Error> {
    let mut lines = text.lines();
    let columns = Columns::of(lines.next().unwrap_or_default())?;
    let mut words = Vec::new();
    lines
        .map(|line| {
            words.clear();
            words.extend(line.split_ascii_whitespace());
            connection(&columns, &words)
                .ok_or_else(|| format!("{FILE} has a line that makes no sense: {line}").into())
        })
        .collect()
}

/// All connections.
///
/// # Errors
///
/// The file is not there, or may not be read.
pub fn list() -> Result<Vec<Connection>, Error> {
    let text = fs::read_to_string(FILE).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => format!("only root may read {FILE}"),
        ErrorKind::NotFound => format!(
            "there is no {FILE}: the C modules run, or none (vsockctl modules), or debugfs is not \
             mounted (mount -t debugfs debugfs /sys/kernel/debug)"
        ),
        _ => format!("{FILE}: {error}"),
    })?;
    parse(&text)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use rustix::time::{clock_gettime, ClockId};
    use std::time::Duration;

    pub const TITLES: &str = "transport type state netns local peer unread messages rx_memory \
        in_flight unsent tx_memory window received sent blocked idle_ms\n";

    #[test]
    fn a_line() {
        let text = TITLES.replace("type", "new type")
            + "to-guest x stream established 4026531840 4294967295:1024 3:22 5 0 4096 1000 0 1280 \
               262144 17 281474976710655 credit:1500 12\n";
        let found = parse(&text).unwrap();
        let connection = &found[0];
        assert_eq!(connection.kind, "stream");
        assert_eq!(connection.peer, Address { cid: 3, port: 22 });
        assert_eq!(connection.sent, (1 << 48) - 1);
        assert_eq!(connection.blocked_on.as_deref(), Some("credit"));
        assert_eq!(
            (connection.blocked_ms, connection.idle_ms),
            (Some(1500), 12)
        );
    }

    #[test]
    fn who_is_not_blocked_and_who_is_for_memory() {
        let line = "loopback seqpacket over 1 1:1 1:2 0 0 0 0 0 0 0 0 0 ";
        let text = format!("{TITLES}{line}- 1\n{line}memory 1\n");
        let found = parse(&text).unwrap();
        assert_eq!(found[0].blocked_on, None);
        assert_eq!(found[1].blocked_on.as_deref(), Some("memory"));
        assert_eq!(found[1].blocked_ms, None);
    }

    #[test]
    fn another_version_and_nonsense_are_told() {
        let error = parse("transport type\n").unwrap_err().to_string();
        assert!(error.contains("no column 'state'"), "{error}");
        let error = parse(&format!("{TITLES}loopback\n"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("makes no sense"), "{error}");
    }

    /// What `count` connections look like.
    pub fn many(count: u32, bytes: u64) -> String {
        let mut text = TITLES.to_owned();
        for port in 0..count {
            text += &format!(
                "to-guest stream established 4026531840 4294967295:{} 3:{port} 0 0 0 0 0 0 262144 \
                 {bytes} {bytes} - 123456\n",
                port + 100_000
            );
        }
        text
    }

    /// How long this thread has a CPU while it does something.
    pub fn cpu_time(work: impl FnOnce()) -> Duration {
        let now = || {
            let time = clock_gettime(ClockId::ThreadCPUTime);
            Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
        };
        let begin = now();
        work();
        now() - begin
    }

    #[test]
    fn ten_thousand_are_read_in_less_than_50_ms() {
        let text = many(10_000, 1_234_567);
        let taken = cpu_time(|| assert_eq!(parse(&text).unwrap().len(), 10_000));
        assert!(taken.as_millis() < 50, "{taken:?}");
    }
}
