// SPDX-License-Identifier: GPL-2.0

//! What a guest may do, and who may do something with it: attributes of the descriptor, and ways
//! around them.

use super::{case, Case, Ctx};
use crate::{
    abi,
    attr::{attr, get_bytes, list, set_bytes, words, ALL, MAX_CONNECTIONS, PORTS, USERS},
    device::{self, Device, Setup},
    host::{self, verdict, Socket},
    observe::received,
    packet,
    sys::{self, process},
    talk, Try,
};
use std::{fs::File, io, time::Duration};

/// Why C has none of it.
const NONE: &str = "C has no attributes";

const PORT: u32 = 4000;
const UID: u32 = 4242;

pub const CASES: &[Case] = &[
    case(
        "POL-01/two-connections",
        "host ok, guest RESPONSE, host EACCES, guest RST: denied 2 connections, 0 ports, 0 users; \
         the first two: ok, data RW; one less: ok",
        |_| connections(),
    )
    .not_on_c(NONE),
    case(
        "POL-02/ports-of-the-host",
        "4000 RESPONSE, 4001 RST, 4002 RESPONSE; none: RST; denied 0 connections, 2 ports, 0 users",
        |_| ports(),
    )
    .not_on_c(NONE),
    case(
        "POL-03/users-of-the-host",
        "root EACCES, another one EACCES, the user ok; denied 0 connections, 0 ports, 2 users",
        users,
    )
    .not_on_c(NONE),
    case(
        "POL-04/owner-only-tightens",
        "10: ok, 20: EPERM, 0: EPERM, 5: ok; 100-200: ok, 100-201: EPERM, 150-160: ok, all: EPERM, \
         none: ok, 150-160: EPERM; user 7: ok, 8: EPERM; root 20: ok, all: ok",
        tightens,
    )
    .not_on_c(NONE),
    case(
        "POL-05/ways-around",
        "dup EACCES, fork EACCES, new CID EACCES, RESET_OWNER ENOTTY 1, SET_OWNER EBUSY 1, second device EADDRINUSE",
        ways_around,
    )
    .not_on_c(NONE),
    case(
        "POL-06/nonsense",
        "no attribute EOPNOTSUPP EOPNOTSUPP, sizes EINVAL EINVAL EINVAL, 65 entries E2BIG, \
         2-1 EINVAL, entries for all EINVAL, no memory EFAULT EFAULT; small room ENOSPC 24; \
         read 1 2 100-200 300-300",
        |_| nonsense(),
    )
    .not_on_c(NONE),
];

fn most(file: &File, connections: u32) -> String {
    verdict(set_bytes(file, MAX_CONNECTIONS, &words(&[connections])))
}

fn allow_ports(file: &File, first: u32, last: u32) -> String {
    verdict(set_bytes(file, PORTS, &list(1, &[first, last])))
}

fn denied(dev: &Device) -> String {
    format!("denied {}", dev.info("denied").join(" "))
}

/// What the guest gets that asks for a connection to a port of the host.
fn ask(dev: &mut Device, guest: u32, port: u32) -> Try<String> {
    let request = dev.header(packet::REQUEST, guest, port);
    dev.send(request.with(|h| h.buf_alloc = host::GUEST_BUFFER), &[])?;
    received(dev, "nothing")
}

/// What somebody of the host gets who begins to connect to the guest.
fn connect(cid: u64, port: u32) -> Try<String> {
    Ok(verdict(Socket::stream()?.connect(cid, port)))
}

fn connections() -> Try<String> {
    let mut dev = Setup::default().open()?;
    most(dev.file(), 2);
    let listener = Socket::listener(libc::SOCK_STREAM, PORT, 8)?;
    let first = host::connect_stream(&mut dev)?;
    let second = host::accept(&mut dev, &listener, libc::SOCK_STREAM, 5000)?;
    let third = connect(dev.cid, 7001)?;
    let fourth = ask(&mut dev, 5001, PORT)?;
    let denied = denied(&dev);
    let sent = verdict(
        first
            .socket
            .send(b"x")
            .and_then(|_| second.socket.send(b"y")),
    );
    let data = received(&mut dev, "nothing")?;
    let data = if data == "RW RW" { "RW" } else { &data };
    let rst = first.header(&dev, packet::RST);
    dev.send(rst, &[])?;
    dev.settle()?;
    let then = connect(dev.cid, 7002)?;
    Ok(format!(
        "host ok, guest RESPONSE, host {third}, guest {fourth}: {denied}; \
         the first two: {sent}, data {data}; one less: {then}"
    ))
}

fn ports() -> Try<String> {
    let mut dev = Setup::default().open()?;
    let listeners = (PORT..PORT + 3)
        .map(|port| Socket::listener(libc::SOCK_STREAM, port, 8))
        .collect::<io::Result<Vec<_>>>()?;
    let ranges = list(2, &[PORT, PORT, PORT + 2, u32::MAX - 1]);
    set_bytes(dev.file(), PORTS, &ranges)?;
    let mut seen = Vec::new();
    for port in PORT..PORT + 3 {
        seen.push(format!("{port} {}", ask(&mut dev, 5000, port)?));
    }
    set_bytes(dev.file(), PORTS, &list(0, &[]))?;
    let none = ask(&mut dev, 5001, PORT)?;
    drop(listeners);
    Ok(format!(
        "{}; none: {none}; {}",
        seen.join(", "),
        denied(&dev)
    ))
}

