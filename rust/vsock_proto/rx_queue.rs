// SPDX-License-Identifier: GPL-2.0

//! Where received payload goes: a queue in buffers, with bounded memory.
//!
//! A queue consists of *segments*, linear buffers to whose end payload is copied until they are
//! full, and of *whole* payloads, which stay in the buffer that they came in. A segment of a stream
//! holds its bytes, one of a `SOCK_SEQPACKET` socket [`Record`]s. A payload that does not fit into
//! the last segment is split over that and a new one.
//!
//! # Memory
//!
//! A full segment takes at most 5/2 of its payload, even if that comes as messages of one byte. A
//! payload stays whole only if its buffer, together with the room that is left in the segment
//! before it, takes no more than 5/2 of its bytes. So a queue takes no more than that of all of its
//! bytes, apart from the last segment, and from the first buffer, of which a part may have been
//! read. The allowance in [`limit`] is for those: a peer with credit is never refused, whatever the
//! size of its packets.
//!
//! # A queue with a lock that must not be held for long
//!
//! Nothing here allocates: who pushes brings an empty segment if one is needed
//! ([`Refused::NeedsSegment`]). A reader takes the buffers it wants out of the queue ([`Taken`]),
//! copies from them without the lock, and puts back what is left. What the reader has in hand
//! counts as unread, and its memory as used, until it is put back. There is one reader at a time.
//!
//! What came while the reader had the last segment in hand is in another one. When it is put back,
//! it is filled from that, so that no repeated peek makes a queue of segments that are nearly
//! empty.

use crate::{
    header::{
        SeqFlags,
        SocketType,
        MAX_PKT_BUF_SIZE, //
    },
    record::Record, //
};

#[cfg(test)]
#[path = "rx_queue/model.rs"]
mod model;
#[cfg(test)]
#[path = "rx_queue/properties.rs"]
mod properties;
#[path = "rx_queue/taken.rs"]
mod taken;

pub use taken::{
    Message,
    Taken, //
};

/// Room that the first segment of a queue is to have.
pub const FIRST_SEGMENT: usize = 192;

/// Room that a segment is to have once there is enough in the queue; with what a kernel adds to a
/// buffer it takes less than 4096 bytes.
pub const FULL_SEGMENT: usize = 3584;

/// The most memory of a buffer that stays whole: what may be lost of it when nearly all was read.
const WHOLE_MAX: usize = 112 * 1024;

/// The memory of a buffer that is kept as it is if the queue is empty, whatever it holds: a reader
/// that keeps up gets what came, without a copy. Room for a small packet in a receive buffer of the
/// guest driver.
const ALONE_MAX: usize = 8 * 1024;

/// How much of what full buffers save may be used by those that follow them, as a [`debt`]: a
/// packet that comes in a full buffer and a rest stays in both. It is part of the constant by which
/// a queue may exceed its bound: its reader may take the full ones first.
const SAVED_MAX: i64 = 2 * 16 * 1024;

/// Less room than this is not used for a part of a message.
const LEAST_PART: usize = 16;

/// Memory that a queue may take for `buf_alloc` bytes of payload.
pub const fn limit(buf_alloc: u32) -> usize {
    let payload = buf_alloc as usize;
    payload
        .saturating_mul(2)
        .saturating_add(payload / 2)
        .saturating_add(2 * MAX_PKT_BUF_SIZE as usize)
}

/// What a queue has to remember of a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Where the unread bytes begin; in a segment of records, a record.
    offset: u32,
    /// Bytes of payload, the ones that were read included.
    payload: u32,
    /// Unread ends of messages.
    ends: u32,
    /// Flags of the payload if it is whole.
    flags: SeqFlags,
    /// It is no segment.
    whole: bool,
}

impl Mark {
    /// The mark of an empty segment.
    pub const EMPTY: Self = Self {
        offset: 0,
        payload: 0,
        ends: 0,
        flags: SeqFlags::NONE,
        whole: false,
    };

