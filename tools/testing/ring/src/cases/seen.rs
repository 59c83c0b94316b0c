// SPDX-License-Identifier: GPL-2.0

//! What the directory `vsock` of debugfs says.

use super::{case, Case, Ctx};
use crate::{
    device::{Device, Setup},
    host::{self, amount, Peer, Socket},
    note, packet,
    sys::process::{self, Usage},
    Try,
};
use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io::Read as _,
    time::Duration,
};

/// The CID of this machine, for sockets of it.
const LOOPBACK: u64 = 1;
const PORT: u32 = 777;

/// Why C has none of it.
const NONE: &str = "C has nothing in debugfs";

pub const CASES: &[Case] = &[
    case(
        "INF-10/connection-whose-writer-waits",
        "stream established, in flight 1000, unsent 0, window 1000, sent 1000, received 5, \
         unread 5, blocked credit, idle for less than a minute; \
         then in flight 0, unread 0, received 5, blocked -",
        |_| stalled(),
    )
    .not_on_c(NONE),
    case(
        "INF-11/message-that-waits-to-be-read",
        "seqpacket established, messages 1, unread 5, some memory; closed: not there",
        |_| message(),
    )
    .not_on_c(NONE),
    case(
        "INF-12/guests",
        "running, connections 3, fdinfo 3, malformed 0, queued 0; closed: 2; stopped; no device: not there",
        |_| guests(),
    )
    .not_on_c(NONE),
    case(
        "INF-13/many-connections-in-small-pieces",
        "300 of 300, each once; read again in pieces the same",
        |_| many(),
    )
    .not_on_c(NONE),
    case("INF-14/version", "one line that begins with vsock-rust", |_| {
        let text = fs::read_to_string(path("version"))?;
        Ok(match text.strip_suffix('\n') {
            Some(line) if line.starts_with("vsock-rust ") && !line.contains('\n') => {
                "one line that begins with vsock-rust".to_owned()
            }
            _ => format!("{text:?}"),
        })
    })
    .not_on_c(NONE),
];

/// What is to be cheap, also where time is counted in instructions.
pub const MANY: &[Case] = &[Case {
    seconds: 120,
    ..case(
        "INF-15/ten-thousand-connections",
        "10000 lines, in time",
        ten_thousand,
    )
    .not_on_c(NONE)
}];

fn path(file: &str) -> String {
    format!("/sys/kernel/debug/vsock/{file}")
}

/// A line, by the names of its columns.
type Line = HashMap<String, String>;

fn parse(text: &str) -> Try<Vec<Line>> {
    let mut lines = text.lines();
    let titles: Vec<_> = lines.next().unwrap_or_default().split(' ').collect();
    lines
        .map(|line| {
            let words: Vec<_> = line.split(' ').collect();
            if words.len() != titles.len() {
                return Err(format!("not as many words as columns: {line}").into());
            }
            let pairs = titles.iter().zip(words);
            Ok(pairs
                .map(|(title, word)| ((*title).to_owned(), word.to_owned()))
                .collect())
        })
        .collect()
}

fn table(file: &str) -> Try<Vec<Line>> {
    parse(&fs::read_to_string(path(file))?)
}

/// The line of a connection, if there is one.
fn line(dev: &Device, peer: &Peer) -> Try<Option<Line>> {
    // The socket does not know its own CID.
    let local = format!("{}:{}", u32::MAX, peer.host);
    let remote = format!("{}:{}", dev.cid, peer.guest);
    let lines = table("connections")?;
    Ok(lines
        .into_iter()
        .find(|line| line["local"] == local && line["peer"] == remote))
}

fn the_line(dev: &Device, peer: &Peer) -> Try<Line> {
    Ok(line(dev, peer)?.ok_or("the connection is not there")?)
}

fn number(line: &Line, column: &str) -> Try<u64> {
    let text = &line[column];
    Ok(text.parse().map_err(|_| format!("{column} is {text}"))?)
}

fn stalled() -> Try<String> {
    let mut dev = Setup::default().open()?;
    let peer = host::connect_stream(&mut dev)?;
    let tell = |dev: &mut Device, op, read, bytes: &[u8]| {
        let header = peer.header(dev, op).with(|h| {
            h.buf_alloc = 1000;
            h.fwd_cnt = read;
            h.len = bytes.len() as u32;
        });
        dev.send(header, bytes)
    };
    tell(&mut dev, packet::CREDIT_UPDATE, 0, &[])?;
    let sent = amount(peer.socket.send(&[0x42; 1500]));
    let more = amount(peer.socket.send(b"x"));
    if (sent.as_str(), more.as_str()) != ("1000", "EAGAIN") {
        return Err(format!("sent {sent}, then {more}").into());
    }
    tell(&mut dev, packet::RW, 0, b"hello")?;
    dev.settle()?;
    let before = the_line(&dev, &peer)?;
    let (on, _) = before["blocked"].split_once(':').unwrap_or(("", ""));
    let idle = number(&before, "idle_ms")?;
    let idle = if idle < 60_000 {
        "idle for less than a minute"
    } else {
        "idle for long"
    };
    peer.socket.recv(5)?;
    tell(&mut dev, packet::CREDIT_UPDATE, 1000, &[])?;
    dev.settle()?;
    let after = the_line(&dev, &peer)?;
    Ok(format!(
        "{} {}, in flight {}, unsent {}, window {}, sent {}, received {}, unread {}, blocked {on}, \
         {idle}; then in flight {}, unread {}, received {}, blocked {}",
        before["type"],
        before["state"],
        before["in_flight"],
        before["unsent"],
        before["window"],
        before["sent"],
        before["received"],
        before["unread"],
        after["in_flight"],
        after["unread"],
        after["received"],
        after["blocked"],
    ))
}

