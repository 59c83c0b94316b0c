// SPDX-License-Identifier: GPL-2.0

//! Suite of the send queue, with real packets.

use super::*;

#[kunit_tests(virtio_transport_send_queue)]
mod tests {
    use super::*;
    use crate::{
        fixtures::{
            Connected,
            LOCAL,
            PEER, //
        },
        kinds::Control,
        packet::{
            header_to,
            RxPacket, //
        }, //
    };
    use vsock_proto::{
        addr::{
            Addr,
            Cid,
            Port, //
        },
        header::{
            Op,
            SeqFlags,
            SocketType, //
        }, //
    };

    const ROOM: u32 = 256 * 1024;

    /// A connection whose peer has room for [`ROOM`] bytes, and the packets that it sends: each
    /// begins with its number.
    struct Sender {
        of: Connected,
        made: u32,
        /// The number of the packet that comes next.
        next: u32,
        /// Bytes that the peer has read.
        read: u32,
    }

    impl Sender {
        fn new() -> Result<Self> {
            Ok(Self {
                of: Connected::new(ROOM)?,
                made: 0,
                next: 0,
                read: 0,
            })
        }

        /// A packet of data is with the peer, which reads it: it is the next one.
        fn arrived(&mut self, mut packet: TxPacket) -> Result {
            let piece = packet.fragment(usize::MAX);
            let first = piece.payload().and_then(|bytes| bytes.first_chunk());
            assert_eq!(first, Some(&self.next.to_le_bytes()));
            self.next += 1;
            self.read += piece.header().len();
            assert!(piece.finish());
            drop(packet);
            self.of.update(ROOM, self.read)
        }

        fn data(&mut self, len: usize) -> Result<TxPacket> {
            let mut bytes = KVec::from_elem(0u8, len.max(4), GFP_KERNEL)?;
            bytes[..4].copy_from_slice(&self.made.to_le_bytes());
            let packet = self.of.data(&bytes, SeqFlags::NONE)?;
            // There is room for the packets of a test.
            assert_eq!(packet.len(), bytes.len());
            self.made += 1;
            Ok(packet)
        }

        fn control(&self, what: Control, is_reply: bool) -> Result<TxPacket> {
            assert!(self.of.conn.queue_control(what).is_some());
            self.of.control(what, is_reply)
        }

        /// Whether all that was sent was given back.
        fn is_done(&self) -> bool {
            self.of.space() == ROOM && self.of.conn.unsent() == 0
        }

        fn owns(&self, packet: &TxPacket) -> bool {
            packet.is_of(self.of.sock.sock())
        }
    }

    fn queue() -> Result<Pin<KBox<SendQueue>>> {
        KBox::pin_init(SendQueue::new(), GFP_KERNEL)
    }

    fn senders<const N: usize>() -> Result<KVec<Sender>> {
        let mut senders = KVec::with_capacity(N, GFP_KERNEL)?;
        for _ in 0..N {
            senders.push(Sender::new()?, GFP_KERNEL)?;
        }
        Ok(senders)
    }

    /// The RST that answers a packet of nobody from there.
    fn reply_to(peer: Addr) -> Result<TxPacket> {
        let header = header_to(Op::Rw, SocketType::Stream, peer, LOCAL, 0);
        TxPacket::reset(&RxPacket::new(header, None)?).ok_or(EINVAL)?
    }

    /// As above; of no peer that has a connection.
    fn reply_to_nobody() -> Result<TxPacket> {
        reply_to(Addr::new(Cid::LOCAL, Port::new(3)))
    }

    /// What packets between [`LOCAL`] and [`PEER`] the peer gets, in this order.
    fn handed_over(queue: &SendQueue) -> Result<KVec<Op>> {
        let mut ops = KVec::new();
        loop {
            let mut hand = queue.pop_some(16);
            while let Some(mut packet) = hand.pop() {
                let header = packet.stamp();
                if header.dst() == Ok(PEER) {
                    ops.push(header.op(), GFP_KERNEL)?;
                }
            }
            if !hand.has_more() {
                return Ok(ops);
            }
        }
    }

