// SPDX-License-Identifier: GPL-2.0

//! Worker threads that share the address space of the task that creates them.
//!
//! Such a thread belongs to the process of its creator: it appears in `ps -T` there, and its time
//! and memory count against the limits and the control group of that process. It dies with the
//! process, which may be before the device that it works for is closed; a [`Worker`] is told so.
//!
//! C header: [`include/linux/sched/vhost_task.h`](srctree/include/linux/sched/vhost_task.h).

use crate::{
    bindings,
    owner_mm::InOwnerMm, //
};
use core::ptr::NonNull;
use kernel::{
    error::from_err_ptr,
    prelude::*,
    sync::Arc, //
};

/// What a [`VhostTask`] does.
pub trait Worker: Send + Sync + 'static {
    /// Says whether there is something to do for [`run`](Self::run).
    ///
    /// Whoever gives the worker something to do makes this return `true` first, and calls
    /// [`VhostTask::wake`] then.
    ///
    /// Context: called with the thread ready to sleep (`TASK_INTERRUPTIBLE`), hence this must not
    /// sleep itself.
    fn has_work(&self) -> bool;

    /// Does what there is to do. May sleep.
    fn run(&self, mm: &InOwnerMm);

    /// Called once by the thread, instead of any further [`run`](Self::run), if a signal kills it.
    ///
    /// Nobody waits for the thread with [`VhostTask`]'s drop before this returns. May sleep, but
    /// must not wait for what waits for the worker.
    fn killed(&self);
}

/// A worker thread; dropping it stops and joins the thread, thus sleeps.
///
/// It must not be dropped by the thread itself, which would wait for its own end: a worker may not
/// hold the last reference to what owns its `VhostTask`.
///
/// # Invariants
///
/// `task` was made by `vhost_task_create()` with a pointer to `worker`, was started, and was not
/// stopped.
pub struct VhostTask<W: Worker> {
    task: NonNull<bindings::vhost_task>,
    worker: Arc<W>,
}

// SAFETY: A `vhost_task` may be woken up and stopped by any thread; `Arc<W>` is `Send`.
unsafe impl<W: Worker> Send for VhostTask<W> {}
// SAFETY: The only operation on `&VhostTask` is to wake it up, which may be done concurrently.
unsafe impl<W: Worker> Sync for VhostTask<W> {}

impl<W: Worker> VhostTask<W> {
    /// Creates and starts a thread of the current process.
    ///
    /// # Errors
    ///
    /// What creating a thread may fail with, for example `EAGAIN` for the limit on their number.
    pub fn spawn(worker: Arc<W>, name: &CStr) -> Result<Self> {
        let data = Arc::as_ptr(&worker).cast_mut().cast();
        // SAFETY: The callbacks match `data`, which stays valid until `Drop` stopped the thread:
        // `worker` goes into the same object. `name` is copied.
        let task = from_err_ptr(unsafe {
            bindings::vhost_task_create(
                Some(Self::run_callback),
                Some(Self::killed_callback),
                data,
                name.as_char_ptr(),
            )
        })?;
        let task = NonNull::new(task).ok_or(ENOMEM)?;
        // SAFETY: The task was just created, and is started only here.
        unsafe { bindings::vhost_task_start(task.as_ptr()) };

        // INVARIANT: The task was created for `worker` and started above.
        Ok(Self { task, worker })
    }

    /// Returns the worker.
    #[inline]
    pub fn worker(&self) -> &W {
        &self.worker
    }

    /// Wakes the thread up, so that it looks for work.
    ///
    /// Context: any.
    #[inline]
    pub fn wake(&self) {
        // SAFETY: By the type invariants, the task was not stopped, hence is not freed. It may have
        // been killed: the structure keeps a reference to the `task_struct`.
        unsafe { bindings::vhost_task_wake(self.task.as_ptr()) };
    }

    /// # Safety
    ///
    /// Only called by a thread made in [`Self::spawn`], with the pointer that was given there.
    unsafe extern "C" fn run_callback(data: *mut c_void) -> bool {
        // SAFETY: By the safety requirements, `data` points to the `W` of a `VhostTask`, which by
        // its type invariants is alive until the thread is stopped and joined.
        let worker = unsafe { &*data.cast::<W>() };
        // The thread set its state to `TASK_INTERRUPTIBLE` before it called us, so whoever adds
        // work after this check makes it runnable again by `wake()`, and the `schedule()` that
        // follows a return of `false` returns at once.
        if !worker.has_work() {
            return false;
        }
        // SAFETY: Sets the state of the current task to what it is while it runs.
        unsafe { bindings::set_task_running() };
        // The thread was created with `CLONE_VM` by a task of the owner, and never changes its
        // address space.
        worker.run(&InOwnerMm::new());
        true
    }

    /// # Safety
    ///
    /// Only called by a thread made in [`Self::spawn`], with the pointer that was given there.
    unsafe extern "C" fn killed_callback(data: *mut c_void) {
        // SAFETY: As in `run_callback()`.
        let worker = unsafe { &*data.cast::<W>() };
        worker.killed();
    }
}

impl<W: Worker> Drop for VhostTask<W> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the task was started and not stopped. It waits for the
        // end of the thread, so that `worker` may be released after it.
        unsafe { bindings::vhost_task_stop(self.task.as_ptr()) };
    }
}
