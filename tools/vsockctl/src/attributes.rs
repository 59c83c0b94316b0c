// SPDX-License-Identifier: GPL-2.0

//! What a guest may do, as its device has it: `include/uapi/linux/vhost_vsock_attr.h`.

use crate::{cli::Ranges, error::Error, sys};
use serde::{Serialize, Serializer};
use std::os::fd::AsFd;

const MAX_CONNECTIONS: u32 = 1;
const PORTS: u32 = 2;
const USERS: u32 = 3;
const RATE_TO_GUEST: u32 = 4;
const RATE_FROM_GUEST: u32 = 5;
const LOCKED: u32 = 7;

/// No attribute is larger: a list of 64 pairs.
const ROOM: usize = 8 + 64 * 8;

/// How fast packets may go; 0 is any number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rate {
    pub bytes: u64,
    pub packets: u64,
    pub burst_us: u32,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Policy {
    pub cid: u64,
    pub pid: u32,
    /// 0 is any number.
    pub max_connections: u32,
    /// `null` is all.
    #[serde(serialize_with = "list")]
    pub ports: Ranges,
    #[serde(serialize_with = "list")]
    pub users: Ranges,
    pub to_guest: Rate,
    pub from_guest: Rate,
    pub locked: bool,
}

fn list<S: Serializer>(ranges: &Ranges, to: S) -> Result<S::Ok, S::Error> {
    match ranges {
        Ranges::All => to.serialize_none(),
        Ranges::Only(some) => to.collect_seq(some),
    }
}

/// Numbers that follow each other in memory.
struct Words<'a>(&'a [u8]);

impl Words<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (first, rest) = self.0.split_first_chunk().ok_or("the value is short")?;
        self.0 = rest;
        Ok(*first)
    }

    fn u32(&mut self) -> Result<u32, Error> {
        self.take().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Result<u64, Error> {
        self.take().map(u64::from_ne_bytes)
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn ranges(bytes: &[u8], pairs: bool) -> Result<Ranges, Error> {
    let mut from = Words(bytes);
    let (only, count) = (from.u32()?, from.u32()?);
    if only == 0 {
        return Ok(Ranges::All);
    }
    let range = |_| {
        let first = from.u32()?;
        Ok([first, if pairs { from.u32()? } else { first }])
    };
    let ranges: Result<_, Error> = (0..count).map(range).collect();
    Ok(Ranges::Only(ranges?))
}

/// The value of a list; of users, those of each range one by one.
fn list_value(ranges: &Ranges, pairs: bool) -> Result<Vec<u8>, Error> {
    let Ranges::Only(some) = ranges else {
        return Ok(words(&[0, 0]));
    };
    let mut entries = Vec::new();
    for [first, last] in some {
        if pairs {
            entries.extend([*first, *last]);
            continue;
        }
        if last - first >= 64 {
            return Err("there may be 64 users".into());
        }
        entries.extend(*first..=*last);
    }
    let count = entries.len() / if pairs { 2 } else { 1 };
    let mut value = words(&[1, u32::try_from(count)?]);
    value.extend(words(&entries));
    Ok(value)
}

fn rate(bytes: &[u8]) -> Result<Rate, Error> {
    let mut from = Words(bytes);
    Ok(Rate {
        bytes: from.u64()?,
        packets: from.u64()?,
        burst_us: from.u32()?,
    })
}

fn rate_value(rate: &Rate) -> Vec<u8> {
    let mut value = [rate.bytes, rate.packets].map(u64::to_ne_bytes).concat();
    value.extend(words(&[rate.burst_us, 0]));
    value
}

/// Reads what the guest of a descriptor may do.
///
/// # Errors
///
/// A sentence.
pub fn read(fd: impl AsFd, cid: u64, pid: u32) -> Result<Policy, Error> {
    let get = |attr| sys::attribute(&fd, attr, ROOM).map_err(sentence);
    Ok(Policy {
        cid,
        pid,
        max_connections: Words(&get(MAX_CONNECTIONS)?).u32()?,
        ports: ranges(&get(PORTS)?, true)?,
        users: ranges(&get(USERS)?, false)?,
        to_guest: rate(&get(RATE_TO_GUEST)?)?,
        from_guest: rate(&get(RATE_FROM_GUEST)?)?,
        locked: Words(&get(LOCKED)?).u32()? != 0,
    })
}

/// Sets what differs in `new`: one after the other, the lock last.
///
/// # Errors
///
/// A sentence; what came before is set.
pub fn write(fd: impl AsFd, old: &Policy, new: &Policy) -> Result<(), Error> {
    let set = |attr, value: Vec<u8>| sys::set_attribute(&fd, attr, &value).map_err(sentence);
    if new.max_connections != old.max_connections {
        set(MAX_CONNECTIONS, words(&[new.max_connections]))?;
    }
    if new.ports != old.ports {
        set(PORTS, list_value(&new.ports, true)?)?;
    }
    if new.users != old.users {
        set(USERS, list_value(&new.users, false)?)?;
    }
    if new.to_guest != old.to_guest {
        set(RATE_TO_GUEST, rate_value(&new.to_guest))?;
    }
    if new.from_guest != old.from_guest {
        set(RATE_FROM_GUEST, rate_value(&new.from_guest))?;
    }
    if new.locked && !old.locked {
        set(LOCKED, words(&[1]))?;
    }
    Ok(())
}

fn sentence(errno: rustix::io::Errno) -> Error {
    use rustix::io::Errno;
    match errno {
        Errno::NOTTY => "the C module knows no limits: vsockctl use rust".into(),
        Errno::PERM => {
            "only root may allow a guest more, or lock that; nobody if it is locked".into()
        }
        Errno::OPNOTSUPP => "these modules do not know that limit: vsockctl is newer".into(),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_are_written() {
        let rate_of = Rate {
            bytes: 1 << 40,
            packets: 7,
            burst_us: 100_000,
        };
        let value = rate_value(&rate_of);
        assert_eq!(value.len(), 24);
        assert_eq!(rate(&value).unwrap(), rate_of);
        let ports = Ranges::Only(vec![[22, 22], [1024, 2000]]);
        let value = list_value(&ports, true).unwrap();
        assert_eq!(value.len(), 24);
        assert_eq!(ranges(&value, true).unwrap(), ports);
        for ranges_of in [Ranges::All, Ranges::Only(Vec::new())] {
            let value = list_value(&ranges_of, false).unwrap();
            assert_eq!(ranges(&value, false).unwrap(), ranges_of);
        }
        assert!(rate(&value[..7]).is_err());
    }

    #[test]
    fn users_are_told_one_by_one() {
        let users = Ranges::Only(vec![[1000, 1002], [7, 7]]);
        let value = list_value(&users, false).unwrap();
        let one_by_one = vec![[1000, 1000], [1001, 1001], [1002, 1002], [7, 7]];
        assert_eq!(ranges(&value, false).unwrap(), Ranges::Only(one_by_one));
        assert!(list_value(&Ranges::Only(vec![[0, u32::MAX]]), false).is_err());
    }
}
