// SPDX-License-Identifier: GPL-2.0

//! Suite of the pool of receive buffers, with real memory.

use super::*;

#[kunit_tests(virtio_vsock_pool)]
mod tests {
    use super::*;
    use kernel_ext::skb::SkBuff;

    const RING: usize = 128;
    const LIMIT: usize = 1024 * 1024;
    const LARGE: usize = 60_000;
    /// Packets after which the kind of them is judged.
    const WINDOW: usize = 64;

    fn pool() -> Result<RxPool> {
        RxPool::with(RING, LIMIT)
    }

    /// What the driver does to a device that has `posted` buffers: the blocks that it gets.
    fn feed(pool: &mut RxPool, posted: usize) -> Result<KVec<Block>> {
        let mut blocks = KVec::new();
        while pool.wants(posted + blocks.len()) {
            let class = pool.class();
            let block = pool.get().map_or_else(|| RxPool::make(class), Ok)?;
            pool.add(block.size());
            blocks.push(block, GFP_KERNEL)?;
        }
        Ok(blocks)
    }

    /// A packet of `payload` bytes in a block, which a socket keeps.
    fn lend(pool: &mut RxPool, block: Block, payload: usize) -> Result<SkBuff<()>> {
        pool.sub(block.size());
        let filled = block.filled(HEADER_LEN, payload).map_err(|_| EINVAL)?;
        let (skb, lent) = filled.share(Gfp::Kernel).map_err(|_| ENOMEM)?;
        pool.lend(lent);
        Ok(skb)
    }

    /// `count` packets of so many bytes, each in a block that has room for it, with a pause after
    /// `row` of them.
    fn come(pool: &mut RxPool, count: usize, payload: usize, row: usize) {
        for n in 0..count {
            let size = if payload > SMALL_PAYLOAD {
                Class::Large.size()
            } else {
                pool.class().size()
            };
            pool.note(payload, size);
            if (n + 1) % row == 0 {
                pool.idle();
            }
        }
    }

    #[test]
    fn an_idle_device_has_a_quarter() -> Result {
        let mut pool = pool()?;
        let blocks = feed(&mut pool, 0)?;
        assert_eq!(blocks.len(), RING / 4);
        assert!(blocks
            .iter()
            .all(|block| block.size() == Class::Small.size()));
        assert_eq!(feed(&mut pool, RING / 4)?.len(), 0);
        // A short ring, and little memory.
        assert_eq!(feed(&mut RxPool::with(4, LIMIT)?, 0)?.len(), 4);
        let mut least = RxPool::with(1024, 0)?;
        assert_eq!(
            feed(&mut least, 0)?.len(),
            Class::Large.size() / Class::Small.size()
        );
        Ok(())
    }

    #[test]
    fn blocks_come_back_from_sockets() -> Result {
        let mut pool = pool()?;
        let mut blocks = feed(&mut pool, 0)?;
        let block = blocks.pop().ok_or(EINVAL)?;
        let skb = lend(&mut pool, block, 3000)?;
        assert!(pool.get().is_none());
        assert_eq!(pool.lent.bytes(), Class::Small.size());
        drop(skb);
        assert!(pool.get().is_some());
        assert_eq!(pool.lent.bytes(), 0);
        Ok(())
    }

    /// Neither what sockets have nor what is empty is kept without end, and all of it is given up
    /// in the end: nothing leaks, whoever has the last reference.
    #[test]
    fn what_is_kept_is_bounded() -> Result {
        let mut pool = pool()?;
        let mut held = KVec::new();
        for n in 0..200 {
            let class = if n % 3 == 0 {
                Class::Large
            } else {
                Class::Small
            };
            let skb = lend(&mut pool, RxPool::make(class)?, 3000)?;
            assert!(pool.lent.bytes() <= LIMIT / 4);
            // Some stay, some are back at once.
            if n % 2 == 0 {
                held.push(skb, GFP_KERNEL)?;
            }
            pool.keep(RxPool::make(class)?);
            assert!(pool.kept <= LIMIT / 4);
        }
        assert!(pool.kept > LIMIT / 8);
        let mut got = 0;
        while let Some(block) = pool.get() {
            assert_eq!(block.size(), Class::Small.size());
            got += 1;
        }
        assert!(got > 0);
        drop(pool);
        for skb in &held {
            assert_eq!(skb.len(), 3000);
        }
        Ok(())
    }

    #[test]
    fn bulk_gets_large_blocks_while_it_lasts() -> Result {
        let mut pool = pool()?;
        let mut small = feed(&mut pool, 0)?;
        come(&mut pool, WINDOW, SMALL_PAYLOAD, 10);
        assert_eq!(pool.class(), Class::Large);
        // What the device has is used up; it never has more than the limit.
        let large = feed(&mut pool, 0)?;
        assert!(large
            .iter()
            .all(|block| block.size() == Class::Large.size()));
        let bytes = (large.len() * Class::Large.size()) + (small.len() * Class::Small.size());
        assert!(!large.is_empty() && bytes <= LIMIT);
        while let Some(block) = small.pop() {
            assert!(!pool.is_current(&block, large.len()));
            pool.sub(block.size());
            pool.keep(block);
        }
        come(&mut pool, 100, LARGE, 10);
        // A pause in the bulk changes nothing, its end does.
        come(&mut pool, 500, 64, 10);
        assert_eq!(pool.class(), Class::Large);
        come(&mut pool, 1000, 64, 10);
        assert_eq!(pool.class(), Class::Small);
        Ok(())
    }

    /// A device that never puts more than a small block holds into a large one gets small ones,
    /// and is tried less and less often.
    #[test]
    fn a_device_that_makes_no_use_of_large_blocks() -> Result {
        let mut pool = pool()?;
        let mut large = 0usize;
        for n in 0..100_000u32 {
            let size = pool.class().size();
            pool.note(SMALL_PAYLOAD, size);
            if n > 50_000 && size == Class::Large.size() {
                large += 1;
            }
        }
        // Two windows of each try, which come after 255 others.
        assert!(large > 0 && large <= 4 * 2 * WINDOW);
        Ok(())
    }

    #[test]
    fn no_memory_for_large_blocks() -> Result {
        let mut pool = pool()?;
        come(&mut pool, WINDOW, SMALL_PAYLOAD, 10);
        assert_eq!(pool.class(), Class::Large);
        pool.made(&RxPool::make(Class::Medium)?);
        assert_eq!(pool.class(), Class::Small);
        come(&mut pool, 200, SMALL_PAYLOAD, 10);
        assert_eq!(pool.class(), Class::Small);
        Ok(())
    }

    #[test]
    fn many_small_packets_at_once_get_more_buffers() -> Result {
        let mut pool = pool()?;
        come(&mut pool, 1000, 64, 1000);
        assert_eq!(pool.wanted(), RING);
        assert_eq!(feed(&mut pool, 0)?.len(), RING);
        // Few at once do not need them.
        come(&mut pool, 10_000, 64, 2);
        assert_eq!(pool.wanted(), RING / 4);
        Ok(())
    }
}
