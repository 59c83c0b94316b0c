// SPDX-License-Identifier: GPL-2.0

//! Suite of the blocks of [`crate::skb`].

use kernel::prelude::*;

#[kunit_tests(kernel_ext_skb_block)]
mod tests {
    use super::*;
    use crate::{
        gfp::Gfp,
        kunit::{
            pattern,
            receiving,
            sending, //
        },
        skb::{
            Block,
            Filled,
            Room,
            SkBuff, //
        }, //
    };

    const HEAD: usize = 44;

    /// What a device does: writes behind the head.
    fn write(block: &mut Block, bytes: &[u8]) {
        assert!(HEAD + bytes.len() <= block.capacity());
        // SAFETY: The block has so many bytes, and is ours.
        let to = unsafe { block.device_start().add(HEAD) };
        // SAFETY: As above.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    /// A block of that order with a pattern of `len` bytes in it, and the pattern.
    fn filled(order: u8, len: usize) -> Result<(Filled, KVVec<u8>)> {
        let bytes = pattern(len)?;
        let mut block = Block::new(order, Gfp::Kernel)?;
        write(&mut block, &bytes);
        let filled = block.filled(HEAD, len).map_err(|_| EINVAL)?;
        Ok((filled, bytes))
    }

    fn content(skb: &SkBuff<()>) -> Result<KVVec<u8>> {
        let mut copy = KVVec::new();
        copy.resize(skb.len(), 0, GFP_KERNEL)?;
        receiving(&mut copy, |msg| skb.copy_to_iter(0, msg.dest(), skb.len()))?.0?;
        Ok(copy)
    }

    #[test]
    fn a_new_block_is_zero() -> Result {
        assert!(Block::new(Block::MAX_ORDER + 1, Gfp::Kernel).is_err());
        for order in 0..=Block::MAX_ORDER {
            let block = Block::new(order, Gfp::Kernel)?;
            assert_eq!(block.order(), order);
            assert_eq!(block.size(), Block::len_of(order));
            assert_eq!(block.capacity() + Block::SKEW, block.size());
            assert!(block.copy_head::<HEAD>().iter().all(|byte| *byte == 0));
            let len = block.capacity() - HEAD;
            let filled = block.filled(HEAD, len).map_err(|_| EINVAL)?;
            let (skb, _) = filled.share(Gfp::Kernel).map_err(|_| ENOMEM)?;
            assert!(content(&skb)?.iter().all(|byte| *byte == 0));
        }
        Ok(())
    }

    #[test]
    fn a_payload_ends_with_the_block() -> Result {
        let block = Block::new(0, Gfp::Atomic)?;
        let room = block.capacity() - HEAD;
        let Err(block) = block.filled(HEAD, room + 1) else {
            return Err(EINVAL);
        };
        let Err(block) = block.filled(usize::MAX, 1) else {
            return Err(EINVAL);
        };
        let Err(block) = block.filled(1, usize::MAX) else {
            return Err(EINVAL);
        };
        let filled = block.filled(HEAD, room).map_err(|_| EINVAL)?;
        assert_eq!(filled.len(), room);
        assert!(filled.is_dense());
        let sparse = filled.into_block().filled(HEAD, 1000).map_err(|_| EINVAL)?;
        assert!(!sparse.is_dense());
        Ok(())
    }

    #[test]
    fn a_token_is_the_block() -> Result {
        for order in [0, 2, Block::MAX_ORDER] {
            let mut block = Block::new(order, Gfp::Kernel)?;
            write(&mut block, &[7; 100]);
            let token = block.into_token();
            // SAFETY: It came from `into_token` just now.
            let block = unsafe { Block::from_token(token) };
            assert_eq!(block.order(), order);
            let filled = block.filled(HEAD, 100).map_err(|_| EINVAL)?;
            let mut copy = SkBuff::alloc_linear(0, 100, Gfp::Kernel, ())?;
            copy.append_filled(&[], &filled, 0, 100)?;
            assert_eq!(copy.linear(), Some(&[7; 100][..]));
        }
        Ok(())
    }

    /// The block is back when the last who has it drops it, and has what was in it.
    #[test]
    fn a_shared_block_comes_back() -> Result {
        for (order, len) in [(0, 4000), (Block::MAX_ORDER, 65_000)] {
            let (filled, bytes) = filled(order, len)?;
            let (skb, lent) = filled.share(Gfp::Atomic).map_err(|_| ENOMEM)?;
            assert_eq!((skb.len(), lent.size()), (len, Block::len_of(order)));
            assert!(skb.is_nonlinear());
            assert!(skb.truesize() >= lent.size());
            let Err(lent) = lent.take_back() else {
                return Err(EBUSY);
            };
            assert!(content(&skb)?[..] == bytes[..]);
            drop(skb);
            let Ok(block) = lent.take_back() else {
                return Err(EBUSY);
            };
            assert_eq!(block.order(), order);
            let again = block.filled(HEAD, len).map_err(|_| EINVAL)?;
            let (skb, lent) = again.share(Gfp::Kernel).map_err(|_| ENOMEM)?;
            // Whoever lent it may forget it.
            drop(lent);
            assert!(content(&skb)?[..] == bytes[..]);
        }
        Ok(())
    }

    /// Fills a payload of `len` bytes in a room, and has the block back when it was dropped.
    fn fill(block: Block, len: usize, linear: bool) -> Result<Block> {
        let (room, lent) = block.split();
        assert_eq!(room.size(), lent.size());
        let Err(lent) = lent.take_back() else {
            return Err(EBUSY);
        };
        let bytes = pattern(len)?;
        let skb = SkBuff::alloc_in(HEAD, room, len, Gfp::Kernel, ());
        let mut skb = skb.map_err(|()| ENOMEM)?;
        assert!(skb.is_empty());
        assert_eq!(skb.is_nonlinear(), !linear);
        assert!(skb.truesize() >= lent.size());
        assert_eq!(skb.head(), [0; HEAD]);
        skb.head_mut().fill(0xff);
        if !linear {
            let short = sending(&bytes, |msg| skb.fill_from_iter(msg.source(), len - 1))?;
            assert_eq!(short, Err(EMSGSIZE));
        }
        // What there is not is not taken, and nothing is missing after that.
        let ended = sending(&bytes[..len - 1], |msg| {
            skb.fill_from_iter(msg.source(), len)
        })?;
        assert_eq!(ended, Err(EFAULT));
        assert!(skb.is_empty());
        sending(&bytes, |msg| skb.fill_from_iter(msg.source(), len))??;
        let again = sending(&bytes, |msg| skb.fill_from_iter(msg.source(), len))?;
        assert_eq!(again, Err(EINVAL));
        assert!(content(&skb)?[..] == bytes[..]);
        let Err(lent) = lent.take_back() else {
            return Err(EBUSY);
        };
        drop(skb);
        lent.take_back().map_err(|_| EBUSY)
    }

    /// A payload to send, in memory that is back when the packet was dropped.
    #[test]
    fn a_room_is_filled_and_comes_back() -> Result {
        for order in 0..=Block::MAX_ORDER {
            let size = Block::len_of(order);
            let most = (0..size)
                .rev()
                .find(|len| Room::has_linear(order, HEAD, *len));
            let most = most.ok_or(EINVAL)?;
            let mut block = Block::new(order, Gfp::Kernel)?;
            for (len, linear) in [(most, true), (most + 1, false), (size, false), (1000, true)] {
                block = fill(block, len, linear)?;
            }
        }
        Ok(())
    }

    /// A room that is not used gives its reference up as well.
    #[test]
    fn a_room_that_is_too_small_is_given_back() -> Result {
        let mut block = Block::new(0, Gfp::Kernel)?;
        for len in [Block::len_of(0) + 1, usize::MAX, 0] {
            let (room, lent) = block.split();
            assert_eq!(
                SkBuff::alloc_in(HEAD, room, len, Gfp::Kernel, 7_u32).err(),
                Some(7)
            );
            block = lent.take_back().map_err(|_| EBUSY)?;
        }
        Ok(())
    }

    #[test]
    fn what_is_copied_has_a_head_and_an_end() -> Result {
        let (filled, bytes) = filled(0, 1000)?;
        let mut copy = SkBuff::alloc_linear(0, 500, Gfp::Kernel, ())?;
        assert_eq!(copy.append_filled(&[], &filled, 1000, 1), Err(EFAULT));
        assert_eq!(copy.append_filled(&[], &filled, usize::MAX, 1), Err(EFAULT));
        let room = copy.tailroom();
        assert_eq!(
            copy.append_filled(&[1, 2], &filled, 0, room - 1),
            Err(EMSGSIZE)
        );
        assert!(copy.is_empty());
        copy.append_filled(&[1, 2], &filled, 600, 400)?;
        assert_eq!(
            copy.linear().and_then(|all| all.get(..2)),
            Some(&[1, 2][..])
        );
        assert!(copy.linear().and_then(|all| all.get(2..)) == bytes.get(600..));
        Ok(())
    }
}
