// SPDX-License-Identifier: GPL-2.0

//! The threads.

use super::armed::Armed;
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};
use loom::{
    sync::atomic::{
        AtomicBool,
        Ordering::AcqRel, //
    },
    thread, //
};
use std::sync::Arc;

/// What they share.
struct World {
    armed: Armed,
    /// The work is queued. The workqueue orders what was before against the run that follows.
    queued: AtomicBool,
    /// Who waits.
    waiting: Vec<Atomic<bool>>,
}

impl World {
    /// Somebody begins to wait.
    fn wait(&self, who: usize) {
        self.waiting[who].store(true, Relaxed);
        self.wake();
    }

    fn wake(&self) {
        if self.armed.set() {
            self.queued.swap(true, AcqRel);
        }
    }

    /// The worker, which runs the work as often as it is queued. Who is seen waits no longer.
    fn work(&self) {
        while self.queued.swap(false, AcqRel) {
            let mut idle = false;
            loop {
                let mut busy = false;
                for waits in &self.waiting {
                    if waits.load(Relaxed) {
                        waits.store(false, Relaxed);
                        busy = true;
                    }
                }
                if !self.armed.looked(busy, &mut idle) {
                    break;
                }
            }
        }
    }
}

/// So many begin to wait while the work runs, that of somebody who does no longer.
pub(crate) fn waits(count: usize) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = (count > 1).then_some(3);
    model.check(move || {
        let world = Arc::new(World {
            armed: Armed::new(),
            queued: AtomicBool::new(false),
            waiting: (0..count).map(|_| Atomic::new(false)).collect(),
        });
        world.wake();
        let threads: Vec<_> = (0..count)
            .map(|who| {
                let world = world.clone();
                thread::spawn(move || world.wait(who))
            })
            .collect();
        world.work();
        for thread in threads {
            thread.join().unwrap();
        }
        world.work();
        let missed = world.waiting.iter().any(|waits| waits.load(Relaxed));
        assert!(!missed, "nobody is missed");
    });
}
