// SPDX-License-Identifier: GPL-2.0

//! Suite of the receive queue, with real memory.

use super::*;

#[kunit_tests(virtio_transport_rx_queue)]
mod tests {
    use super::*;
    use kernel_ext::kunit::{
        pattern,
        receiving,
        sending, //
    };
    use vsock_proto::{
        header::HEADER_LEN,
        rx_queue::FIRST_SEGMENT, //
    };

    const BUF_ALLOC: u32 = 64 * 1024;
    const SMALL: u32 = 2 * 1024;
    const EOR: SeqFlags = SeqFlags::EOM.union(SeqFlags::EOR);

    fn stream() -> RxQueue {
        RxQueue::new(SocketType::Stream)
    }

    fn messages() -> RxQueue {
        RxQueue::new(SocketType::SeqPacket)
    }

    /// What a queue counts: bytes, messages, memory.
    fn counted(queue: &RxQueue) -> (usize, u32, usize) {
        (queue.bytes(), queue.messages(), queue.0.memory())
    }

    /// A payload as a carrier makes it, behind the room of a header.
    fn skb_of(bytes: &[u8]) -> Result<SkBuff<()>> {
        let len = bytes.len();
        let mut skb = SkBuff::alloc(HEADER_LEN, len, Gfp::Kernel, ())?;
        sending(bytes, |msg| skb.fill_from_iter(msg.source(), len))??;
        Ok(skb)
    }

    /// Pushes as a worker does, and returns how many segments that needed.
    fn push_payload(
        queue: &mut RxQueue,
        mut payload: Payload<'_>,
        flags: SeqFlags,
        buf_alloc: u32,
    ) -> Result<usize> {
        let mut spare = None;
        let mut segments = 0;
        loop {
            match queue.push(&mut payload, flags, buf_alloc, &mut spare) {
                Ok(()) => {
                    assert!(spare.is_none());
                    return Ok(segments);
                }
                Err(Refused::NeedsSegment(size)) => {
                    spare = Some(Segment::alloc(size, Gfp::Kernel)?);
                    segments += 1;
                }
                Err(Refused::NoRoom) => return Err(ENOBUFS),
            }
        }
    }

    fn push(queue: &mut RxQueue, bytes: &[u8], flags: SeqFlags) -> Result {
        push_payload(queue, Payload::skb(skb_of(bytes)?), flags, BUF_ALLOC).map(|_| ())
    }

    fn read(queue: &mut RxQueue, room: &mut [u8]) -> Result<usize> {
        let len = room.len();
        let mut taken = queue.take_stream(len);
        let ret = receiving(room, |msg| taken.copy_stream(msg, len, false))?.0;
        assert_eq!(
            queue.put_back(&mut taken) as usize,
            *ret.as_ref().unwrap_or(&0)
        );
        ret
    }

    fn peek(queue: &mut RxQueue, room: &mut [u8]) -> Result<usize> {
        let len = room.len();
        let before = counted(queue);
        let mut taken = queue.take_stream(len);
        let ret = receiving(room, |msg| taken.copy_stream(msg, len, true))?.0;
        assert_eq!(queue.put_back(&mut taken), 0);
        assert_eq!(counted(queue), before);
        ret
    }

    /// Reads or peeks a message: credit that was freed, its real length, and whether it ended a
    /// record.
    fn message(
        queue: &mut RxQueue,
        room: &mut [u8],
        peek: bool,
    ) -> Result<Option<(u32, Result<usize>, bool)>> {
        let Some(mut taken) = queue.take_message() else {
            return Ok(None);
        };
        let (ret, end) = receiving(room, |msg| taken.copy_message(msg, peek))?;
        Ok(Some((queue.put_back(&mut taken), ret, end)))
    }

