// SPDX-License-Identifier: GPL-2.0

//! Where the transports are registered, all of which are seen from here.

use crate::conn::Conn;
use kernel_ext::vsock::TransportSlot;

/// That of the host.
pub static TO_GUESTS: TransportSlot<Conn> = TransportSlot::new();
/// That of the guest driver.
pub static TO_HOST: TransportSlot<Conn> = TransportSlot::new();
/// That of loopback.
pub static LOOPBACK: TransportSlot<Conn> = TransportSlot::new();

/// All of them, with names for people.
pub(crate) static ALL: [(&str, &TransportSlot<Conn>); 3] = [
    ("to-guest", &TO_GUESTS),
    ("to-host", &TO_HOST),
    ("loopback", &LOOPBACK),
];
