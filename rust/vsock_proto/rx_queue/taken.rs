// SPDX-License-Identifier: GPL-2.0

//! What a reader has in hand.

use super::{
    debt_of,
    Buffer,
    Buffers,
    Mark,
    Queue, //
};
use crate::{
    header::{
        SeqFlags,
        SocketType, //
    },
    record::Record, //
};

/// The first buffers of a queue, taken out of it so that a reader can copy from them without the
/// lock of the queue.
///
/// To be given to [`Queue::put_back`], and dropped after that without the lock. Until then it
/// counts as unread, and whatever is not put back counts as unread for ever.
pub struct Taken<L: Buffers> {
    ty: SocketType,
    epoch: u32,
    list: L,
    /// The last segment of the queue, if it is in hand: behind the list.
    tail: Option<L::Buffer>,
    /// What [`Queue::unpaid`] was without it.
    unpaid: i64,
    /// Bytes that were read.
    bytes: usize,
    /// Messages that were read.
    messages: u32,
    /// Memory of buffers that were dropped.
    memory: usize,
}

/// A message that was read.
pub struct Message<E> {
    /// Bytes that it has.
    pub len: usize,
    /// Flags of its last part.
    pub flags: SeqFlags,
    /// Whether all parts were copied.
    pub copied: Result<(), E>,
}

/// Bytes in a buffer that belong to one message, or to the stream.
struct Run {
    start: usize,
    len: usize,
    flags: SeqFlags,
}

impl Run {
    /// What is at `offset` of a buffer; nothing if the buffer ends there.
    fn at<B: Buffer>(ty: SocketType, buffer: &B, mark: &Mark, offset: usize) -> Option<Self> {
        if mark.whole || ty == SocketType::Stream {
            return Some(Self {
                start: offset,
                len: buffer.len().saturating_sub(offset),
                flags: mark.flags,
            });
        }
        let (record, header) = Record::decode(buffer.linear()?.get(offset..)?)?;
        Some(Self {
            start: offset.saturating_add(header),
            len: record.len(),
            flags: record.flags(),
        })
    }

    fn end(&self) -> usize {
        self.start.saturating_add(self.len)
    }
}

impl<L: Buffers> Taken<L> {
    /// The first buffer, and whether it is the last segment of the queue.
    fn pop(&mut self) -> Option<(L::Buffer, bool)> {
        match self.list.pop_front() {
            Some(buffer) => Some((buffer, false)),
            None => self.tail.take().map(|tail| (tail, true)),
        }
    }

    fn unpop(&mut self, buffer: L::Buffer, is_tail: bool) {
        if is_tail {
            self.tail = Some(buffer);
        } else {
            self.list.push_front(buffer);
        }
    }

