// SPDX-License-Identifier: GPL-2.0

//! Plays sequences on a device, and compares what comes of them with the model.

use super::{
    grammar::{Shape, Step, PORTS},
    hold::Holder,
    model::{Answer, Model, Ports, MESSAGES, STREAMS},
};
use crate::{
    device::{Device, Setup, DATA, LARGE, RX, TABLE, TX},
    host::Socket,
    packet::{self, Header, Packet, HEADER_LEN},
    ring::{chained, table, Desc, INDIRECT, WRITE},
    rng::Rng,
    Try,
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// A socket of the host, and what it is to read.
struct Open {
    socket: Socket,
    ty: u16,
    expected: Vec<u8>,
}

/// A device, and the programs of the host that serve it.
pub struct Player {
    pub dev: Device,
    streams: Socket,
    messages: Socket,
    model: Model,
    open: BTreeMap<Ports, Open>,
    /// Sockets whose connection is gone, kept until the end of the sequence.
    gone: Vec<Socket>,
    rng: Rng,
    /// Whether what comes is compared with the model.
    compares: bool,
    /// Has the lock of a socket while some of the packets for it come.
    holder: Option<Holder>,
    pub held: u32,
    first_port: u32,
    pub broken: u32,
    pub sequences: u64,
    pub packets: u64,
    /// How long it took to start broken rings again.
    pub restarts: Duration,
}

impl Player {
    pub fn new(rng: &mut Rng, compares: bool) -> Try<Self> {
        let player = Self {
            dev: Setup::buffers(128).open()?,
            streams: Socket::listener(libc::SOCK_STREAM, STREAMS, 64)?,
            messages: Socket::listener(libc::SOCK_SEQPACKET, MESSAGES, 64)?,
            model: Model::default(),
            open: BTreeMap::new(),
            gone: Vec::new(),
            rng: Rng::new(rng.word(), "player"),
            compares,
            holder: None,
            held: 0,
            first_port: 1 << 20,
            broken: 0,
            sequences: 0,
            packets: 0,
            restarts: Duration::ZERO,
        };
        Ok(player)
    }

    /// As [`Self::new`], compared, while a thread has the lock of the sockets for which some
    /// packets come.
    pub fn holding(rng: &mut Rng) -> Try<Self> {
        Ok(Self {
            holder: Some(Holder::new()?),
            ..Self::new(rng, true)?
        })
    }

    /// The first port of the next sequence: no two have one in common.
    pub fn ports(&mut self) -> u32 {
        self.first_port += PORTS;
        self.first_port
    }

    /// Plays a sequence to its end, and leaves no connection behind.
    pub fn play(&mut self, steps: &[Step]) -> Try<()> {
        self.sequences += 1;
        for (number, step) in steps.iter().enumerate() {
            self.step(step)
                .map_err(|failure| format!("step {} of {steps:#?}: {failure}", number + 1))?;
        }
        self.end()
    }

    fn step(&mut self, step: &Step) -> Try<()> {
        match step {
            Step::Packet {
                header,
                payload,
                shape,
            } => self.packet(header, *payload, *shape),
            Step::Read(which) => self.read(*which),
            Step::Write(which, len) => self.write(*which, *len),
            Step::Close(which) => self.close(*which),
        }
    }

    /// Resets what is left.
    fn end(&mut self) -> Try<()> {
        let left: Vec<_> = self.model.connections().collect();
        for (guest, host) in left {
            for ty in [packet::STREAM, packet::SEQPACKET] {
                let rst = self.dev.header(packet::RST, guest, host);
                self.dev.put(rst.with(|h| h.ty = ty), &[]);
            }
        }
        self.dev.kick(TX);
        self.model.forget_all();
        self.open.clear();
        self.gone.clear();
        while let Ok(socket) = self.streams.accept() {
            drop(socket);
        }
        while let Ok(socket) = self.messages.accept() {
            drop(socket);
        }
        self.replies()?;
        self.repair()
    }

    /// After a ring broke by itself, it is started again.
    fn repair(&mut self) -> Try<()> {
        if self.dev.errors(TX) + self.dev.errors(RX) == 0 {
            return Ok(());
        }
        self.broken += 1;
        if self.compares {
            return Err("a ring is broken".into());
        }
        self.restart()
    }

    /// Starts the rings anew, whatever is in them.
    pub fn restart(&mut self) -> Try<()> {
        let begin = Instant::now();
        self.dev.run(false)?;
        for q in [RX, TX] {
            let fresh = crate::ring::Queue::new(&self.dev.mem, q, self.dev.setup.num);
            self.dev.q[q] = fresh;
            self.dev.mem.store16(self.dev.q[q].used + 2, 0);
            self.dev.set_base(q, 0)?;
            self.dev.q[q].publish();
        }
        self.dev.run(true)?;
        for n in 0..self.dev.setup.buffers {
            self.dev.post(n, self.dev.setup.buffer_len);
        }
        self.dev.kick(RX);
        self.dev.errors(RX);
        self.dev.errors(TX);
        self.restarts += begin.elapsed();
        Ok(())
    }

    /// All packets that came, after the host is done; but not what it asked because of a clock.
    fn replies(&mut self) -> Try<Vec<Packet>> {
        let mut all = Vec::new();
        loop {
            self.dev.flush()?;
            self.dev.flush()?;
            self.dev.q[TX].take_all();
            let mut came = 0;
            while let Some((used, packet)) = self.dev.take() {
                came += 1;
                if self.model.is_asked_again(&packet.header) {
                    self.model.heard(&packet.header);
                } else {
                    all.push(packet);
                }
                let index = (used.id as u16) % self.dev.setup.num;
                self.dev.post(index, self.dev.setup.buffer_len);
            }
            if came == 0 {
                return Ok(all);
            }
            self.dev.kick(RX);
        }
    }

    fn bytes(&mut self, ports: Ports, len: u32) -> Vec<u8> {
        let begin = self.rng.word() as u32 ^ ports.0;
        (0..len)
            .map(|n| (begin.wrapping_add(n).wrapping_mul(0x9e37) >> 8) as u8)
            .collect()
    }

    fn packet(&mut self, header: &Header, payload: u32, shape: Shape) -> Try<()> {
        let ports = (header.src_port, header.dst_port);
        let payload = self.bytes(ports, payload);
        let before = self.dev.q[TX].device_used_idx();
        self.offer(&[&header.bytes()[..], &payload].concat(), shape);
        self.kick(header)?;
        self.packets += 1;
        let replies = self.replies()?;
        if !self.compares {
            while let Ok(socket) = self.streams.accept() {
                self.gone.push(socket);
            }
            while let Ok(socket) = self.messages.accept() {
                self.gone.push(socket);
            }
            return self.repair();
        }
        let used = self.dev.q[TX].device_used_idx().wrapping_sub(before);
        let errors = self.dev.errors(TX);
        if shape.breaks() {
            if (used, errors, replies.len()) != (0, 1, 0) {
                return Err(
                    format!("{used} used, {errors} errors, {replies:?}; not broken").into(),
                );
            }
            self.broken += 1;
            self.model.forget_all();
            let open = std::mem::take(&mut self.open);
            self.gone.extend(open.into_values().map(|open| open.socket));
            return self.restart();
        }
        if (used, errors) != (1, 0) {
            return Err(format!("{used} used, {errors} errors").into());
        }
        let mine = header.src_cid == self.dev.cid && header.dst_cid == packet::HOST;
        let is_packet = shape.is_good() && header.len as usize <= payload.len();
        let mut replies = replies;
        if mine && is_packet && self.model.may_tell(header) {
            // Whether it does is a matter of how much there is to tell. It goes before the answer.
            let tells = replies.first().is_some_and(|p| {
                p.header.op == packet::CREDIT_UPDATE
                    && (p.header.dst_port, p.header.src_port) == ports
            });
            if tells && (header.op != packet::CREDIT_REQUEST || replies.len() > 1) {
                self.model.heard(&replies.remove(0).header);
            }
        }
        let answer = if mine && is_packet {
            self.model.packet(header)
        } else {
            Answer::Nothing
        };
        for reply in &replies {
            self.model.heard(&reply.header);
        }
        self.compare(ports, &answer, &replies)?;
        self.after(header, &payload, &answer, mine && is_packet)
    }

    /// Kicks for a packet; some find the socket's lock taken until the worker is done with them.
    fn kick(&mut self, header: &Header) -> Try<()> {
        let socket = match self.open.get(&(header.src_port, header.dst_port)) {
            Some(open) => &open.socket,
            None if header.dst_port == MESSAGES => &self.messages,
            None => &self.streams,
        };
        let Some(holder) = self.holder.as_mut().filter(|_| self.rng.one_in(3)) else {
            self.dev.kick(TX);
            return Ok(());
        };
        let held = holder.hold(socket)?;
        self.dev.kick(TX);
        self.dev.flush()?;
        self.held += 1;
        held.let_go()
    }

    fn compare(&self, ports: Ports, answer: &Answer, replies: &[Packet]) -> Try<()> {
        let expected = match answer {
            Answer::Nothing => None,
            Answer::Packet(op) => Some(*op),
            Answer::Accepted => Some(packet::RESPONSE),
            Answer::Reset => Some(packet::RST),
        };
        let right = match (expected, replies) {
            (None, []) => true,
            (Some(op), [one]) => {
                let h = &one.header;
                (h.op, h.dst_cid, h.src_cid) == (op, self.dev.cid, packet::HOST)
                    && (h.dst_port, h.src_port) == ports
            }
            _ => false,
        };
        if right {
            return Ok(());
        }
        let came: Vec<_> = replies.iter().map(|p| p.header).collect();
        Err(format!("expected {answer:?}, came {came:?}").into())
    }

    /// What a packet does to the sockets of the host.
    fn after(&mut self, header: &Header, payload: &[u8], answer: &Answer, taken: bool) -> Try<()> {
        let ports = (header.src_port, header.dst_port);
        if *answer == Answer::Accepted {
            let listener = if header.dst_port == STREAMS {
                &self.streams
            } else {
                &self.messages
            };
            let open = Open {
                socket: listener.accept()?,
                ty: header.ty,
                expected: Vec::new(),
            };
            self.open.insert(ports, open);
        } else if taken && !self.model.connections().any(|p| p == ports) {
            self.gone
                .extend(self.open.remove(&ports).map(|open| open.socket));
        } else if taken && header.op == packet::RW {
            if let Some(open) = self.open.get_mut(&ports) {
                if open.ty == header.ty {
                    open.expected
                        .extend_from_slice(&payload[..header.len as usize]);
                }
            }
        }
        Ok(())
    }

    fn nth(&self, which: u32) -> Option<Ports> {
        let count = self.open.len().max(1);
        self.open.keys().nth(which as usize % count).copied()
    }

    fn read(&mut self, which: u32) -> Try<()> {
        let Some(ports) = self.nth(which) else {
            return Ok(());
        };
        let Some(open) = self.open.get_mut(&ports) else {
            return Ok(());
        };
        let mut got = Vec::new();
        let mut messages = 0;
        while let Ok(bytes) = open.socket.recv(256 * 1024) {
            messages += 1;
            // An empty message looks like the end of a connection.
            if bytes.is_empty() && (open.ty == packet::STREAM || messages > 64) {
                break;
            }
            got.extend(bytes);
        }
        let replies = self.replies()?;
        if !self.compares {
            return Ok(());
        }
        let due = self.model.read(ports).unwrap_or(0) as usize;
        for reply in &replies {
            self.model.heard(&reply.header);
        }
        if got.len() != due || !open_starts_with(&mut self.open, ports, &got) {
            return Err(format!("read {} bytes, {due} were due", got.len()).into());
        }
        if replies.iter().any(|p| p.header.op != packet::CREDIT_UPDATE) {
            return Err(format!("after a read came {replies:?}").into());
        }
        Ok(())
    }

    fn write(&mut self, which: u32, len: u32) -> Try<()> {
        let Some(ports) = self.nth(which) else {
            return Ok(());
        };
        let bytes = self.bytes(ports, len);
        let Some(open) = self.open.get(&ports) else {
            return Ok(());
        };
        let sent = open.socket.send(&bytes).unwrap_or(0);
        let replies = self.replies()?;
        if !self.compares {
            return Ok(());
        }
        let due = self.model.write(ports, len).unwrap_or(0) as usize;
        let came: Vec<u8> = replies.iter().flat_map(|p| p.payload.clone()).collect();
        for reply in &replies {
            self.model.heard(&reply.header);
        }
        // One that cannot send all may ask, once.
        let asks = usize::from(sent < bytes.len() && self.model.may_ask(ports));
        let ops = replies.iter().map(|p| p.header.op);
        let asked = ops.clone().filter(|op| *op == packet::CREDIT_REQUEST);
        let others = asked.count() > asks
            || ops
                .into_iter()
                .any(|op| op != packet::RW && op != packet::CREDIT_REQUEST);
        if sent != due || others || came != bytes[..sent] {
            let came = came.len();
            return Err(format!("sent {sent} of {len}, {due} were due, {came} came").into());
        }
        Ok(())
    }

    fn close(&mut self, which: u32) -> Try<()> {
        let Some(ports) = self.nth(which) else {
            return Ok(());
        };
        drop(self.open.remove(&ports));
        self.model.close(ports);
        let replies = self.replies()?;
        let ops: Vec<_> = replies.iter().map(|p| p.header.op).collect();
        if self.compares && ops != [packet::SHUTDOWN] {
            return Err(format!("closed, and {ops:?} came").into());
        }
        Ok(())
    }

    /// Offers bytes to the host in some shape.
    fn offer(&mut self, bytes: &[u8], shape: Shape) {
        let num = self.dev.setup.num;
        let head = self.rng.below(u64::from(num)) as u16;
        let at = if bytes.len() <= 0x2000 {
            DATA + u64::from(head % 256) * 0x2000
        } else {
            LARGE
        };
        self.dev.mem.write(at as usize, bytes);
        let whole = Desc::new(at, bytes.len() as u32);
        let q = TX;
        match shape {
            Shape::Whole => self.chain(head, &[whole]),
            Shape::Pieces(count) => {
                let pieces = self.pieces(at, bytes.len(), count);
                self.chain(head, &pieces);
            }
            Shape::WithEmpty => {
                let pieces = self.pieces(at, bytes.len(), 3);
                let mixed: Vec<_> = pieces
                    .iter()
                    .flat_map(|piece| [Desc::new(u64::MAX, 0), *piece])
                    .collect();
                self.chain(head, &mixed);
            }
            Shape::Indirect(count) => {
                let pieces = self.pieces(at, bytes.len(), count);
                self.indirect(head, &chained(&pieces), Desc::default());
            }
            Shape::Shuffled => {
                let pieces = self.pieces(at, bytes.len(), 3);
                // The first one, the last but one, and what is in between.
                let mut entries = vec![Desc::new(u64::MAX, 1); 6];
                entries[0] = pieces[0].next(4);
                entries[4] = pieces[1].next(2);
                entries[2] = pieces[2];
                self.indirect(head, &entries, Desc::default());
            }
            Shape::ReservedFlags => self.chain(head, &[whole.flags(0xfff8)]),
            Shape::Short => {
                let len = self.rng.below(HEADER_LEN as u64) as u32;
                self.chain(head, &[Desc::new(at, len)]);
            }
            Shape::Writable => self.chain(head, &[whole.flags(WRITE)]),
            Shape::WithWritable => {
                self.chain(head, &[whole, Desc::new(LARGE, 10).flags(WRITE)]);
            }
            Shape::HeadOutside => {
                let outside = num + self.rng.below(60_000) as u16;
                self.dev.q[q].offer(outside);
            }
            Shape::NextOutside => {
                self.dev.q[q].set(head, whole.next(num));
                self.dev.q[q].offer(head);
            }
            Shape::Loop => {
                let next = (head + 1) % num;
                self.dev.q[q].set(head, whole.next(next));
                self.dev.q[q].set(next, Desc::new(at, 1).next(head));
                self.dev.q[q].offer(head);
            }
            Shape::AddressOutside => {
                let beyond = self.dev.mem.len() as u64 - 20;
                let outside = self.rng.pick(&[beyond, 1 << 40, u64::MAX - 8]);
                self.chain(head, &[Desc::new(outside, 44)]);
            }
            Shape::TableLength => {
                let wrong = self.rng.pick(&[0, 1, 17, 65_537 * 16]);
                self.table_desc(head, Desc::new(TABLE, wrong));
            }
            Shape::TableNested => {
                let entry = Desc::new(TABLE, 16).flags(INDIRECT);
                self.indirect(head, &[entry], Desc::default());
            }
            Shape::TableContinues => {
                self.indirect(head, &[whole], Desc::default().next(head));
            }
        }
    }

    /// Cuts bytes into pieces, some of which may be empty.
    fn pieces(&mut self, at: u64, len: usize, count: u8) -> Vec<Desc> {
        let mut cuts: Vec<_> = (1..count).map(|_| self.rng.below(len as u64 + 1)).collect();
        cuts.push(0);
        cuts.push(len as u64);
        cuts.sort_unstable();
        cuts.windows(2)
            .map(|w| Desc::new(at + w[0], (w[1] - w[0]) as u32))
            .collect()
    }

    /// Offers a chain in the ring that begins at `head`.
    fn chain(&mut self, head: u16, descs: &[Desc]) {
        let num = self.dev.setup.num;
        let last = descs.len() - 1;
        for (n, desc) in descs.iter().enumerate() {
            let index = (head + n as u16) % num;
            let next = (index + 1) % num;
            let desc = if n < last { desc.next(next) } else { *desc };
            self.dev.q[TX].set(index, desc);
        }
        self.dev.q[TX].offer(head);
    }

    /// Offers a table; `with` has flags for the descriptor that refers to it.
    fn indirect(&mut self, head: u16, entries: &[Desc], with: Desc) {
        self.dev.mem.write(TABLE as usize, &table(entries));
        let desc = Desc {
            addr: TABLE,
            len: entries.len() as u32 * 16,
            ..with
        };
        self.table_desc(head, desc);
    }

    fn table_desc(&mut self, head: u16, desc: Desc) {
        self.dev.q[TX].set(head, desc.flags(INDIRECT));
        self.dev.q[TX].offer(head);
    }
}

/// Takes bytes from what a socket is to read; says whether they are those.
fn open_starts_with(open: &mut BTreeMap<Ports, Open>, ports: Ports, got: &[u8]) -> bool {
    let Some(open) = open.get_mut(&ports) else {
        return got.is_empty();
    };
    let right = open.expected.starts_with(got);
    open.expected.drain(..got.len().min(open.expected.len()));
    right
}