    fn whole(len: usize, flags: SeqFlags) -> Self {
        Self {
            offset: 0,
            // No packet has so many bytes.
            payload: u32::try_from(len).unwrap_or(u32::MAX),
            ends: u32::from(flags.contains(SeqFlags::EOM)),
            flags,
            whole: true,
        }
    }

    fn offset(&self) -> usize {
        self.offset as usize
    }

    fn set_offset(&mut self, offset: usize) {
        self.offset = u32::try_from(offset).unwrap_or(u32::MAX);
    }

    fn add(&mut self, len: usize, ends: u32) {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        self.payload = self.payload.saturating_add(len);
        self.ends = self.ends.saturating_add(ends);
    }

    fn sub(&mut self, len: usize, ends: u32) {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        self.payload = self.payload.saturating_sub(len);
        self.ends = self.ends.saturating_sub(ends);
    }
}

/// Payload in a buffer of its own, as it came.
pub trait Source {
    /// Bytes of payload.
    fn len(&self) -> usize;

    /// Says whether there is no payload.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory that the buffer takes.
    fn truesize(&self) -> usize;
}

/// Payload in memory that others may write, or want back: it is always copied.
pub trait Foreign {
    /// Bytes of payload.
    fn len(&self) -> usize;

    /// Says whether there is no payload.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A buffer of a queue. Nothing here sleeps or allocates.
pub trait Buffer: Sized {
    /// What a payload comes in.
    type Source: Source;

    /// What a payload comes in that does not stay there.
    type Foreign: Foreign;

    /// Makes a payload a buffer of a queue.
    fn from_source(source: Self::Source, mark: Mark) -> Self;

    /// What the queue remembers.
    fn mark(&self) -> Mark;

    /// Remembers something else.
    fn set_mark(&mut self, mark: Mark);

    /// Bytes in the buffer.
    fn len(&self) -> usize;

    /// Says whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory that the buffer takes. Does not change.
    fn truesize(&self) -> usize;

    /// How many bytes may be appended; 0 if the buffer is not linear.
    fn tailroom(&self) -> usize;

    /// The bytes, if the buffer is linear.
    fn linear(&self) -> Option<&[u8]>;

    /// The bytes, if the buffer is linear.
    fn linear_mut(&mut self) -> Option<&mut [u8]>;

    /// Drops all but the first `len` bytes of a linear buffer.
    fn truncate(&mut self, len: usize);

    /// Appends bytes, and says whether there was room for them.
    #[must_use]
    fn append(&mut self, bytes: &[u8]) -> bool;

    /// Appends `head` and `len` bytes of a payload from `offset` on; says whether that was
    /// possible. If not, nothing was appended.
    #[must_use]
    fn append_from(
        &mut self,
        head: &[u8],
        source: &Self::Source,
        offset: usize,
        len: usize,
    ) -> bool;

    /// As [`append_from`](Self::append_from), for memory that others may write.
    #[must_use]
    fn append_foreign(
        &mut self,
        head: &[u8],
        source: &Self::Foreign,
        offset: usize,
        len: usize,
    ) -> bool;
}

/// A list of buffers. Nothing here sleeps or allocates.
pub trait Buffers: Default {
    /// What is in the list.
    type Buffer: Buffer;

    /// Says whether there is no buffer.
    fn is_empty(&self) -> bool;

    /// Appends a buffer.
    fn push_back(&mut self, buffer: Self::Buffer);

    /// Puts a buffer before all others.
    fn push_front(&mut self, buffer: Self::Buffer);

    /// Takes the first buffer.
    fn pop_front(&mut self) -> Option<Self::Buffer>;

    /// Moves all buffers of another list behind those of this one.
    fn append(&mut self, other: &mut Self);
}

/// What a payload is in.
enum Place<'a, S, F> {
    Bytes(&'a [u8]),
    Source(S),
    Foreign(F),
}

/// A payload that goes into a queue, or what is left of it.
pub struct Payload<'a, S, F> {
    place: Place<'a, S, F>,
    /// Bytes that are in the queue.
    done: usize,
}

