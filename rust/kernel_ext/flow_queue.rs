// SPDX-License-Identifier: GPL-2.0

//! Queues of socket buffers that belong to flows, which take turns.
//!
//! Each [`Flow`] that has packets in a [`FlowQueue`] has a list of its own there, so that its
//! packets can be taken out without a look at others; and it is in one of three lists of the flows
//! that have any. Both are linked through the packets: the queue allocates nothing, and a flow
//! without packets is a pointer and two numbers.
//!
//! A flow is a part of something that its packets own a reference to ([`InFlow`]). It is in one
//! queue at a time: a queue *claims* it with its first packet, and gives it up with its last one.
//!
//! Whose turn it is, is decided by the user of the queue, who keeps data of type `D` with each
//! flow.

#[path = "flow_queue/turns.rs"]
mod turns;

pub use self::turns::Place;

use self::turns::{
    next,
    set_next,
    Turns, //
};
use crate::{
    peek::Peek,
    skb::SkBuff,
    skb_list::{
        Link,
        SkbList, //
    }, //
};
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    mem::ManuallyDrop, //
};
use kernel::{
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Relaxed,
        Release, //
    },
};

/// A control block that says to which flow its packet belongs.
///
/// To be implemented by [`impl_in_flow!`](crate::impl_in_flow).
///
/// # Safety
///
/// As long as nobody has a mutable reference to the control block, the flow is always the same one,
/// and is neither dropped nor moved.
pub unsafe trait InFlow<D> {
    /// The flow, or `None`: then the packet is one of those that belong to none, which take turns
    /// with flows as if they had one of their own.
    fn flow(&self) -> Option<&Flow<D>>;
}

/// Implements [`InFlow`] for a control block: the flow is a field of what a counted pointer in it
/// points to, if that is not `None`.
///
/// # Examples
///
/// ```ignore
/// struct Conn {
///     flow: Flow<Turn>,
/// }
///
/// struct Control {
///     conn: Option<Arc<Conn>>,
/// }
///
/// kernel_ext::impl_in_flow! {
///     impl InFlow<Turn> for Control { self.conn: Conn { flow } }
/// }
/// ```
#[macro_export]
macro_rules! impl_in_flow {
    (impl InFlow<$data:ty> for $cb:ty { self.$field:ident: $owner:ident { $flow:ident } }) => {
        // SAFETY: The flow is a field of what an `Arc` owns, which neither moves nor is dropped as
        // long as the `Arc` is there, and that is a plain field of the control block. The patterns
        // and types below do not compile otherwise.
        unsafe impl $crate::flow_queue::InFlow<$data> for $cb {
            #[inline]
            fn flow(&self) -> Option<&$crate::flow_queue::Flow<$data>> {
                let Self { $field: owner, .. } = self;
                let owner: &Option<::kernel::sync::Arc<$owner>> = owner;
                let $owner { $flow: flow, .. } = &**owner.as_ref()?;
                let flow: &$crate::flow_queue::Flow<$data> = flow;
                Some(flow)
            }
        }
    };
}

/// What a queue knows of a flow.
struct State<D> {
    /// The last packet; behind it comes the first one again.
    last: Link,
    data: D,
}

/// The packets of a flow in a [`FlowQueue`], if it has any there.
///
/// # Invariants
///
/// - If `claim` is not 0, there is a queue with this number, and only who has a mutable reference
///   to that one has access to `state`, and may set `claim` to 0.
/// - If `claim` is 0, nobody has access, and there are no packets.
pub struct Flow<D> {
    claim: Atomic<u64>,
    state: UnsafeCell<State<D>>,
}

// SAFETY: The packets belong to a queue; the data moves with the value.
unsafe impl<D: Send> Send for Flow<D> {}
// SAFETY: By the type invariants, one thread at a time has access to `state`.
unsafe impl<D: Send> Sync for Flow<D> {}

impl<D> Flow<D> {
    /// A flow without packets.
    pub const fn new(data: D) -> Self {
        // INVARIANT: Nobody has it.
        Self {
            claim: Atomic::new(0),
            state: UnsafeCell::new(State { last: None, data }),
        }
    }

