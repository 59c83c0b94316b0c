// SPDX-License-Identifier: GPL-2.0

//! `vsockctl limit`: shows and sets what a guest may do.
//!
//! The VMM is asked for nothing: its descriptor of the device is fetched, used, and closed.

use crate::{
    attributes::{self, Policy, Rate},
    cli::{Limits, Ranges},
    error::Error,
    fdinfo,
    guests::{self, Guest},
    table,
};
use rustix::process::{pidfd_getfd, pidfd_open, Pid, PidfdFlags, PidfdGetfdFlags};
use std::os::fd::{AsRawFd as _, OwnedFd};

/// What comes at once if nobody says anything, in microseconds.
const BURST: u32 = 100_000;

/// The guest with a context ID.
fn find(cid: u64, pid: Option<u32>) -> Result<Guest, Error> {
    let all = guests::list().into_iter();
    let mut found: Vec<Guest> = all
        .filter(|guest| guest.device.cid == Some(cid))
        .filter(|guest| pid.is_none_or(|pid| guest.pid == pid || guest.shared_with.contains(&pid)))
        .collect();
    match found.len() {
        0 => Err(format!("no process that is seen here has CID {cid}").into()),
        1 => Ok(found.remove(0)),
        _ => {
            let pids: Vec<_> = found.iter().map(|guest| guest.pid.to_string()).collect();
            let pids = pids.join(", ");
            Err(format!("several guests have CID {cid}: name one by --pid, of {pids}").into())
        }
    }
}

/// A copy of the descriptor of a guest.
fn fetch(guest: &Guest, cid: u64) -> Result<OwnedFd, Error> {
    let gone = || format!("process {} has no guest with CID {cid} any more", guest.pid);
    let pid = i32::try_from(guest.pid).ok().and_then(Pid::from_raw);
    let process = pidfd_open(pid.ok_or_else(gone)?, PidfdFlags::empty()).map_err(|_| gone())?;
    let fd = i32::try_from(guest.fd)?;
    let fd = pidfd_getfd(process, fd, PidfdGetfdFlags::empty()).map_err(|errno| match errno {
        rustix::io::Errno::PERM => format!(
            "the descriptor of process {} is only for root, or who may trace it",
            guest.pid
        ),
        _ => gone(),
    })?;
    // The process may have closed it meanwhile, and opened something else.
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    if fdinfo::parse(&text).cid != Some(cid) {
        return Err(gone().into());
    }
    Ok(fd)
}

/// A rate with what was said of it.
fn changed(old: Rate, bytes: Option<u64>, packets: Option<u64>, burst: Option<u32>) -> Rate {
    let was_set = old.bytes != 0 || old.packets != 0;
    let mut rate = Rate {
        bytes: bytes.unwrap_or(old.bytes),
        packets: packets.unwrap_or(old.packets),
        burst_us: old.burst_us,
    };
    if rate.bytes == 0 && rate.packets == 0 {
        return Rate::default();
    }
    if let Some(burst) = burst {
        rate.burst_us = burst.saturating_mul(1000);
    } else if !was_set {
        rate.burst_us = BURST;
    }
    rate
}

/// What is to be, if `limits` is said of `old`.
fn wanted(old: &Policy, limits: &Limits) -> Policy {
    Policy {
        cid: old.cid,
        pid: old.pid,
        max_connections: limits.connections.unwrap_or(old.max_connections),
        ports: limits.ports.clone().unwrap_or_else(|| old.ports.clone()),
        users: limits.users.clone().unwrap_or_else(|| old.users.clone()),
        to_guest: changed(
            old.to_guest,
            limits.rate_to_guest,
            limits.packets_to_guest,
            limits.burst,
        ),
        from_guest: changed(
            old.from_guest,
            limits.rate_from_guest,
            limits.packets_from_guest,
            limits.burst,
        ),
        locked: old.locked || limits.lock,
    }
}

