// SPDX-License-Identifier: GPL-2.0

//! The ioctls for the workers of a device.
//!
//! Everything here runs in a system call of the owner with the lock of the device held.

use crate::{
    device::{
        Device,
        State, //
    },
    uapi::{
        self,
        Arg,
        RingWorker,
        WorkerState, //
    },
    virtqueue::Virtqueue,
    worker::{
        Flavour,
        Worker, //
    },
    workers::NewWorker,
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

impl Device {
    /// # Errors
    ///
    /// - `EINVAL` if the device has no owner, `EPERM` if the caller is not the owner;
    /// - `EFAULT` if the argument cannot be accessed, or for a new worker of a device whose workers
    ///   are threads of the kernel: no limit of the owner would count those;
    /// - `ENOMEM` if there cannot be another thread;
    /// - `ENOBUFS` if there is no such queue, `ENODEV` if there is no such worker;
    /// - `EBUSY` if a worker is to be freed that is in use or was killed.
    #[doc(alias = "vhost_worker_ioctl")]
    pub(crate) fn worker_ioctl(
        &self,
        state: &mut State,
        cmd: u32,
        arg: Arg,
        device: NewWorker<'_>,
    ) -> Result {
        let mm = state.owner.as_ref().ok_or(EINVAL)?;
        if !mm.is_current() {
            return Err(EPERM);
        }
        match cmd {
            uapi::NEW_WORKER => {
                if state.flavour == Flavour::KernelThread {
                    return Err(EFAULT);
                }
                let worker = state.workers.create(state.flavour, device, mm)?.id();
                // Nobody would know its number.
                arg.write(&WorkerState { worker })
                    .inspect_err(|_| state.workers.remove(worker))
            }
            uapi::FREE_WORKER => self.free_worker(state, arg.read::<WorkerState>()?.worker),
            uapi::ATTACH_VRING_WORKER => {
                let (_, queue) = self.queue_of(arg)?;
                let id = arg.read::<RingWorker>()?.worker;
                attach(queue, state.workers.get(id)?);
                Ok(())
            }
            uapi::GET_VRING_WORKER => {
                let (index, queue) = self.queue_of(arg)?;
                let worker = queue.slot().get().filter(|worker| worker.is_alive());
                let worker = worker.ok_or(EINVAL)?.id();
                arg.write(&RingWorker { index, worker })
            }
            _ => Err(ENOIOCTLCMD),
        }
    }

    fn free_worker(&self, state: &mut State, id: u32) -> Result {
        let worker = state.workers.get(id)?;
        if !worker.is_alive() || self.queues.iter().any(|queue| queue.slot().is(worker)) {
            return Err(EBUSY);
        }
        // Everything was done when the last queue left it: see `attach()`.
        state.workers.remove(id);
        Ok(())
    }
}

/// Lets a worker work for a queue, from now on instead of the one before.
///
/// Nothing happens if the worker was killed, as in C.
///
/// Context: sleeps.
#[doc(alias = "__vhost_vq_attach_worker")]
fn attach(queue: &Virtqueue, worker: &Arc<Worker>) {
    if !worker.is_alive() || queue.slot().is(worker) {
        return;
    }
    if let Some(old) = queue.slot().replace(Some(worker.clone())) {
        // Whatever was queued with it for the queue, as nobody queues anything there any more.
        old.flush();
    }
    // If the old one was killed before it did all of that: the new one looks.
    if queue.is_running() {
        // If it was killed meanwhile, nobody does.
        let _ = queue.queue_work();
    }
}