impl<'a, S: Source, F: Foreign> Payload<'a, S, F> {
    /// A payload that is to be copied.
    #[inline]
    pub const fn bytes(bytes: &'a [u8]) -> Self {
        Self {
            place: Place::Bytes(bytes),
            done: 0,
        }
    }

    /// A payload that may stay in its buffer.
    #[inline]
    pub const fn source(source: S) -> Self {
        Self {
            place: Place::Source(source),
            done: 0,
        }
    }

    /// A payload that is to be copied, in memory that others may write or want back.
    #[inline]
    pub const fn foreign(foreign: F) -> Self {
        Self {
            place: Place::Foreign(foreign),
            done: 0,
        }
    }

    /// The buffer, unless the payload is in none, or was taken.
    #[inline]
    pub fn as_source(&self) -> Option<&S> {
        match &self.place {
            Place::Source(source) => Some(source),
            Place::Bytes(_) | Place::Foreign(_) => None,
        }
    }

    /// The memory, if it is that of others.
    #[inline]
    pub fn as_foreign(&self) -> Option<&F> {
        match &self.place {
            Place::Foreign(foreign) => Some(foreign),
            Place::Bytes(_) | Place::Source(_) => None,
        }
    }

    /// The memory, to be given back.
    #[inline]
    pub fn into_foreign(self) -> Option<F> {
        match self.place {
            Place::Foreign(foreign) => Some(foreign),
            Place::Bytes(_) | Place::Source(_) => None,
        }
    }

    /// The buffer, unless any of it is in a queue.
    #[inline]
    pub fn into_source(self) -> Option<S> {
        match self.place {
            Place::Source(source) if self.done == 0 => Some(source),
            _ => None,
        }
    }

    /// The bytes, if the payload is not in a buffer.
    #[inline]
    pub fn as_bytes(&self) -> &'a [u8] {
        match self.place {
            Place::Bytes(bytes) => bytes,
            Place::Source(_) | Place::Foreign(_) => &[],
        }
    }

    /// Bytes that are not in the queue yet.
    #[inline]
    pub fn left(&self) -> usize {
        let len = match &self.place {
            Place::Bytes(bytes) => bytes.len(),
            Place::Source(source) => source.len(),
            Place::Foreign(foreign) => foreign.len(),
        };
        len.saturating_sub(self.done)
    }

    /// Memory of the buffer that the payload could stay in.
    fn truesize(&self) -> Option<usize> {
        match &self.place {
            Place::Source(source) if self.done == 0 => Some(source.truesize()),
            _ => None,
        }
    }

    /// Appends `head` and the next `len` bytes to a buffer that has room for both.
    #[must_use]
    fn append_to<B: Buffer<Source = S, Foreign = F>>(
        &mut self,
        buffer: &mut B,
        head: &[u8],
        len: usize,
    ) -> bool {
        let end = self.done.saturating_add(len);
        let appended = match &self.place {
            Place::Bytes(bytes) => {
                let Some(bytes) = bytes.get(self.done..end) else {
                    return false;
                };
                (head.is_empty() || buffer.append(head)) && buffer.append(bytes)
            }
            Place::Source(source) => buffer.append_from(head, source, self.done, len),
            Place::Foreign(foreign) => buffer.append_foreign(head, foreign, self.done, len),
        };
        if appended {
            self.done = end;
        }
        appended
    }

    /// The buffer; an empty payload is left.
    fn take(&mut self) -> Option<S> {
        match core::mem::replace(self, Self::bytes(&[])).place {
            Place::Source(source) => Some(source),
            Place::Bytes(_) | Place::Foreign(_) => None,
        }
    }
}

/// Why a payload is not in the queue, or not all of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// A segment with so much room is needed. What is left of the payload is to be pushed again.
    NeedsSegment(usize),
    /// It would take more memory than the bytes justify; or the payload cannot be read. The
    /// connection cannot go on.
    NoRoom,
}

/// A payload for a queue of such buffers.
pub type PayloadOf<'a, L> = Payload<
    'a,
    <<L as Buffers>::Buffer as Buffer>::Source,
    <<L as Buffers>::Buffer as Buffer>::Foreign,
