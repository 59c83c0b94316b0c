// SPDX-License-Identifier: GPL-2.0

//! Who sends fills the guest's buffers, if that can be done at once; the worker does the rest.

use super::{case, rx, Case, Ctx};
use crate::{
    abi::feature,
    device::{Device, Setup, BUFFERS, RX, TX},
    host::{self, Peer, Socket},
    note,
    observe::answers,
    packet::{self, Packet, EOM},
    ring::Desc,
    sys::{memory::Mapping, socket},
    Try,
};
use std::{
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Why the C modules are not tried.
const NO_FDINFO: &str = "C says nothing of itself";

pub const CASES: &[Case] = &[
    case("DT-01/bytes-of-8-threads", "all bytes in order", |_| {
        in_order(8, |_, _| Ok(()))
    })
    .parallel()
    .seconds(60),
    case(
        "DT-02/two-threads-while-the-device-is-stopped-and-started",
        "all bytes in order",
        |_| in_order(2, |dev, n| Ok(dev.run(n % 2 == 1)?)),
    )
    .parallel()
    .seconds(60),
    case(
        "DT-03/available-index-jumps-while-somebody-sends",
        "answers",
        |ctx| {
            while_sending(ctx, |dev, n| {
                let index = dev.q[RX].avail_idx;
                dev.q[RX].set_avail_idx(index.wrapping_add([1, 300, 0x8000, 0xffff][n % 4]));
                dev.q[RX].set_avail_idx(index);
                Ok(())
            })
        },
    )
    .parallel()
    .seconds(60),
    case(
        "DT-04/ring-without-memory-while-somebody-sends",
        "answers",
        |ctx| {
            while_sending(ctx, |dev, _| {
                let used = (dev.ring_addr(RX).used - dev.mem.addr()) as usize & !4095;
                dev.mem.protect(used, 4096, libc::PROT_NONE)?;
                thread::yield_now();
                Ok(dev
                    .mem
                    .protect(used, 4096, libc::PROT_READ | libc::PROT_WRITE)?)
            })
        },
    )
    .parallel()
    .seconds(60),
    case(
        "DT-05/chain-of-300-descriptors",
        "0 sent at once, 1 packet of 5 bytes",
        |_| long_chain(),
    )
    .not_on_c(NO_FDINFO),
    case(
        "DT-06/sent-at-once-when-the-worker-was-there",
        "some of 20, all bytes in order",
        |_| at_once(),
    )
    .not_on_c(NO_FDINFO),
    case(
        "DT-07/sent-from-memory-that-nobody-touched",
        "200000 bytes of 0",
        |_| untouched(),
    ),
    case(
        "DT-08/device-is-stopped-right-after-a-packet",
        "signalled for each packet that came",
        stopped_right_after,
    )
    .seconds(60),
    case(
        "DT-09/messages-in-pieces",
        "some of 20 at once, each ends once and where it should",
        |_| in_pieces(),
    )
    .not_on_c(NO_FDINFO),
    case(
        "DT-10/end-of-a-message-is-not-there",
        "ENOMEM for 10 of 10, then 1 message of 3 bytes",
        |_| half_there(),
    ),
    case(
        "DT-11/buffers-of-a-message-become-small",
        "1 message in 31 pieces, all bytes in order",
        |_| become_small(),
    ),
];

/// What a thread sends: so many bytes, in pieces of many sizes.
const BYTES: usize = 150_000;

fn send(socket: &Socket, stop: &AtomicBool) -> Try<()> {
    let bytes = rx::pattern(BYTES);
    let (mut sent, mut size) = (0, 1);
    while sent < BYTES {
        let end = BYTES.min(sent + size);
        match socket.send(&bytes[sent..end]) {
            Ok(n) => {
                sent += n;
                size = size * 3 % 4001;
                // So that mostly nothing waits for the worker. While the device is stopped, it
                // does.
                let begin = Instant::now();
                while socket.unsent()? > 0 && begin.elapsed() < Duration::from_millis(5) {
                    thread::sleep(Duration::from_micros(50));
                }
            }
            Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EHOSTUNREACH)) => {
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                thread::sleep(Duration::from_micros(100));
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Threads that send, each on a connection of its own, to a guest that reads; meanwhile something
/// is done to the device again and again.
fn in_order(threads: u32, change: impl Fn(&Device, u32) -> Try<()> + Sync) -> Try<String> {
    let limit = Duration::from_secs(40);
    let mut dev = Setup::default().open()?;
    let peers = host::connect_streams(&mut dev, threads)?;
    let other = dev.again()?;
    let stop = AtomicBool::new(false);
    let mut got = vec![Vec::new(); peers.len()];
    thread::scope(|scope| {
        let senders: Vec<_> = peers
            .iter()
            .map(|peer| scope.spawn(|| send(&peer.socket, &stop)))
            .collect();
        let changer = scope.spawn(|| -> Try<()> {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) || n % 2 == 1 {
                n += 1;
                change(&other, n - 1)?;
                thread::sleep(Duration::from_millis(2));
            }
            // As it was.
            Ok(other.run(true)?)
        });
        let begin = Instant::now();
        while got.iter().map(Vec::len).sum::<usize>() < BYTES * peers.len() {
            if begin.elapsed() > limit {
                break;
            }
            let Some(packet) = dev.recv() else {
                thread::sleep(Duration::from_micros(100));
                continue;
            };
            let of = peers.iter().position(|p| p.host == packet.header.src_port);
            if let Some(bytes) = of.and_then(|of| got.get_mut(of)) {
                bytes.extend(packet.payload);
            }
        }
        stop.store(true, Ordering::Relaxed);
        changer.join().map_err(|_| "a thread panicked")??;
        for sender in senders {
            sender.join().map_err(|_| "a thread panicked")??;
        }
        Try::Ok(())
    })?;
    note(format!("direct: {:?}", dev.info("direct")));
    let wrong = got
        .iter()
        .filter(|bytes| **bytes != rx::pattern(BYTES))
        .count();
    Ok(match wrong {
        0 => "all bytes in order".to_owned(),
        _ => format!(
            "{wrong} of {threads} not: {:?} bytes",
            got.iter().map(Vec::len).collect::<Vec<_>>()
        ),
    })
}

/// A thread sends, while the guest does something to its ring: whatever comes of that, the device
/// answers when it was started again.
fn while_sending(ctx: &mut Ctx, change: impl Fn(&mut Device, usize) -> Try<()>) -> Try<String> {
    let time = Duration::from_millis(u64::from(ctx.rounds(1500, 20_000)));
    let (mut dev, peer) = rx::connected(Setup::default())?;
    let stop = AtomicBool::new(false);
    let mut restarts = 0;
    let begin = Instant::now();
    let mut peer = Some(peer);
    let mut n = 0;
    while begin.elapsed() < time {
        let now = peer.take().ok_or("no peer")?;
        stop.store(false, Ordering::Relaxed);
        thread::scope(|scope| {
            let sender = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // A connection may be reset.
                    let _ = now.socket.send(&[0x33; 100]);
                }
            });
            for _ in 0..200 {
                n += 1;
                change(&mut dev, n)?;
                while dev.recv().is_some() {}
            }
            stop.store(true, Ordering::Relaxed);
            sender.join().map_err(|_| "a thread panicked")?;
            Try::Ok(())
        })?;
        drop(now);
        // With rings as new.
        drop(dev);
        (dev, peer) = rx::connected(Setup::default()).map(|(dev, peer)| (dev, Some(peer)))?;
        restarts += 1;
    }
    note(format!("{restarts} devices"));
    drop(peer);
    dev.recv_all()?;
    dev.q[TX].take_all();
    Ok(if answers(&mut dev)? {
        "answers"
    } else {
        "does not answer"
    }
    .to_owned())
}

