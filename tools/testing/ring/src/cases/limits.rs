// SPDX-License-Identifier: GPL-2.0

//! How fast a guest may be, and ways around that. What went is counted in packets and bytes, over
//! time that is measured around them: a machine that is busy makes it less, and never more.

use super::{around, case, Case, Ctx};
use crate::{
    abi,
    attr::{get_bytes, set_bytes, words, Rate, LOCKED, RATE_FROM_GUEST, RATE_TO_GUEST},
    device::{self, Device, Setup, TX},
    host::{self, verdict, Peer},
    observe::NOBODY,
    packet::{self, HEADER_LEN},
    sys::{self, process},
    talk, Try,
};
use std::{
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

/// Why C has none of it.
const NONE: &str = "C has no attributes";

const UID: u32 = 4242;

pub const CASES: &[Case] = &[
    case(
        "POL-07/rate-from-guest",
        "100 packets: held, 100000 bytes: held; held back: yes; a neighbour: 100 of 100",
        |_| from_guest(),
    )
    .seconds(60)
    .not_on_c(NONE),
    case(
        "POL-08/rate-to-guest",
        "100 packets: held, 100000 bytes: held; held back: yes",
        |_| to_guest(),
    )
    .seconds(60)
    .not_on_c(NONE),
    case(
        "POL-09/goes-on-by-itself",
        "from guest: 1 at once, 6 in the end; to guest: 1 at once, 6 in the end; \
         without the rate: 20 at once",
        |_| goes_on(),
    )
    .not_on_c(NONE),
    case(
        "POL-10/ways-around-a-rate",
        "no bytes, SEQPACKET, other types, other CIDs, no packets, kicks, credit requests, many ports, \
         stop and start, new CIDs, set again, less at once, chains, rings anew, large ones: all held",
        |_| around::ways_around(),
    )
    .seconds(60)
    .not_on_c(NONE),
    case(
        "POL-11/locked",
        "user EPERM; root ok, again ok, unlocked EPERM; root more EPERM, less ok; read 1; \
         bytes 500, packets 0, burst 3000",
        locked,
    )
    .not_on_c(NONE),
    case(
        "POL-12/no-rates",
        "sizes EINVAL EINVAL, reserved EINVAL, burst EINVAL, locked EINVAL, no memory EFAULT; \
         user: more bytes EPERM, any EPERM, more packets EPERM, more at once EPERM, less ok",
        nonsense,
    )
    .not_on_c(NONE),
    case(
        "POL-13/vsockctl-limit",
        "before: 0, null, null; after: 5, [[4000,4001],[4005,4005]], [[7,7],[8,8]], 100 packets: held, \
         locked true; more: refused, less: ok, 4; a user: refused; nobody's CID: refused",
        vsockctl,
    )
    .seconds(60)
    .not_on_c(NONE),
];

/// A rate of each kind, and its name.
const RATES: [(&str, Rate); 2] = [
    (
        "100 packets",
        Rate {
            packets: 100,
            bytes: 0,
            burst: 100_000,
        },
    ),
    (
        "100000 bytes",
        Rate {
            packets: 0,
            bytes: 100_000,
            burst: 100_000,
        },
    ),
];

/// Whether as much went in `time` as a rate allows, but for 5 %.
fn verdict_of(packets: u64, bytes: u64, time: Duration, rate: &Rate) -> String {
    let of = |went: u64, rate: u64| went as f64 / (rate as f64 * time.as_secs_f64());
    let part = match (rate.packets, rate.bytes) {
        (0, bytes_in_second) => of(bytes, bytes_in_second),
        (packets_in_second, _) => of(packets, packets_in_second),
    };
    if (0.95..=1.05).contains(&part) {
        "held".to_owned()
    } else {
        format!("{:.1} %", part * 100.0)
    }
}

/// Sends as many packets as go for some time; they need no answer. Returns how many went, and how
/// long that took.
fn flood(dev: &mut Device, payload: usize, time: Duration) -> (u64, Duration) {
    let header = dev.header(packet::RST, 5000, NOBODY);
    let header = header.with(|h| h.len = payload as u32);
    let bytes = vec![7; payload];
    let (begin, mut went) = (Instant::now(), 0);
    while begin.elapsed() < time {
        let (num, queue) = (dev.q[TX].num, &dev.q[TX]);
        let waiting = queue.avail_idx.wrapping_sub(queue.used_idx);
        for _ in waiting..num / 2 {
            dev.put(header, &bytes);
        }
        dev.kick(TX);
        sleep(Duration::from_millis(1));
        went += dev.q[TX].take_all().len() as u64;
    }
    (went, begin.elapsed())
}

fn held(dev: &Device, which: &str) -> &'static str {
    match dev.info(which).first() {
        Some(line) if !line.contains(" 0 times held") => "yes",
        _ => "no",
    }
}

