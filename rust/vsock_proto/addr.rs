// SPDX-License-Identifier: GPL-2.0

//! Addresses: context identifiers and ports.
//!
//! On the wire a CID has 64 bits, of which the upper 32 are reserved and zero (virtio 1.3, section
//! 5.10.4); in `struct sockaddr_vm` it has 32. A value that does not fit is refused, never
//! truncated.
//!
//! C header: [`include/uapi/linux/vm_sockets.h`](srctree/include/uapi/linux/vm_sockets.h)

use core::fmt; //

/// Why a number is not a [`Cid`] or not a [`GuestCid`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CidError {
    /// One of the upper 32 bits is set.
    TooWide,
    /// The CID has a meaning of its own: no guest may own it.
    Reserved,
}

impl fmt::Display for CidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooWide => "the CID has more than 32 bits",
            Self::Reserved => "the CID is reserved",
        })
    }
}

/// A context identifier: the address of a machine.
///
/// # Examples
///
/// ```
/// use vsock_proto::addr::{Cid, CidError};
///
/// assert_eq!(Cid::try_from(2_u64)?, Cid::HOST);
/// assert_eq!(Cid::try_from(0x1_0000_0002_u64), Err(CidError::TooWide));
/// # Ok::<(), CidError>(())
/// ```
#[doc(alias = "svm_cid")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Cid(u32);

impl Cid {
    /// The hypervisor. No transport of Linux reaches it any more.
    #[doc(alias = "VMADDR_CID_HYPERVISOR")]
    pub const HYPERVISOR: Self = Self(0);
    /// This machine, whichever it is: the loopback address.
    #[doc(alias = "VMADDR_CID_LOCAL")]
    pub const LOCAL: Self = Self(1);
    /// The host, as seen from its guests.
    #[doc(alias = "VMADDR_CID_HOST")]
    pub const HOST: Self = Self(2);
    /// The wildcard of `bind()`; no machine has it.
    #[doc(alias = "VMADDR_CID_ANY")]
    pub const ANY: Self = Self(u32::MAX);

    /// Returns the CID with the number `cid`.
    #[inline]
    pub const fn new(cid: u32) -> Self {
        Self(cid)
    }

    /// Returns the number of this CID.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u64> for Cid {
    type Error = CidError;

