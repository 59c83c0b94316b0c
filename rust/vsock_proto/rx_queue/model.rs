// SPDX-License-Identifier: GPL-2.0

//! A queue in buffers whose sizes are those of a kernel, beside a model that is nothing but bytes
//! and ends of messages.

use super::*;
use std::{
    collections::VecDeque,
    vec::Vec, //
};

/// What a kernel adds to a linear buffer behind its bytes, and in an object of its own.
const SHARED_INFO: usize = 320;
const SK_BUFF: usize = 256;

/// A buffer, or a payload: `capacity` is 0 if it is not linear.
pub(super) struct Memory {
    bytes: Vec<u8>,
    capacity: usize,
    truesize: usize,
    mark: Mark,
}

impl Memory {
    pub(super) fn segment(size: usize) -> Self {
        // A cache of its own for small ones, and powers of two.
        let memory = match size + SHARED_INFO {
            0..=704 => 704,
            n => n.next_power_of_two(),
        };
        Self {
            bytes: Vec::new(),
            capacity: memory - SHARED_INFO,
            truesize: memory + SK_BUFF,
            mark: Mark::EMPTY,
        }
    }

    fn payload(bytes: Vec<u8>, waste: usize) -> Self {
        Self {
            capacity: 0,
            truesize: bytes.len() + SHARED_INFO + SK_BUFF + waste,
            bytes,
            mark: Mark::EMPTY,
        }
    }
}

impl Source for Memory {
    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn truesize(&self) -> usize {
        self.truesize
    }
}

/// A payload that does not stay.
pub(super) struct Copied(Vec<u8>);

impl Foreign for Copied {
    fn len(&self) -> usize {
        self.0.len()
    }
}

impl Buffer for Memory {
    type Source = Memory;
    type Foreign = Copied;

    fn from_source(source: Memory, mark: Mark) -> Self {
        Self { mark, ..source }
    }

    fn mark(&self) -> Mark {
        self.mark
    }

    fn set_mark(&mut self, mark: Mark) {
        self.mark = mark;
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn truesize(&self) -> usize {
        self.truesize
    }

    fn tailroom(&self) -> usize {
        self.capacity.saturating_sub(self.bytes.len())
    }

    fn linear(&self) -> Option<&[u8]> {
        (self.capacity > 0).then_some(&self.bytes)
    }

    fn linear_mut(&mut self) -> Option<&mut [u8]> {
        (self.capacity > 0).then_some(&mut self.bytes)
    }

    fn truncate(&mut self, len: usize) {
        assert!(self.capacity > 0);
        self.bytes.truncate(len);
    }

    fn append(&mut self, bytes: &[u8]) -> bool {
        let fits = bytes.len() <= self.tailroom();
        if fits {
            self.bytes.extend(bytes);
        }
        fits
    }

    fn append_from(&mut self, head: &[u8], source: &Memory, offset: usize, len: usize) -> bool {
        let bytes = &source.bytes[offset..offset + len];
        let fits = head.len() + len <= self.tailroom();
        if fits {
            self.bytes.extend(head);
            self.bytes.extend(bytes);
        }
        fits
    }

    fn append_foreign(&mut self, head: &[u8], source: &Copied, offset: usize, len: usize) -> bool {
        let bytes = &source.0[offset..offset + len];
        let fits = head.len() + len <= self.tailroom();
        if fits {
            self.bytes.extend(head);
            self.bytes.extend(bytes);
        }
        fits
    }
}

impl Buffers for VecDeque<Memory> {
    type Buffer = Memory;

    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn push_back(&mut self, buffer: Memory) {
        self.push_back(buffer);
    }

    fn push_front(&mut self, buffer: Memory) {
        self.push_front(buffer);
    }

    fn pop_front(&mut self) -> Option<Memory> {
        self.pop_front()
    }

    fn append(&mut self, other: &mut Self) {
        self.append(other);
    }
}

/// Something that happens to a queue.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// Packets come: how many, bytes of each, in a buffer that has this much memory too much, and
    /// whether a message ends with each.
    Push(usize, usize, Option<usize>, bool),
    /// Messages of nothing come, or packets of nothing.
    Nothing(usize),
    /// The reader takes a message, or what is needed for this many bytes.
    Take(usize),
    /// It looks at what it has, or reads up to this many bytes, or until a fault after some.
    Peek(usize),
    Read(usize),
    Fault(usize, usize),
    /// It takes a buffer.
    Buffer,
    PutBack,
    Purge,
}