    /// What is before `at` in the first buffer was read: `bytes` and `ends` of messages.
    fn read(&mut self, mut buffer: L::Buffer, is_tail: bool, at: usize, bytes: usize, ends: u32) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.messages = self.messages.saturating_add(ends);
        if at >= buffer.len() {
            self.memory = self.memory.saturating_add(buffer.truesize());
            return;
        }
        let mut mark = buffer.mark();
        mark.set_offset(at);
        mark.ends = mark.ends.saturating_sub(ends);
        buffer.set_mark(mark);
        self.unpop(buffer, is_tail);
    }

    /// Puts what was only looked at before the rest again.
    fn unsee(&mut self, mut seen: L, tail: Option<L::Buffer>) {
        seen.append(&mut self.list);
        self.list = seen;
        if tail.is_some() {
            self.tail = tail;
        }
    }

    /// Calls `copy` with up to `len` bytes of a stream: a buffer, a place in it, and how many
    /// there. Those for which that succeeds are read, unless this is a `peek`.
    ///
    /// # Errors
    ///
    /// That of `copy` if nothing was copied.
    #[inline]
    pub fn stream<E>(
        &mut self,
        len: usize,
        peek: bool,
        mut copy: impl FnMut(&L::Buffer, usize, usize) -> Result<(), E>,
    ) -> Result<usize, E> {
        let (mut seen, mut seen_tail) = (L::default(), None);
        let mut total = 0usize;
        let mut ret = Ok(());
        while total < len {
            let Some((buffer, is_tail)) = self.pop() else {
                break;
            };
            let offset = buffer.mark().offset();
            let left = len.saturating_sub(total);
            let n = left.min(buffer.len().saturating_sub(offset));
            ret = copy(&buffer, offset, n);
            if ret.is_err() {
                self.unpop(buffer, is_tail);
                break;
            }
            total = total.saturating_add(n);
            if !peek {
                self.read(buffer, is_tail, offset.saturating_add(n), n, 0);
            } else if is_tail {
                seen_tail = Some(buffer);
            } else {
                seen.push_back(buffer);
            }
        }
        if peek {
            self.unsee(seen, seen_tail);
        }
        match ret {
            Err(e) if total == 0 => Err(e),
            _ => Ok(total),
        }
    }

    /// Calls `copy` with the parts of the first message, until one fails. The message is read, even
    /// then, unless this is a `peek`.
    #[inline]
    pub fn message<E>(
        &mut self,
        peek: bool,
        mut copy: impl FnMut(&L::Buffer, usize, usize) -> Result<(), E>,
    ) -> Message<E> {
        let (mut seen, mut seen_tail) = (L::default(), None);
        let mut message = Message {
            len: 0,
            flags: SeqFlags::NONE,
            copied: Ok(()),
        };
        let mut ended = false;
        while !ended {
            let Some((buffer, is_tail)) = self.pop() else {
                break;
            };
            let mark = buffer.mark();
            let (mut at, mut bytes) = (mark.offset(), 0usize);
            while let Some(run) = Run::at(self.ty, &buffer, &mark, at) {
                if message.copied.is_ok() && run.len > 0 {
                    message.copied = copy(&buffer, run.start, run.len);
                }
                bytes = bytes.saturating_add(run.len);
                at = run.end();
                ended = run.flags.contains(SeqFlags::EOM);
                if ended {
                    message.flags = run.flags;
                }
                if ended || at >= buffer.len() {
                    break;
                }
            }
            message.len = message.len.saturating_add(bytes);
            if !peek {
                // Without an end of a message all of it was read.
                let at = if ended { at } else { usize::MAX };
                self.read(buffer, is_tail, at, bytes, u32::from(ended));
            } else if is_tail {
                seen_tail = Some(buffer);
            } else {
                seen.push_back(buffer);
            }
        }
        if peek {
            self.unsee(seen, seen_tail);
        }
        message
    }

    /// Calls `f` with the first run of bytes: a buffer that is all of that run and of nothing else
    /// by value, with the place where the run begins; another one by reference, with the place and
    /// the length. It is read if that succeeds.
    ///
    /// Nothing if there is no buffer.
    ///
    /// # Errors
    ///
    /// That of `f`. What was given by value comes back with it.
    pub fn buffer<T, E>(
        &mut self,
        whole: impl FnOnce(L::Buffer, usize) -> Result<T, (L::Buffer, E)>,
        part: impl FnOnce(&L::Buffer, usize, usize) -> Result<T, E>,
    ) -> Option<Result<T, E>> {
        let (buffer, is_tail) = self.pop()?;
        let mark = buffer.mark();
        let run = Run::at(self.ty, &buffer, &mark, mark.offset())?;
        let ends = u32::from(run.flags.contains(SeqFlags::EOM));
        if !mark.whole && self.ty == SocketType::SeqPacket {
            let ret = part(&buffer, run.start, run.len);
            if ret.is_ok() {
                self.read(buffer, is_tail, run.end(), run.len, ends);
            } else {
                self.unpop(buffer, is_tail);
            }
            return Some(ret);
        }
        let truesize = buffer.truesize();
        Some(match whole(buffer, run.start) {
            Ok(value) => {
                self.bytes = self.bytes.saturating_add(run.len);
                self.messages = self.messages.saturating_add(ends);
                self.memory = self.memory.saturating_add(truesize);
                Ok(value)
            }
            Err((buffer, e)) => {
                self.unpop(buffer, is_tail);
                Err(e)
            }
        })
    }
}

impl<L: Buffers> Queue<L> {
    fn hand(&self) -> Taken<L> {
        Taken {
            ty: self.ty,
            epoch: self.epoch,
            list: L::default(),
            tail: None,
            unpaid: self.unpaid,
            bytes: 0,
            messages: 0,
            memory: 0,
        }
    }

    fn take_tail(&mut self, hand: &mut Taken<L>) {
        // It may not be filled any more.
        self.unpaid = self.debt_to_tail();
        hand.tail = self.tail.take();
    }

    /// Takes the buffers with the first `len` bytes of a stream, or with all if there are less.
    #[must_use]
    pub fn take_stream(&mut self, len: usize) -> Taken<L> {
        let mut hand = self.hand();
        if len >= self.bytes() {
            hand.list = core::mem::take(&mut self.list);
            self.take_tail(&mut hand);
            return hand;
        }
        let mut bytes = 0usize;
        while bytes < len {
            let Some(buffer) = self.list.pop_front() else {
                self.take_tail(&mut hand);
                break;
            };
            let unread = buffer.len().saturating_sub(buffer.mark().offset());
            bytes = bytes.saturating_add(unread);
            hand.list.push_back(buffer);
        }
        hand
    }

