// SPDX-License-Identifier: GPL-2.0

//! A translation.

use crate::{
    nospec,
    Access,
    Gpa,
    UserAddr, //
};

/// What the device may do with the memory of a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Perm(u8);

impl Perm {
    /// The device may read.
    #[doc(alias = "VHOST_ACCESS_RO")]
    pub const READ: Self = Self(1);
    /// The device may write.
    #[doc(alias = "VHOST_ACCESS_WO")]
    pub const WRITE: Self = Self(2);
    /// The device may do both.
    #[doc(alias = "VHOST_ACCESS_RW")]
    pub const BOTH: Self = Self(3);

    /// Takes the bits of a message; those without a meaning are ignored.
    #[inline]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & Self::BOTH.0)
    }

    /// The bits for a message.
    #[inline]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether nothing is allowed.
    #[inline]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether `access` is allowed.
    #[inline]
    pub const fn allows(self, access: Access) -> bool {
        self.0 & Self::for_access(access).0 != 0
    }

    /// What `access` needs.
    #[inline]
    pub const fn for_access(access: Access) -> Self {
        match access {
            Access::Read => Self::READ,
            Access::Write => Self::WRITE,
        }
    }
}

/// A translation: an area that is contiguous for the device and for the owner.
///
/// It is described by its first and its last address: the whole address space is an area, too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// The first address, for the device.
    pub start: Gpa,
    /// The last address, for the device.
    pub last: Gpa,
    /// Where it begins for the owner.
    pub user: UserAddr,
    /// What the device may do there.
    pub perm: Perm,
}

impl Mapping {
    pub(super) const NONE: Self = Self {
        start: Gpa(0),
        last: Gpa(0),
        user: UserAddr(0),
        perm: Perm(0),
    };

    /// Where `at`, which lies in the mapping, is for the owner; [`None`] if nowhere.
    #[inline]
    pub(super) fn user_at(&self, at: u64) -> Option<UserAddr> {
        let offset = at.checked_sub(self.start.0)?;
        let offset = match self.last.0.wrapping_sub(self.start.0).checked_add(1) {
            Some(size) => nospec::below(offset, size),
            // All addresses there are.
            None => offset,
        };
        self.user.checked_add(offset)
    }
}
