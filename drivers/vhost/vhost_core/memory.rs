// SPDX-License-Identifier: GPL-2.0

//! The guest's memory, as its owner described it.
//!
//! There are two kinds of addresses that a driver may use. Without an IOTLB, buffers have guest
//! addresses, which the [`MemTable`] translates, and the parts of the ring those of the owner. With
//! one, the [`OwnerIotlb`] translates both; then the table is for the dirty log only. [`Space`] and
//! [`OwnerRing`](crate::ring_memory::OwnerRing) know which kind it is.

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
    static_lock_class,
    sync::Arc, //
};
use kernel_ext::{
    owner_mm::{
        OwnerAddr,
        OwnerMm, //
    },
    window::Windows, //
};
use vring::{
    dirty,
    iotlb::{
        Miss,
        Slot, //
    },
    Access,
    Gpa,
    Iotlb,
    IotlbError,
    LastRegion,
    Region,
    RegionError,
    Regions,
    Segment,
    Translate,
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

    /// Prepares for windows of all of it, in the address space of `owner`. It is slower without, so
    /// this fails for any reason.
    ///
    /// Context: sleeps.
    pub(crate) fn windows(&self, owner: &OwnerMm) -> Option<Windows> {
        if !params::windows() {
            return None;
        }
        let mut hull: Option<(u64, u64)> = None;
        for region in &self.regions {
            let first = region.user_addr.0;
            // A region is not empty.
            let last = first.checked_add(region.size.checked_sub(1)?)?;
            let (start, end) = hull.unwrap_or((first, last));
            hull = Some((start.min(first), end.max(last)));
        }
        let (start, last) = hull?;
        let range = usize::try_from(start).ok()?..=usize::try_from(last).ok()?;
        let (name, class) = (c"vhost_core::MemTable::windows", static_lock_class!());
        Windows::new(owner, range, name, class).ok()
    }

    /// Says whether all of it is in the user half of the address space, and what stands for it in
    /// the dirty log at `log`, if it is to be logged.
    #[doc(alias = "vq_memory_access_ok")]
    pub(crate) fn access_ok(&self, log: Option<UserAddr>) -> bool {
        self.regions.iter().all(|region| {
            area_ok(region.user_addr.0, region.size)
                && log.is_none_or(|base| log_area_ok(base, region.gpa_start, region.size))
        })
    }
}

/// Says whether an area of the owner is in the user half of the address space.
pub(crate) fn area_ok(addr: u64, len: u64) -> bool {
    let Some(addr) = OwnerAddr::from_u64(addr) else {
        return false;
    };
    usize::try_from(len).is_ok_and(|len| addr.access_ok(len))
}

/// Says whether the bits of an area of guest memory are in the user half of the address space, in a
/// dirty log at `base`.
#[doc(alias = "log_access_ok")]
pub(crate) fn log_area_ok(base: UserAddr, at: Gpa, len: u64) -> bool {
    dirty::extent(at, len).is_some_and(|(first, bytes)| {
        base.checked_add(first)
            .is_some_and(|start| area_ok(start.0, bytes))
    })
}

/// The translations that user space handed out, in memory of the kernel.
pub(crate) type OwnerIotlb = Iotlb<KVVec<Slot>>;

/// Room for translations.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn slots(count: usize) -> Result<KVVec<Slot>> {
    let mut slots = KVVec::with_capacity(count, GFP_KERNEL_ACCOUNT)?;
    for _ in 0..count {
        slots.push_within_capacity(Slot::FREE).map_err(|_| ENOMEM)?;
    }
    Ok(slots)
}

/// Why the address of a buffer has no translation.
#[derive(Clone, Copy)]
pub(crate) enum Untranslated {
    /// There is no memory, or it must not be accessed.
    Refused,
    /// User space is to be asked.
    Miss(Miss),
}

impl From<IotlbError> for Untranslated {
    fn from(err: IotlbError) -> Self {
        match err {
            IotlbError::Miss(miss) => Self::Miss(miss),
            IotlbError::Denied => Self::Refused,
        }
    }
}

/// What buffers' addresses refer to.
pub(crate) enum Space<'a> {
    Table(LastRegion<'a>),
    Iotlb(&'a OwnerIotlb),
}

impl Translate for Space<'_> {
    type Error = Untranslated;

    #[inline(always)]
    fn lookup(
        &self,
        at: Gpa,
        len: u32,
        access: Access,
    ) -> core::result::Result<Segment, Untranslated> {
        match self {
            Self::Table(table) => table
                .lookup(at, len, access)
                .map_err(|_| Untranslated::Refused),
            Self::Iotlb(iotlb) => Ok(iotlb.lookup(at, len, access)?),
        }
    }
}
