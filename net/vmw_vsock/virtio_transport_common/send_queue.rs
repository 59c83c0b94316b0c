// SPDX-License-Identifier: GPL-2.0

//! Packets that wait for the worker of a carrier.
//!
//! Connections that have packets there take turns, as [`vsock_proto::turns`] decides; the packets
//! of each stay in order. Taking back what a connection has there costs nothing for others: under
//! the lock, it is one step.

use crate::{
    conn::Conn,
    kinds::Control,
    packet::{
        TxControl,
        TxPacket, //
    },
};
use kernel::{prelude::*, sync::atomic::Atomic};
use kernel_ext::{
    flow_queue::{
        self,
        After,
        FlowQueue,
        Taker, //
    },
    lock::{
        SpinLockBh,
        SpinLockBhGuard, //
    },
    new_spinlock_bh,
    peek::Peek,
    skb::SkBuff,
    skb_list::SkbList, //
};
use vsock_proto::{
    header::{
        Op,
        ShutdownFlags, //
    },
    turns::{
        Cost,
        Place,
        Rounds,
        Turn,
        SHARE, //
    }, //
};

struct Inner {
    flows: FlowQueue<TxControl, Turn>,
    rounds: Rounds,
    /// How often [`SendQueue::purge_all`] was called, modulo the size of the number.
    cleared: u32,
    /// How much memory they take.
    memory: usize,
    /// The worker rests, see [`SendQueue::rest`].
    idle: bool,
}

/// Packets that were taken out of a [`SendQueue`] together.
pub struct TxPackets {
    list: SkbList<TxControl>,
    more: bool,
}

impl Default for TxPackets {
    fn default() -> Self {
        Self::new()
    }
}

impl TxPackets {
    /// No packets.
    #[inline]
    pub const fn new() -> Self {
        Self {
            list: SkbList::new(),
            more: false,
        }
    }

    /// Whether there were more packets in the queue when these were taken.
    #[inline]
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// Takes the first packet that was not [purged](SendQueue::purge) meanwhile.
    #[inline]
    pub fn pop(&mut self) -> Option<TxPacket> {
        loop {
            let packet = self.list.pop_front()?;
            if packet.cb().is_purged() {
                continue;
            }
            let packet = TxPacket::from_skb(packet);
            if !packet.is_cut() {
                return Some(packet);
            }
        }
    }

    /// Puts a packet back.
    #[inline]
    pub fn push_front(&mut self, packet: TxPacket) {
        self.list.push_front(packet.into_skb());
    }
}

/// A queue of packets, which counts the replies that are in it.
///
/// Payload is bounded by the credit of each connection, control packets by one of each kind for a
/// connection, and replies that belong to no connection by the carrier: it takes no packets from
/// the peer while there are [`replies`](Self::replies) as many as the peer's ring has places.
///
/// Packets that belong to no connection take turns with the connections, as if they were those of
/// one.
///
/// Its lock is the innermost of all, and may be taken in any context but interrupts. It is held for
/// as long as it takes to move the packets that are asked for, and never while a packet is dropped:
/// what that gives back has a lock of its own, and may free a socket.
#[pin_data]
pub struct SendQueue {
    #[pin]
    inner: SpinLockBh<Inner>,
    /// How many packets there are, or more while some are taken back: written with the lock held,
    /// read without.
    len: Atomic<usize>,
    /// How many of them are replies; likewise.
    replies: Atomic<usize>,
}

/// Packets that are being taken, of one connection after the other.
struct Batch<'a> {
    rounds: &'a mut Rounds,
    /// How many may still be taken.
    most: usize,
    cost: Cost,
    /// The cost of those of other connections.
    before: Cost,
    /// The turn of this connection is over when the cost is not less.
    until: Cost,
    /// How many were taken.
    taken: usize,
    memory: usize,
    replies: usize,
}

