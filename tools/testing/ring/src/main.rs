// SPDX-License-Identifier: GPL-2.0

//! Runs the cases of the ring driver on the vhost-vsock device of this machine.

use ring::{
    cases,
    differences::Differences,
    runner::{Modules, Plan},
    stuck, Failure, Try,
};
use std::{process::ExitCode, time::SystemTime};

const USAGE: &str = "\
usage: ring [--waiting] [--list] [--seed N] [--full] [PATTERN...]
       ring --stuck CID PORT send|recv|setsockopt|connecting
       ring --kicking

Runs the cases whose names match one of the shell patterns, or all of them, on
/dev/vhost-vsock, and prints a line for each. Needs root.

  --waiting            the cases of who waits for whom, and no others
  --list               print the names of the cases and what must happen
  --seed N             begin random sequences with N (RING_SEED; 1, or any with --full)
  --full               everything at its full length: some minutes (RING_FULL=1)

The second form is a user of another uid who stands in a call until a line comes in, the third a
guest that kicks until it is killed.";

fn number(text: &str) -> Try<u64> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| Failure(format!("{text} is no number")))
}

fn random_seed() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(1, |now| now.as_nanos() as u64)
        & 0xffff_ffff
}

/// What random sequences begin with in `make test`, in which the same happens each time. At full
/// length they are others in each run.
const SEED: u64 = 1;

/// How much slower than others this kernel may be.
fn scale() -> u32 {
    if ring::is_debug_kernel() {
        8
    } else {
        1
    }
}

fn plan() -> Try<Option<Plan>> {
    let mut seed = match std::env::var("RING_SEED") {
        Ok(text) if !text.is_empty() => Some(number(&text)?),
        _ => None,
    };
    let mut full = std::env::var("RING_FULL").is_ok_and(|value| value == "1");
    let mut patterns = Vec::new();
    let mut cases: Vec<_> = cases::all().collect();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .ok_or_else(|| Failure(format!("{argument} wants a value")))
        };
        match argument.as_str() {
            "--list" => {
                for case in cases {
                    let when = match (case.by_name, case.only_full) {
                        (true, _) => "by name",
                        (_, true) => "--full",
                        _ => "",
                    };
                    println!("{:<56} {when:<7} {}", case.name, case.expect);
                }
                return Ok(None);
            }
            "--waiting" => cases = cases::waiting().collect(),
            "--seed" => seed = Some(number(&value()?)?),
            "--full" => full = true,
            "--help" => {
                println!("{USAGE}");
                return Ok(None);
            }
            _ if argument.starts_with('-') => {
                return Err(Failure(format!("{argument}?\n{USAGE}")));
            }
            _ => patterns.push(argument),
        }
    }
    // The lab's `TESTS=T3/ring/PATTERN`.
    if let (Ok(tests), Ok(prefix)) = (std::env::var("LAB_TESTS"), std::env::var("LAB_T3")) {
        if let Some(rest) = tests.strip_prefix(&format!("{prefix}/")) {
            patterns.push(format!("{rest}*"));
        }
    }
    Ok(Some(Plan {
        cases,
        seed: seed.unwrap_or_else(|| if full { random_seed() } else { SEED }),
        modules: Modules::loaded(),
        differences: Differences::intended()?,
        patterns,
        full,
        counted: std::env::var_os("LAB_COUNTED").is_some(),
        scale: scale(),
    }))
}

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let done = match words.split_first() {
        Some((first, words)) if first == "--stuck" => stuck::program(words).map(|()| true),
        Some((first, _)) if first == "--kicking" => cases::kicking().map(|()| true),
        _ => run(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("ring: {failure}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Try<bool> {
    plan().and_then(|plan| plan.map_or(Ok(true), |plan| plan.run()))
}
