// SPDX-License-Identifier: GPL-2.0

//! Random rings and packets.
//!
//! - [`random`]: random bytes in rings;
//! - [`grammar`]: sequences of packets and of what programs of the host do, mostly sensible;
//! - [`model`]: what must come of them;
//! - [`play`]: playing them on a device, and comparing;
//! - [`hold`]: a thread that has a socket's lock when a packet for it comes;
//! - [`ways`]: which way packets went into sockets;
//! - [`mutate`]: threads that change the rings meanwhile.

pub mod grammar;
pub mod hold;
pub mod model;
pub mod mutate;
pub mod play;
pub mod random;
pub mod ways;
