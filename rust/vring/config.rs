// SPDX-License-Identifier: GPL-2.0

//! What a ring is made of.

use crate::{
    layout,
    Endian,
    RingAddr,
    RingSize, //
};

/// What a ring is made of when the queue is started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// The number of entries.
    pub size: RingSize,
    /// Where the descriptor table is.
    pub desc: RingAddr,
    /// Where the available ring is.
    pub avail: RingAddr,
    /// Where the used ring is.
    pub used: RingAddr,
    /// The available index to begin with: the next entry that was not taken yet.
    #[doc(alias = "VHOST_SET_VRING_BASE")]
    pub base: u16,
    /// Whether `VIRTIO_F_EVENT_IDX` was negotiated.
    pub event_idx: bool,
    /// Whether `VIRTIO_F_NOTIFY_ON_EMPTY` was negotiated.
    pub notify_on_empty: bool,
    /// The byte order of the ring.
    pub endian: Endian,
}

impl Config {
    /// Whether all parts of the ring lie below the end of the address space.
    pub(crate) fn fits(&self) -> bool {
        let parts = [
            (self.desc, layout::desc_bytes(self.size)),
            (self.avail, layout::avail_bytes(self.size, self.event_idx)),
            (self.used, layout::used_bytes(self.size, self.event_idx)),
        ];
        parts
            .iter()
            .all(|(start, bytes)| start.checked_add(*bytes).is_some())
    }
}
