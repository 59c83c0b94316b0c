// SPDX-License-Identifier: GPL-2.0

//! Suite of the table of windows.

use kernel::prelude::*;

#[kunit_tests(kernel_ext_window_table)]
mod tests {
    use super::super::table::{
        Table,
        Window, //
    };
    use kernel::prelude::*;

    const PAGE: usize = 4096;
    type Places = KVVec<Window>;

    fn places(count: usize) -> Result<Places> {
        Ok(KVVec::from_elem(Window::NONE, count, GFP_KERNEL)?)
    }

    /// Where the kernel has page `n`: no two of them one after the other.
    fn kernel_at(n: usize) -> usize {
        (1 << 40) + 2 * n * PAGE
    }

    fn install(table: &mut Table<Places, PAGE>, pages: usize) {
        for n in 0..pages {
            table.install((n + 1) * PAGE, kernel_at(n), false);
        }
    }

    fn found(table: &Table<Places, PAGE>, pages: usize) -> usize {
        (0..pages)
            .filter(|n| table.find((n + 1) * PAGE + 5) == Some((kernel_at(*n) + 5, PAGE - 5)))
            .count()
    }

    #[test]
    fn places_as_many_as_windows_need() -> Result {
        let mut table = Table::<Places, PAGE>::new();
        let first = table.wants_slots().ok_or(EINVAL)?;
        assert!(table.set_slots(places(first)?).is_none());
        assert!(table.wants_slots().is_none());

        // What fits needs no more, however often it is made.
        for _ in 0..3 {
            install(&mut table, first);
        }
        assert_eq!(found(&table, first), first);
        assert!(table.wants_slots().is_none());

        // What takes each other's places does.
        let pages = 3 * first;
        install(&mut table, pages);
        assert_eq!(found(&table, pages), first);
        let more = table.wants_slots().ok_or(EINVAL)?;
        assert!(more >= pages);
        let before = table.set_slots(places(more)?).ok_or(EINVAL)?;
        assert_eq!(before.len(), first);
        assert_eq!(found(&table, pages), first);
        install(&mut table, pages);
        assert_eq!(found(&table, pages), pages);
        assert!(table.wants_slots().is_none());

        // All of them are found by what removes them: a few, and many.
        table.remove(PAGE, 3 * PAGE - 1);
        assert_eq!(found(&table, pages), pages - 2);
        table.remove(0, usize::MAX);
        assert_eq!(found(&table, pages), 0);
        Ok(())
    }

    #[test]
    fn no_fewer_places() -> Result {
        let mut table = Table::<Places, PAGE>::new();
        assert!(!table.keep_slots());
        assert!(table.set_slots(places(3)?).is_some());
        assert!(table.set_slots(places(64)?).is_none());
        assert!(table.set_slots(places(64)?).is_some());
        assert!(table.keep_slots());
        install(&mut table, 64);
        assert_eq!(found(&table, 64), 64);
        Ok(())
    }
}
