// SPDX-License-Identifier: GPL-2.0

//! What was read of a ring before it was needed.
//!
//! Heads and descriptors mostly lie one after the other. To read a few of them costs little more
//! than to read one, as the price is in the call, in the checks and in opening the access to user
//! memory.
//!
//! # What may be read ahead
//!
//! A driver writes the descriptors of a chain and its entry of the available ring before it stores
//! the available index, and leaves them alone until the chain is used. So whatever belongs to
//! chains that were available when the index was last read can be read at any time after that. A
//! copy of other descriptors is older than the chain that they will belong to: it must not outlive
//! the next look at the index. See [`Ahead::index_moved`].
//!
//! A driver that changes something in between gets the one or the other, but never both: what is
//! checked is the copy that is used.

use crate::{
    layout,
    memory::RawDesc,
    Config,
    RingMemory, //
};

/// How many entries of the available ring are read at once.
const HEADS: u16 = 16;

/// How many descriptors are read at once, at the most.
const DESCS: u16 = 8;

/// How many are read if they do not follow what was read before: a packet is a header and a
/// payload.
const FEW: u16 = 2;

/// What was read of a ring before it was needed.
///
/// All positions are modulo 2^16.
#[derive(Debug)]
pub(crate) struct Ahead {
    heads: [u16; HEADS as usize],
    /// The available index of the first one of `heads`.
    heads_at: u16,
    /// How many of `heads` were read.
    heads_len: u16,
    descs: [RawDesc; DESCS as usize],
    /// The number of the first one of `descs`.
    descs_at: u16,
    /// How many of `descs` were read.
    descs_len: u16,
    /// The number behind the last one that was read, if it is known or not any more.
    descs_end: u16,
}

impl Ahead {
    pub(crate) const fn new() -> Self {
        Self {
            heads: [0; HEADS as usize],
            heads_at: 0,
            heads_len: 0,
            descs: [[0; 2]; DESCS as usize],
            descs_at: 0,
            descs_len: 0,
            descs_end: 0,
        }
    }

    /// The available index was read again, and is another one: descriptors that were read before
    /// may belong to chains that were not available then.
    #[inline]
    pub(crate) fn index_moved(&mut self) {
        self.descs_len = 0;
    }

    /// Forgets everything.
    pub(crate) fn forget(&mut self) {
        self.heads_len = 0;
        self.descs_len = 0;
    }

    /// The head of the chain at the available index `position`, in memory order; with it, `pending`
    /// chains are available, at least one.
    #[inline]
    pub(crate) fn head<M: RingMemory>(
        &mut self,
        mem: &M,
        config: &Config,
        position: u16,
        pending: u16,
    ) -> Result<u16, M::Error> {
        let mut nth = position.wrapping_sub(self.heads_at);
        if nth >= self.heads_len {
            self.read_heads(mem, config, position, pending)?;
            nth = 0;
        }
        // The remainder changes nothing, and holds under speculation, too.
        let head = self.heads.get(usize::from(nth % HEADS));
        Ok(head.copied().unwrap_or_default())
    }

    #[inline(never)]
    fn read_heads<M: RingMemory>(
        &mut self,
        mem: &M,
        config: &Config,
        position: u16,
        pending: u16,
    ) -> Result<(), M::Error> {
        let slot = config.size.mask(position);
        // OVERFLOW: A slot is less than the size.
        let to_end = config.size.get().wrapping_sub(slot);
        let at = config.avail.offset(layout::avail_offset(slot));
        self.heads_len = 0;
        self.heads_at = position;
        self.heads_len = read(&mut self.heads, pending.min(to_end), |part| {
            mem.read_heads(at, part)
        })?;
        Ok(())
    }

    /// The descriptor `index` of the ring's own table, which is less than the size of the ring.
    #[inline]
    pub(crate) fn desc<M: RingMemory>(
        &mut self,
        mem: &M,
        config: &Config,
        index: u16,
    ) -> Result<RawDesc, M::Error> {
        let mut nth = index.wrapping_sub(self.descs_at);
        if nth >= self.descs_len {
            self.read_descs(mem, config, index)?;
            nth = 0;
        }
        // The remainder changes nothing, and holds under speculation, too.
        let desc = self.descs.get(usize::from(nth % DESCS));
        Ok(desc.copied().unwrap_or_default())
    }

    #[inline(never)]
    fn read_descs<M: RingMemory>(
        &mut self,
        mem: &M,
        config: &Config,
        index: u16,
    ) -> Result<(), M::Error> {
        // OVERFLOW: `index` is less than the size.
        let to_end = config.size.get().wrapping_sub(index);
        let count = if index == self.descs_end { DESCS } else { FEW };
        let at = config.desc.offset(layout::desc_offset(index));
        self.descs_len = 0;
        self.descs_at = index;
        self.descs_len = read(&mut self.descs, count.min(to_end), |part| {
            mem.read_ring_descs(at, part)
        })?;
        self.descs_end = index.wrapping_add(self.descs_len);
        Ok(())
    }
}

/// Fills up to `count` places of `into`, of which the first one is needed, and says how many.
#[inline(always)]
fn read<T, E>(
    into: &mut [T],
    count: u16,
    mut fill: impl FnMut(&mut [T]) -> Result<(), E>,
) -> Result<u16, E> {
    let count = into.len().min(count.into());
    let Some(part) = into.get_mut(..count) else {
        return Ok(0);
    };
    match fill(part) {
        // CAST: At most the 16 bits that `count` had.
        Ok(()) => Ok(count as u16),
        // Nobody asked for the others.
        Err(_) => {
            fill(part.get_mut(..1).unwrap_or_default())?;
            Ok(1)
        }
    }
}
