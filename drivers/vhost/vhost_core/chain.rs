// SPDX-License-Identifier: GPL-2.0

//! Work on the chains of a queue.

use crate::{
    inline::Left,
    memory::Untranslated,
    reach::Reach,
    ring_memory::OwnerRing,
    state::{
        Parts,
        Why, //
    },
    virtqueue::{
        Idle,
        Virtqueue, //
    },
};
use core::mem::MaybeUninit;
use kernel::{
    prelude::*,
    time::{
        delay::fsleep,
        Delta, //
    },
};
use kernel_ext::{
    clock,
    owner_mm::{
        InOwnerMm,
        OwnerAddr, //
    },
    skb::SkBuff,
    user_iov::UserIov, //
};
use vring::{
    layout,
    Full,
    Malformed,
    RingError,
    Segment,
    Segments,
    SplitRing, //
};

/// How long to wait for memory.
const RETRY: Delta = Delta::from_millis(1);

/// The queue broke; it does nothing any more until it is stopped and started. Or the run is an
/// inline one, and leaves what is left to the worker.
///
/// User space is told at the end of the run. The device cleans up what depends on the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// How much work is done for a queue before other works have their turn.
///
/// It counts packets and bytes, so that neither many small packets nor few large ones keep a worker
/// busy. The descriptors that were read count as the bytes that they are: a packet without any
/// bytes may have as many of them as the ring. More than that is refused: see [`vring`].
#[doc(alias = "vhost_exceeds_weight")]
pub struct Budget {
    packets: u32,
    bytes: usize,
    /// Until when, by the clock of the CPU.
    until: Option<u64>,
    /// Whether nothing was spent yet.
    is_first: bool,
}

/// What an inline run may do: little enough that the guest does not miss the time.
const INLINE_PACKETS: u32 = 32;
const INLINE_BYTES: usize = 64 * 1024;
const INLINE_NANOS: u64 = 50_000;

impl Budget {
    /// A budget of `packets` packets with `bytes` bytes together.
    pub const fn new(packets: u32, bytes: usize) -> Self {
        Self {
            packets,
            bytes,
            until: None,
            is_first: true,
        }
    }

    /// The budget of an inline run that began at a time: see
    /// [`Works::run_inline`](crate::worker::Works::run_inline).
    #[inline]
    pub const fn inline(begin: u64) -> Self {
        Self {
            packets: INLINE_PACKETS,
            bytes: INLINE_BYTES,
            until: Some(begin.wrapping_add(INLINE_NANOS)),
            is_first: true,
        }
    }

    /// Says whether half of the bytes of an inline run are spent, or more.
    #[inline]
    pub const fn is_bulk(&self) -> bool {
        self.bytes <= INLINE_BYTES / 2
    }

    /// Takes the cost of a packet, and says whether there is something left.
    #[inline]
    fn spend(&mut self, bytes: usize) -> bool {
        self.packets = self.packets.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        let is_late = |until| clock::local_nanos() >= until;
        // Not after the first packet: most runs have no other one, which costs no time to find.
        let is_first = core::mem::replace(&mut self.is_first, false);
        let has_time = is_first || !self.until.is_some_and(is_late);
        self.packets != 0 && self.bytes != 0 && has_time
    }
}

/// A queue that runs, locked by the thread that works on it: see [`Virtqueue::run`].
///
/// `M` is how that thread reaches the memory of the ring and of the buffers.
///
/// If it breaks, nothing can be done with it any more; the state of the queue and user space learn
/// of it at the end of the run.
pub struct Active<'a, M = OwnerRing<'a>> {
    queue: &'a Virtqueue,
    parts: Parts<'a, M>,
    /// The chain that a [`Chain`] stands for.
    taken: Option<vring::Chain>,
    /// Why nothing is done any more.
    end: Option<End>,
    /// Whether nothing may be waited for.
    is_inline: bool,
    /// Whether a chain was completed.
    used: bool,
    /// The driver is signalled at the end of the next run.
    deferred: bool,
    /// How many descriptors were read since the last [`spend`](Self::spend).
    descriptors: u32,
}

/// Why a run ends before there is nothing left.
#[derive(Clone, Copy)]
pub(crate) enum End {
    /// The queue is to be Broken.
    Broken(Why),
    /// The worker gets what is left.
    Left(Left),
}

/// Where the segments of a chain go: readable ones to one list, writable ones to the other.
struct Lists<'a> {
    readable: &'a mut UserIov,
    writable: &'a mut UserIov,
    /// Memory for more of them may be waited for.
    may_grow: bool,
    /// There was no memory for a segment: that the lists are full is not the driver's fault.
    no_memory: bool,
}

