// SPDX-License-Identifier: GPL-2.0

//! Saving memory: the content of buffers that hold little goes into buffers that are full.
//!
//! This is done only when a queue would take too much memory otherwise, and to all of the queue at
//! once. Bytes of a stream are put behind each other. Pieces of messages become [`Record`]s of a
//! packed buffer, to whose end the next small messages are added as they come.

use super::{
    Piece,
    RxQueue, //
};
use kernel_ext::{
    gfp::Gfp,
    skb::{
        SkBuff,
        MAX_CHEAP_LINEAR, //
    },
    skb_list::SkbList, //
};
use vsock_proto::{
    header::{
        SeqFlags,
        SocketType, //
    },
    record::{
        Record,
        RecordHeader, //
    }, //
};

/// Buffers with up to this many bytes of payload are merged, however well they use their memory: a
/// small one costs a buffer of its own otherwise, between two that are left alone.
const SMALL: usize = 4096;

/// Room of a new last buffer, for what comes next.
const TAIL_ROOM: usize = 3584;

fn unread(skb: &SkBuff<Piece>) -> usize {
    skb.len().saturating_sub(skb.cb().offset)
}

/// Whether a copy of the buffer's content would take clearly less memory, alone or with others.
fn is_wasteful(skb: &SkBuff<Piece>) -> bool {
    let unread = unread(skb);
    (!skb.cb().packed && unread <= SMALL) || skb.truesize() / 2 > unread
}

/// What has to precede the content of a buffer in a merged one; nothing if it is no small piece.
fn header(ty: SocketType, skb: &SkBuff<Piece>) -> Option<Option<RecordHeader>> {
    if ty == SocketType::Stream || skb.cb().packed {
        return Some(None);
    }
    Record::new(unread(skb), skb.cb().flags).map(|record| Some(record.header()))
}

impl RxQueue {
    /// Copies what is needed of buffers that hold little into buffers that are full.
    ///
    /// Without memory, or if a copy fails, what is left stays as it is.
    ///
    /// Context: may sleep.
    pub(super) fn compact(&mut self) {
        let mut old = core::mem::take(&mut self.list);
        self.memory = 0;
        while let Some(skb) = old.pop_front() {
            if !is_wasteful(&skb) || !self.merge(&skb, &old) {
                self.push_piece(skb);
            }
        }
    }

    /// Copies one buffer behind the last one, or into a new one that has room for the small ones
    /// that follow it in `rest`. Says whether it did.
    fn merge(&mut self, skb: &SkBuff<Piece>, rest: &SkbList<Piece>) -> bool {
        let ty = self.ty;
        let Some(header) = header(ty, skb) else {
            return false;
        };
        let header = header.as_ref().map_or(&[][..], RecordHeader::as_bytes);
        let (offset, len) = (skb.cb().offset, unread(skb));

        if let Some(mut last) = self.list.back_mut() {
            let fits = !last.is_nonlinear() && last.cb().packed == (ty == SocketType::SeqPacket);
            if fits && last.append_with(header, skb, offset, len).is_ok() {
                return true;
            }
        }

        let alone = header.len().saturating_add(len);
        let mut room = alone;
        let mut is_last = true;
        for next in rest.iter() {
            // A piece never needs more than three bytes besides its own.
            let sum = room.saturating_add(unread(&next)).saturating_add(3);
            if sum > MAX_CHEAP_LINEAR || !is_wasteful(&next) {
                is_last = false;
                break;
            }
            room = sum;
        }
        if is_last {
            room = room.max(TAIL_ROOM);
        }
        let piece = Piece {
            offset: 0,
            flags: SeqFlags::NONE,
            packed: ty == SocketType::SeqPacket,
        };
        let Ok(mut merged) = SkBuff::alloc_linear(0, room, Gfp::Kernel, piece) else {
            return false;
        };
        // A copy that takes as much memory is of no use.
        if room == alone && merged.truesize() >= skb.truesize() {
            return false;
        }
        if merged.append_with(header, skb, offset, len).is_err() {
            return false;
        }
        self.push_piece(merged);
        true
    }
}
