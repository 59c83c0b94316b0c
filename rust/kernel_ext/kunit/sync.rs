// SPDX-License-Identifier: GPL-2.0

//! Suites of [`crate::rcu`], [`crate::lock`] and [`crate::work`].

use kernel::prelude::*;

#[kunit_tests(kernel_ext_rcu)]
mod rcu_tests {
    use super::*;
    use crate::{
        kunit::{
            Dropped,
            Drops, //
        },
        rcu::{
            wait_for_readers,
            RcuSlot,
            RcuTable, //
        },
    };
    use kernel::sync::{
        rcu,
        Arc, //
    };

    fn value(slot: &RcuSlot<u32>) -> Option<u32> {
        slot.load(&rcu::read_lock()).map(|value| *value)
    }

    #[test]
    fn empty() {
        let slot = RcuSlot::<u32>::new();
        assert_eq!(value(&slot), None);
        assert!(slot.get().is_none());
        assert!(slot.swap(None).is_none());
    }

    #[test]
    fn swap_gives_back_the_old_one() -> Result {
        let slot = RcuSlot::new();
        assert!(slot.swap(Some(Arc::new(1, GFP_KERNEL)?)).is_none());
        assert_eq!(value(&slot), Some(1));
        let old = slot.swap(Some(Arc::new(2, GFP_KERNEL)?));
        assert_eq!(old.map(|old| *old), Some(1));
        assert_eq!(slot.get().map(|now| *now), Some(2));
        assert_eq!(slot.swap(None).map(|old| *old), Some(2));
        assert_eq!(value(&slot), None);
        Ok(())
    }

    #[test]
    fn compare_swap_looks_at_the_object() -> Result {
        let slot = RcuSlot::new();
        let (first, same) = (Arc::new(1, GFP_KERNEL)?, Arc::new(1, GFP_KERNEL)?);
        assert!(matches!(
            slot.compare_swap(None, Some(first.clone())),
            Ok(None)
        ));
        assert!(matches!(
            slot.compare_swap(None, Some(same.clone())),
            Err(Some(_))
        ));
        assert!(matches!(slot.compare_swap(Some(&same), None), Err(None)));
        assert!(matches!(
            slot.compare_swap(Some(&first), Some(same)),
            Ok(Some(_))
        ));
        assert_eq!(value(&slot), Some(1));
        Ok(())
    }

    #[test]
    fn every_reference_is_dropped_once() -> Result {
        let drops = Drops::new()?;
        let slot = RcuSlot::<Dropped>::new();
        slot.swap(Some(Arc::new(drops.item(), GFP_KERNEL)?));
        let reference = slot.get();
        drop(slot.swap(Some(Arc::new(drops.item(), GFP_KERNEL)?)));
        assert_eq!(drops.count(), 0);
        drop(reference);
        assert_eq!(drops.count(), 1);
        drop(slot);
        assert_eq!(drops.count(), 2);
        Ok(())
    }

    #[test]
    fn replaced_and_waited_for_later() -> Result {
        let drops = Drops::new()?;
        let (first, second) = (RcuSlot::new(), RcuSlot::<Dropped>::new());
        first
            .replace(Some(Arc::new(drops.item(), GFP_KERNEL)?))
            .wait();
        let mut retired = (first.replace(None), second.replace(None));
        assert!(first.get().is_none());
        assert_eq!(drops.count(), 0);
        wait_for_readers(&mut retired);
        assert_eq!(drops.count(), 0);
        let (first, second) = retired;
        assert!(second.wait().is_none());
        assert!(first.wait().is_some());
        assert_eq!(drops.count(), 1);
        Ok(())
    }

    #[test]
    fn table() -> Result {
        let drops = Drops::new()?;
        // All keys share the list.
        let table = RcuTable::<(u32, Dropped), 1>::new()?;
        let number = |key: u32, below: u32| {
            let guard = rcu::read_lock();
            let found = table.find(key, &guard, |(n, _)| *n < below);
            found.map(|(n, _)| *n)
        };
        let put = |key: u32, n: u32| {
            // Nothing is there twice.
            let refusal = |other: &(u32, Dropped)| (other.0 == n).then_some(other.0);
            table.insert(key, (n, drops.item()), refusal)
        };
        assert_eq!(number(7, u32::MAX), None);

        let mut entries = KVec::with_capacity(3, GFP_KERNEL)?;
        for n in 0..3 {
            let entry = put(7, n)?.map_err(|_| EEXIST)?;
            assert_eq!(entry.value().0, n);
            entries.push(entry, GFP_KERNEL)?;
        }
        // The latest comes first.
        let numbers = || [4, 2, 1, 0].map(|below| number(7, below));
        assert_eq!(numbers(), [Some(2), Some(1), Some(0), None]);
        assert_eq!(put(7, 1)?.err(), Some(1));
        assert_eq!(drops.count(), 1);
        // Another key is another thing.
        let other = put(8, 1)?.map_err(|_| EEXIST)?;
        assert_eq!(numbers(), [Some(2), Some(1), Some(0), None]);
        assert_eq!((number(8, 4), number(9, 4)), (Some(1), None));

        // In the middle, then at either end.
        let mut hidden = KVec::with_capacity(1, GFP_KERNEL)?;
        hidden.push(entries.remove(1)?.hide(), GFP_KERNEL)?;
        assert_eq!(numbers(), [Some(2), Some(0), Some(0), None]);
        assert_eq!(drops.count(), 1);
        wait_for_readers(&mut hidden);
        assert_eq!(drops.count(), 1);
        drop(hidden);
        assert_eq!(drops.count(), 2);
        drop(entries.remove(1)?);
        assert_eq!((number(7, 4), drops.count()), (Some(0), 3));
        drop(entries);
        assert_eq!((number(7, 4), drops.count()), (None, 4));
        assert_eq!(number(8, 4), Some(1));
        drop(other);
        assert_eq!((number(8, 4), drops.count()), (None, 5));
        Ok(())
    }