/// What a device sent at once.
fn sent_at_once(dev: &Device) -> Try<u64> {
    let line = dev.info("direct");
    let count = line.first().and_then(|line| line.split(' ').next());
    let count = count.and_then(|count| count.parse().ok());
    Ok(count.ok_or("nothing is said of that")?)
}

/// Whether a sender may fill buffers at all.
fn is_on() -> bool {
    let parameter = |module: &str, name: &str| {
        let path = format!("/sys/module/{module}/parameters/{name}");
        std::fs::read_to_string(path).is_ok_and(|value| value.trim() == "Y")
    };
    parameter("vhost_vsock", "direct") && parameter("vhost_core", "windows")
}

fn long_chain() -> Try<String> {
    let mut dev = Setup {
        num: 512,
        buffers: 8,
        ..Setup::default()
    }
    .open()?;
    let peer = host::connect_stream(&mut dev)?;
    // What is there now is taken.
    for _ in 0..8 {
        peer.socket.send(b"y")?;
        dev.settle()?;
        let _ = dev.take();
    }
    let before = sent_at_once(&dev)?;
    let flags = 2;
    let mut chain = vec![Desc::new(0x80_0000, 0).flags(flags); 299];
    chain.push(Desc::new(0x80_0000, 4096).flags(flags));
    let chain = crate::ring::chained(&chain);
    for (index, desc) in chain.iter().enumerate() {
        dev.q[RX].set(index as u16, *desc);
    }
    dev.q[RX].offer(0);
    dev.kick(RX);
    dev.settle()?;
    peer.socket.send(b"12345")?;
    dev.settle()?;
    let used = dev.q[RX].take_all();
    let lens: Vec<_> = used.iter().map(|used| used.len - 44).collect();
    let now = sent_at_once(&dev)? - before;
    Ok(match lens.as_slice() {
        [len] => format!("{now} sent at once, 1 packet of {len} bytes"),
        lens => format!("{now} sent at once, {lens:?}"),
    })
}