fn from_guest() -> Try<String> {
    let mut said = Vec::new();
    let mut dev = Setup::default().open()?;
    for ((name, rate), payload) in RATES.into_iter().zip([0, 1000]) {
        rate.set(dev.file(), RATE_FROM_GUEST)?;
        // What may come at once is over then.
        flood(&mut dev, payload, Duration::from_millis(300));
        let (packets, time) = flood(&mut dev, payload, Duration::from_secs(3));
        let bytes = packets * (payload + HEADER_LEN) as u64;
        said.push(format!(
            "{name}: {}",
            verdict_of(packets, bytes, time, &rate)
        ));
    }
    // While it waits.
    let mut other = Setup::default().open()?;
    let mut answers = 0;
    for port in 0..100 {
        flood(&mut dev, 1000, Duration::from_millis(1));
        let request = other.header(packet::REQUEST, 5000 + port, NOBODY);
        other.send(request, &[])?;
        answers += other.recv_all()?.len();
        other.q[TX].take_all();
    }
    Ok(format!(
        "{}; held back: {}; a neighbour: {answers} of 100",
        said.join(", "),
        held(&dev, "rate-from-guest")
    ))
}

/// Lets the host send as much as goes for some time. Returns packets and bytes, and how long that
/// took.
fn receive(
    dev: &mut Device,
    (peer, payload): (&Peer, &mut u32),
    size: usize,
    time: Duration,
) -> Try<(u64, u64, Duration)> {
    let message = vec![7; size];
    let (begin, mut packets, mut bytes) = (Instant::now(), 0, 0);
    while begin.elapsed() < time {
        // Until nothing more goes.
        while matches!(peer.socket.send(&message), Ok(sent) if sent > 0) {}
        sleep(Duration::from_millis(1));
        while let Some(packet) = dev.recv() {
            packets += 1;
            bytes += (packet.payload.len() + HEADER_LEN) as u64;
            *payload = payload.wrapping_add(packet.payload.len() as u32);
        }
        let update = peer.header(dev, packet::CREDIT_UPDATE).with(|h| {
            h.buf_alloc = host::GUEST_BUFFER;
            h.fwd_cnt = *payload;
        });
        dev.put(update, &[]);
        dev.kick(TX);
        while dev.q[TX].take().is_none() {
            sleep(Duration::from_micros(100));
        }
    }
    Ok((packets, bytes, begin.elapsed()))
}

fn to_guest() -> Try<String> {
    let mut said = Vec::new();
    let mut yes = Vec::new();
    for ((name, rate), size) in RATES.into_iter().zip([2000, 1000]) {
        let mut dev = Setup::default().open()?;
        let peer = host::connect(&mut dev, libc::SOCK_SEQPACKET, 7000)?;
        rate.set(dev.file(), RATE_TO_GUEST)?;
        let mut payload = 0;
        receive(
            &mut dev,
            (&peer, &mut payload),
            size,
            Duration::from_millis(300),
        )?;
        let two = Duration::from_secs(3);
        let (packets, bytes, time) = receive(&mut dev, (&peer, &mut payload), size, two)?;
        said.push(format!(
            "{name}: {}",
            verdict_of(packets, bytes, time, &rate)
        ));
        yes.push(held(&dev, "rate-to-guest"));
    }
    yes.dedup();
    Ok(format!("{}; held back: {}", said.join(", "), yes.join(" ")))
}

