// SPDX-License-Identifier: GPL-2.0

//! A user without privilege who stands in a call on a socket, and with it has the socket's lock:
//! the memory that the call was given is a page which the user's own file system does not answer
//! ([`crate::fuse`]).
//!
//! The user has patience for some seconds, and then answers the page: what waits for the user does
//! not wait for ever, and a case can tell for how long it did.

use crate::{
    fuse::{self, Server, PAGE},
    host::{amount, verdict, Socket},
    sys::{self, process, socket},
    talk::{self, Partner},
    Try,
};
use std::{
    fs::{self, Permissions},
    io::{Read, Write},
    os::{
        fd::AsFd,
        unix::{fs::PermissionsExt, net::UnixStream},
    },
    thread,
    time::Duration,
};

/// The user.
pub const UID: u32 = 1000;

/// What the user stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Send,
    Recv,
    SetOption,
}

/// What came of the call.
pub struct Outcome {
    /// The name of the error, or what the call returned.
    pub result: String,
    /// What it received.
    pub bytes: Vec<u8>,
}

/// A user who stands in a call.
pub struct Stuck {
    partner: Partner,
    control: UnixStream,
}

/// What a user sends.
pub fn sent() -> Vec<u8> {
    (0..PAGE).map(|n| (n * 13 + n / 256) as u8).collect()
}

/// What is in the page when it is answered at last.
fn page(call: Call) -> Vec<u8> {
    let mut page = sent();
    if call == Call::SetOption {
        page[..8].copy_from_slice(&SMALLEST.to_ne_bytes());
    }
    page
}

/// `SO_VM_SOCKETS_BUFFER_MIN_SIZE`, and a value that changes nothing.
pub const MIN_SIZE: i32 = 1;
pub const SMALLEST: u64 = 64;

/// The user's process.
fn user(
    talk: &mut talk::Talk,
    control: UnixStream,
    socket: &Socket,
    call: Call,
    patience: Duration,
) -> Try<()> {
    process::become_user(UID)?;
    process::end_with_parent()?;
    let device = fuse::mount(UID)?;
    let server = Server::new(device, page(call));
    // It ends with this process; if it fails, so does the call.
    thread::spawn(move || server.run(control, patience));
    let memory = fuse::map()?;
    let fd = socket.as_fd();
    let line = match call {
        Call::Send => amount(socket::send_mapped(fd, &memory, PAGE)),
        Call::SetOption => verdict(socket::set_vsock_option_mapped(fd, MIN_SIZE, &memory)),
        Call::Recv => match socket::recv_mapped(fd, &memory, PAGE) {
            Ok(n) => {
                let bytes = memory.read(0, n);
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{n} {hex}")
            }
            Err(e) => crate::host::errno(&e),
        },
    };
    talk.tell(&line)
}

impl Stuck {
    /// A user begins a call on a socket; returns when the user waits for the page.
    ///
    /// From then on every call of ours on that socket waits as well. To be called while this
    /// process has one thread.
    pub fn begin(socket: &Socket, call: Call, patience: Duration) -> Try<Self> {
        // As on any system; here there is no udev to do so.
        fs::set_permissions("/dev/fuse", Permissions::from_mode(0o666))?;
        let (mut control, theirs) = UnixStream::pair()?;
        let mut partner = talk::fork(move |talk| user(talk, theirs, socket, call, patience))?;
        let mut byte = [0];
        if control.read(&mut byte)? == 0 {
            let why = partner.talk.hear();
            return Err(why
                .err()
                .unwrap_or("the call does not touch its memory".into()));
        }
        Ok(Self { partner, control })
    }

    /// Whether the user still waits, and did not lose patience.
    pub fn waits(&self) -> Try<bool> {
        Ok(sys::poll(&self.control, libc::POLLIN, Duration::ZERO)? == 0)
    }

    /// The page is answered, and the call goes on.
    pub fn let_go(mut self) -> Try<Outcome> {
        // Nobody listens if the user lost patience.
        let _ = self.control.write_all(b"g");
        let line = self.partner.talk.hear()?;
        self.partner.finish(Duration::from_secs(60))?;
        let (result, hex) = line.split_once(' ').unwrap_or((&line, ""));
        let byte =
            |at| u8::from_str_radix(hex.get(at..at + 2).unwrap_or_default(), 16).unwrap_or(0);
        Ok(Outcome {
            result: result.to_owned(),
            bytes: (0..hex.len()).step_by(2).map(byte).collect(),
        })
    }
}

/// A program for a guest: a user begins a call on a connection, says so, and goes on when a line
/// comes in; then it tells what became of the call and of the socket.
///
/// The words are a CID, a port and what the user stands in: `send`, `recv` (of what the peer sends
/// back), `setsockopt`, or `connecting`, to a port that does not answer.
pub fn program(words: &[String]) -> Try<()> {
    let [cid, port, what] = words else {
        return Err("--stuck wants a CID, a port, and what is called".into());
    };
    let number = |text: &str| {
        text.parse::<u32>()
            .map_err(|_| format!("{text} is no number"))
    };
    let socket = Socket::stream()?;
    socket.connect(number(cid)?.into(), number(port)?)?;
    if what != "connecting" {
        let connected = socket.wait_writable(Duration::from_secs(20))?;
        if !connected || socket.error()? != "ok" {
            return Err("not connected".into());
        }
    }
    let call = match what.as_str() {
        "send" => Call::Send,
        "recv" => {
            socket.send(b"something to read")?;
            socket.wait_readable(Duration::from_secs(20))?;
            Call::Recv
        }
        _ => Call::SetOption,
    };
    let stuck = Stuck::begin(&socket, call, Duration::from_secs(60))?;
    println!("stuck");
    std::io::stdin().read_line(&mut String::new())?;
    let outcome = stuck.let_go()?;
    let state = match what.as_str() {
        "connecting" => socket.error()?,
        _ => socket.drain().1,
    };
    println!("then {} {state}", outcome.result);
    Ok(())
}
