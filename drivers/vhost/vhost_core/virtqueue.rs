// SPDX-License-Identifier: GPL-2.0

//! A queue of a device: its configuration and its state.
//!
//! ```text
//!          SET_VRING_ADDR             start                  parse error
//!   Unset ---------------> Configured -----> Running ---------------------> Broken
//!                              ^               | stop                         | stop
//!                              +---------------+------------------------------+
//! ```
//!
//! What is needed to work on a ring lives inside of `Running` and goes away with it. A queue whose
//! driver breaks the rules is Broken: the error eventfd is signalled once, and the ring is not
//! looked at again until user space stops and starts the device. Other queues, devices and the host
//! do not notice.
//!
//! What an ioctl changes while the queue runs is taken over by the next user of the ring, who has
//! access to the owner's memory: see [`Virtqueue::lock`].

use crate::{
    chain::Active,
    memory::{
        area_ok,
        MemTable,
        OwnerRing, //
    },
    worker::{
        KickWork,
        NoWorker,
        WorkId,
        WorkerSlot, //
    },
};
use kernel::{
    fmt,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        lock::{
            mutex::MutexBackend,
            Guard, //
        },
        Arc,
        LockClassKey,
        Mutex, //
    },
};
use kernel_ext::{
    eventfd::{
        EventFd,
        EventFdFile, //
    },
    kick::KickPoll,
    owner_mm::InOwnerMm,
    user_iov::UserIov, //
};
use vring::{
    layout,
    Config,
    Endian,
    Malformed,
    RingAddr,
    RingError,
    RingSize,
    SplitRing, //
};

/// Feature bits that concern the rings.
pub mod feature {
    /// The device signals when it has used all available buffers, whatever the driver asked for.
    #[doc(alias = "VIRTIO_F_NOTIFY_ON_EMPTY")]
    pub const NOTIFY_ON_EMPTY: u64 = 1 << 24;
    /// The device makes no assumptions about how a packet is split into descriptors.
    #[doc(alias = "VIRTIO_F_ANY_LAYOUT")]
    pub const ANY_LAYOUT: u64 = 1 << 27;
    /// Descriptors may refer to tables of descriptors.
    #[doc(alias = "VIRTIO_RING_F_INDIRECT_DESC")]
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// The rings carry the indexes at which to notify.
    #[doc(alias = "VIRTIO_RING_F_EVENT_IDX")]
    pub const EVENT_IDX: u64 = 1 << 29;
    /// The rings are little endian.
    #[doc(alias = "VIRTIO_F_VERSION_1")]
    pub const VERSION_1: u64 = 1 << 32;

    /// What any device of this core can offer.
    #[doc(alias = "VHOST_FEATURES")]
    pub const RING: u64 = NOTIFY_ON_EMPTY | ANY_LAYOUT | INDIRECT_DESC | EVENT_IDX | VERSION_1;
}

/// Where the parts of a ring are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RingAddrs {
    pub(crate) desc: RingAddr,
    pub(crate) avail: RingAddr,
    pub(crate) used: RingAddr,
}

/// Why a queue is Broken.
#[derive(Clone, Copy)]
pub(crate) enum Why {
    /// The driver broke the rules of the ring.
    Malformed(Malformed),
    /// A buffer is not in the guest's memory.
    Translation,
    /// The memory of the ring cannot be accessed.
    Memory,
    /// The device does not get anything done with the buffers that it is given.
    Device,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => core::fmt::Display::fmt(what, f),
            Self::Translation => f.write_str("a buffer is outside of the guest's memory"),
            Self::Memory => f.write_str("the ring cannot be accessed"),
            Self::Device => f.write_str("the buffers are of no use"),
        }
    }
}

impl<T> From<RingError<Error, T>> for Why {
    fn from(err: RingError<Error, T>) -> Self {
        match err {
            RingError::Malformed(what) => Self::Malformed(what),
            RingError::Translate(_) => Self::Translation,
            RingError::Memory(_) => Self::Memory,
        }
    }
}

