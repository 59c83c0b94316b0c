// SPDX-License-Identifier: GPL-2.0

//! What the sources use of the common transport: packets, and the queue of those that wait.

use loom::sync::Mutex;
use std::{
    cell::Cell,
    collections::VecDeque, //
};

/// A packet: whose it is, which of theirs, and how many pieces it has.
#[derive(Debug)]
pub struct TxPacket {
    pub(crate) of: u8,
    pub(crate) nth: u8,
    /// How many pieces went before it, without a packet.
    pub(crate) before: usize,
    pub(crate) len: usize,
    pub(crate) done: usize,
    /// Some of it is with the guest.
    pub(crate) begun: bool,
    /// What joined it.
    pub(crate) joined: VecDeque<TxPacket>,
}

impl TxPacket {
    pub(crate) fn is_cut(&self) -> bool {
        false
    }

    pub(crate) fn is_purged(&self) -> bool {
        false
    }

    pub(crate) fn is_bulk(&self) -> bool {
        false
    }

    pub(crate) fn is_begun(&self) -> bool {
        self.begun
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.done == self.len
    }

    pub(crate) fn fragment(&mut self, room: usize) -> Fragment<'_> {
        let len = room.min(self.len - self.done);
        Fragment { packet: self, len }
    }
}

/// A piece of a packet.
pub(crate) struct Fragment<'a> {
    packet: &'a mut TxPacket,
    len: usize,
}

pub(crate) struct Header;

impl Header {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &[]
    }
}

impl Fragment<'_> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn as_bytes(&self) -> Option<&[u8]> {
        Some(&[])
    }

    pub(crate) fn payload(&self) -> Option<&[u8]> {
        None
    }

    pub(crate) fn buffer(&self) -> (&(), usize) {
        (&(), 0)
    }

    pub(crate) fn header(&self) -> &Header {
        &Header
    }

    pub(crate) fn finish(self) -> bool {
        let packet = self.packet;
        crate::ring::seen(packet.of, packet.nth, packet.before + packet.done);
        packet.done += self.len.max(1);
        packet.begun = true;
        if packet.done < packet.len {
            return false;
        }
        let mut joined = core::mem::take(&mut packet.joined);
        let Some(next) = joined.pop_front() else {
            return true;
        };
        *packet = TxPacket {
            begun: true,
            joined,
            ..next
        };
        false
    }
}

/// What a user sends, and is not in a packet yet.
pub(crate) struct Outgoing<'o, 'c, 'm> {
    packet: TxPacket,
    is_bulk: bool,
    _p: core::marker::PhantomData<(&'o (), &'c (), &'m ())>,
}

impl Outgoing<'_, '_, '_> {
    /// If it is bulk, the worker is to signal it.
    pub(crate) fn new(packet: TxPacket, is_bulk: bool) -> Self {
        let _p = core::marker::PhantomData;
        Self {
            packet,
            is_bulk,
            _p,
        }
    }

    /// What is left, as a packet.
    pub(crate) fn rest(mut self) -> Option<TxPacket> {
        let left = self.left();
        self.packet.before = core::mem::take(&mut self.packet.done);
        self.packet.len = left;
        (left > 0).then_some(self.packet)
    }

    pub(crate) fn is_cut(&self) -> bool {
        false
    }

    /// What is left joins the last packet of the sender that waits.
    pub(crate) fn join(&mut self, queue: &SendQueue) -> bool {
        let mut list = queue.list.lock().unwrap();
        let last = list.iter_mut().rfind(|last| last.of == self.packet.of);
        let Some(last) = last.filter(|last| !last.begun) else {
            return false;
        };
        let rest = TxPacket {
            before: self.packet.done,
            len: self.left(),
            done: 0,
            begun: false,
            joined: VecDeque::new(),
            ..self.packet
        };
        last.joined.push_back(rest);
        self.packet.done = self.packet.len;
        true
    }

    pub(crate) fn is_bulk(&self) -> bool {
        self.is_bulk
    }

    pub(crate) fn may_join(&self) -> bool {
        true
    }

    pub(crate) fn is_whole(&self) -> bool {
        false
    }

    pub(crate) fn may_part(&self) -> bool {
        true
    }

    pub(crate) fn left(&self) -> usize {
        self.packet.len - self.packet.done
    }

    pub(crate) fn copy(&mut self, copy: impl FnOnce(&mut ()) -> Result<(), ()>) -> Result<(), ()> {
        copy(&mut ())
    }

    pub(crate) fn stamp(&mut self, _len: usize) -> &Header {
        &Header
    }

    pub(crate) fn take_back(&mut self) {
        unreachable!("all buffers are good");
    }

    pub(crate) fn finish(&mut self) {
        let last = self.packet.fragment(1).finish();
        assert_eq!(last, self.left() == 0);
    }
}

/// Packets that were taken out together.
#[derive(Default)]
pub(crate) struct TxPackets(VecDeque<TxPacket>);

impl TxPackets {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn pop(&mut self) -> Option<TxPacket> {
        self.0.pop_front()
    }

    pub(crate) fn push_front(&mut self, packet: TxPacket) {
        self.0.push_front(packet);
    }
}

/// The queue: in the order in which packets come, whose ever they are.
#[derive(Default)]
pub(crate) struct SendQueue {
    list: Mutex<VecDeque<TxPacket>>,
    /// Read without the lock; each look is what it is.
    len: loom::sync::atomic::AtomicUsize,
    pub(crate) most: Cell<usize>,
}

use loom::sync::atomic::Ordering::Relaxed;

impl SendQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.len.load(Relaxed) == 0
    }

    pub(crate) fn push_back(&self, packet: TxPacket) -> Result<bool, super::Error> {
        let mut list = self.list.lock().unwrap();
        list.push_back(packet);
        self.count(&list);
        Ok(false)
    }

    fn count(&self, list: &VecDeque<TxPacket>) {
        self.len.store(list.len(), Relaxed);
        self.most.set(self.most.get().max(list.len()));
    }

    pub(crate) fn push_front(&self, packet: TxPacket) {
        let mut packets = TxPackets::new();
        packets.push_front(packet);
        self.put_back(packets);
    }

    pub(crate) fn pop_some(&self, _most: usize) -> TxPackets {
        let mut list = self.list.lock().unwrap();
        let packets = TxPackets(core::mem::take(&mut *list));
        self.count(&list);
        packets
    }

    pub(crate) fn put_back(&self, mut packets: TxPackets) {
        if packets.0.is_empty() {
            return;
        }
        let mut list = self.list.lock().unwrap();
        while let Some(packet) = packets.0.pop_back() {
            list.push_front(packet);
        }
        self.count(&list);
    }

    pub(crate) fn purge_all(&self) {
        unreachable!("the worker lives");
    }
}