>;

/// A queue of received bytes with message boundaries.
pub struct Queue<L: Buffers> {
    ty: SocketType,
    /// What nothing is appended to any more.
    list: L,
    /// The segment behind the list, to which payload is appended.
    tail: Option<L::Buffer>,
    /// Unread bytes, those in the hand of the reader included: as many as a peer may have credit
    /// for.
    bytes: u32,
    /// Complete messages, as above.
    messages: u32,
    /// Memory of the buffers, as above.
    memory: usize,
    /// [`debt`] of the buffers in the list that nothing behind them has paid for. If it is
    /// negative, so much was saved by the last ones, up to [`SAVED_MAX`].
    unpaid: i64,
    /// Counts what makes the reader's hand void.
    epoch: u32,
}

/// How much of its memory a buffer's payload does not justify, in half bytes; negative if it would
/// justify more.
fn debt(truesize: usize, payload: usize) -> i64 {
    let memory = i64::try_from(truesize).unwrap_or(i64::MAX);
    let payload = i64::try_from(payload).unwrap_or(i64::MAX);
    memory
        .saturating_mul(2)
        .saturating_sub(payload.saturating_mul(5))
}

/// The [`debt`] of a segment, as if none of it had been read.
fn debt_of<B: Buffer>(buffer: &B) -> i64 {
    debt(buffer.truesize(), buffer.mark().payload as usize)
}

/// How much of `left` bytes goes into `room`; nothing if a new segment is needed.
fn part(ty: SocketType, left: usize, room: usize) -> Option<usize> {
    if ty == SocketType::Stream {
        return (room > 0).then(|| left.min(room));
    }
    // The length of a record has 16 bits, and takes up to 3 bytes.
    let whole = Record::new(left, SeqFlags::NONE).is_some_and(|r| r.packed_len() <= room);
    if whole {
        return Some(left);
    }
    (room >= LEAST_PART).then(|| left.min(room.saturating_sub(3)).min(usize::from(u16::MAX)))
}

impl<L: Buffers> Queue<L> {
    /// An empty queue; `empty` is an empty list.
    pub const fn new(ty: SocketType, empty: L) -> Self {
        Self {
            ty,
            list: empty,
            tail: None,
            bytes: 0,
            messages: 0,
            memory: 0,
            unpaid: 0,
            epoch: 0,
        }
    }

    /// Unread bytes, those in the hand of a reader included.
    #[inline]
    pub const fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// Complete messages that are unread, the one in the hand of a reader included.
    #[inline]
    pub const fn messages(&self) -> u32 {
        self.messages
    }

    /// Memory of the buffers, those in the hand of a reader included.
    #[inline]
    pub const fn memory(&self) -> usize {
        self.memory
    }

    /// Forgets everything, what a reader has in hand included, and returns what is to be dropped.
    #[must_use]
    pub fn purge(&mut self) -> L {
        let mut list = core::mem::take(&mut self.list);
        if let Some(tail) = self.tail.take() {
            list.push_back(tail);
        }
        self.bytes = 0;
        self.messages = 0;
        self.memory = 0;
        self.unpaid = 0;
        self.epoch = self.epoch.wrapping_add(1);
        list
    }

