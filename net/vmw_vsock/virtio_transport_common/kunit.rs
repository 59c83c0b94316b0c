// SPDX-License-Identifier: GPL-2.0

//! KUnit suites: packets and their accounting with connections; the pure crate `vsock_proto` as it
//! runs in a kernel.

use kernel::prelude::*;

#[kunit_tests(virtio_transport_conn)]
mod conn_tests {
    use super::*;
    use crate::{
        fixtures::{
            header,
            Connected,
            LOCAL, //
        },
        kinds::Control,
        packet::{
            Fragment,
            Payload,
            RxPacket,
            TxPacket, //
        },
        rx_queue::Segment, //
    };
    use kernel::iov::IovIterDest;
    use kernel_ext::{
        gfp::Gfp,
        kunit::{
            pattern,
            receiving,
            sending_nothing, //
        },
        skb::SkBuff, //
    };
    use vsock_proto::header::{
        Op,
        SeqFlags,
        ShutdownFlags, //
    };

    #[test]
    fn packet_that_is_dropped_gives_all_back() -> Result {
        let c = Connected::new(1000)?;
        let before = c.books();
        assert_eq!(before.0, 1000);
        let packet = c.data(&pattern(400)?, SeqFlags::NONE)?;
        let (space, unsent, memory) = c.books();
        assert_eq!((space, unsent), (600, 400));
        assert!(memory > before.2 + 400);
        drop(packet);
        assert_eq!(c.books(), before);
        Ok(())
    }

    #[test]
    fn packet_that_was_handed_over_waits_for_the_peer() -> Result {
        let c = Connected::new(1000)?;
        let memory = c.books().2;
        let mut packet = c.data(&pattern(400)?, SeqFlags::NONE)?;
        packet.stamp();
        drop(packet);
        assert_eq!(c.books(), (600, 0, memory));
        c.update(1000, 400)?;
        assert_eq!(c.books(), (1000, 0, memory));
        // It cannot have read more than it got.
        assert_eq!(c.update(1000, 401), Err(EPROTO));
        Ok(())
    }

    #[test]
    fn packet_that_cannot_be_made_gives_all_back() -> Result {
        let c = Connected::new(1000)?;
        let before = c.books();
        let ret = sending_nothing(400, |msg| {
            let mut credit = c.conn.reserve(400);
            let header = header(Op::Rw, credit.take(400));
            let payload = Payload::Copy(None);
            let conn = c.conn.clone();
            TxPacket::data(c.sock.sock(), conn, header, msg, payload, 0, |_| {
                SeqFlags::NONE
            })
        })?;
        assert!(ret.is_err());
        assert_eq!(c.books(), before);
        Ok(())
    }

    #[test]
    fn reservation_gives_back_what_is_left() -> Result {
        let c = Connected::new(1000)?;
        let mut credit = c.conn.reserve(5000);
        assert_eq!(credit.left(), 1000);
        assert_eq!(c.conn.reserve(1).left(), 0);
        assert_eq!(credit.take(300), 300);
        drop(credit);
        assert_eq!(c.space(), 700);
        // A packet has the rest.
        c.conn.packet_done(300, true);
        assert_eq!(c.space(), 1000);
        Ok(())
    }

    #[test]
    fn one_control_packet_of_a_kind() -> Result {
        let c = Connected::new(1000)?;
        for what in [Control::Rst, Control::Response, Control::CreditUpdate] {
            assert!(c.conn.queue_control(what).is_some());
            assert!(c.conn.queue_control(what).is_none());
            drop(c.control(what, false)?);
            assert!(c.conn.queue_control(what).is_some());
            let mut packet = c.control(what, false)?;
            packet.stamp();
            // It is with the peer: what is said from now on is news.
            assert!(c.conn.queue_control(what).is_some());
            drop(packet);
            assert!(c.conn.queue_control(what).is_none());
            c.conn.unqueue_control(what);
        }
        Ok(())
    }

    #[test]
    fn shutdown_says_what_was_said_meanwhile() -> Result {
        let c = Connected::new(1000)?;
        let (rcv, send) = (ShutdownFlags::from_wire(1), ShutdownFlags::from_wire(2));
        assert!(c.conn.queue_control(Control::Shutdown(rcv)).is_some());
        let mut packet = c.control(Control::Shutdown(rcv), false)?;
        assert!(c.conn.queue_control(Control::Shutdown(send)).is_none());
        packet.stamp();
        assert_eq!(packet.header().flags(), ShutdownFlags::BOTH.raw());
        Ok(())
    }