    #[test]
    fn stream_is_read_in_order() -> Result {
        let bytes = pattern(20_000)?;
        let mut queue = stream();
        for (n, piece) in bytes.chunks(1300).enumerate() {
            if n % 2 == 0 {
                push(&mut queue, piece, SeqFlags::NONE)?;
            } else {
                push_payload(&mut queue, Payload::bytes(piece), SeqFlags::NONE, BUF_ALLOC)?;
            }
        }
        assert_eq!(queue.bytes(), bytes.len());
        let mut room = pattern(0)?;
        room.resize(7001, 0, GFP_KERNEL)?;
        let mut seen = 0;
        while queue.bytes() > 0 {
            let peeked = peek(&mut queue, &mut room)?;
            assert!(room.get(..peeked) == bytes.get(seen..seen + peeked));
            room.fill(0);
            assert_eq!(read(&mut queue, &mut room), Ok(peeked));
            assert!(room.get(..peeked) == bytes.get(seen..seen + peeked));
            seen += peeked;
            assert_eq!(queue.bytes(), bytes.len() - seen);
        }
        assert_eq!(seen, bytes.len());
        assert_eq!(counted(&queue), (0, 0, 0));
        Ok(())
    }

    /// A large payload stays where it is, and small ones come behind it.
    #[test]
    fn buffer_with_fragments() -> Result {
        let bytes = pattern(60_000)?;
        let mut queue = stream();
        let skb = skb_of(&bytes)?;
        assert!(skb.is_nonlinear());
        let truesize = skb.truesize();
        let segments = push_payload(&mut queue, Payload::skb(skb), SeqFlags::NONE, BUF_ALLOC)?;
        assert_eq!((segments, queue.0.memory()), (0, truesize));
        push(&mut queue, b"x", SeqFlags::NONE)?;
        let mut room = pattern(0)?;
        room.resize(60_001, 0, GFP_KERNEL)?;
        assert_eq!(read(&mut queue, &mut room), Ok(60_001));
        assert!(room.get(..60_000) == Some(&bytes[..]));
        assert_eq!(room.get(60_000), Some(&b'x'));
        assert_eq!(counted(&queue), (0, 0, 0));
        Ok(())
    }

    /// A payload in fragments that take too much memory is copied, to as many segments as it needs.
    #[test]
    fn wasteful_buffer_is_copied() -> Result {
        let bytes = pattern(60_000)?;
        for flags in [SeqFlags::NONE, EOR] {
            let mut queue = if flags == SeqFlags::NONE {
                stream()
            } else {
                messages()
            };
            // Pages of which only the first tenth is payload.
            let mut skb = skb_of(&bytes)?;
            skb.pull(54_000)?;
            let segments = push_payload(&mut queue, Payload::skb(skb), flags, BUF_ALLOC)?;
            assert!(segments > 1);
            assert!(queue.0.memory() < 15_000);
            let mut room = pattern(0)?;
            room.resize(6000, 0, GFP_KERNEL)?;
            if flags == SeqFlags::NONE {
                assert_eq!(read(&mut queue, &mut room), Ok(6000));
            } else {
                let read = message(&mut queue, &mut room, false)?;
                assert!(read == Some((6000, Ok(6000), true)));
            }
            assert!(room[..] == bytes[54_000..]);
            assert_eq!(counted(&queue), (0, 0, 0));
        }
        Ok(())
    }

    #[test]
    fn small_payloads_share_a_segment() -> Result {
        for flags in [SeqFlags::NONE, SeqFlags::EOM] {
            let mut queue = if flags == SeqFlags::NONE {
                stream()
            } else {
                messages()
            };
            let mut segments = 0;
            for n in 0..1000 {
                segments += push_payload(&mut queue, Payload::bytes(&[0; 64]), flags, BUF_ALLOC)?;
                // The first one is small.
                assert!(n > 0 || queue.0.memory() < 1500);
            }
            assert!(segments < 22);
            // Besides the bytes themselves, what is left for a packet to take.
            assert!(queue.0.memory() < 1000 * 84);
            drop(queue.purge());
        }
        Ok(())
    }

