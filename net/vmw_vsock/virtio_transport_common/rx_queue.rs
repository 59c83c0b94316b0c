// SPDX-License-Identifier: GPL-2.0

//! What a connection has received and its user has not read yet.

use kernel::prelude::*;
use kernel_ext::{
    gfp::Gfp,
    iov::RecvMsg,
    skb::{
        SkBuff,
        EMPTY_TRUESIZE, //
    },
    skb_list::SkbList, //
};
use vsock_proto::{
    header::{
        SeqFlags,
        SocketType,
        MAX_PKT_BUF_SIZE, //
    },
    record::Record, //
};

#[path = "rx_queue/compact.rs"]
mod compact;
#[cfg(CONFIG_KUNIT = "y")]
#[path = "rx_queue/kunit.rs"]
mod kunit;

/// Payloads up to this size are copied behind the last one, if there is room.
const COPY_LEN: usize = 128;

/// What is kept with a buffer in the queue.
struct Piece {
    /// Where the unread bytes begin. In a packed buffer a record begins there.
    offset: usize,
    /// `EOM` if a message ends with this buffer; not used if the buffer is packed.
    flags: SeqFlags,
    /// The buffer holds pieces of messages as [`Record`]s, instead of the bytes of one piece.
    packed: bool,
}

impl Piece {
    fn ends_message(&self) -> bool {
        self.flags.contains(SeqFlags::EOM)
    }
}

/// Bytes in a buffer that belong to one message, or to the stream.
struct Run {
    start: usize,
    len: usize,
    flags: SeqFlags,
}

impl Run {
    /// What is at `offset` of a buffer; nothing if the buffer ends there.
    fn at(skb: &SkBuff<Piece>, offset: usize) -> Option<Self> {
        let piece = skb.cb();
        if !piece.packed {
            return Some(Self {
                start: offset,
                len: skb.len().saturating_sub(offset),
                flags: piece.flags,
            });
        }
        let (record, header) = Record::decode(skb.linear()?.get(offset..)?)?;
        Some(Self {
            start: offset.saturating_add(header),
            len: record.len(),
            flags: record.flags(),
        })
    }

    fn end(&self) -> usize {
        self.start.saturating_add(self.len)
    }

    fn ends_message(&self) -> bool {
        self.flags.contains(SeqFlags::EOM)
    }

    /// Copies what the user has room for.
    fn copy(&self, skb: &SkBuff<Piece>, msg: &mut RecvMsg<'_>) -> Result {
        let n = self.len.min(msg.left());
        if n > 0 {
            skb.copy_to_iter(self.start, msg.dest(), n)?;
        }
        Ok(())
    }
}

/// A queue of received bytes with message boundaries.
///
/// Protected by the socket lock. Its memory is bounded in bytes that are really allocated (rule
/// R9). Whoever respects its credit is never refused for the size of its packets: before the queue
/// has too much memory, what is in buffers that hold little is copied into buffers that are full, and
/// of a queue of messages their boundaries, too (see [`compact`]).
pub(crate) struct RxQueue {
    ty: SocketType,
    list: SkbList<Piece>,
    /// Unread bytes.
    bytes: usize,
    /// Complete messages.
    messages: u32,
    /// Memory of the buffers.
    memory: usize,
}

impl RxQueue {
    pub(crate) const fn new(ty: SocketType) -> Self {
        Self {
            ty,
            list: SkbList::new(),
            bytes: 0,
            messages: 0,
            memory: 0,
        }
    }

    /// Unread bytes.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Complete messages.
    #[inline]
    pub(crate) fn messages(&self) -> u32 {
        self.messages
    }

    /// Drops everything.
    pub(crate) fn purge(&mut self) {
        *self = Self::new(self.ty);
    }

    /// Memory that a queue may take for `buf_alloc` bytes of payload.
    ///
    /// [`compact`] gets every queue below it: of what it leaves a buffer takes at most twice its
    /// payload, apart from one small buffer between two large ones.
    pub(crate) fn limit(buf_alloc: u32) -> usize {
        let payload = buf_alloc as usize;
        payload
            .saturating_mul(2)
            .saturating_add(payload / 2)
            .saturating_add(2 * MAX_PKT_BUF_SIZE as usize)
    }