    /// Takes the flow from whoever had it.
    ///
    /// The caller has the mutable reference to the queue that has claimed the flow, or nobody has;
    /// and it does not use `state` any more. There are no packets.
    #[inline]
    fn give_up(&self) {
        // INVARIANT: As the caller says. Whoever claims it next sees what was written to `state`:
        // `Release`.
        self.claim.store(0, Release);
    }
}

/// Who takes packets out of a [`FlowQueue`], and decides how many, flow by flow.
pub trait Taker<C, D> {
    /// Packets of a flow are going to be taken, which is in that list; [`Place::Next`] if this
    /// becomes the second one right now.
    fn begin(&mut self, data: &D, place: Place);

    /// A packet is taken. Says whether the next one of the flow is taken, if there is one.
    fn take(&mut self, packet: &SkBuff<C>) -> bool;

    /// No more packets of the flow are taken; `has_more` says whether there are any. If not, the
    /// flow leaves the lists.
    fn end(&mut self, data: &mut D, place: Place, has_more: bool) -> After;
}

/// What comes after packets were taken out of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct After {
    /// To the end of which list the flow goes; if to none, it stays the first one.
    pub moves: Option<Place>,
    /// Whether packets of the flow that is the first one then are taken.
    pub goes_on: bool,
}

/// Takes all there is.
struct All;

impl<C, D> Taker<C, D> for All {
    fn begin(&mut self, _data: &D, _place: Place) {}

    fn take(&mut self, _packet: &SkBuff<C>) -> bool {
        true
    }

    fn end(&mut self, _data: &mut D, _place: Place, _has_more: bool) -> After {
        After {
            moves: None,
            goes_on: true,
        }
    }
}

/// The number that the next queue gets.
static NEXT: Atomic<u64> = Atomic::new(1);

/// Packets of flows.
///
/// It has no lock: its owner has one.
///
/// # Invariants
///
/// - No other queue has, or had, the same `number`, which is not 0.
/// - Each flow whose `claim` is `number` has packets, as has the state `none` if it has a last one:
///   a chain through `next` that comes back to where it began. The queue owns each of them as a
///   [`SkBuff<C>`], which is in that flow, or in none.
/// - The first packet behind the last one is in one of the lists of `turns`, and no other packet
///   is.
pub struct FlowQueue<C: InFlow<D>, D> {
    number: u64,
    turns: Turns,
    /// The packets that belong to no flow.
    none: UnsafeCell<State<D>>,
    _p: PhantomData<SkBuff<C>>,
}

// SAFETY: The queue owns its packets, and the data of its flows is nobody else's.
unsafe impl<C: InFlow<D> + Send, D: Send> Send for FlowQueue<C, D> {}

impl<C: InFlow<D>, D> FlowQueue<C, D> {
    /// An empty queue; `data` is for the packets that belong to no flow.
    pub fn new(data: D) -> Self {
        // INVARIANT: Numbers are not used again: there is no time to count up to 2^64. There are no
        // packets.
        Self {
            number: NEXT.fetch_add(1, Relaxed),
            turns: Turns::new(),
            none: UnsafeCell::new(State { last: None, data }),
            _p: PhantomData,
        }
    }

    /// Says whether the queue is empty.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Whether the packets of a flow, if there are any, are in this queue.
    #[inline]
    fn has(&self, flow: &Flow<D>) -> bool {
        flow.claim.peek() == self.number
    }

    /// Claims a flow for a packet, and returns its state.
    ///
    /// The state is valid for as long as nobody changes the control block, and the caller, who has
    /// a mutable reference to the queue, is the only one who has access.
    #[inline]
    fn claim(&mut self, cb: &C) -> Option<*mut State<D>> {
        let Some(flow) = cb.flow() else {
            return Some(self.none.get());
        };
        // INVARIANT: Nobody had it, and this is the queue with the number. What the one before
        // wrote to the state is seen: `Acquire`.
        let ours = self.has(flow) || flow.claim.cmpxchg(0, self.number, Acquire).is_ok();
        ours.then(|| flow.state.get())
    }

