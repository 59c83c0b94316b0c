// SPDX-License-Identifier: GPL-2.0

//! Queues of a virtio device, that own the buffers in them.
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h).

use super::{
    buffer::{
        Buffer,
        InBuffer,
        OutBuffer,
        SgList, //
    },
    vdev::Device, //
};
use crate::{
    bindings,
    gfp::Gfp, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    device,
    error::to_result,
    prelude::*,
    sync::{
        lock::{
            mutex::MutexBackend,
            Backend,
            Guard,
            Lock, //
        },
        LockClassKey, //
    }, //
};

/// How many bytes a device says it wrote. It may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceLen(u32);

impl DeviceLen {
    /// Returns the number if it is not more than `max`, the size of the buffer.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE`.
    #[inline]
    pub fn at_most(self, max: usize) -> Result<usize> {
        match usize::try_from(self.0) {
            Ok(len) if len <= max => Ok(len),
            _ => Err(EMSGSIZE),
        }
    }

    /// Says whether it is exactly `len`, the size of the buffer.
    #[inline]
    pub fn is(self, len: usize) -> bool {
        usize::try_from(self.0) == Ok(len)
    }
}

/// Where a queue is in its life.
///
/// There is no buffer in a queue that is not attached.
enum Stage {
    /// There is no queue.
    Absent,
    /// The driver may use it.
    Live(NonNull<bindings::virtqueue>),
    /// Nobody uses it any more, but the device may still refer to its buffers.
    Detached(NonNull<bindings::virtqueue>),
}

struct Inner<B, S> {
    stage: Stage,
    sgs: SgList,
    posted: usize,
    state: S,
    _b: PhantomData<fn(B) -> B>,
}

// SAFETY: The pointer in `stage` stands for exclusive use of the queue, by whoever has the `Inner`;
// a virtqueue is not tied to a thread. The buffers in it are `Send` by the definition of `Buffer`.
unsafe impl<B: Buffer, S: Send> Send for Inner<B, S> {}

/// A place for a queue with buffers of the type `B`, the lock of that queue, and what the driver
/// wants to have under the same lock.
///
/// There is a queue while the device is bound and not asleep; [`lock`](Self::lock) says whether.
/// The bus abstraction takes the queue away by itself; it waits until the lock is free. The lock is
/// a mutex, or of the type `L`.
///
/// # Invariants
///
/// The queue of [`Stage::Live`] and [`Stage::Detached`] is valid, and all buffers in it came from
/// `B::into_raw`. `posted` is how many there are.
#[pin_data]
pub struct Virtqueue<B: Buffer, S: Send + Unpin + 'static = (), L: Backend = MutexBackend> {
    #[pin]
    inner: Lock<Inner<B, S>, L>,
}

/// Creates a [`Virtqueue`] initialiser with a newly-created lock class.
#[macro_export]
macro_rules! new_virtqueue {
    ($state:expr, $name:literal) => {
        $crate::virtio::Virtqueue::new(
            $state,
            ::kernel::optional_name!($name),
            ::kernel::static_lock_class!(),
        )
    };
}

impl<B: Buffer, S: Send + Unpin + 'static, L: Backend> Virtqueue<B, S, L> {
    /// Creates a place without a queue. Use [`new_virtqueue!`](crate::new_virtqueue).
    pub fn new(
        state: S,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        // INVARIANT: There is no queue.
        pin_init!(Self {
            inner <- Lock::new(
                pin_init::init!(Inner {
                    stage: Stage::Absent,
                    sgs <- SgList::new(),
                    posted: 0,
                    state,
                    _b: PhantomData,
                }),
                name,
                key
            ),
        })
    }

    /// Locks the queue, if there is one.
    ///
    /// Context: that of the lock: may sleep if it is a mutex.
    #[inline]
    pub fn lock(&self) -> Option<LiveQueue<'_, B, S, L>> {
        LiveQueue::new(self.inner.lock())
    }

    /// Locks the queue if there is one, and nobody else has the lock.
    ///
    /// Context: does not sleep; process context if the lock is a mutex.
    #[inline]
    pub fn try_lock(&self) -> Option<LiveQueue<'_, B, S, L>> {
        LiveQueue::new(self.inner.try_lock()?)
    }
}