/// What was sent and not read.
#[derive(Default)]
struct Model {
    bytes: VecDeque<u8>,
    /// Where messages end, counted from the first byte that ever came, and whether the last packet
    /// of the message was one of nothing.
    ends: VecDeque<(usize, bool)>,
    read: usize,
    came: usize,
    /// How many of these were.
    empty: usize,
}

impl Model {
    /// The length of the first message.
    fn first(&self) -> Option<usize> {
        self.ends.front().map(|(end, _)| end - self.read)
    }

    fn drop_bytes(&mut self, len: usize) {
        self.bytes.drain(..len);
        self.read += len;
    }

    fn drop_message(&mut self) {
        let len = self.first().unwrap();
        if let Some((_, true)) = self.ends.pop_front() {
            self.empty -= 1;
        }
        self.drop_bytes(len);
    }
}

pub(super) struct Bench {
    ty: SocketType,
    pub(super) buf_alloc: usize,
    pub(super) queue: Queue<VecDeque<Memory>>,
    model: Model,
    hand: Option<Taken<VecDeque<Memory>>>,
    /// Bytes that the reader got and did not say so yet.
    in_hand_read: usize,
    in_hand_ends: u32,
    /// The most memory above 5/2 of the bytes.
    pub(super) excess: usize,
}

impl Bench {
    pub(super) fn new(ty: SocketType, buf_alloc: u32) -> Self {
        Self {
            ty,
            buf_alloc: buf_alloc as usize,
            queue: Queue::new(ty, VecDeque::new()),
            model: Model::default(),
            hand: None,
            in_hand_read: 0,
            in_hand_ends: 0,
            excess: 0,
        }
    }

    /// Pushes a payload of which the peer has credit; only that many bytes.
    pub(super) fn push(&mut self, len: usize, waste: Option<usize>, ends: bool) {
        let len = len.min(self.buf_alloc - self.queue.bytes());
        let flags = match (self.ty, ends) {
            (SocketType::SeqPacket, true) => SeqFlags::EOM,
            _ => SeqFlags::NONE,
        };
        let ends = flags == SeqFlags::EOM;
        let bytes: Vec<u8> = (0..len).map(|n| (self.model.came + n) as u8).collect();
        let mut payload = match waste {
            Some(waste) => Payload::source(Memory::payload(bytes.clone(), waste)),
            // One way or the other.
            None if self.model.came % 2 == 1 => Payload::foreign(Copied(bytes.clone())),
            None => Payload::bytes(&bytes),
        };
        let mut spare = None;
        let limit = limit(self.buf_alloc as u32);
        while let Err(refused) = self.queue.push(&mut payload, flags, limit, &mut spare) {
            match refused {
                Refused::NeedsSegment(size) => {
                    assert!((FIRST_SEGMENT..=FULL_SEGMENT).contains(&size));
                    spare = Some(Memory::segment(size));
                }
                Refused::NoRoom => panic!("a peer with credit is refused"),
            }
        }
        assert!(spare.is_none());
        self.model.came += len;
        if ends {
            self.model.ends.push_back((self.model.came, len == 0));
            self.model.empty += usize::from(len == 0);
        }
        self.model.bytes.extend(&bytes);
        self.check();
    }

    pub(super) fn take(&mut self, len: usize) {
        if self.hand.is_some() {
            return;
        }
        self.hand = match self.ty {
            SocketType::Stream => Some(self.queue.take_stream(len)),
            SocketType::SeqPacket => {
                let hand = self.queue.take_message();
                assert_eq!(hand.is_some(), self.model.first().is_some());
                hand
            }
        };
    }

    /// Reads, or peeks, with a fault after some bytes. What is in hand of a stream may be less than
    /// `len`; what is in hand of messages is the first one, until it was read.
    pub(super) fn copy(&mut self, len: usize, peek: bool, fault: usize) {
        let Some(hand) = &mut self.hand else {
            return;
        };
        let mut got: Vec<u8> = Vec::new();
        let copy = |b: &Memory, start: usize, n: usize| {
            if got.len() + n > fault {
                return Err(());
            }
            got.extend(&b.bytes[start..start + n]);
            Ok(())
        };
        if self.ty == SocketType::Stream {
            let n = hand.stream(len, peek, copy);
            assert!(n == Ok(got.len()) || (n.is_err() && got.is_empty()));
            assert!(got.iter().eq(self.model.bytes.iter().take(got.len())));
            if !peek {
                self.in_hand_read += got.len();
                self.model.drop_bytes(got.len());
            }
            return;
        }
        if self.in_hand_ends > 0 {
            return;
        }
        let message = hand.message(peek, copy);
        let first = self.model.first().unwrap();
        assert_eq!(message.len, first);
        assert_eq!(message.flags, SeqFlags::EOM);
        assert!(message.copied.is_err() || got.len() == first);
        assert!(got.iter().eq(self.model.bytes.iter().take(got.len())));
        if !peek {
            self.in_hand_read += first;
            self.in_hand_ends += 1;
            self.model.drop_message();
        }
    }

