// SPDX-License-Identifier: GPL-2.0

//! Suites of [`crate::owner_mm`], [`crate::user_iov`] and [`crate::eventfd`].

use kernel::prelude::*;

#[kunit_tests(kernel_ext_owner_mm)]
mod owner_mm_tests {
    use super::*;
    use crate::{
        kunit::map_user_memory,
        owner_mm::{
            OwnerAddr,
            OwnerMm, //
        }, //
    };
    use kernel::page::PAGE_SIZE;

    /// An address of the kernel.
    const KERNEL: OwnerAddr = OwnerAddr::new(usize::MAX - 2 * PAGE_SIZE);

    #[test]
    fn addresses() {
        let addr = OwnerAddr::new(usize::MAX - 1);
        assert_eq!(addr.checked_add(1).map(OwnerAddr::get), Some(usize::MAX));
        assert_eq!(addr.checked_add(2), None);
        assert!(!KERNEL.access_ok(1));
        assert!(OwnerAddr::new(PAGE_SIZE).access_ok(PAGE_SIZE));
        assert!(!OwnerAddr::new(PAGE_SIZE).access_ok(usize::MAX));
    }

    #[test]
    fn thread_of_the_kernel_has_no_memory() {
        assert!(OwnerMm::of_current().is_none());
    }

    #[test]
    fn values_and_slices() -> Result {
        let base = map_user_memory(PAGE_SIZE)?;
        let end = base.checked_add(PAGE_SIZE).ok_or(EINVAL)?;
        let mm = OwnerMm::of_current().ok_or(EINVAL)?;
        assert!(mm.is_current());
        mm.enter(|mm| {
            mm.put_u16(base, 0x1234)?;
            assert_eq!(mm.get_u16(base), Ok(0x1234));
            mm.write(base, &[1u8, 2, 3, 4])?;
            assert_eq!(mm.read::<u32>(base).map(u32::from_le), Ok(0x0403_0201));

            let mut out = [0; 8];
            for bad in [KERNEL, OwnerAddr::new(8), end] {
                assert_eq!(mm.get_u16(bad), Err(EFAULT));
                assert_eq!(mm.put_u16(bad, 1), Err(EFAULT));
                assert_eq!(mm.read_slice(bad, &mut out), Err(EFAULT));
                assert_eq!(mm.write_slice(bad, &out), Err(EFAULT));
            }
            // Half of it is there.
            let last = base.checked_add(PAGE_SIZE - 4).ok_or(EINVAL)?;
            assert_eq!(mm.read_slice(last, &mut out), Err(EFAULT));
            mm.read_slice(last, &mut out[..4])
        })?
    }
}

#[kunit_tests(kernel_ext_user_iov)]
mod user_iov_tests {
    use super::*;
    use crate::{
        gfp::Gfp,
        kunit::{
            map_user_memory,
            pattern, //
        },
        owner_mm::{
            OwnerAddr,
            OwnerMm, //
        },
        skb::SkBuff,
        user_iov::UserIov, //
    };
    use kernel::page::PAGE_SIZE;

    const ADDR: OwnerAddr = OwnerAddr::new(PAGE_SIZE);

    #[test]
    fn room() -> Result {
        let mut iov = UserIov::new();
        assert!(iov.is_empty());
        for n in 0..UserIov::MAX {
            iov.push(ADDR.checked_add(n).ok_or(EINVAL)?, 3)?;
        }
        assert_eq!(iov.push(ADDR, 3), Err(ENOBUFS));
        assert_eq!((iov.len(), iov.bytes()), (UserIov::MAX, 3 * UserIov::MAX));
        // They stayed what they were while the list grew.
        for (n, piece) in iov.pieces().enumerate() {
            assert_eq!(Some(piece), ADDR.checked_add(n).map(|addr| (addr, 3)));
        }
        iov.clear();
        assert_eq!((iov.len(), iov.bytes()), (0, 0));
        iov.push(ADDR, 1)
    }

    #[test]
    fn sum_does_not_overflow() -> Result {
        let mut iov = UserIov::new();
        iov.push(ADDR, usize::MAX)?;
        assert_eq!(iov.push(ADDR, 1), Err(EFAULT));
        assert_eq!((iov.len(), iov.bytes()), (1, usize::MAX));
        iov.push(ADDR, 0)
    }

