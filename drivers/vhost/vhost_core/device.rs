// SPDX-License-Identifier: GPL-2.0

//! What all vhost devices have in common: an owner, memory, queues, a worker; and the ioctls for
//! them.

use crate::{
    feature,
    memory::{
        MemTable,
        OwnerIotlb, //
    },
    message::Messages,
    uapi::{
        self,
        Arg, //
    },
    virtqueue::Virtqueue,
    worker::Flavour,
    workers::{
        NewWorker,
        Workers, //
    },
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    }, //
};
use kernel_ext::{
    eventfd::EventFd,
    owner_mm::{
        InOwnerMm,
        OwnerAddr,
        OwnerMm, //
    },
    peek::Peek,
    rcu::{
        wait_for_readers,
        Retire, //
    },
};
use vring::{
    iotlb::Mapping,
    Gpa,
    UserAddr, //
};

/// Messages of the IOTLB have the second format.
#[doc(alias = "VHOST_BACKEND_F_IOTLB_MSG_V2")]
const BACKEND_FEATURES: u64 = 1 << 1;

/// What the lock of a device protects.
pub(crate) struct State {
    /// Dropped before the owner's memory: see [`Device::release`].
    pub(crate) workers: Workers,
    /// What the workers are to be.
    pub(crate) flavour: Flavour,
    /// From [`SET_OWNER`](uapi::SET_OWNER) until the device is closed; there is a worker as well.
    pub(crate) owner: Option<OwnerMm>,
    memory: Option<Arc<MemTable>>,
}

impl State {
    fn new() -> Self {
        Self {
            workers: Workers::new(),
            flavour: if crate::params::fork_from_owner_default() {
                Flavour::OwnerTask
            } else {
                Flavour::KernelThread
            },
            owner: None,
            memory: None,
        }
    }

    /// # Errors
    ///
    /// `EPERM` if the current process is not the owner.
    #[doc(alias = "vhost_dev_check_owner")]
    fn owner(&self) -> Result<&OwnerMm> {
        self.owner
            .as_ref()
            .filter(|mm| mm.is_current())
            .ok_or(EPERM)
    }
}

/// The common part of a vhost device.
///
/// A device embeds it, passes ioctls to it, and calls [`release`](Self::release) when its file is
/// closed: the worker has a reference to the device, so that neither is freed before.
///
/// # Lock order
///
/// The lock of the device, those of its queues in the order of their number (see [`Virtqueue`]),
/// that of the worker for flushes. Ioctls wait for the worker with the lock of the device held,
/// hence no work takes it.
#[doc(alias = "vhost_dev")]
#[pin_data]
pub struct Device {
    /// Features that the device offers.
    offered: u64,
    /// Features that user space chose. Written with the lock held.
    features: Atomic<u64>,
    pub(crate) queues: KVec<Arc<Virtqueue>>,
    /// What the queues ask user space.
    pub(crate) messages: Arc<Messages>,
    #[pin]
    state: Mutex<State>,
}