    /// Appends a packet to its flow. If that had none, it goes to the end of the list that `place`
    /// says.
    ///
    /// # Errors
    ///
    /// Gives the packet back if another queue has the flow.
    #[inline]
    pub fn push_back(
        &mut self,
        packet: SkBuff<C>,
        place: impl FnOnce(&mut D) -> Place,
    ) -> Result<(), SkBuff<C>> {
        let Some(state) = self.claim(packet.cb()) else {
            return Err(packet);
        };
        let skb = packet.into_raw();
        // SAFETY: See `claim()`; the control block is that of a packet in the queue from here on.
        let state = unsafe { &mut *state };
        // INVARIANT: The chain of the flow has one more packet, which is the last one; if it is the
        // first one, too, it is in a list.
        match state.last {
            Some(last) => {
                set_next(skb, next(last));
                set_next(last, Some(skb));
            }
            None => {
                set_next(skb, Some(skb));
                self.turns.enter(skb, place(&mut state.data));
            }
        }
        state.last = Some(skb);
        Ok(())
    }

    /// Puts a packet before the others of its flow. `place` says in which list the flow becomes the
    /// first one; for a flow that has others, `None` is where it is. It is told whether there are
    /// others.
    ///
    /// # Errors
    ///
    /// As for [`push_back`](Self::push_back).
    pub fn push_front(
        &mut self,
        packet: SkBuff<C>,
        place: impl FnOnce(&mut D, bool) -> Option<Place>,
    ) -> Result<(), SkBuff<C>> {
        let Some(state) = self.claim(packet.cb()) else {
            return Err(packet);
        };
        let skb = packet.into_raw();
        // SAFETY: As in `push_back()`.
        let state = unsafe { &mut *state };
        let place = place(&mut state.data, state.last.is_some());
        // INVARIANT: The chain of the flow has one more packet, which is the first one, and in a
        // list instead of the one that was that before.
        match (state.last, state.last.and_then(next)) {
            (Some(last), Some(first)) => {
                set_next(skb, Some(first));
                set_next(last, Some(skb));
                match place {
                    Some(place) => {
                        self.turns.remove(first);
                        self.turns.enter_first(skb, place);
                    }
                    None => self.turns.replace(first, skb),
                }
            }
            _ => {
                set_next(skb, Some(skb));
                state.last = Some(skb);
                self.turns.enter_first(skb, place.unwrap_or(Place::Next));
            }
        }
        Ok(())
    }

    /// Appends bytes to the payload of the last packet of a flow, if it is linear and has room for
    /// them, and `joins` says of its control block that they may go there. Says whether it did.
    #[inline]
    pub fn append(&mut self, flow: &Flow<D>, bytes: &[u8], joins: impl FnOnce(&C) -> bool) -> bool {
        if !self.has(flow) {
            return false;
        }
        // SAFETY: The queue has claimed the flow, and the mutable reference to it says that nobody
        // else has access.
        let Some(last) = (unsafe { (*flow.state.get()).last }) else {
            return false;
        };
        // SAFETY: By the type invariants, the queue owns it as a `SkBuff<C>`, and keeps it; the
        // mutable reference to the queue is the one to the packet.
        let mut packet = ManuallyDrop::new(unsafe { SkBuff::<C>::from_raw(last) });
        packet.tailroom() >= bytes.len() && joins(packet.cb()) && packet.append(bytes).is_ok()
    }

    /// Whether there are packets that belong to no flow.
    #[inline]
    pub fn has_loose(&mut self) -> bool {
        self.none.get_mut().last.is_some()
    }

    /// Calls `f` for each packet that belongs to no flow, the first one first. `f` may not change
    /// it: it could put another one in its place.
    pub fn for_each_loose(&mut self, mut f: impl FnMut(&SkBuff<C>)) {
        let last = self.none.get_mut().last;
        let mut at = last.and_then(next);
        while let Some(packet) = at {
            // SAFETY: By the type invariants, the queue owns it as a `SkBuff<C>`, and keeps it; the
            // mutable reference to the queue is the one to the packet.
            let owned = ManuallyDrop::new(unsafe { SkBuff::<C>::from_raw(packet) });
            f(&owned);
            at = next(packet).filter(|_| Some(packet) != last);
        }
    }