fn at_once() -> Try<String> {
    let (mut dev, peer) = rx::connected(Setup::default())?;
    let mut got = Vec::new();
    let mut before = 0;
    let bytes = rx::pattern(100 * 100);
    for (round, message) in bytes.chunks(100).enumerate() {
        if round == 80 {
            // The worker has seen the ring, and each of the buffers.
            before = sent_at_once(&dev)?;
        }
        peer.socket.send(message)?;
        dev.settle()?;
        let packet = dev.recv().ok_or("no packet came")?;
        got.extend(packet.payload);
    }
    let count = sent_at_once(&dev)? - before;
    note(format!("{count} of 20"));
    let order = if got == bytes {
        "in order"
    } else {
        "not in order"
    };
    Ok(match (is_on(), count) {
        (true, 0) | (false, 1..) => format!("{count} of 20, all bytes {order}"),
        _ => format!("some of 20, all bytes {order}"),
    })
}

/// The messages that `packets` are: a piece that ends none is followed by one of the same.
fn messages(packets: &[Packet]) -> Vec<Vec<u8>> {
    let mut messages = vec![Vec::new()];
    for packet in packets {
        if let Some(last) = messages.last_mut() {
            last.extend(&packet.payload);
        }
        if packet.header.flags & EOM != 0 {
            messages.push(Vec::new());
        }
    }
    messages.retain(|message| !message.is_empty());
    messages
}

/// A connection for messages to a device with 8 buffers, of which the kernel has seen all.
fn for_messages() -> Try<(Device, Peer)> {
    let mut dev = Setup::buffers(8).open()?;
    let peer = host::connect(&mut dev, libc::SOCK_SEQPACKET, 7000)?;
    for round in 1..=ROUNDS {
        in_order_to_the_end(&mut dev, &peer, round)?;
    }
    Ok((dev, peer))
}

/// In each one a window is made for one buffer, at least.
const ROUNDS: u32 = 20;
const MESSAGE: u32 = 10_000;

/// Sends a message, and says whether it came as it should; `sent` is how many there are with it.
fn in_order_to_the_end(dev: &mut Device, peer: &Peer, sent: u32) -> Try<bool> {
    let bytes = rx::pattern(MESSAGE as usize);
    peer.socket.send(&bytes)?;
    let got = messages(&dev.recv_all()?);
    // So that there is room again.
    let update = peer.header(dev, packet::CREDIT_UPDATE);
    dev.send(update.with(|h| h.fwd_cnt = MESSAGE * sent), &[])?;
    Ok(got == [bytes])
}

fn in_pieces() -> Try<String> {
    let (mut dev, peer) = for_messages()?;
    let (before, mut whole) = (sent_at_once(&dev)?, 0);
    for round in 1..=20 {
        whole += u32::from(in_order_to_the_end(&mut dev, &peer, ROUNDS + round)?);
    }
    let count = sent_at_once(&dev)? - before;
    note(format!("{count} of 20"));
    let right = if whole == 20 {
        "each ends once and where it should".to_owned()
    } else {
        format!("{whole} of 20 are as they should")
    };
    Ok(match (is_on(), count) {
        (true, 0) | (false, 1..) => format!("{count} of 20 at once, {right}"),
        _ => format!("some of 20 at once, {right}"),
    })
}

