// SPDX-License-Identifier: GPL-2.0

//! What the sources use of `vhost_core`: a queue with the real ring of [`vring`], its lock and its
//! worker.

use crate::ring::{
    kernel::sync::rcu,
    memory::{
        GuestRing,
        Identity,
        Sink,
        SIZE, //
    }, //
};
pub(crate) use crate::variants::kicks::inline::{
    Inlined,
    Left, //
};
use loom::sync::{
    Condvar,
    Mutex, //
};
use vring::SplitRing;

/// What the lock of a queue protects.
pub(crate) struct Inner {
    ring: Option<SplitRing>,
    /// The available index to go on with.
    base: u16,
    /// Something is used that the guest was not told of, and a run will.
    unsignalled: bool,
}

#[derive(Default)]
struct Pending {
    works: bool,
    quits: bool,
}

/// A queue, and its worker.
pub struct Virtqueue {
    pub(crate) inner: Mutex<Inner>,
    memory: std::rc::Rc<GuestRing>,
    /// For how many buffers an inline run finds memory.
    good: u32,
    pending: Mutex<Pending>,
    wakes: Condvar,
}

impl Virtqueue {
    pub(crate) fn new(memory: std::rc::Rc<GuestRing>, good: Option<u32>) -> Self {
        let inner = Inner {
            ring: None,
            base: 0,
            unsignalled: false,
        };
        Self {
            inner: Mutex::new(inner),
            memory,
            good: good.unwrap_or(u32::MAX),
            pending: Mutex::default(),
            wakes: Condvar::new(),
        }
    }

    /// Starts the queue, and has its work done.
    pub(crate) fn start(&self) {
        let mut inner = self.inner.lock().unwrap();
        inner.ring = Some(SplitRing::new(self.memory.config(inner.base), &*self.memory).unwrap());
        drop(inner);
        let _ = self.queue_work();
    }

    /// Stops it.
    pub(crate) fn stop(&self) {
        let mut inner = self.inner.lock().unwrap();
        if let Some(ring) = inner.ring.take() {
            inner.base = ring.vring_base();
        }
        if core::mem::take(&mut inner.unsignalled) {
            self.memory.signal();
        }
    }

    pub(crate) fn queue_work(&self) -> Result<(), ()> {
        self.pending.lock().unwrap().works = true;
        self.wakes.notify_one();
        Ok(())
    }

    /// No work comes after those that are there.
    pub(crate) fn quit(&self) {
        self.pending.lock().unwrap().quits = true;
        self.wakes.notify_one();
    }

    /// Waits for a work; there is none any more if the result is false.
    pub(crate) fn wait(&self) -> bool {
        let mut pending = self.pending.lock().unwrap();
        while !pending.works && !pending.quits {
            pending = self.wakes.wait(pending).unwrap();
        }
        core::mem::take(&mut pending.works)
    }

