// SPDX-License-Identifier: GPL-2.0

//! The virtio-vsock protocol on sockets, for the carriers of its packets: guest driver, host device
//! and loopback.
//!
//! A carrier implements [`Carrier`], registers itself with a [`Registration`], gives the packets it
//! gets to [`receive`](recv::receive), and moves those it is given by [`Carrier::send`].
//!
//! # Lock order
//!
//! Outer to inner: locks of the carrier that are held while it calls [`receive`](recv::receive)
//! (a queue's mutex) < lock of a listener < lock of its child < [`SendQueue`]'s lock and the lock of
//! the credit of a connection, of which no two are held together. [`Carrier::send`] is called with
//! the socket locked and must not sleep, nor take what is before the socket lock other than by trying.
//!
//! # Ownership
//!
//! The state of a socket is a [`Conn`], counted: the socket has one reference from `init` to
//! `destruct`, each packet that it sends another. A packet has its payload and its accounting; dropping
//! it, wherever that happens, gives both back.

#![deny(unsafe_code)]

use kernel::prelude::*;

#[path = "virtio_transport_common/close.rs"]
mod close;
#[path = "virtio_transport_common/conn.rs"]
pub mod conn;
#[cfg(CONFIG_KUNIT = "y")]
#[path = "virtio_transport_common/kunit.rs"]
mod kunit;
#[path = "virtio_transport_common/ops.rs"]
pub mod ops;
#[path = "virtio_transport_common/orphans.rs"]
pub mod orphans;
#[path = "virtio_transport_common/packet.rs"]
pub mod packet;
#[path = "virtio_transport_common/recv.rs"]
pub mod recv;
#[path = "virtio_transport_common/reset.rs"]
pub mod reset;
#[path = "virtio_transport_common/rx_queue.rs"]
mod rx_queue;
#[path = "virtio_transport_common/send.rs"]
pub mod send;
#[path = "virtio_transport_common/send_queue.rs"]
pub mod send_queue;
#[path = "virtio_transport_common/tap.rs"]
mod tap;

pub use conn::Conn;
pub use ops::{
    Carrier,
    Registration, //
};
pub use orphans::Orphans;
pub use packet::{
    RxPacket,
    TxControl,
    TxPacket, //
};
pub use recv::{
    payload_lost,
    receive,
    receive_all,
    Source, //
};
pub use reset::{
    abort_connection,
    reset_connections, //
};
pub use send_queue::{
    Purged,
    SendQueue,
    TxPackets, //
};

struct Common;

impl kernel::Module for Common {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Common)
    }
}

module! {
    type: Common,
    name: "vmw_vsock_virtio_transport_common",
    authors: ["vsock-rust developers"],
    description: "Common code for virtio vsock, in Rust",
    license: "GPL",
}
