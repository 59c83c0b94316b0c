// SPDX-License-Identifier: GPL-2.0

//! What an application asks of its peer at the beginning of a connection: one message of
//! [`LEN`] bytes, which the peer answers with one byte when it is ready.

/// Bytes of the message.
pub const LEN: usize = 16;

/// What the peer does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Answers each `size` bytes with as many.
    Echo { size: u32 },
    /// Reads `total` bytes, then says so with one byte, and again.
    Sink { total: u64 },
    /// After each byte of the application, sends `count` messages of `size` bytes.
    Source { size: u32, count: u32 },
}

impl Service {
    /// The message.
    pub fn bytes(self) -> [u8; LEN] {
        let (kind, size, count) = match self {
            Self::Echo { size } => (1u32, size, 0),
            Self::Sink { total } => (2, 0, total),
            Self::Source { size, count } => (3, size, u64::from(count)),
        };
        let mut bytes = [0; LEN];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[4..8].copy_from_slice(&size.to_le_bytes());
        bytes[8..].copy_from_slice(&count.to_le_bytes());
        bytes
    }

    /// What a message asks for; `None` if it is not such a message.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let kind = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
        let size = u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?);
        let count = u64::from_le_bytes(bytes.get(8..LEN)?.try_into().ok()?);
        match kind {
            1 if size > 0 => Some(Self::Echo { size }),
            2 if count > 0 => Some(Self::Sink { total: count }),
            3 if size > 0 => Some(Self::Source {
                size,
                count: count.try_into().ok()?,
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_understood() {
        for service in [
            Service::Echo { size: 64 },
            Service::Sink { total: 1 << 33 },
            Service::Source { size: 7, count: 9 },
        ] {
            assert_eq!(Service::parse(&service.bytes()), Some(service));
        }
        assert_eq!(Service::parse(&[0; LEN]), None);
        assert_eq!(
            Service::parse(&Service::Echo { size: 1 }.bytes()[..LEN - 1]),
            None
        );
    }
}