impl Segments for Lists<'_> {
    #[inline]
    fn clear(&mut self) {
        self.readable.clear();
        self.writable.clear();
    }

    #[inline]
    fn push(&mut self, segment: Segment, writable: bool) -> core::result::Result<(), Full> {
        // The limit is for both together, as in C.
        //
        // OVERFLOW: Either is at most `UserIov::MAX`.
        if self.readable.len().wrapping_add(self.writable.len()) >= UserIov::MAX {
            return Err(Full);
        }
        let addr = OwnerAddr::from_u64(segment.addr.0).ok_or(Full)?;
        let list = if writable {
            &mut *self.writable
        } else {
            &mut *self.readable
        };
        if list.is_full() && !self.may_grow {
            self.no_memory = true;
            return Err(Full);
        }
        // CAST: From 32 bits to an address size of at least 32 bits.
        let pushed = list.push(addr, segment.len as usize);
        pushed.map_err(|err| {
            self.no_memory = err == ENOMEM;
            Full
        })
    }
}

impl Virtqueue {
    /// Works on the chains of the queue, if it is running: calls `work` with the queue locked.
    /// After that the driver is signalled, if anything was completed and if it wants to be.
    ///
    /// Changes to the configuration that were made since the last time take effect here.
    ///
    /// Context: sleeps. See the lock order.
    ///
    /// # Errors
    ///
    /// The queue is not running: see [`Idle`]. It is Broken now if it broke under `work`, whatever
    /// that returned.
    pub fn run<R>(
        &self,
        mm: &InOwnerMm,
        work: impl FnOnce(&mut Active<'_>) -> core::result::Result<R, Broken>,
    ) -> core::result::Result<R, Idle> {
        let mut inner = self.lock_inner();
        if let Err(unready) = inner.prepare(mm) {
            return Err(self.idle(&mut inner, unready));
        }
        // There is a ring: it was just prepared.
        let mut active = Active::new(self, inner.parts(mm).ok_or(Idle::Stopped)?, false);
        let ret = work(&mut active);
        let (signal, end) = active.end();
        if let Some(call) = inner.call.as_ref().filter(|_| signal) {
            call.signal();
        }
        // The driver does not wait for that: it was signalled.
        inner.fill_windows(mm);
        if let Some(End::Broken(why)) = end {
            self.set_broken(&mut inner, why);
            return Err(Idle::Broken);
        }
        ret.map_err(|Broken| Idle::Broken)
    }

    /// As [`run`](Self::run), but waits for nothing: for an
    /// [inline run](crate::worker::Works::run_inline).
    ///
    /// Context: does not sleep, but for what `work` does. Faults of `mm` are not waited for.
    ///
    /// # Errors
    ///
    /// What is left is for the worker, for some reason.
    pub fn run_inline<R>(
        &self,
        mm: &InOwnerMm,
        work: impl FnOnce(&mut Active<'_>) -> core::result::Result<R, Broken>,
    ) -> core::result::Result<R, Left> {
        let mut inner = self.try_lock_inner().ok_or(Left::Busy)?;
        if !inner.is_plain() {
            return Err(Left::Unready);
        }
        let parts = inner.parts(mm).ok_or(Left::Unready)?;
        let mut active = Active::new(self, parts, true);
        let ret = work(&mut active);
        let (signal, end) = active.end();
        if let Some(call) = inner.call.as_ref().filter(|_| signal) {
            call.signal();
        }
        match end {
            None => ret.map_err(|Broken| Left::Broken),
            Some(End::Left(left)) => Err(left),
            Some(End::Broken(why)) => {
                self.set_broken(&mut inner, why);
                Err(Left::Broken)
            }
        }
    }
}

impl<'a, M: Reach> Active<'a, M> {
    #[inline]
    pub(crate) fn new(queue: &'a Virtqueue, parts: Parts<'a, M>, is_inline: bool) -> Self {
        Self {
            queue,
            parts,
            taken: None,
            end: None,
            is_inline,
            used: false,
            deferred: false,
            descriptors: 0,
        }
    }

    /// Ends the run. Says whether the driver is to be signalled and, if there may be something
    /// left, why.
    ///
    /// Not by value: to move it costs as much as to take a chain.
    #[inline]
    pub(crate) fn end(&mut self) -> (bool, Option<End>) {
        let is_broken = matches!(self.end, Some(End::Broken(_)));
        // What was left to the worker stays with it, unless there is a signal anyway.
        let waits = self.deferred || !(self.used || M::MAY_SLEEP);
        if waits && !is_broken {
            *self.parts.unsignalled |= self.used;
            return (false, self.end.take());
        }
        // Without anybody to be signalled nothing may be noted as signalled either. If the queue
        // just broke, the driver gets what was completed before, and a signal: it may be waiting.
        // So it does if nobody knows whether it wants one.
        let used = core::mem::take(self.parts.unsignalled) | self.used;
        let signal = used && self.parts.has_call && (is_broken || self.should_signal());
        (signal, self.end.take())
    }

    #[inline]
    fn should_signal(&mut self) -> bool {
        match self.parts.ring.should_signal(&self.parts.mem) {
            Ok(signal) => signal,
            Err(why) => {
                self.stop(why.into());
                true
            }
        }
    }

    /// Does something with the ring, and stops if that fails.
    #[inline]
    fn with_ring<R, E: Into<Why>>(
        &mut self,
        f: impl FnOnce(&mut SplitRing, &M) -> core::result::Result<R, E>,
    ) -> core::result::Result<R, Broken> {
        if self.end.is_some() {
            return Err(Broken);
        }
        match f(self.parts.ring, &self.parts.mem) {
            Ok(ret) => Ok(ret),
            Err(why) => Err(self.stop(why.into())),
        }
    }

    /// Nothing is done any more. Who does not wait for memory that is not there does not know
    /// whether it will be, which does not break the queue.
    #[cold]
    fn stop(&mut self, why: Why) -> Broken {
        self.set_end(match why {
            Why::Memory if self.is_inline => End::Left(Left::Fault),
            why => End::Broken(why),
        })
    }

    #[cold]
    fn set_end(&mut self, end: End) -> Broken {
        self.end.get_or_insert(end);
        Broken
    }

    /// Takes the next chain, if there is one.
    ///
    /// # Errors
    ///
    /// The ring has not moved: the same chain is found again.
    #[inline(always)]
    pub(crate) fn take_next(&mut self) -> core::result::Result<Option<()>, NotTaken> {
        let parts = &mut self.parts;
        let mut lists = Lists {
            readable: &mut *parts.readable,
            writable: &mut *parts.writable,
            may_grow: M::MAY_SLEEP && !self.is_inline,
            no_memory: false,
        };
        match parts.ring.pop(&parts.mem, &parts.space, &mut lists) {
            Ok(Some(chain)) => {
                self.descriptors = self.descriptors.saturating_add(chain.descriptors());
                // It was `None`: the last one was completed or given back, if only by a drop.
                self.taken = Some(chain);
                Ok(Some(()))
            }
            Ok(None) => Ok(None),
            Err(RingError::Malformed(Malformed::Segments)) if lists.no_memory => {
                Err(NotTaken::NoMemory)
            }
            Err(err) => Err(NotTaken::Ring(err)),
        }
    }

    /// Whether there are `count` chains to take, at least.
    ///
    /// # Errors
    ///
    /// The ring is not acceptable.
    #[inline]
    pub fn has(&mut self, count: u16) -> core::result::Result<bool, Broken> {
        self.with_ring(|ring, mem| ring.has(mem, count))
    }

    /// Asks the driver to kick when there is a chain; says whether there is one already.
    #[inline]
    pub(crate) fn enable_notify(&mut self) -> core::result::Result<bool, Broken> {
        self.with_ring(|ring, mem| ring.enable_notify(mem))
    }

    /// How the memory is reached.
    #[inline]
    pub(crate) fn memory(&self) -> &M {
        &self.parts.mem
    }

    /// Says whether this is an inline run, which waits for nothing.
    #[inline]
    pub fn is_inline(&self) -> bool {
        self.is_inline
    }

    /// Leaves what there is to the worker, with the ring as it is: for an inline run.
    pub fn leave(&mut self, left: Left) -> Broken {
        self.set_end(End::Left(left))
    }

    /// The number of entries of the ring.
    #[inline]
    pub fn size(&self) -> u16 {
        self.parts.ring.size().get()
    }

    /// Leaves it to the next run to signal the driver, of which the caller makes sure that there is
    /// one: see [`Virtqueue::queue_work`].
    #[inline]
    pub fn defer_signal(&mut self) {
        self.deferred = true;
    }

    /// Takes the cost of a packet with `bytes` bytes, and of the chains that were popped for it,
    /// and says whether there is something left.
    #[inline]
    pub fn spend(&mut self, budget: &mut Budget, bytes: usize) -> bool {
        let descriptors = core::mem::take(&mut self.descriptors) as usize;
        budget.spend(bytes.saturating_add(descriptors.saturating_mul(layout::DESC_LEN as usize)))
    }

    /// Asks the driver not to kick: the queue is being worked on.
    ///
    /// # Errors
    ///
    /// The ring is not accessible; the queue is Broken now.
    pub fn disable_notify(&mut self) -> core::result::Result<(), Broken> {
        self.with_ring(|ring, mem| ring.disable_notify(mem))
    }

    /// Breaks the queue, because its buffers are of no use to the device.
    pub fn give_up(&mut self) -> Broken {
        self.stop(Why::Device)
    }
}

impl<'a> Active<'a> {
    /// Takes the next chain. If there is none, the work of the queue will be queued when there is
    /// one to be taken: the driver was asked to kick, or user space where the buffers of a chain
    /// are. If memory is short, it is queued after a moment.
    ///
    /// Context: sleeps.
    ///
    /// # Errors
    ///
    /// The ring or the chain is not acceptable; the queue is Broken now. Or the run is an inline
    /// one, and the chain is for the worker.
    #[inline]
    pub fn pop(&mut self) -> core::result::Result<Option<Chain<'_, 'a>>, Broken> {
        loop {
            if self.end.is_some() {
                return Err(Broken);
            }
            match self.take_next() {
                Ok(Some(())) => return Ok(Some(Chain::of(self))),
                Ok(None) => {
                    if !self.enable_notify()? {
                        return Ok(None);
                    }
                    // There is one now, of which we may not be told.
                    self.disable_notify()?;
                }
                // The ring has not moved: the same chain is found again.
                Err(NotTaken::Ring(RingError::Translate(Untranslated::Miss(miss)))) => {
                    self.queue.ask(miss);
                    return Ok(None);
                }
                // As above.
                Err(NotTaken::NoMemory) if self.is_inline => {
                    return Err(self.leave(Left::NoMemory));
                }
                Err(NotTaken::NoMemory) => {
                    self.wait_for_memory();
                    return Ok(None);
                }
                Err(NotTaken::Ring(err)) => return Err(self.stop(err.into())),
            }
        }
    }

    /// There is no memory for the next chain, which stays where it is: looks again after a moment.
    ///
    /// The queue is locked meanwhile, as it was while the memory was asked for.
    #[cold]
    fn wait_for_memory(&self) {
        fsleep(RETRY);
        // Without a worker, this is not the worker.
        let _ = self.queue.queue_work();
    }
}

/// Why the next chain was not taken.
pub(crate) enum NotTaken {
    /// There is no memory for its segments.
    NoMemory,
    /// It is not acceptable, or cannot be read.
    Ring(RingError<Error, Untranslated>),
}

/// A chain of buffers, taken from the ring.
///
/// It borrows the locked queue: there is one chain at a time. It is completed, or given back, which
/// dropping it does. Either way what was written is in the dirty log before the driver sees it.
#[must_use = "the driver waits for its buffers: complete the chain"]
pub struct Chain<'g, 'a, M: Reach = OwnerRing<'a>> {
    /// Has the chain, until it is completed or given back.
    active: &'g mut Active<'a, M>,
    /// Whether anything may have been written.
    touched: bool,
}

impl<'g, 'a, M: Reach> Chain<'g, 'a, M> {
    /// The chain that was just taken.
    #[inline]
    pub(crate) fn of(active: &'g mut Active<'a, M>) -> Self {
        Self {
            active,
            touched: false,
        }
    }