    /// Appends the payload of a packet. The caller has accounted its bytes.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` if that would take more memory than `buf_alloc` bytes of payload justify; this
    /// happens to a peer only that sends very many messages of no bytes. `ENOMEM`.
    pub(crate) fn push(
        &mut self,
        payload: Option<SkBuff<()>>,
        flags: SeqFlags,
        buf_alloc: u32,
    ) -> Result {
        let ends = flags.contains(SeqFlags::EOM);
        let len = payload.as_ref().map_or(0, SkBuff::len);

        // An empty packet that ends nothing says nothing.
        if len == 0 && !ends {
            return Ok(());
        }
        if self.append_to_last(payload.as_ref(), flags)? {
            self.count(len, ends);
            return Ok(());
        }

        let payload = match payload {
            Some(payload) => payload,
            None => SkBuff::alloc(0, 0, Gfp::Kernel, ())?,
        };
        let more = payload.truesize().max(EMPTY_TRUESIZE);
        if self.memory.saturating_add(more) > Self::limit(buf_alloc) {
            self.compact();
            if self.memory.saturating_add(more) > Self::limit(buf_alloc) {
                return Err(ENOBUFS);
            }
        }
        let piece = Piece {
            offset: 0,
            flags,
            packed: false,
        };
        self.push_piece(payload.replace_cb(piece).0);
        self.count(len, ends);
        Ok(())
    }

    fn count(&mut self, len: usize, ends: bool) {
        self.bytes = self.bytes.saturating_add(len);
        self.messages = self.messages.saturating_add(u32::from(ends));
    }

    fn push_piece(&mut self, skb: SkBuff<Piece>) {
        self.memory = self.memory.saturating_add(skb.truesize());
        self.list.push_back(skb);
    }

    /// Tries to copy a small payload into the last buffer, and says whether it did.
    fn append_to_last(&mut self, payload: Option<&SkBuff<()>>, flags: SeqFlags) -> Result<bool> {
        let Some(mut last) = self.list.back_mut() else {
            return Ok(false);
        };
        let len = payload.map_or(0, SkBuff::len);
        if len > COPY_LEN || last.is_nonlinear() {
            return Ok(false);
        }
        if last.cb().packed {
            let record = Record::new(len, flags).ok_or(EMSGSIZE)?;
            if record.packed_len() > last.tailroom() {
                return Ok(false);
            }
            match payload {
                Some(payload) => {
                    last.append_with(record.header().as_bytes(), payload, 0, len)?;
                }
                None => last.append(record.header().as_bytes())?,
            }
            return Ok(true);
        }
        if last.cb().ends_message() || len > last.tailroom() {
            return Ok(false);
        }
        if let Some(payload) = payload {
            if payload.is_nonlinear() {
                return Ok(false);
            }
            last.append_with(&[], payload, 0, len)?;
        }
        let cb = last.cb_mut();
        cb.flags = cb.flags.union(flags);
        Ok(true)
    }