    pub(crate) fn run<R>(
        &self,
        _mm: &InOwnerMm,
        work: impl FnOnce(&mut Active<'_>) -> Result<R, Broken>,
    ) -> Result<R, Idle> {
        let mut inner = self.inner.lock().unwrap();
        let parts = self.parts(&mut inner).ok_or(Idle::Stopped)?;
        let mut active = Active::new(parts, false, u32::MAX);
        let ret = work(&mut active);
        self.end(active);
        ret.map_err(|Broken| Idle::Broken)
    }

    pub(crate) fn run_inline<R>(
        &self,
        _mm: &InOwnerMm,
        work: impl FnOnce(&mut Active<'_>) -> Result<R, Broken>,
    ) -> Result<R, Left> {
        let mut inner = self.inner.try_lock().map_err(|_| Left::Busy)?;
        let parts = self.parts(&mut inner).ok_or(Left::Unready)?;
        let mut active = Active::new(parts, true, self.good);
        let ret = work(&mut active);
        match self.end(active) {
            Some(End::Left(left)) => Err(left),
            _ => ret.map_err(|Broken| Left::Broken),
        }
    }

    pub(crate) fn try_run<R>(
        &self,
        work: impl FnOnce(&mut MappedActive<'_>) -> R,
    ) -> Result<R, NotNow> {
        let mut inner = self.inner.try_lock().map_err(|_| NotNow::Busy)?;
        let parts = self.parts(&mut inner).ok_or(NotNow::Unmapped)?;
        let mut active = Active::new(parts, false, u32::MAX);
        let ret = work(&mut active);
        self.end(active);
        Ok(ret)
    }

    fn parts<'a>(&'a self, inner: &'a mut Inner) -> Option<Parts<'a>> {
        Some(Parts {
            ring: inner.ring.as_mut()?,
            mem: &self.memory,
            has_call: true,
            unsignalled: &mut inner.unsignalled,
        })
    }

    fn end<M: Reach>(&self, mut active: Active<'_, M>) -> Option<End> {
        let (signal, end) = active.end();
        if signal {
            self.memory.signal();
        }
        end
    }
}

impl Virtqueue {
    pub(crate) fn has_worker(&self, _guard: &rcu::Guard) -> bool {
        true
    }

    pub(crate) fn queue_work_under(&self, _guard: &rcu::Guard) -> Result<(), ()> {
        self.queue_work()
    }

    pub(crate) fn is_work_queued(&self, _guard: &rcu::Guard) -> bool {
        self.pending.lock().unwrap().works
    }
}

pub(crate) mod chain {
    pub(crate) use super::{
        Active,
        Broken,
        Budget,
        Chain, //
    };
}

pub(crate) mod direct {
    pub(crate) use super::{
        MappedActive,
        Next,
        NotNow, //
    };
}

pub(crate) mod inline {
    pub(crate) use super::{
        Inlined,
        Left, //
    };
}

pub(crate) mod reach {
    pub(crate) use super::Reach;
}

pub(crate) mod virtqueue {
    pub(crate) use super::Idle;
}

/// That the owner's memory can be reached.
pub(crate) struct InOwnerMm;

/// The way of the worker.
pub(crate) struct OwnerRing<'a>(core::marker::PhantomData<&'a ()>);
/// The way of others.
pub(crate) struct MappedRing<'a>(core::marker::PhantomData<&'a ()>);

/// A way.
pub(crate) trait Reach {
    const MAY_SLEEP: bool;
}

impl Reach for OwnerRing<'_> {
    const MAY_SLEEP: bool = true;
}

impl Reach for MappedRing<'_> {
    const MAY_SLEEP: bool = false;
}

/// The queue broke.
#[derive(Debug)]
pub(crate) struct Broken;

#[derive(Debug)]
pub(crate) enum Idle {
    Stopped,
    #[allow(dead_code)]
    Waiting,
    Broken,
}

/// Why a run ends before there is nothing left.
#[derive(Clone, Copy)]
pub(crate) enum End {
    #[allow(dead_code)]
    Broken(()),
    Left(Left),
}

pub(crate) enum NotNow {
    Busy,
    Unmapped,
}

pub(crate) enum Next<'g, 'a> {
    Chain(Chain<'g, 'a, MappedRing<'a>>),
    None,
    #[allow(dead_code)]
    Worker,
}

/// Enough for any model, if the run is not inline.
pub(crate) struct Budget(u64);

impl Budget {
    pub(crate) fn new(_packets: u32, _bytes: usize) -> Self {
        Self(u64::MAX)
    }

    /// So many buffers.
    pub(crate) fn inline(begin: u64) -> Self {
        Self(begin)
    }
}

/// What work on the ring needs.
pub(crate) struct Parts<'a> {
    ring: &'a mut SplitRing,
    mem: &'a GuestRing,
    pub(super) has_call: bool,
    pub(super) unsignalled: &'a mut bool,
}

/// A queue that is worked on.
pub(crate) struct Active<'a, M = OwnerRing<'a>> {
    pub(super) parts: Parts<'a>,
    taken: Option<vring::Chain>,
    pub(super) end: Option<End>,
    /// How many buffers can be written, as long as that is not waited for.
    good: u32,
    is_inline: bool,
    pub(super) used: bool,
    pub(super) deferred: bool,
    _p: core::marker::PhantomData<M>,
}

pub(crate) type MappedActive<'a> = Active<'a, MappedRing<'a>>;