    #[test]
    fn counts() -> Result {
        let (mut s, queue) = (Sender::new()?, queue()?);
        assert!(queue.is_empty() && queue.rest());
        // The worker rests, and is woken once.
        assert!(queue.push_back(s.control(Control::Response, true)?)?);
        assert!(!queue.push_back(s.data(10)?)?);
        assert!(!queue.rest());
        queue.push_back(s.control(Control::Rst, true)?)?;
        assert_eq!((queue.replies(), queue.backlog().0), (2, 3));

        let first = queue.pop().ok_or(EINVAL)?;
        assert_eq!((first.header().op(), queue.replies()), (Op::Response, 1));
        queue.push_front(first);
        assert_eq!(queue.replies(), 2);
        let (_, memory) = queue.backlog();
        for op in [Op::Response, Op::Rw, Op::Rst] {
            assert!(queue.backlog().1 > 0);
            assert_eq!(queue.pop().map(|packet| packet.header().op()), Some(op));
        }
        assert!(memory > 0);
        assert!(queue.pop().is_none());
        assert_eq!((queue.replies(), queue.backlog()), (0, (0, 0)));
        assert!(queue.rest());
        Ok(())
    }

    #[test]
    fn forgets_one_connection() -> Result {
        let (mut gone, mut stays, queue) = (Sender::new()?, Sender::new()?, queue()?);
        queue.push_back(gone.control(Control::Response, true)?)?;
        queue.push_back(stays.control(Control::Response, true)?)?;
        for _ in 0..3 {
            queue.push_back(gone.data(10)?)?;
            queue.push_back(stays.data(10)?)?;
        }
        queue.push_back(gone.control(Control::Shutdown(ShutdownFlags::BOTH), true)?)?;
        assert_eq!(queue.purge(&gone.of.conn).replies, 2);
        assert!(gone.is_done());
        assert_eq!((queue.replies(), queue.backlog().0), (1, 4));
        assert_eq!(queue.purge(&gone.of.conn).replies, 0);
        for _ in 0..4 {
            assert!(queue.pop().is_some_and(|packet| stays.owns(&packet)));
        }
        assert!(queue.is_empty() && queue.backlog() == (0, 0));

        // It can send again.
        queue.push_back(gone.data(10)?)?;
        queue.push_back(stays.control(Control::Rst, true)?)?;
        queue.push_back(reply_to_nobody()?)?;
        assert_eq!(queue.replies(), 2);
        queue.purge_all();
        assert!(queue.is_empty() && queue.backlog() == (0, 0));
        assert!(gone.is_done());
        assert_eq!(queue.replies(), 0);
        queue.push_back(gone.data(10)?)?;
        assert!(queue.pop().is_some_and(|packet| gone.owns(&packet)));
        Ok(())
    }

    /// What the worker has in its hands is not sent, nor does it come back.
    #[test]
    fn forgets_what_was_taken_out() -> Result {
        let (mut gone, mut stays, queue) = (Sender::new()?, Sender::new()?, queue()?);
        queue.push_back(gone.control(Control::Request, false)?)?;
        queue.push_back(gone.data(10)?)?;
        queue.push_back(stays.data(10)?)?;
        queue.push_back(gone.data(10)?)?;
        let mut hand = queue.pop_some(3);
        assert!(hand.has_more());
        let request = hand.pop().ok_or(EINVAL)?;
        assert_eq!(request.header().op(), Op::Request);
        assert_eq!(queue.purge(&gone.of.conn).replies, 0);
        // The next attempt to connect has another one, whenever this one is dropped.
        let next = gone.control(Control::Request, false)?;
        assert!(request.is_purged() && !next.is_purged());
        queue.push_back(next)?;
        hand.push_front(request);
        queue.put_back(hand);
        assert!(gone.of.conn.queue_control(Control::Request).is_none());
        let mut rest = queue.pop_some(9);
        assert!(!rest.has_more());
        assert!(rest.pop().is_some_and(|packet| stays.owns(&packet)));
        assert!(rest
            .pop()
            .is_some_and(|packet| packet.header().op() == Op::Request));
        assert!(rest.pop().is_none());
        assert!(gone.is_done());

        // Nor if it stays in hand.
        queue.push_back(gone.data(10)?)?;
        queue.push_back(stays.data(10)?)?;
        let mut hand = queue.pop_some(9);
        let _ = queue.purge(&gone.of.conn);
        assert!(hand.pop().is_some_and(|packet| stays.owns(&packet)));
        assert!(hand.pop().is_none());
        assert!(gone.is_done());
        Ok(())
    }

