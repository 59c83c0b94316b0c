// SPDX-License-Identifier: GPL-2.0

//! Runs cases: each in a process of its own, with a probe on a fresh device after it.

pub use crate::cases::Modules;
use crate::{
    cases::{Case, Ctx, OnC, SKIPPED},
    device::Setup,
    differences::Differences,
    note, observe,
    rng::Rng,
    sys::{self, process},
    Try,
};
use std::{
    fs,
    io::{Read, Seek, Write},
    time::{Duration, Instant},
};

/// What to run and how.
pub struct Plan {
    pub cases: Vec<&'static Case>,
    pub seed: u64,
    pub modules: Modules,
    pub differences: Differences,
    /// Shell patterns of the cases; none means those that are not only for `full`.
    pub patterns: Vec<String>,
    /// Run everything at its full length.
    pub full: bool,
    /// Time is counted in instructions.
    pub counted: bool,
    /// How much slower than Debian's kernel this one is.
    pub scale: u32,
}

/// What became of a case.
enum Verdict {
    /// As it should be, with what there is to say.
    Good(String),
    Bad(String),
    Skipped(String),
}

/// Numbers for the last line.
#[derive(Default)]
struct Counts {
    ok: u32,
    failed: u32,
    skipped: u32,
}

/// What a process that ran a case left.
enum End {
    Outcome(String),
    /// It could not be run to its end.
    Failed(String),
}

impl Plan {
    fn wants(&self, case: &Case) -> bool {
        if case.by_name {
            return self.patterns.iter().any(|pattern| pattern == case.name);
        }
        if self.patterns.is_empty() {
            return self.full || !case.only_full;
        }
        self.patterns
            .iter()
            .any(|pattern| sys::matches(pattern, case.name))
    }

    /// Runs everything that is wanted; says whether all was well.
    pub fn run(&self) -> Try<bool> {
        note(format!(
            "seed {:#x} (RING_SEED), modules: {:?}",
            self.seed, self.modules
        ));
        let mut counts = Counts::default();
        let begin = Instant::now();
        for case in self.cases.iter().filter(|case| self.wants(case)) {
            let begin = Instant::now();
            mark(case.name);
            let skip = match (self.modules, case.on_c) {
                (Modules::C, OnC::Skip(why)) => Some(why),
                (Modules::C, OnC::Full(why)) if !self.full => Some(why),
                _ => None,
            };
            let verdict = match skip {
                Some(why) => Verdict::Skipped(why.to_owned()),
                None => self.judge(case)?,
            };
            let line = match verdict {
                Verdict::Skipped(why) => {
                    counts.skipped += 1;
                    format!("skip {} # {why}", case.name)
                }
                Verdict::Good(text) => {
                    counts.ok += 1;
                    if !text.is_empty() {
                        note(format!("{}: {text}", case.name));
                    }
                    format!("ok {}", case.name)
                }
                Verdict::Bad(why) => {
                    counts.failed += 1;
                    format!("not ok {} # {why}", case.name)
                }
            };
            println!("{line}");
            let took = begin.elapsed();
            if took > Duration::from_secs(2) {
                note(format!("{} took {:.1} s", case.name, took.as_secs_f32()));
            }
        }
        note(format!(
            "seed {:#x}: {} as expected, {} not, {} skipped in {:.0} s",
            self.seed,
            counts.ok,
            counts.failed,
            counts.skipped,
            begin.elapsed().as_secs_f32()
        ));
        Ok(counts.failed == 0)
    }

    /// Runs a case and the probe after it.
    fn judge(&self, case: &Case) -> Try<Verdict> {
        let taint = tainted();
        let end = self.spawn(case)?;
        // Modules that are loaded for one case may not be good for a device.
        let alive = if case.by_name {
            Ok(())
        } else {
            probe(self.scale)?
        };
        let now = tainted();
        if now != taint {
            return Ok(Verdict::Bad(format!("the kernel is tainted now: {now}")));
        }
        if let Err(why) = alive {
            return Ok(Verdict::Bad(format!("a fresh device does not work: {why}")));
        }
        Ok(match end {
            End::Failed(why) => Verdict::Bad(why),
            End::Outcome(outcome) => match outcome.strip_prefix(SKIPPED) {
                Some(why) => Verdict::Skipped(why.to_owned()),
                None => self.compare(case, &outcome),
            },
        })
    }