    /// Appends a payload, or what is left of it, that has memory of up to `limit` for all of the
    /// queue.
    ///
    /// `spare` is an empty segment; it is taken if it is needed.
    ///
    /// # Errors
    ///
    /// As [`Refused`] says. A part of the payload may be in the queue and readable, but no end of a
    /// message: `payload` is what is left.
    #[inline]
    pub fn push(
        &mut self,
        payload: &mut PayloadOf<'_, L>,
        flags: SeqFlags,
        limit: usize,
        spare: &mut Option<L::Buffer>,
    ) -> Result<(), Refused> {
        // An empty packet that ends nothing says nothing.
        if payload.left() == 0 && !flags.contains(SeqFlags::EOM) {
            return Ok(());
        }
        if self.keep_whole(payload, flags, limit)? {
            return Ok(());
        }
        loop {
            let left = payload.left();
            let ty = self.ty;
            let place = self.tail.as_mut().and_then(|tail| {
                let len = part(ty, left, tail.tailroom())?;
                Some((tail, len))
            });
            let Some((tail, len)) = place else {
                self.open(left, limit, spare)?;
                continue;
            };
            let flags = if len == left { flags } else { SeqFlags::NONE };
            let appended = match (ty, Record::new(len, flags)) {
                (SocketType::Stream, _) => payload.append_to(tail, &[], len),
                (SocketType::SeqPacket, Some(record)) => {
                    payload.append_to(tail, record.header().as_bytes(), len)
                }
                (SocketType::SeqPacket, None) => false,
            };
            if !appended {
                return Err(Refused::NoRoom);
            }
            let ends = u32::from(flags.contains(SeqFlags::EOM));
            let mut mark = tail.mark();
            mark.add(len, ends);
            tail.set_mark(mark);
            self.count(len, ends);
            if len == left {
                return Ok(());
            }
        }
    }

    fn count(&mut self, len: usize, ends: u32) {
        // CAST: The length of a packet, which has 32 bits.
        self.bytes = self.bytes.saturating_add(len as u32);
        self.messages = self.messages.saturating_add(ends);
    }

    /// Puts a payload into the queue in its own buffer, if its memory is justified; says whether it
    /// did.
    fn keep_whole(
        &mut self,
        payload: &mut PayloadOf<'_, L>,
        flags: SeqFlags,
        limit: usize,
    ) -> Result<bool, Refused> {
        let Some(truesize) = payload.truesize() else {
            return Ok(false);
        };
        let len = payload.left();
        let before = self.debt_to_tail();
        // A queue has one such at most: there is no memory of others.
        let is_alone = self.memory == 0 && truesize <= ALONE_MAX;
        let is_paid = truesize <= WHOLE_MAX && before.saturating_add(debt(truesize, len)) <= 0;
        if len == 0 || !(is_alone || is_paid) {
            return Ok(false);
        }
        let memory = self.memory.saturating_add(truesize);
        if memory > limit {
            return Err(Refused::NoRoom);
        }
        let Some(source) = payload.take() else {
            return Ok(false);
        };
        let mark = Mark::whole(len, flags);
        if let Some(tail) = self.tail.take() {
            self.list.push_back(tail);
        }
        self.list.push_back(L::Buffer::from_source(source, mark));
        self.unpaid = before
            .saturating_add(debt(truesize, len))
            .clamp(-SAVED_MAX, 0);
        self.memory = memory;
        self.count(len, mark.ends);
        Ok(true)
    }

    /// What the next buffer has to pay if nothing more is appended to the last segment.
    fn debt_to_tail(&self) -> i64 {
        let tail = self.tail.as_ref().map_or(0, debt_of);
        self.unpaid.saturating_add(tail).max(-SAVED_MAX)
    }

    /// Begins a new segment, for `left` bytes or the first of them.
    fn open(
        &mut self,
        left: usize,
        limit: usize,
        spare: &mut Option<L::Buffer>,
    ) -> Result<(), Refused> {
        // Small at first, as there may be no more than this. The ones that are not full segments
        // were all begun when the queue took less memory than one.
        let size = self.memory.max(left.saturating_add(3));
        let size = size.clamp(FIRST_SEGMENT, FULL_SEGMENT);
        let fits = spare.as_ref().is_some_and(|s| s.tailroom() >= size);
        let truesize = spare.as_ref().map_or(size, |s| s.truesize().max(size));
        let memory = self.memory.saturating_add(truesize);
        if memory > limit {
            return Err(Refused::NoRoom);
        }
        let segment = if fits { spare.take() } else { None };
        let Some(segment) = segment else {
            return Err(Refused::NeedsSegment(size));
        };
        if self.memory == 0 {
            self.unpaid = 0;
        }
        self.memory = memory;
        self.unpaid = self.debt_to_tail();
        if let Some(full) = self.tail.replace(segment) {
            self.list.push_back(full);
        }
        Ok(())
    }
}
