// SPDX-License-Identifier: GPL-2.0

//! Nobody waits for a user who stands in a call on a socket ([`crate::stuck`]): no VMM, no device,
//! no worker, and no other connection. What comes meanwhile is not lost.

use super::{case, Case, Ctx};
use crate::{
    device::{Device, Setup},
    host::{self, verdict, Peer, Socket},
    note, packet,
    stuck::{Call, Outcome, Stuck},
    sys::{process, socket},
    talk::{self, Partner},
    Try,
};
use std::{
    fmt,
    time::{Duration, Instant},
};

pub const CASES: &[Case] = &[
    case("ST-01/vmm-is-killed", "in time", |ctx| {
        in_each_state(ctx, State::wrong_after, killed)
    })
    .seconds(90),
    case("ST-02/device-is-closed", "in time", |ctx| {
        in_each_state(ctx, State::wrong_after, |_, vmm| vmm.tell(CLOSE))
    })
    .seconds(90),
    case("ST-03/cid-is-changed-and-device-closed", "in time", |ctx| {
        in_each_state(ctx, State::wrong_after, changed)
    })
    .seconds(90),
    case(
        "ST-04/former-device-with-the-cid-is-closed",
        "in time",
        |ctx| in_each_state(ctx, State::wrong_if_over, |_, vmm| vmm.tell(CLOSE_FORMER)),
    )
    .seconds(90),
    case(
        "ST-05/next-device-with-the-cid-is-closed",
        "in time",
        |ctx| in_each_state(ctx, State::wrong_after, next),
    )
    .seconds(90),
    case("ST-06/unload", "refused in time", unload),
];

/// What a user stands in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Send(i32),
    Recv(i32),
    SetOption,
    Connecting,
    Listening,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Send(libc::SOCK_STREAM) => "send",
            Self::Send(_) => "send of a message",
            Self::Recv(libc::SOCK_STREAM) => "recv",
            Self::Recv(_) => "recv of a message",
            Self::SetOption => "setsockopt",
            Self::Connecting => "setsockopt while connecting",
            Self::Listening => "setsockopt of a listener",
        })
    }
}

const STATES: [State; 7] = [
    State::Send(libc::SOCK_STREAM),
    State::Send(libc::SOCK_SEQPACKET),
    State::Recv(libc::SOCK_STREAM),
    State::Recv(libc::SOCK_SEQPACKET),
    State::SetOption,
    State::Connecting,
    State::Listening,
];

/// Where a listener is.
const PORT: u32 = 4322;
/// Where the guest is.
const GUEST: u32 = 7000;
/// What a reader has before it begins.
pub(super) const FIRST: usize = 1000;

/// Bytes that a guest sends, from some place in the stream on.
pub(super) fn stream(from: usize, len: usize) -> Vec<u8> {
    (from..from + len)
        .map(|n| (n * 11 + n / 256) as u8)
        .collect()
}

impl State {
    pub(super) fn call(self) -> Call {
        match self {
            Self::Send(_) => Call::Send,
            Self::Recv(_) => Call::Recv,
            _ => Call::SetOption,
        }
    }

    /// A socket in that state, as the guest sees it.
    pub(super) fn prepare(self, dev: &mut Device) -> Try<Peer> {
        match self {
            Self::Send(kind) => host::connect(dev, kind, GUEST),
            Self::SetOption => host::connect(dev, libc::SOCK_STREAM, GUEST),
            Self::Recv(kind) => {
                let peer = host::connect(dev, kind, GUEST)?;
                let header = peer.header(dev, packet::RW).with(|h| h.flags = packet::EOM);
                dev.send_rw(header, &stream(0, FIRST))?;
                Ok(peer)
            }
            Self::Connecting => {
                let socket = Socket::stream()?;
                // Longer than a user is stuck.
                socket.set_connect_timeout(Duration::from_secs(10))?;
                socket.connect(dev.cid, GUEST)?;
                let host = dev.expect(packet::REQUEST)?.header.src_port;
                Ok(Peer {
                    socket,
                    guest: GUEST,
                    host,
                    ty: packet::STREAM,
                })
            }
            Self::Listening => {
                let socket = Socket::listener(libc::SOCK_STREAM, PORT, 8)?;
                // One that nobody accepted yet.
                let request = dev.header(packet::REQUEST, GUEST - 1, PORT);
                dev.send(request, &[])?;
                dev.expect(packet::RESPONSE)?;
                Ok(Peer {
                    socket,
                    guest: GUEST,
                    host: PORT,
                    ty: packet::STREAM,
                })
            }
        }
    }

