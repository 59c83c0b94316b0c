// SPDX-License-Identifier: GPL-2.0

//! What a connection has received and its user has not read yet.
//!
//! Where payload goes and how much memory that takes is decided by [`vsock_proto::rx_queue`], which
//! is tested without a kernel. Here are its buffers, which are socket buffers, and the ways to the
//! user.

use kernel::prelude::*;
use kernel_ext::{
    gfp::Gfp,
    iov::RecvMsg,
    skb::{
        Filled,
        SkBuff, //
    },
    skb_list::SkbList, //
};
use vsock_proto::{
    header::{
        SeqFlags,
        SocketType, //
    },
    rx_queue::{
        self,
        Buffer,
        Buffers,
        Foreign,
        Mark,
        Queue,
        Source, //
    }, //
};

#[cfg(CONFIG_KUNIT = "y")]
#[path = "rx_queue/kunit.rs"]
mod kunit;

pub(crate) use vsock_proto::rx_queue::Refused;

/// A payload as the carrier has it.
pub(crate) struct Raw(SkBuff<()>);

impl Source for Raw {
    #[inline]
    fn len(&self) -> usize {
        self.0.len()
    }

    #[inline]
    fn truesize(&self) -> usize {
        self.0.truesize()
    }
}

/// A payload in a block that the carrier wants back.
pub(crate) struct InBlock(Filled);

impl Foreign for InBlock {
    #[inline]
    fn len(&self) -> usize {
        self.0.len()
    }
}

/// A buffer of a queue.
///
/// Outside of queues there are empty ones, for [`RxQueue::push`].
pub(crate) struct Segment(SkBuff<Mark>);

impl Segment {
    /// Allocates an empty segment with the room that [`Refused::NeedsSegment`] asked for.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn alloc(size: usize, gfp: Gfp) -> Result<Self> {
        Ok(Self(SkBuff::alloc_linear(0, size, gfp, Mark::EMPTY)?))
    }
}

impl Buffer for Segment {
    type Source = Raw;
    type Foreign = InBlock;

    #[inline]
    fn from_source(mut source: Raw, mark: Mark) -> Self {
        // Over loopback, the sender is not charged for it any more.
        source.0.orphan();
        Self(source.0.replace_cb(mark).0)
    }

    #[inline]
    fn mark(&self) -> Mark {
        *self.0.cb()
    }

    #[inline]
    fn set_mark(&mut self, mark: Mark) {
        *self.0.cb_mut() = mark;
    }

    #[inline]
    fn len(&self) -> usize {
        self.0.len()
    }

    #[inline]
    fn truesize(&self) -> usize {
        self.0.truesize()
    }

    #[inline]
    fn tailroom(&self) -> usize {
        self.0.tailroom()
    }

    #[inline]
    fn linear(&self) -> Option<&[u8]> {
        self.0.linear()
    }

    #[inline]
    fn linear_mut(&mut self) -> Option<&mut [u8]> {
        self.0.linear_mut()
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    #[inline]
    fn append(&mut self, bytes: &[u8]) -> bool {
        self.0.append(bytes).is_ok()
    }

    #[inline]
    fn append_from(&mut self, head: &[u8], source: &Raw, offset: usize, len: usize) -> bool {
        self.0.append_with(head, &source.0, offset, len).is_ok()
    }

    #[inline]
    fn append_foreign(&mut self, head: &[u8], source: &InBlock, offset: usize, len: usize) -> bool {
        self.0.append_filled(head, &source.0, offset, len).is_ok()
    }
}

/// Buffers of a queue.
pub(crate) struct Segments(SkbList<Mark>);

impl Segments {
    const fn new() -> Self {
        Self(SkbList::new())
    }
}

impl Default for Segments {
    #[inline]
    fn default() -> Self {
        Self::new()
    }
}

impl Buffers for Segments {
    type Buffer = Segment;

    #[inline]
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[inline]
    fn push_back(&mut self, buffer: Segment) {
        self.0.push_back(buffer.0);
    }

