// SPDX-License-Identifier: GPL-2.0

//! What is tried, and what must happen.
//!
//! A case has a name that begins with a letter for its family and a number: T and R for chains in
//! the two rings, P for the protocol, B for budgets of memory, N for what is more than one of
//! these, S for signals in both directions, ABI, IOT and LOG for ioctls and messages, CID for
//! addresses, LC for the life of a device, W for workers, INF for what can be seen of a device. Of
//! those about who waits for whom, ST is for users who are stuck, SQ for what is queued for a guest, CL
//! for closed sockets, CR for credit, DV for many devices. Its outcome is a line of text, which is the
//! same each time, whatever the seed.

use crate::{
    device::{Device, TX},
    observe::{self, NOBODY},
    packet,
    rng::Rng,
    runner::{Modules, SKIPPED},
    Try,
};

mod budget;
mod cid;
mod closed;
mod credit;
mod devices;
mod fuzz;
mod info;
mod ioctl;
mod iotlb;
mod layout;
mod life;
mod log;
mod meanwhile;
mod memory;
mod others;
mod owner;
mod parameters;
mod protocol;
mod queued;
mod rx;
mod signal;
mod stuck;
mod tx;
mod window;
mod worker;

/// What a case is run with.
pub struct Ctx {
    pub rng: Rng,
    pub modules: Modules,
    pub full: bool,
    pub scale: u32,
}

impl Ctx {
    /// Whether our modules are tested.
    pub fn ours(&self) -> bool {
        self.modules == Modules::Ours
    }

    /// A number of rounds: the first in `make test`, the second at full length.
    pub fn rounds(&self, short: u32, full: u32) -> u32 {
        if self.full {
            full
        } else {
            (short / self.scale).max(1)
        }
    }
}

/// Whether a case is run on the C modules.
#[derive(Clone, Copy)]
pub enum OnC {
    Run,
    /// Only at full length: it takes long, for a reason.
    Full(&'static str),
    /// Not, for a reason.
    Skip(&'static str),
}

/// A case.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    /// What must happen with our modules.
    pub expect: &'static str,
    pub run: fn(&mut Ctx) -> Try<String>,
    /// How long it may take.
    pub seconds: u32,
    pub on_c: OnC,
    /// Not in `make test`: too long for it; see `ring --list`.
    pub only_full: bool,
    /// Only if asked for by this name: it needs modules that are loaded for it.
    pub by_name: bool,
    /// It has threads that are to run at the same time. The others stay on one CPU, worker included:
    /// to wake up an idle CPU of a VM may take longer than all that it does.
    pub parallel: bool,
}

const fn case(name: &'static str, expect: &'static str, run: fn(&mut Ctx) -> Try<String>) -> Case {
    Case {
        name,
        expect,
        run,
        seconds: 30,
        on_c: OnC::Run,
        only_full: false,
        by_name: false,
        parallel: false,
    }
}

impl Case {
    const fn seconds(mut self, seconds: u32) -> Self {
        self.seconds = seconds;
        self
    }

    const fn parallel(mut self) -> Self {
        self.parallel = true;
        self
    }

    const fn only_full(mut self) -> Self {
        self.only_full = true;
        self
    }

    const fn by_name(mut self) -> Self {
        self.by_name = true;
        self
    }

    const fn long_on_c(mut self, why: &'static str) -> Self {
        self.on_c = OnC::Full(why);
        self
    }

    const fn not_on_c(mut self, why: &'static str) -> Self {
        self.on_c = OnC::Skip(why);
        self
    }
}

/// All cases, those that others may depend on first.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [
        tx::CASES,
        rx::CASES,
        protocol::CASES,
        credit::CASES,
        memory::CASES,
        layout::CASES,
        signal::CASES,
        budget::CASES,
        fuzz::CASES,
        ioctl::CASES,
        parameters::CASES,
        cid::CASES,
        info::CASES,
        life::CASES,
        owner::CASES,
        worker::CASES,
        iotlb::CASES,
        log::CASES,
        others::CASES,
    ]
    .into_iter()
    .flatten()
}

/// What nobody has to wait for: a user who does not go on, a guest that does not read, the devices of
/// others. A program of its own in `make test`.
pub fn waiting() -> impl Iterator<Item = &'static Case> {
    [
        stuck::CASES,
        meanwhile::CASES,
        queued::CASES,
        devices::CASES,
        closed::CASES,
        window::CASES,
    ]
    .into_iter()
    .flatten()
}

/// The outcome of a case that cannot be run here, for a reason.
fn skip(why: &str) -> Try<String> {
    Ok(format!("{SKIPPED}{why}"))
}

/// A number of requests, one after the other, each of which must be answered.
fn round_trips(dev: &mut Device, count: u32) -> Try<()> {
    for port in 1..=count {
        let request = dev.header(packet::REQUEST, port, NOBODY);
        dev.send(request, &[])?;
        dev.q[TX].take_all();
        let answer = dev.expect(packet::RST)?.header;
        if (answer.src_cid, answer.dst_cid, answer.dst_port) != (packet::HOST, dev.cid, port) {
            return Err(format!("{answer:?} answers the request of port {port}").into());
        }
    }
    Ok(())
}

/// What comes of something that a guest does on a device as usual.
fn on_usual(f: impl FnOnce(&mut Device) -> Try<()>) -> Try<String> {
    let mut dev = crate::device::Setup::default().open()?;
    f(&mut dev)?;
    observe::observe(&mut dev)
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