impl Device {
    /// Creates a device that offers some features and has some queues, in the order in which they
    /// were created for `messages`.
    pub fn new(
        offered: u64,
        messages: Arc<Messages>,
        queues: KVec<Arc<Virtqueue>>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            offered,
            features: Atomic::new(0),
            queues,
            messages,
            state <- new_mutex!(State::new(), "vhost_core::Device::state"),
        })
    }

    /// The features that user space chose.
    #[inline]
    pub fn features(&self) -> u64 {
        self.features.peek()
    }

    /// The questions of the queues, for readers of the file.
    pub fn messages(&self) -> &Messages {
        &self.messages
    }

    /// Handles an ioctl that all devices have.
    ///
    /// `works` returns the device itself, for a worker that is about to be created.
    ///
    /// # Errors
    ///
    /// `ENOIOCTLCMD` if it is no such ioctl, `EPERM` if the caller has to be the owner and is not,
    /// `EFAULT` if the argument cannot be accessed; what else is up to the ioctl.
    #[doc(alias = "vhost_dev_ioctl")]
    pub fn ioctl(&self, cmd: u32, arg: Arg, works: NewWorker<'_>) -> Result {
        match cmd {
            uapi::GET_FEATURES => arg.write(&self.offered),
            uapi::SET_FEATURES => self.set_features(arg.read()?),
            uapi::GET_BACKEND_FEATURES => arg.write(&BACKEND_FEATURES),
            uapi::SET_BACKEND_FEATURES => self.set_backend_features(arg.read()?),
            uapi::NEW_WORKER
            | uapi::FREE_WORKER
            | uapi::ATTACH_VRING_WORKER
            | uapi::GET_VRING_WORKER => self.worker_ioctl(&mut self.state.lock(), cmd, arg, works),
            _ => {
                let mut state = self.state.lock();
                match self.owner_ioctl(&mut state, cmd, arg, works) {
                    Err(err) if err == ENOIOCTLCMD => self.ring_ioctl(cmd, arg),
                    ret => {
                        // What the worker did before has an end when the ioctl returns.
                        self.flush();
                        ret
                    }
                }
            }
        }
    }

    fn owner_ioctl(&self, state: &mut State, cmd: u32, arg: Arg, works: NewWorker<'_>) -> Result {
        match cmd {
            uapi::SET_OWNER => return self.set_owner(state, works),
            uapi::SET_FORK_FROM_OWNER => return Self::set_fork_from_owner(state, arg),
            uapi::GET_FORK_FROM_OWNER => return Self::fork_from_owner(state, arg),
            _ => (),
        }
        // Everything else is for the owner, even what does not exist.
        state.owner()?;
        match cmd {
            uapi::SET_MEM_TABLE => self.set_memory(state, arg),
            uapi::SET_LOG_BASE => self.set_log_base(arg),
            uapi::SET_LOG_FD => self.set_log_fd(arg),
            _ => Err(ENOIOCTLCMD),
        }
    }

    #[doc(alias = "vhost_dev_set_owner")]
    fn set_owner(&self, state: &mut State, works: NewWorker<'_>) -> Result {
        if state.owner.is_some() {
            return Err(EBUSY);
        }
        let mm = OwnerMm::of_current().ok_or(EINVAL)?;
        let worker = state.workers.create(state.flavour, works, &mm)?;
        for queue in &self.queues {
            // Nobody was there before.
            drop(queue.slot().replace(Some(worker.clone())));
            queue.kick_work().set_owner(&mm);
        }
        state.owner = Some(mm);
        Ok(())
    }

    fn set_fork_from_owner(state: &mut State, arg: Arg) -> Result {
        if state.owner.is_some() {
            return Err(EBUSY);
        }
        state.flavour = match arg.read()? {
            uapi::FORK_OWNER_TASK => Flavour::OwnerTask,
            uapi::FORK_OWNER_KTHREAD => Flavour::KernelThread,
            _ => return Err(EINVAL),
        };
        Ok(())
    }

    fn fork_from_owner(state: &State, arg: Arg) -> Result {
        arg.write(&match state.flavour {
            Flavour::OwnerTask => uapi::FORK_OWNER_TASK,
            Flavour::KernelThread => uapi::FORK_OWNER_KTHREAD,
        })
    }

    fn set_memory(&self, state: &mut State, arg: Arg) -> Result {
        let memory = MemTable::from_user(arg)?;
        if !self
            .queues
            .iter()
            .all(|queue| queue.accepts_memory(&memory))
        {
            return Err(EFAULT);
        }
        let owner = state.owner.as_ref().ok_or(EPERM)?;
        for queue in &self.queues {
            queue.lock_inner().set_memory(&memory, owner);
        }
        state.memory = Some(memory);
        Ok(())
    }

    /// # Errors
    ///
    /// `EFAULT` if a queue runs that could not log there; the others can, as in C.
    fn set_log_base(&self, arg: Arg) -> Result {
        let base = OwnerAddr::from_u64(arg.read()?).ok_or(EFAULT)?;
        // CAST: From the size of an address to 64 bits.
        let base = UserAddr(base.get() as u64);
        let mut ret = Ok(());
        for queue in &self.queues {
            ret = ret.and(queue.set_log_base(base));
        }
        ret
    }

    fn set_log_fd(&self, arg: Arg) -> Result {
        let fd = match arg.read()? {
            uapi::UNBIND => None,
            fd => Some(Arc::new(EventFd::from_fd(fd)?, GFP_KERNEL_ACCOUNT)?),
        };
        for queue in &self.queues {
            let mut new = fd.clone();
            core::mem::swap(&mut queue.lock_inner().log.fd, &mut new);
        }
        Ok(())
    }

    /// # Errors
    ///
    /// `EOPNOTSUPP` for what is not offered, `EFAULT` if a queue runs that could not log what it
    /// writes, or if there cannot be an IOTLB.
    fn set_features(&self, features: u64) -> Result {
        if features & !self.offered != 0 {
            return Err(EOPNOTSUPP);
        }
        let _state = self.state.lock();
        let could_log = |queue: &Arc<Virtqueue>| queue.lock_inner().could_log_all();
        if features & feature::LOG_ALL != 0 && !self.queues.iter().all(could_log) {
            return Err(EFAULT);
        }
        let limit = if features & feature::ACCESS_PLATFORM != 0 {
            let limit = crate::params::max_iotlb_entries().ok_or(EFAULT)?;
            Some(u32::try_from(limit).unwrap_or(u32::MAX))
        } else {
            None
        };

        self.features.store(features, Relaxed);
        if limit.is_some() {
            // Before a queue can ask.
            self.messages.set_open(true);
        }
        for queue in &self.queues {
            // An IOTLB that was there before is replaced by an empty one.
            let iotlb = limit.and_then(|limit| OwnerIotlb::new(limit, KVVec::new()));
            queue.lock_inner().set_features(features, iotlb);
        }
        if limit.is_none() {
            self.messages.set_open(false);
        }
        self.queue_all();
        Ok(())
    }

    fn set_backend_features(&self, features: u64) -> Result {
        if features & !BACKEND_FEATURES != 0 {
            return Err(EOPNOTSUPP);
        }
        let _state = self.state.lock();
        self.messages.set_version(features & BACKEND_FEATURES != 0);
        Ok(())
    }

    /// Adds a translation for all queues, or for none.
    ///
    /// # Errors
    ///
    /// `EFAULT` if there is no IOTLB, `ENOMEM`.
    pub(crate) fn update_iotlb(&self, map: Mapping) -> Result {
        let _state = self.state.lock();
        for queue in &self.queues {
            queue.lock_inner().reserve_translation()?;
        }
        // Nobody else adds one meanwhile: the device is locked.
        self.queues
            .iter()
            .try_for_each(|queue| queue.lock_inner().add_translation(map))
    }

    /// Removes all translations that have an address in a range. When this returns, nobody uses
    /// them any more: whoever did held the lock of a queue.
    ///
    /// # Errors
    ///
    /// `EFAULT` if there is no IOTLB.
    pub(crate) fn invalidate_iotlb(&self, start: Gpa, last: Gpa) -> Result {
        let _state = self.state.lock();
        self.queues
            .iter()
            .try_for_each(|queue| queue.lock_inner().remove_translations(start, last))
    }

    /// Queues the work of all queues that run: something changed that nobody kicks for.
    pub(crate) fn queue_all(&self) {
        for queue in &self.queues {
            if queue.is_running() {
                // Without a worker there is nothing to be done.
                let _ = queue.queue_work();
            }
        }
    }

    /// Starts all queues.
    ///
    /// # Errors
    ///
    /// `EPERM` if the caller is not the owner, `EFAULT` if a ring or the memory is not known or
    /// cannot be accessed; all queues are stopped then.
    pub fn start(&self) -> Result {
        let state = self.state.lock();
        let memory = state.memory.as_ref();
        let owner = state.owner()?;
        let start = |mm: &InOwnerMm| {
            self.queues
                .iter()
                .try_for_each(|queue| queue.start(memory, owner, mm))
        };
        let ret = owner.enter(start).and_then(|ret| ret);
        match ret {
            // The driver, or the device, may have put something there before.
            Ok(()) => self.queue_all(),
            Err(_) => self.stop_queues(),
        }
        ret
    }

    /// Stops all queues: they are not worked on any more when this returns.
    ///
    /// # Errors
    ///
    /// `EPERM` if the caller is not the owner.
    pub fn stop(&self) -> Result {
        let state = self.state.lock();
        state.owner()?;
        self.stop_queues();
        Ok(())
    }

    fn stop_queues(&self) {
        for queue in &self.queues {
            queue.stop();
        }
    }

    /// Waits until everything that was queued for the queues before is done.
    ///
    /// Context: sleeps; not from a work.
    #[doc(alias = "vhost_dev_flush")]
    pub fn flush(&self) {
        for (index, queue) in self.queues.iter().enumerate() {
            let Some(worker) = queue.slot().get() else {
                continue;
            };
            // Queues mostly have the same worker, and one flush is enough.
            let before = self.queues.get(..index).unwrap_or_default();
            if before.iter().all(|queue| !queue.slot().is(&worker)) {
                worker.flush();
            }
        }
    }

    /// Stops the device for good, whoever the caller is: the file was closed.
    ///
    /// When this returns there is no worker, no kick, and no reference to the device by either.
    /// Works that were still queued may not be done: their queues were stopped, so that there is
    /// nothing for them to do.
    ///
    /// `hidden` is what others found the device by. The grace period that the slots of the queues
    /// need is its, too: nobody uses the device because of it when this returns, and it is dropped.
    ///
    /// Context: sleeps.
    pub fn release(&self, hidden: impl Retire) {
        self.stop_queues();
        for queue in &self.queues {
            // Taking it away does not fail. No kick is under way when it returns.
            let _: (bool, Result) = queue.set_kick(None);
        }
        // Now those are left who found a worker in a slot, and may be about to wake it up: it ends
        // after them. One that there is no room for is waited for on its own.
        let mut workers = KVec::with_capacity(self.queues.len(), GFP_KERNEL).unwrap_or_default();
        for queue in &self.queues {
            drop(workers.push_within_capacity(queue.slot().hide()));
        }
        let mut all = (workers, hidden);
        wait_for_readers(&mut all);
        drop(all);
        let state = core::mem::replace(&mut *self.state.lock(), State::new());
        // This joins the workers, which nobody else has a reference to since the file is closed,
        // and gives back the owner's memory then.
        drop(state);
    }
}
