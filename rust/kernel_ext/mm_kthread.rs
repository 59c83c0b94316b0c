// SPDX-License-Identifier: GPL-2.0

//! Worker threads of the kernel that borrow the address space of a process.
//!
//! In contrast to a [`VhostTask`](crate::vhost_task::VhostTask), such a thread does not belong to
//! the process: it is not seen there, does not count against its limits on processes, is not killed
//! with it, and goes on when the process is gone. It is in the control groups of the process,
//! though.
//!
//! C headers: [`include/linux/kthread.h`](srctree/include/linux/kthread.h),
//! [`include/linux/cgroup.h`](srctree/include/linux/cgroup.h).

use crate::{
    bindings,
    owner_mm::{
        InOwnerMm,
        OwnerMm, //
    },
    vhost_task::Worker,
};
use core::ptr::NonNull;
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Completion, //
    },
    task::Task, //
};

/// What the thread needs.
#[pin_data]
struct Job<W: Worker> {
    worker: Arc<W>,
    /// The address space that it works in.
    mm: OwnerMm,
    /// Whose control groups it enters.
    creator: ARef<Task>,
    /// What became of that.
    entered: Atomic<i32>,
    #[pin]
    ready: Completion,
}

/// A worker thread; dropping it stops and joins the thread, thus sleeps.
///
/// It must not be dropped by the thread itself. [`Worker::killed`] is never called.
///
/// # Invariants
///
/// `task` was made by `kthread_create_on_node()` with a pointer to `job`, was woken up, and was not
/// stopped: it does not end before.
pub struct MmKthread<W: Worker> {
    task: NonNull<bindings::task_struct>,
    job: Arc<Job<W>>,
}

// SAFETY: A thread may be woken up and stopped by any other one; `Job` is `Send + Sync`: what is in
// it is counted, or atomic, or has a lock.
unsafe impl<W: Worker> Send for MmKthread<W> {}
// SAFETY: The only operation on `&MmKthread` is to wake it up, which may be done concurrently.
unsafe impl<W: Worker> Sync for MmKthread<W> {}

impl<W: Worker> MmKthread<W> {
    /// Creates and starts a thread that works in `mm`, in the control groups of the current task.
    ///
    /// # Errors
    ///
    /// What creating a thread, or moving it to a control group, may fail with.
    pub fn spawn(worker: Arc<W>, mm: &OwnerMm, name: &CStr) -> Result<Self> {
        let job = Arc::pin_init(
            pin_init!(Job {
                worker,
                mm: mm.clone(),
                creator: ARef::from(&**current!()),
                entered: Atomic::new(0),
                ready <- Completion::new(),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        let data = Arc::as_ptr(&job).cast_mut().cast();
        // SAFETY: The callback matches `data`, which stays valid until `Drop` stopped the thread:
        // `job` goes into the same object. `name` is copied.
        let task = from_err_ptr(unsafe {
            bindings::kthread_create_named(Some(Self::thread_callback), data, name.as_char_ptr())
        })?;
        let task = NonNull::new(task).ok_or(ENOMEM)?;
        // SAFETY: The thread was just created; it does not end before it is stopped.
        unsafe { bindings::wake_up_process(task.as_ptr()) };
        // INVARIANT: The thread was created for `job` and woken up.
        let this = Self { task, job };
        this.job.ready.wait_for_completion();
        // Dropping `this` stops the thread.
        to_result(this.job.entered.load(Relaxed))?;
        Ok(this)
    }

    /// Returns the worker.
    #[inline]
    pub fn worker(&self) -> &W {
        &self.job.worker
    }

    /// Wakes the thread up, so that it looks for work.
    ///
    /// Context: any.
    #[inline]
    pub fn wake(&self) {
        // SAFETY: By the type invariants, the thread was not stopped, hence did not end.
        unsafe { bindings::wake_up_process(self.task.as_ptr()) };
    }

    /// # Safety
    ///
    /// Only called as the thread made in [`Self::spawn`], with the pointer that was given there.
    unsafe extern "C" fn thread_callback(data: *mut c_void) -> c_int {
        // SAFETY: By the safety requirements, `data` points to the `Job` of an `MmKthread`, which
        // by its type invariants is alive until the thread is stopped and joined.
        let job = unsafe { &*data.cast::<Job<W>>() };
        // The thread does this by itself: its creator may lack the right to move a thread of root.
        //
        // SAFETY: Both tasks are alive; the creator is waiting.
        let entered =
            unsafe { bindings::cgroup_attach_all(job.creator.as_ptr(), Task::current_raw()) };
        job.entered.store(entered, Relaxed);
        job.ready.complete_all();

        // SAFETY: This is a thread of the kernel without an address space, and `mm` has a reference
        // for longer than the thread lives.
        unsafe { bindings::kthread_use_mm(job.mm.as_raw()) };
        loop {
            // With a barrier, which pairs with those in `kthread_stop()` and `wake_up_process()`:
            // whoever stops the thread or adds work after the checks that follow makes it runnable
            // again, and `schedule()` returns at once.
            //
            // SAFETY: Sets the state of the current task, which is about to sleep or to be reset.
            unsafe { bindings::set_task_interruptible() };
            // SAFETY: The current task is a thread of the kernel.
            if unsafe { bindings::kthread_should_stop() } {
                break;
            }
            if !job.worker.has_work() {
                // SAFETY: The thread holds no lock.
                unsafe { bindings::schedule() };
                continue;
            }
            // SAFETY: Sets the state of the current task to what it is while it runs.
            unsafe { bindings::set_task_running() };
            // The thread entered the address space above, and leaves it below.
            job.worker.run(&InOwnerMm::new());
        }
        // SAFETY: As above.
        unsafe { bindings::set_task_running() };
        // SAFETY: The thread is in that address space since above.
        unsafe { bindings::kthread_unuse_mm(job.mm.as_raw()) };
        0
    }
}

impl<W: Worker> Drop for MmKthread<W> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the thread was not stopped. This waits for its end, so
        // that `job` may be released after it.
        unsafe { bindings::kthread_stop(self.task.as_ptr()) };
    }
}
