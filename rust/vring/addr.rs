// SPDX-License-Identifier: GPL-2.0

//! Addresses and ring sizes.

/// An address in the guest's physical address space, or in an IOMMU's if there is one.
///
/// It is a number of the peer: only [`Translate`](crate::Translate) turns it into something that
/// can be accessed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Gpa(pub u64);

impl Gpa {
    /// Adds `bytes`; [`None`] if the result does not exist.
    #[inline]
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }
}

/// An address in the address space of the device's owner.
///
/// Being one of these says nothing about what is mapped there: any access to it can fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct UserAddr(pub u64);

impl UserAddr {
    /// Adds `bytes`; [`None`] if the result does not exist.
    #[inline]
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// Adds `bytes` where the end of the area was checked before.
    #[inline]
    pub(crate) const fn offset(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }
}

/// Where a part of a ring is, as user space said when it configured the queue.
///
/// It is an address of the owner or, if the device has an IOTLB, one that this translates. Only the
/// [`RingMemory`](crate::RingMemory) knows which. It is no [`UserAddr`], so that neither is taken
/// for the other: buffers and indirect tables have been translated before they are accessed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct RingAddr(pub u64);

impl RingAddr {
    /// Adds `bytes`; [`None`] if the result does not exist.
    #[inline]
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// Adds `bytes` where the end of the area was checked before.
    #[inline]
    pub(crate) const fn offset(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// Whether `align`, a power of two, divides the address.
    #[inline]
    pub const fn is_aligned(self, align: u64) -> bool {
        self.0 & align.wrapping_sub(1) == 0
    }
}

/// The number of entries of a ring: a power of two from 1 to 32768.
///
/// # Invariants
///
/// `mask` is the number of entries less one, and fits into 15 bits.
///
/// # Examples
///
/// ```
/// use vring::RingSize;
///
/// let size = RingSize::new(128).ok_or(())?;
/// assert_eq!(size.mask(130), 2);
/// assert_eq!(RingSize::new(0), None);
/// assert_eq!(RingSize::new(3), None);
/// assert_eq!(RingSize::new(65536), None);
/// # Ok::<(), ()>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct RingSize {
    mask: u16,
}

impl RingSize {
    /// The largest ring: the largest power of two that a 16-bit field can hold.
    pub const MAX: Self = Self { mask: 0x7fff };

    /// Checks what user space asked for; [`None`] if no split ring can have that size.
    #[inline]
    pub const fn new(entries: u32) -> Option<Self> {
        if !entries.is_power_of_two() || entries > 1 << 15 {
            return None;
        }
        // INVARIANT: `entries` is in 1..=32768, thus the cast does not change the value.
        Some(Self {
            mask: entries.wrapping_sub(1) as u16,
        })
    }

    /// The number of entries.
    #[inline]
    pub const fn get(self) -> u16 {
        // OVERFLOW: By the type invariant, `mask` is at most 0x7fff.
        self.mask.wrapping_add(1)
    }

    /// The place in the ring of a free-running index.
    #[inline]
    pub const fn mask(self, index: u16) -> u16 {
        index & self.mask
    }
}

impl From<RingSize> for u16 {
    #[inline]
    fn from(size: RingSize) -> Self {
        size.get()
    }
}

impl From<RingSize> for u32 {
    #[inline]
    fn from(size: RingSize) -> Self {
        size.get().into()
    }
}