/// A queue in use.
pub(crate) struct Running {
    pub(crate) ring: SplitRing,
    /// The memory that buffers are in.
    pub(crate) memory: Arc<MemTable>,
    /// Where the ring is to be. Differs from where it is for as long as `stale`.
    addrs: RingAddrs,
    /// The addresses or the features were changed since `ring` was made.
    stale: bool,
}

pub(crate) enum State {
    /// Nobody said where the ring is.
    Unset,
    /// Ready to be started.
    Configured(RingAddrs),
    /// In use.
    Running(Running),
    /// The ring was found to be wrong. Still counts as started for user space.
    Broken(RingAddrs, Why),
}

/// What the lock of a queue protects.
pub(crate) struct Inner {
    pub(crate) state: State,
    size: RingSize,
    /// The available index to begin with; not used while Running.
    base: u16,
    features: u64,
    /// The segments of the chain that is being worked on.
    pub(crate) readable: UserIov,
    pub(crate) writable: UserIov,
    pub(crate) call: Option<EventFd>,
    pub(crate) err: Option<EventFd>,
    kick: Option<Pin<KBox<KickPoll<KickWork>>>>,
    pub(crate) busyloop_timeout: u32,
}

impl Inner {
    /// Says whether the queue was started and not stopped.
    pub(crate) fn is_started(&self) -> bool {
        matches!(self.state, State::Running(_) | State::Broken(..))
    }

    pub(crate) fn size(&self) -> RingSize {
        self.size
    }

    fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    fn config(&self, addrs: RingAddrs, base: u16) -> Config {
        Config {
            size: self.size,
            desc: addrs.desc,
            avail: addrs.avail,
            used: addrs.used,
            base,
            event_idx: self.has(feature::EVENT_IDX),
            notify_on_empty: self.has(feature::NOTIFY_ON_EMPTY),
            endian: if self.has(feature::VERSION_1) {
                Endian::Little
            } else {
                Endian::Native
            },
        }
    }

    /// Says whether all of a ring is in the user half of the address space.
    #[doc(alias = "vq_access_ok")]
    fn ring_ok(&self, addrs: RingAddrs) -> bool {
        let event_idx = self.has(feature::EVENT_IDX);
        area_ok(addrs.desc.0, layout::desc_bytes(self.size))
            && area_ok(addrs.avail.0, layout::avail_bytes(self.size, event_idx))
            && area_ok(addrs.used.0, layout::used_bytes(self.size, event_idx))
    }

    fn make_ring(
        &self,
        addrs: RingAddrs,
        base: u16,
        mm: &InOwnerMm,
    ) -> core::result::Result<SplitRing, Why> {
        if !self.ring_ok(addrs) {
            return Err(Why::Memory);
        }
        Ok(SplitRing::new(self.config(addrs, base), &OwnerRing(mm))?)
    }
}

/// Why there is nothing to do for a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Nobody started it.
    Stopped,
    /// It was found to be wrong, and is not looked at until it is stopped and started.
    Broken,
}

/// A queue of a device.
///
/// It is shared between the device core, which configures, starts and stops it, and the device,
/// which works on the chains that the driver puts there: see [`lock`](Self::lock).
///
/// # Lock order
///
/// The lock of the device comes before those of its queues, and these in the order of their number;
/// each queue has a lock class of its own. Whatever the work on a chain takes comes after it.
#[doc(alias = "vhost_virtqueue")]
#[pin_data]
pub struct Virtqueue {
    kick_work: Arc<KickWork>,
    /// Whether the state is Running: a hint for those who do not take the lock.
    running: Atomic<bool>,
    #[pin]
    inner: Mutex<Inner>,
}

