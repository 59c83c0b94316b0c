// SPDX-License-Identifier: GPL-2.0

//! The thread that does the work of a device.
//!
//! The works of a device have small numbers; what waits to be done is a set of them, kept in one
//! atomic word. Thus a work is queued at most once, queueing needs no lock and no memory, and it is
//! possible from any context, the wait queue callback of an eventfd included. The worker takes the
//! whole set at once: no work is done twice before all others had their turn.
//!
//! # Which worker
//!
//! A device has a worker from the moment on that it has an owner, and may have more: user space
//! creates them, and says which of them works for a queue (see [`workers`](crate::workers)). Each
//! queue has a [`WorkerSlot`], by which works find the worker without a lock.
//!
//! # Ownership
//!
//! The device has a list of its workers, each slot refers to one, and a flush to the one that it
//! waits for. The thread itself has no reference to its [`Worker`], and thus never joins itself. It
//! has one to the device, by [`Works`]: the device must drop its workers for good to be freed
//! itself.
//!
//! # Death
//!
//! A thread of the owner's process is killed with it, by `SIGKILL` or when the process executes
//! another program, while the device may be kept open by somebody else. It takes no work from then
//! on: queueing one fails, and what flushes wait for does not happen any more, so that they return.
//! A thread of the kernel does not die.

use crate::inline::Inlined;
use kernel::{
    new_condvar,
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Full, //
        },
        rcu,
        Arc,
        CondVar,
        Mutex,
        SetOnce, //
    },
    task::{
        Pid,
        Task, //
    }, //
};
use kernel_ext::{
    mm_kthread::MmKthread,
    owner_mm::{
        InOwnerMm,
        OwnerMm, //
    },
    peek::Peek,
    process,
    rcu::{
        RcuSlot,
        Retired, //
    },
    vhost_task::{
        self,
        VhostTask, //
    },
};

/// The number of a work of a device.
///
/// # Invariants
///
/// It is less than [`WorkId::COUNT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkId(u8);

impl WorkId {
    /// How many works a device can have.
    pub const COUNT: u8 = 62;

    /// Makes the number of a work; one that is too large does not compile.
    pub const fn new<const ID: u8>() -> Self {
        const { assert!(ID < Self::COUNT) };
        // INVARIANT: Just checked.
        Self(ID)
    }

    #[inline]
    const fn bit(self) -> u64 {
        // OVERFLOW: By the type invariant, the shift is less than 62.
        1_u64.wrapping_shl(self.0 as u32)
    }
}

/// In [`Shared::pending`]: somebody waits for all works that were queued before.
const FLUSH: u64 = 1 << 62;
/// In [`Shared::pending`]: the thread was killed. It stays, and nothing else is set any more.
const DEAD: u64 = 1 << 63;
/// In [`Shared::pending`]: the works.
const WORKS: u64 = FLUSH - 1;

/// The device that a worker works for.
pub trait Works: Send + Sync + 'static {
    /// Does one of the works.
    ///
    /// Context: the worker's thread, without any lock.
    fn run(&self, work: WorkId, mm: &InOwnerMm);

    /// Does one of the works for a thread of the owner that has kicked, if that is possible at
    /// once: see [`kick_work`](crate::kick_work). The worker gets what is left.
    ///
    /// `begin` is the time by [`clock::local_nanos`](kernel_ext::clock::local_nanos).
    ///
    /// Context: that thread, without any lock. Accesses to memory that is not there fail. This
    /// waits for nothing that user space could hold up.
    fn run_inline(&self, work: WorkId, mm: &InOwnerMm, begin: u64) -> Inlined;

    /// The thread was killed: [`run`](Self::run) will not be called again.
    ///
    /// From now on [`WorkerSlot::queue`] fails. Whoever queued a work before, and was answered with
    /// success, counts on this to clean up.
    ///
    /// Context: the worker's thread, without any lock. It must not wait for anything that waits for
    /// the owner's process.
    fn worker_died(&self);
}

/// There is no worker, or it was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoWorker;

/// Whether the thread still takes works.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Alive,
    Dead,
}

struct FlushState {
    life: Life,
    /// How many flushes were asked for.
    requested: u64,
    /// How many of them are done; they are done in order.
    done: u64,
}

/// What the thread and the device share.
#[pin_data]
struct Shared {
    pending: Atomic<u64>,
    works: Arc<dyn Works>,
    /// The thread, from its first moment on; see [`Self::is_known`].
    task: SetOnce<ARef<Task>>,
    /// Whether `task` is there, to be seen without a call; only the thread writes it.
    is_known: Atomic<bool>,
    /// Taken for flushes only; inside of all locks of a device.
    #[pin]
    flush: Mutex<FlushState>,
    #[pin]
    flushed: CondVar,
}

