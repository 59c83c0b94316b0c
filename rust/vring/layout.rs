// SPDX-License-Identifier: GPL-2.0

//! The layout of the three parts of a split ring.
//!
//! Sizes and alignments are for the access checks when the addresses of a ring are set or used for
//! the first time. The event field at the end of the available and the used ring exists only if
//! `VIRTIO_F_EVENT_IDX` was negotiated.
//!
//! Specification: virtio 1.3, section 2.7.

use crate::RingSize;

/// Alignment of the descriptor table that the specification asks for.
///
/// C vhost does not check it, and nothing here needs it.
#[doc(alias = "VRING_DESC_ALIGN_SIZE")]
pub const DESC_ALIGN: u64 = 16;
/// Alignment of the available ring.
#[doc(alias = "VRING_AVAIL_ALIGN_SIZE")]
pub const AVAIL_ALIGN: u64 = 2;
/// Alignment of the used ring.
#[doc(alias = "VRING_USED_ALIGN_SIZE")]
pub const USED_ALIGN: u64 = 4;

/// Bytes of a descriptor.
pub const DESC_LEN: u64 = 16;

/// The flag in `avail.flags` by which the driver asks for no interrupts.
#[doc(alias = "VRING_AVAIL_F_NO_INTERRUPT")]
pub const AVAIL_F_NO_INTERRUPT: u16 = 1;
/// The flag in `used.flags` by which the device asks for no kicks.
#[doc(alias = "VRING_USED_F_NO_NOTIFY")]
pub const USED_F_NO_NOTIFY: u16 = 1;

const HEADER_LEN: u64 = 4;
const AVAIL_LEN: u64 = 2;
const USED_LEN: u64 = 8;
const EVENT_LEN: u64 = 2;

/// Bytes of the descriptor table.
#[doc(alias = "vhost_get_desc_size")]
#[inline]
pub const fn desc_bytes(size: RingSize) -> u64 {
    desc_offset(size.get())
}

/// Bytes of the available ring.
#[doc(alias = "vhost_get_avail_size")]
#[inline]
pub const fn avail_bytes(size: RingSize, event_idx: bool) -> u64 {
    used_event_offset(size).wrapping_add(if event_idx { EVENT_LEN } else { 0 })
}

/// Bytes of the used ring.
#[doc(alias = "vhost_get_used_size")]
#[inline]
pub const fn used_bytes(size: RingSize, event_idx: bool) -> u64 {
    avail_event_offset(size).wrapping_add(if event_idx { EVENT_LEN } else { 0 })
}

// OVERFLOW: Each of the following is at most 4 + 16 * 65535. The conversions are lossless; `From`
// is not `const`.

/// Where a descriptor is in the descriptor table.
#[inline]
pub const fn desc_offset(index: u16) -> u64 {
    (index as u64).wrapping_mul(DESC_LEN)
}

/// Where `flags` is in the available and in the used ring.
pub const FLAGS_OFFSET: u64 = 0;

/// Where `idx` is in the available and in the used ring.
pub const IDX_OFFSET: u64 = 2;

/// Where an entry is in the available ring.
#[inline]
pub const fn avail_offset(slot: u16) -> u64 {
    (slot as u64)
        .wrapping_mul(AVAIL_LEN)
        .wrapping_add(HEADER_LEN)
}

/// Where an entry is in the used ring.
#[inline]
pub const fn used_offset(slot: u16) -> u64 {
    (slot as u64)
        .wrapping_mul(USED_LEN)
        .wrapping_add(HEADER_LEN)
}

/// Where `used_event` is: at the end of the *available* ring, since the driver writes it.
#[doc(alias = "vhost_used_event")]
#[inline]
pub const fn used_event_offset(size: RingSize) -> u64 {
    avail_offset(size.get())
}

/// Where `avail_event` is: at the end of the *used* ring, since the device writes it.
#[doc(alias = "vhost_avail_event")]
#[inline]
pub const fn avail_event_offset(size: RingSize) -> u64 {
    used_offset(size.get())
}
