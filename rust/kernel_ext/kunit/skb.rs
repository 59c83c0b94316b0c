// SPDX-License-Identifier: GPL-2.0

//! Suite of [`crate::skb`].

use kernel::prelude::*;

#[kunit_tests(kernel_ext_skb)]
mod tests {
    use super::*;
    use crate::{
        bindings,
        gfp::Gfp,
        kunit::{
            pattern,
            receiving,
            sending,
            Drops,
            KernelSock, //
        },
        skb::SkBuff,
        sock::SockType, //
    };

    const HEAD: usize = 44;
    const LARGE: usize = 200_000;

    fn filled(len: usize) -> Result<SkBuff<()>> {
        let bytes = pattern(len)?;
        let mut skb = SkBuff::alloc(HEAD, len, Gfp::Kernel, ())?;
        sending(&bytes, |msg| skb.fill_from_iter(msg.source(), len))??;
        Ok(skb)
    }

    #[test]
    fn small_buffer_is_linear_with_a_zeroed_head() -> Result {
        let skb = SkBuff::alloc(HEAD, 100, Gfp::Atomic, 7u32)?;
        assert!(!skb.is_nonlinear());
        assert!(skb.is_empty());
        assert_eq!(skb.head().len(), HEAD);
        assert!(skb.head().iter().all(|byte| *byte == 0));
        assert!(skb.tailroom() >= 100);
        assert!(skb.truesize() >= bindings::SKB_TRUESIZE_0 as usize);
        assert_eq!(*skb.cb(), 7);
        Ok(())
    }

    #[test]
    fn append_ends_at_the_room() -> Result {
        let mut skb = SkBuff::alloc(HEAD, 100, Gfp::Kernel, ())?;
        skb.append(&[1; 60])?;
        skb.append(&[2; 40])?;
        assert_eq!(skb.len(), 100);
        assert_eq!(skb.linear().and_then(|b| b.get(59)), Some(&1));
        assert_eq!(skb.linear().and_then(|b| b.get(60)), Some(&2));
        let more = pattern(skb.tailroom().wrapping_add(1))?;
        assert_eq!(skb.append(&more), Err(EMSGSIZE));
        assert_eq!(skb.len(), 100);
        skb.append(more.get(1..).unwrap_or_default())?;
        assert_eq!(skb.tailroom(), 0);
        Ok(())
    }

    #[test]
    fn sizes_that_no_buffer_has() {
        assert!(SkBuff::alloc(usize::MAX, 1, Gfp::Kernel, ()).is_err());
        assert!(SkBuff::alloc(HEAD, usize::MAX - HEAD, Gfp::Kernel, ()).is_err());
        // Modulo 2^32 these are small, and buffers of that size would be there.
        const WRAP: usize = 1 << 32;
        assert!(SkBuff::alloc_linear(HEAD, WRAP, Gfp::Kernel, ()).is_err());
        assert!(SkBuff::alloc_linear(WRAP, HEAD, Gfp::Kernel, ()).is_err());
        assert!(SkBuff::alloc(HEAD, WRAP, Gfp::Kernel, ()).is_err());
    }

    #[test]
    fn large_buffer_has_fragments() -> Result {
        let bytes = pattern(LARGE)?;
        let mut skb = filled(LARGE)?;
        assert!(skb.is_nonlinear());
        assert!(skb.linear().is_none());
        assert_eq!(skb.len(), LARGE);
        assert_eq!(skb.append(&[0]), Err(EMSGSIZE));
        let mut copy = pattern(0)?;
        copy.resize(LARGE, 0, GFP_KERNEL)?;
        receiving(&mut copy, |msg| skb.copy_to_iter(0, msg.dest(), LARGE))?.0?;
        assert!(copy[..] == bytes[..]);
        Ok(())
    }

    #[test]
    fn fill_needs_room() -> Result {
        let mut skb = SkBuff::alloc(HEAD, 100, Gfp::Kernel, ())?;
        let bytes = pattern(skb.tailroom().wrapping_add(1))?;
        let ret = sending(&bytes, |msg| skb.fill_from_iter(msg.source(), bytes.len()))?;
        assert_eq!(ret, Err(EMSGSIZE));
        Ok(())
    }