    /// Whoever respects the credit is not refused, whatever the size of the packets.
    #[test]
    fn credit_is_enough_for_any_size() -> Result {
        for buf_alloc in [SMALL, 256 * 1024] {
            for len in [1, 63, 128, 200, 300, 700] {
                for flags in [SeqFlags::NONE, SeqFlags::EOM] {
                    let bytes = pattern(len)?;
                    let mut queue = if flags == SeqFlags::NONE {
                        stream()
                    } else {
                        messages()
                    };
                    let count = buf_alloc as usize / len;
                    for n in 0..count {
                        // Now and then one in a buffer of its own.
                        let payload = if n % 16 == 0 {
                            Payload::skb(skb_of(&bytes)?)
                        } else {
                            Payload::bytes(&bytes)
                        };
                        push_payload(&mut queue, payload, flags, buf_alloc)?;
                    }
                    assert_eq!(queue.bytes(), count * len);
                    assert!(queue.0.memory() <= count * len * 5 / 2 + 16 * 1024);
                    let mut room = pattern(0)?;
                    room.resize(len, 0, GFP_KERNEL)?;
                    for _ in 0..count {
                        if flags == SeqFlags::NONE {
                            assert_eq!(read(&mut queue, &mut room), Ok(len));
                        } else {
                            let read = message(&mut queue, &mut room, false)?;
                            assert!(read == Some((len as u32, Ok(len), false)));
                        }
                        assert!(room[..] == bytes[..]);
                    }
                    assert_eq!(counted(&queue), (0, 0, 0));
                }
            }
        }
        Ok(())
    }

    /// Who sends more than there is credit for, or endless messages of nothing, is refused.
    #[test]
    fn memory_has_a_limit() -> Result {
        let bytes = pattern(60_000)?;
        let mut queue = messages();
        let mut count = 0;
        while push(&mut queue, &bytes, SeqFlags::EOM).is_ok() {
            assert!(queue.0.memory() <= RxQueue::limit(BUF_ALLOC));
            count += 1;
        }
        assert!(count > 1);
        // What was refused in the middle of a message goes with the connection.
        drop(queue.purge());
        for _ in 0..count {
            push(&mut queue, &bytes, SeqFlags::EOM)?;
        }
        let mut empty = 0;
        while push_payload(&mut queue, Payload::bytes(&[]), SeqFlags::EOM, BUF_ALLOC).is_ok() {
            empty += 1;
        }
        assert!(empty > 1000);
        assert!(queue.0.memory() <= RxQueue::limit(BUF_ALLOC));
        let mut room = [0; 1];
        for n in 0..count + empty {
            let len = if n < count { 60_000 } else { 0 };
            let read = message(&mut queue, &mut room, false)?;
            assert!(read == Some((len as u32, Ok(len), false)));
        }
        assert_eq!(counted(&queue), (0, 0, 0));
        Ok(())
    }

    #[test]
    fn message_in_pieces() -> Result {
        let bytes = pattern(5000)?;
        let mut queue = messages();
        push(&mut queue, &bytes[..3000], SeqFlags::NONE)?;
        assert_eq!(queue.messages(), 0);
        let mut room = [0; 16];
        assert!(message(&mut queue, &mut room, false)?.is_none());
        push(&mut queue, &bytes[3000..], EOR)?;
        push(&mut queue, b"next", SeqFlags::EOM)?;
        assert_eq!(queue.messages(), 2);

        // Its real length, though there was no room for it; what did not fit is lost.
        let peeked = message(&mut queue, &mut room, true)?;
        assert!(peeked == Some((0, Ok(5000), true)));
        assert_eq!((queue.bytes(), queue.messages()), (5004, 2));
        let read = message(&mut queue, &mut room, false)?;
        assert!(read == Some((5000, Ok(5000), true)));
        assert!(room[..] == bytes[..16]);

        let read = message(&mut queue, &mut room, false)?;
        assert!(read == Some((4, Ok(4), false)));
        assert!(room[..4] == *b"next");
        assert_eq!(counted(&queue), (0, 0, 0));
        Ok(())
    }

