// SPDX-License-Identifier: GPL-2.0

//! What a connection has received and its user has not read yet.

use kernel::prelude::*;
use kernel_ext::{
    gfp::Gfp,
    iov::RecvMsg,
    skb::{
        SkBuff,
        EMPTY_TRUESIZE,
        MAX_CHEAP_LINEAR, //
    },
    skb_list::SkbList, //
};
use vsock_proto::header::{
    SeqFlags,
    MAX_PKT_BUF_SIZE, //
};

/// Payloads up to this size are copied behind the last one, if there is room.
const COPY_LEN: usize = 128;

/// What is kept with a buffer in the queue.
struct Piece {
    /// Bytes that were read already.
    offset: usize,
    /// `EOM` if a message ends with this buffer.
    flags: SeqFlags,
}

impl Piece {
    fn ends_message(&self) -> bool {
        self.flags.contains(SeqFlags::EOM)
    }
}

/// A queue of received bytes with message boundaries.
///
/// Protected by the socket lock. Its memory is bounded in bytes that are really allocated (rule
/// R9): whoever respects its credit is never refused for the size of its packets, since buffers that
/// hold little are merged first.
pub(crate) struct RxQueue {
    list: SkbList<Piece>,
    /// Unread bytes.
    bytes: usize,
    /// Complete messages.
    messages: u32,
    /// Memory of the buffers.
    memory: usize,
}

