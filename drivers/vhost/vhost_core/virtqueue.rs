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
//! What an ioctl changes while the queue runs takes the ring away; the next one who works on the
//! queue, who has access to the owner's memory, makes it anew: see [`Virtqueue::run`]. With an
//! IOTLB it may take user space a while to say where the ring is: the queue waits then.
//!
//! # Translations
//!
//! The IOTLB of a queue is under its lock, and so is everything that came out of it: segments of a
//! chain live no longer than [`Active`](crate::chain::Active), which holds the lock. To take a
//! translation back takes the locks of all queues, one after the other; afterwards it is used
//! nowhere.

use crate::{
    kick_work::KickWork,
    memory::MemTable,
    message::{
        Asker,
        Messages, //
    },
    state::{
        Inner,
        RingAddrs,
        Running,
        State,
        Unready,
        Why, //
    },
    worker::{
        NoWorker,
        WorkId,
        WorkerSlot, //
    },
};
use kernel::{
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
        rcu,
        Arc,
        LockClassKey,
        Mutex, //
    },
};
use kernel_ext::{
    eventfd::EventFdFile,
    kick::KickPoll,
    owner_mm::{
        InOwnerMm,
        OwnerMm, //
    },
    peek::Peek,
    return_work::{
        HomeSlot,
        ReturnWork, //
    }, //
};
use vring::{
    iotlb::Miss,
    Gpa,
    RingSize,
    UserAddr, //
};

/// Why there is nothing to do for a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Nobody started it.
    Stopped,
    /// User space has to say where the ring is; the work of the queue is queued then.
    Waiting,
    /// It was found to be wrong, and is not looked at until it is stopped and started.
    Broken,
}

/// Who does the work of a queue when the driver kicks.
#[derive(Clone, Copy)]
pub struct Kicks {
    /// The module of the device.
    pub home: &'static HomeSlot,
    /// Whether threads of the owner that kick may do it, and not only the worker.
    pub are_inline: bool,
}

/// A queue of a device.
///
/// It is shared between the device core, which configures, starts and stops it, and the device,
/// which works on the chains that the driver puts there: see [`run`](Self::run).
///
/// # Lock order
///
/// The lock of the device comes before those of its queues, and these in the order of their number;
/// each queue has a lock class of its own. Whatever the work on a chain takes comes after it.
#[doc(alias = "vhost_virtqueue")]
#[pin_data]
pub struct Virtqueue {
    kick_work: Arc<ReturnWork<KickWork>>,
    /// Where to ask for translations.
    asker: Asker,
    /// Whether the state is Running: a hint for those who do not take the lock.
    running: Atomic<bool>,
    /// Whether the state is Broken; likewise.
    broken: Atomic<bool>,
    #[pin]
    inner: Mutex<Inner>,
}