impl Shared {
    /// Adds to what is pending. The result says whether the thread has to be woken up.
    fn add(&self, bits: u64) -> Result<bool, NoWorker> {
        let mut old = self.pending.peek();
        loop {
            if old & DEAD != 0 {
                return Err(NoWorker);
            }
            // Full: what the caller wrote before it queued the work is seen by the work, as
            // `run_pending()` begins with a `Full` exchange of the same word. The exchange is not
            // skipped if the bit is set already: the same holds then.
            match self.pending.cmpxchg(old, old | bits, Full) {
                // Whoever queued something wakes the thread up, so that nobody has to wait for
                // another one that was interrupted between the two.
                Ok(_) => return Ok(old & bits != bits),
                Err(now) => old = now,
            }
        }
    }

    /// Takes all works that are pending and does them; says whether somebody waits for that.
    fn run_pending(&self, mm: &InOwnerMm) -> bool {
        // Only this thread sets `DEAD`, in `killed()`, after which it does not come here.
        let pending = self.pending.xchg(0, Full);
        let mut works = pending & WORKS;
        while works != 0 {
            // CAST: A number of trailing zeros of a word that has a bit set in `WORKS` is at most
            // 61.
            //
            // INVARIANT: For the same reason.
            let id = WorkId(works.trailing_zeros() as u8);
            works &= !id.bit();
            self.works.run(id, mm);
            mm.relax();
        }
        pending & FLUSH != 0
    }
}

impl vhost_task::Worker for Shared {
    fn has_work(&self) -> bool {
        if !self.is_known.peek() {
            // The first thing that the thread does.
            self.task.populate(ARef::from(&**current!()));
            self.is_known.poke(true);
        }
        self.pending.peek() != 0
    }

    fn run(&self, mm: &InOwnerMm) {
        let mut flush = self.run_pending(mm);
        while flush {
            // A work that was queued before a flush was requested was either taken above, or is
            // taken now that the number of requests is known.
            let requested = self.flush.lock().requested;
            flush = self.run_pending(mm);
            self.flush.lock().done = requested;
            self.flushed.notify_all();
        }
    }

    fn killed(&self) {
        {
            let mut state = self.flush.lock();
            state.life = Life::Dead;
            // Full: a caller of `add()` that still succeeded comes before, and `worker_died()` sees
            // what it wrote.
            self.pending.xchg(DEAD, Full);
        }
        self.flushed.notify_all();
        self.works.worker_died();
    }
}

/// What kind of thread a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// A thread of the owner's process, within its limits, which dies with it.
    OwnerTask,
    /// A thread of the kernel, in the control groups of the owner's process.
    KernelThread,
}

enum Thread {
    Task(VhostTask<Shared>),
    Kernel(MmKthread<Shared>),
}

impl Thread {
    #[inline]
    fn shared(&self) -> &Shared {
        match self {
            Self::Task(task) => task.worker(),
            Self::Kernel(thread) => thread.worker(),
        }
    }

    #[inline]
    fn wake(&self) {
        match self {
            Self::Task(task) => task.wake(),
            Self::Kernel(thread) => thread.wake(),
        }
    }
}

/// A worker thread of a device.
///
/// It works in the memory of the owner. Dropping it stops the thread without doing what is pending,
/// and waits for its end: flush first, if that has to be done. The thread itself must not drop it.
#[doc(alias = "vhost_worker")]
pub struct Worker {
    id: u32,
    thread: Thread,
}

