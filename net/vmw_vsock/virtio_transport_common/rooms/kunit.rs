// SPDX-License-Identifier: GPL-2.0

//! Suite of [`super::Rooms`].

use kernel::prelude::*;

#[kunit_tests(virtio_transport_common_rooms)]
mod tests {
    use super::super::*;
    use core::ops::RangeInclusive;
    use kernel_ext::skb::SkBuff;

    const HEAD: usize = 44;

    /// Sizes of payloads that go into rooms.
    const SIZES: RangeInclusive<usize> = SMALL + 1..=64 * 1024;

    /// Two users.
    const ONE: Owner = Owner {
        net: 1,
        user: Some(User::new(1)),
    };
    const OTHER: Owner = Owner { net: 2, ..ONE };

    fn rooms() -> Result<Pin<KBox<Rooms>>> {
        KBox::pin_init(Rooms::new(), GFP_KERNEL)
    }

    /// A packet of `len` bytes, and whether its room is new.
    fn packet(rooms: &Rooms, len: usize, whose: Owner) -> Result<(SkBuff<()>, bool)> {
        let Taken { room, is_new } = rooms.get(HEAD, len, whose, Gfp::Kernel).ok_or(ENOMEM)?;
        let skb = SkBuff::alloc_in(HEAD, room, len, Gfp::Kernel, ());
        Ok((skb.map_err(|()| ENOMEM)?, is_new))
    }

    fn is_new(rooms: &Rooms, len: usize, whose: Owner) -> Result<bool> {
        Ok(packet(rooms, len, whose)?.1)
    }

    fn bytes(rooms: &Rooms) -> usize {
        match &*rooms.lists.lock() {
            Some(lists) => lists.bytes(),
            None => 0,
        }
    }

    #[test]
    fn a_packet_takes_no_more_than_its_queue_allows() -> Result {
        let rooms = rooms()?;
        assert!(order_for(HEAD, SMALL).is_none());
        assert!(order_for(HEAD, SIZES.end() + 1).is_none());
        assert!(order_for(usize::MAX, *SIZES.end()).is_some());
        let round = [4096, 8192, 16384, 32768, 65536];
        for len in Iterator::chain(SIZES.step_by(97), round) {
            for head in [0, HEAD] {
                // With larger pages, not all have a room.
                let Some(order) = order_for(head, len) else {
                    assert!(Block::len_of(0) > 4096);
                    continue;
                };
                assert!(len <= Block::len_of(order));
            }
            if order_for(HEAD, len).is_some() {
                let (skb, _) = packet(&rooms, len, ONE)?;
                assert!(skb.truesize() * 2 <= len * 5);
            }
        }
        Ok(())
    }

    #[test]
    fn a_block_comes_back_to_its_owner() -> Result {
        let rooms = rooms()?;
        for len in [64 * 1024, 40_000] {
            rooms.clear();
            let (first, new) = packet(&rooms, len, ONE)?;
            assert!(new);
            // It is in use.
            assert!(is_new(&rooms, len, ONE)?);
            assert!(!is_new(&rooms, len, ONE)?);
            // Nobody else gets it.
            drop(first);
            assert!(is_new(&rooms, len, OTHER)?);
            assert!(is_new(&rooms, len, Owner::DEVICE)?);
            for whose in [ONE, OTHER, Owner::DEVICE, ONE] {
                assert!(!is_new(&rooms, len, whose)?);
            }
        }
        Ok(())
    }

    #[test]
    fn what_is_not_used_is_given_up() -> Result {
        let rooms = rooms()?;
        assert!(!rooms.age());
        let (large, small) = (64 * 1024, 4096);
        assert!(is_new(&rooms, large, ONE)?);
        // One that is used when all is given up is not remembered.
        let (kept, _) = packet(&rooms, large, ONE)?;
        assert!(rooms.age());
        if order_for(HEAD, small).is_some() {
            assert!(is_new(&rooms, small, ONE)?);
            // The large one was not used.
            assert!(rooms.age());
            assert!(bytes(&rooms) < large);
        }
        assert!(!rooms.age());
        assert!(rooms.lists.lock().is_none());
        drop(kept);
        assert!(is_new(&rooms, large, ONE)?);
        rooms.clear();
        assert!(!rooms.age());
        assert!(is_new(&rooms, large, ONE)?);
        Ok(())
    }

    #[test]
    fn there_is_a_limit() -> Result {
        let rooms = rooms()?;
        let mut packets = KVec::with_capacity(200, GFP_KERNEL)?;
        let mut last = 0;
        for len in [4096, 64 * 1024, 16 * 1024, 4096] {
            if order_for(HEAD, len).is_none() {
                continue;
            }
            for _ in 0..SLOTS / 2 + 8 {
                let (skb, new) = packet(&rooms, len, ONE)?;
                assert!(new && bytes(&rooms) <= LIMIT);
                packets.push_within_capacity(skb).map_err(|_| ENOMEM)?;
            }
            last = len;
        }
        packets.clear();
        // What was used last is there again.
        assert!(!is_new(&rooms, last, ONE)?);
        assert!(bytes(&rooms) <= LIMIT);
        Ok(())
    }
}