    /// See [`Active::is_inline`].
    #[inline]
    pub fn is_inline(&self) -> bool {
        self.active.is_inline
    }

    /// How many bytes the device may read.
    #[inline]
    pub fn readable_len(&self) -> usize {
        self.active.parts.readable.bytes()
    }

    /// How many bytes the device may write.
    #[inline]
    pub fn writable_len(&self) -> usize {
        self.active.parts.writable.bytes()
    }

    /// Says whether there is anything that the device may read. Descriptors without bytes do not
    /// count.
    #[inline]
    pub fn has_readable(&self) -> bool {
        !self.active.parts.readable.is_empty()
    }

    /// Says whether there is anything that the device may write. Descriptors without bytes do not
    /// count.
    #[inline]
    pub fn has_writable(&self) -> bool {
        !self.active.parts.writable.is_empty()
    }

    /// Copies what the device may read, without the first `offset` bytes, until `out` is full.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it is not all there.
    #[inline]
    pub fn read_at(&self, offset: usize, out: &mut [u8]) -> Result {
        let parts = &self.active.parts;
        parts.mem.read_buffers(parts.readable, offset, out)
    }

    /// Copies `data` to what the device may write, behind the first `offset` bytes.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it did not take all of it.
    #[inline]
    pub fn write_at(&mut self, offset: usize, data: &[u8]) -> Result {
        self.touched = true;
        let parts = &self.active.parts;
        parts.mem.write_buffers(parts.writable, offset, data)
    }