    /// Takes packets in turn and puts them to the end of `to`, as `taker` says, until there are
    /// none.
    #[inline]
    pub fn pop_some(&mut self, to: &mut SkbList<C>, taker: &mut impl Taker<C, D>) {
        while self.pop_run(to, taker) {}
    }

    /// As [`pop_some`](Self::pop_some), for packets of the first flow that follow each other. Says
    /// whether to go on.
    #[inline]
    fn pop_run(&mut self, to: &mut SkbList<C>, taker: &mut impl Taker<C, D>) -> bool {
        let Some((first, place)) = self.turns.first() else {
            return false;
        };
        // SAFETY: By the type invariants, the queue owns it as a `SkBuff<C>`. From below on it is
        // in `to`, which nobody else has access to.
        let owner = ManuallyDrop::new(unsafe { SkBuff::<C>::from_raw(first) });
        let flow = owner.cb().flow();
        let state = flow.map_or(self.none.get(), |flow| flow.state.get());
        // SAFETY: By the type invariants, the queue has claimed the flow, which is alive as long as
        // its packet is; the mutable reference to the queue says that nobody else has access.
        let state = unsafe { &mut *state };
        taker.begin(&state.data, place);
        let mut packet = first;
        let second = loop {
            let second = next(packet).filter(|_| state.last != Some(packet));
            // SAFETY: As for the first one; it is given up here.
            let taken = unsafe { SkBuff::<C>::from_raw(packet) };
            let another = taker.take(&taken);
            to.push_back(taken);
            match second {
                Some(second) if another => packet = second,
                _ => break second,
            }
        };
        let after = taker.end(&mut state.data, place, second.is_some());
        // INVARIANT: The chain begins with the second packet, if there is one, and so does the
        // list.
        match second {
            Some(second) => {
                if let Some(last) = state.last {
                    set_next(last, Some(second));
                }
                match after.moves {
                    Some(place) => {
                        self.turns.remove(first);
                        self.turns.enter(second, place);
                    }
                    None => self.turns.replace(first, second),
                }
            }
            None => {
                self.turns.remove(first);
                state.last = None;
                if let Some(flow) = flow {
                    flow.give_up();
                }
            }
        }
        after.goes_on
    }

    /// Takes all packets of a flow out of the queue, if they are in this one, in no time.
    #[inline]
    pub fn take(&mut self, flow: &Flow<D>) -> Taken<C> {
        let mut taken = Taken {
            last: None,
            _p: PhantomData,
        };
        if !self.has(flow) {
            return taken;
        }
        // SAFETY: The queue has claimed the flow, and the mutable reference to it says that nobody
        // else has access.
        let state = unsafe { &mut *flow.state.get() };
        // INVARIANT: The chain has a new owner, and none of its packets is in a list.
        taken.last = state.last.take();
        if let Some(first) = taken.last.and_then(next) {
            self.turns.remove(first);
        }
        flow.give_up();
        taken
    }
}

impl<C: InFlow<D>, D> Drop for FlowQueue<C, D> {
    fn drop(&mut self) {
        let mut packets = SkbList::new();
        self.pop_some(&mut packets, &mut All);
    }
}

/// The packets that a flow had in a queue, first to last; dropping it drops them.
///
/// # Invariants
///
/// `last` is the last one of a chain as that of a flow, which this object owns.
pub struct Taken<C> {
    last: Link,
    _p: PhantomData<SkBuff<C>>,
}

// SAFETY: It owns the packets.
unsafe impl<C: Send> Send for Taken<C> {}

impl<C> Iterator for Taken<C> {
    type Item = SkBuff<C>;

    fn next(&mut self) -> Option<SkBuff<C>> {
        let last = self.last?;
        let first = next(last)?;
        // INVARIANT: The chain goes on with the second packet, if there is one.
        if first == last {
            self.last = None;
        } else {
            set_next(last, next(first));
        }
        set_next(first, None);
        // SAFETY: By the type invariants, it was ours, and is given up.
        Some(unsafe { SkBuff::from_raw(first) })
    }
}

impl<C> Drop for Taken<C> {
    fn drop(&mut self) {
        for packet in self {
            drop(packet);
        }
    }
}
