// SPDX-License-Identifier: GPL-2.0

//! The guests, one a line: the file `vsock/guests` of debugfs.

use crate::device::{
    for_list,
    VhostVsock, //
};
use kernel::{
    prelude::*,
    seq_file::SeqFile,
    seq_print, //
};
use kernel_ext::{
    debugfs::Lines,
    sock_table::Scope, //
};
use virtio_transport_common::slots;

/// Those that have a CID.
pub(crate) struct Guests;

#[vtable]
impl Lines for Guests {
    /// A list of the table, which is shown at once.
    type Place = usize;

    const TITLE: &'static str = "cid netns state pid connections to_guest to_guest_bytes \
                                 from_guest from_guest_bytes malformed misaddressed buffers \
                                 direct busy no_buffer unmapped queued queued_memory replies held denied \
                                 held_to_guest held_from_guest";

    fn show(list: usize, out: &SeqFile) -> Option<usize> {
        for_list(list, |device| device.show_line(out)).then(|| list.saturating_add(1))
    }
}

impl VhostVsock {
    /// How many connections there are with the guest, those that are only tried and those of which
    /// the end is still to be told included.
    pub(crate) fn connections(&self) -> u32 {
        slots::TO_GUESTS.count((self.cid(), Scope::of(self.net())))
    }

    /// Context: does not sleep.
    fn show_line(&self, out: &SeqFile) {
        let queues = [&self.rx, &self.tx];
        let state = if queues.iter().any(|queue| queue.is_broken()) {
            "broken"
        } else if queues.iter().all(|queue| queue.is_running()) {
            "running"
        } else {
            "stopped"
        };
        let (stats, pid) = (&self.stats, self.holder.lock().pid());
        let (packets, memory) = self.queue.backlog();
        seq_print!(
            out,
            "{} {} {state} {pid} {} {} {} {} {} {} {} {} {} {} {} {} {packets} {memory} {} {} \
             {} {} {}\n",
            self.cid(),
            self.net().inum(),
            self.connections(),
            stats.to_guest.get(),
            stats.to_guest_bytes.get(),
            stats.from_guest.get(),
            stats.from_guest_bytes.get(),
            stats.malformed.get(),
            stats.misaddressed.get(),
            stats.bad_buffers.get(),
            stats.direct.get(),
            stats.busy.get(),
            stats.no_buffer.get(),
            stats.unmapped.get(),
            self.queue.replies(),
            u8::from(self.throttle.is_held()),
            stats.denied(),
            self.to_guest.held.get(),
            self.from_guest.held.get()
        );
    }
}