/// A message of which a part is not there was not sent, and the user may send something else.
fn half_there() -> Try<String> {
    let (mut dev, peer) = for_messages()?;
    let memory = Mapping::private(12_288)?;
    memory.fill(0, 12_288, 1);
    memory.protect(8192, 4096, libc::PROT_NONE)?;
    let send = || socket::send_mapped(peer.socket.as_fd(), &memory, MESSAGE as usize);
    let fails = (0..10).filter(|_| host::amount(send()) == "ENOMEM").count();
    peer.socket.send(b"abc")?;
    let got = messages(&dev.recv_all()?);
    let sizes: Vec<_> = got.iter().map(Vec::len).collect();
    Ok(match sizes.as_slice() {
        [len] => format!("ENOMEM for {fails} of 10, then 1 message of {len} bytes"),
        sizes => format!("ENOMEM for {fails} of 10, then messages of {sizes:?}"),
    })
}

/// A message is begun in buffers of the usual size, and goes on in ones that are smaller.
fn become_small() -> Try<String> {
    let (mut dev, peer) = for_messages()?;
    let mut taken = Vec::new();
    for _ in 0..7 {
        peer.socket.send(b"x")?;
        dev.settle()?;
        taken.push(dev.take().ok_or("no packet came")?.0.id);
    }
    // In pages that the kernel has seen, and that are not offered as a whole.
    let pages = (0..10).flat_map(|n| taken.iter().map(move |page| (page, 256 * n)));
    for (index, (page, offset)) in (20..).zip(pages) {
        let at = BUFFERS + 4096 * u64::from(*page) + offset;
        dev.post_desc(index, Desc::new(at, 244).flags(2));
    }
    dev.kick(RX);
    dev.settle()?;
    let bytes = rx::pattern(MESSAGE as usize);
    peer.socket.send(&bytes)?;
    dev.settle()?;
    let mut packets = Vec::new();
    while let Some((_, packet)) = dev.take() {
        packets.push(packet);
    }
    let got = messages(&packets);
    let order = if got == [bytes] {
        "all bytes in order"
    } else {
        "not as sent"
    };
    Ok(format!("1 message in {} pieces, {order}", packets.len()))
}

fn untouched() -> Try<String> {
    let (mut dev, peer) = rx::connected(Setup::default())?;
    let memory = Mapping::private(200_000)?;
    let (mut got, mut sent) = (Vec::new(), 0);
    while sent < memory.len() {
        let part = 50_000.min(memory.len() - sent);
        sent += socket::send_mapped(peer.socket.as_fd(), &memory, part)?;
        for packet in dev.recv_all()? {
            got.extend(packet.payload);
        }
    }
    for packet in dev.recv_all()? {
        got.extend(packet.payload);
    }
    Ok(if got.iter().all(|byte| *byte == 0) {
        format!("{} bytes of 0", got.len())
    } else {
        format!("{} bytes, some not 0", got.len())
    })
}

/// Who stops the device, and looks at the ring then, was signalled.
fn stopped_right_after(ctx: &mut Ctx) -> Try<String> {
    // The driver says with a flag what it wants, and wants every signal.
    let (mut dev, peer) = rx::connected(Setup {
        features: feature::USUAL & !feature::EVENT_IDX,
        ..Setup::default()
    })?;
    let (mut came, mut missing) = (0, 0);
    for _ in 0..ctx.rounds(500, 10_000) {
        dev.settle()?;
        dev.recv_all()?;
        dev.calls(RX);
        let before = dev.q[RX].device_used_idx();
        peer.socket.send(b"x")?;
        dev.run(false)?;
        if dev.q[RX].device_used_idx() != before {
            came += 1;
            missing += u32::from(dev.calls(RX) == 0);
        }
        dev.run(true)?;
    }
    note(format!("{came} came before the stop"));
    Ok(match missing {
        0 => "signalled for each packet that came".to_owned(),
        _ => format!("{missing} of {came} without a signal"),
    })
}
