// SPDX-License-Identifier: GPL-2.0

//! The end of a device, or of its guest: connections learn of it.

use crate::{
    carrier::Host,
    device::{
        with_device,
        Member,
        VhostVsock, //
    },
    table::Membership,
};
use virtio_transport_common::{
    reset_connections,
    Candidate,
    Peers, //
};
use vsock_proto::addr::Cid;

impl VhostVsock {
    /// The guest does not take part any more: forgets what it was to get, and resets its
    /// connections.
    ///
    /// Context: sleeps, but waits for no user.
    pub(crate) fn cut_off(&self) {
        self.queue.purge_all();
        let peer = Peers::One(Cid::new(self.cid()), self.net());
        reset_connections::<Host>(peer, |_| true);
    }

    /// The file was closed, by the owner or by whoever had it last.
    ///
    /// The order matters: first nobody finds the device any more, then sockets learn of it, at
    /// once, before another device has the CID. Then the queues end, and those who found the device
    /// before that, and the worker; then what they left is dropped. A connection that the worker
    /// was just about to make is reset in the end.
    ///
    /// Those who found the device do so in an RCU read section, and so do those who found the
    /// worker of a queue: one grace period, in
    /// [`Device::release`](vhost_core::device::Device::release), is the end of both.
    ///
    /// Context: sleeps.
    pub(crate) fn release(&self) {
        let mut member = core::mem::replace(&mut *self.member.lock(), Member::new());
        let now = member.now.take().map(Membership::hide);
        let before = core::mem::take(&mut member.hidden);
        let had_cid = now.is_some();
        if had_cid {
            self.reset_gone(&member);
        }
        self.core.release((now, before));
        self.to_guest.end();
        self.from_guest.end();
        self.policies.clear();
        if had_cid {
            self.reset_gone(&member);
        }
        self.queue.purge_all();
        // Nobody receives any more.
        self.rooms.clear();
    }

    /// Resets connections with the CIDs that the guest had, unless somebody else has them now.
    fn reset_gone(&self, member: &Member) {
        let gone = |one: &Candidate<'_>| with_device(one.peer, Some(one.net), |_| ()).is_none();
        if member.before_is_full {
            return reset_connections::<Host>(Peers::All, gone);
        }
        for cid in &member.before {
            reset_connections::<Host>(Peers::One(*cid, self.net()), gone);
        }
        reset_connections::<Host>(Peers::One(Cid::new(self.cid()), self.net()), gone);
    }
}
