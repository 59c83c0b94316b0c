// SPDX-License-Identifier: GPL-2.0

//! Who reads through windows, who changes the memory, and who makes windows.

use super::{
    current,
    notifier::{
        Interval,
        Mm, //
    },
    shared::Shared,
    table, //
};
use core::pin::Pin;
use kernel::{
    page::PAGE_SIZE as PAGE,
    sync::LockClassKey, //
};
use loom::thread;
use std::sync::{
    atomic::{
        AtomicUsize,
        Ordering, //
    },
    Arc,
};

const KEY: Pin<&LockClassKey> = Pin::static_ref(&LockClassKey);

/// The page that is looked at; it is not the first one of a large window.
const AT: usize = PAGE * 3;

struct World {
    mm: Arc<Mm>,
    interval: Interval<Shared>,
}

impl World {
    fn new(in_order: bool) -> Arc<Self> {
        let mm = Mm::new(in_order);
        let shared = Shared::new(0..=20 * PAGE - 1, c"windows", KEY);
        let interval = Interval::new(mm.clone(), shared);
        let slots = vec![table::Window::NONE; 512];
        interval.target.table.lock().set_slots(slots);
        Arc::new(Self { mm, interval })
    }

    /// A read section: says whether there was a window.
    fn read(&self) -> bool {
        let table = self.interval.target.table.lock();
        let Some((kernel, room)) = table.find(AT) else {
            return false;
        };
        assert!(room >= PAGE);
        // At the beginning, and as long as it lasts.
        for _ in 0..2 {
            assert!(
                self.mm.is_mapped(AT, kernel),
                "a window of a page that is gone"
            );
        }
        true
    }

    fn fill(&self) {
        current::in_mm(&self.mm, || self.interval.fill_at(AT));
    }

    fn change(&self) {
        self.mm.change(AT, &self.interval);
    }
}

/// Runs threads in all orders; the result is how many there were, and in how many a reader found a
/// window.
fn run(in_order: bool, threads: &'static [fn(&World) -> bool]) -> (usize, usize) {
    let counts: &'static (AtomicUsize, AtomicUsize) = Box::leak(Box::default());
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(4);
    builder.check(move || {
        let world = World::new(in_order);
        world.fill();
        assert!(world.read(), "no window of memory that nobody changes");
        let others: Vec<_> = threads
            .iter()
            .map(|f| {
                let world = world.clone();
                thread::spawn(move || f(&world))
            })
            .collect();
        world.change();
        let mut found = false;
        for other in others {
            found |= other.join().unwrap();
        }
        // In the end it works again.
        world.fill();
        assert!(world.read(), "no window after the changes");
        counts.0.fetch_add(1, Ordering::Relaxed);
        counts.1.fetch_add(usize::from(found), Ordering::Relaxed);
    });
    let orders = counts.0.load(Ordering::Relaxed);
    let found = counts.1.load(Ordering::Relaxed);
    assert!(found > 0, "no reader ever found a window");
    (orders, found)
}

/// A reader, and who makes windows.
pub fn reader_and_filler(in_order: bool) -> (usize, usize) {
    let (orders, found) = run(
        in_order,
        &[
            |world| world.read(),
            |world| {
                world.fill();
                false
            },
        ],
    );
    assert!(found < orders, "the threads never met");
    (orders, found)
}

/// A reader that makes windows itself.
pub fn reader_that_fills(in_order: bool) -> (usize, usize) {
    run(
        in_order,
        &[|world| {
            if world.read() {
                return true;
            }
            world.fill();
            world.read()
        }],
    )
}

/// Two changes, and who makes windows meanwhile.
pub fn two_changes(in_order: bool) -> (usize, usize) {
    run(
        in_order,
        &[
            |world| {
                world.change();
                false
            },
            |world| {
                world.fill();
                world.read()
            },
        ],
    )
}
