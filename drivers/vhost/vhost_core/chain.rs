// SPDX-License-Identifier: GPL-2.0

//! Work on the chains of a queue.

use crate::{
    memory::OwnerRing,
    virtqueue::{
        Inner,
        Running,
        State,
        Virtqueue,
        Why, //
    },
};
use kernel::sync::lock::{
    mutex::MutexBackend,
    Guard, //
};
use kernel_ext::{
    owner_mm::{
        InOwnerMm,
        OwnerAddr, //
    },
    user_iov::{
        UserDest,
        UserIov,
        UserSource, //
    },
};
use vring::{
    layout,
    Full,
    Segment,
    Segments, //
};

/// The queue broke; it does nothing any more until it is stopped and started.
///
/// User space was told already. The device cleans up what depends on the queue.
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
}

impl Budget {
    /// A budget of `packets` packets with `bytes` bytes together.
    pub const fn new(packets: u32, bytes: usize) -> Self {
        Self { packets, bytes }
    }

    /// Takes the cost of a packet, and says whether there is something left.
    #[inline]
    fn spend(&mut self, bytes: usize) -> bool {
        self.packets = self.packets.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.packets != 0 && self.bytes != 0
    }
}

/// A queue that runs, locked by the thread that works on it.
///
/// When it is dropped, the driver is signalled, if anything was completed and if it wants to be.
#[must_use = "the queue is locked for nothing"]
pub struct Active<'a> {
    queue: &'a Virtqueue,
    inner: Guard<'a, Inner, MutexBackend>,
    mm: &'a InOwnerMm,
    /// Whether a chain was completed.
    used: bool,
    /// How many descriptors were read since the last [`spend`](Self::spend).
    descriptors: u32,
}

/// Where the segments of a chain go: readable ones to one list, writable ones to the other.
struct Lists<'a> {
    readable: &'a mut UserIov,
    writable: &'a mut UserIov,
}

impl Segments for Lists<'_> {
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
        // CAST: From 32 bits to an address size of at least 32 bits.
        list.push(addr, segment.len as usize).map_err(|_| Full)
    }
}

impl<'a> Active<'a> {
    pub(crate) fn new(
        queue: &'a Virtqueue,
        inner: Guard<'a, Inner, MutexBackend>,
        mm: &'a InOwnerMm,
    ) -> Self {
        Self {
            queue,
            inner,
            mm,
            used: false,
            descriptors: 0,
        }
    }

    /// Does something with the ring, and breaks the queue if that fails.
    #[inline]
    fn with_ring<R, E: Into<Why>>(
        &mut self,
        f: impl FnOnce(&mut Running, &OwnerRing<'_>, Lists<'_>) -> core::result::Result<R, E>,
    ) -> core::result::Result<R, Broken> {
        let Inner {
            state,
            readable,
            writable,
            ..
        } = &mut *self.inner;
        let State::Running(running) = state else {
            return Err(Broken);
        };
        let ring = OwnerRing(self.mm);
        match f(running, &ring, Lists { readable, writable }) {
            Ok(ret) => Ok(ret),
            Err(why) => {
                self.queue.set_broken(&mut self.inner, why.into());
                Err(Broken)
            }
        }
    }

    /// The number of entries of the ring.
    pub fn size(&self) -> u16 {
        match &self.inner.state {
            State::Running(running) => running.ring.size().get(),
            _ => 0,
        }
    }

    /// Takes the next chain, if there is one.
    ///
    /// # Errors
    ///
    /// The ring or the chain is not acceptable; the queue is Broken now.
    #[inline]
    pub fn pop(&mut self) -> core::result::Result<Option<Chain<'_, 'a>>, Broken> {
        let chain = self.with_ring(|running, mem, mut lists| {
            running.ring.pop(mem, &running.memory.regions(), &mut lists)
        })?;
        let Some(chain) = chain else {
            return Ok(None);
        };
        self.descriptors = self.descriptors.saturating_add(chain.descriptors());
        Ok(Some(Chain {
            active: self,
            chain: Some(chain),
        }))
    }

