// SPDX-License-Identifier: GPL-2.0

//! A guest that makes chains available and kicks, its device, and the models.

use crate::{
    inline::{
        Inlined,
        Left, //
    },
    kick_work::KickWork,
    worker::{
        WorkId,
        Worker,
        Works, //
    }, //
};
use kernel::sync::{
    Arc,
    ArcBorrow, //
};
use kernel_ext::world::{
    check,
    explore,
    Fault,
    Tried, //
};
use kernel_ext::{
    kick::Kick as _,
    owner_mm::{
        InOwnerMm,
        OwnerMm, //
    },
    return_work::{
        HomeSlot,
        ReturnWork,
        Task, //
    }, //
};
use loom::{
    sync::{
        atomic::{
            fence,
            AtomicBool,
            AtomicUsize,
            Ordering::{
                Relaxed,
                SeqCst, //
            }, //
        },
        Mutex, //
    },
    thread, //
};
use std::sync::Arc as Shared;

static HOME: HomeSlot = HomeSlot::new();

/// What the lock of a queue protects.
struct Queue {
    taken: usize,
    running: bool,
}

/// A device with a queue, and the guest's side of the ring.
struct Device {
    queue: Mutex<Queue>,
    avail: AtomicUsize,
    /// Whether the guest is to kick.
    notify: AtomicBool,
    /// How many chains an inline run takes.
    budget: usize,
}

impl Device {
    /// Takes chains; says whether the guest will kick for the next one.
    fn drain(&self, queue: &mut Queue, budget: usize) -> bool {
        self.notify.store(false, Relaxed);
        let mut left = budget;
        loop {
            if queue.taken < self.avail.load(Relaxed) {
                if left == 0 {
                    return false;
                }
                left -= 1;
                queue.taken += 1;
                continue;
            }
            self.notify.store(true, Relaxed);
            fence(SeqCst);
            if queue.taken == self.avail.load(Relaxed) {
                return true;
            }
            self.notify.store(false, Relaxed);
        }
    }
}

impl Works for Device {
    fn run(&self, _: WorkId, _: &InOwnerMm) {
        let mut queue = self.queue.lock().unwrap();
        if queue.running {
            self.drain(&mut queue, usize::MAX);
        }
    }

    fn run_inline(&self, _: WorkId, _: &InOwnerMm, _: u64) -> Inlined {
        let Ok(mut queue) = self.queue.try_lock() else {
            return Inlined::Left(Left::Busy);
        };
        if !queue.running {
            return Inlined::Left(Left::Unready);
        }
        if self.drain(&mut queue, self.budget) {
            Inlined::Unanswered
        } else {
            Inlined::Budget
        }
    }
}

/// What there is.
#[derive(Clone)]
struct Machine {
    device: Shared<Device>,
    kick: Shared<ReturnWork<KickWork>>,
    worker: Shared<Worker>,
}

impl Machine {
    fn new(budget: usize) -> Self {
        let device = Shared::new(Device {
            queue: Mutex::new(Queue {
                taken: 0,
                running: true,
            }),
            avail: AtomicUsize::new(0),
            notify: AtomicBool::new(true),
            budget,
        });
        let kick = KickWork::new(&HOME, WorkId, true).unwrap().0;
        kick.set_owner(&OwnerMm);
        let worker = Shared::new(Worker::new(Arc(device.clone() as Shared<dyn Works>)));
        kick.slot.replace(Some(worker.clone()));
        Self {
            device,
            kick,
            worker,
        }
    }

    /// The guest makes a chain available, and its thread kicks if it is to.
    fn offer(&self) {
        self.device.avail.fetch_add(1, Relaxed);
        fence(SeqCst);
        if self.device.notify.load(Relaxed) {
            KickWork::kick(ArcBorrow::new(self.kick.clone()));
        }
    }

    fn spawn_worker(&self) -> thread::JoinHandle<()> {
        let worker = self.worker.clone();
        thread::spawn(move || worker.thread())
    }

    /// When all is quiet, and the worker has done what it was to do.
    fn all_is_taken(&self) -> bool {
        let queue = self.device.queue.lock().unwrap();
        queue.taken == self.device.avail.load(Relaxed)
    }
}

/// How a thread of the guest goes on after its last kick.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Back to the guest.
    Goes,
    /// It ends, killed in the middle of its system call.
    Ends,
    /// It never comes back: it stands in its system call. What others kick for is not its business.
    Stands,
}

/// A thread of the guest offers so many chains.
fn guest(machine: &Machine, number: usize, chains: usize, then: Then) -> Shared<Task> {
    let task = Task::begin(number);
    for chain in 1..=chains {
        machine.offer();
        if chain < chains {
            task.go_back();
        }
    }
    match then {
        Then::Goes => task.go_back(),
        Then::Ends => task.end(),
        Then::Stands => (),
    }
    task
}

/// A thread for each element of `guests`, which offers so many chains, and then goes on in some
/// way; who does not come back is the first. No chain stays where it is.
pub fn no_kick_is_lost(
    preemptions: Option<usize>,
    guests: &'static [(usize, Then)],
    budget: usize,
) -> Tried {
    explore(preemptions, Fault::None, move || {
        let machine = Machine::new(budget);
        let worker = machine.spawn_worker();
        let (mut threads, mut tasks) = (Vec::new(), Vec::new());
        for (number, (chains, then)) in guests.iter().enumerate() {
            let this = machine.clone();
            let thread = thread::spawn(move || guest(&this, number + 1, *chains, *then));
            if *then == Then::Stands {
                tasks.push(thread.join().unwrap());
            } else {
                threads.push(thread);
            }
        }
        tasks.extend(threads.into_iter().map(|thread| thread.join().unwrap()));
        machine.worker.stop();
        worker.join().unwrap();
        check(machine.all_is_taken(), "no chain stays in the ring");
    })
}

/// The device is closed while a thread of its guest kicks.
pub fn close(preemptions: Option<usize>, chains: usize) -> Tried {
    explore(preemptions, Fault::None, move || {
        let machine = Machine::new(usize::MAX);
        let worker = machine.spawn_worker();
        let this = machine.clone();
        let thread = thread::spawn(move || guest(&this, 1, chains, Then::Goes));
        let taken = {
            let mut queue = machine.device.queue.lock().unwrap();
            queue.running = false;
            queue.taken
        };
        machine.kick.slot.replace(None);
        machine.worker.stop();
        worker.join().unwrap();
        thread.join().unwrap();
        let queue = machine.device.queue.lock().unwrap();
        check(
            queue.taken == taken,
            "nothing is taken from a queue that was stopped",
        );
    })
}
