// SPDX-License-Identifier: GPL-2.0

//! Access to the memory of a ring.

use crate::{
    layout,
    RingAddr,
    UserAddr, //
};

/// In which byte order the driver writes the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Endian {
    /// Little endian: every driver that negotiated `VIRTIO_F_VERSION_1`.
    Little,
    /// Big endian: a legacy driver of which user space said so.
    Big,
    /// That of this machine: legacy drivers, which C calls "guest native".
    Native,
}

impl Endian {
    /// Converts from or to memory order; it is its own inverse.
    #[inline]
    pub(crate) const fn u16(self, value: u16) -> u16 {
        match self {
            Self::Little => u16::from_le(value),
            Self::Big => u16::from_be(value),
            Self::Native => value,
        }
    }

    /// Converts from or to memory order; it is its own inverse.
    #[inline]
    pub(crate) const fn u32(self, value: u32) -> u32 {
        match self {
            Self::Little => u32::from_le(value),
            Self::Big => u32::from_be(value),
            Self::Native => value,
        }
    }

    /// Converts from or to memory order; it is its own inverse.
    #[inline]
    pub(crate) const fn u64(self, value: u64) -> u64 {
        match self {
            Self::Little => u64::from_le(value),
            Self::Big => u64::from_be(value),
            Self::Native => value,
        }
    }
}

/// The bytes of a descriptor as two words, each as a load from memory gives it. Of single bytes the
/// compiler makes single moves.
pub type RawDesc = [u64; 2];

/// Takes the bytes of a descriptor.
#[inline]
pub(crate) fn raw_desc(bytes: [u8; 16]) -> RawDesc {
    // As one number, of which either half is taken in memory order.
    let word = u128::from_ne_bytes(bytes);
    // CAST: Each takes its own bits.
    let (low, high) = (word as u64, (word >> 64) as u64);
    if cfg!(target_endian = "little") {
        [low, high]
    } else {
        [high, low]
    }
}

/// How the memory of a ring is reached: the one place for that.
///
/// The driver reads and writes the same memory at any time. An implementation copies; it hands out
/// no reference. It need not check addresses: what is not mapped is an error of the access. `u16`
/// values are in memory order, i.e. what a plain load gives; [`SplitRing`](crate::SplitRing)
/// converts them.
///
/// The parts of the ring are reached by [`RingAddr`]. Indirect tables are not part of the ring but
/// buffers of the driver: they have been translated, and are reached by [`UserAddr`].
///
/// # Ordering
///
/// `read_u16` and `write_u16` are single accesses of two aligned bytes, never torn and never merged
/// with others. They do not order anything; the ring calls one of the barriers wherever order
/// matters. These are all the places:
///
/// | in the device | orders | pairs in the driver with |
/// |---|---|---|
/// | `read_barrier` after `avail.idx` was read | `avail.idx` before `avail.ring[]` and the descriptors (and before the buffers, which are read by the caller after `pop`) | the write barrier before it stores `avail.idx` |
/// | `write_barrier` before `used.idx` is stored, also in `put_used` | `used.ring[]`, and what the caller wrote to the buffers, before `used.idx` | the read barrier after it loads `used.idx` |
/// | `full_barrier` in `should_signal` | store of `used.idx` before the load of `avail.flags` or `used_event` | the full barrier between its store of these and its last look at `used.idx` |
/// | `full_barrier` in `enable_notify` | store of `used.flags` or `avail_event` before the load of `avail.idx` | the full barrier between its store of `avail.idx` and its load of these |
///
/// # Context
///
/// Whatever the implementation needs; with user memory that may sleep, all methods of
/// [`SplitRing`](crate::SplitRing) that take a `RingMemory` may sleep.
pub trait RingMemory {
    /// Why an access failed.
    type Error: Copy;

    /// Reads two bytes at once.
    ///
    /// # Errors
    ///
    /// The memory cannot be read.
    fn read_u16(&self, at: RingAddr) -> Result<u16, Self::Error>;

    /// Writes two bytes at once.
    ///
    /// # Errors
    ///
    /// The memory cannot be written.
    fn write_u16(&self, at: RingAddr, value: u16) -> Result<(), Self::Error>;

    /// Fills `out` from a part of the ring, in any order and size of accesses.
    ///
    /// # Errors
    ///
    /// Some of the memory cannot be read; what `out` then contains is not used.
    fn read_ring(&self, at: RingAddr, out: &mut [u8]) -> Result<(), Self::Error>;

    /// Fills `out` from a buffer, in any order and size of accesses.
    ///
    /// # Errors
    ///
    /// Like [`read_ring`](Self::read_ring).
    fn read_bytes(&self, at: UserAddr, out: &mut [u8]) -> Result<(), Self::Error>;

