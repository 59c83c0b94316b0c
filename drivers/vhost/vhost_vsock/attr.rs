// SPDX-License-Identifier: GPL-2.0

//! The attributes of the descriptor, by which its [`policy`](crate::policy) is set, and where that
//! is asked.

use crate::{
    device::VhostVsock,
    policy::{
        has,
        Entries,
        Policy, //
    }, //
};
use kernel::{
    ioctl::{
        _IOW,
        _IOWR, //
    },
    prelude::*,
    sync::Arc, //
};
use kernel_ext::{
    trace::{
        self,
        Dropped, //
    },
    user::User,
};
use vhost_core::uapi::{
    self,
    Arg, //
};
use vsock_proto::{
    addr::Cid,
    pace::{
        Rate,
        MOST_BURST, //
    },
};
use zerocopy_derive::{
    Immutable,
    KnownLayout, //
};

/// Sets an attribute, with an [`Attr`].
#[doc(alias = "VHOST_VSOCK_SET_ATTR")]
pub(crate) const SET_ATTR: u32 = _IOW::<Attr>(uapi::TYPE, 0xe0);
/// Reads an attribute, with an [`Attr`] whose size is set to the one that there is.
#[doc(alias = "VHOST_VSOCK_GET_ATTR")]
pub(crate) const GET_ATTR: u32 = _IOWR::<Attr>(uapi::TYPE, 0xe1);

/// How many connections there may be with the guest, a `u32`; 0 is any number.
const MAX_CONNECTIONS: u32 = 1;
/// Ports of the host that the guest may connect to: a [`Head`] and pairs of the first and the last
/// one.
const PORTS: u32 = 2;
/// Users who may connect to the guest, as the first user namespace numbers them: a [`Head`] and a
/// `u32` for each.
const USERS: u32 = 3;
/// How fast the guest may get packets, a [`RateValue`].
const RATE_TO_GUEST: u32 = 4;
/// How fast it may send them, likewise.
const RATE_FROM_GUEST: u32 = 5;
/// 1: nobody can allow anything more from now on, a `u32`.
const LOCKED: u32 = 7;

/// No list has more entries.
const MOST_ENTRIES: usize = 64;

/// Names an attribute, and where its value is.
#[doc(alias = "vhost_vsock_attr")]
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Attr {
    attr: u32,
    /// Bytes of the value, or of the room for it.
    size: u32,
    /// Where it is.
    data: u64,
}

/// What a list begins with.
#[doc(alias = "vhost_vsock_attr_list")]
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Head {
    /// Not 0: those in the list, and nobody else. 0: everybody; there are no entries.
    only: u32,
    count: u32,
}

/// A rate.
#[doc(alias = "vhost_vsock_attr_rate")]
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct RateValue {
    /// In a second, with those of headers; 0: any number.
    bytes: u64,
    /// In a second; 0: any number.
    packets: u64,
    /// How much may come at once, in microseconds of the rate.
    burst: u32,
    /// 0.
    reserved: u32,
}

impl From<Rate> for RateValue {
    fn from(rate: Rate) -> Self {
        Self {
            bytes: rate.bytes,
            packets: rate.packets,
            burst: rate.burst,
            reserved: 0,
        }
    }
}

/// Reads a value that has one size.
fn read_value<T: FromBytes + zerocopy::IntoBytes>(attr: &Attr) -> Result<T> {
    if attr.size as usize != size_of::<T>() {
        return Err(EINVAL);
    }
    at(attr, 0)?.read()
}

/// Writes such a value, if there is room for it, and returns its size.
fn write_value<T: zerocopy::IntoBytes + zerocopy::Immutable>(
    attr: &Attr,
    value: &T,
) -> Result<usize> {
    if attr.size as usize >= size_of::<T>() {
        at(attr, 0)?.write(value)?;
    }
    Ok(size_of::<T>())
}

/// Reads a rate.
fn read_rate(attr: &Attr) -> Result<Rate> {
    let value: RateValue = read_value(attr)?;
    if value.burst > MOST_BURST || value.reserved != 0 {
        return Err(EINVAL);
    }
    Ok(Rate {
        bytes: value.bytes,
        packets: value.packets,
        burst: value.burst,
    })
}

/// Where the value of an attribute is, `offset` bytes behind its beginning.
fn at(attr: &Attr, offset: usize) -> Result<Arg> {
    let data = usize::try_from(attr.data).map_err(|_| EFAULT)?;
    Ok(Arg::new(data.checked_add(offset).ok_or(EFAULT)?))
}

/// Reads a list whose entries are one number each, or two.
fn read_list(attr: &Attr, pairs: bool) -> Result<Option<Entries>> {
    let size = attr.size as usize;
    if size < size_of::<Head>() {
        return Err(EINVAL);
    }
    let head: Head = at(attr, 0)?.read()?;
    let count = head.count as usize;
    if count > MOST_ENTRIES {
        return Err(E2BIG);
    }
    let needed = list_size(count, pairs);
    if size != needed || (head.only == 0 && count > 0) {
        return Err(EINVAL);
    }
    if head.only == 0 {
        return Ok(None);
    }
    let mut entries = KVec::with_capacity(count, GFP_KERNEL_ACCOUNT)?;
    for index in 0..count {
        let place = at(attr, list_size(index, pairs))?;
        let range = if pairs {
            place.read::<[u32; 2]>()?
        } else {
            [place.read::<u32>()?; 2]
        };
        if range[0] > range[1] {
            return Err(EINVAL);
        }
        entries.push_within_capacity(range).map_err(|_| ENOMEM)?;
    }
    Ok(Some(Arc::new(entries, GFP_KERNEL_ACCOUNT)?))
}

