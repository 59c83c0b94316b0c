// SPDX-License-Identifier: GPL-2.0

//! Suite of [`crate::window`].

use kernel::prelude::*;

#[kunit_tests(kernel_ext_window)]
mod tests {
    use super::*;
    use crate::{
        bindings,
        gfp::Gfp,
        kunit::{
            map_user_memory,
            pattern,
            sending,
            sending_nothing, //
        },
        owner_mm::{
            InOwnerMm,
            OwnerAddr,
            OwnerMm, //
        },
        skb::SkBuff,
        user_iov::UserIov,
        window::Windows, //
    };
    use kernel::{
        page::PAGE_SIZE,
        static_lock_class, //
    };

    /// Large windows are aligned: in so many pages there is one, and there are small ones.
    const PAGES: usize = 40;

    fn at(base: OwnerAddr, offset: usize) -> Result<OwnerAddr> {
        base.checked_add(offset).ok_or(EINVAL)
    }

    fn windows(mm: &OwnerMm, base: OwnerAddr, len: usize) -> Result<Windows> {
        let range = base.get()..=base.get() + (len - 1);
        Windows::new(mm, range, c"kunit_windows", static_lock_class!())
    }

    /// Does something with the windows of some pages, which were written.
    fn with_windows(
        pages: usize,
        f: impl FnOnce(&Windows, OwnerAddr, &InOwnerMm) -> Result,
    ) -> Result {
        let len = pages * PAGE_SIZE;
        let base = map_user_memory(len)?;
        let bytes = pattern(len)?;
        let mm = OwnerMm::of_current().ok_or(EINVAL)?;
        let windows = windows(&mm, base, len)?;
        mm.enter(|mm| {
            mm.write_slice(base, &bytes)?;
            f(&windows, base, mm)
        })?
    }

    /// Makes windows of a range, as far as that works: there are only so many notes at a time.
    fn fill(windows: &Windows, base: OwnerAddr, len: usize, mm: &InOwnerMm) -> bool {
        for _ in 0..2 * PAGES {
            if windows.read().covers(base, len) {
                return true;
            }
            windows.fill(mm);
        }
        false
    }

    fn unmap(base: OwnerAddr, len: usize) -> Result {
        // SAFETY: The memory is that of a test, and nothing refers to it.
        kernel::error::to_result(unsafe { bindings::vm_munmap(base.get(), len) })
    }

    #[test]
    fn nothing_without_a_fill() -> Result {
        with_windows(PAGES, |windows, base, mm| {
            let reading = windows.read();
            let mut out = [0; 4];
            assert!(!reading.covers(base, 1));
            assert_eq!(reading.get_u16(base), None);
            assert_eq!(reading.put_u16(base, 1), None);
            assert_eq!(reading.put_pair(base, [1, 2]), None);
            assert_eq!(reading.read(base, &mut out), None);
            assert_eq!(reading.write(base, &out), None);
            drop(reading);
            assert_eq!(windows.counts(), (0, 0));
            assert!(windows.is_wanting());
            windows.fill(mm);
            assert!(!windows.is_wanting());
            assert!(windows.read().covers(base, 1));
            assert_eq!(windows.counts(), (1, 0));
            Ok(())
        })
    }

    #[test]
    fn shows_the_memory_of_the_owner() -> Result {
        with_windows(PAGES, |windows, base, mm| {
            let len = PAGES * PAGE_SIZE;
            assert!(fill(windows, base, len, mm));

            // What the owner wrote, over the borders of pages and windows.
            let bytes = pattern(len)?;
            let mut out = KVVec::with_capacity(len, GFP_KERNEL)?;
            out.resize(len, 0, GFP_KERNEL)?;
            assert_eq!(windows.read().read(base, &mut out), Some(()));
            assert!(*out == *bytes);
            let mut some = [0; 300];
            for offset in [0, 1, 7, PAGE_SIZE - 150, PAGE_SIZE - 299, len - 300] {
                assert!(windows.read().read(at(base, offset)?, &mut some).is_some());
                assert!(Some(&some[..]) == bytes.get(offset..offset + 300));
            }

            // What the owner sees.
            let reading = windows.read();
            assert_eq!(reading.put_u16(at(base, 2)?, 0x1234), Some(()));
            assert_eq!(reading.get_u16(at(base, 2)?), Some(0x1234));
            assert_eq!(reading.put_pair(at(base, 8)?, [7, 9]), Some(()));
            let border = at(base, 3 * PAGE_SIZE - 150)?;
            assert_eq!(reading.write(border, &[0xa5; 300]), Some(()));
            drop(reading);
            assert_eq!(mm.get_u16(at(base, 2)?), Ok(0x1234));
            assert_eq!(mm.read::<[u32; 2]>(at(base, 8)?), Ok([7, 9]));
            mm.read_slice(border, &mut some)?;
            assert!(some == [0xa5; 300]);
            // And nothing around it.
            let around = at(base, 3 * PAGE_SIZE - 151)?;
            assert_eq!(mm.read::<u8>(around)?, bytes[3 * PAGE_SIZE - 151]);
            Ok(())
        })
    }

