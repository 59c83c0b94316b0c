// SPDX-License-Identifier: GPL-2.0

use super::*;
use proptest::prelude::*;
use zerocopy::{
    FromBytes,
    IntoBytes, //
};

/// Every field has bytes of its own, so that none can take the place of another.
const BYTES: [u8; HEADER_LEN] = [
    0x01, 0x02, 0x03, 0x04, 0x00, 0x00, 0x00, 0x00, // src_cid
    0x11, 0x12, 0x13, 0x14, 0x00, 0x00, 0x00, 0x00, // dst_cid
    0x21, 0x22, 0x23, 0x24, // src_port
    0x31, 0x32, 0x33, 0x34, // dst_port
    0x41, 0x42, 0x43, 0x44, // len
    0x02, 0x00, // type
    0x05, 0x00, // op
    0x61, 0x62, 0x63, 0x64, // flags
    0x71, 0x72, 0x73, 0x74, // buf_alloc
    0x81, 0x82, 0x83, 0x84, // fwd_cnt
];

const SRC: Addr = Addr::new(Cid::new(0x0403_0201), Port::new(0x2423_2221));
const DST: Addr = Addr::new(Cid::new(0x1413_1211), Port::new(0x3433_3231));

fn parse(bytes: &[u8; HEADER_LEN]) -> Header {
    Header::read_from_bytes(bytes).unwrap()
}

#[test]
fn bytes_to_fields() {
    let hdr = parse(&BYTES);
    assert_eq!(hdr.src_cid_raw(), 0x0403_0201);
    assert_eq!(hdr.dst_cid_raw(), 0x1413_1211);
    assert_eq!(hdr.src(), Ok(SRC));
    assert_eq!(hdr.dst(), Ok(DST));
    assert_eq!(hdr.src_port(), SRC.port);
    assert_eq!(hdr.dst_port(), DST.port);
    assert_eq!(hdr.len(), 0x4443_4241);
    assert_eq!(hdr.ty_raw(), 2);
    assert_eq!(hdr.ty(), Some(SocketType::SeqPacket));
    assert_eq!(hdr.op(), Op::Rw);
    assert_eq!(hdr.flags(), 0x6463_6261);
    assert_eq!(hdr.buf_alloc(), 0x7473_7271);
    assert_eq!(hdr.fwd_cnt(), 0x8483_8281);
}

#[test]
fn a_port_of_nobody_is_no_connection() {
    const NOBODY: u32 = u32::MAX;
    let at = |port| Addr::new(Cid::HOST, Port::new(port));
    for (src, dst, has) in [
        (NOBODY, 1234, false),
        (1234, NOBODY, false),
        (NOBODY, NOBODY, false),
        (NOBODY - 1, 0, true),
        (0, NOBODY - 1, true),
    ] {
        let request = Header::new(Op::Request, SocketType::Stream, at(src), at(dst), 0, 0);
        assert_eq!(request.has_ports(), has, "{src} to {dst}");
        // It can be answered all the same.
        assert_eq!(request.reply_rst().map(|rst| rst.has_ports()), Some(has));
    }
}

#[test]
fn fields_to_bytes() {
    let mut hdr = Header::new(
        Op::Rw,
        SocketType::SeqPacket,
        SRC,
        DST,
        0x4443_4241,
        0x6463_6261,
    );
    let mut expected = BYTES;
    expected[36..].fill(0);
    assert_eq!(hdr.as_bytes(), expected);

    hdr.set_credit(0x7473_7271, 0x8483_8281);
    assert_eq!(hdr.as_bytes(), BYTES);

    hdr.set_credit(0, 0);
    hdr.set_stamp(Stamp {
        buf_alloc: 0x7473_7271,
        fwd_cnt: 0x8483_8281,
    });
    assert_eq!(hdr.as_bytes(), BYTES);

    hdr.set_len(0x0403_0201);
    hdr.set_flags(0x0807_0605);
    let mut expected = BYTES;
    expected[24..28].copy_from_slice(&[1, 2, 3, 4]);
    expected[32..36].copy_from_slice(&[5, 6, 7, 8]);
    assert_eq!(hdr.as_bytes(), expected);
}

#[test]
fn rst_of_bytes() {
    let mut bytes = BYTES;
    bytes[4] = 0xaa; // A source CID of more than 32 bits,
    bytes[15] = 0xbb; // the destination's as well,
    bytes[28] = 0xcc; // and no known type.
    let hdr = parse(&bytes);
    assert_eq!(hdr.src(), Err(CidError::TooWide));
    assert_eq!(hdr.dst(), Err(CidError::TooWide));
    assert_eq!(hdr.ty(), None);

    let mut expected = [0; HEADER_LEN];
    expected[0..8].copy_from_slice(&bytes[8..16]);
    expected[8..16].copy_from_slice(&bytes[0..8]);
    expected[16..20].copy_from_slice(&bytes[20..24]);
    expected[20..24].copy_from_slice(&bytes[16..20]);
    expected[28] = 0xcc;
    expected[30] = 3;
    assert_eq!(hdr.reply_rst().unwrap().as_bytes(), expected);
}

#[test]
fn numbers_on_the_wire() {
    for (raw, op) in [
        Op::Invalid,
        Op::Request,
        Op::Response,
        Op::Rst,
        Op::Shutdown,
        Op::Rw,
        Op::CreditUpdate,
        Op::CreditRequest,
        Op::Unknown(8),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(usize::from(op.raw()), raw);
    }
    for raw in 0..=u16::MAX {
        let op = Op::from(raw);
        assert_eq!(op.raw(), raw);
        assert_eq!(matches!(op, Op::Unknown(_)), raw > 7);
        match SocketType::from_raw(raw) {
            Some(ty) => assert_eq!(ty.raw(), raw),
            None => assert!(!(1..=2).contains(&raw)),
        }
    }
    assert_eq!(SocketType::Stream.raw(), 1);
    assert_eq!(SocketType::SeqPacket.raw(), 2);
    assert_eq!(SocketType::Stream as u16, 1);
    assert_eq!(SocketType::SeqPacket as u16, 2);
}

