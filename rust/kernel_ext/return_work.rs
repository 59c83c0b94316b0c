// SPDX-License-Identifier: GPL-2.0

//! Work that a thread of user space does for us before it goes back there.
//!
//! Who notices something with interrupts off and a lock of somebody else held can do nothing about
//! it there, but if it is in a system call of a thread, the thread can, a moment later: when it is
//! about to return to user space, or to let its guest go on, it has no lock, may sleep, and is in
//! its own address space. This saves a worker, its wake-up, and two switches.
//!
//! # Ownership
//!
//! A [`ReturnWork`] is counted. While a thread has it to do, that is one of the references, so that
//! nobody waits for a thread: what the work belongs to may be closed, from within the same list of
//! things to do, too, where waiting would be for ever. The thread always comes to it: at the latest
//! when it ends, whatever ends it (a signal, `exec` by another thread). There is no way to take it
//! back, and none is needed: a work finds out itself that there is nothing left to do.
//!
//! # The module
//!
//! Each work keeps the module whose [`Home`] it was made with, so that its code is there. The last
//! reference may be that of a thread, and then the module can go as soon as it is given up, with
//! the thread still in the last instructions. Thus the end of the module waits until each task that
//! was preempted has left them: this is the drop of [`Home`].
//!
//! # Order
//!
//! A work is with one thread at a time, and [`ReturnWork::hand_to_current`] says if that is another
//! one. It is free again *before* it is done: what is handed over while it is being done is done
//! again, maybe by another thread at the same time. Both ends of this are full barriers. Thus who
//! makes something to do, and then hands the work over and is not told that another thread has it,
//! can rely on it that a thread looks after that.
//!
//! C header: [`include/linux/task_work.h`](srctree/include/linux/task_work.h).

use crate::bindings;
use core::{
    marker::PhantomPinned,
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    container_of,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Release, //
        },
        Arc,
        ArcBorrow, //
    },
    types::Opaque, //
};

/// What a [`ReturnWork`] does.
pub trait OnReturn: Send + Sync + Sized + 'static {
    /// Does the work.
    ///
    /// Context: process context, without any lock, in a thread of user space that has just left a
    /// system call or its guest; or in one that ends, which has no address space any more. May
    /// sleep, but holds that thread up: what user space could hold up is for somebody else.
    fn on_return(this: &ReturnWork<Self>);
}

/// Who has a work to do, after somebody tried to give it to the current thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handed {
    /// The current thread, now or already.
    Current,
    /// Another thread.
    Other,
    /// Nobody: the current thread is about to end.
    Nobody,
}

/// A work for the thread that happens to be there.
///
/// # Invariants
///
/// - `head` is in the list of a thread, or taken out of it and not begun, iff `holder` is not null
///   or about to be set so by [`Self::hand_to_current`]. That list owns a reference.
/// - `holder` is null or that thread, which is alive then.
#[pin_data]
pub struct ReturnWork<T: OnReturn> {
    #[pin]
    head: Opaque<bindings::callback_head>,
    holder: Atomic<*mut bindings::task_struct>,
    target: T,
    #[pin]
    _pin: PhantomPinned,
    // Dropped last.
    _module: ModuleRef,
}

// SAFETY: The work may be dropped by any thread: it is in no list then. `T` is `Send`.
unsafe impl<T: OnReturn> Send for ReturnWork<T> {}
// SAFETY: What is shared is atomic, or `T`, which is `Sync`; `head` belongs to whoever made
// `holder` other than null.
unsafe impl<T: OnReturn> Sync for ReturnWork<T> {}

