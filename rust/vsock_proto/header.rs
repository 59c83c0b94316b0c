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

use crate::addr::{
    Addr,
    Cid,
    CidError,
    GuestCid,
    Port, //
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
pub struct ShutdownFlags(u8);

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
        let [low, ..] = flags.to_le_bytes();
        // INVARIANT: `BOTH` has all the known bits.
        Self(low & Self::BOTH.0)
    }

    /// Returns the bits on the wire.
    #[inline]
    pub const fn raw(self) -> u32 {
        self.0 as u32
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

    /// Whether both ends have a port that a socket can have. [`Port::ANY`] is none: nobody could
    /// say to whom the connection is, and `send()` of a socket that accepted one would have no
    /// address.
    ///
    /// A packet for which this is false belongs to no connection, and is answered as such, with
    /// [`Header::reply_rst`].
    #[inline]
    pub fn has_ports(&self) -> bool {
        self.src_port() != Port::ANY && self.dst_port() != Port::ANY
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
    /// Only `credit::TxCredit::peer_update()` should want to know.
    #[inline]
    pub fn buf_alloc(&self) -> u32 {
        self.buf_alloc.get()
    }

    /// Returns how many bytes have left the sender's receive buffer, modulo 2^32.
    ///
    /// Only `credit::TxCredit::peer_update()` should want to know.
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

    /// Sets the credit fields to what `credit::RxCredit::stamp()` said.
    #[inline]
    pub fn set_stamp(&mut self, stamp: Stamp) {
        self.set_credit(stamp.buf_alloc, stamp.fwd_cnt);
    }
}

/// The credit fields of a packet that we send.
#[must_use = "the peer is considered told"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Size of our receive buffer.
    pub buf_alloc: u32,
    /// How many bytes have left it so far, modulo 2^32.
    pub fwd_cnt: u32,
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
#[path = "header/tests.rs"]
mod tests;
