// SPDX-License-Identifier: GPL-2.0

//! Pieces of messages, packed behind each other in one buffer.
//!
//! A socket buffer costs hundreds of bytes, and a message of a `SOCK_SEQPACKET` socket may have
//! one. A receiver whose messages are that small keeps them as records in one buffer: a header of
//! one byte, or of three for a long piece, and the bytes of the piece. So a byte of payload never
//! takes more than two bytes of memory, as long as there is one.
//!
//! The buffer is private memory of the receiver; no peer writes a record header.

use crate::header::SeqFlags;

/// In the first byte: the length is in the next two.
const LONG: u8 = 63;

/// What precedes a piece.
///
/// # Examples
///
/// ```
/// use vsock_proto::{header::SeqFlags, record::Record};
///
/// let record = Record::new(5, SeqFlags::EOM).unwrap();
/// let mut buffer = record.header().as_bytes().to_vec();
/// buffer.extend(b"hello");
/// assert_eq!(Record::decode(&buffer), Some((record, 1)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    len: u16,
    flags: SeqFlags,
}

/// An encoded [`Record`].
#[derive(Clone, Copy, Debug)]
pub struct RecordHeader {
    bytes: [u8; 3],
    is_long: bool,
}

impl RecordHeader {
    /// The bytes that go into the buffer.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.bytes {
            bytes if self.is_long => bytes,
            [first, ..] => core::slice::from_ref(first),
        }
    }
}

impl Record {
    /// A record of `len` bytes; nothing if that is too long for one.
    #[inline]
    pub fn new(len: usize, flags: SeqFlags) -> Option<Self> {
        let len = u16::try_from(len).ok()?;
        Some(Self { len, flags })
    }

    /// How many bytes the piece has.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Says whether the piece has no bytes.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The flags of the piece.
    #[inline]
    pub const fn flags(&self) -> SeqFlags {
        self.flags
    }

    /// How many bytes header and piece take.
    #[inline]
    pub fn packed_len(&self) -> usize {
        self.len().saturating_add(self.header().as_bytes().len())
    }

    /// The header.
    #[inline]
    pub fn header(&self) -> RecordHeader {
        // Both flags fit: they are the lowest two bits.
        let flags = (self.flags.raw() as u8) << 6;
        let [low, high] = self.len.to_le_bytes();
        if high == 0 && low < LONG {
            RecordHeader {
                bytes: [flags | low, 0, 0],
                is_long: false,
            }
        } else {
            RecordHeader {
                bytes: [flags | LONG, low, high],
                is_long: true,
            }
        }
    }

    /// Reads a header and returns the record and the length of the header; nothing if the buffer
    /// ends before.
    #[inline]
    pub fn decode(bytes: &[u8]) -> Option<(Self, usize)> {
        let (&first, rest) = bytes.split_first()?;
        let flags = SeqFlags::from_wire(u32::from(first >> 6));
        let short = first & LONG;
        if short != LONG {
            let len = u16::from(short);
            return Some((Self { len, flags }, 1));
        }
        let (&low, rest) = rest.split_first()?;
        let (&high, _) = rest.split_first()?;
        let len = u16::from_le_bytes([low, high]);
        Some((Self { len, flags }, 3))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn every_record_comes_back() {
        for len in 0..=u16::MAX {
            for flags in 0..4 {
                let flags = SeqFlags::from_wire(flags);
                let record = Record::new(usize::from(len), flags).unwrap();
                let header = record.header();
                let bytes = header.as_bytes();
                assert_eq!(Record::decode(bytes), Some((record, bytes.len())));
                assert_eq!(record.packed_len(), usize::from(len) + bytes.len());
                // What is said above about memory.
                assert!(len == 0 || record.packed_len() <= 2 * usize::from(len));
            }
        }
    }

    #[test]
    fn too_long_is_refused() {
        assert_eq!(Record::new(0x1_0000, SeqFlags::NONE), None);
        assert_eq!(Record::new(usize::MAX, SeqFlags::NONE), None);
    }

    #[test]
    fn a_cut_header_is_none() {
        let record = Record::new(1000, SeqFlags::EOM).unwrap();
        let header = record.header();
        let bytes = header.as_bytes();
        for len in 0..bytes.len() {
            assert_eq!(Record::decode(&bytes[..len]), None);
        }
    }

    proptest! {
        #[test]
        fn packed_pieces_are_read_in_order(pieces: Vec<(Vec<u8>, u32)>) {
            let mut buffer = Vec::new();
            for (bytes, flags) in &pieces {
                let record = Record::new(bytes.len(), SeqFlags::from_wire(*flags)).unwrap();
                buffer.extend(record.header().as_bytes());
                buffer.extend(bytes);
            }
            let mut rest = &buffer[..];
            for (bytes, flags) in &pieces {
                let (record, header) = Record::decode(rest).unwrap();
                prop_assert_eq!(record.flags(), SeqFlags::from_wire(*flags));
                prop_assert_eq!(&rest[header..header + record.len()], &bytes[..]);
                rest = &rest[header + record.len()..];
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn any_bytes_decode_to_what_is_there(bytes: Vec<u8>) {
            if let Some((record, header)) = Record::decode(&bytes) {
                prop_assert!(header <= bytes.len());
                let _ = record.packed_len();
            }
        }
    }
}
