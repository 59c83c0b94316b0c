// SPDX-License-Identifier: GPL-2.0

//! Suite of [`crate::skb_list`].

use kernel::prelude::*;

#[kunit_tests(kernel_ext_skb_list)]
mod tests {
    use super::*;
    use crate::{
        gfp::Gfp,
        kunit::{
            Dropped,
            Drops, //
        },
        skb::SkBuff,
        skb_list::SkbList, //
    };

    fn list(count: u32) -> Result<SkbList<u32>> {
        let mut list = SkbList::new();
        for n in 0..count {
            list.push_back(SkBuff::alloc(0, 0, Gfp::Kernel, n)?);
        }
        Ok(list)
    }

    fn is(list: &SkbList<u32>, expected: &[u32]) -> bool {
        list.iter().count() == expected.len()
            && list.is_empty() == expected.is_empty()
            && list
                .iter()
                .map(|skb| *skb.cb())
                .eq(expected.iter().copied())
            && list.front().map(|skb| *skb.cb()) == expected.first().copied()
            && list.back().map(|skb| *skb.cb()) == expected.last().copied()
    }

    #[test]
    fn empty() {
        let mut list = SkbList::<u32>::new();
        assert!(is(&list, &[]));
        assert!(list.pop_front().is_none());
    }

    #[test]
    fn first_in_first_out() -> Result {
        let mut list = list(3)?;
        assert!(is(&list, &[0, 1, 2]));
        list.push_front(SkBuff::alloc(0, 0, Gfp::Kernel, 9)?);
        assert!(is(&list, &[9, 0, 1, 2]));
        for expected in [9, 0, 1, 2] {
            assert_eq!(list.pop_front().map(|skb| *skb.cb()), Some(expected));
        }
        assert!(is(&list, &[]));
        // The end was not left over.
        list.push_back(SkBuff::alloc(0, 0, Gfp::Kernel, 4)?);
        list.push_front(SkBuff::alloc(0, 0, Gfp::Kernel, 3)?);
        assert!(is(&list, &[3, 4]));
        Ok(())
    }

    #[test]
    fn drop_drops_every_buffer_once() -> Result {
        let drops = Drops::new()?;
        let mut list = SkbList::<Dropped>::new();
        for _ in 0..5 {
            list.push_back(SkBuff::alloc(0, 0, Gfp::Kernel, drops.item())?);
        }
        drop(list.pop_front());
        assert_eq!(drops.count(), 1);
        drop(list);
        assert_eq!(drops.count(), 5);
        Ok(())
    }
}