impl Worker {
    /// Starts a thread for the current process, which is or becomes the owner of the device.
    ///
    /// `id` is the number by which user space knows it. The worker keeps a reference to the device
    /// until it is dropped.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, whatever the reason, as in C.
    #[doc(alias = "vhost_worker_create")]
    pub(crate) fn new(
        id: u32,
        flavour: Flavour,
        works: Arc<dyn Works>,
        mm: &OwnerMm,
    ) -> Result<Self> {
        let pid = current!().pid();
        let name = kernel::str::CString::try_from_fmt(fmt!("vhost-{pid}"))?;
        let shared = Arc::pin_init(
            pin_init!(Shared {
                pending: Atomic::new(0),
                works,
                task: SetOnce::new(),
                is_known: Atomic::new(false),
                flush <- new_mutex!(
                    FlushState {
                        life: Life::Alive,
                        requested: 0,
                        done: 0,
                    },
                    "vhost_core::Worker::flush"
                ),
                flushed <- new_condvar!("vhost_core::Worker::flushed"),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        let thread = match flavour {
            Flavour::OwnerTask => VhostTask::spawn(shared, &name).map(Thread::Task),
            Flavour::KernelThread => MmKthread::spawn(shared, mm, &name).map(Thread::Kernel),
        };
        Ok(Self {
            id,
            thread: thread.map_err(|_| ENOMEM)?,
        })
    }

    /// The number by which user space knows the worker.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Queues a work, unless it is queued already.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// The thread was killed.
    #[inline]
    pub fn queue(&self, work: WorkId) -> Result<(), NoWorker> {
        self.add(work.bit())
    }

    #[inline]
    fn add(&self, bits: u64) -> Result<(), NoWorker> {
        if self.thread.shared().add(bits)? {
            self.thread.wake();
        }
        Ok(())
    }

    /// Waits until all works that were queued before are done, or the thread is dead.
    ///
    /// Context: sleeps; not from a work.
    #[doc(alias = "vhost_dev_flush")]
    pub fn flush(&self) {
        let shared = self.thread.shared();
        let mut state = shared.flush.lock();
        if state.life == Life::Dead {
            return;
        }
        let ticket = state.requested.wrapping_add(1);
        state.requested = ticket;
        if self.add(FLUSH).is_err() {
            return;
        }
        while state.life == Life::Alive && state.done < ticket {
            shared.flushed.wait(&mut state);
        }
    }

    /// Says whether the thread was not killed.
    #[inline]
    pub fn is_alive(&self) -> bool {
        self.thread.shared().pending.peek() & DEAD == 0
    }

    /// The number of the thread, as the current process knows it: 0 if its namespace of processes
    /// does not have the thread, or this did not run yet, or has ended.
    pub fn pid(&self) -> Pid {
        let task = self.thread.shared().task.as_ref();
        task.map_or(0, |task| process::pid_for_current(task))
    }
}

/// Where a queue finds its worker, without a lock.
///
/// It is empty until the device has an owner, and again when it is closed.
pub(crate) struct WorkerSlot(RcuSlot<Worker>);

impl WorkerSlot {
    pub(crate) const fn new() -> Self {
        Self(RcuSlot::new())
    }

    /// Queues a work.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// There is no worker, or it was killed.
    #[doc(alias = "vhost_vq_work_queue")]
    #[inline]
    pub(crate) fn queue(&self, work: WorkId) -> Result<(), NoWorker> {
        self.queue_under(work, &rcu::read_lock())
    }

    /// As [`queue`](Self::queue), in a read section of the caller.
    ///
    /// # Errors
    ///
    /// There is no worker.
    #[inline]
    pub(crate) fn queue_under(&self, work: WorkId, guard: &rcu::Guard) -> Result<(), NoWorker> {
        self.0.load(guard).ok_or(NoWorker)?.queue(work)
    }

    /// Says whether a work is queued, and was not begun: a hint.
    #[inline]
    pub(crate) fn is_queued(&self, work: WorkId, guard: &rcu::Guard) -> bool {
        let worker = self.0.load(guard);
        worker.is_some_and(|worker| worker.thread.shared().pending.peek() & work.bit() != 0)
    }

    /// The device of the worker, if there is one that was not killed.
    #[inline]
    pub(crate) fn works(&self, guard: &rcu::Guard) -> Option<Arc<dyn Works>> {
        let worker = self.0.load(guard).filter(|worker| worker.is_alive())?;
        Some(worker.thread.shared().works.clone())
    }

    /// Says whether there is a worker that was not killed.
    #[inline]
    pub(crate) fn is_alive(&self, guard: &rcu::Guard) -> bool {
        self.0.load(guard).is_some_and(|worker| worker.is_alive())
    }

    /// Puts a worker in place, or none, and returns the one that was there before.
    ///
    /// Nobody queues a work with that any more when this returns: flush it, so that those queued
    /// before are done.
    ///
    /// Context: sleeps if there was another one.
    pub(crate) fn replace(&self, worker: Option<Arc<Worker>>) -> Option<Arc<Worker>> {
        self.0.swap(worker)
    }

    /// Lets nobody find the worker any more, without waiting for those who did.
    ///
    /// Context: any; see [`RcuSlot::replace`].
    pub(crate) fn hide(&self) -> Retired<Worker> {
        self.0.replace(None)
    }

    /// Says whether this is the worker.
    pub(crate) fn is(&self, worker: &Arc<Worker>) -> bool {
        let guard = rcu::read_lock();
        self.0
            .load(&guard)
            .is_some_and(|now| core::ptr::eq(&*now, &**worker))
    }

    /// Returns the worker.
    pub(crate) fn get(&self) -> Option<Arc<Worker>> {
        self.0.get()
    }
}
