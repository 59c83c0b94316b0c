// SPDX-License-Identifier: GPL-2.0

//! The memory of a ring.

use crate::{
    log::Log,
    memory::{
        MemTable,
        OwnerIotlb, //
    },
    reach::Reach,
};
use core::ops::Range;
use kernel::{
    prelude::*,
    sync::barrier::{
        smp_mb,
        Full,
        Read,
        Write, //
    },
};
use kernel_ext::{
    owner_mm::{
        InOwnerMm,
        OwnerAddr, //
    },
    skb::SkBuff,
    user_iov::UserIov, //
};
use vring::{
    memory::{
        put_used_apart,
        RawDesc, //
    },
    Access,
    Gpa,
    IotlbError,
    RingAddr,
    RingMemory,
    UserAddr, //
};

/// The memory of a ring, reached by user accesses in the address space of the owner.
///
/// A thread that is not in that address space needs another way: see [`Reach`].
pub struct OwnerRing<'a> {
    pub(crate) mm: &'a InOwnerMm,
    /// What translates the addresses of the ring; all of it was
    /// [prefetched](vring::Iotlb::prefetch) with the lock of the queue held.
    pub(crate) iotlb: Option<&'a OwnerIotlb>,
    /// Where the used ring is, for the log.
    pub(crate) used: RingAddr,
    pub(crate) log: &'a Log,
    pub(crate) memory: &'a MemTable,
}

impl OwnerRing<'_> {
    #[inline]
    fn owner(at: u64) -> Result<OwnerAddr> {
        OwnerAddr::from_u64(at).ok_or(EFAULT)
    }

    /// Where a field is, which lies in one piece.
    #[inline]
    fn field(&self, at: RingAddr, len: u32, access: Access) -> Result<OwnerAddr> {
        let Some(iotlb) = self.iotlb else {
            return Self::owner(at.0);
        };
        let piece = iotlb
            .ring_piece(at, len, access)
            .map_err(|_: IotlbError| EFAULT)?;
        if piece.len < len {
            return Err(EFAULT);
        }
        Self::owner(piece.addr.0)
    }

    /// Calls `f` with the pieces that `len` bytes of the ring consist of: where each is, and which
    /// of the bytes it has.
    #[inline]
    fn pieces(
        &self,
        at: RingAddr,
        len: usize,
        access: Access,
        mut f: impl FnMut(UserAddr, Range<usize>) -> Result,
    ) -> Result {
        let Some(iotlb) = self.iotlb else {
            return f(UserAddr(at.0), 0..len);
        };
        let mut done = 0;
        while done < len {
            // CAST: A descriptor, or some, and part of that.
            let left = len.saturating_sub(done) as u32;
            let at = at.checked_add(done as u64).ok_or(EFAULT)?;
            let piece = iotlb
                .ring_piece(at, left, access)
                .map_err(|_: IotlbError| EFAULT)?;
            // A piece has at least one byte.
            let end = done.checked_add(piece.len.max(1) as usize).ok_or(EFAULT)?;
            f(piece.addr, done..end)?;
            done = end;
        }
        Ok(())
    }
}

