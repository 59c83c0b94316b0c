// SPDX-License-Identifier: GPL-2.0

//! What crosses the ring: the packet header, the event, the configuration space.
//!
//! The structures here hold the bytes of the wire, little endian, without padding; any 44 bytes are
//! a [`Header`]. The getters turn them into native types. A header is copied out of shared memory
//! once and only the copy is looked at.
//!
//! C header: [`include/uapi/linux/virtio_vsock.h`](srctree/include/uapi/linux/virtio_vsock.h)
//!
//! Specification: virtio 1.3, sections 5.10.2 to 5.10.6.

use crate::{
    addr::{
        Addr,
        Cid,
        CidError,
        GuestCid,
        Port, //
    },
    credit::Stamp, //
};
use zerocopy::little_endian::{
    U16,
    U32,
    U64, //
};
use zerocopy_derive::{
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
    Unaligned, //
};

/// Length of a [`Header`] on the wire, in bytes.
pub const HEADER_LEN: usize = 44;

/// The largest payload of one packet, in bytes.
#[doc(alias = "VIRTIO_VSOCK_MAX_PKT_BUF_SIZE")]
pub const MAX_PKT_BUF_SIZE: u32 = 64 * 1024;

/// The largest receive buffer of a socket, in bytes: `buf_alloc` has 32 bits.
#[doc(alias = "VIRTIO_VSOCK_MAX_BUF_SIZE")]
pub const MAX_BUF_SIZE: u32 = u32::MAX;

/// Index of the virtqueue from the device to the driver.
#[doc(alias = "VSOCK_VQ_RX")]
pub const QUEUE_RX: usize = 0;
/// Index of the virtqueue from the driver to the device.
#[doc(alias = "VSOCK_VQ_TX")]
pub const QUEUE_TX: usize = 1;
/// Index of the virtqueue of [`Event`]s, from the device to the driver.
#[doc(alias = "VSOCK_VQ_EVENT")]
pub const QUEUE_EVENT: usize = 2;
/// Number of virtqueues of the device.
#[doc(alias = "VSOCK_VQ_MAX")]
pub const QUEUE_COUNT: usize = 3;

/// Number of the feature bit: sockets of type [`SocketType::SeqPacket`] are supported.
#[doc(alias = "VIRTIO_VSOCK_F_SEQPACKET")]
pub const F_SEQPACKET: u32 = 1;

/// The [`Event`] after which all connections of the guest are gone, and its CID may be another.
#[doc(alias = "VIRTIO_VSOCK_EVENT_TRANSPORT_RESET")]
pub const EVENT_TRANSPORT_RESET: u32 = 0;

/// The type of a socket, as packets name it.
#[doc(alias = "virtio_vsock_type")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u16)]
pub enum SocketType {
    /// A stream of bytes.
    #[doc(alias = "VIRTIO_VSOCK_TYPE_STREAM")]
    Stream = 1,
    /// A stream of messages; see [`SeqFlags`].
    #[doc(alias = "VIRTIO_VSOCK_TYPE_SEQPACKET")]
    SeqPacket = 2,
}

impl SocketType {
    /// Returns the type with the number `ty`, if there is one.
    #[inline]
    pub const fn from_raw(ty: u16) -> Option<Self> {
        match ty {
            1 => Some(Self::Stream),
            2 => Some(Self::SeqPacket),
            _ => None,
        }
    }

    /// Returns the number on the wire.
    #[inline]
    pub const fn raw(self) -> u16 {
        match self {
            Self::Stream => 1,
            Self::SeqPacket => 2,
        }
    }
}

