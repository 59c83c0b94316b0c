// SPDX-License-Identifier: GPL-2.0

//! Work on the way back to user space: after `kernel/task_work.c`.

use crate::{
    kernel::{
        error::Result,
        sync::{
            Arc,
            ArcBorrow, //
        }, //
    },
    world, //
};
use core::ops::Deref;
use loom::sync::atomic::{
    AtomicUsize,
    Ordering, //
};
use std::{
    any::Any,
    cell::RefCell,
    sync::atomic::AtomicBool, //
};

type Shared = std::sync::Arc<dyn Any + Send + Sync>;
type Callback = (Shared, fn(Shared));

/// A thread of user space. All of it is its own, but for what it does with others.
pub struct Task {
    number: usize,
    is_ending: AtomicBool,
    /// What it has to do.
    works: RefCell<Vec<Callback>>,
    /// It does no more.
    exited: AtomicBool,
}

loom::thread_local! {
    static CURRENT: RefCell<Option<std::sync::Arc<Task>>> = RefCell::new(None);
}

impl Task {
    /// The current thread is one of user space, with a number other than 0.
    pub fn begin(number: usize) -> std::sync::Arc<Self> {
        let task = std::sync::Arc::new(Self {
            number,
            is_ending: AtomicBool::new(false),
            works: RefCell::new(Vec::new()),
            exited: AtomicBool::new(false),
        });
        CURRENT.with(|current| *current.borrow_mut() = Some(task.clone()));
        task
    }

    /// The current thread, if it is one of user space.
    pub fn current() -> Option<std::sync::Arc<Self>> {
        CURRENT.with(|current| current.borrow().clone())
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }

    /// The thread goes back to user space.
    pub fn go_back(&self) {
        loop {
            // The latest first.
            let Some((work, callback)) = self.works.borrow_mut().pop() else {
                break;
            };
            callback(work);
        }
    }

    /// The thread ends: it has no address space any more when it does what it still has to.
    pub fn end(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
        self.go_back();
        self.exited.store(true, Ordering::Relaxed);
    }
}

/// Whether a module is there: it is.
pub struct HomeSlot(());

impl HomeSlot {
    /// The slot.
    pub const fn new() -> Self {
        Self(())
    }
}

impl Default for HomeSlot {
    fn default() -> Self {
        Self::new()
    }
}

/// See `kernel_ext::return_work`.
pub trait OnReturn: Send + Sync + Sized + 'static {
    /// Does the work.
    fn on_return(this: &ReturnWork<Self>);
}

/// Who has a work to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handed {
    /// The current thread.
    Current,
    /// Another thread.
    Other,
    /// Nobody.
    Nobody,
}

/// A work.
pub struct ReturnWork<T> {
    holder: AtomicUsize,
    target: T,
}

impl<T: OnReturn> ReturnWork<T> {
    /// A new one.
    pub fn new(_: &'static HomeSlot, target: T) -> Result<Arc<Self>> {
        let holder = AtomicUsize::new(0);
        Ok(Arc(std::sync::Arc::new(Self { holder, target })))
    }

    /// Lets the current thread do it.
    pub fn hand_to_current(this: ArcBorrow<'_, Self>) -> Handed {
        let Some(task) = Task::current() else {
            world::check(false, "a thread of the kernel has nothing to do there");
            return Handed::Nobody;
        };
        let order = Ordering::SeqCst;
        match this.holder.compare_exchange(0, task.number, order, order) {
            Ok(_) => (),
            Err(holder) if holder == task.number => return Handed::Current,
            Err(_) => return Handed::Other,
        }
        let this: Arc<Self> = this.into();
        if task.exited.load(Ordering::Relaxed) {
            this.holder.store(0, Ordering::Release);
            return Handed::Nobody;
        }
        task.works.borrow_mut().push((this.0, |work| {
            let Ok(this) = work.downcast::<Self>() else {
                return;
            };
            let had = this.holder.swap(0, Ordering::SeqCst);
            let is_here = Task::current().is_some_and(|task| task.number == had);
            world::check(is_here, "who does a work has it");
            T::on_return(&this);
        }));
        Handed::Current
    }
}

impl<T> Deref for ReturnWork<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.target
    }
}