    /// Of any keys, fewer than one in 100,000 seeds puts half of them into one list.
    #[test]
    fn keys_do_not_gather() -> Result {
        const KEYS: u16 = 2000;
        let table = RcuTable::<u32, 256>::new()?;
        for step in [1, 256, 0x1_0000] {
            let mut lists = [0_u16; 256];
            for n in 0..KEYS {
                let key = u32::from(n).wrapping_mul(step);
                let list = lists.get_mut(table.index(key)).ok_or(ERANGE)?;
                *list = list.wrapping_add(1);
            }
            assert!(lists.iter().all(|list| *list <= KEYS / 2));
        }
        Ok(())
    }
}

#[kunit_tests(kernel_ext_lock)]
mod lock_tests {
    use super::*;
    use crate::{
        lock::SpinLockBh,
        new_spinlock_bh, //
    };

    #[test]
    fn excludes() -> Result {
        let lock = KBox::pin_init(new_spinlock_bh!(1u32, "kunit::excludes"), GFP_KERNEL)?;
        let lock: &SpinLockBh<u32> = &lock;
        {
            let mut guard = lock.lock();
            *guard = 2;
            assert!(lock.try_lock().is_none());
        }
        assert_eq!(lock.try_lock().map(|value| *value), Some(2));
        assert_eq!(*lock.lock(), 2);
        Ok(())
    }
}

#[kunit_tests(kernel_ext_work)]
mod work_tests {
    use super::*;
    use crate::work::WorkQueue;
    use kernel::{
        impl_has_work,
        new_work,
        sync::{
            atomic::{
                Atomic,
                Relaxed, //
            },
            Arc,
            Completion, //
        },
        workqueue::{
            Work,
            WorkItem, //
        }, //
    };

    #[pin_data]
    struct Job {
        #[pin]
        work: Work<Job>,
        #[pin]
        started: Completion,
        #[pin]
        gate: Completion,
        runs: Atomic<u32>,
    }

    impl_has_work! {
        impl HasWork<Self> for Job { self.work }
    }

    impl Job {
        fn new() -> Result<Arc<Self>> {
            Arc::pin_init(
                pin_init!(Self {
                    work <- new_work!("kunit::Job::work"),
                    started <- Completion::new(),
                    gate <- Completion::new(),
                    runs: Atomic::new(0),
                }),
                GFP_KERNEL,
            )
        }
    }

    impl WorkItem for Job {
        type Pointer = Arc<Self>;

        fn run(this: Arc<Self>) {
            this.started.complete_all();
            this.gate.wait_for_completion();
            this.runs.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn flush_waits() -> Result {
        let (queue, job) = (WorkQueue::new(c"kunit-flush")?, Job::new()?);
        job.gate.complete_all();
        assert!(queue.queue(job.clone()));
        queue.flush();
        assert_eq!(job.runs.load(Relaxed), 1);
        Ok(())
    }

    #[test]
    fn queued_once_until_it_starts() -> Result {
        let (queue, job) = (WorkQueue::new(c"kunit-once")?, Job::new()?);
        assert!(queue.queue(job.clone()));
        job.started.wait_for_completion();
        assert!(queue.queue(job.clone()));
        assert!(!queue.queue(job.clone()));
        job.gate.complete_all();
        queue.flush();
        assert_eq!(job.runs.load(Relaxed), 2);
        Ok(())
    }

    #[test]
    fn drop_waits() -> Result {
        let (queue, job) = (WorkQueue::new(c"kunit-drop")?, Job::new()?);
        assert!(queue.queue(job.clone()));
        job.started.wait_for_completion();
        job.gate.complete_all();
        drop(queue);
        assert_eq!(job.runs.load(Relaxed), 1);
        Ok(())
    }
}