/// What a packet asks for.
#[doc(alias = "virtio_vsock_op")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// Number 0, which nobody should send.
    #[doc(alias = "VIRTIO_VSOCK_OP_INVALID")]
    Invalid,
    /// Connect to a listener.
    #[doc(alias = "VIRTIO_VSOCK_OP_REQUEST")]
    Request,
    /// The listener has accepted.
    #[doc(alias = "VIRTIO_VSOCK_OP_RESPONSE")]
    Response,
    /// There is no such connection, or no longer.
    #[doc(alias = "VIRTIO_VSOCK_OP_RST")]
    Rst,
    /// The sender will not receive or not send any more; see [`ShutdownFlags`].
    #[doc(alias = "VIRTIO_VSOCK_OP_SHUTDOWN")]
    Shutdown,
    /// Payload.
    #[doc(alias = "VIRTIO_VSOCK_OP_RW")]
    Rw,
    /// Nothing but the sender's credit, which every packet carries.
    #[doc(alias = "VIRTIO_VSOCK_OP_CREDIT_UPDATE")]
    CreditUpdate,
    /// Please send a [`Op::CreditUpdate`].
    #[doc(alias = "VIRTIO_VSOCK_OP_CREDIT_REQUEST")]
    CreditRequest,
    /// A number that the specification does not give a meaning to.
    Unknown(u16),
}

impl Op {
    /// Returns the number on the wire.
    #[inline]
    pub const fn raw(self) -> u16 {
        match self {
            Self::Invalid => 0,
            Self::Request => 1,
            Self::Response => 2,
            Self::Rst => 3,
            Self::Shutdown => 4,
            Self::Rw => 5,
            Self::CreditUpdate => 6,
            Self::CreditRequest => 7,
            Self::Unknown(op) => op,
        }
    }
}

impl From<u16> for Op {
    #[inline]
    fn from(op: u16) -> Self {
        match op {
            0 => Self::Invalid,
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Rst,
            4 => Self::Shutdown,
            5 => Self::Rw,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            op => Self::Unknown(op),
        }
    }
}

/// The `flags` of a [`Op::Shutdown`], which accumulate over the life of a connection.
///
/// The numbers are also those of `RCV_SHUTDOWN` and `SEND_SHUTDOWN` of the socket layer.
///
/// # Invariants
///
/// Only known bits are set.
#[doc(alias = "virtio_vsock_shutdown")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(transparent)]
pub struct ShutdownFlags(u32);

impl ShutdownFlags {
    /// Neither direction is shut down.
    pub const NONE: Self = Self(0);
    /// The sender of the packet will not receive any more.
    #[doc(alias = "VIRTIO_VSOCK_SHUTDOWN_RCV")]
    pub const RCV: Self = Self(1);
    /// The sender of the packet will not send any more.
    #[doc(alias = "VIRTIO_VSOCK_SHUTDOWN_SEND")]
    pub const SEND: Self = Self(2);
    /// Both directions are shut down.
    #[doc(alias = "SHUTDOWN_MASK")]
    pub const BOTH: Self = Self(3);

    /// Takes the known bits of `flags` and ignores the others.
    #[inline]
    pub const fn from_wire(flags: u32) -> Self {
        // INVARIANT: `BOTH` has all the known bits.
        Self(flags & Self::BOTH.0)
    }

    /// Returns the bits on the wire.
    #[inline]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// Whether all the bits of `other` are set.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the bits that are set in either.
    #[inline]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether both directions are shut down.
    #[inline]
    pub const fn is_both(self) -> bool {
        self.contains(Self::BOTH)
    }

    /// Whether neither direction is shut down.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The `flags` of a [`Op::Rw`] between sockets of type [`SocketType::SeqPacket`].
///
/// # Invariants
///
/// Only known bits are set.
#[doc(alias = "virtio_vsock_rw")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(transparent)]
pub struct SeqFlags(u32);

impl SeqFlags {
    /// The message goes on in the next packet.
    pub const NONE: Self = Self(0);
    /// The message ends here.
    #[doc(alias = "VIRTIO_VSOCK_SEQ_EOM")]
    pub const EOM: Self = Self(1);
    /// The message ends here, and so does a record (`MSG_EOR`).
    #[doc(alias = "VIRTIO_VSOCK_SEQ_EOR")]
    pub const EOR: Self = Self(2);

    /// Takes the known bits of `flags` and ignores the others.
    #[inline]
    pub const fn from_wire(flags: u32) -> Self {
        // INVARIANT: Only the two known bits are kept.
        Self(flags & (Self::EOM.0 | Self::EOR.0))
    }