impl Taker<TxControl, Turn> for Batch<'_> {
    #[inline]
    fn begin(&mut self, turn: &Turn, place: flow_queue::Place) {
        self.before = self.cost;
        let may_send = self.rounds.may_send(turn, place_of(place));
        // No more than what `Rounds::take_back()` can make good.
        self.until = self.cost.plus(may_send).min(SHARE);
    }

    #[inline]
    fn take(&mut self, packet: &SkBuff<TxControl>) -> bool {
        self.most = self.most.saturating_sub(1);
        self.taken = self.taken.saturating_add(1);
        self.cost = self.cost.plus(cost(packet));
        self.memory = self.memory.saturating_add(packet.truesize());
        let replies = usize::from(packet.cb().is_reply());
        self.replies = self.replies.saturating_add(replies);
        self.most > 0 && self.cost < self.until
    }

    #[inline]
    fn end(&mut self, turn: &mut Turn, place: flow_queue::Place, has_more: bool) -> After {
        let cost = self.cost.minus(self.before);
        let moves = self.rounds.sent(turn, cost, place_of(place), has_more);
        After {
            moves: moves.map(list_of),
            goes_on: self.most > 0 && self.cost < SHARE,
        }
    }
}

#[inline]
fn place_of(list: flow_queue::Place) -> Place {
    match list {
        flow_queue::Place::Now => Place::Now,
        flow_queue::Place::Later => Place::Later,
        flow_queue::Place::Next => Place::Next,
    }
}

#[inline]
fn list_of(place: Place) -> flow_queue::Place {
    match place {
        Place::Now => flow_queue::Place::Now,
        Place::Later => flow_queue::Place::Later,
        Place::Next => flow_queue::Place::Next,
    }
}

#[inline]
fn cost(packet: &SkBuff<TxControl>) -> Cost {
    Cost::of(packet.len())
}

