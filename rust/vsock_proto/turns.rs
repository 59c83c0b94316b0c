// SPDX-License-Identifier: GPL-2.0

//! Whose packet is next, of those that want to send: a deficit round robin.
//!
//! Packets wait in *flows*, one for each connection. In a *round*, each flow that has packets may
//! send a [`QUANTUM`], and as much less in the next one as it sent too much. So a flow that always
//! has packets gets its share of the bytes whatever the others do, but for a quantum and a packet.
//!
//! Within a round, those that had nothing when it began come before those that always have
//! something: a packet that is waited for does not queue behind bulk. Nor behind a burst: each of
//! them sends a little, and the rest of its share when its turn comes. They may not send more in a
//! round than others, however often they have nothing, so nobody gains from that; and there are no
//! more than [`OVERTAKE`] of them in a round, or flows that come and go would keep others from
//! having any.
//!
//! Here are the decisions only. Who has the packets keeps three lists of the flows that have any,
//! one for each [`Place`], and adds flows to the end of a list. The next packet is that of the
//! first flow of the first list that is not empty. If that is the one for [`Place::Next`], the next
//! round begins: what is there is for [`Place::Later`] from then on.
//!
//! # Examples
//!
//! ```
//! use vsock_proto::turns::{Cost, Place, Rounds, Turn};
//!
//! let (mut rounds, mut turn) = (Rounds::new(), Turn::default());
//! assert_eq!(rounds.enter(&mut turn), Place::Now);
//! // It sent a packet, has more, and may go on.
//! assert_eq!(rounds.sent(&mut turn, Cost::of(100), Place::Now, true), None);
//! // It sent some more: others have their turn.
//! assert_eq!(rounds.sent(&mut turn, Cost::of(9000), Place::Now, true), Some(Place::Later));
//! assert_eq!(rounds.sent(&mut turn, Cost::of(9000), Place::Later, true), None);
//! // That was all of its share.
//! assert_eq!(rounds.sent(&mut turn, Cost::of(65536), Place::Later, false), Some(Place::Next));
//! assert_eq!(rounds.enter(&mut turn), Place::Next);
//! ```

/// In what costs and credit are counted, in bytes: so that the state of a flow is small.
const UNIT: usize = 64;

/// What a packet costs apart from its payload, in [`UNIT`]s: as much work as 256 bytes.
const PACKET: i16 = 4;

/// The payload of the largest packet, in bytes.
const LARGEST: usize = 65536;

/// What a flow may send in a round, in [`UNIT`]s: the largest packet.
///
/// A flow of small packets sends a run of hundreds, which a receiver can take in one go.
const QUANTUM: i16 = (LARGEST / UNIT) as i16 + PACKET;

/// What a flow may send before those that have waited since the last round, in [`UNIT`]s, if it has
/// more: a few small packets, or one.
const BURST: i16 = 16;

/// How often in a round a flow may go before those that have waited since the last one.
const OVERTAKE: u16 = 256;

/// The share of a flow in a round.
pub const SHARE: Cost = Cost(QUANTUM);

/// What it costs to send a packet, or some.
///
/// # Invariants
///
/// Positive, or 0 for none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Cost(i16);

impl Cost {
    /// That of no packet.
    pub const NONE: Self = Self(0);

    /// The cost of these packets and others.
    #[inline]
    pub fn plus(self, others: Self) -> Self {
        // INVARIANT: Both are.
        Self(self.0.saturating_add(others.0))
    }

    /// The cost of those of these packets that are not the others.
    #[inline]
    pub fn minus(self, others: Self) -> Self {
        // INVARIANT: Not less than 0.
        Self(self.0.saturating_sub(others.0).max(0))
    }

    /// The cost of a packet with `len` bytes of payload. One with more than 64 KiB costs as much as
    /// one with that.
    #[inline]
    pub fn of(len: usize) -> Self {
        let units = len.min(LARGEST).div_ceil(UNIT);
        // INVARIANT: At most the quantum, whose type is the same.
        // CAST: Not more than 1024.
        Self((units as i16).wrapping_add(PACKET))
    }