    #[test]
    fn copy_stays_inside() -> Result {
        let skb = filled(100)?;
        let bytes = pattern(100)?;
        let mut room = [0; 100];
        receiving(&mut room, |msg| skb.copy_to_iter(30, msg.dest(), 70))?.0?;
        assert!(room[..70] == bytes[30..]);
        for (offset, len) in [
            (31, 70),
            (0, 101),
            (101, 0),
            (usize::MAX, 1),
            (1, usize::MAX),
        ] {
            let (ret, _) = receiving(&mut room, |msg| skb.copy_to_iter(offset, msg.dest(), len))?;
            assert_eq!(ret, Err(EFAULT));
        }
        Ok(())
    }

    #[test]
    fn payload_is_changed_and_cut() -> Result {
        let mut skb = filled(100)?;
        let bytes = pattern(100)?;
        let room = skb.tailroom();
        skb.linear_mut().ok_or(EINVAL)?.copy_within(40.., 0);
        skb.truncate(101);
        assert_eq!(skb.len(), 100);
        skb.truncate(60);
        assert!(skb.linear() == bytes.get(40..));
        assert_eq!(skb.tailroom(), room.wrapping_add(40));
        skb.append(b"end")?;
        assert!(skb.linear().and_then(|all| all.get(60..)) == Some(b"end"));
        let mut large = SkBuff::alloc(HEAD, LARGE, Gfp::Kernel, ())?;
        assert!(large.linear_mut().is_none());
        large.truncate(0);
        assert!(large.is_nonlinear());
        Ok(())
    }

    #[test]
    fn append_from_another_buffer() -> Result {
        let bytes = pattern(LARGE)?;
        let other = filled(LARGE)?;
        let mut skb = SkBuff::alloc(0, 1000, Gfp::Kernel, ())?;
        skb.append_from(&other, 70_000, 600)?;
        assert!(skb.linear() == bytes.get(70_000..70_600));
        assert_eq!(skb.append_from(&other, LARGE - 99, 100), Err(EFAULT));
        let room = skb.tailroom();
        assert_eq!(skb.append_from(&other, 0, room + 1), Err(EMSGSIZE));
        assert_eq!(skb.len(), 600);
        Ok(())
    }

    #[test]
    fn pull_moves_payload_to_the_head() -> Result {
        for len in [100, LARGE] {
            let bytes = pattern(len)?;
            let mut skb = filled(len)?;
            skb.pull(30)?;
            assert_eq!(skb.len(), len - 30);
            let mut room = [0; 70];
            receiving(&mut room, |msg| skb.copy_to_iter(0, msg.dest(), 70))?.0?;
            assert!(room[..] == bytes[30..100]);
            assert_eq!(skb.pull(len - 29), Err(EFAULT));
        }
        Ok(())
    }

    #[test]
    fn control_block_is_dropped_once() -> Result {
        let drops = Drops::new()?;
        let skb = SkBuff::alloc(0, 1, Gfp::Kernel, drops.item())?;
        let (skb, old) = skb.replace_cb((drops.item(), 5u64));
        assert_eq!(drops.count(), 0);
        drop(old);
        assert_eq!(drops.count(), 1);
        assert_eq!(skb.cb().1, 5);
        drop(skb);
        assert_eq!(drops.count(), 2);
        Ok(())
    }

    #[test]
    fn owner_is_charged_for_as_long_as_the_buffer_is_there() -> Result {
        let (sock, other) = (
            KernelSock::new(SockType::Stream)?,
            KernelSock::new(SockType::Stream)?,
        );
        let free = sock.sender_memory();
        let mut skb = SkBuff::alloc(HEAD, 1000, Gfp::Kernel, ())?;
        assert!(!skb.has_owner());
        skb.set_owner(sock.sock());
        assert_eq!(sock.sender_memory(), free + skb.truesize());
        assert!(skb.is_owned_by(sock.sock()));
        assert!(!skb.is_owned_by(other.sock()));
        assert!(skb.owner_net().is_some());

        let mut answer = SkBuff::alloc(HEAD, 0, Gfp::Kernel, ())?;
        answer.set_owner_of(&skb);
        assert_eq!(
            sock.sender_memory(),
            free + skb.truesize() + answer.truesize()
        );
        drop(answer);
        skb.orphan();
        assert!(!skb.has_owner());
        assert_eq!(sock.sender_memory(), free);

        skb.set_owner(sock.sock());
        drop(skb);
        assert_eq!(sock.sender_memory(), free);
        Ok(())
    }
}
