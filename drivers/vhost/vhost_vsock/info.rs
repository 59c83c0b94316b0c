// SPDX-License-Identifier: GPL-2.0

//! What a device did, and what it is doing: `/proc/<pid>/fdinfo/<fd>`.

use crate::device::VhostVsock;
use kernel::{
    fmt,
    prelude::*,
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
        if let Some(policy) = self.policies.get() {
            let (most, ports, users) = policy.counts();
            seq_print!(
                m,
                "limits:\t{most} connections, {} ranges of ports, {} users\n",
                List(ports),
                List(users)
            );
            seq_print!(
                m,
                "denied:\t{} connections, {} ports, {} users\n",
                stats.denied_connections.get(),
                stats.denied_ports.get(),
                stats.denied_users.get()
            );
            for (name, rate, pace) in [
                ("to-guest", policy.to_guest, &self.to_guest),
                ("from-guest", policy.from_guest, &self.from_guest),
            ] {
                if rate.is_set() {
                    seq_print!(
                        m,
                        "rate-{name}:\t{} bytes, {} packets, {} us, {} times held\n",
                        rate.bytes,
                        rate.packets,
                        rate.burst,
                        pace.held.get()
                    );
                }
            }
            if policy.locked {
                seq_print!(m, "locked:\t1\n");
            }
        }
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

/// How many entries a list has, if there is one.
struct List(Option<usize>);

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(count) => f.write_fmt(fmt!("{count}")),
            None => f.write_str("all"),
        }
    }
}