    #[test]
    fn fields_are_aligned() -> Result {
        with_windows(2, |windows, base, mm| {
            assert!(fill(windows, base, 2 * PAGE_SIZE, mm));
            let reading = windows.read();
            for offset in [1, PAGE_SIZE - 1] {
                assert_eq!(reading.get_u16(at(base, offset)?), None);
                assert_eq!(reading.put_u16(at(base, offset)?, 0), None);
            }
            assert_eq!(reading.put_pair(at(base, PAGE_SIZE - 2)?, [0; 2]), None);
            // Two fields may lie in two windows.
            assert!(reading.put_pair(at(base, PAGE_SIZE - 4)?, [1, 2]).is_some());
            drop(reading);
            assert_eq!(mm.read::<u32>(at(base, PAGE_SIZE)?), Ok(2));
            Ok(())
        })
    }

    /// Neither does it fault anything in, nor is there a window of what was not asked for.
    #[test]
    fn memory_that_is_not_there() -> Result {
        let base = map_user_memory(4 * PAGE_SIZE)?;
        let mm = OwnerMm::of_current().ok_or(EINVAL)?;
        let windows = windows(&mm, at(base, PAGE_SIZE)?, 2 * PAGE_SIZE)?;
        mm.enter(|mm| {
            let inside = at(base, PAGE_SIZE)?;
            // It is mapped, but there are no pages yet.
            assert!(!fill(&windows, inside, 1, mm));
            // It was read only: the page of zeroes is there, which is not to be written.
            assert_eq!(mm.read::<u8>(inside), Ok(0));
            assert!(!fill(&windows, inside, 1, mm));
            mm.write(inside, &1u8)?;
            assert!(fill(&windows, inside, 1, mm));
            // The second page of the two is still not there.
            assert!(!fill(&windows, inside, PAGE_SIZE + 1, mm));

            // Before and behind the range, though there is memory.
            mm.write_slice(base, &[1; 8])?;
            mm.write_slice(at(base, 3 * PAGE_SIZE)?, &[1; 8])?;
            for outside in [base.get(), base.get() + 3 * PAGE_SIZE, 8, usize::MAX - 7] {
                assert!(!fill(&windows, OwnerAddr::new(outside), 8, mm));
            }
            // Up to the end of the address space, and beyond it.
            let reading = windows.read();
            assert!(!reading.covers(inside, usize::MAX));
            assert!(!reading.covers(OwnerAddr::new(usize::MAX), 2));
            Ok(())
        })?
    }

    #[test]
    fn unmapped_memory_has_no_window() -> Result {
        with_windows(PAGES, |windows, base, mm| {
            let (len, middle) = (PAGES * PAGE_SIZE, at(base, 17 * PAGE_SIZE)?);
            assert!(fill(windows, base, len, mm));
            unmap(middle, PAGE_SIZE)?;
            let (_, dropped) = windows.counts();
            assert!(dropped >= 1);
            assert!(!windows.read().covers(middle, 1));
            assert!(!fill(windows, middle, 1, mm));
            assert_eq!(windows.read().get_u16(middle), None);
            // A large window that had it may be gone as well, and comes back in parts.
            assert!(fill(windows, base, 17 * PAGE_SIZE, mm));
            let behind = at(middle, PAGE_SIZE)?;
            assert!(fill(windows, behind, 22 * PAGE_SIZE, mm));

            unmap(base, len)?;
            for page in 0..PAGES {
                let page = at(base, page * PAGE_SIZE)?;
                assert!(!windows.read().covers(page, 1));
            }
            let (filled, dropped) = windows.counts();
            assert!(dropped > 1 && dropped <= filled);
            Ok(())
        })
    }

    /// Changes beside the range are none.
    #[test]
    fn other_memory_does_not_matter() -> Result {
        let base = map_user_memory(8 * PAGE_SIZE)?;
        let mm = OwnerMm::of_current().ok_or(EINVAL)?;
        let windows = windows(&mm, base, 4 * PAGE_SIZE)?;
        mm.enter(|mm| {
            mm.write_slice(base, &pattern(8 * PAGE_SIZE)?)?;
            assert!(fill(&windows, base, 4 * PAGE_SIZE, mm));
            let before = windows.counts();
            unmap(at(base, 4 * PAGE_SIZE)?, PAGE_SIZE)?;
            assert_eq!(windows.counts(), before);
            assert!(windows.read().covers(base, 4 * PAGE_SIZE));
            Ok(())
        })?
    }