    #[inline]
    fn push_front(&mut self, buffer: Segment) {
        self.0.push_front(buffer.0);
    }

    #[inline]
    fn pop_front(&mut self) -> Option<Segment> {
        self.0.pop_front().map(Segment)
    }

    #[inline]
    fn append(&mut self, other: &mut Self) {
        self.0.append(&mut other.0);
    }
}

/// A payload that goes into a queue, or what is left of it.
///
/// A buffer of which the content was copied stays in here: to be dropped without a lock.
pub(crate) struct Payload<'a>(rx_queue::Payload<'a, Raw, InBlock>);

impl<'a> Payload<'a> {
    /// Bytes of private memory, which are copied.
    #[inline]
    pub(crate) fn bytes(bytes: &'a [u8]) -> Self {
        Self(rx_queue::Payload::bytes(bytes))
    }

    /// A buffer, which goes into the queue if its memory is justified, and is copied otherwise.
    #[inline]
    pub(crate) fn skb(skb: SkBuff<()>) -> Self {
        Self(rx_queue::Payload::source(Raw(skb)))
    }

    /// A block, which is copied.
    #[inline]
    pub(crate) fn filled(filled: Filled) -> Self {
        Self(rx_queue::Payload::foreign(InBlock(filled)))
    }

    /// The block.
    #[inline]
    pub(crate) fn as_filled(&self) -> Option<&Filled> {
        self.0.as_foreign().map(|in_block| &in_block.0)
    }

    /// The block, to be given back.
    #[inline]
    pub(crate) fn into_filled(self) -> Option<Filled> {
        self.0.into_foreign().map(|in_block| in_block.0)
    }

    /// The buffer, as long as it is not in a queue.
    #[inline]
    pub(crate) fn as_skb(&self) -> Option<&SkBuff<()>> {
        self.0.as_source().map(|raw| &raw.0)
    }

    /// The buffer, unless any of it is in a queue.
    #[inline]
    pub(crate) fn into_skb(self) -> Option<SkBuff<()>> {
        self.0.into_source().map(|raw| raw.0)
    }

    /// The bytes, if there is no buffer.
    #[inline]
    pub(crate) fn as_bytes(&self) -> &'a [u8] {
        self.0.as_bytes()
    }

    /// Bytes that are in no queue yet.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.0.left()
    }
}

/// A queue of received bytes with message boundaries.
///
/// Its memory is bounded in bytes that are really allocated (rule R9), and whoever respects its
/// credit is never refused for the size of its packets.
///
/// Lock: to be used under a lock, which may be a spinlock: nothing here allocates or sleeps. There
/// is one reader at a time, which copies from what it [took](Taken) without that lock.
pub(crate) struct RxQueue(Queue<Segments>);

impl RxQueue {
    pub(crate) const fn new(ty: SocketType) -> Self {
        Self(Queue::new(ty, Segments::new()))
    }

    /// Unread bytes, those in the hand of the reader included.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// Complete messages, the one in the hand of the reader included.
    #[inline]
    pub(crate) fn messages(&self) -> u32 {
        self.0.messages()
    }

    /// Memory of the buffers.
    pub(crate) fn memory(&self) -> usize {
        self.0.memory()
    }

    /// Memory that a queue may take for `buf_alloc` bytes of payload.
    #[inline]
    pub(crate) const fn limit(buf_alloc: u32) -> usize {
        rx_queue::limit(buf_alloc)
    }

    /// Forgets everything, and makes void what the reader has in hand. What is returned is to be
    /// dropped without the lock.
    #[must_use]
    pub(crate) fn purge(&mut self) -> Segments {
        self.0.purge()
    }