    /// Copies up to `len` bytes to the user, without taking them.
    ///
    /// # Errors
    ///
    /// `EFAULT` if nothing could be copied.
    pub(crate) fn peek_stream(&self, msg: &mut RecvMsg<'_>, len: usize) -> Result<usize> {
        let mut total = 0usize;
        for skb in self.list.iter() {
            let left = len.saturating_sub(total);
            if left == 0 {
                break;
            }
            let offset = skb.cb().offset;
            let n = left.min(skb.len().saturating_sub(offset));
            match skb.copy_to_iter(offset, msg.dest(), n) {
                Ok(()) => total = total.saturating_add(n),
                Err(_) if total > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(total)
    }

    /// Gives up to `len` bytes to the user.
    ///
    /// # Errors
    ///
    /// `EFAULT` if nothing could be copied.
    pub(crate) fn read_stream(&mut self, msg: &mut RecvMsg<'_>, len: usize) -> Result<usize> {
        let mut total = 0usize;
        while let Some(mut skb) = self.list.front_mut() {
            let left = len.saturating_sub(total);
            if left == 0 {
                break;
            }
            let offset = skb.cb().offset;
            let n = left.min(skb.len().saturating_sub(offset));
            match skb.copy_to_iter(offset, msg.dest(), n) {
                Ok(()) => (),
                Err(_) if total > 0 => break,
                Err(e) => return Err(e),
            }
            total = total.saturating_add(n);
            self.bytes = self.bytes.saturating_sub(n);
            skb.cb_mut().offset = offset.saturating_add(n);
            if skb.cb().offset >= skb.len() {
                self.pop();
            }
        }
        Ok(total)
    }

    fn pop(&mut self) -> Option<SkBuff<Piece>> {
        let skb = self.list.pop_front()?;
        self.memory = self.memory.saturating_sub(skb.truesize());
        Some(skb)
    }

    /// Copies the first message to the user, without taking it. Returns its real length, and 0 if
    /// there is none.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub(crate) fn peek_message(&self, msg: &mut RecvMsg<'_>) -> Result<usize> {
        if self.messages == 0 {
            return Ok(0);
        }
        let mut total = 0usize;
        for skb in self.list.iter() {
            let mut offset = skb.cb().offset;
            while let Some(run) = Run::at(&skb, offset) {
                run.copy(&skb, msg)?;
                total = total.saturating_add(run.len);
                if run.ends_message() {
                    if run.flags.contains(SeqFlags::EOR) {
                        msg.set_end_of_record();
                    }
                    return Ok(total);
                }
                offset = run.end();
                if offset >= skb.len() {
                    break;
                }
            }
        }
        Ok(total)
    }

    /// Takes the first message and gives the user as much of it as it has room for.
    ///
    /// Returns how many bytes of credit that frees and the real length of the message, or the error
    /// of the copy: the message is gone then as well. Nothing if there is no message.
    pub(crate) fn read_message(&mut self, msg: &mut RecvMsg<'_>) -> Option<(u32, Result<usize>)> {
        if self.messages == 0 {
            return None;
        }
        let mut total = 0usize;
        let mut copied = Ok(());
        while let Some(skb) = self.list.front() {
            let Some(run) = Run::at(skb, skb.cb().offset) else {
                self.pop();
                continue;
            };
            if copied.is_ok() {
                copied = run.copy(skb, msg);
            }
            total = total.saturating_add(run.len);
            self.taken(&run);
            if run.ends_message() {
                if run.flags.contains(SeqFlags::EOR) {
                    msg.set_end_of_record();
                }
                break;
            }
        }
        // All of it was accepted as credit, which has 32 bits.
        let freed = u32::try_from(total).unwrap_or(u32::MAX);
        Some((freed, copied.map(|()| total)))
    }

    /// The first run, `run`, is not in the queue any more.
    fn taken(&mut self, run: &Run) {
        self.uncount(run);
        let Some(mut first) = self.list.front_mut() else {
            return;
        };
        first.cb_mut().offset = run.end();
        if run.end() >= first.len() {
            self.pop();
        }
    }

    fn uncount(&mut self, run: &Run) {
        self.bytes = self.bytes.saturating_sub(run.len);
        self.messages = self.messages.saturating_sub(u32::from(run.ends_message()));
    }

    /// Takes the first bytes as a buffer, for who does not want a copy of them.
    ///
    /// Returns also how many bytes of credit that frees. Nothing if the queue is empty.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; the queue is as it was.
    pub(crate) fn take_buffer(&mut self) -> Option<Result<(SkBuff<()>, u32)>> {
        let first = self.list.front()?;
        let run = Run::at(first, first.cb().offset)?;
        // All of it was accepted as credit, which has 32 bits.
        let freed = u32::try_from(run.len).unwrap_or(u32::MAX);
        if first.cb().packed {
            let copy = Self::copy_of(first, &run);
            if copy.is_ok() {
                self.taken(&run);
            }
            return Some(copy.map(|skb| (skb, freed)));
        }
        let (mut skb, piece) = self.pop()?.replace_cb(());
        if let Err(e) = skb.pull(run.start) {
            let (skb, ()) = skb.replace_cb(piece);
            self.memory = self.memory.saturating_add(skb.truesize());
            self.list.push_front(skb);
            return Some(Err(e));
        }
        self.uncount(&run);
        Some(Ok((skb, freed)))
    }

    fn copy_of(skb: &SkBuff<Piece>, run: &Run) -> Result<SkBuff<()>> {
        let mut copy = SkBuff::alloc_linear(0, run.len, Gfp::Kernel, ())?;
        copy.append_from(skb, run.start, run.len)?;
        Ok(copy)
    }
}