    /// Pieces of 300 bytes, 1000 apart.
    fn pieces(base: OwnerAddr, count: usize) -> Result<UserIov> {
        let mut iov = UserIov::new();
        for n in 0..count {
            iov.push(base.checked_add(n * 1000).ok_or(EINVAL)?, 300)?;
        }
        Ok(iov)
    }

    #[test]
    fn reads_what_the_pieces_have() -> Result {
        let base = map_user_memory(4 * PAGE_SIZE)?;
        let bytes = pattern(4 * PAGE_SIZE)?;
        let iov = pieces(base, 10)?;
        OwnerMm::of_current().ok_or(EINVAL)?.enter(|mm| {
            mm.write_slice(base, &bytes)?;
            let mut skb = SkBuff::alloc(0, 3000, Gfp::Kernel, ())?;
            let mut source = iov.source(mm);
            assert_eq!(source.len(), 3000);
            skb.fill_from_iter(&mut source, 3000)?;
            assert_eq!(source.len(), 0);
            for n in 0..10 {
                let piece = skb.linear().and_then(|all| all.get(300 * n..300 * n + 300));
                assert!(piece == bytes.get(1000 * n..1000 * n + 300));
            }
            Ok(())
        })?
    }

    #[test]
    fn writes_the_pieces_and_nothing_else() -> Result {
        let base = map_user_memory(4 * PAGE_SIZE)?;
        let bytes = pattern(3000)?;
        let iov = pieces(base, 10)?;
        OwnerMm::of_current().ok_or(EINVAL)?.enter(|mm| {
            let mut skb = SkBuff::alloc(0, 3000, Gfp::Kernel, ())?;
            skb.append(&bytes)?;
            let mut dest = iov.dest(mm);
            assert_eq!(dest.len(), 3000);
            skb.copy_to_iter(0, &mut dest, 3000)?;
            let mut out = [0; 1000];
            for n in 0..10 {
                mm.read_slice(base.checked_add(1000 * n).ok_or(EINVAL)?, &mut out)?;
                assert!(out.get(..300) == bytes.get(300 * n..300 * n + 300));
                assert!(out[300..].iter().all(|byte| *byte == 0));
            }
            Ok(())
        })?
    }

    /// All or nothing is taken, and the position of an iterator is put back.
    #[test]
    fn memory_that_is_not_there() -> Result {
        const LEN: usize = 200_000;

        let base = map_user_memory(PAGE_SIZE)?;
        let mut iov = UserIov::new();
        iov.push(base, 100)?;
        iov.push(base.checked_add(PAGE_SIZE - 50).ok_or(EINVAL)?, LEN)?;
        OwnerMm::of_current().ok_or(EINVAL)?.enter(|mm| {
            // Linear and in fragments.
            for len in [200, LEN] {
                let mut skb = SkBuff::alloc(0, len, Gfp::Kernel, ())?;
                let mut source = iov.source(mm);
                assert_eq!(skb.fill_from_iter(&mut source, len), Err(EFAULT));
                assert_eq!(source.len(), LEN + 100);
                assert!(skb.is_empty());
            }
            let mut skb = SkBuff::alloc(0, 200, Gfp::Kernel, ())?;
            skb.append(&[1; 200])?;
            let mut dest = iov.dest(mm);
            assert_eq!(skb.copy_to_iter(0, &mut dest, 200), Err(EFAULT));
            assert_eq!(dest.len(), LEN + 100);
            Ok(())
        })?
    }
}

#[kunit_tests(kernel_ext_eventfd)]
mod eventfd_tests {
    use super::*;
    use crate::eventfd::{
        EventFd,
        EventFdFile, //
    };

    #[test]
    fn no_such_descriptor() {
        for fd in [-1, i32::MIN, i32::MAX] {
            assert!(EventFd::from_fd(fd).is_err_and(|e| e == EBADF));
            assert!(EventFdFile::from_fd(fd).is_err_and(|e| e == EBADF));
        }
    }
}