    /// Returns the bits on the wire.
    #[inline]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// Whether all the bits of `other` are set.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the bits that are set in either.
    #[inline]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The header of a packet, as it is on the wire.
///
/// All fields are the word of whoever sent it.
///
/// # Examples
///
/// ```
/// use vsock_proto::addr::{Addr, Cid, Port};
/// use vsock_proto::header::{Header, Op, SocketType};
///
/// let guest = Addr::new(Cid::new(3), Port::new(1024));
/// let host = Addr::new(Cid::HOST, Port::new(22));
/// let request = Header::new(Op::Request, SocketType::Stream, guest, host, 0, 0);
///
/// let rst = request.reply_rst().unwrap();
/// assert_eq!((rst.op(), rst.src(), rst.dst()), (Op::Rst, Ok(host), Ok(guest)));
/// assert!(rst.reply_rst().is_none());
/// ```
#[doc(alias = "virtio_vsock_hdr")]
#[derive(
    FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, PartialEq, Eq, Debug,
)]
#[repr(C)]
pub struct Header {
    src_cid: U64,
    dst_cid: U64,
    src_port: U32,
    dst_port: U32,
    len: U32,
    ty: U16,
    op: U16,
    flags: U32,
    buf_alloc: U32,
    fwd_cnt: U32,
}

const _: () = assert!(size_of::<Header>() == HEADER_LEN && align_of::<Header>() == 1);

impl Header {
    /// Makes the header of a packet with `len` bytes of payload.
    ///
    /// The credit fields are zero; see [`Header::set_credit`].
    #[doc(alias = "virtio_transport_init_hdr")]
    #[inline]
    pub fn new(op: Op, ty: SocketType, src: Addr, dst: Addr, len: u32, flags: u32) -> Self {
        Self {
            src_cid: U64::new(u64::from(src.cid.get())),
            dst_cid: U64::new(u64::from(dst.cid.get())),
            src_port: U32::new(src.port.get()),
            dst_port: U32::new(dst.port.get()),
            len: U32::new(len),
            ty: U16::new(ty.raw()),
            op: U16::new(op.raw()),
            flags: U32::new(flags),
            buf_alloc: U32::ZERO,
            fwd_cnt: U32::ZERO,
        }
    }