impl Virtqueue {
    /// Creates the next queue of the device that `messages` belong to, whose kicks queue `work`.
    ///
    /// `kicks` says who may do that: see [`Kicks`]. `key` is the lock class, of which each queue of
    /// a device needs one: use [`static_lock_class!`](kernel::static_lock_class).
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(
        messages: &Arc<Messages>,
        work: WorkId,
        kicks: Kicks,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> Result<Arc<Self>> {
        let kick_work = KickWork::new(kicks.home, work, kicks.are_inline)?;
        let (asker, inner) = (Asker::new(messages)?, Inner::new()?);
        Arc::pin_init(
            pin_init!(Self {
                kick_work,
                asker,
                running: Atomic::new(false),
                broken: Atomic::new(false),
                inner <- Mutex::new(inner, name, key),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Says whether the queue is in use, at this moment.
    ///
    /// It may be stopped, or break, right after: whoever works on it finds out by
    /// [`run`](Self::run).
    #[inline]
    pub fn is_running(&self) -> bool {
        self.running.peek()
    }

    /// Says whether the queue is not in use because it was found to be wrong, at this moment.
    #[inline]
    pub fn is_broken(&self) -> bool {
        self.broken.peek()
    }

    /// Says whether there is a worker for the queue, which was not killed.
    #[inline]
    pub fn has_worker(&self, guard: &rcu::Guard) -> bool {
        self.kick_work.slot.is_alive(guard)
    }

    /// Where the queue finds its worker. Changed with the lock of the device held.
    pub(crate) fn slot(&self) -> &WorkerSlot {
        &self.kick_work.slot
    }

    /// What becomes of kicks.
    pub(crate) fn kick_work(&self) -> &KickWork {
        &self.kick_work
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

    /// As [`queue_work`](Self::queue_work), in a read section of the caller.
    ///
    /// # Errors
    ///
    /// There is no worker.
    #[inline]
    pub fn queue_work_under(&self, guard: &rcu::Guard) -> Result<(), NoWorker> {
        let kick_work = &self.kick_work;
        kick_work.slot.queue_under(kick_work.work, guard)
    }

    /// Says whether the work is queued, and was not begun: a hint.
    #[inline]
    pub fn is_work_queued(&self, guard: &rcu::Guard) -> bool {
        let kick_work = &self.kick_work;
        kick_work.slot.is_queued(kick_work.work, guard)
    }

    /// Says what there is to do for a queue that is not ready: nothing.
    #[cold]
    pub(crate) fn idle(&self, inner: &mut Inner, unready: Unready) -> Idle {
        match unready {
            Unready::Stopped => Idle::Stopped,
            Unready::Broken => Idle::Broken,
            Unready::NoRing => Idle::Waiting,
            Unready::Miss(miss) => {
                self.asker.ask(miss);
                Idle::Waiting
            }
            Unready::Wrong(why) => {
                self.set_broken(inner, why);
                Idle::Broken
            }
        }
    }

    /// Asks user space for a translation; the work of the queue is queued when it is there.
    pub(crate) fn ask(&self, miss: Miss) {
        self.asker.ask(miss);
    }

    /// Breaks a queue that runs; does nothing otherwise. The work of the queue is queued, as the
    /// place where what depends on the queue is cleaned up.
    pub(crate) fn set_broken(&self, inner: &mut Inner, why: Why) {
        if !inner.set_broken(why) {
            return;
        }
        self.broken.store(true, Relaxed);
        self.running.store(false, Relaxed);
        self.asker.forget();
        if let Some(err) = &inner.err {
            err.signal();
        }
        // Without a worker that was done when it died.
        let _ = self.queue_work();
    }

    /// Takes the lock of the queue, whatever its state is.
    #[inline]
    pub(crate) fn lock_inner(&self) -> Guard<'_, Inner, MutexBackend> {
        self.inner.lock()
    }

    /// As [`lock_inner`](Self::lock_inner), if nobody else has it.
    pub(crate) fn try_lock_inner(&self) -> Option<Guard<'_, Inner, MutexBackend>> {
        self.inner.try_lock()
    }

    /// Replaces the eventfd that the driver kicks with. The first part of the result says that
    /// there was another one, whose kicks may still have an effect: flush.
    ///
    /// # Errors
    ///
    /// Those of [`KickPoll::start`]; the queue has no such eventfd then.
    #[doc(alias = "VHOST_SET_VRING_KICK")]
    pub(crate) fn set_kick(&self, file: Option<EventFdFile>) -> (bool, Result) {
        let mut inner = self.inner.lock();
        if let (Some(old), Some(new)) = (&inner.kick, &file) {
            if old.file().same_file(new) {
                return (false, Ok(()));
            }
        }
        let had_one = inner.kick.take().is_some();
        let Some(file) = file else {
            return (had_one, Ok(()));
        };
        let started = KickPoll::start(file, self.kick_work.clone());
        (had_one, started.map(|kick| inner.kick = Some(kick)))
    }

    /// Starts the queue; one that was started already is only checked again.
    ///
    /// With an IOTLB, the queue starts even if a part of the ring is not translated yet, in
    /// contrast to C.
    ///
    /// # Errors
    ///
    /// `EFAULT` if the ring or the memory are not known, or not in the owner's address space, or
    /// the log is not.
    pub(crate) fn start(
        &self,
        memory: Option<&Arc<MemTable>>,
        owner: &OwnerMm,
        mm: &InOwnerMm,
    ) -> Result {
        let mut inner = self.inner.lock();
        let memory = memory
            .filter(|memory| inner.memory_ok(memory))
            .filter(|_| inner.used_log_ok(inner.log.base, inner.log.used))
            .ok_or(EFAULT)?;
        let addrs = match &inner.state {
            State::Unset => return Err(EFAULT),
            State::Configured(addrs) => Some(*addrs),
            State::Running(Running { addrs, .. }) | State::Broken(addrs, _) => *addrs,
        };
        if addrs.is_some_and(|addrs| !inner.ring_ok(addrs)) {
            return Err(EFAULT);
        }
        if inner.is_started() {
            return Ok(());
        }
        inner.start(memory, owner)?;
        match inner.prepare(mm) {
            Ok(()) => (),
            Err(Unready::Miss(miss)) => self.asker.ask(miss),
            Err(_) => {
                inner.stop();
                return Err(EFAULT);
            }
        }
        self.running.store(true, Relaxed);
        Ok(())
    }

    /// Stops the queue. Nobody works on it any more when this returns.
    pub(crate) fn stop(&self) {
        let mut inner = self.inner.lock();
        inner.stop();
        self.running.store(false, Relaxed);
        self.broken.store(false, Relaxed);
        drop(inner);
        self.asker.forget();
    }

    /// Says whether `memory` could replace the memory table.
    pub(crate) fn accepts_memory(&self, memory: &MemTable) -> bool {
        let inner = self.inner.lock();
        // If the queue is not started, this is checked when it is.
        !inner.is_started() || inner.memory_ok(memory)
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

    /// Sets the byte order for a legacy driver: 0 for little, 1 for big endian.
    ///
    /// # Errors
    ///
    /// As [`set_size`](Self::set_size).
    #[cfg(CONFIG_VHOST_CROSS_ENDIAN_LEGACY)]
    pub(crate) fn set_legacy_endian(&self, num: impl FnOnce() -> Result<u32>) -> Result {
        let mut inner = self.inner.lock();
        if inner.is_started() {
            return Err(EBUSY);
        }
        inner.legacy_endian = match num()? {
            0 => vring::Endian::Little,
            1 => vring::Endian::Big,
            _ => return Err(EINVAL),
        };
        Ok(())
    }

    /// Returns the byte order for a legacy driver.
    #[cfg(CONFIG_VHOST_CROSS_ENDIAN_LEGACY)]
    pub(crate) fn legacy_endian(&self) -> u32 {
        match self.inner.lock().legacy_endian {
            vring::Endian::Little => 0,
            vring::Endian::Big => 1,
            vring::Endian::Native => u32::from(cfg!(target_endian = "big")),
        }
    }

    /// Returns the available index to continue with.
    pub(crate) fn base(&self) -> u16 {
        self.inner.lock().next_avail()
    }

    /// Says where the ring is, and which guest address the used ring has if writes to it are to be
    /// logged.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the queue is started and the ring, or its log, is not in the user half of the
    /// address space.
    pub(crate) fn set_addrs(&self, new: RingAddrs, log: Option<Gpa>) -> Result {
        let mut inner = self.inner.lock();
        // If the queue is not started, its size may yet change: this is checked when it is.
        if inner.is_started() {
            let base = inner.log.base;
            if !inner.ring_ok(new) || !inner.used_log_ok(base, log) {
                return Err(EINVAL);
            }
        }
        inner.set_addrs(new);
        inner.log.used = log;
        drop(inner);
        if self.is_running() {
            // It may have waited for that. Without a worker it goes on waiting.
            let _ = self.queue_work();
        }
        Ok(())
    }

    /// Says where the dirty log is.
    ///
    /// # Errors
    ///
    /// `EFAULT` if the queue is started and what it may write could not be logged there; it goes on
    /// with the one that it had.
    pub(crate) fn set_log_base(&self, base: UserAddr) -> Result {
        let mut inner = self.inner.lock();
        if !inner.log_ok(base) {
            return Err(EFAULT);
        }
        inner.log.base = base;
        Ok(())
    }
}