fn users(ctx: &mut Ctx) -> Try<String> {
    let dev = Setup::default().open()?;
    set_bytes(dev.file(), USERS, &list(1, &[UID]))?;
    let cid = dev.cid;
    let as_user = |uid| -> Try<String> {
        let mut user = talk::fork(move |talk| {
            process::become_user(uid)?;
            talk.tell(&connect(cid, 7000)?)
        })?;
        let said = user.talk.hear()?;
        user.finish(Duration::from_secs(10) * ctx.scale)?;
        Ok(said)
    };
    let (root, other, user) = (connect(cid, 7000)?, as_user(UID + 1)?, as_user(UID)?);
    Ok(format!(
        "root {root}, another one {other}, the user {user}; {}",
        denied(&dev)
    ))
}

fn tightens(ctx: &mut Ctx) -> Try<String> {
    let file = device::open_file()?;
    let shared = file.try_clone()?;
    let mut owner = talk::fork(move |talk| {
        process::become_user(UID)?;
        let numbers = [10, 20, 0, 5].map(|n| format!("{n}: {}", most(&shared, n)));
        let mut ports = [(100, 200), (100, 201), (150, 160)]
            .map(|(first, last)| format!("{first}-{last}: {}", allow_ports(&shared, first, last)))
            .to_vec();
        ports.push(format!(
            "all: {}",
            verdict(set_bytes(&shared, PORTS, &words(&ALL)))
        ));
        ports.push(format!(
            "none: {}",
            verdict(set_bytes(&shared, PORTS, &list(0, &[])))
        ));
        ports.push(format!("150-160: {}", allow_ports(&shared, 150, 160)));
        let user = [7, 8].map(|uid| {
            let ret = set_bytes(&shared, USERS, &list(1, &[uid]));
            format!("{uid}: {}", verdict(ret))
        });
        talk.tell(&format!(
            "{}; {}; user {}",
            numbers.join(", "),
            ports.join(", "),
            user.join(", ")
        ))
    })?;
    let said = owner.talk.hear()?;
    owner.finish(Duration::from_secs(10) * ctx.scale)?;
    let root = most(&file, 20);
    let all = verdict(set_bytes(&file, PORTS, &words(&ALL)));
    Ok(format!("{said}; root 20: {root}, all: {all}"))
}

fn ways_around(ctx: &mut Ctx) -> Try<String> {
    let mut dev = Setup::default().open()?;
    most(dev.file(), 1);
    let peer = host::connect_stream(&mut dev)?;
    let raise = |file: &File| most(file, 9);
    let (file, again) = (dev.file().try_clone()?, dev.file().try_clone()?);
    // What a VMM may do that was taken over: it has the descriptor, and is not root.
    let cid = dev.cid;
    let other_cid = device::fresh_cid();
    let mut vmm = talk::fork(move |talk| {
        process::become_user(UID)?;
        let dup = raise(&file);
        if dup != "EPERM" {
            return talk.tell(&format!("raised: {dup}"));
        }
        talk.tell(&connect(cid, 7001)?)
    })?;
    let dup = connect(cid, 7001)?;
    let fork = vmm.talk.hear()?;
    vmm.finish(Duration::from_secs(10) * ctx.scale)?;
    let second = device::open_file()?;
    let mut arg = abi::arg(&[&cid.to_ne_bytes()]);
    let second = verdict(sys::ioctl(&second, abi::SET_GUEST_CID, &mut arg));
    // The connection of the old CID is not one of the new one; there is one more, not nine.
    dev.set_cid(other_cid)?;
    dev.cid = other_cid;
    let one = host::connect_stream(&mut dev)?;
    let new = connect(other_cid, 7001)?;
    drop((one, peer));
    dev.run(false)?;
    let limit = |file: &File| {
        let (_, value, _) = get_bytes(file, MAX_CONNECTIONS, 4);
        u32::from_ne_bytes([value[0], value[1], value[2], value[3]])
    };
    // No vhost device of vsock has the first one.
    let owners = [abi::RESET_OWNER, abi::SET_OWNER].map(|cmd| {
        let ret = verdict(dev.io(cmd, &mut abi::arg(&[])));
        format!("{ret} {}", limit(&again))
    });
    Ok(format!(
        "dup {dup}, fork {fork}, new CID {new}, RESET_OWNER {}, SET_OWNER {}, \
         second device {second}",
        owners[0], owners[1]
    ))
}

fn nonsense() -> Try<String> {
    let file = device::open_file()?;
    let set = |number, value: &[u8]| verdict(set_bytes(&file, number, value));
    let unknown = format!("{} {}", set(9, &[0; 4]), verdict(get_bytes(&file, 9, 4).0));
    let sizes = [
        set(MAX_CONNECTIONS, &[0; 8]),
        set(PORTS, &[0; 4]),
        set(PORTS, &list(2, &[1, 2])),
    ];
    let many = set(USERS, &list(65, &[7; 65]));
    let backwards = set(PORTS, &list(1, &[2, 1]));
    let both = set(PORTS, &words(&[0, 1, 1, 2]));
    let wild = |cmd| verdict(sys::ioctl(&file, cmd, &mut attr(MAX_CONNECTIONS, 4, 8)));
    let wild = format!("{} {}", wild(abi::SET_ATTR), wild(abi::GET_ATTR));
    set(PORTS, &list(2, &[100, 200, 300, 300]));
    let (small, _, size) = get_bytes(&file, PORTS, 8);
    let (_, value, _) = get_bytes(&file, PORTS, 100);
    let word = |n: usize| {
        let at = n * 4;
        u32::from_ne_bytes([value[at], value[at + 1], value[at + 2], value[at + 3]])
    };
    Ok(format!(
        "no attribute {unknown}, sizes {}, 65 entries {many}, 2-1 {backwards}, \
         entries for all {both}, no memory {wild}; small room {} {size}; \
         read {} {} {}-{} {}-{}",
        sizes.join(" "),
        verdict(small),
        word(0),
        word(1),
        word(2),
        word(3),
        word(4),
        word(5)
    ))
}
