// SPDX-License-Identifier: GPL-2.0

//! A guest: a driver of the rings, and the programs behind its ports, in one thread that sleeps
//! until its device interrupts it.
//!
//! It does what a Linux guest does, in the order in which that does it: the driver takes all
//! packets that are there, then its programs read them (credit updates), then they answer.

use crate::rings::{self, Layout, Queue};
use measure::{service::Service, Counters};
use ring::{
    device::{signals, Device, BUFFERS, RX, TX},
    packet::{self, Header, HEADER_LEN},
    ring::{Desc, INDIRECT, WRITE},
    Try,
};
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        Arc,
    },
};

/// Where packets of the guest are: a slot for each chain.
const SLOTS: u64 = 0x200_0000;
/// Bytes of a slot: header, payload.
const SLOT: u64 = 0x1_1000;
/// Where tables of descriptors are, one for each chain.
const TABLES: u64 = 0x1f0_0000;
/// Bytes of memory that a guest with `num` entries in a ring needs.
pub fn memory(num: u16) -> usize {
    (SLOTS + SLOT * u64::from(num)) as usize
}

/// How the guest behaves.
#[derive(Clone, Copy, Debug)]
pub struct Behaviour {
    pub layout: Layout,
    /// Bytes of a buffer for the host.
    pub buffer: u32,
    /// How many of them it offers at most.
    pub buffers: u16,
    /// Bytes that a connection may have unread.
    pub window: u32,
    /// A credit update whenever a program read all there was, as the C driver has it; or only when
    /// the host has less than a quarter of the window left.
    pub update_always: bool,
    /// An interrupt for packets that the host took, at once; or only when the ring is nearly full.
    pub tx_interrupts: bool,
}

/// What the application and the guest share.
#[derive(Default)]
pub struct Shared {
    sent: AtomicU64,
    received: AtomicU64,
    kicks: AtomicU64,
    interrupts: AtomicU64,
    /// Connections that the guest shall have made, and has.
    pub dial: AtomicU64,
    pub dialed: AtomicU64,
    /// One more than the number of the connection on which the guest shall send a message.
    pub message: AtomicU64,
    /// The guest shall stop.
    pub stop: AtomicBool,
}