impl<T: OnReturn> ReturnWork<T> {
    /// Creates a work, whose code is in the module of `home` or in one that it needs.
    ///
    /// # Errors
    ///
    /// `ENODEV` if that module is not up, `ENOMEM`.
    pub fn new(home: &'static HomeSlot, target: T) -> Result<Arc<Self>> {
        let module = home.module().ok_or(ENODEV)?;
        // INVARIANT: It is in no list.
        Arc::pin_init(
            pin_init!(Self {
                head <- Opaque::ffi_init(|slot: *mut bindings::callback_head| {
                    let head = bindings::callback_head {
                        next: core::ptr::null_mut(),
                        func: Some(Self::callback),
                    };
                    // SAFETY: `slot` is valid for writes.
                    unsafe { slot.write(head) };
                }),
                holder: Atomic::new(core::ptr::null_mut()),
                target,
                _pin: PhantomPinned,
                _module: module,
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Lets the current thread do the work when it goes back to user space, or to its guest.
    ///
    /// To be called if it is sure to do so soon, as a thread of the kernel is not: see
    /// [`MmId::has_caller`](crate::owner_mm::MmId::has_caller).
    ///
    /// Context: any but interrupts; interrupts may be off, and any lock may be held.
    #[doc(alias = "task_work_add")]
    #[inline]
    pub fn hand_to_current(this: ArcBorrow<'_, Self>) -> Handed {
        let current = current!().as_ptr();
        // Full: see the order above.
        match this.holder.cmpxchg(core::ptr::null_mut(), current, Full) {
            Ok(_) => (),
            Err(holder) if core::ptr::eq(holder, current) => return Handed::Current,
            Err(_) => return Handed::Other,
        }
        let head = this.head.get();
        let list = Arc::into_raw(Arc::from(this));
        // INVARIANT: The reference goes to the list with the head.
        //
        // SAFETY: `holder` was null, so the head is in no list, and we are the only ones to put it
        // into one; the callback is for the object that it is part of. The object is pinned, and
        // alive until the callback has taken the reference back.
        let ret = unsafe {
            bindings::task_work_add(current, head, bindings::task_work_notify_mode_TWA_RESUME)
        };
        if ret == 0 {
            return Handed::Current;
        }
        // INVARIANT: The head is in no list.
        this.holder.store(core::ptr::null_mut(), Release);
        // SAFETY: It was not taken, and came from `into_raw()`.
        drop(unsafe { Arc::from_raw(list) });
        Handed::Nobody
    }

    /// # Safety
    ///
    /// Only called by the thread that [`Self::hand_to_current`] put `head` into the list of, and
    /// only once for each time.
    unsafe extern "C" fn callback(head: *mut bindings::callback_head) {
        let head = Opaque::cast_from(head);
        // SAFETY: By the safety requirements, the head is a field of a `Self`.
        let this = unsafe { container_of!(head, Self, head) };
        // SAFETY: The list gives up the reference that it was given.
        let this = unsafe { Arc::from_raw(this) };
        // The drop of `Home` has to wait for tasks. SAFETY: FFI call without preconditions.
        unsafe { bindings::note_ran_for_socket() };
        // INVARIANT: The head was taken out of the list, whose owner does not look at it again.
        //
        // Full: see the order above.
        this.holder.xchg(core::ptr::null_mut(), Full);
        T::on_return(&this);
        // The last reference, maybe: nothing that sleeps follows, see `Home`.
        drop(this);
    }
}

impl<T: OnReturn> Deref for ReturnWork<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.target
    }
}

/// A counted reference to a module.
///
/// # Invariants
///
/// Owns a reference.
struct ModuleRef(NonNull<bindings::module>);

// SAFETY: The count is atomic.
unsafe impl Send for ModuleRef {}
// SAFETY: There are no methods on `&ModuleRef`.
unsafe impl Sync for ModuleRef {}

impl Drop for ModuleRef {
    fn drop(&mut self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::module_put(self.0.as_ptr()) };
    }
}

/// Where the works of a module find the module.
///
/// It is a `static` of the module, and empty until [`publish`](Self::publish).
pub struct HomeSlot(Atomic<*mut bindings::module>);

impl HomeSlot {
    /// An empty slot.
    pub const fn new() -> Self {
        Self(Atomic::new(core::ptr::null_mut()))
    }

    /// There may be works from now on.
    ///
    /// Context: the `init` of the module, which keeps the result until its end.
    pub fn publish(&'static self, module: &'static ThisModule) -> Home {
        self.0.store(module.as_ptr(), Release);
        Home(self)
    }

    fn module(&self) -> Option<ModuleRef> {
        let module = NonNull::new(self.0.load(kernel::sync::atomic::Acquire))?;
        // SAFETY: The caller's code is in that module, or in one that needs it: it is there.
        let is_ours = unsafe { bindings::try_module_get(module.as_ptr()) };
        // INVARIANT: A reference was taken.
        is_ours.then_some(ModuleRef(module))
    }
}

impl Default for HomeSlot {
    fn default() -> Self {
        Self::new()
    }
}

/// Keeps the end of a module behind the works that were made with its [`HomeSlot`].
///
/// The module ends after the last reference to one of its works is gone. A thread that had it may
/// be in the instructions between that and its return to the kernel: these do not sleep, so that
/// after all tasks that were preempted have slept, or have gone to user space, none is there. The
/// drop waits for that, which takes a second; only if any work was ever done.
#[must_use = "the module has it for as long as it is there"]
pub struct Home(&'static HomeSlot);

impl Drop for Home {
    fn drop(&mut self) {
        self.0 .0.store(core::ptr::null_mut(), Release);
        // SAFETY: FFI call without preconditions; the end of a module may sleep.
        unsafe { bindings::wait_for_tasks() };
    }
}