/// A queue of a running device, locked.
///
/// The device stays bound, and is not reset, for as long as this exists.
///
/// # Invariants
///
/// `vq` is the queue of [`Stage::Live`] of the locked [`Virtqueue`].
pub struct LiveQueue<'a, B: Buffer, S: Send + Unpin + 'static = (), L: Backend = MutexBackend> {
    inner: Guard<'a, Inner<B, S>, L>,
    vq: NonNull<bindings::virtqueue>,
}

impl<'a, B: Buffer, S: Send + Unpin + 'static, L: Backend> LiveQueue<'a, B, S, L> {
    #[inline]
    fn new(inner: Guard<'a, Inner<B, S>, L>) -> Option<Self> {
        match inner.stage {
            // INVARIANT: By the pattern.
            Stage::Live(vq) => Some(Self { inner, vq }),
            Stage::Absent | Stage::Detached(_) => None,
        }
    }

    #[inline]
    fn vq(&self) -> &bindings::virtqueue {
        // SAFETY: By the invariants of `Virtqueue`, the queue is valid. Its fields are only changed
        // by the functions that are called here, with `&mut self`.
        unsafe { self.vq.as_ref() }
    }

    /// What the driver keeps under the lock of this queue.
    #[inline]
    pub fn state(&mut self) -> &mut S {
        &mut self.inner.state
    }

    /// The device.
    #[inline]
    pub fn device(&self) -> &Device<device::Bound> {
        // SAFETY: The device of a queue is valid for as long as the queue is, and bound for as long
        // as the queue is live, see `LiveQueue`.
        unsafe { &*self.vq().vdev.cast() }
    }

    /// Sets whether parts of a buffer that are contiguous are given to the device as one: a
    /// descriptor for both, and no table of descriptors if there is no other. A device may not care
    /// how a buffer is split if it has `VIRTIO_F_VERSION_1` or `VIRTIO_F_ANY_LAYOUT` (virtio 1.3,
    /// section 2.7.4.1).
    ///
    /// It stays so for queues that are put in place later.
    pub fn join_parts(&mut self, join: bool) {
        self.inner.sgs.set_joining(join);
    }

    /// How many buffers the queue owns.
    #[inline]
    pub fn posted(&self) -> usize {
        self.inner.posted
    }

    /// How many descriptors are free. A buffer needs one, or one for each of its parts.
    #[inline]
    pub fn num_free(&self) -> usize {
        self.vq().num_free as usize
    }

    /// How many descriptors the queue has.
    #[doc(alias = "virtqueue_get_vring_size")]
    #[inline]
    pub fn size(&self) -> usize {
        // SAFETY: By the invariants of `Virtqueue`, the queue is valid.
        unsafe { bindings::virtqueue_get_vring_size(self.vq.as_ptr()) as usize }
    }

    /// Says whether the queue is broken: the device misbehaved or went away, and nothing will come
    /// out of the queue any more.
    #[doc(alias = "virtqueue_is_broken")]
    #[inline]
    pub fn is_broken(&self) -> bool {
        // SAFETY: By the invariants of `Virtqueue`, the queue is valid.
        unsafe { bindings::virtqueue_is_broken(self.vq.as_ptr()) }
    }

    /// Gives a buffer to the device, to read.
    ///
    /// # Errors
    ///
    /// Gives the buffer back, with `ENOSPC` if the queue is full, `EIO` if it is broken, `ENOMEM`,
    /// or `EMSGSIZE` for a buffer of more parts than the queue has descriptors.
    #[doc(alias = "virtqueue_add_outbuf")]
    #[inline]
    pub fn add_out(&mut self, buf: B, gfp: Gfp) -> Result<(), (Error, B)>
    where
        B: OutBuffer,
    {
        self.inner.sgs.clear();
        if let Err(e) = buf.describe(&mut self.inner.sgs) {
            return Err((e, buf));
        }
        self.add::<true>(buf, gfp)
    }

    /// Gives a buffer to the device, to write to.
    ///
    /// # Errors
    ///
    /// As [`add_out`](Self::add_out).
    #[doc(alias = "virtqueue_add_inbuf")]
    #[inline]
    pub fn add_in(&mut self, mut buf: B, gfp: Gfp) -> Result<(), (Error, B)>
    where
        B: InBuffer,
    {
        self.inner.sgs.clear();
        if let Err(e) = buf.describe(&mut self.inner.sgs) {
            return Err((e, buf));
        }
        self.add::<false>(buf, gfp)
    }

    /// Gives a buffer to the device. The list describes it: as an [`OutBuffer`] if `OUT`, else as
    /// an [`InBuffer`].
    #[inline]
    fn add<const OUT: bool>(&mut self, buf: B, gfp: Gfp) -> Result<(), (Error, B)> {
        let (sgs, count) = match self.inner.sgs.finish() {
            Ok(list) => list,
            Err(e) => return Err((e, buf)),
        };
        // A chain must not be longer than the queue, not even an indirect one (virtio 1.3, section
        // 2.7.5.3.1); C warns if the device has made the queue so short.
        if count > 1 && count as usize > self.size() {
            return Err((EMSGSIZE, buf));
        }
        let token = buf.into_raw();
        let add = if OUT {
            bindings::virtqueue_add_outbuf
        } else {
            bindings::virtqueue_add_inbuf
        };

        // SAFETY:
        // - By the invariants of `Virtqueue`, the queue is valid, and the lock serializes its
        //   users.
        // - The list has `count` entries, the last of which is marked.
        // - The entries describe memory that `Buffer` and its subtraits promise to be valid for the
        //   device until `from_raw`, which is called when the device is done with it.
        let ret = unsafe { add(self.vq.as_ptr(), sgs, count, token.as_ptr(), gfp.as_raw()) };
        match to_result(ret) {
            Ok(()) => {
                // INVARIANT: One more buffer, a token of `B`.
                self.inner.posted = self.inner.posted.saturating_add(1);
                Ok(())
            }
            // SAFETY: The queue did not take the token.
            Err(e) => Err((e, unsafe { B::from_raw(token) })),
        }
    }

    /// Takes back a buffer that the device used, and what it says it wrote.
    #[doc(alias = "virtqueue_get_buf")]
    #[inline]
    pub fn pop(&mut self) -> Option<(B, DeviceLen)> {
        let mut len = 0;
        // SAFETY: By the invariants of `Virtqueue`, the queue is valid, and the lock serializes its
        // users; `len` is valid for writes.
        let token = unsafe { bindings::virtqueue_get_buf(self.vq.as_ptr(), &mut len) };
        let token = NonNull::new(token)?;
        // INVARIANT: One buffer less.
        self.inner.posted = self.inner.posted.saturating_sub(1);
        // SAFETY: The ring keeps its tokens in memory of its own, which the device cannot write,
        // and returns each of them once. All of them came from `B::into_raw` by the type
        // invariants.
        Some((unsafe { B::from_raw(token) }, DeviceLen(len)))
    }

    /// Tells the device of new buffers, if it wants to know.
    #[doc(alias = "virtqueue_kick")]
    #[inline]
    pub fn kick(&mut self) {
        // The result only says that the queue is broken: the next `add` or `is_broken` does, too.
        //
        // SAFETY: By the invariants of `Virtqueue`, the queue is valid, and the lock serializes its
        // users.
        unsafe { bindings::virtqueue_kick(self.vq.as_ptr()) };
    }

    /// Asks the device for no more interrupts. It may send them nevertheless.
    #[doc(alias = "virtqueue_disable_cb")]
    #[inline]
    pub fn disable_cb(&mut self) {
        // SAFETY: By the invariants of `Virtqueue`, the queue is valid.
        unsafe { bindings::virtqueue_disable_cb(self.vq.as_ptr()) };
    }

    /// Asks the device for interrupts, and says whether nothing was used before that: if not, there
    /// may be no interrupt for it, and the caller has to look.
    #[doc(alias = "virtqueue_enable_cb")]
    #[must_use]
    #[inline]
    pub fn enable_cb(&mut self) -> bool {
        // SAFETY: By the invariants of `Virtqueue`, the queue is valid, and the lock serializes its
        // users.
        unsafe { bindings::virtqueue_enable_cb(self.vq.as_ptr()) }
    }

    /// As [`enable_cb`](Self::enable_cb), but only for when the device has used three quarters of
    /// the buffers that it has, if it can be told that. What is popped meanwhile undoes the delay.
    #[doc(alias = "virtqueue_enable_cb_delayed")]
    #[must_use]
    #[inline]
    pub fn enable_cb_delayed(&mut self) -> bool {
        // SAFETY: By the invariants of `Virtqueue`, the queue is valid, and the lock serializes its
        // users.
        unsafe { bindings::virtqueue_enable_cb_delayed(self.vq.as_ptr()) }
    }
}