#[test]
fn shutdown_flags() {
    use ShutdownFlags as F;

    assert_eq!((F::RCV.raw(), F::SEND.raw()), (1, 2));
    assert_eq!(F::from_wire(0), F::NONE);
    assert_eq!(F::from_wire(0xffff_fffc), F::NONE);
    assert_eq!(F::from_wire(u32::MAX), F::BOTH);
    assert_eq!(F::RCV.union(F::SEND), F::BOTH);
    assert_eq!(F::default(), F::NONE);
    for f in [F::NONE, F::RCV, F::SEND, F::BOTH] {
        assert_eq!(F::from_wire(f.raw()), f);
        assert_eq!(f.union(f), f);
        assert!(f.contains(F::NONE) && f.contains(f) && F::BOTH.contains(f));
        assert_eq!(f.is_both(), f == F::BOTH);
        assert_eq!(f.is_empty(), f == F::NONE);
    }
    assert!(!F::RCV.contains(F::SEND) && !F::SEND.contains(F::BOTH));
}

#[test]
fn seq_flags() {
    use SeqFlags as F;

    assert_eq!((F::EOM.raw(), F::EOR.raw()), (1, 2));
    assert_eq!(F::from_wire(0xffff_fffc), F::NONE);
    assert_eq!(F::from_wire(u32::MAX), F::EOM.union(F::EOR));
    assert!(F::from_wire(3).contains(F::EOM) && F::from_wire(3).contains(F::EOR));
    assert!(!F::EOR.contains(F::EOM) && !F::NONE.contains(F::EOR));
    assert_eq!(F::default(), F::NONE);
}

#[test]
fn event_and_config() {
    assert_eq!(
        Event::read_from_bytes(&[0; 4]).unwrap().id(),
        EVENT_TRANSPORT_RESET
    );
    assert_eq!(Event::new(0x0403_0201).as_bytes(), [1, 2, 3, 4]);

    let cid = GuestCid::try_from(0x0403_0201_u32).unwrap();
    assert_eq!(Config::new(cid).as_bytes(), [1, 2, 3, 4, 0, 0, 0, 0]);
    assert_eq!(Config::new(cid).guest_cid(), Ok(cid));
    for (bytes, err) in [
        ([2, 0, 0, 0, 0, 0, 0, 0], CidError::Reserved),
        ([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], CidError::Reserved),
        ([3, 0, 0, 0, 1, 0, 0, 0], CidError::TooWide),
        ([0xff; 8], CidError::TooWide),
    ] {
        let config = Config::read_from_bytes(&bytes).unwrap();
        assert_eq!(config.guest_cid(), Err(err));
    }
}

fn any_header() -> impl Strategy<Value = Header> {
    (any::<[u8; 32]>(), any::<[u8; 12]>(), 0_u8..9, any::<bool>()).prop_map(
        |(front, back, op, known)| {
            let mut bytes = [0; HEADER_LEN];
            bytes[..32].copy_from_slice(&front);
            bytes[32..].copy_from_slice(&back);
            if known {
                bytes[30] = op;
                bytes[31] = 0;
            }
            parse(&bytes)
        },
    )
}

proptest! {
    #[test]
    fn rst_is_never_answered_by_rst(hdr in any_header()) {
        match hdr.reply_rst() {
            None => prop_assert_eq!(hdr.op(), Op::Rst),
            Some(rst) => {
                prop_assert_ne!(hdr.op(), Op::Rst);
                prop_assert_eq!(rst.op(), Op::Rst);
                prop_assert_eq!(rst.reply_rst(), None);
                prop_assert_eq!(rst.src_cid_raw(), hdr.dst_cid_raw());
                prop_assert_eq!(rst.dst_cid_raw(), hdr.src_cid_raw());
                prop_assert_eq!(rst.src(), hdr.dst());
                prop_assert_eq!(rst.dst(), hdr.src());
                prop_assert_eq!(rst.ty_raw(), hdr.ty_raw());
                prop_assert_eq!(
                    (rst.len(), rst.flags(), rst.buf_alloc(), rst.fwd_cnt()),
                    (0, 0, 0, 0)
                );
            }
        }
    }

    #[test]
    fn getters_say_what_new_was_told(
        cids: (u32, u32), ports: (u32, u32), op: u16, seq: bool, len: u32, flags: u32,
    ) {
        let src = Addr::new(Cid::new(cids.0), Port::new(ports.0));
        let dst = Addr::new(Cid::new(cids.1), Port::new(ports.1));
        let ty = if seq { SocketType::SeqPacket } else { SocketType::Stream };
        let hdr = Header::new(Op::from(op), ty, src, dst, len, flags);
        prop_assert_eq!((hdr.src(), hdr.dst()), (Ok(src), Ok(dst)));
        prop_assert_eq!((hdr.op(), hdr.ty()), (Op::from(op), Some(ty)));
        prop_assert_eq!((hdr.len(), hdr.flags()), (len, flags));
        prop_assert_eq!((hdr.buf_alloc(), hdr.fwd_cnt()), (0, 0));
        prop_assert_eq!(Header::read_from_bytes(hdr.as_bytes()).unwrap(), hdr);
    }
}
