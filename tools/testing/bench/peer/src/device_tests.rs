// SPDX-License-Identifier: GPL-2.0

use super::*;
use ring::packet;
use std::ops::Deref;
use vm_memory::{Bytes, GuestAddress};

const NUM: u16 = 256;
const TABLE: u64 = 0x1000;
const AVAIL: u64 = 0x4000;
const USED: u64 = 0x6000;
/// Of the transmit ring; what is above belongs to the receive ring, and then come buffers.
const SECOND: u64 = 0x1_0000;
const BUFFERS: u64 = 0x10_0000;
const BUFFER: u32 = 4096;
const F_NEXT: u16 = 1;
const F_WRITE: u16 = 2;

/// A driver's end of a ring.
struct Driver {
    memory: GuestMemoryMmap,
    base: u64,
    ring: VringRwLock,
    added: u16,
}

impl Driver {
    fn new(memory: &Memory, base: u64) -> Self {
        let ring = VringRwLock::new(memory.clone(), NUM).unwrap();
        ring.set_queue_size(NUM);
        ring.set_queue_info(base + TABLE, base + AVAIL, base + USED)
            .unwrap();
        ring.set_queue_event_idx(true);
        ring.set_queue_ready(true);
        Self {
            memory: memory.memory().deref().clone(),
            base,
            ring,
            added: 0,
        }
    }

    fn write16(&self, at: u64, value: u16) {
        self.memory
            .write_obj(value, GuestAddress(self.base + at))
            .unwrap();
    }

    fn read16(&self, at: u64) -> u16 {
        self.memory.read_obj(GuestAddress(self.base + at)).unwrap()
    }

    fn describe(&self, index: u16, addr: u64, len: u32, flags: u16) {
        let at = self.base + TABLE + 16 * u64::from(index);
        self.memory.write_obj(addr, GuestAddress(at)).unwrap();
        self.memory.write_obj(len, GuestAddress(at + 8)).unwrap();
        self.memory.write_obj(flags, GuestAddress(at + 12)).unwrap();
        self.memory
            .write_obj(index + 1, GuestAddress(at + 14))
            .unwrap();
    }

    fn offer(&mut self, head: u16) {
        self.write16(AVAIL + 4 + 2 * u64::from(self.added % NUM), head);
        self.added = self.added.wrapping_add(1);
        self.write16(AVAIL + 2, self.added);
    }

    /// Sends a packet in two descriptors, as C's driver does.
    fn send(&mut self, header: &Header, data: &[u8]) {
        let head = 2 * (self.added % (NUM / 2));
        let at = BUFFERS + u64::from(head) * u64::from(BUFFER);
        self.memory
            .write_slice(&header.bytes(), GuestAddress(at))
            .unwrap();
        self.memory
            .write_slice(data, GuestAddress(at + 64))
            .unwrap();
        let more = if data.is_empty() { 0 } else { F_NEXT };
        self.describe(head, at, HEADER_LEN as u32, more);
        self.describe(head + 1, at + 64, data.len() as u32, 0);
        self.offer(head);
    }

    /// Offers a buffer for a packet.
    fn buffer(&mut self, len: u32) {
        let head = self.added % NUM;
        self.describe(head, Self::buffer_at(head), len, F_WRITE);
        self.offer(head);
    }

    fn buffer_at(head: u16) -> u64 {
        2 * BUFFERS + u64::from(head) * u64::from(BUFFER)
    }

    fn used(&self) -> u16 {
        self.read16(USED + 2)
    }

    /// Which kick the device wants.
    fn kick_wanted_at(&self) -> u16 {
        self.read16(USED + 4 + 8 * u64::from(NUM))
    }

    /// Which interrupt the driver wants.
    fn want_interrupt_at(&self, index: u16) {
        self.write16(AVAIL + 4 + 2 * u64::from(NUM), index);
    }

    /// The packet in the buffer that was used as number `index`, and its length.
    fn packet(&self, index: u16) -> (Header, u32) {
        let at = self.base + USED + 4 + 8 * u64::from(index % NUM);
        let head: u32 = self.memory.read_obj(GuestAddress(at)).unwrap();
        let len: u32 = self.memory.read_obj(GuestAddress(at + 4)).unwrap();
        let mut bytes = [0; HEADER_LEN];
        let from = GuestAddress(Self::buffer_at(head as u16));
        self.memory.read_slice(&mut bytes, from).unwrap();
        (Header::parse(&bytes).unwrap(), len)
    }
}

fn setup() -> (Device, Driver, Driver) {
    let mut device = Device::new(3, Like::Ours, None);
    let map = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4 << 20)]).unwrap();
    let memory = GuestMemoryAtomic::new(map);
    device.update_memory(memory.clone()).unwrap();
    let (rx, tx) = (Driver::new(&memory, SECOND), Driver::new(&memory, 0));
    (device, rx, tx)
}

fn header(op: u16, port: u32, len: u32) -> Header {
    Header {
        src_cid: 3,
        dst_cid: 2,
        src_port: 40,
        dst_port: port,
        len,
        ty: packet::STREAM,
        op,
        buf_alloc: 1 << 18,
        ..Header::default()
    }
}