    #[test]
    fn range_of_nothing() -> Result {
        map_user_memory(PAGE_SIZE)?;
        let mm = OwnerMm::of_current().ok_or(EINVAL)?;
        let new = |range| Windows::new(&mm, range, c"kunit_windows", static_lock_class!()).err();
        assert_eq!(new(1..=0), Some(EINVAL));
        assert!(new(0..=usize::MAX).is_some());
        Ok(())
    }

    #[test]
    fn lists() -> Result {
        with_windows(PAGES, |windows, base, mm| {
            assert!(fill(windows, base, 16 * PAGE_SIZE, mm));
            let bytes = pattern(PAGES * PAGE_SIZE)?;
            let mut list = UserIov::new();
            for n in 0..10 {
                list.push(at(base, n * 1000)?, 300)?;
            }
            let mut out = [0; 1000];
            assert_eq!(windows.read().read_list(&list, 250, &mut out), Some(()));
            assert!(out.get(..50) == bytes.get(250..300));
            assert!(out.get(50..350) == bytes.get(1000..1300));
            assert_eq!(windows.read().read_list(&list, 2001, &mut out), None);

            let mut skb = SkBuff::alloc(0, 600, Gfp::Kernel, ())?;
            let mem = windows.read();
            assert!(mem.fill_skb(&mut skb, &list, 2700, 600).is_none());
            assert!(mem.fill_skb(&mut skb, &list, 2400, 601).is_none());
            assert!(mem.fill_skb(&mut skb, &list, 2400, 600).is_some());
            assert!(mem.fill_skb(&mut skb, &list, 2400, 0).is_none());
            drop(mem);
            let filled = skb.linear().ok_or(EINVAL)?;
            assert!(filled.get(..300) == bytes.get(8000..8300));
            assert!(filled.get(300..) == bytes.get(9000..9300));

            assert_eq!(windows.read().write_list(&list, 299, &[1; 302]), Some(()));
            assert_eq!(windows.read().write_list(&list, 2999, &[1; 2]), None);
            assert_eq!(
                mm.read::<[u8; 3]>(at(base, 298)?)?,
                [bytes[298], 1, bytes[300]]
            );
            assert_eq!(mm.read::<[u8; 2]>(at(base, 999)?)?, [bytes[999], 1]);
            assert_eq!(mm.read::<[u8; 2]>(at(base, 2000)?)?, [1, bytes[2001]]);

            let mem = windows.read();
            let (from, len) = (100, 450);
            assert!(mem.write_list_from_skb(&list, 0, &skb, 151, 450).is_none());
            assert!(mem.write_list_from_skb(&list, 0, &skb, from, len).is_some());
            drop(mem);
            mm.read_slice(base, &mut out)?;
            assert!(out.get(..200) == bytes.get(8100..8300));
            assert!(out.get(200..300) == bytes.get(9000..9100));
            assert!(out.get(300..) == bytes.get(300..1000));
            mm.read_slice(at(base, 1000)?, &mut out)?;
            assert!(out.get(..150) == bytes.get(9100..9250));
            Ok(())
        })
    }

    #[test]
    fn from_a_message() -> Result {
        with_windows(PAGES, |windows, base, mm| {
            assert!(fill(windows, base, 4 * PAGE_SIZE, mm));
            let mut list = UserIov::new();
            list.push(base, 10)?;
            list.push(at(base, PAGE_SIZE - 10)?, 100)?;
            let text = [0x5a; 60];
            sending(&text, |msg| {
                let mem = windows.read();
                let put = mem.write_list_from_iter(&list, 4, 50, msg.source());
                assert_eq!(put, Some(50));
                assert_eq!(msg.left(), 10);
                // What is left, not what there is room for.
                let put = mem.write_list_from_iter(&list, 54, 50, msg.source());
                assert_eq!(put, Some(10));
            })?;
            let bytes = pattern(PAGE_SIZE)?;
            assert_eq!(mm.read::<[u8; 2]>(at(base, 3)?)?, [bytes[3], 0x5a]);
            let mut out = [0; 55];
            mm.read_slice(at(base, PAGE_SIZE - 10)?, &mut out)?;
            assert!(out[..54] == [0x5a; 54] && out[54] != 0x5a);
            Ok(())
        })
    }

    /// The memory of a sender that faults is the end, not something to wait for.
    #[test]
    fn from_a_message_that_is_not_there() -> Result {
        with_windows(2, |windows, base, mm| {
            assert!(fill(windows, base, PAGE_SIZE, mm));
            sending_nothing(100, |msg| {
                let put = windows.read().write_from_iter(base, 100, msg.source());
                assert_eq!(put, None);
                assert_eq!(msg.left(), 100);
            })
        })
    }
}
