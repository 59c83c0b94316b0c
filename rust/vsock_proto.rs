// SPDX-License-Identifier: GPL-2.0

//! The virtio-vsock protocol: addresses, packet headers, credit and connection states.
//!
//! Nothing in here knows a kernel type, sleeps, allocates or panics. The crate is compiled twice:
//! by Kbuild into `vmw_vsock_virtio_transport_common.ko`, and by Cargo on the developer's machine,
//! where its tests run.
//!
//! Everything that comes out of a [`header::Header`] was written by the peer: a guest, a device, or
//! somebody who plays one. The types here turn such numbers into values that are safe to act on:
//!
//! - [`addr`]: who speaks to whom; which CIDs exist and which a guest may own.
//! - [`header`]: the packet header and the other structures that cross the ring.
//! - [`credit`]: how many bytes may be sent, and how many must be taken. No other code may do
//!   arithmetic on `buf_alloc` and `fwd_cnt`.
//! - [`conn`]: what a packet does to a connection.
//! - [`keepalive`]: when a silent peer is asked, and when it counts as gone;
//! - [`link`]: where a connection stands, and what its socket was not told of it yet;
//! - [`pace`]: how fast packets may go, where somebody set a rate;
//! - [`record`]: how small messages are kept in little memory;
//! - [`rx_queue`]: where received payload is kept, and that its memory is bounded;
//! - [`turns`]: whose packet is sent next, of those that wait.
//!
//! C header: [`include/uapi/linux/virtio_vsock.h`](srctree/include/uapi/linux/virtio_vsock.h)
//!
//! Specification: virtio 1.3, section 5.10 "Socket Device".

// Kbuild says so on the command line, and twice would be a warning.
#![cfg_attr(not(any(test, MODULE)), no_std)]
#![deny(unsafe_code)]

#[path = "vsock_proto/addr.rs"]
pub mod addr;
#[path = "vsock_proto/conn.rs"]
pub mod conn;
#[path = "vsock_proto/credit.rs"]
pub mod credit;
#[path = "vsock_proto/header.rs"]
pub mod header;
#[path = "vsock_proto/keepalive.rs"]
pub mod keepalive;
#[path = "vsock_proto/link.rs"]
pub mod link;
#[path = "vsock_proto/pace.rs"]
pub mod pace;
#[path = "vsock_proto/record.rs"]
pub mod record;
#[path = "vsock_proto/rx_queue.rs"]
pub mod rx_queue;
#[path = "vsock_proto/turns.rs"]
pub mod turns;