    /// Appends the payload of a packet. The caller has accounted its bytes.
    ///
    /// `spare` is a segment that is taken if it is needed. [`Refused::NeedsSegment`] asks for one:
    /// the caller gives up the lock, allocates it and calls again with the same `payload`, of which
    /// a part may be in the queue by now, and the same `flags`. No other payload may come in
    /// between.
    ///
    /// # Errors
    ///
    /// [`Refused::NoRoom`] if that would take more memory than `buf_alloc` bytes of payload
    /// justify; this happens to a peer only that sends very many messages of no bytes.
    #[inline]
    pub(crate) fn push(
        &mut self,
        payload: &mut Payload<'_>,
        flags: SeqFlags,
        buf_alloc: u32,
        spare: &mut Option<Segment>,
    ) -> Result<(), Refused> {
        let limit = Self::limit(buf_alloc);
        self.0.push(&mut payload.0, flags, limit, spare)
    }

    /// Takes what has the first `len` bytes of a stream, or all that there is.
    #[inline]
    pub(crate) fn take_stream(&mut self, len: usize) -> Taken {
        Taken(self.0.take_stream(len))
    }

    /// Takes what has the first message; nothing if there is no complete one.
    #[inline]
    pub(crate) fn take_message(&mut self) -> Option<Taken> {
        self.0.take_message().map(Taken)
    }

    /// Takes what has the first bytes, for [`Taken::skb`].
    #[inline]
    pub(crate) fn take_first(&mut self) -> Taken {
        Taken(self.0.take_first())
    }

    /// Takes back what was not read, and returns how many bytes of credit were.
    ///
    /// `taken` is to be dropped without the lock.
    #[inline]
    pub(crate) fn put_back(&mut self, taken: &mut Taken) -> u32 {
        // All of it was accepted as credit, which has 32 bits.
        u32::try_from(self.0.put_back(&mut taken.0)).unwrap_or(u32::MAX)
    }
}

/// What a reader took out of a [`RxQueue`], for as long as it copies from it without the lock.
///
/// It counts as unread until [`RxQueue::put_back`], which must follow.
#[must_use]
pub(crate) struct Taken(rx_queue::Taken<Segments>);

impl Taken {
    /// Copies up to `len` bytes of a stream to the user, which are read unless this is a `peek`.
    ///
    /// Context: may fault and sleep.
    ///
    /// # Errors
    ///
    /// `EFAULT` if nothing could be copied.
    pub(crate) fn copy_stream(
        &mut self,
        msg: &mut RecvMsg<'_>,
        len: usize,
        peek: bool,
    ) -> Result<usize> {
        self.0.stream(len, peek, |segment, offset, n| {
            segment.0.copy_to_iter(offset, msg.dest(), n)
        })
    }

    /// Copies as much of the first message to the user as it has room for, and returns the real
    /// length of it. The message is read, with its rest, unless this is a `peek`.
    ///
    /// Context: may fault and sleep.
    ///
    /// # Errors
    ///
    /// That of the copy: the message is read then as well.
    pub(crate) fn copy_message(&mut self, msg: &mut RecvMsg<'_>, peek: bool) -> Result<usize> {
        let message = self.0.message(peek, |segment, offset, len| {
            let n = len.min(msg.left());
            if n > 0 {
                segment.0.copy_to_iter(offset, msg.dest(), n)?;
            }
            Ok(())
        });
        if message.flags.contains(SeqFlags::EOR) && (!peek || message.copied.is_ok()) {
            msg.set_end_of_record();
        }
        message.copied.map(|()| message.len)
    }

    /// Reads the first bytes as a buffer, for who does not want a copy of them. Nothing if there is
    /// none.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; nothing was read.
    pub(crate) fn skb(&mut self) -> Option<Result<SkBuff<()>>> {
        self.0.buffer(
            |segment, offset| {
                let (mut skb, mark) = segment.0.replace_cb(());
                match skb.pull(offset) {
                    Ok(()) => Ok(skb),
                    Err(e) => Err((Segment(skb.replace_cb(mark).0), e)),
                }
            },
            |segment, offset, len| {
                let mut copy = SkBuff::alloc_linear(0, len, Gfp::Kernel, ())?;
                copy.append_from(&segment.0, offset, len)?;
                Ok(copy)
            },
        )
    }
}