    /// What is wrong with a socket to which nothing happened.
    fn wrong_if_over(self, socket: &Socket, outcome: &Outcome) -> Try<Option<String>> {
        let (error, (bytes, end)) = match self {
            Self::Listening => return self.wrong_after(socket, outcome),
            // There is nothing to read yet.
            Self::Connecting => (socket.error()?, (Vec::new(), "EAGAIN".to_owned())),
            _ => ("ok".to_owned(), socket.drain()),
        };
        let good = error == "ok" && end == "EAGAIN" && bytes.is_empty();
        let wrong = format!("{}, {error}, {} bytes, {end}", outcome.result, bytes.len());
        Ok((!good || outcome.result.starts_with('E')).then_some(wrong))
    }

    /// What is wrong with a socket after its guest is gone and the user goes on; nothing if it is
    /// over, or listens.
    fn wrong_after(self, socket: &Socket, outcome: &Outcome) -> Try<Option<String>> {
        let wrong = match self {
            Self::Listening => {
                let client = Socket::stream()?;
                client.connect(1, PORT)?;
                let connected = client.wait_writable(Duration::from_secs(10))?;
                (!connected || client.error()? != "ok").then(|| "does not listen".to_owned())
            }
            Self::Connecting => {
                let error = socket.error()?;
                (error != "ECONNRESET").then(|| format!("connect: {error}"))
            }
            _ => {
                let (mut bytes, end) = socket.drain();
                bytes.splice(0..0, outcome.bytes.iter().copied());
                let all = match self {
                    Self::Recv(libc::SOCK_STREAM) => FIRST,
                    // A message is lost with its connection.
                    Self::Recv(_) => bytes.len(),
                    _ => 0,
                };
                let over = ["end", "ECONNRESET"].contains(&end.as_str());
                (!over || bytes != stream(0, all))
                    .then(|| format!("{} bytes, then {end}", bytes.len()))
            }
        };
        Ok(wrong)
    }
}

/// How long what must not wait may take.
fn limit(ctx: &Ctx) -> Duration {
    match ctx.counted {
        true => Duration::from_millis(20),
        false => Duration::from_secs(1) * ctx.scale.min(3),
    }
}

/// For how long a user is stuck at most: much longer than that.
pub(super) fn patience(ctx: &Ctx) -> Duration {
    Duration::from_millis(2500) * ctx.scale.min(3)
}

/// What was measured, and what of it is too long or wrong.
pub(super) struct Verdict {
    limit: Duration,
    times: Vec<String>,
    bad: Vec<String>,
}

impl Verdict {
    pub(super) fn new(ctx: &Ctx) -> Self {
        Self {
            limit: limit(ctx),
            times: Vec::new(),
            bad: Vec::new(),
        }
    }

    /// Something took that long.
    pub(super) fn took(&mut self, what: impl fmt::Display, time: Duration) {
        let text = format!("{what} {:.3} s", time.as_secs_f64());
        if time > self.limit {
            self.bad.push(text.clone());
        }
        self.times.push(text);
    }

    /// Something is not as it should be, if there is anything.
    pub(super) fn wrong(&mut self, what: impl fmt::Display, wrong: Option<String>) {
        self.bad
            .extend(wrong.map(|wrong| format!("{what}: {wrong}")));
    }

    /// The outcome of a case: that all is well, or what is not.
    pub(super) fn outcome(self, well: &str) -> Try<String> {
        note(self.times.join(", "));
        Ok(if self.bad.is_empty() {
            well.to_owned()
        } else {
            format!("after {}", self.bad.join(", "))
        })
    }
}

/// A VMM, which does as it is told: only this process has its devices open. The device's CID was
/// that of another device of it before.
struct Vmm {
    partner: Partner,
    cid: u64,
}

/// What a VMM is told.
const CLOSE: &str = "close the device";
const CLOSE_FORMER: &str = "close the device that had the CID before";
const CHANGE: &str = "set another CID";
const END: &str = "end";