    /// Takes a CID from the wire.
    #[inline]
    fn try_from(cid: u64) -> Result<Self, CidError> {
        match u32::try_from(cid) {
            Ok(cid) => Ok(Self(cid)),
            Err(_) => Err(CidError::TooWide),
        }
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A CID that a guest may own.
///
/// # Invariants
///
/// It is none of [`Cid::HYPERVISOR`], [`Cid::LOCAL`], [`Cid::HOST`] and [`Cid::ANY`].
///
/// # Examples
///
/// ```
/// use vsock_proto::addr::{CidError, GuestCid};
///
/// assert_eq!(GuestCid::try_from(3_u32)?.get().get(), 3);
/// assert_eq!(GuestCid::try_from(2_u32), Err(CidError::Reserved));
/// # Ok::<(), CidError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct GuestCid(Cid);

impl GuestCid {
    /// Returns the CID.
    #[inline]
    pub const fn get(self) -> Cid {
        self.0
    }
}

impl TryFrom<Cid> for GuestCid {
    type Error = CidError;

    #[inline]
    fn try_from(cid: Cid) -> Result<Self, CidError> {
        match cid {
            Cid::HYPERVISOR | Cid::LOCAL | Cid::HOST | Cid::ANY => Err(CidError::Reserved),
            // INVARIANT: All the others were just sorted out.
            _ => Ok(Self(cid)),
        }
    }
}

impl TryFrom<u32> for GuestCid {
    type Error = CidError;

    #[inline]
    fn try_from(cid: u32) -> Result<Self, CidError> {
        Self::try_from(Cid::new(cid))
    }
}

impl TryFrom<u64> for GuestCid {
    type Error = CidError;

    #[inline]
    fn try_from(cid: u64) -> Result<Self, CidError> {
        Self::try_from(Cid::try_from(cid)?)
    }
}

impl From<GuestCid> for Cid {
    #[inline]
    fn from(cid: GuestCid) -> Self {
        cid.get()
    }
}

impl fmt::Display for GuestCid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A port: the address of a socket within a machine.
#[doc(alias = "svm_port")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Port(u32);

impl Port {
    /// The wildcard of `bind()`: choose one for me.
    #[doc(alias = "VMADDR_PORT_ANY")]
    pub const ANY: Self = Self(u32::MAX);

    /// Returns the port with the number `port`.
    #[inline]
    pub const fn new(port: u32) -> Self {
        Self(port)
    }

    /// Returns the number of this port.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// One end of a connection.
#[doc(alias = "sockaddr_vm")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Addr {
    /// The machine.
    pub cid: Cid,
    /// The socket on it.
    pub port: Port,
}

impl Addr {
    /// Returns the address of `port` on `cid`.
    #[inline]
    pub const fn new(cid: Cid, port: Port) -> Self {
        Self { cid, port }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.cid, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::format;

    #[test]
    fn well_known_numbers() {
        assert_eq!(Cid::HYPERVISOR.get(), 0);
        assert_eq!(Cid::LOCAL.get(), 1);
        assert_eq!(Cid::HOST.get(), 2);
        assert_eq!(Cid::ANY.get(), 0xffff_ffff);
        assert_eq!(Port::ANY.get(), 0xffff_ffff);
    }

    #[test]
    fn cid_takes_32_bits_and_no_more() {
        for cid in [0, 1, 2, 3, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe_u32] {
            assert_eq!(Cid::try_from(u64::from(cid)), Ok(Cid::new(cid)));
        }
        assert_eq!(Cid::try_from(0xffff_ffff_u64), Ok(Cid::ANY));
        for bit in 32..64 {
            for low in [0, 1, 2, 3, 0xffff_ffff_u64] {
                assert_eq!(Cid::try_from((1 << bit) | low), Err(CidError::TooWide));
            }
        }
        assert_eq!(Cid::try_from(u64::MAX), Err(CidError::TooWide));
    }

    #[test]
    fn guest_cid_refuses_the_reserved() {
        for cid in [0, 1, 2, 0xffff_ffff_u32] {
            assert_eq!(GuestCid::try_from(cid), Err(CidError::Reserved));
            assert_eq!(GuestCid::try_from(u64::from(cid)), Err(CidError::Reserved));
            assert_eq!(GuestCid::try_from(Cid::new(cid)), Err(CidError::Reserved));
        }
        for cid in [3, 4, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe_u32] {
            assert_eq!(
                GuestCid::try_from(cid).map(GuestCid::get),
                Ok(Cid::new(cid))
            );
            assert_eq!(
                GuestCid::try_from(u64::from(cid)).map(Cid::from),
                Ok(Cid::new(cid))
            );
        }
        for bit in 32..64 {
            assert_eq!(
                GuestCid::try_from((1_u64 << bit) | 3),
                Err(CidError::TooWide)
            );
        }
        assert_eq!(GuestCid::try_from(u64::MAX), Err(CidError::TooWide));
    }

    #[test]
    fn printed_as_the_kernel_does() {
        let addr = Addr::new(Cid::HOST, Port::new(1234));
        assert_eq!(format!("{addr}"), "2:1234");
        assert_eq!(format!("{}", Cid::ANY), "4294967295");
        assert_eq!(format!("{:>4}", Port::new(7)), "   7");
        assert_ne!(
            format!("{}", CidError::TooWide),
            format!("{}", CidError::Reserved)
        );
    }

    proptest! {
        #[test]
        fn cid_is_lossless(cid: u64) {
            match Cid::try_from(cid) {
                Ok(c) => prop_assert_eq!(u64::from(c.get()), cid),
                Err(e) => {
                    prop_assert_eq!(e, CidError::TooWide);
                    prop_assert!(cid >> 32 != 0);
                }
            }
        }

        #[test]
        fn guest_cid_is_a_cid(cid: u64) {
            match GuestCid::try_from(cid) {
                Ok(g) => {
                    prop_assert_eq!(Ok(g.get()), Cid::try_from(cid));
                    prop_assert!((3..u64::from(u32::MAX)).contains(&cid));
                }
                Err(CidError::TooWide) => prop_assert!(cid >> 32 != 0),
                Err(CidError::Reserved) => prop_assert!(cid <= 2 || cid == 0xffff_ffff),
            }
        }
    }
}
