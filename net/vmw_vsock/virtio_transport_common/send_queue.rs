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
    skb_list::SkbList,
    sock::VsockSock, //
};

struct Inner {
    list: SkbList<TxControl>,
    /// How many packets of the list are replies.
    replies: usize,
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
                },
                "virtio_transport_common::SendQueue::inner"
            ),
        })
    }

    /// Appends a packet.
    #[inline]
    pub fn push_back(&self, packet: TxPacket) {
        let mut inner = self.inner.lock();
        inner.replies = inner.replies.saturating_add(usize::from(packet.is_reply()));
        inner.list.push_back(packet.into_skb());
    }

    /// Puts a packet back that could not be sent.
    #[inline]
    pub fn push_front(&self, packet: TxPacket) {
        let mut inner = self.inner.lock();
        inner.replies = inner.replies.saturating_add(usize::from(packet.is_reply()));
        inner.list.push_front(packet.into_skb());
    }

    /// Takes the first packet.
    #[inline]
    pub fn pop(&self) -> Option<TxPacket> {
        let mut inner = self.inner.lock();
        let packet = TxPacket::from_skb(inner.list.pop_front()?);
        inner.replies = inner.replies.saturating_sub(usize::from(packet.is_reply()));
        Some(packet)
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

    /// Drops the packets that `sock` sent, and returns how many of them were replies.
    pub fn purge_socket(&self, sock: &VsockSock) -> usize {
        self.extract(|packet| packet.is_owned_by(sock))
    }

    /// Drops all packets.
    pub fn purge_all(&self) {
        self.extract(|_| true);
    }

    fn extract(&self, f: impl FnMut(&kernel_ext::skb::SkBuff<TxControl>) -> bool) -> usize {
        let mut inner = self.inner.lock();
        let out = inner.list.extract(f);
        let replies = out.iter().fold(0usize, |n, packet| {
            n.saturating_add(usize::from(packet.cb().is_reply()))
        });
        inner.replies = inner.replies.saturating_sub(replies);
        // What a packet gives back on drop has a lock of its own, and may free a socket.
        drop(inner);
        drop(out);
        replies
    }
}