    /// Payload comes while a reader looks: the segments are merged when it puts back its own.
    #[test]
    fn peeks_do_not_fragment() -> Result {
        let bytes = pattern(2000)?;
        let mut queue = stream();
        let mut room = [0; 2000];
        for byte in bytes.chunks(1) {
            let len = queue.bytes();
            let mut taken = queue.take_stream(2000);
            push_payload(&mut queue, Payload::bytes(byte), SeqFlags::NONE, BUF_ALLOC)?;
            let (n, _) = receiving(&mut room, |msg| taken.copy_stream(msg, 2000, true))?;
            assert_eq!(n, Ok(len));
            assert_eq!(queue.bytes(), len + 1);
            assert_eq!(queue.put_back(&mut taken), 0);
            assert_eq!(queue.bytes(), len + 1);
            assert!(queue.0.memory() < 10_000);
        }
        assert_eq!(read(&mut queue, &mut room), Ok(2000));
        assert!(room[..] == bytes[..]);
        assert_eq!(counted(&queue), (0, 0, 0));
        Ok(())
    }

    /// What a reader has in hand is nobody's when the queue was purged.
    #[test]
    fn purge_makes_a_hand_void() -> Result {
        let mut queue = messages();
        push(&mut queue, b"gone", SeqFlags::EOM)?;
        let mut taken = queue.take_message().ok_or(EINVAL)?;
        drop(queue.purge());
        assert_eq!(counted(&queue), (0, 0, 0));
        push(&mut queue, b"new", SeqFlags::EOM)?;
        let mut room = [0; 4];
        let (ret, _) = receiving(&mut room, |msg| taken.copy_message(msg, false))?;
        assert_eq!(ret, Ok(4));
        assert_eq!(queue.put_back(&mut taken), 0);
        drop(taken);
        assert_eq!((queue.bytes(), queue.messages()), (3, 1));
        let read = message(&mut queue, &mut room, false)?;
        assert!(read == Some((3, Ok(3), false)));
        assert_eq!(counted(&queue), (0, 0, 0));
        Ok(())
    }

    fn read_skb(queue: &mut RxQueue) -> Result<Option<(SkBuff<()>, u32)>> {
        let mut taken = queue.take_first();
        let skb = taken.skb();
        let freed = queue.put_back(&mut taken);
        Ok(match skb {
            Some(skb) => Some((skb?, freed)),
            None => None,
        })
    }

    #[test]
    fn buffer_is_taken_without_what_was_read() -> Result {
        let bytes = pattern(1728)?;
        for len in [FIRST_SEGMENT, bytes.len()] {
            let mut queue = stream();
            push(&mut queue, &bytes[..len], SeqFlags::NONE)?;
            let mut room = [0; 100];
            assert_eq!(read(&mut queue, &mut room), Ok(100));
            let (skb, freed) = read_skb(&mut queue)?.ok_or(EINVAL)?;
            assert_eq!(freed as usize, len - 100);
            assert!(skb.linear() == bytes.get(100..len));
            assert!(read_skb(&mut queue)?.is_none());
            assert_eq!(counted(&queue), (0, 0, 0));
        }
        Ok(())
    }

    #[test]
    fn buffer_of_a_small_message() -> Result {
        let mut queue = messages();
        for n in 0..8u8 {
            push(&mut queue, &[n; 10], SeqFlags::EOM)?;
        }
        for n in 0..8u8 {
            assert_eq!(u32::from(8 - n), queue.messages());
            let (skb, freed) = read_skb(&mut queue)?.ok_or(EINVAL)?;
            assert_eq!(freed, 10);
            assert!(skb.linear() == Some(&[n; 10]));
        }
        assert_eq!(counted(&queue), (0, 0, 0));
        Ok(())
    }
}