    /// Whether an outcome is what it should be with these modules.
    fn compare(&self, case: &Case, outcome: &str) -> Verdict {
        let known = self.differences.get(case.name);
        match (self.modules, known) {
            (Modules::Ours, _) if outcome == case.expect => Verdict::Good(String::new()),
            (Modules::Ours, _) => Verdict::Bad(format!("{outcome}, expected {}", case.expect)),
            (Modules::C, None) if outcome == case.expect => Verdict::Good(String::new()),
            (Modules::C, None) => Verdict::Bad(format!("C: {outcome}; ours: {}", case.expect)),
            (Modules::C, Some(_)) if outcome == case.expect => {
                Verdict::Bad(format!("{outcome}: no difference, but one is in the list"))
            }
            (Modules::C, Some(known)) if known.outcome == outcome => Verdict::Good(format!(
                "C: {outcome}; ours: {} ({})",
                case.expect, known.reason
            )),
            (Modules::C, Some(known)) => Verdict::Bad(format!(
                "C: {outcome}; the list of differences says {}",
                known.outcome
            )),
        }
    }

    fn spawn(&self, case: &Case) -> Try<End> {
        let mut result = sys::memfd()?;
        let mut ctx = Ctx {
            rng: Rng::new(self.seed, case.name),
            modules: self.modules,
            full: self.full,
            scale: self.scale,
            counted: self.counted,
        };
        let mut child = process::fork(|| {
            process::begin_family(Rng::new(0, case.name).word());
            if !case.parallel {
                let _ = process::pin(0);
            }
            let text = match (case.run)(&mut ctx) {
                Ok(outcome) => format!("+{outcome}"),
                Err(failure) => format!("-{failure}"),
            };
            i32::from(result.write_all(text.as_bytes()).is_err())
        })?;
        let limit = Duration::from_secs(u64::from(case.seconds * self.scale));
        let Some(status) = child.wait(limit)? else {
            child.kill(libc::SIGKILL);
            let killed = child.wait(Duration::from_secs(u64::from(20 * self.scale)))?;
            let how = if killed.is_some() {
                ""
            } else {
                " and cannot be killed"
            };
            return Ok(End::Failed(format!("not done after {limit:?}{how}")));
        };
        if status < 0 {
            return Ok(End::Failed(format!("ended by signal {}", -status)));
        }
        let mut text = String::new();
        result.rewind()?;
        result.read_to_string(&mut text)?;
        Ok(match text.split_at_checked(1) {
            Some(("+", outcome)) => End::Outcome(outcome.to_owned()),
            Some(("-", why)) => End::Failed(why.to_owned()),
            _ => End::Failed(format!("ended with status {status}")),
        })
    }
}

/// Leaves the name of a case in the kernel's log: what is complained of after it is its.
fn mark(case: &str) {
    let prefix = std::env::var("LAB_T3").unwrap_or_else(|_| "ring".to_owned());
    let _ = fs::write("/dev/kmsg", format!("<4>lab-test: {prefix}/{case}\n"));
}

fn tainted() -> String {
    fs::read_to_string("/proc/sys/kernel/tainted")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Whether a fresh device answers a valid packet.
fn probe(scale: u32) -> Try<Result<(), String>> {
    let mut child = process::fork(|| {
        let answered = || -> Try<bool> {
            process::pin(0)?;
            let mut dev = Setup {
                cid: Some(0x7fff_0000),
                memory: 16 << 20,
                ..Setup::buffers(2)
            }
            .open()?;
            observe::answers(&mut dev)
        };
        match answered() {
            Ok(true) => 0,
            Ok(false) => 1,
            Err(_) => 2,
        }
    })?;
    Ok(
        match child.wait(Duration::from_secs(u64::from(10 * scale)))? {
            Some(0) => Ok(()),
            Some(1) => Err("no answer".to_owned()),
            Some(2) => Err("it cannot be set up".to_owned()),
            Some(status) => Err(format!("the probe ended with {status}")),
            None => Err("the probe does not end".to_owned()),
        },
    )
}