    /// Copies the payload of a piece.
    fn copy(fragment: &Fragment<'_>, dest: &mut IovIterDest<'_>) -> Result {
        let (skb, from) = fragment.buffer();
        skb.copy_to_iter(from, dest, fragment.len())
    }

    #[test]
    fn fragments_of_a_packet() -> Result {
        let c = Connected::new(1000)?;
        let bytes = pattern(100)?;
        let mut packet = c.data(&bytes, SeqFlags::EOM)?;
        let mut room = [0; 60];
        let first = packet.fragment(60);
        assert_eq!((first.len(), first.header().len()), (60, 60));
        assert_eq!(first.header().flags(), 0);
        receiving(&mut room, |msg| copy(&first, msg.dest()))?.0?;
        assert!(room[..] == bytes[..60]);
        // The buffer was of no use: the same again.
        let first = packet.fragment(60);
        assert_eq!(first.len(), 60);
        assert!(!first.finish());
        let last = packet.fragment(60);
        assert_eq!(last.header().len(), 40);
        assert_eq!(last.header().flags(), SeqFlags::EOM.raw());
        receiving(&mut room, |msg| copy(&last, msg.dest()))?.0?;
        assert!(room[..40] == bytes[60..]);
        assert!(last.finish());
        assert!(packet.is_empty());
        assert_eq!(c.space(), 900);
        Ok(())
    }

    #[test]
    fn loopback_gives_the_same_buffer_to_the_receiver() -> Result {
        let c = Connected::new(1000)?;
        let free = c.books().2;
        let bytes = pattern(500)?;
        let mut packet = RxPacket::from_tx(c.data(&bytes, SeqFlags::NONE)?);
        assert_eq!(packet.header().len(), 500);
        assert_eq!(packet.header().buf_alloc(), 256 * 1024);
        // The sender pays until somebody takes it, and is not done with it before.
        let (space, unsent, memory) = c.books();
        assert_eq!((space, unsent), (500, 500));
        assert!(memory > free);
        let linear = packet.parts().1.as_skb().and_then(SkBuff::linear);
        assert!(linear == Some(&bytes[..]));
        let mut segment = Some(Segment::alloc(4096, Gfp::Kernel)?);
        let pushed =
            c.conn
                .gate()
                .queue
                .push(packet.parts().1, SeqFlags::NONE, 256 * 1024, &mut segment);
        assert!(pushed.is_ok());
        assert_eq!(c.conn.unread(), 500);
        drop(packet);
        assert_eq!(c.books(), (500, 0, free));
        Ok(())
    }

    #[test]
    fn answer_to_nobody_is_charged_to_who_asked() -> Result {
        let c = Connected::new(1000)?;
        let free = c.books().2;
        let packet = RxPacket::from_tx(c.data(&[0; 10], SeqFlags::NONE)?);
        let answer = TxPacket::reset(&packet).ok_or(EINVAL)??;
        drop(packet);
        assert_eq!(answer.header().op(), Op::Rst);
        assert_eq!(answer.dst(), Ok(LOCAL));
        assert!(answer.is_reply());
        assert!(c.books().2 > free);
        // A RST has no answer.
        assert!(TxPacket::reset(&RxPacket::from_tx(answer)).is_none());
        assert_eq!(c.books().2, free);
        Ok(())
    }

    #[test]
    fn more_than_the_credit_is_not_accepted() -> Result {
        let c = Connected::new(1000)?;
        let accept = |len| {
            let mut gate = c.conn.gate();
            assert_eq!(gate.rx.fits(len), gate.rx.clone().accept(len).is_ok());
            gate.rx.accept(len).is_ok()
        };
        assert!(accept(256 * 1024));
        assert!(!accept(1));
        assert!(!c.conn.must_tell_before_wait());
        assert!(c.conn.release(1000, 1));
        assert!(c.conn.must_tell_before_wait());
        assert!(accept(1000));
        assert!(!accept(1));
        Ok(())
    }
}