/// Limits the guest with a context ID as far as `limits` says anything; returns what it may do now.
///
/// # Errors
///
/// A sentence.
pub fn limit(cid: u64, limits: &Limits) -> Result<Policy, Error> {
    let guest = find(cid, limits.pid)?;
    let fd = fetch(&guest, cid)?;
    let old = attributes::read(&fd, cid, guest.pid)?;
    attributes::write(&fd, &old, &wanted(&old, limits))?;
    attributes::read(&fd, cid, guest.pid)
}

fn ranges(ranges: &Ranges) -> String {
    let Ranges::Only(some) = ranges else {
        return "all".into();
    };
    if some.is_empty() {
        return "none".into();
    }
    let text = some.iter().map(|[first, last]| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    text.collect::<Vec<_>>().join(",")
}

fn rate(rate: &Rate) -> String {
    let mut parts = Vec::new();
    if rate.bytes != 0 {
        parts.push(format!("{} bytes/s", rate.bytes));
    }
    if rate.packets != 0 {
        parts.push(format!("{} packets/s", rate.packets));
    }
    if parts.is_empty() {
        return "any".into();
    }
    let at_once = f64::from(rate.burst_us) / 1000.0;
    format!("{}, {at_once} ms at once", parts.join(", "))
}

/// Prints it for people.
pub fn print(policy: &Policy) {
    let connections = match policy.max_connections {
        0 => "any".into(),
        most => most.to_string(),
    };
    let rows = [
        ("CONNECTIONS", connections),
        ("PORTS", ranges(&policy.ports)),
        ("USERS", ranges(&policy.users)),
        ("TO GUEST", rate(&policy.to_guest)),
        ("FROM GUEST", rate(&policy.from_guest)),
        ("LOCKED", if policy.locked { "yes" } else { "no" }.into()),
    ];
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(name, value)| vec![name.into(), value])
        .collect();
    table::print(&["LIMIT", "VALUE"], &rows);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free() -> Policy {
        Policy {
            cid: 3,
            pid: 7,
            max_connections: 0,
            ports: Ranges::All,
            users: Ranges::All,
            to_guest: Rate::default(),
            from_guest: Rate::default(),
            locked: false,
        }
    }

    #[test]
    fn what_is_not_named_stays() {
        let old = Policy {
            max_connections: 7,
            from_guest: Rate {
                bytes: 1000,
                packets: 10,
                burst_us: 5,
            },
            ..free()
        };
        assert_eq!(wanted(&old, &Limits::default()), old);
        let limits = Limits {
            rate_from_guest: Some(500),
            lock: true,
            ..Limits::default()
        };
        let new = wanted(&old, &limits);
        assert_eq!((new.from_guest.bytes, new.from_guest.packets), (500, 10));
        assert_eq!((new.from_guest.burst_us, new.locked), (5, true));
        assert_eq!((new.max_connections, new.to_guest), (7, Rate::default()));
    }

    #[test]
    fn a_first_rate_has_a_burst() {
        let limits = Limits {
            packets_to_guest: Some(100),
            ..Limits::default()
        };
        assert_eq!(wanted(&free(), &limits).to_guest.burst_us, BURST);
        let limits = Limits {
            burst: Some(20),
            ..limits
        };
        assert_eq!(wanted(&free(), &limits).to_guest.burst_us, 20_000);
        assert_eq!(wanted(&free(), &limits).from_guest, Rate::default());
    }

    #[test]
    fn for_people() {
        assert_eq!(ranges(&Ranges::All), "all");
        assert_eq!(ranges(&Ranges::Only(Vec::new())), "none");
        assert_eq!(
            ranges(&Ranges::Only(vec![[22, 22], [1024, 2000]])),
            "22,1024-2000"
        );
        assert_eq!(rate(&Rate::default()), "any");
        let both = Rate {
            bytes: 2000,
            packets: 5,
            burst_us: 1500,
        };
        assert_eq!(rate(&both), "2000 bytes/s, 5 packets/s, 1.5 ms at once");
    }
}