fn message() -> Try<String> {
    let mut dev = Setup::default().open()?;
    let peer = host::connect(&mut dev, libc::SOCK_SEQPACKET, 7000)?;
    let header = peer.header(&dev, packet::RW).with(|h| {
        h.flags = packet::EOM;
        h.len = 5;
    });
    dev.send(header, b"hello")?;
    dev.settle()?;
    let seen = the_line(&dev, &peer)?;
    let memory = if number(&seen, "rx_memory")? >= 5 {
        "some memory"
    } else {
        "no memory"
    };
    let rst = peer.header(&dev, packet::RST);
    dev.send(rst, &[])?;
    dev.settle()?;
    let there = if line(&dev, &peer)?.is_some() {
        "there"
    } else {
        "not there"
    };
    Ok(format!(
        "{} {}, messages {}, unread {}, {memory}; closed: {there}",
        seen["type"], seen["state"], seen["messages"], seen["unread"]
    ))
}

fn guests() -> Try<String> {
    let mut dev = Setup::default().open()?;
    let mut peers = host::connect_streams(&mut dev, 3)?;
    let cid = dev.cid.to_string();
    let find = || -> Try<Option<Line>> {
        Ok(table("guests")?.into_iter().find(|line| line["cid"] == cid))
    };
    let there = || -> Try<Line> { Ok(find()?.ok_or("the guest is not there")?) };
    let first = there()?;
    let info = dev.info("connections").join(" ");
    if first["pid"] != std::process::id().to_string() {
        return Err(format!("it is of process {}", first["pid"]).into());
    }
    let rst = peers.pop().map(|peer| peer.header(&dev, packet::RST));
    dev.send(rst.ok_or("no connection")?, &[])?;
    dev.settle()?;
    let second = there()?;
    dev.run(false)?;
    let third = there()?;
    drop((peers, dev));
    let last = if find()?.is_some() {
        "there"
    } else {
        "not there"
    };
    Ok(format!(
        "{}, connections {}, fdinfo {info}, malformed {}, queued {}; closed: {}; {}; \
         no device: {last}",
        first["state"],
        first["connections"],
        first["malformed"],
        first["queued"],
        second["connections"],
        third["state"],
    ))
}

/// All of a file, in small pieces that end anywhere.
fn in_pieces(file: &str) -> Try<String> {
    let mut file = File::open(path(file))?;
    let (mut all, mut piece) = (Vec::new(), [0; 77]);
    loop {
        let len = file.read(&mut piece)?;
        if len == 0 {
            return Ok(String::from_utf8_lossy(&all).into_owned());
        }
        all.extend_from_slice(&piece[..len]);
    }
}

/// What `vsockctl top` reads each second. Where instructions are counted, 100 ms are as many
/// millions of them; where they are not, the machine is emulated, and slower.
fn ten_thousand(ctx: &mut Ctx) -> Try<String> {
    const PAIRS: u32 = 5000;
    process::set_limit(libc::RLIMIT_NOFILE, 20_000)?;
    let listener = Socket::listener(libc::SOCK_STREAM, PORT, 16)?;
    let mut sockets = Vec::new();
    for _ in 0..PAIRS {
        let socket = Socket::stream()?;
        socket.connect(LOOPBACK, PORT)?;
        sockets.push((socket, listener.accept()?));
    }
    let begin = Usage::now()?;
    let text = fs::read_to_string(path("connections"))?;
    let taken = Usage::now()?.since(begin).cpu;
    note(format!("{} bytes in {taken:?}", text.len()));
    let lines = parse(&text)?;
    let ours = lines
        .iter()
        .filter(|line| line["transport"] == "loopback")
        .count();
    let quick = if taken < ctx.limit(Duration::from_millis(100), Duration::from_millis(500)) {
        "in time"
    } else {
        "too slow"
    };
    Ok(format!("{ours} lines, {quick}"))
}

fn many() -> Try<String> {
    const COUNT: u32 = 300;
    let mut dev = Setup::default().open()?;
    let peers = host::connect_streams(&mut dev, COUNT)?;
    let of_dev = |lines: Vec<Line>| -> Vec<String> {
        let cid = format!("{}:", dev.cid);
        let ours = lines
            .into_iter()
            .filter(|line| line["peer"].starts_with(&cid));
        ours.map(|line| line["peer"].clone()).collect()
    };
    let whole = of_dev(table("connections")?);
    let pieces = of_dev(parse(&in_pieces("connections")?)?);
    let expected: BTreeSet<_> = peers
        .iter()
        .map(|peer| format!("{}:{}", dev.cid, peer.guest))
        .collect();
    let distinct: BTreeSet<_> = whole.iter().cloned().collect();
    let once = if distinct.len() == whole.len() {
        "each once"
    } else {
        "some twice"
    };
    let again = if pieces == whole {
        "the same"
    } else {
        "other ones"
    };
    Ok(format!(
        "{} of {COUNT}, {once}; read again in pieces {again}",
        distinct.intersection(&expected).count()
    ))
}