    pub(super) fn put_back(&mut self) {
        if let Some(mut hand) = self.hand.take() {
            let read = self.queue.put_back(&mut hand);
            assert_eq!(read, core::mem::take(&mut self.in_hand_read));
            self.in_hand_ends = 0;
            self.check();
        }
    }

    fn take_buffer(&mut self) {
        self.put_back();
        let mut hand = self.queue.take_first();
        let got = hand.buffer(
            |b: Memory, at| Ok::<_, (Memory, ())>(b.bytes[at..].to_vec()),
            |b, start, n| Ok(b.bytes[start..start + n].to_vec()),
        );
        let before = self.queue.messages();
        let read = self.queue.put_back(&mut hand);
        let Some(Ok(got)) = got else {
            assert!(self.model.bytes.is_empty() && self.model.ends.is_empty());
            return;
        };
        assert_eq!(got.len(), read);
        assert!(got.iter().eq(self.model.bytes.iter().take(read)));
        if self.ty == SocketType::Stream {
            self.model.drop_bytes(read);
        } else if before == self.queue.messages() {
            // It was the start of a message.
            assert!(self.model.first().is_none_or(|len| read <= len));
            self.model.drop_bytes(read);
        } else {
            assert_eq!(self.model.first(), Some(read));
            self.model.drop_message();
        }
        self.check();
    }

    fn purge(&mut self) {
        drop(self.queue.purge());
        assert_eq!((self.queue.bytes(), self.queue.memory()), (0, 0));
        if let Some(mut hand) = self.hand.take() {
            assert_eq!(self.queue.put_back(&mut hand), 0);
        }
        self.in_hand_read = 0;
        self.in_hand_ends = 0;
        let came = self.model.came;
        self.model = Model {
            came,
            read: came,
            ..Model::default()
        };
        self.check();
    }

    /// The counters are right, and the memory is in its bounds.
    fn check(&mut self) {
        let unread = self.model.bytes.len() + self.in_hand_read;
        assert_eq!(self.queue.bytes(), unread);
        let ends = self.model.ends.len() + self.in_hand_ends as usize;
        assert_eq!(self.queue.messages() as usize, ends);
        let memory = self.queue.memory();
        if unread + ends == 0 && self.hand.is_none() {
            assert_eq!(memory, 0);
        }
        if self.hand.is_none() {
            let tail = self.queue.tail.iter();
            let sum = self.queue.list.iter().chain(tail).map(|b| b.truesize);
            assert_eq!(memory, sum.sum::<usize>());
        }
        // A message of nothing takes a byte.
        let justified = unread * 5 / 2 + self.model.empty * 2;
        self.excess = self.excess.max(memory.saturating_sub(justified));
    }

    pub(super) fn run(&mut self, events: &[Event]) {
        for event in events {
            match *event {
                Event::Push(n, len, waste, ends) => {
                    for _ in 0..n {
                        self.push(len, waste, ends);
                    }
                }
                Event::Nothing(n) => {
                    for n in 0..n {
                        self.push(0, None, n % 4 > 0);
                    }
                }
                Event::Take(len) => self.take(len),
                Event::Peek(len) => self.copy(len, true, usize::MAX),
                Event::Read(len) => self.copy(len, false, usize::MAX),
                Event::Fault(len, at) => self.copy(len, false, at),
                Event::Buffer => self.take_buffer(),
                Event::PutBack => self.put_back(),
                Event::Purge => self.purge(),
            }
        }
        // All that came can be read.
        self.put_back();
        while self.queue.bytes() > 0 || self.queue.messages() > 0 {
            let before = (self.queue.bytes(), self.queue.messages());
            if self.ty == SocketType::SeqPacket && self.queue.messages() == 0 {
                self.push(0, None, true);
            }
            self.take(1000);
            self.copy(1000, false, usize::MAX);
            self.put_back();
            assert_ne!((self.queue.bytes(), self.queue.messages()), before);
        }
        assert_eq!(self.queue.memory(), 0);
    }

    /// Packets come while a reader has something in hand.
    pub(super) fn run_small(&mut self, len: usize, n: usize, read: usize, peek: bool) {
        self.take(read);
        for _ in 0..n {
            self.push(len, None, true);
        }
        self.copy(read, peek, usize::MAX);
        self.put_back();
    }
}