impl RxQueue {
    pub(crate) const fn new() -> Self {
        Self {
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
        *self = Self::new();
    }

    /// Memory that a queue may take for `buf_alloc` bytes of payload: as with `SO_RCVBUF` twice as
    /// much, and room for a packet of full size in any case.
    fn limit(buf_alloc: u32) -> usize {
        (buf_alloc as usize)
            .saturating_mul(2)
            .saturating_add(2 * MAX_PKT_BUF_SIZE as usize)
    }

    /// Appends the payload of a packet. The caller has accounted its bytes.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` if that would take more memory than `buf_alloc` bytes of payload justify; this
    /// happens to a peer only that sends messages of next to no bytes.
    pub(crate) fn push(
        &mut self,
        payload: Option<SkBuff<()>>,
        flags: SeqFlags,
        buf_alloc: u32,
    ) -> Result {
        let ends = flags.contains(SeqFlags::EOM);
        let len = payload.as_ref().map_or(0, SkBuff::len);

        if self.append_to_last(payload.as_ref(), flags)? {
            self.count(len, ends);
            return Ok(());
        }
        // An empty packet that ends nothing says nothing.
        if len == 0 && !ends {
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
        self.push_piece(payload, Piece { offset: 0, flags });
        self.count(len, ends);
        Ok(())
    }

    fn count(&mut self, len: usize, ends: bool) {
        self.bytes = self.bytes.saturating_add(len);
        self.messages = self.messages.saturating_add(u32::from(ends));
    }

    fn push_piece(&mut self, skb: SkBuff<()>, piece: Piece) {
        let (skb, ()) = skb.replace_cb(piece);
        self.memory = self.memory.saturating_add(skb.truesize());
        self.list.push_back(skb);
    }

    /// Tries to copy a small payload into the last buffer, and says whether it did.
    fn append_to_last(&mut self, payload: Option<&SkBuff<()>>, flags: SeqFlags) -> Result<bool> {
        let Some(mut last) = self.list.back_mut() else {
            return Ok(false);
        };
        if last.cb().ends_message() {
            return Ok(false);
        }
        if let Some(payload) = payload {
            let len = payload.len();
            if len > COPY_LEN
                || payload.is_nonlinear()
                || last.is_nonlinear()
                || len > last.tailroom()
            {
                return Ok(false);
            }
            last.append_from(payload, 0, len)?;
        }
        let cb = last.cb_mut();
        cb.flags = cb.flags.union(flags);
        Ok(true)
    }

    /// Copies what is needed of buffers that hold little into buffers that are full.
    ///
    /// Without memory, or if a copy fails, what is left stays as it is.
    fn compact(&mut self) {
        let mut old = core::mem::take(&mut self.list);
        self.memory = 0;
        while let Some(skb) = old.pop_front() {
            let unread = skb.len().saturating_sub(skb.cb().offset);
            if skb.truesize() / 2 <= unread || !self.compact_one(&skb, unread, &old) {
                self.memory = self.memory.saturating_add(skb.truesize());
                self.list.push_back(skb);
            }
        }
    }

    /// Copies one buffer behind the last one, or into a new one that has room for the small ones
    /// that follow it in `rest`.
    fn compact_one(&mut self, skb: &SkBuff<Piece>, unread: usize, rest: &SkbList<Piece>) -> bool {
        let (offset, flags) = (skb.cb().offset, skb.cb().flags);
        if let Some(mut last) = self.list.back_mut() {
            if !last.cb().ends_message() && !last.is_nonlinear() && unread <= last.tailroom() {
                if last.append_from(skb, offset, unread).is_err() {
                    return false;
                }
                let cb = last.cb_mut();
                cb.flags = cb.flags.union(flags);
                return true;
            }
        }

        let mut room = unread;
        if !skb.cb().ends_message() {
            for next in rest.iter() {
                let len = next.len().saturating_sub(next.cb().offset);
                let sum = room.saturating_add(len);
                if sum > MAX_CHEAP_LINEAR || next.truesize() / 2 <= len {
                    break;
                }
                room = sum;
                if next.cb().ends_message() {
                    break;
                }
            }
        }
        let Ok(mut merged) = SkBuff::alloc_linear(0, room, Gfp::Kernel, ()) else {
            return false;
        };
        // A copy that takes as much memory is of no use.
        if merged.truesize() >= skb.truesize() && room == unread {
            return false;
        }
        if merged.append_from(skb, offset, unread).is_err() {
            return false;
        }
        self.push_piece(merged, Piece { offset: 0, flags });
        true
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
            let offset = skb.cb().offset;
            let len = skb.len().saturating_sub(offset);
            let n = len.min(msg.left());
            if n > 0 {
                skb.copy_to_iter(offset, msg.dest(), n)?;
            }
            total = total.saturating_add(len);
            if skb.cb().ends_message() {
                if skb.cb().flags.contains(SeqFlags::EOR) {
                    msg.set_end_of_record();
                }
                break;
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
        while let Some(skb) = self.pop() {
            let offset = skb.cb().offset;
            let len = skb.len().saturating_sub(offset);
            let n = len.min(msg.left());
            if copied.is_ok() && n > 0 {
                copied = skb.copy_to_iter(offset, msg.dest(), n);
            }
            total = total.saturating_add(len);
            if skb.cb().ends_message() {
                self.messages = self.messages.saturating_sub(1);
                if skb.cb().flags.contains(SeqFlags::EOR) {
                    msg.set_end_of_record();
                }
                break;
            }
        }
        self.bytes = self.bytes.saturating_sub(total);
        // All of it was accepted as credit, which has 32 bits.
        let freed = u32::try_from(total).unwrap_or(u32::MAX);
        Some((freed, copied.map(|()| total)))
    }

    /// Takes the first buffer as it is, for who does not want a copy of its bytes.
    ///
    /// Returns how many bytes of credit that frees and the unread part of the buffer, or an error if
    /// that cannot be had: the bytes are gone then as well. Nothing if the queue is empty.
    pub(crate) fn take_buffer(&mut self) -> Option<(Result<SkBuff<()>>, u32)> {
        let skb = self.pop()?;
        let (mut skb, piece) = skb.replace_cb(());
        let unread = skb.len().saturating_sub(piece.offset);
        self.bytes = self.bytes.saturating_sub(unread);
        if piece.ends_message() {
            self.messages = self.messages.saturating_sub(1);
        }
        let freed = u32::try_from(unread).unwrap_or(u32::MAX);
        let ret = if piece.offset > 0 {
            skb.pull(piece.offset)
        } else {
            Ok(())
        };
        Some((ret.map(|()| skb), freed))
    }
}