fn count(device: &Device, name: &str) -> u64 {
    let line = device.counters.line();
    let word = line
        .split(' ')
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    word.unwrap().parse().unwrap()
}

#[test]
fn a_request_is_answered_in_a_buffer_of_the_guest() {
    let (mut device, mut rx, mut tx) = setup();
    rx.buffer(BUFFER);
    tx.send(&header(packet::REQUEST, 9000, 0), &[]);
    assert!(device.take(&tx.ring).unwrap());
    assert!(device.fill(&rx.ring).unwrap());
    assert_eq!((tx.used(), rx.used()), (1, 1));
    let (answer, len) = rx.packet(0);
    assert_eq!(
        (answer.op, answer.dst_port, len),
        (packet::RESPONSE, 40, 44)
    );
    assert!(!device.take(&tx.ring).unwrap());
    assert!(!device.fill(&rx.ring).unwrap());
}

#[test]
fn packets_that_are_taken_together_share_an_interrupt() {
    let (mut device, _, mut tx) = setup();
    tx.want_interrupt_at(0);
    for _ in 0..10 {
        tx.send(&header(packet::RST, 9000, 0), &[]);
    }
    assert!(device.take(&tx.ring).unwrap());
    assert_eq!(tx.used(), 10);
    assert_eq!(count(&device, "tx_interrupts"), 1);
    assert_eq!(tx.kick_wanted_at(), 10);
}

#[test]
fn no_interrupt_comes_before_the_one_that_the_driver_wants() {
    let (mut device, _, mut tx) = setup();
    tx.want_interrupt_at(5);
    for _ in 0..5 {
        tx.send(&header(packet::RST, 9000, 0), &[]);
        device.take(&tx.ring).unwrap();
    }
    assert_eq!(count(&device, "tx_interrupts"), 0);
    tx.send(&header(packet::RST, 9000, 0), &[]);
    device.take(&tx.ring).unwrap();
    assert_eq!(count(&device, "tx_interrupts"), 1);
}

#[test]
fn a_kick_of_the_receive_ring_is_wanted_when_it_is_empty_only() {
    let (mut device, mut rx, mut tx) = setup();
    for _ in 0..3 {
        rx.buffer(BUFFER);
    }
    tx.send(&header(packet::REQUEST, 9000, 0), &[]);
    device.take(&tx.ring).unwrap();
    device.fill(&rx.ring).unwrap();
    assert_eq!((rx.used(), rx.kick_wanted_at()), (1, 0));
    for _ in 0..3 {
        tx.send(&header(packet::CREDIT_REQUEST, 9000, 0), &[]);
    }
    device.take(&tx.ring).unwrap();
    device.fill(&rx.ring).unwrap();
    assert_eq!((rx.used(), rx.kick_wanted_at()), (3, 3));
    rx.buffer(BUFFER);
    assert!(device.fill(&rx.ring).unwrap());
    assert_eq!(rx.used(), 4);
}

#[test]
fn a_message_is_split_over_buffers() {
    let (mut device, mut rx, mut tx) = setup();
    for _ in 0..4 {
        rx.buffer(1000);
    }
    tx.send(&header(packet::REQUEST, 9002, 0), &[]);
    let mut message = vec![0; 16];
    message[0] = 200;
    message[1] = 7;
    message.extend(vec![9; 1992]);
    tx.send(&header(packet::RW, 9002, 2008), &message);
    device.take(&tx.ring).unwrap();
    device.fill(&rx.ring).unwrap();
    // A response, and 1992 bytes in pieces of 956.
    let found: Vec<_> = (0..4)
        .map(|n| rx.packet(n))
        .map(|(h, len)| (h.op, h.len, len))
        .collect();
    let rw = packet::RW;
    assert_eq!(
        found,
        [
            (packet::RESPONSE, 0, 44),
            (rw, 956, 1000),
            (rw, 956, 1000),
            (rw, 80, 124)
        ]
    );
    assert_eq!(count(&device, "to"), 4);
}

#[test]
fn one_act_fills_a_ring_of_128_buffers() {
    let (mut device, mut rx, mut tx) = setup();
    for _ in 0..200 {
        rx.buffer(BUFFER);
    }
    tx.send(&header(packet::REQUEST, 9001, 0), &[]);
    let mut command = [0; 16];
    command[0] = 64;
    command[8] = 250;
    tx.send(&header(packet::RW, 9001, 16), &command);
    device.take(&tx.ring).unwrap();
    assert!(device.fill(&rx.ring).unwrap());
    assert_eq!(usize::from(rx.used()), BATCH);
    assert!(device.fill(&rx.ring).unwrap());
    assert_eq!(rx.used(), 200);
}

#[test]
fn a_stopped_ring_is_not_looked_at_for_ever() {
    let (mut device, rx, mut tx) = setup();
    tx.send(&header(packet::REQUEST, 9000, 0), &[]);
    device.take(&tx.ring).unwrap();
    tx.send(&header(packet::RST, 9000, 0), &[]);
    for ring in [&tx.ring, &rx.ring] {
        ring.set_queue_ready(false);
    }
    rx.write16(AVAIL + 2, 7);
    assert!(!device.take(&tx.ring).unwrap());
    assert!(!device.fill(&rx.ring).unwrap());
}