impl Shared {
    pub fn counters(&self) -> Counters {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            sent: of(&self.received),
            received: of(&self.sent),
            kicks: of(&self.kicks),
            interrupts: of(&self.interrupts),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A connection.
struct Connection {
    guest: u32,
    host: u32,
    ty: u16,
    service: Option<Service>,
    /// Bytes that came, and that the host was last told of.
    received: u32,
    told: u32,
    /// Bytes that came and that the program did not act on.
    pending: u64,
    /// Bytes that were sent, and what the host allows.
    sent: u32,
    peer_window: u32,
    peer_taken: u32,
    /// Messages that are to be sent.
    messages: u64,
    size: u32,
    touched: bool,
}

impl Connection {
    fn new(header: &Header) -> Self {
        Self {
            guest: header.dst_port,
            host: header.src_port,
            ty: header.ty,
            service: None,
            received: 0,
            told: 0,
            pending: 0,
            sent: 0,
            peer_window: header.buf_alloc,
            peer_taken: header.fwd_cnt,
            messages: 0,
            size: 0,
            touched: false,
        }
    }

    fn credit(&self) -> u32 {
        let flying = self.sent.wrapping_sub(self.peer_taken);
        self.peer_window.saturating_sub(flying)
    }
}

/// The guest.
pub struct Guest {
    dev: Device,
    rx: Queue,
    tx: Queue,
    how: Behaviour,
    shared: Arc<Shared>,
    connections: Vec<Connection>,
    by_ports: HashMap<(u32, u32), usize>,
    touched: Vec<usize>,
    /// Connections with messages to send.
    sources: VecDeque<usize>,
    backlog: VecDeque<Header>,
    /// Buffers that the driver has not offered again.
    spare: Vec<u16>,
    /// More are offered at once.
    keep: usize,
}

/// The first port from which the guest connects.
const DIAL_FROM: u32 = 20_000;
/// The port of the host to which it does.
pub const LISTENER: u32 = 9100;

impl Guest {
    /// A guest for a device that is set up, with memory of [`memory`] bytes that stays whole, and
    /// without buffers.
    pub fn new(dev: Device, how: Behaviour, shared: Arc<Shared>) -> Self {
        let num = dev.setup.num;
        let buffers = num.min(how.buffers);
        let (rx, tx) = (Queue::of(&dev, RX), Queue::of(&dev, TX));
        let stride = u64::from(how.buffer).next_multiple_of(4096);
        for n in 0..num {
            let at = BUFFERS + u64::from(n) * stride;
            rx.describe(n, Desc::new(at, how.buffer).flags(WRITE));
        }
        let mut guest = Self {
            rx,
            tx,
            how,
            shared,
            connections: Vec::new(),
            by_ports: HashMap::new(),
            touched: Vec::new(),
            sources: VecDeque::new(),
            backlog: VecDeque::new(),
            spare: (0..buffers).rev().collect(),
            keep: usize::from(buffers) / 2,
            dev,
        };
        guest.refill();
        guest
    }

    /// Address of a buffer for the host.
    fn buffer_at(&self, index: u16) -> usize {
        let stride = (self.how.buffer as usize).next_multiple_of(4096);
        BUFFERS as usize + usize::from(index) * stride
    }

    /// Offers all buffers that are spare.
    fn refill(&mut self) {
        while let Some(index) = self.spare.pop() {
            self.rx.offer(index);
        }
        if self.rx.publish() {
            count(&self.shared.kicks);
            self.dev.kick(RX);
        }
    }

    /// Runs until it is told to stop.
    pub fn run(&mut self) -> Try<()> {
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.turn()?;
            let rx = self.rx.arm(0);
            let lazy = self.dev.setup.num / 2;
            let tx = self.tx.arm(if self.how.tx_interrupts { 0 } else { lazy });
            if rx || tx {
                continue;
            }
            // Both rings signal this one, as with QEMU's usual number of vectors.
            let interrupts = signals(&self.dev.call[RX]);
            self.shared
                .interrupts
                .fetch_add(interrupts, Ordering::Relaxed);
        }
        Ok(())
    }

    /// What there is to do.
    fn turn(&mut self) -> Try<()> {
        self.tx.reclaim();
        self.orders();
        while let Some((index, len)) = self.rx.take() {
            self.packet(index, len)?;
            self.spare.push(index);
        }
        if self.spare.len() > self.keep {
            self.refill();
        }
        while let Some(number) = self.touched.pop() {
            self.program(number);
        }
        self.transmit();
        Ok(())
    }

    /// What the application asks of the guest itself.
    fn orders(&mut self) {
        let wanted = self.shared.dial.load(Ordering::Acquire);
        while (self.connections.len() as u64) < wanted {
            let number = self.connections.len();
            let header = Header {
                dst_port: DIAL_FROM + number as u32,
                src_port: LISTENER,
                ty: packet::STREAM,
                ..Header::default()
            };
            self.add(Connection::new(&header));
            self.say(number, packet::REQUEST, 0);
            if number % 32 == 31 {
                // No more at once than a backlog takes.
                break;
            }
        }
        let message = self.shared.message.swap(0, Ordering::Acquire);
        if message > 0 {
            let number = message as usize - 1;
            self.messages(number, 1, 64);
        }
    }

    fn add(&mut self, connection: Connection) {
        self.by_ports
            .insert((connection.host, connection.guest), self.connections.len());
        self.connections.push(connection);
    }

    /// A packet of the host.
    fn packet(&mut self, index: u16, len: u32) -> Try<()> {
        count(&self.shared.received);
        let at = self.buffer_at(index);
        let header = self.header_at(at);
        let ports = (header.src_port, header.dst_port);
        let known = self.by_ports.get(&ports).copied();
        match (header.op, known) {
            (packet::REQUEST, None) => {
                self.add(Connection::new(&header));
                self.say(self.connections.len() - 1, packet::RESPONSE, 0);
                Ok(())
            }
            // A connection that is gone: what was under way to it does not matter.
            (_, None) => Ok(()),
            (_, Some(number)) => self.known(number, &header, at, len),
        }
    }

    fn known(&mut self, number: usize, header: &Header, at: usize, len: u32) -> Try<()> {
        let connection = &mut self.connections[number];
        connection.peer_window = header.buf_alloc;
        connection.peer_taken = header.fwd_cnt;
        match header.op {
            packet::RW => {
                let payload = len - HEADER_LEN as u32;
                connection.received = connection.received.wrapping_add(payload);
                if connection.service.is_none() {
                    let words = self.service_at(at + HEADER_LEN);
                    let service = Service::parse(&words);
                    let connection = &mut self.connections[number];
                    connection.service = Some(service.ok_or("the application asks for nothing")?);
                    self.messages(number, 1, 1);
                } else {
                    connection.pending += u64::from(payload);
                }
                self.touch(number);
            }
            packet::SHUTDOWN => {
                self.say(number, packet::RST, 0);
                self.forget(number);
            }
            packet::RST => self.forget(number),
            packet::RESPONSE => count(&self.shared.dialed),
            packet::CREDIT_REQUEST => self.say(number, packet::CREDIT_UPDATE, 0),
            packet::CREDIT_UPDATE => {}
            op => return Err(format!("{} came", packet::name(op)).into()),
        }
        Ok(())
    }

    fn touch(&mut self, number: usize) {
        let connection = &mut self.connections[number];
        if !connection.touched {
            connection.touched = true;
            self.touched.push(number);
        }
    }

    fn forget(&mut self, number: usize) {
        let connection = &self.connections[number];
        self.by_ports.remove(&(connection.host, connection.guest));
        self.sources.retain(|n| *n != number);
    }

    /// A program reads what came for it, and acts on it.
    fn program(&mut self, number: usize) {
        let how = self.how;
        let connection = &mut self.connections[number];
        connection.touched = false;
        let unknown = connection.received.wrapping_sub(connection.told);
        if how.update_always || unknown > how.window / 4 * 3 {
            self.say(number, packet::CREDIT_UPDATE, 0);
        }
        let connection = &mut self.connections[number];
        match connection.service {
            Some(Service::Echo { size }) => {
                let count = connection.pending / u64::from(size);
                connection.pending %= u64::from(size);
                self.messages(number, count, size);
            }
            Some(Service::Sink { total }) if connection.pending >= total => {
                connection.pending -= total;
                self.messages(number, 1, 1);
            }
            Some(Service::Source { size, count }) if connection.pending > 0 => {
                connection.pending -= 1;
                self.messages(number, u64::from(count), size);
            }
            _ => {}
        }
    }

    /// Has `count` messages of `size` bytes sent.
    fn messages(&mut self, number: usize, count: u64, size: u32) {
        if count == 0 {
            return;
        }
        let connection = &mut self.connections[number];
        connection.messages = count;
        connection.size = size;
        self.sources.push_back(number);
    }

    /// Queues a packet.
    fn say(&mut self, number: usize, op: u16, len: u32) {
        let connection = &mut self.connections[number];
        connection.sent = connection.sent.wrapping_add(len);
        connection.told = connection.received;
        let seqpacket = connection.ty == packet::SEQPACKET && op == packet::RW;
        self.backlog.push_back(Header {
            src_cid: self.dev.cid,
            dst_cid: packet::HOST,
            src_port: connection.guest,
            dst_port: connection.host,
            len,
            ty: connection.ty,
            op,
            flags: match op {
                packet::RW if seqpacket => packet::EOM,
                packet::SHUTDOWN => 3,
                _ => 0,
            },
            buf_alloc: self.how.window,
            fwd_cnt: connection.received,
        });
    }

    /// Sends what there is room and credit for.
    fn transmit(&mut self) {
        loop {
            self.flush();
            if self.room() == 0 {
                break;
            }
            let ready = (0..self.sources.len()).find(|_| {
                let number = self.sources.front().copied();
                let connection = number.and_then(|n| self.connections.get(n));
                let ready = connection.is_some_and(|c| c.credit() >= c.size);
                if !ready {
                    self.sources.rotate_left(1);
                }
                ready
            });
            let Some(number) = ready.and(self.sources.front().copied()) else {
                break;
            };
            let connection = &mut self.connections[number];
            let size = connection.size;
            connection.messages -= 1;
            if connection.messages == 0 {
                self.sources.pop_front();
            }
            self.say(number, packet::RW, size);
        }
    }

    /// Puts queued packets into the ring, and kicks for each if the device wants that, as a driver
    /// does that does not know what comes next.
    fn flush(&mut self) {
        while self.room() > 0 {
            let Some(header) = self.backlog.pop_front() else {
                break;
            };
            self.put(&header);
            if self.tx.publish() {
                count(&self.shared.kicks);
                self.dev.kick(TX);
            }
        }
    }

    fn room(&self) -> u16 {
        self.dev.setup.num - self.tx.in_flight()
    }

    fn put(&mut self, header: &Header) {
        count(&self.shared.sent);
        let slot = self.tx.next();
        let at = SLOTS + SLOT * u64::from(slot);
        self.write_header(at as usize, header);
        let len = HEADER_LEN as u32;
        let payload = Desc::new(at + u64::from(len), header.len);
        if self.how.layout == Layout::Indirect && header.len > 0 {
            let table = TABLES + 32 * u64::from(slot);
            let word = table as usize / 8;
            rings::write_desc(&self.dev.mem, word, Desc::new(at, len).next(1));
            rings::write_desc(&self.dev.mem, word + 2, payload);
            self.tx.describe(slot, Desc::new(table, 32).flags(INDIRECT));
        } else {
            self.tx.describe(slot, Desc::new(at, len + header.len));
        }
        self.tx.offer(slot);
    }

    fn write_header(&self, at: usize, header: &Header) {
        let words = self.dev.mem.words();
        let fields = [
            header.src_cid,
            header.dst_cid,
            u64::from(header.src_port) | u64::from(header.dst_port) << 32,
            u64::from(header.len) | u64::from(header.ty) << 32 | u64::from(header.op) << 48,
            u64::from(header.flags) | u64::from(header.buf_alloc) << 32,
        ];
        for (word, value) in words[at / 8..].iter().zip(fields) {
            word.store(value.to_le(), Ordering::Relaxed);
        }
        let halves = self.dev.mem.halves();
        for (n, half) in halves[at / 2 + 20..at / 2 + 22].iter().enumerate() {
            half.store(
                ((header.fwd_cnt >> (16 * n)) as u16).to_le(),
                Ordering::Relaxed,
            );
        }
    }

    fn header_at(&self, at: usize) -> Header {
        let words = &self.dev.mem.words()[at / 8..at / 8 + 6];
        let word = |n: usize| u64::from_le(words[n].load(Ordering::Relaxed));
        Header {
            src_cid: word(0),
            dst_cid: word(1),
            src_port: word(2) as u32,
            dst_port: (word(2) >> 32) as u32,
            len: word(3) as u32,
            ty: (word(3) >> 32) as u16,
            op: (word(3) >> 48) as u16,
            flags: word(4) as u32,
            buf_alloc: (word(4) >> 32) as u32,
            fwd_cnt: word(5) as u32,
        }
    }

    /// The bytes of a message that asks for a service.
    fn service_at(&self, at: usize) -> Vec<u8> {
        self.dev.mem.read(at, measure::service::LEN)
    }
}