mod private {
    pub trait Sealed {}
}

impl<B: Buffer, S: Send + Unpin + 'static, L: Backend> private::Sealed for Virtqueue<B, S, L> {}

/// A [`Virtqueue`] of any type of buffers: what the bus abstraction needs of it.
pub trait AnyQueue: private::Sealed + Send + Sync {
    /// Puts a queue in place.
    ///
    /// # Errors
    ///
    /// `EBUSY` if there is one.
    ///
    /// # Safety
    ///
    /// The queue is empty, belongs to the caller alone, and is deleted only after
    /// [`detach`](Self::detach) and [`reclaim`](Self::reclaim).
    #[doc(hidden)]
    unsafe fn attach(&self, vq: NonNull<bindings::virtqueue>) -> Result;

    /// Takes the queue away from the driver. There is no [`LiveQueue`] after this.
    ///
    /// Context: may sleep.
    #[doc(hidden)]
    fn detach(&self);

    /// Drops the buffers in the queue, and forgets it.
    ///
    /// # Safety
    ///
    /// The device was reset after [`detach`](Self::detach).
    #[doc(hidden)]
    unsafe fn reclaim(&self);
}

impl<B: Buffer, S: Send + Unpin + 'static, L: Backend> AnyQueue for Virtqueue<B, S, L> {
    unsafe fn attach(&self, vq: NonNull<bindings::virtqueue>) -> Result {
        let mut inner = self.inner.lock();
        match inner.stage {
            Stage::Absent => {
                // INVARIANT: The queue is valid and empty by the safety requirements.
                inner.stage = Stage::Live(vq);
                inner.posted = 0;
                Ok(())
            }
            Stage::Live(_) | Stage::Detached(_) => Err(EBUSY),
        }
    }

    fn detach(&self) {
        let mut inner = self.inner.lock();
        if let Stage::Live(vq) = inner.stage {
            inner.stage = Stage::Detached(vq);
        }
    }

    unsafe fn reclaim(&self) {
        let mut inner = self.inner.lock();
        let Stage::Detached(vq) = inner.stage else {
            return;
        };
        // INVARIANT: Nobody else takes care of the queue from here on, and all buffers go.
        inner.stage = Stage::Absent;
        inner.posted = 0;
        drop(inner);

        loop {
            // SAFETY: The queue is valid, and nobody else uses it; the device was reset.
            let token = unsafe { bindings::virtqueue_detach_unused_buf(vq.as_ptr()) };
            let Some(token) = NonNull::new(token) else {
                break;
            };
            // SAFETY: By the type invariants, the token came from `B::into_raw`; the queue gives
            // each of them once.
            drop(unsafe { B::from_raw(token) });
        }
    }
}