    /// Makes the RST that answers this packet, for which there is no connection.
    ///
    /// Returns [`None`] for a RST: that is never answered, or two machines would go on for ever.
    /// Nothing in the packet needs to be valid: addresses and type go back as they came. The credit
    /// fields are zero, as there is no socket that could have any.
    #[doc(alias = "virtio_transport_reset_no_sock")]
    #[inline]
    pub fn reply_rst(&self) -> Option<Self> {
        if self.op() == Op::Rst {
            return None;
        }
        Some(Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            len: U32::ZERO,
            ty: self.ty,
            op: U16::new(Op::Rst.raw()),
            flags: U32::ZERO,
            buf_alloc: U32::ZERO,
            fwd_cnt: U32::ZERO,
        })
    }

    /// Returns all 64 bits of the source's CID.
    #[inline]
    pub fn src_cid_raw(&self) -> u64 {
        self.src_cid.get()
    }

    /// Returns all 64 bits of the destination's CID.
    #[inline]
    pub fn dst_cid_raw(&self) -> u64 {
        self.dst_cid.get()
    }

    /// Returns the port of the source.
    #[inline]
    pub fn src_port(&self) -> Port {
        Port::new(self.src_port.get())
    }

    /// Returns the port of the destination.
    #[inline]
    pub fn dst_port(&self) -> Port {
        Port::new(self.dst_port.get())
    }

    /// Returns who says to have sent the packet.
    ///
    /// # Errors
    ///
    /// [`CidError::TooWide`] if the CID has more than 32 bits.
    #[inline]
    pub fn src(&self) -> Result<Addr, CidError> {
        Ok(Addr::new(
            Cid::try_from(self.src_cid_raw())?,
            self.src_port(),
        ))
    }

    /// Returns for whom the packet is.
    ///
    /// # Errors
    ///
    /// [`CidError::TooWide`] if the CID has more than 32 bits.
    #[inline]
    pub fn dst(&self) -> Result<Addr, CidError> {
        Ok(Addr::new(
            Cid::try_from(self.dst_cid_raw())?,
            self.dst_port(),
        ))
    }

    /// Returns how many bytes of payload there should be.
    #[expect(clippy::len_without_is_empty, reason = "a field, not a container")]
    #[inline]
    pub fn len(&self) -> u32 {
        self.len.get()
    }

    /// Returns the type of the sockets, if it is a known one.
    #[inline]
    pub fn ty(&self) -> Option<SocketType> {
        SocketType::from_raw(self.ty_raw())
    }

    /// Returns the number of the type of the sockets.
    #[inline]
    pub fn ty_raw(&self) -> u16 {
        self.ty.get()
    }

    /// Returns what the packet asks for.
    #[inline]
    pub fn op(&self) -> Op {
        Op::from(self.op.get())
    }

    /// Returns the flags, whose meaning depends on [`Header::op`].
    #[inline]
    pub fn flags(&self) -> u32 {
        self.flags.get()
    }

    /// Returns the size of the sender's receive buffer.
    ///
    /// Only [`TxCredit::peer_update`](crate::credit::TxCredit::peer_update) should want to know.
    #[inline]
    pub fn buf_alloc(&self) -> u32 {
        self.buf_alloc.get()
    }

    /// Returns how many bytes have left the sender's receive buffer, modulo 2^32.
    ///
    /// Only [`TxCredit::peer_update`](crate::credit::TxCredit::peer_update) should want to know.
    #[inline]
    pub fn fwd_cnt(&self) -> u32 {
        self.fwd_cnt.get()
    }

    /// Sets the length of the payload.
    #[inline]
    pub fn set_len(&mut self, len: u32) {
        self.len.set(len);
    }

    /// Sets the flags.
    #[inline]
    pub fn set_flags(&mut self, flags: u32) {
        self.flags.set(flags);
    }

    /// Sets the credit fields.
    #[inline]
    pub fn set_credit(&mut self, buf_alloc: u32, fwd_cnt: u32) {
        self.buf_alloc.set(buf_alloc);
        self.fwd_cnt.set(fwd_cnt);
    }

    /// Sets the credit fields to what [`RxCredit::stamp`](crate::credit::RxCredit::stamp) said.
    #[inline]
    pub fn set_stamp(&mut self, stamp: Stamp) {
        self.set_credit(stamp.buf_alloc, stamp.fwd_cnt);
    }
}

/// An event, as it is on the wire.
#[doc(alias = "virtio_vsock_event")]
#[derive(
    FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, PartialEq, Eq, Debug,
)]
#[repr(C)]
pub struct Event {
    id: U32,
}

const _: () = assert!(size_of::<Event>() == 4);

impl Event {
    /// Makes the event with the number `id`, for example [`EVENT_TRANSPORT_RESET`].
    #[inline]
    pub fn new(id: u32) -> Self {
        Self { id: U32::new(id) }
    }

    /// Returns the number of the event.
    #[inline]
    pub fn id(&self) -> u32 {
        self.id.get()
    }
}

/// The configuration space of the device.
#[doc(alias = "virtio_vsock_config")]
#[derive(
    FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, PartialEq, Eq, Debug,
)]
#[repr(C)]
pub struct Config {
    guest_cid: U64,
}

const _: () = assert!(size_of::<Config>() == 8);

impl Config {
    /// Makes the configuration of a device for the guest with the CID `cid`.
    #[inline]
    pub fn new(cid: GuestCid) -> Self {
        Self {
            guest_cid: U64::new(u64::from(cid.get().get())),
        }
    }

    /// Returns the CID that the device gives to the guest.
    ///
    /// # Errors
    ///
    /// [`CidError`] if that is not one that a guest may own.
    #[inline]
    pub fn guest_cid(&self) -> Result<GuestCid, CidError> {
        GuestCid::try_from(self.guest_cid.get())
    }
}

#[cfg(test)]
mod tests {
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
}
