// SPDX-License-Identifier: GPL-2.0

//! Being called when user space, or KVM on behalf of a guest, signals an eventfd.
//!
//! C headers: [`include/linux/poll.h`](srctree/include/linux/poll.h),
//! [`include/linux/wait.h`](srctree/include/linux/wait.h).

use crate::{
    bindings,
    eventfd::EventFdFile,
    return_work::{
        OnReturn,
        ReturnWork, //
    }, //
};
use core::marker::PhantomPinned;
use kernel::{
    container_of,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        ArcBorrow, //
    },
    types::Opaque, //
};

/// What a [`KickPoll`] calls.
pub trait Kick: OnReturn {
    /// The eventfd was signalled.
    ///
    /// Context: interrupts are off, and the lock of the eventfd's wait queue is held; it may be a
    /// hard interrupt. This may queue work, give the current thread work for its way back to user
    /// space, wake tasks up, and nothing else.
    fn kick(this: ArcBorrow<'_, ReturnWork<Self>>);
}

/// A registration with the wait queue of an eventfd; dropping it ends it.
///
/// After the drop, [`Kick::kick`] is not running and will not be called again. What it had queued
/// may still be about to run: flush the worker before the object that it works on goes away. What
/// it gave to a thread is not waited for, and has a reference of its own.
///
/// # Invariants
///
/// - `wqh` is null or points to the wait queue of `file`; it is non-null iff `wait` is in that
///   queue.
/// - `file` holds a reference to the open file, hence keeps the wait queue alive.
#[pin_data(PinnedDrop)]
pub struct KickPoll<T: Kick> {
    #[pin]
    table: Opaque<bindings::poll_table_struct>,
    #[pin]
    wait: Opaque<bindings::wait_queue_entry>,
    /// Written by `queue_callback()` only, during `start()`.
    wqh: Atomic<*mut bindings::wait_queue_head>,
    target: Arc<ReturnWork<T>>,
    // Dropped after the body of `PinnedDrop::drop()`, which leaves the wait queue.
    file: EventFdFile,
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: The registration may be ended by another thread than the one that made it: the wait queue
// has a lock. `T` and the file are `Send + Sync`.
unsafe impl<T: Kick> Send for KickPoll<T> {}
// SAFETY: There is no method on `&KickPoll` that changes it.
unsafe impl<T: Kick> Sync for KickPoll<T> {}

impl<T: Kick> KickPoll<T> {
    /// Starts to call `target` whenever the eventfd is signalled, and at once if it is signalled
    /// already.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the counter of the eventfd overflowed, `ENOMEM`.
    pub fn start(file: EventFdFile, target: Arc<ReturnWork<T>>) -> Result<Pin<KBox<Self>>> {
        let this = KBox::pin_init(
            pin_init!(Self {
                table <- Opaque::ffi_init(|slot: *mut bindings::poll_table_struct| {
                    let table = bindings::poll_table_struct {
                        _qproc: Some(Self::queue_callback),
                        // All events.
                        _key: !0,
                    };
                    // SAFETY: `slot` is valid for writes.
                    unsafe { slot.write(table) };
                }),
                wait <- Opaque::ffi_init(|slot: *mut bindings::wait_queue_entry| {
                    let mut wait: bindings::wait_queue_entry = pin_init::zeroed();
                    wait.func = Some(Self::wake_callback);
                    // SAFETY: `slot` is valid for writes.
                    unsafe { slot.write(wait) };
                }),
                // INVARIANT: The entry is not in a queue.
                wqh: Atomic::new(core::ptr::null_mut()),
                target,
                file,
                _pin: PhantomPinned,
            }),
            GFP_KERNEL,
        )?;
        // SAFETY: The file is alive, and `table` is valid and pinned. The operation calls
        // `queue_callback()` with it, during the call only.
        let events = unsafe { bindings::vfs_poll(this.file.as_raw(), this.table.get()) };
        if events & bindings::POLLERR != 0 {
            // Dropping `this` leaves the queue.
            return Err(EINVAL);
        }
        if events & bindings::POLLIN != 0 {
            T::kick(this.target.as_arc_borrow());
        }
        Ok(this)
    }

    /// The file that is polled.
    pub fn file(&self) -> &EventFdFile {
        &self.file
    }

    /// # Safety
    ///
    /// Only called by `vfs_poll()` in [`Self::start`]: `table` is the field of a pinned
    /// [`KickPoll`], `wqh` a wait queue of its file.
    unsafe extern "C" fn queue_callback(
        _file: *mut bindings::file,
        wqh: *mut bindings::wait_queue_head,
        table: *mut bindings::poll_table_struct,
    ) {
        let table = Opaque::cast_from(table);
        // SAFETY: By the safety requirements, `table` is the field of a `KickPoll`.
        let this = unsafe { container_of!(table, Self, table) };
        // SAFETY: By the safety requirements, the object is alive; there are only shared references
        // to it after its initialization.
        let this = unsafe { &*this };
        if !this.wqh.load(Relaxed).is_null() {
            // An eventfd has one wait queue; the entry can be in one only.
            return;
        }
        // INVARIANT: The entry goes into the queue below. `drop()` cannot run before `start()`
        // returned.
        this.wqh.store(wqh, Relaxed);
        // SAFETY: The queue belongs to the file that is being polled, and is kept alive by the
        // reference in `file`. The entry is initialized, is in no queue, and is pinned until
        // `drop()` took it out.
        unsafe { bindings::add_wait_queue(wqh, this.wait.get()) };
    }

    /// # Safety
    ///
    /// Only called by a wait queue that `wait` of a [`KickPoll`] is in, with the lock of the queue
    /// held.
    unsafe extern "C" fn wake_callback(
        wait: *mut bindings::wait_queue_entry,
        _mode: c_uint,
        _flags: c_int,
        key: *mut c_void,
    ) -> c_int {
        // The events are the key: see `key_to_poll()`.
        if key.addr() & bindings::POLLIN as usize == 0 {
            return 0;
        }
        let wait = Opaque::cast_from(wait);
        // SAFETY: By the safety requirements, `wait` is the field of a `KickPoll`.
        let this = unsafe { container_of!(wait, Self, wait) };
        // SAFETY: The object is alive: its drop takes the lock of the queue, which the caller
        // holds, to leave the queue first.
        let target = unsafe { &(*this).target };
        T::kick(target.as_arc_borrow());
        // Not an exclusive waiter.
        0
    }
}

#[pinned_drop]
impl<T: Kick> PinnedDrop for KickPoll<T> {
    fn drop(self: Pin<&mut Self>) {
        let wqh = self.wqh.load(Relaxed);
        if !wqh.is_null() {
            // SAFETY: By the type invariants, the entry is in this queue, which is alive since
            // `file` is. Afterwards no callback runs: they are called under the lock of the queue.
            unsafe { bindings::remove_wait_queue(wqh, self.wait.get()) };
        }
    }
}
