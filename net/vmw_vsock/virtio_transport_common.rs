// SPDX-License-Identifier: GPL-2.0

//! The virtio-vsock protocol on sockets, for the carriers of its packets: guest driver, host device
//! and loopback.
//!
//! A carrier implements [`Carrier`], registers itself with a [`Registration`], gives the packets it
//! gets to [`receive`](recv::receive), and moves those it is given by [`Carrier::send`].
//!
//! # Layers
//!
//! Each file uses those before it only: `convert`, `kinds`, `rx_queue`, `conn` (the state of a
//! connection behind its gate), `packet`, `outgoing`, `armed` and `watch` (what is done once in a
//! second), `carrier`, `tables` (how packets find a connection), `control` (packets without
//! payload), `close`, `keepalive` (peers that say nothing), then the ways in (`accept`, `recv`) and
//! out (`send`), and `ops`, which the socket layer calls. Beside them, `slots` is where the
//! transports are registered, `seen` shows people their connections, and `rooms` is memory for
//! payloads that is used again.
//!
//! # Lock order
//!
//! Outer to inner: locks of the carrier that are held while it calls [`receive`](recv::receive) (a
//! queue's mutex) < socket lock < gate of a connection < [`SendQueue`]'s lock. A socket lock is
//! never waited for while a lock of a carrier is held: it is tried, or what was to be done with it
//! is left to its owner ([`close`]). [`Carrier::send`] may be called with the socket locked, not
//! with a gate shut; it must not sleep, nor take what is before the socket lock other than by
//! trying.
//!
//! # Ownership
//!
//! The state of a socket is a [`Conn`], counted: the socket has one reference from `init` to
//! `destruct`, each packet that it sends another, and the table of connections one of it and one of
//! the socket while packets find it. A packet has its payload and its accounting; dropping it,
//! wherever that happens, gives both back.

#![deny(unsafe_code)]

use kernel::{
    prelude::*,
    InPlaceModule, //
};

#[path = "virtio_transport_common/accept.rs"]
mod accept;
#[path = "virtio_transport_common/armed.rs"]
mod armed;
#[path = "virtio_transport_common/carrier.rs"]
mod carrier;
#[path = "virtio_transport_common/close.rs"]
mod close;
#[path = "virtio_transport_common/conn.rs"]
pub mod conn;
#[path = "virtio_transport_common/control.rs"]
mod control;
#[path = "virtio_transport_common/convert.rs"]
mod convert;
#[cfg(CONFIG_KUNIT = "y")]
#[path = "virtio_transport_common/fixtures.rs"]
mod fixtures;
#[path = "virtio_transport_common/flow.rs"]
mod flow;
#[path = "virtio_transport_common/keepalive.rs"]
mod keepalive;
#[path = "virtio_transport_common/kinds.rs"]
mod kinds;
#[cfg(CONFIG_KUNIT = "y")]
#[path = "virtio_transport_common/kunit.rs"]
mod kunit;
#[path = "virtio_transport_common/ops.rs"]
pub mod ops;
#[path = "virtio_transport_common/orphans.rs"]
pub mod orphans;
#[path = "virtio_transport_common/outgoing.rs"]
mod outgoing;
#[path = "virtio_transport_common/packet.rs"]
pub mod packet;
#[path = "virtio_transport_common/recv.rs"]
pub mod recv;
#[path = "virtio_transport_common/rooms.rs"]
pub mod rooms;
#[path = "virtio_transport_common/rx_queue.rs"]
mod rx_queue;
#[path = "virtio_transport_common/seen.rs"]
pub mod seen;
#[path = "virtio_transport_common/send.rs"]
pub mod send;
#[path = "virtio_transport_common/send_queue.rs"]
pub mod send_queue;
#[path = "virtio_transport_common/slots.rs"]
pub mod slots;
#[path = "virtio_transport_common/tables.rs"]
mod tables;
#[path = "virtio_transport_common/tap.rs"]
mod tap;
#[path = "virtio_transport_common/watch.rs"]
mod watch;

pub use carrier::{
    Carrier,
    Over, //
};
pub use close::{
    abort_connection,
    reset_connections,
    Candidate,
    Peers, //
};
pub use conn::Conn;
pub use keepalive::Watching;
pub use ops::Registration;
pub use orphans::Orphans;
pub use outgoing::Outgoing;
pub use packet::{
    Fragment,
    RxPacket,
    TxControl,
    TxPacket, //
};
pub use recv::{
    deliver_now,
    payload_lost,
    receive,
    receive_now,
    receive_rest,
    wake_later,
    Rest, //
};
pub use rooms::{
    Aging,
    LentList,
    Owner,
    Rooms, //
};
pub use send_queue::{
    Purged,
    SendQueue,
    TxPackets, //
};
pub use watch::WatchSlot;

#[pin_data]
struct Common {
    #[pin]
    files: seen::Files,
}

impl InPlaceModule for Common {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // Each of the other modules loads this one.
        pr_info!("vsock-rust {}\n", kernel_ext::version::VERSION);
        try_pin_init!(Self {
            files <- seen::Files::new(),
        })
    }
}

module! {
    type: Common,
    name: "vmw_vsock_virtio_transport_common",
    authors: ["vsock-rust developers"],
    description: "Common code for virtio vsock, in Rust",
    license: "GPL",
}

kernel_ext::module_version!();
