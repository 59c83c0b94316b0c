// SPDX-License-Identifier: GPL-2.0

//! Packets that wait for the worker of a carrier.

use crate::packet::{
    TxControl,
    TxPacket, //
};
use kernel::prelude::*;
use kernel_ext::{
    lock::SpinLockBh,
    new_spinlock_bh,
    skb::SkBuff,
    skb_list::SkbList,
    sock::VsockSock, //
};

struct Inner {
    list: SkbList<TxControl>,
    /// How many packets of the list are replies.
    replies: usize,
    /// How much memory they take.
    memory: usize,
    /// The worker rests, see [`SendQueue::rest`].
    idle: bool,
}

impl Inner {
    fn count(&mut self, packet: &SkBuff<TxControl>) {
        self.memory = self.memory.saturating_add(packet.truesize());
        if packet.cb().is_reply() {
            self.replies = self.replies.saturating_add(1);
        }
    }

    fn discount(&mut self, packet: &SkBuff<TxControl>) {
        self.memory = self.memory.saturating_sub(packet.truesize());
        if packet.cb().is_reply() {
            self.replies = self.replies.saturating_sub(1);
        }
    }
}

/// A queue of packets, which counts the replies that are in it.
///
/// Payload is bounded by the credit of each connection, control packets by one of each kind for a
/// connection, and replies that belong to no connection by the carrier: it takes no packets from
/// the peer while there are [`replies`](Self::replies) as many as the peer's ring has places.
///
/// Its lock is the innermost of all, and may be taken in any context but interrupts.
#[pin_data]
pub struct SendQueue {
    #[pin]
    inner: SpinLockBh<Inner>,
}

impl SendQueue {
    /// Makes an empty queue.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- new_spinlock_bh!(
                Inner {
                    list: SkbList::new(),
                    replies: 0,
                    memory: 0,
                    idle: true,
                },
                "virtio_transport_common::SendQueue::inner"
            ),
        })
    }

    /// Appends a packet, and says whether the worker rested and is to be woken.
    #[inline]
    pub fn push_back(&self, packet: TxPacket) -> bool {
        let packet = packet.into_skb();
        let mut inner = self.inner.lock();
        inner.count(&packet);
        inner.list.push_back(packet);
        core::mem::replace(&mut inner.idle, false)
    }

    /// Takes all packets, first to last.
    ///
    /// From here on they do not count as [`replies`](Self::replies), and
    /// [`purge_socket`](Self::purge_socket) does not find them.
    #[inline]
    pub fn take_all(&self) -> SkbList<TxControl> {
        let mut inner = self.inner.lock();
        inner.replies = 0;
        inner.memory = 0;
        core::mem::take(&mut inner.list)
    }

    /// Lets the worker rest if there is no packet, and says whether it does: until
    /// [`push_back`](Self::push_back) says that it is to be woken.
    #[inline]
    pub fn rest(&self) -> bool {
        let mut inner = self.inner.lock();
        inner.idle = inner.list.is_empty();
        inner.idle
    }

    /// Whether the worker rests.
    pub fn is_idle(&self) -> bool {
        self.inner.lock().idle
    }

    /// Puts a packet back that could not be sent.
    #[inline]
    pub fn push_front(&self, packet: TxPacket) {
        let packet = packet.into_skb();
        let mut inner = self.inner.lock();
        inner.count(&packet);
        inner.list.push_front(packet);
    }

    /// Takes the first packet.
    #[inline]
    pub fn pop(&self) -> Option<TxPacket> {
        let mut inner = self.inner.lock();
        let packet = inner.list.pop_front()?;
        inner.discount(&packet);
        Some(TxPacket::from_skb(packet))
    }

    /// Says whether the queue is empty.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.inner.lock().list.is_empty()
    }

    /// How many replies are in the queue.
    #[inline]
    pub fn replies(&self) -> usize {
        self.inner.lock().replies
    }

    /// How many packets are in the queue, and how much memory they take.
    pub fn backlog(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.list.len(), inner.memory)
    }

    /// Drops the packets that `sock` sent, and returns how many of them were replies.
    pub fn purge_socket(&self, sock: &VsockSock) -> usize {
        self.extract(|packet| packet.is_owned_by(sock))
    }

    /// Drops all packets.
    pub fn purge_all(&self) {
        self.extract(|_| true);
    }

    fn extract(&self, f: impl FnMut(&SkBuff<TxControl>) -> bool) -> usize {
        let mut inner = self.inner.lock();
        let out = inner.list.extract(f);
        let replies = inner.replies;
        for packet in out.iter() {
            inner.discount(&packet);
        }
        let replies = replies.saturating_sub(inner.replies);
        // What a packet gives back on drop has a lock of its own, and may free a socket.
        drop(inner);
        drop(out);
        replies
    }
}