    /// The cost as a number, to compare sums with the [`SHARE`].
    pub fn get(self) -> u16 {
        // CAST: By the type invariants, it is positive.
        self.0 as u16
    }
}

/// What is known of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Turn {
    /// What it may still send in `round`. It may send a packet that costs more.
    credit: i16,
    /// In which round it has, or had, its turn.
    round: u16,
}

/// In which list a flow is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// It had nothing when the round began, and comes before those that had.
    Now,
    /// It has its turn in this round.
    Later,
    /// It has its turn in the next round.
    Next,
}

/// The rounds of a queue.
///
/// A flow that is not there for all rounds that there are numbers for may be taken for one that had
/// its turn: it waits for a round then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rounds {
    /// The number of this one.
    now: u16,
    /// How many flows came before others in it.
    overtaken: u16,
}

impl Default for Rounds {
    fn default() -> Self {
        Self::new()
    }
}

impl Rounds {
    /// The first round. A [`Turn`] that is new had none in it.
    pub const fn new() -> Self {
        Self {
            now: 1,
            overtaken: 0,
        }
    }

    /// A flow that had no packets has one now: where to put it.
    #[inline]
    pub fn enter(&mut self, turn: &mut Turn) -> Place {
        match turn.round.wrapping_sub(self.now) {
            // It had nothing to send, and something is left.
            0 if turn.credit > 0 => (),
            // Its turn of this round is over.
            1 => return Place::Next,
            // What it did in an earlier round, in which it had nothing in the end, is forgotten.
            _ => {
                turn.credit = QUANTUM;
                turn.round = self.now;
            }
        }
        if self.overtaken >= OVERTAKE {
            turn.credit = QUANTUM;
            turn.round = self.now.wrapping_add(1);
            return Place::Next;
        }
        self.overtaken = self.overtaken.saturating_add(1);
        Place::Now
    }

    /// How much the first flow, which is in a list and has more than one packet, may send before it
    /// is to be told that it was [`sent`](Self::sent): until the sum is not less than this.
    #[inline]
    pub fn may_send(&self, turn: &Turn, place: Place) -> Cost {
        let credit = match place {
            Place::Now => turn.credit.saturating_sub(QUANTUM - BURST),
            Place::Later | Place::Next => turn.credit,
        };
        // INVARIANT: Not less than 0.
        Cost(credit.max(0))
    }

    /// The first flow, which is in a list, sends a packet, or some as [`may_send`](Self::may_send)
    /// says. Says to which list it goes, if it has more packets and does not stay the first one.
    #[inline]
    pub fn sent(
        &mut self,
        turn: &mut Turn,
        cost: Cost,
        place: Place,
        has_more: bool,
    ) -> Option<Place> {
        if place == Place::Next {
            self.now = self.now.wrapping_add(1);
            self.overtaken = 0;
        }
        turn.credit = turn.credit.saturating_sub(cost.0);
        if turn.credit <= 0 {
            turn.credit = turn.credit.saturating_add(QUANTUM);
            turn.round = self.now.wrapping_add(1);
            return Some(Place::Next);
        }
        let is_burst = place == Place::Now && has_more && turn.credit <= QUANTUM - BURST;
        is_burst.then_some(Place::Later)
    }

    /// The packet that was sent last, or those after it were taken back, could not be sent after
    /// all: the flow has its credit again. Says whether its turn is not over for that reason: it is
    /// the first flow again then, if it was not.
    ///
    /// Nobody looks back to an earlier round: if that ended with this packet, the flow may send
    /// more in this one, at the cost of those before it. So no more than a [`SHARE`], and the
    /// packet that exceeds it, should be taken before it is clear that they can be sent.
    #[inline]
    pub fn take_back(&self, turn: &mut Turn, cost: Cost) -> bool {
        turn.credit = turn.credit.saturating_add(cost.0);
        let undo = turn.credit > QUANTUM && turn.round == self.now.wrapping_add(1);
        if undo {
            turn.credit = turn.credit.saturating_sub(QUANTUM);
            turn.round = self.now;
        }
        undo
    }
}

#[cfg(test)]
#[path = "turns/properties.rs"]
mod properties;