impl<'a, M: Reach> Active<'a, M> {
    fn new(parts: Parts<'a>, is_inline: bool, good: u32) -> Self {
        Self {
            parts,
            taken: None,
            end: None,
            good,
            is_inline,
            used: false,
            deferred: false,
            _p: core::marker::PhantomData,
        }
    }

    fn take(&mut self) -> bool {
        let ring = &mut *self.parts.ring;
        self.taken = ring.pop(self.parts.mem, &Identity, &mut Sink).unwrap();
        self.taken.is_some()
    }

    fn enable_notify(&mut self) -> bool {
        self.parts.ring.enable_notify(self.parts.mem).unwrap()
    }

    pub(crate) fn disable_notify(&mut self) -> Result<(), Broken> {
        self.parts.ring.disable_notify(self.parts.mem).unwrap();
        Ok(())
    }

    pub(super) fn should_signal(&mut self) -> bool {
        self.parts.ring.should_signal(self.parts.mem).unwrap()
    }

    pub(crate) fn spend(&mut self, budget: &mut Budget, _bytes: usize) -> bool {
        budget.0 = budget.0.saturating_sub(1);
        budget.0 != 0
    }

    pub(crate) fn defer_signal(&mut self) {
        self.deferred = true;
    }

    pub(crate) fn is_inline(&self) -> bool {
        self.is_inline
    }

    pub(crate) fn leave(&mut self, left: Left) -> Broken {
        self.end = Some(End::Left(left));
        Broken
    }

    pub(crate) fn give_up(&mut self) -> Broken {
        unreachable!("all buffers are good");
    }
}

impl<'a> Active<'a> {
    pub(crate) fn pop(&mut self) -> Result<Option<Chain<'_, 'a>>, Broken> {
        while !self.take() {
            if !self.enable_notify() {
                return Ok(None);
            }
            self.disable_notify()?;
        }
        Ok(Some(Chain(self)))
    }
}

impl<'a> MappedActive<'a> {
    pub(crate) fn has(&mut self, count: u16) -> Result<bool, Broken> {
        Ok(self.parts.ring.has(self.parts.mem, count).unwrap())
    }

    pub(crate) fn pop(&mut self) -> Result<Next<'_, 'a>, Broken> {
        while !self.take() {
            if !self.enable_notify() {
                return Ok(Next::None);
            }
            self.disable_notify()?;
        }
        Ok(Next::Chain(Chain(self)))
    }
}

/// A buffer, with room for a byte of payload.
pub(crate) struct Chain<'g, 'a, M: Reach = OwnerRing<'a>>(&'g mut Active<'a, M>);

impl<M: Reach> Chain<'_, '_, M> {
    pub(crate) fn writable_len(&self) -> usize {
        SIZE
    }

    pub(crate) fn has_readable(&self) -> bool {
        false
    }

    /// Once for each buffer.
    pub(crate) fn write_at(&mut self, _offset: usize, _data: &[u8]) -> Result<(), ()> {
        let active = &mut *self.0;
        active.good = active.good.checked_sub(1).ok_or(())?;
        Ok(())
    }

    pub(crate) fn write_from(
        &mut self,
        _at: usize,
        _source: &mut (),
        _len: usize,
    ) -> Result<(), ()> {
        Ok(())
    }

    pub(crate) fn write_skb(
        &mut self,
        _at: usize,
        _skb: &(),
        _from: usize,
        _len: usize,
    ) -> Result<(), ()> {
        Ok(())
    }

    pub(crate) fn complete(self, written: u32) -> Result<(), Broken> {
        if let Some(chain) = self.0.taken.take() {
            let parts = &mut self.0.parts;
            parts.ring.complete(parts.mem, chain, written).unwrap();
            self.0.used = true;
        }
        Ok(())
    }

    pub(crate) fn is_inline(&self) -> bool {
        self.0.is_inline
    }

    pub(crate) fn give_back(self) {}

    pub(crate) fn fail(self) -> Result<(), Broken> {
        self.complete(0)
    }
}

impl<M: Reach> Drop for Chain<'_, '_, M> {
    fn drop(&mut self) {
        if let Some(chain) = self.0.taken.take() {
            self.0.parts.ring.unpop(chain).unwrap();
        }
    }
}