    /// The RST of a connection that is forgotten is sent, once, wherever it is.
    #[test]
    fn a_rst_stays() -> Result {
        let (mut gone, queue) = (Sender::new()?, queue()?);
        queue.push_back(gone.data(10)?)?;
        queue.push_back(gone.control(Control::Rst, true)?)?;
        let purged = queue.purge(&gone.of.conn);
        assert_eq!((purged.replies, purged.wake), (0, true));
        assert_eq!((queue.replies(), queue.backlog().0), (1, 1));
        assert!(gone.of.conn.queue_control(Control::Rst).is_none());
        let hand = queue.pop_some(1);
        let _ = queue.purge(&gone.of.conn);
        assert!(gone.of.conn.queue_control(Control::Rst).is_none());
        queue.put_back(hand);
        let rst = queue.pop().ok_or(EINVAL)?;
        assert_eq!(rst.header().op(), Op::Rst);
        assert!(queue.is_empty() && gone.is_done());
        drop(rst);
        assert!(gone.of.conn.queue_control(Control::Rst).is_some());
        Ok(())
    }

    /// The next connection between the ports begins behind the RST of the one before, whatever else
    /// is in the queue of that. A peer that began it itself gets none.
    #[test]
    fn the_next_connection() -> Result {
        for ours in [true, false] {
            let (mut old, mut new, queue) = (Sender::new()?, Sender::new()?, queue()?);
            for _ in 0..4 {
                queue.push_back(old.data(ROOM as usize / 4)?)?;
            }
            old.of.conn.cut();
            queue.push_back(old.control(Control::Rst, false)?)?;
            // As `tables::join()` and `control::send_request()` do.
            assert!(old.of.conn.supersede());
            if ours {
                queue.push_back(new.control(Control::Rst, false)?)?;
                queue.push_back(new.control(Control::Request, false)?)?;
                assert_eq!(&*handed_over(&queue)?, &[Op::Rst, Op::Request]);
            } else {
                queue.push_back(new.control(Control::Response, true)?)?;
                queue.push_back(new.data(10)?)?;
                assert_eq!(&*handed_over(&queue)?, &[Op::Response, Op::Rw]);
            }
            assert!(old.is_done() && queue.rest());
            assert_eq!((queue.replies(), queue.backlog()), (0, (0, 0)));
        }
        Ok(())
    }

    /// As above, for the answer to a packet of the connection before that nobody knew here.
    #[test]
    fn the_next_connection_after_one_of_nobody() -> Result {
        for what in [Control::Request, Control::Response] {
            let (new, queue) = (Sender::new()?, queue()?);
            // More than one turn of these.
            for _ in 0..2000 {
                queue.push_back(reply_to_nobody()?)?;
            }
            queue.push_back(reply_to(PEER)?)?;
            queue.push_back(new.control(what, false)?)?;
            let expected: &[Op] = match what {
                Control::Request => &[Op::Rst, Op::Request],
                _ => &[Op::Response],
            };
            assert_eq!(&*handed_over(&queue)?, expected);
            assert!(new.is_done() && queue.rest());
            assert_eq!((queue.replies(), queue.backlog()), (0, (0, 0)));
            // It may send its own.
            assert!(new.of.conn.queue_control(Control::Rst).is_some());
        }
        Ok(())
    }

