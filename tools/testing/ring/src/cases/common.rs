// SPDX-License-Identifier: GPL-2.0

//! What a case is, what it is run with, and what several of them do.

use crate::{
    device::{Device, TX},
    observe::{self, NOBODY},
    packet,
    rng::Rng,
    Try,
};
use std::{path::Path, time::Duration};

/// Which modules are tested.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Modules {
    Ours,
    C,
}

impl Modules {
    /// Those that are loaded.
    pub fn loaded() -> Self {
        if Path::new("/sys/module/vhost_core").exists() {
            Self::Ours
        } else {
            Self::C
        }
    }
}

/// How often a time is measured until it is short enough: what else runs on this machine makes it
/// longer, and nothing makes it shorter than what our code needs.
pub const TRIES: u32 = 3;

/// What an outcome begins with that tells why a case cannot be run here.
pub const SKIPPED: &str = "skip: ";

/// What a case is run with.
pub struct Ctx {
    pub rng: Rng,
    pub modules: Modules,
    pub full: bool,
    pub scale: u32,
    /// Time is counted in instructions, on one CPU: nothing but what is measured makes it longer.
    pub counted: bool,
}

impl Ctx {
    /// Whether our modules are tested.
    pub fn ours(&self) -> bool {
        self.modules == Modules::Ours
    }

    /// What something may take: where time is counted, and where it depends on what else this
    /// machine does.
    pub fn limit(&self, counted: Duration, by_the_clock: Duration) -> Duration {
        if self.counted {
            counted
        } else {
            by_the_clock * self.scale
        }
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
    /// It has threads that are to run at the same time. The others stay on one CPU, worker
    /// included: to wake up an idle CPU of a VM may take longer than all that it does.
    pub parallel: bool,
}

pub(super) const fn case(
    name: &'static str,
    expect: &'static str,
    run: fn(&mut Ctx) -> Try<String>,
) -> Case {
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
    pub(super) const fn seconds(mut self, seconds: u32) -> Self {
        self.seconds = seconds;
        self
    }

    pub(super) const fn parallel(mut self) -> Self {
        self.parallel = true;
        self
    }

    pub(super) const fn only_full(mut self) -> Self {
        self.only_full = true;
        self
    }

    pub(super) const fn by_name(mut self) -> Self {
        self.by_name = true;
        self
    }

    pub(super) const fn long_on_c(mut self, why: &'static str) -> Self {
        self.on_c = OnC::Full(why);
        self
    }

    pub(super) const fn not_on_c(mut self, why: &'static str) -> Self {
        self.on_c = OnC::Skip(why);
        self
    }
}

/// The outcome of a case that cannot be run here, for a reason.
pub(super) fn skip(why: &str) -> Try<String> {
    Ok(format!("{SKIPPED}{why}"))
}

/// A number of requests, one after the other, each of which must be answered.
pub(super) fn round_trips(dev: &mut Device, count: u32) -> Try<()> {
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
pub(super) fn on_usual(f: impl FnOnce(&mut Device) -> Try<()>) -> Try<String> {
    let mut dev = crate::device::Setup::default().open()?;
    f(&mut dev)?;
    observe::observe(&mut dev)
}