/// A rate at which each packet is seen on its own.
const SLOW: Rate = Rate {
    bytes: 0,
    packets: 4,
    burst: 1000,
};

/// Waits until `count()` is `all`, or for long.
fn wait_for(all: usize, mut count: impl FnMut() -> usize) -> usize {
    let (begin, mut sum) = (Instant::now(), 0);
    while sum < all && begin.elapsed() < Duration::from_secs(15) {
        sleep(Duration::from_millis(5));
        sum += count();
    }
    sum
}

fn goes_on() -> Try<String> {
    let mut dev = Setup::default().open()?;
    SLOW.set(dev.file(), RATE_FROM_GUEST)?;
    let rst = dev.header(packet::RST, 5000, NOBODY);
    for _ in 0..6 {
        dev.put(rst, &[]);
    }
    dev.kick(TX);
    dev.flush()?;
    let first = dev.q[TX].take_all().len();
    // Nobody kicks any more.
    let from = first + wait_for(6 - first, || dev.q[TX].take_all().len());

    let mut other = Setup::default().open()?;
    let peer = host::connect(&mut other, libc::SOCK_SEQPACKET, 7000)?;
    SLOW.set(other.file(), RATE_TO_GUEST)?;
    for _ in 0..6 {
        peer.socket.send(b"message")?;
    }
    other.flush()?;
    let mut take = || std::iter::from_fn(|| other.take()).count();
    let second = take();
    let to = second + wait_for(6 - second, take);

    for _ in 0..20 {
        dev.put(rst, &[]);
    }
    dev.kick(TX);
    Rate::default().set(dev.file(), RATE_FROM_GUEST)?;
    dev.settle()?;
    let all = dev.q[TX].take_all().len();
    Ok(format!(
        "from guest: {first} at once, {from} in the end; to guest: {second} at once, {to} in the end; \
         without the rate: {all} at once"
    ))
}

fn lock(file: &std::fs::File, locked: u32) -> String {
    verdict(set_bytes(file, LOCKED, &words(&[locked])))
}