    #[test]
    fn one_queue_at_a_time() -> Result {
        let (mut s, old, new) = (Sender::new()?, queue()?, queue()?);
        old.push_back(s.data(10)?)?;
        assert_eq!(new.push_back(s.data(10)?).err(), Some(EHOSTUNREACH));
        assert!(new.is_empty() && new.backlog() == (0, 0));
        assert_eq!(new.purge(&s.of.conn).replies, 0);
        assert_eq!(old.backlog().0, 1);
        // Nor does what was taken out of one go into another.
        let hand = old.pop_some(1);
        new.push_back(s.data(10)?)?;
        old.put_back(hand);
        assert!(old.is_empty());
        drop(new);
        assert!(s.is_done());
        old.push_back(s.data(10)?)?;
        assert_eq!(old.backlog().0, 1);
        Ok(())
    }

    /// Connections that flood do not delay one that says something now and then; and each of them
    /// has its turn.
    #[test]
    fn takes_turns() -> Result {
        let (mut many, mut rare, queue) = (senders::<4>()?, Sender::new()?, queue()?);
        for sender in &mut many {
            for _ in 0..60 {
                queue.push_back(sender.data(3000)?)?;
            }
        }
        for n in 0..120 {
            // None is behind another one's burst any more.
            if n % 10 == 9 {
                queue.push_back(rare.data(64)?)?;
                let first = queue.pop().ok_or(EINVAL)?;
                assert!(rare.owns(&first));
            }
            let packet = queue.pop().ok_or(EINVAL)?;
            let of = many.iter_mut().find(|sender| sender.owns(&packet));
            of.ok_or(EINVAL)?.arrived(packet)?;
        }
        // A turn is some 20 packets.
        for sender in &many {
            assert!((20..=42).contains(&sender.next));
        }
        // Replies to nobody are not delayed either.
        queue.push_back(reply_to_nobody()?)?;
        assert!(queue.pop().is_some_and(|packet| packet.is_reply()));
        drop(queue);
        assert!(rare.is_done());
        Ok(())
    }

    /// A packet of which a piece is out is the next one of its connection.
    #[test]
    fn a_piece_goes_on() -> Result {
        let (mut one, mut other, queue) = (Sender::new()?, Sender::new()?, queue()?);
        queue.push_back(one.data(5000)?)?;
        queue.push_back(one.data(5000)?)?;
        let mut packet = queue.pop().ok_or(EINVAL)?;
        assert!(!packet.fragment(4000).finish());
        queue.push_back(other.data(100)?)?;
        queue.push_back(one.data(5000)?)?;
        queue.push_front(packet);
        let mut left = [1000, 5000, 5000].iter();
        while let Some(packet) = queue.pop() {
            if one.owns(&packet) {
                assert_eq!(Some(&packet.len()), left.next());
            }
        }
        assert!(left.next().is_none());
        Ok(())
    }