impl Vmm {
    /// A VMM, and a socket in a state, which is somebody else's.
    fn new(state: State) -> Try<(Self, Socket)> {
        let (ours, theirs) = socket::pair()?;
        let mut partner = talk::fork(move |talk| {
            let former = Setup::default().open()?;
            let cid = former.cid;
            former.set_cid(cid + 64)?;
            let setup = Setup {
                cid: Some(cid),
                ..Setup::default()
            };
            let mut dev = setup.open()?;
            let peer = state.prepare(&mut dev)?;
            socket::send_fd(&theirs, &peer.socket)?;
            drop(peer);
            talk.tell(&cid.to_string())?;
            let (mut dev, mut former) = (Some(dev), Some(former));
            loop {
                match (talk.hear()?.as_str(), &dev) {
                    (CLOSE, _) => drop(dev.take()),
                    (CLOSE_FORMER, _) => drop(former.take()),
                    (CHANGE, Some(dev)) => dev.set_cid(cid + 128)?,
                    _ => return Ok(()),
                }
                talk.tell("done")?;
            }
        })?;
        let cid = partner.talk.hear()?.parse();
        let cid = cid.map_err(|_| "the VMM does not say its CID")?;
        let socket = Socket::from(socket::recv_fd(&ours)?);
        Ok((Self { partner, cid }, socket))
    }

    fn tell(&mut self, what: &str) -> Try<()> {
        self.partner.talk.tell(what)?;
        self.partner.talk.hear()?;
        Ok(())
    }

    fn end(mut self, ctx: &Ctx) -> Try<()> {
        if self.partner.process.wait(Duration::ZERO)?.is_some() {
            return Ok(());
        }
        self.partner.talk.tell(END)?;
        self.partner.finish(patience(ctx) * 3)
    }
}

/// What is wrong with a socket when the user goes on, if anything is.
type Check = fn(State, &Socket, &Outcome) -> Try<Option<String>>;

/// Something is done in each state while a user is stuck; how long that takes, and whether the
/// socket is as it should be when the user goes on.
fn in_each_state(ctx: &Ctx, check: Check, end: fn(&Ctx, &mut Vmm) -> Try<()>) -> Try<String> {
    let mut verdict = Verdict::new(ctx);
    for state in STATES {
        let (mut vmm, socket) = Vmm::new(state)?;
        let stuck = Stuck::begin(&socket, state.call(), patience(ctx))?;
        let begin = Instant::now();
        end(ctx, &mut vmm)?;
        verdict.took(state, begin.elapsed());
        let outcome = stuck.let_go()?;
        verdict.wrong(state, check(state, &socket, &outcome)?);
        vmm.end(ctx)?;
    }
    verdict.outcome("in time")
}

fn killed(ctx: &Ctx, vmm: &mut Vmm) -> Try<()> {
    let process = &mut vmm.partner.process;
    process.kill(libc::SIGKILL);
    match process.wait(patience(ctx) * 3)? {
        Some(status) if status == -libc::SIGKILL => {}
        status => return Err(format!("the VMM ended with {status:?}").into()),
    }
    Ok(())
}

/// The guest gets another CID; its connections go with the device.
fn changed(_: &Ctx, vmm: &mut Vmm) -> Try<()> {
    vmm.tell(CHANGE)?;
    vmm.tell(CLOSE)
}

/// Another guest gets the CID, and ends.
fn next(_: &Ctx, vmm: &mut Vmm) -> Try<()> {
    vmm.tell(CHANGE)?;
    let setup = Setup {
        cid: Some(vmm.cid),
        ..Setup::default()
    };
    drop(setup.open()?);
    vmm.tell(CLOSE)
}

/// Modules that are in use.
fn unload(ctx: &mut Ctx) -> Try<String> {
    let state = State::Send(libc::SOCK_STREAM);
    let (mut vmm, socket) = Vmm::new(state)?;
    let stuck = Stuck::begin(&socket, state.call(), patience(ctx))?;
    let mut all = Verdict::new(ctx);
    for module in [
        c"vhost_vsock",
        c"vmw_vsock_virtio_transport_common",
        c"vsock",
    ] {
        let name = module.to_string_lossy();
        let begin = Instant::now();
        let result = verdict(process::remove_module(module));
        all.took(&name, begin.elapsed());
        let refused = ["EAGAIN", "EBUSY"].contains(&result.as_str());
        all.wrong(&name, (!refused).then_some(result));
    }
    vmm.tell(CLOSE)?;
    stuck.let_go()?;
    vmm.end(ctx)?;
    all.outcome("refused in time")
}
