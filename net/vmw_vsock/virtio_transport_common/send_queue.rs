// SPDX-License-Identifier: GPL-2.0

//! Packets that wait for the worker of a carrier.

use crate::packet::{
    TxControl,
    TxPacket, //
};
use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
};
use kernel_ext::{
    lock::SpinLockBh,
    new_spinlock_bh,
    peek::Peek,
    skb::SkBuff,
    skb_list::SkbList,
    sock::VsockSock, //
};

struct Inner {
    list: SkbList<TxControl>,
    /// How much memory they take.
    memory: usize,
    /// The worker rests, see [`SendQueue::rest`].
    idle: bool,
}

/// Packets that were taken out of a [`SendQueue`] together.
pub struct TxPackets(SkbList<TxControl>);

impl Default for TxPackets {
    fn default() -> Self {
        Self::new()
    }
}

impl TxPackets {
    /// No packets.
    #[inline]
    pub const fn new() -> Self {
        Self(SkbList::new())
    }

    /// Takes the first packet.
    #[inline]
    pub fn pop(&mut self) -> Option<TxPacket> {
        self.0.pop_front().map(TxPacket::from_skb)
    }

    /// Puts a packet back.
    #[inline]
    pub fn push_front(&mut self, packet: TxPacket) {
        self.0.push_front(packet.into_skb());
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
    /// How many packets of the list are replies: written with the lock held, read without.
    replies: Atomic<usize>,
}

impl SendQueue {
    /// Makes an empty queue.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- new_spinlock_bh!(
                Inner {
                    list: SkbList::new(),
                    memory: 0,
                    idle: true,
                },
                "virtio_transport_common::SendQueue::inner"
            ),
            replies: Atomic::new(0),
        })
    }

    #[inline]
    fn count(&self, inner: &mut Inner, packet: &SkBuff<TxControl>) {
        inner.memory = inner.memory.saturating_add(packet.truesize());
        if packet.cb().is_reply() {
            let replies = self.replies.peek().saturating_add(1);
            self.replies.store(replies, Relaxed);
        }
    }

    #[inline]
    fn discount(&self, inner: &mut Inner, packet: &SkBuff<TxControl>) {
        inner.memory = inner.memory.saturating_sub(packet.truesize());
        if packet.cb().is_reply() {
            let replies = self.replies.peek().saturating_sub(1);
            self.replies.store(replies, Relaxed);
        }
    }

    /// Appends a packet, and says whether the worker rested and is to be woken.
    #[inline]
    pub fn push_back(&self, packet: TxPacket) -> bool {
        let packet = packet.into_skb();
        let mut inner = self.inner.lock();
        self.count(&mut inner, &packet);
        inner.list.push_back(packet);
        core::mem::replace(&mut inner.idle, false)
    }

    /// Takes all packets, first to last.
    ///
    /// From here on they do not count as [`replies`](Self::replies), and
    /// [`purge_socket`](Self::purge_socket) does not find them.
    #[inline]
    pub fn take_all(&self) -> TxPackets {
        let mut inner = self.inner.lock();
        self.replies.store(0, Relaxed);
        inner.memory = 0;
        TxPackets(core::mem::take(&mut inner.list))
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
        self.count(&mut inner, &packet);
        inner.list.push_front(packet);
    }

    /// Takes the first packet.
    #[inline]
    pub fn pop(&self) -> Option<TxPacket> {
        let mut inner = self.inner.lock();
        let packet = inner.list.pop_front()?;
        self.discount(&mut inner, &packet);
        Some(TxPacket::from_skb(packet))
    }

    /// Takes the first `most` packets, or all if there are less: nobody but the caller finds them any
    /// more until they are [put back](Self::put_back).
    #[inline]
    pub fn pop_some(&self, most: usize) -> TxPackets {
        let mut packets = TxPackets::new();
        let mut inner = self.inner.lock();
        for _ in 0..most {
            let Some(packet) = inner.list.pop_front() else {
                break;
            };
            self.discount(&mut inner, &packet);
            packets.0.push_back(packet);
        }
        packets
    }

    /// Puts packets back that were taken last, and could not be sent.
    pub fn put_back(&self, mut packets: TxPackets) {
        if packets.0.is_empty() {
            return;
        }
        let mut inner = self.inner.lock();
        for packet in packets.0.iter() {
            self.count(&mut inner, &packet);
        }
        packets.0.append(&mut inner.list);
        inner.list.append(&mut packets.0);
    }

    /// Says whether the queue is empty.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.inner.lock().list.is_empty()
    }

    /// How many replies are in the queue, at this moment.
    #[inline]
    pub fn replies(&self) -> usize {
        self.replies.peek()
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
        let replies = self.replies();
        for packet in out.iter() {
            self.discount(&mut inner, &packet);
        }
        let replies = replies.saturating_sub(self.replies());
        // What a packet gives back on drop has a lock of its own, and may free a socket.
        drop(inner);
        drop(out);
        replies
    }
}
