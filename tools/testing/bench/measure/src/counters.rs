// SPDX-License-Identifier: GPL-2.0

//! What is counted beside instructions.

use ring::Try;
use std::{fmt, fs};

/// What a peer counts, since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets from the side that is measured.
    pub sent: u64,
    /// Packets to the side that is measured.
    pub received: u64,
    /// Signals of a driver to its device.
    pub kicks: u64,
    /// Signals of a device to its driver.
    pub interrupts: u64,
}

impl Counters {
    /// What was counted after `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            sent: self.sent - before.sent,
            received: self.received - before.received,
            kicks: self.kicks - before.kicks,
            interrupts: self.interrupts - before.interrupts,
        }
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::default() {
            return Ok(());
        }
        write!(
            f,
            " sent={} received={} kicks={} interrupts={}",
            self.sent, self.received, self.kicks, self.interrupts
        )
    }
}

/// Context switches of all CPUs since the boot.
pub fn context_switches() -> Try<u64> {
    let text = fs::read_to_string("/proc/stat")?;
    switches(&text).ok_or_else(|| "no ctxt in /proc/stat".into())
}

/// Context switches, from the text of /proc/stat.
fn switches(text: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix("ctxt ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_without_a_peer_that_counts_has_no_such_figures() {
        assert_eq!(Counters::default().to_string(), "");
        let some = Counters {
            sent: 3,
            ..Counters::default()
        };
        assert_eq!(some.to_string(), " sent=3 received=0 kicks=0 interrupts=0");
    }

    #[test]
    fn switches_have_a_line() {
        let text = "cpu 1 2\nintr 99\nctxt 1234\nbtime 5\n";
        assert_eq!(switches(text), Some(1234));
    }

    #[test]
    fn the_kernel_counts_switches() {
        assert!(context_switches().expect("/proc/stat") > 0);
    }
}
