// SPDX-License-Identifier: GPL-2.0

//! What is tried, and what must happen.
//!
//! A case has a name that begins with a letter for its family and a number: T and R for chains in
//! the two rings, P for the protocol, B for budgets of memory, N for what is more than one of
//! these, S for signals in both directions, Q for packets that wait, ABI, IOT and LOG for ioctls
//! and messages, CID for addresses, LC for the life of a device, W for workers, KI for kicks, POL
//! for policies, INF for what can be seen of a device and of connections. Of those about what waits
//! for what, ST is for users who are stuck, SQ for what is queued for a guest, CL for closed
//! sockets, CR for credit, KA for silent guests, DV for many devices. TRC is for tracepoints, DT is
//! for what is sent without the worker. Its outcome is a line of text, which is the same each time,
//! whatever the seed.

mod around;
mod budget;
mod cid;
mod closed;
mod common;
mod credit;
mod devices;
mod direct;
mod fuzz;
mod info;
mod ioctl;
mod iotlb;
mod joined;
mod keepalive;
mod kick;
mod layout;
mod life;
mod limits;
mod log;
mod meanwhile;
mod memory;
mod moved;
mod others;
mod owner;
mod parameters;
mod policy;
mod protocol;
mod queued;
mod rx;
mod seen;
mod signal;
mod stuck;
mod traced;
mod turns;
mod tx;
mod window;
mod worker;

use common::{case, on_usual, round_trips, skip, TRIES};
pub use common::{Case, Ctx, Modules, OnC, SKIPPED};
pub use kick::program as kicking;

/// All cases, those that others may depend on first.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [
        tx::CASES,
        rx::CASES,
        protocol::CASES,
        credit::CASES,
        keepalive::CASES,
        memory::CASES,
        moved::CASES,
        layout::CASES,
        signal::CASES,
        budget::CASES,
        turns::CASES,
        fuzz::CASES,
        ioctl::CASES,
        parameters::CASES,
        policy::CASES,
        limits::CASES,
        cid::CASES,
        info::CASES,
        seen::CASES,
        traced::CASES,
        direct::CASES,
        joined::CASES,
        life::CASES,
        owner::CASES,
        worker::CASES,
        kick::CASES,
        iotlb::CASES,
        log::CASES,
        others::CASES,
    ]
    .into_iter()
    .flatten()
}

/// What nobody has to wait for: a user who does not go on, a guest that does not read, the devices
/// of others. A program of its own in `make test`.
pub fn waiting() -> impl Iterator<Item = &'static Case> {
    [
        stuck::CASES,
        meanwhile::CASES,
        queued::CASES,
        devices::CASES,
        closed::CASES,
        window::CASES,
        seen::MANY,
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_short() {
        let mut names: Vec<_> = all().chain(waiting()).map(|case| case.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        let odd = |c: char| !(c.is_ascii_alphanumeric() || "-/+.=".contains(c));
        let bad: Vec<_> = names.iter().filter(|name| name.contains(odd)).collect();
        assert!(bad.is_empty(), "{bad:?}");
    }
}
