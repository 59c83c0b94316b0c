// SPDX-License-Identifier: GPL-2.0

//! When a peer that says nothing is asked whether it is there, and when it counts as gone.
//!
//! The question is a `CREDIT_REQUEST`, which the kernel of the peer answers whatever its programs
//! do. Times are in seconds that were counted one by one ([`TxCredit::second`]), and are seen one
//! by one here.
//!
//! There are two reasons to ask:
//!
//! - The user said that the peer is to be watched ([`Keepalive::due`], `SO_KEEPALIVE`). Any packet
//!   counts as an answer; a peer that sends none is given up.
//! - A writer waits for credit ([`stalled`]), which the peer may have forgotten to give. It is
//!   asked again and again, with growing pauses, and never given up for that.
//!
//! [`TxCredit::second`]: crate::credit::TxCredit::second

/// What is due now.
#[must_use = "it is due now only"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// The peer is to be asked.
    Ask,
    /// The peer was asked often enough.
    GiveUp,
}

/// The most seconds of silence before the first question, as with TCP (`MAX_TCP_KEEPIDLE`).
pub const LONGEST_TIME: u16 = 32767;

/// How long a peer may be silent, as with `tcp_keepalive_time`, `tcp_keepalive_intvl` and
/// `tcp_keepalive_probes`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keepalive {
    /// Seconds of silence before the first question, [`LONGEST_TIME`] at most; 0: the peer is not
    /// watched.
    pub time: u16,
    /// Seconds from each question to the next; 0 is as 1.
    pub interval: u16,
    /// Questions without an answer after which the peer is given up; 0 is as 1.
    pub probes: u16,
}

impl Keepalive {
    /// What is due, now that the peer was silent for exactly `quiet` seconds, or for `u16::MAX` and
    /// more: who is as silent as that is given up in any case.
    ///
    /// # Examples
    ///
    /// ```
    /// use vsock_proto::keepalive::{Due, Keepalive};
    ///
    /// let keepalive = Keepalive { time: 60, interval: 10, probes: 2 };
    /// assert_eq!(keepalive.due(59), Due::Nothing);
    /// assert_eq!(keepalive.due(60), Due::Ask);
    /// assert_eq!(keepalive.due(70), Due::Ask);
    /// assert_eq!(keepalive.due(80), Due::GiveUp);
    /// ```
    pub fn due(&self, quiet: u16) -> Due {
        if self.time == 0 {
            return Due::Nothing;
        }
        let Some(since) = quiet.checked_sub(self.time.min(LONGEST_TIME)) else {
            return Due::Nothing;
        };
        let interval = self.interval.max(1);
        // Neither is 0.
        let asked = since.checked_div(interval).unwrap_or(0);
        if asked >= self.probes.max(1) || quiet == u16::MAX {
            Due::GiveUp
        } else if since.checked_rem(interval) == Some(0) {
            Due::Ask
        } else {
            Due::Nothing
        }
    }
}

/// Pauses between questions for a writer do not grow beyond this, in seconds.
const LONGEST_PAUSE: u16 = 64;

/// Whether a peer is to be asked for whose credit a writer waits since exactly `seconds`: after 1,
/// 2, 4... 64 seconds, then every 64; not after 0.
pub fn stalled(seconds: u16) -> bool {
    if seconds < LONGEST_PAUSE {
        seconds.is_power_of_two()
    } else {
        seconds & (LONGEST_PAUSE.saturating_sub(1)) == 0
    }
}

#[cfg(test)]
#[path = "keepalive/tests.rs"]
mod tests;