    /// Takes the cost of a packet with `bytes` bytes, and of the chains that were popped for it, and
    /// says whether there is something left.
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
        self.with_ring(|running, mem, _| running.ring.disable_notify(mem))
    }

    /// Asks the driver to kick when there is a new chain. The result says that there is one
    /// already, for which it may not kick.
    ///
    /// # Errors
    ///
    /// The ring is not accessible, or not acceptable; the queue is Broken now.
    pub fn enable_notify(&mut self) -> core::result::Result<bool, Broken> {
        self.with_ring(|running, mem, _| running.ring.enable_notify(mem))
    }

    /// Breaks the queue, because its buffers are of no use to the device.
    pub fn give_up(&mut self) -> Broken {
        self.queue.set_broken(&mut self.inner, Why::Device);
        Broken
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        if !self.used {
            return;
        }
        // If the queue just broke, the driver gets what was completed before, and a signal: it may
        // be waiting.
        let signal = self
            .with_ring(|running, mem, _| running.ring.should_signal(mem))
            .unwrap_or(true);
        if signal {
            if let Some(call) = &self.inner.call {
                call.signal();
            }
        }
    }
}

/// A chain of buffers, taken from the ring.
///
/// It borrows the locked queue: there is one chain at a time. It is completed, or given back, which
/// dropping it does.
#[must_use = "the driver waits for its buffers: complete the chain"]
pub struct Chain<'g, 'a> {
    active: &'g mut Active<'a>,
    /// `None` after it was completed or given back.
    chain: Option<vring::Chain>,
}

impl Chain<'_, '_> {
    /// How many bytes the device may read.
    #[inline]
    pub fn readable_len(&self) -> usize {
        self.active.inner.readable.bytes()
    }

    /// How many bytes the device may write.
    #[inline]
    pub fn writable_len(&self) -> usize {
        self.active.inner.writable.bytes()
    }

    /// Says whether there is anything that the device may read, even if it has no bytes.
    #[inline]
    pub fn has_readable(&self) -> bool {
        !self.active.inner.readable.is_empty()
    }

    /// Says whether there is anything that the device may write, even if it has no bytes.
    #[inline]
    pub fn has_writable(&self) -> bool {
        !self.active.inner.writable.is_empty()
    }

    /// What the device may read, from the beginning.
    #[inline]
    pub fn source(&self) -> UserSource<'_> {
        self.active.inner.readable.source(self.active.mm)
    }

    /// What the device may write, from the beginning.
    #[inline]
    pub fn dest(&self) -> UserDest<'_> {
        self.active.inner.writable.dest(self.active.mm)
    }

    /// Returns the buffers to the driver, `written` bytes of which were written.
    ///
    /// # Errors
    ///
    /// The used ring is not accessible; the queue is Broken now.
    #[inline]
    pub fn complete(mut self, written: u32) -> core::result::Result<(), Broken> {
        let Some(chain) = self.chain.take() else {
            return Err(Broken);
        };
        self.active
            .with_ring(|running, mem, _| running.ring.complete(mem, chain, written))?;
        self.active.used = true;
        Ok(())
    }

    /// Puts the chain back, as if it had not been taken.
    #[inline]
    pub fn give_back(self) {
        drop(self);
    }
}

impl Drop for Chain<'_, '_> {
    fn drop(&mut self) {
        let Some(chain) = self.chain.take() else {
            return;
        };
        // It fails if the driver offered more than the ring has room for, which breaks the queue:
        // the buffers of this chain would be lost otherwise.
        let _ = self.active.with_ring(|running, _, _| {
            running
                .ring
                .unpop(chain)
                .map_err(|_| Why::Malformed(vring::Malformed::AvailIndex))
        });
    }
}