impl SendQueue {
    /// Makes an empty queue.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- new_spinlock_bh!(
                Inner {
                    flows: FlowQueue::new(Turn::default()),
                    rounds: Rounds::new(),
                    cleared: 0,
                    memory: 0,
                    idle: true,
                },
                "virtio_transport_common::SendQueue::inner"
            ),
            len: Atomic::new(0),
            replies: Atomic::new(0),
        })
    }

    #[inline]
    fn discount(&self, inner: &mut Inner, len: usize, memory: usize, replies: usize) {
        self.len.poke(self.len.peek().saturating_sub(len));
        inner.memory = inner.memory.saturating_sub(memory);
        if replies != 0 {
            self.replies
                .poke(self.replies.peek().saturating_sub(replies));
        }
    }

    /// Appends a packet to those of its connection, and says whether the worker rested and is to be
    /// woken.
    ///
    /// # Errors
    ///
    /// `EHOSTUNREACH` if packets of the connection are in another queue: that of a device which is
    /// being closed, while the next one has its CID already.
    #[inline]
    pub fn push_back(&self, packet: TxPacket) -> Result<bool> {
        let packet = packet.into_skb();
        let mut inner = self.inner.lock();
        if packet.cb().begins() && inner.flows.has_loose() {
            return self.push_first(inner, packet);
        }
        self.push(inner, packet)
    }

    /// Appends the first packet of a connection, while there are some that belong to none.
    ///
    /// A RST between the same addresses that came before answers a packet of the connection before,
    /// and must not get there after this one. For a peer that asks for the new one, it is too late.
    /// Else it has to go first, in the order of the new connection.
    #[cold]
    fn push_first<'a>(
        &'a self,
        mut inner: SpinLockBhGuard<'a, Inner>,
        packet: SkBuff<TxControl>,
    ) -> Result<bool> {
        let packet = TxPacket::from_skb(packet);
        let header = packet.header();
        let mut rst = None;
        loop {
            let mut found = false;
            inner.flows.for_each_loose(|other| {
                if !other.cb().is_purged() && TxPacket::is_beside(&header, other) {
                    other.cb().set_void();
                    found = true;
                }
            });
            if !found || header.op() != Op::Request || rst.is_some() {
                break;
            }
            drop(inner);
            rst = packet.reset_before();
            inner = self.inner.lock();
            // Others may have come meanwhile.
        }
        let mut wake = false;
        // Without memory for it, the peer does not answer, and is asked again.
        if let Some(Ok(rst)) = rst {
            wake = self.push(inner, rst.into_skb())?;
            inner = self.inner.lock();
        }
        Ok(self.push(inner, packet.into_skb())? | wake)
    }

    /// Appends bytes of a stream to the last packet of a connection, if that waits here and has
    /// room. Says whether it did.
    #[inline]
    pub(crate) fn append(&self, conn: &Conn, bytes: &[u8]) -> bool {
        // CAST: They have room in a packet.
        let len = bytes.len() as u32;
        let mut inner = self.inner.lock();
        inner.flows.append(&conn.flow, bytes, |cb| cb.join(len))
    }

    #[inline]
    fn push(
        &self,
        mut inner: SpinLockBhGuard<'_, Inner>,
        packet: SkBuff<TxControl>,
    ) -> Result<bool> {
        let (memory, is_reply) = (packet.truesize(), packet.cb().is_reply());
        let Inner { flows, rounds, .. } = &mut *inner;
        let pushed = flows.push_back(packet, |turn| list_of(rounds.enter(turn)));
        if let Err(packet) = pushed {
            drop(inner);
            drop(packet);
            return Err(EHOSTUNREACH);
        }
        self.count(&mut inner, memory, is_reply);
        Ok(core::mem::replace(&mut inner.idle, false))
    }

    #[inline]
    fn count(&self, inner: &mut Inner, memory: usize, is_reply: bool) {
        self.len.poke(self.len.peek().saturating_add(1));
        inner.memory = inner.memory.saturating_add(memory);
        if is_reply {
            self.replies.poke(self.replies.peek().saturating_add(1));
        }
    }

    /// Lets the worker rest if there is no packet, and says whether it does: until
    /// [`push_back`](Self::push_back) says that it is to be woken.
    #[inline]
    pub fn rest(&self) -> bool {
        let mut inner = self.inner.lock();
        inner.idle = inner.flows.is_empty();
        inner.idle
    }

    /// Whether the worker rests.
    pub fn is_idle(&self) -> bool {
        self.inner.lock().idle
    }

    /// Takes the packet whose turn it is.
    #[inline]
    pub fn pop(&self) -> Option<TxPacket> {
        loop {
            let packet = TxPacket::from_skb(self.pop_some(1).list.pop_front()?);
            if !packet.is_purged() {
                return Some(packet);
            }
        }
    }

    /// Takes the packets whose turn it is: `most` (or one), less if they are large, or all if there
    /// are less.
    ///
    /// From here on they do not count as [`replies`](Self::replies). Who has them finishes one
    /// before the next, and may [put back](Self::put_back) the rest.
    #[inline]
    pub fn pop_some(&self, most: usize) -> TxPackets {
        let mut packets = TxPackets::new();
        let mut inner = self.inner.lock();
        let Inner { flows, rounds, .. } = &mut *inner;
        let mut batch = Batch {
            rounds,
            most,
            cost: Cost::NONE,
            before: Cost::NONE,
            until: Cost::NONE,
            taken: 0,
            memory: 0,
            replies: 0,
        };
        flows.pop_some(&mut packets.list, &mut batch);
        let (taken, memory, replies) = (batch.taken, batch.memory, batch.replies);
        packets.more = !flows.is_empty();
        self.discount(&mut inner, taken, memory, replies);
        packets
    }

    /// Puts a packet back that was taken last, and could not be sent.
    ///
    /// It is the next one of its connection, but those of others may come before it.
    #[inline]
    pub fn push_front(&self, packet: TxPacket) {
        let mut packets = TxPackets::new();
        packets.push_front(packet);
        self.put_back(packets);
    }

    /// Puts packets back that were taken last, and could not be sent.
    ///
    /// They are the next ones of their connections. Those whose connection was
    /// [purged](Self::purge) meanwhile, or sends to another queue, are dropped.
    pub fn put_back(&self, mut packets: TxPackets) {
        // The last one first, so that the first one comes first.
        let mut last_to_first = SkbList::new();
        while let Some(packet) = packets.list.pop_front() {
            last_to_first.push_front(packet);
        }
        if last_to_first.is_empty() {
            return;
        }
        let mut dropped = SkbList::new();
        let mut inner = self.inner.lock();
        while let Some(packet) = last_to_first.pop_front() {
            if let Err(packet) = self.take_back(&mut inner, packet) {
                dropped.push_back(packet);
            }
        }
        drop(inner);
        drop(dropped);
    }

    fn take_back(
        &self,
        inner: &mut Inner,
        packet: SkBuff<TxControl>,
    ) -> Result<(), SkBuff<TxControl>> {
        // With the lock held: `purge()` finds the packet, or this finds that it was there.
        if packet.cb().is_purged() {
            return Err(packet);
        }
        let (memory, is_reply) = (packet.truesize(), packet.cb().is_reply());
        let cost = cost(&packet);
        let Inner { flows, rounds, .. } = &mut *inner;
        flows.push_front(packet, |turn, has_others| {
            let again = rounds.take_back(turn, cost);
            if has_others {
                return again.then_some(flow_queue::Place::Now);
            }
            Some(list_of(rounds.enter(turn)))
        })?;
        self.count(inner, memory, is_reply);
        Ok(())
    }

    /// Says whether the queue is empty.
    ///
    /// It takes no lock, and orders nothing. What the caller pushed before, or whoever had a lock
    /// before that it has now, is seen; and so is what was taken out by who had such a lock. That
    /// is: who takes packets out, and hands them over, with a lock held, and pushes nothing past
    /// others if this says `false` under that lock, keeps each connection in order.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len.peek() == 0
    }

    /// How many replies are in the queue, at this moment.
    #[inline]
    pub fn replies(&self) -> usize {
        self.replies.peek()
    }

    /// How many packets are in the queue, and how much memory they take.
    pub fn backlog(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (self.len.peek(), inner.memory)
    }

    /// Drops the packets of a connection but for a RST.
    ///
    /// So are those that were taken out of the queue and are not finished, when their turn comes or
    /// they are put back. A RST stays: it is what the peer is to get if anything was dropped, and
    /// whoever wants to send it after this finds that it is [queued](Conn::queue_control).
    ///
    /// The time it takes depends on what the connection has in the queue only; for others, who wait
    /// for the lock, it takes none.
    ///
    /// Context: the socket of the connection is locked.
    pub fn purge(&self, conn: &Conn) -> Purged {
        // Before the lock is taken, see `take_back()`.
        conn.purges.add();
        let mut inner = self.inner.lock();
        let (taken, cleared) = (inner.flows.take(&conn.flow), inner.cleared);
        drop(inner);
        let (mut len, mut memory, mut replies) = (0usize, 0usize, 0usize);
        let mut rst = None;
        for packet in taken {
            len = len.saturating_add(1);
            memory = memory.saturating_add(packet.truesize());
            replies = replies.saturating_add(usize::from(packet.cb().is_reply()));
            if packet.cb().is_rst() {
                rst = Some(TxPacket::from_skb(packet));
            }
        }
        // Of those that somebody still has, see `TxControl::drop()`.
        for kind in [
            Control::Request,
            Control::Response,
            Control::Shutdown(ShutdownFlags::NONE),
            Control::CreditUpdate,
        ] {
            conn.unqueue_control(kind);
        }
        let mut inner = self.inner.lock();
        // Or they were forgotten with all others.
        if inner.cleared == cleared {
            self.discount(&mut inner, len, memory, replies);
        }
        drop(inner);
        let mut purged = Purged {
            replies,
            wake: false,
        };
        if let Some(rst) = rst {
            purged.replies = replies.saturating_sub(usize::from(rst.is_reply()));
            // The worker may rest by now. Nobody else can have claimed the flow: the socket is
            // locked.
            purged.wake = self.push_back(rst).is_ok();
        }
        purged
    }

    /// Drops all packets. While that is so, connections that have some cannot send others.
    pub fn purge_all(&self) {
        let mut inner = self.inner.lock();
        let flows = core::mem::replace(&mut inner.flows, FlowQueue::new(Turn::default()));
        inner.rounds = Rounds::new();
        inner.memory = 0;
        self.len.poke(0);
        inner.cleared = inner.cleared.wrapping_add(1);
        self.replies.poke(0);
        drop(inner);
        drop(flows);
    }
}

/// What [`SendQueue::purge`] did.
#[must_use]
pub struct Purged {
    /// How many replies were dropped.
    pub replies: usize,
    /// Something is left, and the worker is to be woken for it.
    pub wake: bool,
}

#[cfg(CONFIG_KUNIT = "y")]
#[path = "send_queue/kunit.rs"]
mod kunit;
