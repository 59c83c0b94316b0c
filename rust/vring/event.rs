// SPDX-License-Identifier: GPL-2.0

//! The arithmetic of `VIRTIO_F_EVENT_IDX`.

/// Whether the other side wants to know that the index went from `old` to `new`.
///
/// `event` is the index after whose use it asked to be notified. All three run freely modulo 2^16;
/// the answer is right as long as the index did not go around completely between two calls.
///
/// Specification: virtio 1.3, sections 2.7.7.2 and 2.7.10.
///
/// # Examples
///
/// ```
/// use vring::event::need_event;
///
/// // Entry 7 was asked for, and is among those used.
/// assert!(need_event(7, 8, 5));
/// // Not yet.
/// assert!(!need_event(8, 8, 5));
/// // Has been announced before.
/// assert!(!need_event(4, 8, 5));
/// ```
#[doc(alias = "vring_need_event")]
#[inline]
pub const fn need_event(event: u16, new: u16, old: u16) -> bool {
    // Of the entries `old..new`, the last one is at distance 1 from `new`.
    let distance = new.wrapping_sub(event);
    distance != 0 && distance <= new.wrapping_sub(old)
}