    /// Whatever happens, packets of a connection come in their order, and nothing is lost.
    #[test]
    fn anything_in_any_order() -> Result {
        let (mut all, queue) = (senders::<5>()?, queue()?);
        let mut seed = 12345u32;
        let mut random = |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) % below
        };
        let mut count = 0usize;
        for _ in 0..20_000 {
            let which = random(5) as usize;
            match random(8) {
                0..4 => {
                    let sender = &mut all[which];
                    // Within the credit.
                    if sender.made - sender.next < 40 {
                        queue.push_back(sender.data(random(1500) as usize)?)?;
                        count += 1;
                    }
                }
                4..7 => {
                    let mut hand = queue.pop_some(random(17) as usize);
                    for _ in 0..random(17) {
                        let Some(packet) = hand.pop() else {
                            break;
                        };
                        let of = all.iter_mut().find(|sender| sender.owns(&packet));
                        of.ok_or(EINVAL)?.arrived(packet)?;
                        count -= 1;
                    }
                    queue.put_back(hand);
                }
                _ => {
                    if random(10) == 0 {
                        let before = queue.backlog().0;
                        let _ = queue.purge(&all[which].of.conn);
                        count -= before - queue.backlog().0;
                        all[which].next = all[which].made;
                    }
                }
            }
            assert_eq!(queue.backlog().0, count);
            assert_eq!(queue.is_empty(), count == 0);
        }
        for sender in &all {
            let _ = queue.purge(&sender.of.conn);
        }
        assert_eq!((queue.is_empty(), queue.backlog()), (true, (0, 0)));
        assert!(all.iter().all(Sender::is_done));
        Ok(())
    }

    /// Bytes that have credit join the last packet; says whether they did.
    fn join(queue: &SendQueue, of: &Connected, bytes: &[u8]) -> Result<bool> {
        let len = u32::try_from(bytes.len())?;
        let mut credit = of.conn.reserve(len);
        let joined = queue.append(&of.conn, bytes);
        if joined {
            credit.take(len);
        }
        Ok(joined)
    }

    #[test]
    fn bytes_join_a_packet_that_waits() -> Result {
        let queue = KBox::pin_init(SendQueue::new(), GFP_KERNEL)?;
        let (a, b) = (Connected::new(ROOM)?, Connected::new(ROOM)?);
        assert!(!join(&queue, &a, b"xyz")?);
        let _ = queue.push_back(a.data_in(b"abc", 1000, SeqFlags::NONE)?)?;
        let backlog = queue.backlog();
        let memory = a.books().2;
        assert!(!join(&queue, &b, b"xyz")?);
        assert!(join(&queue, &a, b"def")?);
        assert!(join(&queue, &a, b"g")?);
        assert_eq!(queue.backlog(), backlog);
        assert_eq!(a.books(), (ROOM - 7, 7, memory));

        let mut packet = queue.pop().ok_or(ENOENT)?;
        // It waits no more.
        assert!(!join(&queue, &a, b"h")?);
        let piece = packet.fragment(5);
        assert_eq!(piece.payload(), Some(b"abcde".as_slice()));
        assert!(!piece.finish());
        // It waits again, but the peer has a part of it.
        queue.push_front(packet);
        assert!(!join(&queue, &a, b"h")?);
        let mut packet = queue.pop().ok_or(ENOENT)?;
        let piece = packet.fragment(5);
        assert_eq!(piece.payload(), Some(b"fg".as_slice()));
        assert!(piece.finish());
        drop(packet);
        assert_eq!((a.books().0, a.books().1), (ROOM - 7, 0));
        a.update(ROOM, 7)
    }

    #[test]
    fn bytes_that_joined_are_given_back_with_the_packet() -> Result {
        let queue = KBox::pin_init(SendQueue::new(), GFP_KERNEL)?;
        let a = Connected::new(ROOM)?;
        let before = a.books();
        let _ = queue.push_back(a.data_in(b"abc", 1000, SeqFlags::NONE)?)?;
        assert!(join(&queue, &a, b"def")?);
        let _ = queue.purge(&a.conn);
        assert!(!join(&queue, &a, b"ghi")?);
        assert_eq!(a.books(), before);
        Ok(())
    }

    #[test]
    fn bytes_join_no_more_than_a_buffer_has() -> Result {
        let queue = KBox::pin_init(SendQueue::new(), GFP_KERNEL)?;
        let a = Connected::new(ROOM)?;
        let most = crate::packet::MOST_JOINED as usize;
        let _ = queue.push_back(a.data_in(&[0; 4], 2 * most, SeqFlags::NONE)?)?;
        let bytes = KVec::from_elem(0u8, 500, GFP_KERNEL)?;
        let mut len = 4;
        while len + bytes.len() <= most {
            assert!(join(&queue, &a, &bytes)?);
            len += bytes.len();
        }
        assert!(!join(&queue, &a, &bytes)?);
        assert!(join(&queue, &a, &bytes[..most - len])?);
        assert!(!join(&queue, &a, b"x")?);
        let mut packet = queue.pop().ok_or(ENOENT)?;
        assert_eq!(packet.fragment(usize::MAX).header().len(), most as u32);
        Ok(())
    }

    #[test]
    fn nothing_joins_what_is_no_payload() -> Result {
        let queue = KBox::pin_init(SendQueue::new(), GFP_KERNEL)?;
        let a = Connected::new(ROOM)?;
        let _ = queue.push_back(a.data_in(b"abc", 1000, SeqFlags::NONE)?)?;
        let what = Control::CreditUpdate;
        assert!(a.conn.queue_control(what).is_some());
        let _ = queue.push_back(a.control(what, false)?)?;
        assert!(!join(&queue, &a, b"def")?);
        Ok(())
    }
}