/// The size of a list of `count` entries, in bytes: where the next one would be.
fn list_size(count: usize, pairs: bool) -> usize {
    let entry = if pairs {
        size_of::<[u32; 2]>()
    } else {
        size_of::<u32>()
    };
    count
        .saturating_mul(entry)
        .saturating_add(size_of::<Head>())
}

/// Writes a list, as far as there is room for it, and returns its size.
fn write_list(attr: &Attr, list: &Option<Entries>, pairs: bool) -> Result<usize> {
    let entries = list.as_ref().map_or(&[][..], |entries| &entries[..]);
    let needed = list_size(entries.len(), pairs);
    if (attr.size as usize) < needed {
        return Ok(needed);
    }
    let head = Head {
        only: u32::from(list.is_some()),
        // CAST: There are few.
        count: entries.len() as u32,
    };
    at(attr, 0)?.write(&head)?;
    for (index, range) in entries.iter().enumerate() {
        let place = at(attr, list_size(index, pairs))?;
        if pairs {
            place.write(range)?;
        } else {
            place.write(&range[0])?;
        }
    }
    Ok(needed)
}

impl VhostVsock {
    /// Sets an attribute.
    ///
    /// Context: sleeps.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if there is none of that number, `EINVAL` if the size is not that of the value,
    /// or a range ends before it begins, or a value is none, `E2BIG` for more than 64 entries,
    /// `EPERM` as for [`Policies::change`](crate::policy::Policies::change), `EFAULT`, `ENOMEM`.
    pub(crate) fn set_attr(&self, arg: Arg) -> Result {
        let attr: Attr = arg.read()?;
        match attr.attr {
            MAX_CONNECTIONS => {
                let most: u32 = read_value(&attr)?;
                let change = |policy: &mut Policy| policy.max_connections = most;
                self.policies.change(change, |_| ())
            }
            PORTS => {
                let ports = read_list(&attr, true)?;
                let change = |policy: &mut Policy| policy.ports = ports;
                self.policies.change(change, |_| ())
            }
            USERS => {
                let users = read_list(&attr, false)?;
                let change = |policy: &mut Policy| policy.users = users;
                self.policies.change(change, |_| ())
            }
            RATE_TO_GUEST => {
                let rate = read_rate(&attr)?;
                let change = |policy: &mut Policy| policy.to_guest = rate;
                self.policies.change(change, |_| self.to_guest.set(rate))
            }
            RATE_FROM_GUEST => {
                let rate = read_rate(&attr)?;
                let change = |policy: &mut Policy| policy.from_guest = rate;
                self.policies.change(change, |_| self.from_guest.set(rate))
            }
            LOCKED => {
                let locked = match read_value::<u32>(&attr)? {
                    0 => false,
                    1 => true,
                    _ => return Err(EINVAL),
                };
                self.policies
                    .change(|policy| policy.locked = locked, |_| ())
            }
            _ => Err(EOPNOTSUPP),
        }
    }

    /// Reads an attribute, if there is room for it, and says how large it is in any case.
    ///
    /// Context: sleeps.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if there is none of that number, `ENOSPC` if there is no room, `EFAULT`.
    pub(crate) fn get_attr(&self, arg: Arg) -> Result {
        let mut attr: Attr = arg.read()?;
        let policy = self.policies.get();
        let policy = policy.as_deref().cloned().unwrap_or_default();
        let room = attr.size as usize;
        let needed = match attr.attr {
            MAX_CONNECTIONS => write_value(&attr, &policy.max_connections)?,
            PORTS => write_list(&attr, &policy.ports, true)?,
            USERS => write_list(&attr, &policy.users, false)?,
            RATE_TO_GUEST => write_value(&attr, &RateValue::from(policy.to_guest))?,
            RATE_FROM_GUEST => write_value(&attr, &RateValue::from(policy.from_guest))?,
            LOCKED => write_value(&attr, &u32::from(policy.locked))?,
            _ => return Err(EOPNOTSUPP),
        };
        // CAST: Some hundred bytes at most.
        attr.size = needed as u32;
        arg.write(&attr)?;
        if needed > room {
            return Err(ENOSPC);
        }
        Ok(())
    }

    /// How many connections there may be with the guest.
    pub(crate) fn most_connections(&self) -> u32 {
        let most = self.policies.with(|policy| policy.max_connections);
        match most {
            None | Some(0) => u32::MAX,
            Some(most) => most,
        }
    }

    /// Whether the guest may connect to a port of the host; counts it if not.
    pub(crate) fn admits(&self, port: u32) -> bool {
        let admits = self.policies.with(|policy| has(&policy.ports, port));
        let admits = admits.unwrap_or(true);
        if !admits {
            self.stats.denied_ports.add_shared(1);
            let (cid, host) = (self.cid(), Cid::HOST.get());
            trace::vsock_drop(Dropped::PortDenied as u32, cid, 0, host, port);
        }
        admits
    }

    /// Whether a user may connect to the guest; counts it if not.
    pub(crate) fn may_connect(&self, user: User) -> bool {
        let may = self
            .policies
            .with(|policy| has(&policy.users, user.number()));
        let may = may.unwrap_or(true);
        if !may {
            self.stats.denied_users.add_shared(1);
            let (cid, host) = (self.cid(), Cid::HOST.get());
            trace::vsock_drop(Dropped::UserDenied as u32, host, 0, cid, 0);
        }
        may
    }
}
