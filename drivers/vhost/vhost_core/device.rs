// SPDX-License-Identifier: GPL-2.0

//! What all vhost devices have in common: an owner, memory, queues, a worker; and the ioctls for
//! them.

use crate::{
    memory::MemTable,
    uapi::{
        self,
        Arg, //
    },
    virtqueue::Virtqueue,
    worker::{
        Worker,
        WorkerSlot,
        Works, //
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
};

/// Messages of the IOTLB have the second format. C offers it to all, and user space asks for it
/// without having an IOTLB; it has no effect then.
#[doc(alias = "VHOST_BACKEND_F_IOTLB_MSG_V2")]
const BACKEND_FEATURES: u64 = 1 << 1;

/// What the lock of a device protects.
#[derive(Default)]
pub(crate) struct State {
    /// From [`SET_OWNER`](uapi::SET_OWNER) until the device is closed; there is a worker as well.
    owner: Option<OwnerMm>,
    memory: Option<Arc<MemTable>>,
    backend_features: u64,
    /// To be signalled when something is logged, which does not happen yet.
    log: Option<EventFd>,
}

impl State {
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
    /// Where the queues find the worker.
    worker: Arc<WorkerSlot>,
    #[pin]
    state: Mutex<State>,
}

impl Device {
    /// Creates a device that offers some features and has some queues, which find their worker in
    /// `worker`.
    pub fn new(
        offered: u64,
        worker: Arc<WorkerSlot>,
        queues: KVec<Arc<Virtqueue>>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            offered,
            features: Atomic::new(0),
            queues,
            worker,
            state <- new_mutex!(State::default(), "vhost_core::Device::state"),
        })
    }

    /// The features that user space chose.
    #[inline]
    pub fn features(&self) -> u64 {
        self.features.load(Relaxed)
    }

    /// Says whether the device can do its work: it has an owner, whose worker is alive.
    #[inline]
    pub fn has_worker(&self) -> bool {
        self.worker.is_alive()
    }

    /// The number of the worker's thread, if there is one.
    pub fn worker_pid(&self) -> Option<i32> {
        self.worker
            .get()
            .filter(|worker| worker.is_alive())
            .map(|worker| worker.pid())
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
    pub fn ioctl(&self, cmd: u32, arg: Arg, works: &dyn Fn() -> Arc<dyn Works>) -> Result {
        match cmd {
            uapi::GET_FEATURES => arg.write(&self.offered),
            uapi::SET_FEATURES => self.set_features(arg.read()?),
            uapi::GET_BACKEND_FEATURES => arg.write(&BACKEND_FEATURES),
            uapi::SET_BACKEND_FEATURES => self.set_backend_features(arg.read()?),
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

    fn owner_ioctl(
        &self,
        state: &mut State,
        cmd: u32,
        arg: Arg,
        works: &dyn Fn() -> Arc<dyn Works>,
    ) -> Result {
        match cmd {
            uapi::SET_OWNER => return self.set_owner(state, works),
            uapi::SET_FORK_FROM_OWNER => return Self::set_fork_from_owner(state, arg),
            uapi::GET_FORK_FROM_OWNER => return arg.write(&uapi::FORK_OWNER_TASK),
            _ => (),
        }
        // Everything else is for the owner, even what does not exist.
        state.owner()?;
        match cmd {
            uapi::SET_MEM_TABLE => self.set_memory(state, arg),
            uapi::SET_LOG_BASE => Self::set_log_base(arg),
            uapi::SET_LOG_FD => Self::set_log_fd(state, arg),
            _ => Err(ENOIOCTLCMD),
        }
    }

    #[doc(alias = "vhost_dev_set_owner")]
    fn set_owner(&self, state: &mut State, works: &dyn Fn() -> Arc<dyn Works>) -> Result {
        if state.owner.is_some() {
            return Err(EBUSY);
        }
        let mm = OwnerMm::of_current().ok_or(EINVAL)?;
        for queue in &self.queues {
            queue.make_room()?;
        }
        let worker = Arc::new(Worker::new(works())?, GFP_KERNEL_ACCOUNT)?;
        self.worker.attach(worker);
        state.owner = Some(mm);
        Ok(())
    }

    fn set_fork_from_owner(state: &State, arg: Arg) -> Result {
        if state.owner.is_some() {
            return Err(EBUSY);
        }
        match arg.read()? {
            uapi::FORK_OWNER_TASK => Ok(()),
            // Workers that are kernel threads are not offered.
            uapi::FORK_OWNER_KTHREAD => Err(EOPNOTSUPP),
            _ => Err(EINVAL),
        }
    }

    fn set_memory(&self, state: &mut State, arg: Arg) -> Result {
        let memory = MemTable::from_user(arg, crate::max_mem_regions())?;
        if !self
            .queues
            .iter()
            .all(|queue| queue.accepts_memory(&memory))
        {
            return Err(EFAULT);
        }
        for queue in &self.queues {
            queue.set_memory(&memory);
        }
        state.memory = Some(memory);
        Ok(())
    }

    /// Accepted from anybody who has the right to, as in C; without `VHOST_F_LOG_ALL`, which is not
    /// offered, nothing is logged.
    fn set_log_base(arg: Arg) -> Result {
        OwnerAddr::from_u64(arg.read()?).map(|_| ()).ok_or(EFAULT)
    }

    fn set_log_fd(state: &mut State, arg: Arg) -> Result {
        state.log = match arg.read()? {
            uapi::UNBIND => None,
            fd => Some(EventFd::from_fd(fd)?),
        };
        Ok(())
    }

    fn set_features(&self, features: u64) -> Result {
        if features & !self.offered != 0 {
            return Err(EOPNOTSUPP);
        }
        let _state = self.state.lock();
        self.features.store(features, Relaxed);
        for queue in &self.queues {
            queue.set_features(features);
        }
        self.queue_all();
        Ok(())
    }

    fn set_backend_features(&self, features: u64) -> Result {
        if features & !BACKEND_FEATURES != 0 {
            return Err(EOPNOTSUPP);
        }
        self.state.lock().backend_features = features;
        Ok(())
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
        let start = |mm: &InOwnerMm| {
            self.queues
                .iter()
                .try_for_each(|queue| queue.start(memory, mm))
        };
        let ret = state.owner()?.enter(start).and_then(|ret| ret);
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

    /// Waits until everything that was queued before is done.
    ///
    /// Context: sleeps; not from a work.
    pub fn flush(&self) {
        if let Some(worker) = self.worker.get() {
            worker.flush();
        }
    }

    /// Stops the device for good, whoever the caller is: the file was closed.
    ///
    /// When this returns there is no worker, no kick, and no reference to the device by either.
    ///
    /// Context: sleeps.
    pub fn release(&self) {
        self.stop_queues();
        for queue in &self.queues {
            // Taking it away does not fail.
            let _ = queue.set_kick(None);
        }
        // Nobody queues a work now but those who found the device before it was hidden.
        self.flush();
        // This joins the worker, which nobody else has a reference to: the file is closed.
        self.worker.detach();
        // The owner's memory goes away after the worker.
        let state = core::mem::take(&mut *self.state.lock());
        drop(state);
    }
}
