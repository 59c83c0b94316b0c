// SPDX-License-Identifier: GPL-2.0

//! What a device did, and what it is doing: `/proc/<pid>/fdinfo/<fd>`.

use crate::device::VhostVsock;
use kernel::{
    seq_file::SeqFile,
    seq_print, //
};

impl VhostVsock {
    /// Prints the state of the device.
    ///
    /// Context: sleeps.
    pub(crate) fn show(&self, m: &SeqFile) {
        seq_print!(m, "cid:\t{}\n", self.cid());
        seq_print!(m, "netns:\t{}\n", self.net().inum());
        seq_print!(m, "connections:\t{}\n", self.connections());
        self.core.show(m);
        let stats = &self.stats;
        seq_print!(
            m,
            "to-guest:\t{} packets, {} bytes\n",
            stats.to_guest.get(),
            stats.to_guest_bytes.get()
        );
        seq_print!(
            m,
            "from-guest:\t{} packets, {} bytes\n",
            stats.from_guest.get(),
            stats.from_guest_bytes.get()
        );
        seq_print!(
            m,
            "refused:\t{} malformed, {} misaddressed, {} buffers\n",
            stats.malformed.get(),
            stats.misaddressed.get(),
            stats.bad_buffers.get()
        );
        seq_print!(
            m,
            "direct:\t{} sent, {} busy, {} no buffer, {} unmapped\n",
            stats.direct.get(),
            stats.busy.get(),
            stats.no_buffer.get(),
            stats.unmapped.get()
        );
        let (packets, memory) = self.queue.backlog();
        seq_print!(m, "queued:\t{packets} packets, {memory} bytes of memory\n");
        let held = if self.throttle.is_held() {
            ", guest held back"
        } else {
            ""
        };
        seq_print!(m, "replies:\t{}{held}\n", self.queue.replies());
    }
}
