// SPDX-License-Identifier: GPL-2.0

//! What the sources use of `vhost_core`: a queue with the real ring of [`vring`], its lock and its worker.

use crate::ring::{
    kernel::sync::rcu,
    memory::{
        GuestRing,
        Identity,
        Sink,
        SIZE, //
    }, //
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
    pending: Mutex<Pending>,
    wakes: Condvar,
}

impl Virtqueue {
    pub(crate) fn new(memory: std::rc::Rc<GuestRing>) -> Self {
        let inner = Inner {
            ring: None,
            base: 0,
        };
        Self {
            inner: Mutex::new(inner),
            memory,
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
        let ring = inner.ring.as_mut().ok_or(Idle::Stopped)?;
        work(&mut Active::new(ring, &self.memory)).map_err(|Broken| Idle::Broken)
    }

    pub(crate) fn run_inline<R>(
        &self,
        _mm: &InOwnerMm,
        work: impl FnOnce(&mut Active<'_>) -> Result<R, Broken>,
    ) -> Result<R, Left> {
        let mut inner = self.inner.try_lock().map_err(|_| Left::Busy)?;
        let ring = inner.ring.as_mut().ok_or(Left::Unready)?;
        work(&mut Active::new(ring, &self.memory)).map_err(|Broken| Left::Broken)
    }

    pub(crate) fn try_run<R>(
        &self,
        work: impl FnOnce(&mut MappedActive<'_>) -> R,
    ) -> Result<R, NotNow> {
        let mut inner = self.inner.try_lock().map_err(|_| NotNow::Busy)?;
        let ring = inner.ring.as_mut().ok_or(NotNow::Unmapped)?;
        Ok(work(&mut Active::new(ring, &self.memory)))
    }
}

impl Virtqueue {
    pub(crate) fn has_worker(&self, _guard: &rcu::Guard) -> bool {
        true
    }

    pub(crate) fn queue_work_under(&self, _guard: &rcu::Guard) -> Result<(), ()> {
        self.queue_work()
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
pub(crate) trait Reach {}
impl Reach for OwnerRing<'_> {}
impl Reach for MappedRing<'_> {}

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

/// Why an inline run left something to the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Busy,
    Unready,
    #[allow(dead_code)]
    Fault,
    Broken,
}

/// How an inline run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inlined {
    Drained,
    Budget,
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

/// Enough for any model.
pub(crate) struct Budget;

impl Budget {
    pub(crate) fn new(_packets: u32, _bytes: usize) -> Self {
        Self
    }

    pub(crate) fn inline(_begin: u64) -> Self {
        Self
    }
}

/// A queue that is worked on.
pub(crate) struct Active<'a, M = OwnerRing<'a>> {
    ring: &'a mut SplitRing,
    memory: &'a GuestRing,
    taken: Option<vring::Chain>,
    _p: core::marker::PhantomData<M>,
}

pub(crate) type MappedActive<'a> = Active<'a, MappedRing<'a>>;

impl<'a, M: Reach> Active<'a, M> {
    fn new(ring: &'a mut SplitRing, memory: &'a GuestRing) -> Self {
        Self {
            ring,
            memory,
            taken: None,
            _p: core::marker::PhantomData,
        }
    }

    fn take(&mut self) -> bool {
        self.taken = self.ring.pop(self.memory, &Identity, &mut Sink).unwrap();
        self.taken.is_some()
    }

    fn enable_notify(&mut self) -> bool {
        self.ring.enable_notify(self.memory).unwrap()
    }

    pub(crate) fn disable_notify(&mut self) -> Result<(), Broken> {
        self.ring.disable_notify(self.memory).unwrap();
        Ok(())
    }

    pub(crate) fn spend(&mut self, _budget: &mut Budget, _bytes: usize) -> bool {
        true
    }

    pub(crate) fn defer_signal(&mut self) {}

    pub(crate) fn leave(&mut self, _left: Left) -> Broken {
        unreachable!("all memory is there");
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

    pub(crate) fn write_at(&mut self, _offset: usize, _data: &[u8]) -> Result<(), ()> {
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
            self.0.ring.complete(self.0.memory, chain, written).unwrap();
        }
        Ok(())
    }

    pub(crate) fn is_inline(&self) -> bool {
        false
    }

    pub(crate) fn give_back(self) {}

    pub(crate) fn fail(self) -> Result<(), Broken> {
        self.complete(0)
    }
}

impl<M: Reach> Drop for Chain<'_, '_, M> {
    fn drop(&mut self) {
        if let Some(chain) = self.0.taken.take() {
            self.0.ring.unpop(chain).unwrap();
        }
    }
}