impl RingMemory for OwnerRing<'_> {
    type Error = Error;

    #[inline]
    fn read_u16(&self, at: RingAddr) -> Result<u16> {
        self.mm.get_u16(self.field(at, 2, Access::Read)?)
    }

    #[inline]
    fn write_u16(&self, at: RingAddr, value: u16) -> Result {
        self.mm.put_u16(self.field(at, 2, Access::Write)?, value)
    }

    #[inline]
    fn read_ring(&self, at: RingAddr, out: &mut [u8]) -> Result {
        self.pieces(at, out.len(), Access::Read, |addr, part| {
            let part = out.get_mut(part).ok_or(EFAULT)?;
            self.mm.read_small(Self::owner(addr.0)?, part)
        })
    }

    #[inline]
    fn read_heads(&self, at: RingAddr, out: &mut [u16]) -> Result {
        self.read_ring(at, out.as_mut_bytes())
    }

    #[inline]
    fn read_bytes(&self, at: UserAddr, out: &mut [u8]) -> Result {
        self.mm.read_small(Self::owner(at.0)?, out)
    }

    #[inline]
    fn read_ring_descs(&self, at: RingAddr, out: &mut [RawDesc]) -> Result {
        self.read_ring(at, out.as_mut_bytes())
    }

    #[inline]
    fn read_descs(&self, at: UserAddr, out: &mut [RawDesc]) -> Result {
        self.read_bytes(at, out.as_mut_bytes())
    }

    #[inline]
    fn put_used(&self, used: RingAddr, offset: u64, elem: [u32; 2], index: u16) -> Result {
        // What is logged, or may lie in several pieces, is written piece by piece.
        if self.iotlb.is_some() || self.log.used.is_some() {
            return self.put_used_apart(used, offset, elem, index);
        }
        // CAST: An offset into a ring, which is less than a megabyte.
        self.mm
            .put_used(Self::owner(used.0)?, offset as usize, elem, index)
    }

    #[inline]
    fn write_used(&self, at: RingAddr, elem: [u8; 8]) -> Result {
        self.pieces(at, elem.len(), Access::Write, |addr, part| {
            let part = elem.get(part).ok_or(EFAULT)?;
            self.mm.write_slice(Self::owner(addr.0)?, part)
        })
    }

    #[inline]
    fn read_barrier(&self) {
        smp_mb(Read);
    }

    #[inline]
    fn write_barrier(&self) {
        smp_mb(Write);
    }

    #[inline]
    fn full_barrier(&self) {
        smp_mb(Full);
    }

    #[doc(alias = "log_used")]
    #[inline]
    fn note_write(&self, at: RingAddr, len: u32) {
        if let Some(used) = self.log.used {
            self.log_used(used, at, len);
        }
    }
}

impl OwnerRing<'_> {
    #[cold]
    fn put_used_apart(&self, used: RingAddr, offset: u64, elem: [u32; 2], index: u16) -> Result {
        put_used_apart(self, used, offset, elem, index)
    }

    /// Logs a write to the used ring, which begins at `used` for the guest.
    #[cold]
    fn log_used(&self, used: Gpa, at: RingAddr, len: u32) {
        if self.iotlb.is_some() {
            // What was just written has a translation.
            let _ = self.pieces(at, len as usize, Access::Write, |addr, part| {
                let len = part.end.saturating_sub(part.start) as u64;
                self.log.owner_area(self.mm, self.memory, addr, len);
                Ok(())
            });
        } else {
            // Where the ring ends was checked, when the log or the ring was set.
            //
            // OVERFLOW: `at` lies in the used ring.
            let offset = at.0.wrapping_sub(self.used.0);
            let guest = Gpa(used.0.wrapping_add(offset));
            self.log.guest_area(self.mm, guest, len.into());
            // User space said one of its addresses; there may be more.
            let regions = self.memory.regions();
            for (other, len) in regions.guest_areas(UserAddr(at.0), len.into()) {
                if other != guest {
                    self.log.guest_area(self.mm, other, len);
                }
            }
        }
        self.log.signal();
    }
}

impl Reach for OwnerRing<'_> {
    const MAY_SLEEP: bool = true;

    #[inline]
    fn read_buffers(&self, buffers: &UserIov, offset: usize, out: &mut [u8]) -> Result {
        buffers.read_at(self.mm, offset, out)
    }

    #[inline]
    fn write_buffers(&self, buffers: &UserIov, offset: usize, data: &[u8]) -> Result {
        buffers.write_at(self.mm, offset, data)
    }

    #[inline]
    fn write_skb<C>(
        &self,
        buffers: &UserIov,
        offset: usize,
        skb: &SkBuff<C>,
        from: usize,
        len: usize,
    ) -> Result {
        skb.copy_to_iter(from, &mut buffers.dest_at(self.mm, offset), len)
    }

    #[doc(alias = "vhost_log_write")]
    #[cold]
    fn log_buffers(&self, buffers: &UserIov, len: usize) {
        let mut left = len;
        for (at, len) in buffers.pieces() {
            if left == 0 {
                break;
            }
            let part = len.min(left);
            left = left.saturating_sub(part);
            // CAST: From the size of an address to 64 bits.
            let (at, part) = (UserAddr(at.get() as u64), part as u64);
            self.log.owner_area(self.mm, self.memory, at, part);
        }
        self.log.signal();
    }
}
