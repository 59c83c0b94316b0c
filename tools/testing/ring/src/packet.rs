// SPDX-License-Identifier: GPL-2.0

//! Headers of packets, with any values.

/// Bytes of a header.
pub const HEADER_LEN: usize = 44;
/// The most payload of a packet.
pub const MAX_PAYLOAD: usize = 64 * 1024;
/// The CID of the host.
pub const HOST: u64 = 2;

pub const STREAM: u16 = 1;
pub const SEQPACKET: u16 = 2;

pub const INVALID: u16 = 0;
pub const REQUEST: u16 = 1;
pub const RESPONSE: u16 = 2;
pub const RST: u16 = 3;
pub const SHUTDOWN: u16 = 4;
pub const RW: u16 = 5;
pub const CREDIT_UPDATE: u16 = 6;
pub const CREDIT_REQUEST: u16 = 7;

/// Flags of RW: the end of a message, and of a record.
pub const EOM: u32 = 1;
pub const EOR: u32 = 2;

/// A header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    pub src_cid: u64,
    pub dst_cid: u64,
    pub src_port: u32,
    pub dst_port: u32,
    pub len: u32,
    pub ty: u16,
    pub op: u16,
    pub flags: u32,
    pub buf_alloc: u32,
    pub fwd_cnt: u32,
}

impl Header {
    pub fn bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..8].copy_from_slice(&self.src_cid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.dst_cid.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.src_port.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.dst_port.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.len.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.ty.to_le_bytes());
        bytes[30..32].copy_from_slice(&self.op.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.buf_alloc.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.fwd_cnt.to_le_bytes());
        bytes
    }

    /// Reads a header; `None` if there are not enough bytes.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let half = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let long = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        Some(Self {
            src_cid: long(0)?,
            dst_cid: long(8)?,
            src_port: word(16)?,
            dst_port: word(20)?,
            len: word(24)?,
            ty: half(28)?,
            op: half(30)?,
            flags: word(32)?,
            buf_alloc: word(36)?,
            fwd_cnt: word(40)?,
        })
    }

    pub fn with(self, change: impl FnOnce(&mut Self)) -> Self {
        let mut new = self;
        change(&mut new);
        new
    }
}

/// A packet that the device wrote.
#[derive(Clone, Debug)]
pub struct Packet {
    pub header: Header,
    pub payload: Vec<u8>,
}

impl Packet {
    /// The name of what it is, as in the lists of expectations.
    pub fn name(&self) -> &'static str {
        name(self.header.op)
    }
}

/// The name of an operation.
pub fn name(op: u16) -> &'static str {
    match op {
        INVALID => "INVALID",
        REQUEST => "REQUEST",
        RESPONSE => "RESPONSE",
        RST => "RST",
        SHUTDOWN => "SHUTDOWN",
        RW => "RW",
        CREDIT_UPDATE => "CREDIT_UPDATE",
        CREDIT_REQUEST => "CREDIT_REQUEST",
        _ => "UNKNOWN",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_what_the_specification_says() {
        let header = Header {
            src_cid: 0x0102_0304_0506_0708,
            dst_cid: 2,
            src_port: 0x1112_1314,
            dst_port: 0x2122_2324,
            len: 0x3132_3334,
            ty: 0x4142,
            op: 0x5152,
            flags: 0x6162_6364,
            buf_alloc: 0x7172_7374,
            fwd_cnt: 0x8182_8384,
        };
        let bytes = header.bytes();
        assert_eq!(bytes[..8], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(bytes[28..32], [0x42, 0x41, 0x52, 0x51]);
        assert_eq!(bytes[40..], [0x84, 0x83, 0x82, 0x81]);
        assert_eq!(Header::parse(&bytes), Some(header));
        assert_eq!(Header::parse(&bytes[..43]), None);
    }
}
