// SPDX-License-Identifier: GPL-2.0

//! How the guests behave that are measured.

use crate::{guest::Behaviour, rings::Layout};

/// As the C driver behaves in a guest of QEMU.
pub const C: Behaviour = Behaviour {
    layout: Layout::Indirect,
    buffer: 3776 + 44,
    buffers: u16::MAX,
    window: 256 * 1024,
    update_always: true,
    tx_interrupts: true,
};

/// As our driver does.
pub const OURS: Behaviour = Behaviour {
    layout: Layout::One,
    update_always: false,
    tx_interrupts: false,
    ..C
};

/// As the C driver would, with buffers that take the largest packet.
pub const LARGE: Behaviour = Behaviour {
    buffer: 65536 + 44,
    ..C
};

/// As our driver does when packets are small: blocks of 4 KiB, of which the device gets 20 bytes
/// less.
pub const OURS_SMALL: Behaviour = Behaviour {
    buffer: 4096 - 20,
    ..OURS
};

/// As our driver does when they are not, in a guest with 1 GiB or more: 2 MiB of blocks of 64 KiB.
pub const OURS_BULK: Behaviour = Behaviour {
    buffer: 65536 - 20,
    buffers: 32,
    ..OURS
};

/// Entries of a ring, as QEMU has it, and as the public harness for host halves has it.
pub const RING: u16 = 128;
pub const HARNESS_RING: u16 = 256;