    /// Writes one entry of the used ring, in any order and size of accesses.
    ///
    /// # Errors
    ///
    /// The memory cannot be written.
    fn write_used(&self, at: RingAddr, elem: [u8; 8]) -> Result<(), Self::Error>;

    /// Reads entries of the available ring that lie one after the other; the values are in memory
    /// order. Each is two bytes of which nobody else reads or writes one alone, and that do not
    /// change any more: they may be read in any order and size of accesses.
    ///
    /// # Errors
    ///
    /// Like [`read_ring`](Self::read_ring).
    #[inline]
    fn read_heads(&self, at: RingAddr, out: &mut [u16]) -> Result<(), Self::Error> {
        let mut at = at;
        for head in out {
            *head = self.read_u16(at)?;
            at = at.offset(2);
        }
        Ok(())
    }

    /// Reads descriptors of the ring that lie one after the other.
    ///
    /// # Errors
    ///
    /// Like [`read_ring`](Self::read_ring).
    #[inline]
    fn read_ring_descs(&self, at: RingAddr, out: &mut [RawDesc]) -> Result<(), Self::Error> {
        let mut at = at;
        for part in out.chunks_mut(8) {
            let mut bytes = [[0; 16]; 8];
            let bytes = bytes.get_mut(..part.len()).unwrap_or_default();
            self.read_ring(at, bytes.as_flattened_mut())?;
            for (desc, bytes) in part.iter_mut().zip(bytes) {
                *desc = raw_desc(*bytes);
                at = at.offset(layout::DESC_LEN);
            }
        }
        Ok(())
    }

    /// Reads descriptors of an indirect table that lie one after the other.
    ///
    /// # Errors
    ///
    /// Like [`read_bytes`](Self::read_bytes).
    #[inline]
    fn read_descs(&self, at: UserAddr, out: &mut [RawDesc]) -> Result<(), Self::Error> {
        let mut at = at;
        for part in out.chunks_mut(8) {
            let mut bytes = [[0; 16]; 8];
            let bytes = bytes.get_mut(..part.len()).unwrap_or_default();
            self.read_bytes(at, bytes.as_flattened_mut())?;
            for (desc, bytes) in part.iter_mut().zip(bytes) {
                *desc = raw_desc(*bytes);
                at = at.offset(layout::DESC_LEN);
            }
        }
        Ok(())
    }

    /// Writes entries of the used ring that lie one after the other.
    ///
    /// # Errors
    ///
    /// Like [`write_used`](Self::write_used).
    #[inline]
    fn write_used_many(&self, at: RingAddr, elems: &[[u8; 8]]) -> Result<(), Self::Error> {
        let mut at = at;
        for elem in elems {
            self.write_used(at, *elem)?;
            at = at.offset(8);
        }
        Ok(())
    }

    /// Writes one entry of the used ring, then the index that shows it to the driver, with a write
    /// barrier between the two, and notes both writes.
    ///
    /// `used` is where the ring begins, and `offset` where the entry is in it. The two halves of
    /// the entry, `elem`, and `index` are in memory order.
    ///
    /// # Errors
    ///
    /// Like [`write_used`](Self::write_used); the entry may have been written then, and the index
    /// not.
    #[inline]
    fn put_used(
        &self,
        used: RingAddr,
        offset: u64,
        elem: [u32; 2],
        index: u16,
    ) -> Result<(), Self::Error> {
        put_used_apart(self, used, offset, elem, index)
    }

    /// Orders reads before it against reads after it (`smp_rmb()`).
    fn read_barrier(&self);

    /// Orders writes before it against writes after it (`smp_wmb()`).
    fn write_barrier(&self);

    /// Orders everything before it against everything after it (`smp_mb()`).
    fn full_barrier(&self);

    /// Told of every write to the ring, after it was done: the place of a dirty log.
    ///
    /// It is called for exactly the bytes that were written.
    #[inline]
    fn note_write(&self, _at: RingAddr, _len: u32) {}
}

/// [`RingMemory::put_used`] with one access after the other.
///
/// # Errors
///
/// As there.
#[inline]
pub fn put_used_apart<M: RingMemory + ?Sized>(
    mem: &M,
    used: RingAddr,
    offset: u64,
    elem: [u32; 2],
    index: u16,
) -> Result<(), M::Error> {
    let at = used.offset(offset);
    mem.write_used(at, used_bytes(elem))?;
    mem.note_write(at, 8);
    mem.write_barrier();
    let at = used.offset(layout::IDX_OFFSET);
    mem.write_u16(at, index)?;
    mem.note_write(at, 2);
    Ok(())
}

/// The bytes of an entry of the used ring, of its halves in memory order.
#[inline]
pub(crate) fn used_bytes([id, len]: [u32; 2]) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (id.to_ne_bytes(), len.to_ne_bytes());
    [a, b, c, d, e, f, g, h]
}