    /// Takes the buffers with the first message; nothing if there is no complete one.
    #[must_use]
    pub fn take_message(&mut self) -> Option<Taken<L>> {
        if self.messages == 0 {
            return None;
        }
        let mut hand = self.hand();
        while let Some(buffer) = self.list.pop_front() {
            let ends = buffer.mark().ends > 0;
            hand.list.push_back(buffer);
            if ends {
                return Some(hand);
            }
        }
        self.take_tail(&mut hand);
        Some(hand)
    }

    /// Takes the first buffer, for [`Taken::buffer`].
    #[must_use]
    pub fn take_first(&mut self) -> Taken<L> {
        let mut hand = self.hand();
        match self.list.pop_front() {
            Some(buffer) => hand.list.push_back(buffer),
            None => self.take_tail(&mut hand),
        }
        hand
    }

    /// Takes back what a reader has not read, and returns how many bytes it has.
    ///
    /// What is in `hand` then is to be dropped. If the queue was purged meanwhile, that is all, and
    /// no byte was read of what there is now.
    pub fn put_back(&mut self, hand: &mut Taken<L>) -> usize {
        if hand.epoch != self.epoch {
            return 0;
        }
        let bytes = core::mem::take(&mut hand.bytes);
        // CAST: They were in the queue.
        self.bytes = self.bytes.saturating_sub(bytes as u32);
        let messages = core::mem::take(&mut hand.messages);
        self.messages = self.messages.saturating_sub(messages);
        let memory = core::mem::take(&mut hand.memory);
        self.memory = self.memory.saturating_sub(memory);

        let mut first = core::mem::take(&mut hand.list);
        if let Some(tail) = hand.tail.take() {
            self.join(&mut first, tail, hand.unpaid, &mut hand.list);
        }
        first.append(&mut self.list);
        self.list = first;
        if self.list.is_empty() {
            self.unpaid = 0;
        }
        bytes
    }

    /// Puts a segment that was the last one before what came meanwhile, and fills it from that;
    /// `first` gets what goes before the list, `drop` what is not needed any more.
    ///
    /// A segment that was filled from is itself filled from the next one, until what is full pays
    /// for the one that is not. That are at most 13, and that many only of messages of one byte.
    fn join(&mut self, first: &mut L, segment: L::Buffer, unpaid: i64, drop: &mut L) {
        let mut last = segment;
        let mut debt = unpaid;
        loop {
            let (mut next, is_tail) = match (self.list.pop_front(), &mut self.tail) {
                (Some(next), _) => (next, false),
                (None, Some(_)) => match self.tail.take() {
                    Some(tail) => (tail, true),
                    None => break,
                },
                (None, None) => break,
            };
            if next.mark().whole {
                // It has paid for what was before it.
                first.push_back(last);
                self.list.push_front(next);
                return;
            }
            fill(self.ty, &mut last, &mut next);
            if next.is_empty() {
                self.memory = self.memory.saturating_sub(next.truesize());
                drop.push_back(next);
                if is_tail {
                    break;
                }
                continue;
            }
            debt = debt.saturating_add(debt_of(&last));
            first.push_back(core::mem::replace(&mut last, next));
            if is_tail {
                break;
            }
            if debt.saturating_add(debt_of(&last)) <= 0 {
                first.push_back(last);
                return;
            }
        }
        self.tail = Some(last);
        self.unpaid = debt.max(0);
    }
}

/// Moves what fits from the start of `from` to the end of `to`.
fn fill<B: Buffer>(ty: SocketType, to: &mut B, from: &mut B) {
    let room = to.tailroom();
    let Some(bytes) = from.linear() else {
        return;
    };
    let (mut len, mut payload, mut ends) = (0usize, 0usize, 0u32);
    if ty == SocketType::Stream {
        len = room.min(bytes.len());
        payload = len;
    } else {
        while let Some((record, header)) = bytes.get(len..).and_then(Record::decode) {
            let end = len.saturating_add(header).saturating_add(record.len());
            if end > room {
                break;
            }
            len = end;
            payload = payload.saturating_add(record.len());
            ends = ends.saturating_add(u32::from(record.flags().contains(SeqFlags::EOM)));
        }
    }
    let Some(moved) = bytes.get(..len) else {
        return;
    };
    if len == 0 || !to.append(moved) {
        return;
    }
    let mut mark = to.mark();
    mark.add(payload, ends);
    to.set_mark(mark);

    let left = bytes.len().saturating_sub(len);
    if let Some(bytes) = from.linear_mut() {
        // Both ends are in it: `len` bytes of it were copied.
        if len <= bytes.len() {
            bytes.copy_within(len.., 0);
        }
    }
    from.truncate(left);
    let mut mark = from.mark();
    mark.sub(payload, ends);
    from.set_mark(mark);
}
