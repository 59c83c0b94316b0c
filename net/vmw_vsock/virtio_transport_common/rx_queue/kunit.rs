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
    use vsock_proto::header::HEADER_LEN;

    const BUF_ALLOC: u32 = 64 * 1024;
    const SMALL: u32 = 2 * 1024;
    const EOR: SeqFlags = SeqFlags::EOM.union(SeqFlags::EOR);

    fn stream() -> RxQueue {
        RxQueue::new(SocketType::Stream)
    }

    fn messages() -> RxQueue {
        RxQueue::new(SocketType::SeqPacket)
    }

    /// A payload as a carrier makes it, behind the room of a header.
    fn payload(bytes: &[u8]) -> Result<Option<SkBuff<()>>> {
        let len = bytes.len();
        let mut skb = SkBuff::alloc(HEADER_LEN, len, Gfp::Kernel, ())?;
        sending(bytes, |msg| skb.fill_from_iter(msg.source(), len))??;
        Ok(Some(skb))
    }

    fn push(queue: &mut RxQueue, bytes: &[u8], flags: SeqFlags) -> Result {
        queue.push(payload(bytes)?, flags, BUF_ALLOC)
    }

    /// Whether the counters say what is in the list.
    fn is_sound(queue: &RxQueue) -> bool {
        let (mut memory, mut bytes, mut ends) = (0, 0, 0);
        for skb in queue.list.iter() {
            memory += skb.truesize();
            let mut offset = skb.cb().offset;
            while let Some(run) = Run::at(&skb, offset) {
                bytes += run.len;
                ends += u32::from(run.ends_message());
                offset = run.end();
                if offset >= skb.len() {
                    break;
                }
            }
        }
        (memory, bytes, ends) == (queue.memory, queue.bytes, queue.messages)
    }

    fn read(queue: &mut RxQueue, room: &mut [u8]) -> Result<usize> {
        let len = room.len();
        receiving(room, |msg| queue.read_stream(msg, len))?.0
    }

    #[test]
    fn stream_is_read_in_order() -> Result {
        let bytes = pattern(20_000)?;
        let mut queue = stream();
        for piece in bytes.chunks(3000) {
            push(&mut queue, piece, SeqFlags::NONE)?;
            assert!(is_sound(&queue));
        }
        let mut room = pattern(0)?;
        room.resize(7001, 0, GFP_KERNEL)?;
        let mut seen = 0;
        while queue.bytes() > 0 {
            let (peeked, _) = receiving(&mut room, |msg| queue.peek_stream(msg, 7001))?;
            let peeked = peeked?;
            assert!(room.get(..peeked) == bytes.get(seen..seen + peeked));
            room.fill(0);
            assert_eq!(read(&mut queue, &mut room), Ok(peeked));
            assert!(room.get(..peeked) == bytes.get(seen..seen + peeked));
            assert!(is_sound(&queue));
            seen += peeked;
        }
        assert_eq!(seen, bytes.len());
        assert_eq!((queue.memory, queue.list.len()), (0, 0));
        Ok(())
    }

    #[test]
    fn buffer_with_fragments() -> Result {
        let bytes = pattern(60_000)?;
        let mut queue = stream();
        push(&mut queue, &bytes, SeqFlags::NONE)?;
        assert!(queue.list.front().is_some_and(SkBuff::is_nonlinear));
        push(&mut queue, b"x", SeqFlags::NONE)?;
        assert!(is_sound(&queue));
        let mut room = pattern(0)?;
        room.resize(60_001, 0, GFP_KERNEL)?;
        assert_eq!(read(&mut queue, &mut room), Ok(60_001));
        assert!(room.get(..60_000) == Some(&bytes[..]));
        assert_eq!(room.get(60_000), Some(&b'x'));
        Ok(())
    }

    #[test]
    fn small_payloads_share_a_buffer() -> Result {
        let mut queue = stream();
        push(&mut queue, &[0; 1], SeqFlags::NONE)?;
        let room = queue.list.back().map_or(0, SkBuff::tailroom);
        for _ in 0..room {
            push(&mut queue, &[0; 1], SeqFlags::NONE)?;
        }
        assert_eq!(queue.list.len(), 1);
        push(&mut queue, &[0; 1], SeqFlags::NONE)?;
        assert_eq!(queue.list.len(), 2);
        assert_eq!(queue.bytes(), room + 2);
        assert!(is_sound(&queue));
        Ok(())
    }

    /// Whoever respects the credit is not refused, whatever the size of the packets.
    #[test]
    fn credit_is_enough_for_any_size() -> Result {
        for len in [1, 63, 700] {
            let bytes = pattern(len)?;
            for flags in [SeqFlags::NONE, SeqFlags::EOM] {
                let mut queue = if flags == SeqFlags::NONE {
                    stream()
                } else {
                    messages()
                };
                let count = SMALL as usize / len;
                for _ in 0..count {
                    queue.push(payload(&bytes)?, flags, SMALL)?;
                }
                assert!(is_sound(&queue));
                assert_eq!(queue.bytes(), count * len);
                assert!(queue.memory <= RxQueue::limit(SMALL));
                let mut room = pattern(0)?;
                room.resize(len, 0, GFP_KERNEL)?;
                for _ in 0..count {
                    if flags == SeqFlags::NONE {
                        assert_eq!(read(&mut queue, &mut room), Ok(len));
                    } else {
                        let (read, _) = receiving(&mut room, |msg| queue.read_message(msg))?;
                        assert!(read == Some((len as u32, Ok(len))));
                    }
                    assert!(room[..] == bytes[..]);
                }
                assert_eq!((queue.bytes(), queue.messages(), queue.memory), (0, 0, 0));
            }
        }
        Ok(())
    }

    #[test]
    fn messages_of_nothing_take_next_to_nothing() -> Result {
        let mut queue = messages();
        for _ in 0..2000 {
            queue.push(None, SeqFlags::EOM, 0)?;
        }
        assert!(is_sound(&queue));
        queue.compact();
        assert!(queue.memory < 8192);
        let mut room = [0; 1];
        for _ in 0..2000 {
            let (read, _) = receiving(&mut room, |msg| queue.read_message(msg))?;
            assert!(read == Some((0, Ok(0))));
        }
        assert_eq!((queue.messages(), queue.memory), (0, 0));
        Ok(())
    }

    /// Who sends more than there is credit for, or endless messages of nothing, is refused.
    #[test]
    fn memory_has_a_limit() -> Result {
        let bytes = pattern(60_000)?;
        let mut queue = messages();
        let mut count = 0;
        while push(&mut queue, &bytes, SeqFlags::EOM).is_ok() {
            assert!(is_sound(&queue));
            assert!(queue.memory <= RxQueue::limit(BUF_ALLOC));
            count += 1;
        }
        assert!(count > 1);
        let mut empty = 0;
        while queue.push(None, SeqFlags::EOM, BUF_ALLOC).is_ok() {
            empty += 1;
        }
        assert!(is_sound(&queue));
        // The last attempt may have made a buffer for small messages to come.
        assert!(queue.memory <= RxQueue::limit(BUF_ALLOC) + 8192);
        let mut room = [0; 1];
        for n in 0..count + empty {
            let len = if n < count { 60_000 } else { 0 };
            let (read, _) = receiving(&mut room, |msg| queue.read_message(msg))?;
            assert!(read == Some((len as u32, Ok(len))));
        }
        push(&mut queue, &bytes, SeqFlags::EOM)?;
        queue.purge();
        assert!(is_sound(&queue));
        assert_eq!((queue.bytes(), queue.messages(), queue.memory), (0, 0, 0));
        Ok(())
    }

    #[test]
    fn message_in_pieces() -> Result {
        let bytes = pattern(5000)?;
        let mut queue = messages();
        push(&mut queue, &bytes[..3000], SeqFlags::NONE)?;
        assert_eq!(queue.messages(), 0);
        let mut room = [0; 16];
        assert!(receiving(&mut room, |msg| queue.read_message(msg))?
            .0
            .is_none());
        push(&mut queue, &bytes[3000..], EOR)?;
        push(&mut queue, b"next", SeqFlags::EOM)?;
        assert_eq!(queue.messages(), 2);
        assert!(is_sound(&queue));

        // Its real length, though there was no room for it; what did not fit is lost.
        let (peeked, end) = receiving(&mut room, |msg| queue.peek_message(msg))?;
        assert!(end);
        assert_eq!(peeked, Ok(5000));
        let (read, end) = receiving(&mut room, |msg| queue.read_message(msg))?;
        assert!(end);
        assert!(read == Some((5000, Ok(5000))));
        assert!(room[..] == bytes[..16]);

        let (read, end) = receiving(&mut room, |msg| queue.read_message(msg))?;
        assert!(!end);
        assert!(read == Some((4, Ok(4))));
        assert!(room[..4] == *b"next");
        assert!(is_sound(&queue));
        Ok(())
    }

    #[test]
    fn buffer_is_taken_without_what_was_read() -> Result {
        let bytes = pattern(1000)?;
        let mut queue = stream();
        push(&mut queue, &bytes, SeqFlags::NONE)?;
        let mut room = [0; 100];
        assert_eq!(read(&mut queue, &mut room), Ok(100));
        let Some(Ok((skb, freed))) = queue.take_buffer() else {
            return Err(EINVAL);
        };
        assert_eq!(freed, 900);
        assert!(skb.linear() == bytes.get(100..));
        assert!(queue.take_buffer().is_none());
        assert!(is_sound(&queue));
        Ok(())
    }

    #[test]
    fn buffer_of_a_packed_message() -> Result {
        let mut queue = messages();
        for n in 0..8u8 {
            push(&mut queue, &[n; 10], SeqFlags::EOM)?;
        }
        queue.compact();
        assert!(queue.list.front().is_some_and(|skb| skb.cb().packed));
        assert!(is_sound(&queue));
        for n in 0..8u8 {
            let Some(Ok((skb, freed))) = queue.take_buffer() else {
                return Err(EINVAL);
            };
            assert_eq!(freed, 10);
            assert!(skb.linear() == Some(&[n; 10]));
            assert!(is_sound(&queue));
        }
        assert_eq!((queue.messages(), queue.memory), (0, 0));
        Ok(())
    }
}