#[kunit_tests(vsock_proto)]
mod proto_tests {
    use super::*;
    use vsock_proto::{
        addr::{
            Addr,
            Cid,
            CidError,
            GuestCid,
            Port, //
        },
        conn::{
            self,
            Local,
            Reaction,
            State, //
        },
        credit::{
            RxCredit,
            TxCredit, //
        },
        header::{
            Header,
            Op,
            SeqFlags,
            SocketType,
            HEADER_LEN, //
        },
        record::Record, //
    };

    #[test]
    fn header_has_the_bytes_of_the_wire() -> Result {
        let src = Addr::new(Cid::new(3), Port::new(0x0102_0304));
        let dst = Addr::new(Cid::HOST, Port::new(5));
        let mut header = Header::new(Op::Rw, SocketType::SeqPacket, src, dst, 9, 1);
        header.set_credit(0x10, 0x20);
        let bytes = header.as_bytes();
        assert_eq!(bytes.len(), HEADER_LEN);
        assert!(bytes[..8] == [3, 0, 0, 0, 0, 0, 0, 0]);
        assert!(bytes[16..20] == [4, 3, 2, 1]);
        assert!(bytes[24..] == [9, 0, 0, 0, 2, 0, 5, 0, 1, 0, 0, 0, 0x10, 0, 0, 0, 0x20, 0, 0, 0]);
        let same = Header::read_from_bytes(bytes).map_err(|_| EINVAL)?;
        assert_eq!(same.src(), Ok(src));
        assert_eq!(same.dst(), Ok(dst));
        assert_eq!(
            (same.op(), same.ty()),
            (Op::Rw, Some(SocketType::SeqPacket))
        );
        Ok(())
    }

    #[test]
    fn addresses_of_no_guest() -> Result {
        for cid in [0u64, 1, 2, u64::from(u32::MAX)] {
            assert_eq!(GuestCid::try_from(cid), Err(CidError::Reserved));
        }
        assert_eq!(GuestCid::try_from(1u64 << 32), Err(CidError::TooWide));
        assert_eq!(
            GuestCid::try_from(3u64).map(|cid| cid.get()),
            Ok(Cid::new(3))
        );
        let header = Header::read_from_bytes(&[0xff; HEADER_LEN]).map_err(|_| EINVAL)?;
        assert_eq!(header.src(), Err(CidError::TooWide));
        Ok(())
    }

    /// Both sides' books over 4 GiB and more, with overflow checks on.
    #[test]
    fn credit_wraps_around() -> Result {
        const SIZE: u32 = 3 << 20;
        let (mut tx, mut rx) = (TxCredit::new(SIZE), RxCredit::new(SIZE));
        let mut moved = 0u64;
        while moved < 9 << 30 {
            let stamp = rx.stamp();
            let _ = tx
                .peer_update(stamp.buf_alloc, stamp.fwd_cnt)
                .map_err(|_| EPROTO)?;
            let len = tx.reserve(SIZE - 7);
            assert_eq!(len, SIZE - 7);
            tx.hand_over(len);
            rx.accept(len).map_err(|_| ENOBUFS)?;
            assert!(rx.accept(8).is_err());
            tx.sent(len);
            rx.release(len);
            moved += u64::from(len);
        }
        assert_eq!((tx.unsent(), rx.used()), (0, 0));
        Ok(())
    }

    #[test]
    fn no_answer_to_a_rst() {
        let states = [
            State::Listen,
            State::Connecting,
            State::Established,
            State::Closing,
            State::Closed,
        ];
        for state in states {
            for done in [false, true] {
                let ctx = Local {
                    done,
                    ..Local::default()
                };
                let reaction = conn::receive(state, Op::Rst, u32::MAX, &ctx);
                assert!(!matches!(
                    reaction,
                    Reaction::ResetPeer
                        | Reaction::Fail {
                            reset_peer: true,
                            ..
                        }
                ));
            }
        }
    }

    #[test]
    fn records() -> Result {
        for len in [0, 1, 62, 63, 64, 255, 256, 65535] {
            for flags in [SeqFlags::NONE, SeqFlags::EOM] {
                let record = Record::new(len, flags).ok_or(EINVAL)?;
                let header = record.header();
                let bytes = header.as_bytes();
                assert_eq!(Record::decode(bytes), Some((record, bytes.len())));
                for cut in 0..bytes.len() {
                    assert_eq!(Record::decode(&bytes[..cut]), None);
                }
            }
        }
        assert!(Record::new(65536, SeqFlags::NONE).is_none());
        Ok(())
    }
}
