// SPDX-License-Identifier: GPL-2.0

//! What can be seen from outside: the directory `vsock` of debugfs.

use crate::{
    conn::Conn,
    rx_queue::RxQueue,
    slots, //
};
use kernel::{
    fmt,
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    sync::Arc, //
};
use kernel_ext::{
    clock::ticks_since,
    debugfs::{
        Dir,
        Lines,
        List, //
    },
    rcu::RcuSlot,
    sock::VsockSock,
    sock_table::Place, //
};
use vsock_proto::{
    addr::Addr,
    conn::State,
    header::SocketType, //
};

/// The directory, while this module is loaded.
static DIR: RcuSlot<Dir> = RcuSlot::new();

/// The directory that other modules may put their files into.
///
/// # Errors
///
/// `ENODEV` if this module is not ready yet, or about to go.
pub fn dir() -> Result<Arc<Dir>> {
    DIR.get().ok_or(ENODEV)
}

/// The files of this module; dropping it takes the directory away, which nobody else uses by then.
#[pin_data]
pub(crate) struct Files {
    place: InPlace,
    #[pin]
    version: List<Version>,
    #[pin]
    connections: List<Connections>,
}

impl Files {
    /// Makes the directory and the files.
    ///
    /// # Errors
    ///
    /// `ENOMEM`. It is none if there is no debugfs.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(|| {
            let dir = Dir::new(c"vsock")?;
            drop(DIR.swap(Some(dir.clone())));
            Ok(try_pin_init!(Self {
                place: InPlace,
                version <- List::new(dir.clone(), c"version"),
                connections <- List::new(dir, c"connections"),
            }))
        })
    }
}

/// That the directory is in its place.
struct InPlace;

impl Drop for InPlace {
    fn drop(&mut self) {
        drop(DIR.swap(None));
    }
}

struct Version;

#[vtable]
impl Lines for Version {
    type Place = ();

    const TITLE: &'static str = concat!("vsock-rust ", kernel_ext::__version!());

    fn show((): (), _out: &SeqFile) -> Option<()> {
        None
    }
}

/// All connections, those that a user only tries to make and those that are over included.
struct Connections;

#[vtable]
impl Lines for Connections {
    /// Which transport, and where in its table.
    type Place = (usize, Place);

    const TITLE: &'static str = "transport type state netns local peer unread messages rx_memory \
                                 in_flight unsent tx_memory window received sent blocked idle_ms";

    fn show((mut index, mut place): Self::Place, out: &SeqFile) -> Option<Self::Place> {
        while let Some((name, slot)) = slots::ALL.get(index) {
            let shown = slot.look(place, |found| {
                let (seen, net) = (Seen::of(found.sock, &found.conn), found.sock.net().inum());
                seq_print!(out, "{name} {} {} {net} {seen}\n", seen.ty, seen.state);
            });
            if let Some(((), place)) = shown {
                return Some((index, place));
            }
            (index, place) = (index.saturating_add(1), Place::default());
        }
        None
    }
}

/// What a connection is at one moment.
struct Seen {
    ty: &'static str,
    state: &'static str,
    local: Addr,
    peer: Addr,
    unread: usize,
    messages: u32,
    rx_memory: usize,
    in_flight: u32,
    unsent: u32,
    tx_memory: usize,
    window: u32,
    received: u64,
    sent: u64,
    blocked: Blocked,
    /// [Ticks](kernel_ext::clock::ticks) at the last packet.
    last: u32,
}

/// What a writer waits for.
enum Blocked {
    No,
    /// For room in the buffer of the peer, or in our own if that is smaller; since then.
    Credit(u32),
    /// Until memory of what was sent is freed.
    Memory,
}

impl Seen {
    /// Looks at a connection.
    fn of(sock: &VsockSock, conn: &Conn) -> Self {
        let tx_memory = sock.send_memory();
        let ty = match conn.ty() {
            SocketType::Stream => "stream",
            SocketType::SeqPacket => "seqpacket",
        };
        let gate = conn.gate();
        let state = match gate.link.state() {
            _ if gate.link.is_done() => "over",
            State::Listen => "listening",
            State::Connecting => "connecting",
            State::Established if gate.discard => "orphaned",
            State::Established => "established",
            State::Closing => "closing",
            State::Closed => "closed",
        };
        let blocked = if gate.tx.is_stalled() {
            Blocked::Credit(gate.stalled_at)
        } else if tx_memory >= RxQueue::limit(gate.rx.buf_alloc()) {
            Blocked::Memory
        } else {
            Blocked::No
        };
        Self {
            ty,
            state,
            local: Addr::new(gate.ends.local_cid, gate.ends.local_port),
            peer: gate.ends.peer,
            unread: gate.queue.bytes(),
            messages: gate.queue.messages(),
            rx_memory: gate.queue.memory(),
            in_flight: gate.tx.in_flight(),
            unsent: gate.tx.unsent(),
            tx_memory,
            window: gate.tx.peer_buf_alloc(),
            received: gate.rx.total(),
            sent: gate.tx.total(),
            blocked,
            last: gate.last,
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            local,
            peer,
            unread,
            messages,
            rx_memory,
            in_flight,
            unsent,
            tx_memory,
            window,
            received,
            sent,
            ..
        } = self;
        f.write_fmt(fmt!(
            "{}:{} {}:{} {unread} {messages} {rx_memory} {in_flight} {unsent} {tx_memory} {window} \
             {received} {sent} ",
            local.cid.get(),
            local.port.get(),
            peer.cid.get(),
            peer.port.get()
        ))?;
        match self.blocked {
            Blocked::No => f.write_str("-")?,
            Blocked::Credit(since) => f.write_fmt(fmt!("credit:{}", ticks_since(since)))?,
            Blocked::Memory => f.write_str("memory")?,
        }
        f.write_fmt(fmt!(" {}", ticks_since(self.last)))
    }
}
