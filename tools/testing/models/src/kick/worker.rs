// SPDX-License-Identifier: GPL-2.0

//! The worker of a device, and where a queue finds it.

use crate::inline::Inlined;
use kernel::sync::{
    rcu,
    Arc, //
};
use kernel_ext::owner_mm::InOwnerMm;
use loom::sync::{
    Condvar,
    Mutex, //
};

/// The number of a work: there is one.
#[derive(Clone, Copy)]
pub struct WorkId;

/// The device.
pub trait Works: Send + Sync + 'static {
    /// In the worker.
    fn run(&self, work: WorkId, mm: &InOwnerMm);

    /// In the thread that has kicked.
    fn run_inline(&self, work: WorkId, mm: &InOwnerMm, begin: u64) -> Inlined;
}

/// There is none.
#[derive(Debug)]
pub struct NoWorker;

#[derive(Default)]
struct State {
    pending: bool,
    stop: bool,
}

/// The worker.
pub struct Worker {
    works: Arc<dyn Works>,
    state: Mutex<State>,
    changed: Condvar,
}

impl Worker {
    /// A worker for a device.
    pub fn new(works: Arc<dyn Works>) -> Self {
        Self {
            works,
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
        }
    }

    fn queue(&self) {
        self.state.lock().unwrap().pending = true;
        self.changed.notify_one();
    }

    /// What the thread does.
    pub fn thread(&self) {
        let mut state = self.state.lock().unwrap();
        loop {
            if core::mem::take(&mut state.pending) {
                drop(state);
                self.works.run(WorkId, &InOwnerMm::new());
                state = self.state.lock().unwrap();
            } else if state.stop {
                return;
            } else {
                state = self.changed.wait(state).unwrap();
            }
        }
    }

    /// The thread ends after what it still has to do.
    pub fn stop(&self) {
        self.state.lock().unwrap().stop = true;
        self.changed.notify_one();
    }
}

/// Where a queue finds its worker.
pub struct WorkerSlot(Mutex<Option<std::sync::Arc<Worker>>>);

impl WorkerSlot {
    /// There is none.
    pub fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Queues the work.
    pub fn queue(&self, _: WorkId) -> Result<(), NoWorker> {
        let worker = self.0.lock().unwrap().clone();
        worker.ok_or(NoWorker)?.queue();
        Ok(())
    }

    /// The device.
    pub fn works(&self, _: &rcu::Guard) -> Option<Arc<dyn Works>> {
        let worker = self.0.lock().unwrap();
        worker.as_ref().map(|worker| worker.works.clone())
    }

    /// Puts a worker in place, or none.
    pub fn replace(&self, worker: Option<std::sync::Arc<Worker>>) {
        *self.0.lock().unwrap() = worker;
    }
}