    /// Copies `len` bytes of the payload of `skb`, from `from` on, to what the device may write,
    /// behind the first `offset` bytes.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it did not take all of it, or there is not as much.
    #[inline]
    pub fn write_skb<C>(
        &mut self,
        offset: usize,
        skb: &SkBuff<C>,
        from: usize,
        len: usize,
    ) -> Result {
        self.touched = true;
        let parts = &self.active.parts;
        parts.mem.write_skb(parts.writable, offset, skb, from, len)
    }

    /// What the device may write, and how to; it is going to.
    #[inline]
    pub(crate) fn writable(&mut self) -> (&M, &UserIov) {
        self.touched = true;
        let parts = &self.active.parts;
        (&parts.mem, parts.writable)
    }

    /// Logs the first `len` bytes that the device may write, if it may have written any.
    #[inline]
    fn log(&self, len: usize) {
        let parts = &self.active.parts;
        if self.touched && parts.logs_all {
            parts.mem.log_buffers(parts.writable, len);
        }
    }

    /// Returns the buffers to the driver, of which the first `written` bytes were written, and
    /// nothing else.
    ///
    /// # Errors
    ///
    /// The used ring is not accessible; the queue is Broken now. An inline run leaves it to the
    /// worker, for which the chain is as if it had not been taken.
    #[inline]
    pub fn complete(self, written: u32) -> core::result::Result<(), Broken> {
        // CAST: From 32 bits to at least 32 bits.
        self.finish(written, written as usize)
    }

