// SPDX-License-Identifier: GPL-2.0

//! The guest's memory, as its owner described it, and the memory of the rings.

use crate::{
    params,
    uapi::{
        Arg,
        Memory,
        MemoryRegion, //
    },
};
use kernel::{
    prelude::*,
    sync::{
        barrier::{
            smp_mb,
            Full,
            Read,
            Write, //
        },
        Arc, //
    },
};
use kernel_ext::owner_mm::{
    InOwnerMm,
    OwnerAddr, //
};
use vring::{
    Gpa,
    Region,
    RegionError,
    Regions,
    RingAddr,
    RingMemory,
    UserAddr, //
};

/// The guest's memory: where in the owner's address space it is.
///
/// A table never changes. The device holds the current one, and each running queue a reference to
/// the one that it works with; a new table replaces both, and the old one goes away with its last
/// user.
#[doc(alias = "vhost_iotlb")]
pub(crate) struct MemTable {
    regions: KVVec<Region>,
}

impl MemTable {
    /// Takes a table from user space.
    ///
    /// Regions may overlap: see [`Regions`]. Where they are for the owner is not checked here but
    /// by [`access_ok`](Self::access_ok), when a queue is to work with the table.
    ///
    /// # Errors
    ///
    /// - `EFAULT` if the argument cannot be read, or a region is empty or wraps around;
    /// - `EOPNOTSUPP` if the padding is not zero;
    /// - `E2BIG` for more regions than [`params::max_mem_regions()`];
    /// - `EINVAL` if the module was told to have no tables: see [`params::max_iotlb_entries()`];
    /// - `ENOMEM`.
    #[doc(alias = "vhost_set_memory")]
    pub(crate) fn from_user(arg: Arg) -> Result<Arc<Self>> {
        let head: Memory = arg.read()?;
        if head.padding != 0 {
            return Err(EOPNOTSUPP);
        }
        if head.count > u32::from(params::max_mem_regions()) {
            return Err(E2BIG);
        }
        params::max_iotlb_entries().ok_or(EINVAL)?;
        // CAST: At most 65535.
        let count = head.count as usize;
        let mut regions = KVVec::with_capacity(count, GFP_KERNEL_ACCOUNT)?;
        let mut offset = size_of::<Memory>();
        for _ in 0..count {
            let region: MemoryRegion = arg.read_at(offset)?;
            // OVERFLOW: At most 65535 times 32, and 8.
            offset = offset.wrapping_add(size_of::<MemoryRegion>());
            let region = Region {
                gpa_start: Gpa(region.guest_addr),
                size: region.size,
                user_addr: UserAddr(region.user_addr),
                writable: true,
            };
            regions.push_within_capacity(region).map_err(|_| ENOMEM)?;
        }
        let kept = Regions::prepare(&mut regions)
            .map_err(|(RegionError::Empty | RegionError::Wrap)| EFAULT)?;
        regions.truncate(kept);
        Ok(Arc::new(Self { regions }, GFP_KERNEL_ACCOUNT)?)
    }

    /// The table, for translation.
    #[inline]
    pub(crate) fn regions(&self) -> Regions<'_> {
        Regions::from_prepared(&self.regions)
    }

    /// Says whether all of it is in the user half of the address space.
    #[doc(alias = "vq_memory_access_ok")]
    pub(crate) fn access_ok(&self) -> bool {
        self.regions
            .iter()
            .all(|region| area_ok(region.user_addr.0, region.size))
    }
}

/// Says whether an area of the owner is in the user half of the address space.
pub(crate) fn area_ok(addr: u64, len: u64) -> bool {
    let Some(addr) = OwnerAddr::from_u64(addr) else {
        return false;
    };
    usize::try_from(len).is_ok_and(|len| addr.access_ok(len))
}

/// The memory of a ring, reached by user accesses in the address space of the owner.
///
/// This is the seam for faster ways: mapped pages, or an IOTLB.
pub(crate) struct OwnerRing<'a>(pub(crate) &'a InOwnerMm);

impl OwnerRing<'_> {
    #[inline]
    fn addr(at: u64) -> Result<OwnerAddr> {
        OwnerAddr::from_u64(at).ok_or(EFAULT)
    }
}

impl RingMemory for OwnerRing<'_> {
    type Error = Error;

    #[inline]
    fn read_u16(&self, at: RingAddr) -> Result<u16> {
        self.0.get_u16(Self::addr(at.0)?)
    }

    #[inline]
    fn write_u16(&self, at: RingAddr, value: u16) -> Result {
        self.0.put_u16(Self::addr(at.0)?, value)
    }

    #[inline]
    fn read_ring(&self, at: RingAddr, out: &mut [u8]) -> Result {
        self.0.read_slice(Self::addr(at.0)?, out)
    }

    #[inline]
    fn read_bytes(&self, at: UserAddr, out: &mut [u8]) -> Result {
        self.0.read_slice(Self::addr(at.0)?, out)
    }

    #[inline]
    fn write_used(&self, at: RingAddr, elem: [u8; 8]) -> Result {
        self.0.write_slice(Self::addr(at.0)?, &elem)
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
}