impl Virtqueue {
    /// Creates a queue whose kicks queue `work`.
    ///
    /// `key` is the lock class, of which each queue of a device needs one: use
    /// [`static_lock_class!`](kernel::static_lock_class).
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(
        work: WorkId,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> Result<Arc<Self>> {
        let kick_work = Arc::new(
            KickWork {
                slot: WorkerSlot::new(),
                work,
            },
            GFP_KERNEL_ACCOUNT,
        )?;
        let inner = Inner {
            state: State::Unset,
            // What user space has to change before a ring of any use can be started.
            size: RingSize::new(1).ok_or(EINVAL)?,
            base: 0,
            features: 0,
            readable: UserIov::new(),
            writable: UserIov::new(),
            call: None,
            err: None,
            kick: None,
            busyloop_timeout: 0,
        };
        Arc::pin_init(
            pin_init!(Self {
                kick_work,
                running: Atomic::new(false),
                inner <- Mutex::new(inner, name, key),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Says whether the queue is in use, at this moment.
    ///
    /// It may be stopped, or break, right after: whoever works on it finds out by
    /// [`lock`](Self::lock).
    #[inline]
    pub fn is_running(&self) -> bool {
        self.running.load(Relaxed)
    }

    /// Says whether there is a worker for the queue, which was not killed.
    #[inline]
    pub fn has_worker(&self) -> bool {
        self.kick_work.slot.is_alive()
    }

    /// Where the queue finds its worker. Changed with the lock of the device held.
    pub(crate) fn slot(&self) -> &WorkerSlot {
        &self.kick_work.slot
    }

    /// Queues the work that a kick of the driver would queue.
    ///
    /// # Errors
    ///
    /// There is no worker.
    #[inline]
    pub fn queue_work(&self) -> Result<(), NoWorker> {
        self.kick_work.slot.queue(self.kick_work.work)
    }

    /// Takes the lock of the queue to work on its chains, if it is running.
    ///
    /// Changes to the configuration that were made since the last time take effect here.
    ///
    /// Context: sleeps. See the lock order.
    ///
    /// # Errors
    ///
    /// The queue is not running: see [`Idle`].
    pub fn lock<'a>(&'a self, mm: &'a InOwnerMm) -> core::result::Result<Active<'a>, Idle> {
        let mut inner = self.inner.lock();
        let running = match &inner.state {
            State::Unset | State::Configured(_) => return Err(Idle::Stopped),
            State::Broken(..) => return Err(Idle::Broken),
            State::Running(running) => running,
        };
        if running.stale {
            let (addrs, base) = (running.addrs, running.ring.vring_base());
            match inner.make_ring(addrs, base, mm) {
                Ok(ring) => {
                    if let State::Running(running) = &mut inner.state {
                        running.ring = ring;
                        running.stale = false;
                    }
                }
                Err(why) => {
                    self.set_broken(&mut inner, why);
                    return Err(Idle::Broken);
                }
            }
        }
        Ok(Active::new(self, inner, mm))
    }

    /// Breaks a queue that runs; does nothing otherwise.
    pub(crate) fn set_broken(&self, inner: &mut Inner, why: Why) {
        let State::Running(running) = &inner.state else {
            return;
        };
        inner.base = running.ring.vring_base();
        inner.state = State::Broken(running.addrs, why);
        self.running.store(false, Relaxed);
        if let Some(err) = &inner.err {
            err.signal();
        }
    }

    /// Takes the lock of the queue, whatever its state is.
    pub(crate) fn lock_inner(&self) -> Guard<'_, Inner, MutexBackend> {
        self.inner.lock()
    }

    /// Replaces the eventfd that the driver kicks with. The result says that there was another one,
    /// whose kicks may still have an effect: flush.
    ///
    /// # Errors
    ///
    /// Those of [`KickPoll::start`]; the queue has no such eventfd then.
    #[doc(alias = "VHOST_SET_VRING_KICK")]
    pub(crate) fn set_kick(&self, file: Option<EventFdFile>) -> Result<bool> {
        let mut inner = self.inner.lock();
        if let (Some(old), Some(new)) = (&inner.kick, &file) {
            if old.file().same_file(new) {
                return Ok(false);
            }
        }
        let had_one = inner.kick.take().is_some();
        if let Some(file) = file {
            inner.kick = Some(KickPoll::start(file, self.kick_work.clone())?);
        }
        Ok(had_one)
    }

    /// Allocates what work on the queue will need, so that it does not fail later.
    pub(crate) fn make_room(&self) -> Result {
        let mut inner = self.inner.lock();
        inner.readable.make_room()?;
        inner.writable.make_room()
    }

    /// Starts the queue; one that was started already is only checked again.
    ///
    /// # Errors
    ///
    /// `EFAULT` if the ring or the memory are not known, or not in the owner's address space.
    pub(crate) fn start(&self, memory: Option<&Arc<MemTable>>, mm: &InOwnerMm) -> Result {
        let mut inner = self.inner.lock();
        let memory = memory.filter(|memory| memory.access_ok()).ok_or(EFAULT)?;
        let addrs = match &inner.state {
            State::Unset => return Err(EFAULT),
            State::Configured(addrs) => *addrs,
            State::Running(Running { addrs, .. }) | State::Broken(addrs, _) => {
                return inner.ring_ok(*addrs).then_some(()).ok_or(EFAULT);
            }
        };
        let ring = inner
            .make_ring(addrs, inner.base, mm)
            .map_err(|_: Why| EFAULT)?;
        inner.state = State::Running(Running {
            ring,
            memory: memory.clone(),
            addrs,
            stale: false,
        });
        self.running.store(true, Relaxed);
        Ok(())
    }

    /// Stops the queue. Nobody works on it any more when this returns.
    pub(crate) fn stop(&self) {
        let mut inner = self.inner.lock();
        let addrs = match &inner.state {
            State::Unset | State::Configured(_) => return,
            State::Running(running) => {
                let (addrs, base) = (running.addrs, running.ring.vring_base());
                inner.base = base;
                addrs
            }
            State::Broken(addrs, _) => *addrs,
        };
        inner.state = State::Configured(addrs);
        self.running.store(false, Relaxed);
    }

    /// Replaces the memory table of a queue that runs; one that does not gets it at the start.
    pub(crate) fn set_memory(&self, memory: &Arc<MemTable>) {
        let mut inner = self.inner.lock();
        if let State::Running(running) = &mut inner.state {
            // The old table is dropped here at the latest by its last user; it is plain memory.
            running.memory = memory.clone();
        }
    }

    /// Says whether `memory` could replace the memory table.
    pub(crate) fn accepts_memory(&self, memory: &MemTable) -> bool {
        // If the queue is not started, this is checked when it is.
        !self.inner.lock().is_started() || memory.access_ok()
    }

    /// Changes the features.
    pub(crate) fn set_features(&self, features: u64) {
        let mut inner = self.inner.lock();
        let changed = (inner.features ^ features) & feature::RING != 0;
        inner.features = features;
        if let State::Running(running) = &mut inner.state {
            running.stale |= changed;
        }
    }

    /// Sets the number of entries.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the queue is started, `EINVAL` for what is no size of a ring, and what reading
    /// `num` fails with.
    pub(crate) fn set_size(&self, num: impl FnOnce() -> Result<u32>) -> Result {
        let mut inner = self.inner.lock();
        if inner.is_started() {
            return Err(EBUSY);
        }
        inner.size = RingSize::new(num()?).ok_or(EINVAL)?;
        Ok(())
    }

    /// Sets the available index to begin with.
    ///
    /// # Errors
    ///
    /// As [`set_size`](Self::set_size).
    pub(crate) fn set_base(&self, num: impl FnOnce() -> Result<u32>) -> Result {
        let mut inner = self.inner.lock();
        if inner.is_started() {
            return Err(EBUSY);
        }
        inner.base = u16::try_from(num()?).map_err(|_| EINVAL)?;
        Ok(())
    }

    /// Returns the available index to continue with.
    pub(crate) fn base(&self) -> u16 {
        let inner = self.inner.lock();
        match &inner.state {
            State::Running(running) => running.ring.vring_base(),
            _ => inner.base,
        }
    }

    /// Says where the ring is.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the queue is started and the ring is not in the user half of the address space.
    pub(crate) fn set_addrs(&self, new: RingAddrs) -> Result {
        let mut inner = self.inner.lock();
        // If the queue is not started, its size may yet change: this is checked when it is.
        if inner.is_started() && !inner.ring_ok(new) {
            return Err(EINVAL);
        }
        match &mut inner.state {
            State::Running(running) => {
                running.stale |= running.addrs != new;
                running.addrs = new;
            }
            State::Broken(addrs, _) => *addrs = new,
            state @ (State::Unset | State::Configured(_)) => *state = State::Configured(new),
        }
        Ok(())
    }
}