    /// Returns the buffers to the driver after something went wrong: there is nothing in them, but
    /// any part may have been written.
    ///
    /// # Errors
    ///
    /// The used ring is not accessible; the queue is Broken now.
    #[cold]
    pub fn fail(self) -> core::result::Result<(), Broken> {
        self.finish(0, usize::MAX)
    }

    #[inline]
    fn finish(self, written: u32, touched: usize) -> core::result::Result<(), Broken> {
        let Some(chain) = self.active.taken.take() else {
            return Err(Broken);
        };
        self.log(touched);
        self.active
            .with_ring(|ring, mem| ring.complete(mem, chain, written))?;
        self.active.used = true;
        Ok(())
    }

    /// Puts the chain back, as if it had not been taken.
    #[inline]
    pub fn give_back(self) {
        drop(self);
    }
}

impl Chain<'_, '_> {
    /// As [`read_at`](Self::read_at), into memory that has no value yet, and has after that.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it is not all there.
    #[inline]
    pub fn read_new_at<'o>(
        &self,
        offset: usize,
        out: &'o mut [MaybeUninit<u8>],
    ) -> Result<&'o mut [u8]> {
        let parts = &self.active.parts;
        parts.readable.read_new_at(parts.mem.mm, offset, out)
    }

    /// Fills an empty buffer with `len` bytes of what the device may read, without the first
    /// `offset` bytes.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it is not all there, `EMSGSIZE` if the buffer has not as much room.
    #[inline]
    pub fn fill<C>(&self, skb: &mut SkBuff<C>, offset: usize, len: usize) -> Result {
        let parts = &self.active.parts;
        skb.fill_from_owner(parts.readable, parts.mem.mm, offset, len)
    }
}

impl<M: Reach> Chain<'_, '_, M> {
    #[cold]
    fn unpop(&mut self, chain: vring::Chain) {
        self.log(usize::MAX);
        // It fails if the driver offered more than the ring has room for, which breaks the queue:
        // the buffers of this chain would be lost otherwise.
        let _ = self.active.with_ring(|ring, _| {
            ring.unpop(chain)
                .map_err(|_| Why::Malformed(Malformed::AvailIndex))
        });
    }
}

impl<M: Reach> Drop for Chain<'_, '_, M> {
    #[inline]
    fn drop(&mut self) {
        if let Some(chain) = self.active.taken.take() {
            self.unpop(chain);
        }
    }
}