fn locked(ctx: &mut Ctx) -> Try<String> {
    let file = device::open_file()?;
    let shared = file.try_clone()?;
    let mut owner = talk::fork(move |talk| {
        process::become_user(UID)?;
        talk.tell(&lock(&shared, 1))
    })?;
    let user = owner.talk.hear()?;
    owner.finish(Duration::from_secs(10) * ctx.scale)?;
    let rate = Rate {
        bytes: 1000,
        packets: 0,
        burst: 3000,
    };
    rate.set(&file, RATE_FROM_GUEST)?;
    let (first, again, unlocked) = (lock(&file, 1), lock(&file, 1), lock(&file, 0));
    let set = |bytes| verdict(Rate { bytes, ..rate }.set(&file, RATE_FROM_GUEST));
    let (more, less) = (set(1001), set(500));
    let number = |bytes: &[u8]| {
        let bytes = bytes.iter().rev();
        bytes.fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let read = number(&get_bytes(&file, LOCKED, 4).1);
    let value = get_bytes(&file, RATE_FROM_GUEST, 24).1;
    let [bytes, packets, burst] = [0..8, 8..16, 16..20].map(|range| number(&value[range]));
    Ok(format!(
        "user {user}; root {first}, again {again}, unlocked {unlocked}; root more {more}, less {less}; \
         read {read}; bytes {bytes}, packets {packets}, burst {burst}"
    ))
}

fn nonsense(ctx: &mut Ctx) -> Try<String> {
    let file = device::open_file()?;
    let rate = Rate {
        bytes: 1000,
        packets: 100,
        burst: 3000,
    };
    let bytes = rate.bytes();
    let set = |value: &[u8]| verdict(set_bytes(&file, RATE_TO_GUEST, value));
    let sizes = [set(&bytes[..16]), set(&[&bytes[..], &[0; 8]].concat())].join(" ");
    let reserved = set(&[&bytes[..20], &[1, 0, 0, 0]].concat());
    let burst = Rate {
        burst: 10_000_001,
        ..rate
    };
    let (burst, two) = (set(&burst.bytes()), lock(&file, 2));
    let mut wild = crate::attr::attr(RATE_TO_GUEST, 24, 8);
    let wild = verdict(sys::ioctl(&file, abi::SET_ATTR, &mut wild));
    rate.set(&file, RATE_TO_GUEST)?;
    let mut owner = talk::fork(move |talk| {
        process::become_user(UID)?;
        let set = |rate: Rate| verdict(rate.set(&file, RATE_TO_GUEST));
        let said = [
            (
                "more bytes",
                Rate {
                    bytes: 1001,
                    ..rate
                },
            ),
            ("any", Rate { bytes: 0, ..rate }),
            (
                "more packets",
                Rate {
                    packets: 101,
                    ..rate
                },
            ),
            (
                "more at once",
                Rate {
                    burst: 3001,
                    ..rate
                },
            ),
            (
                "less",
                Rate {
                    bytes: 1,
                    packets: 1,
                    burst: 0,
                },
            ),
        ]
        .map(|(name, rate)| format!("{name} {}", set(rate)));
        talk.tell(&said.join(", "))
    })?;
    let user = owner.talk.hear()?;
    owner.finish(Duration::from_secs(10) * ctx.scale)?;
    Ok(format!(
        "sizes {sizes}, reserved {reserved}, burst {burst}, locked {two}, no memory {wild}; user: {user}"
    ))
}

/// What `vsockctl limit` prints, without blanks, or that it refuses.
fn limit(cid: u64, arguments: &str) -> Try<String> {
    let output = Command::new("/lab/t3/vsockctl")
        .args(["--format", "json", "limit", &cid.to_string()])
        .args(arguments.split_whitespace())
        .output()?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        return Ok(if why.starts_with("vsockctl: ") {
            "refused".to_owned()
        } else {
            format!("it fails: {why}")
        });
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split_whitespace().collect())
}

/// The value of a field in what [`limit`] returned.
fn field(text: &str, name: &str) -> String {
    let name = format!("\"{name}\":");
    let Some((_, rest)) = text.split_once(&name) else {
        return text.to_owned();
    };
    let end = rest.find([',', '}']).unwrap_or(rest.len());
    let end = match rest.starts_with('[') {
        true => rest.find("]]").map_or(end, |at| at + 2),
        false => end,
    };
    rest[..end].to_owned()
}

fn vsockctl(ctx: &mut Ctx) -> Try<String> {
    let mut dev = Setup::default().open()?;
    let fields = |text: &str| ["max_connections", "ports", "users"].map(|name| field(text, name));
    let before = fields(&limit(dev.cid, "")?).join(", ");
    let after = limit(
        dev.cid,
        "--connections 5 --ports 4000-4001,4005 --users 7-8 --packets-from-guest 100 --burst 50 --lock",
    )?;
    let rate = Rate {
        packets: 100,
        burst: 50_000,
        ..Rate::default()
    };
    flood(&mut dev, 0, Duration::from_millis(300));
    let (packets, time) = flood(&mut dev, 0, Duration::from_secs(3));
    let held = verdict_of(packets, 0, time, &rate);
    let more = limit(dev.cid, "--connections 6")?;
    let less = limit(dev.cid, "--connections 4")?;
    let less = match field(&less, "max_connections") {
        most if most == "4" => "ok, 4".to_owned(),
        other => other,
    };
    let cid = dev.cid;
    let mut user = talk::fork(move |talk| {
        process::become_user(UID)?;
        talk.tell(&limit(cid, "--connections 3")?)
    })?;
    let by_user = user.talk.hear()?;
    user.finish(Duration::from_secs(20) * ctx.scale)?;
    let nobody = limit(device::fresh_cid(), "")?;
    Ok(format!(
        "before: {before}; after: {}, 100 packets: {held}, locked {}; more: {more}, less: {less}; \
         a user: {by_user}; nobody's CID: {nobody}",
        fields(&after).join(", "),
        field(&after, "locked")
    ))
}
