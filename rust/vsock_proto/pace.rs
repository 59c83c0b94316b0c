// SPDX-License-Identifier: GPL-2.0

//! How fast packets may go, and when the next one may.
//!
//! What goes is written down as the time that it takes at the rate that is set: [`Pacer::spend`].
//! The next packet may go when that time has come, or earlier by what may come at once:
//! [`Pacer::wait`]. Thus nothing is lost that is late, as long as it is not later than that; and
//! what goes in the long run is exact, as the time of a packet is written down after it, whatever
//! its size.
//!
//! Setting a rate, again or another one, gives nothing back of what was spent; only that nobody
//! waits longer than the new rate can make somebody wait.
//!
//! This is the virtual scheduling of ITU-T I.371, with a packet in place of a cell.

use crate::header::{
    HEADER_LEN,
    MAX_PKT_BUF_SIZE, //
};

/// Parts of a nanosecond: the error for a packet is less than one.
const PARTS: u64 = 16;
const PARTS_OF_SECOND: u64 = 1_000_000_000 * PARTS;
const PARTS_OF_MICROSECOND: u64 = 1_000 * PARTS;

/// Less than this at once is as this, in microseconds: whoever waits is never on time.
const LEAST_BURST: u32 = 1_000;

/// The most that may come at once, in microseconds.
pub const MOST_BURST: u32 = 10_000_000;

/// How much may go in a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rate {
    /// Bytes, those of headers included; 0 is any number.
    pub bytes: u64,
    /// Packets; 0 is any number.
    pub packets: u64,
    /// How much may come at once after a pause: what may go in so many microseconds.
    pub burst: u32,
}

impl Rate {
    /// Whether there is any.
    #[inline]
    pub const fn is_set(&self) -> bool {
        self.bytes != 0 || self.packets != 0
    }

    /// Whether nothing can go that could not with another rate.
    ///
    /// # Examples
    ///
    /// ```
    /// use vsock_proto::pace::Rate;
    ///
    /// let old = Rate { bytes: 1000, packets: 0, burst: 5000 };
    /// assert!(Rate { packets: 10, ..old }.is_within(&old));
    /// assert!(!Rate { bytes: 0, packets: 10, ..old }.is_within(&old));
    /// assert!(!Rate { burst: 5001, ..old }.is_within(&old));
    /// ```
    pub const fn is_within(&self, old: &Self) -> bool {
        const fn within(new: u64, old: u64) -> bool {
            old == 0 || (new != 0 && new <= old)
        }
        within(self.bytes, old.bytes)
            && within(self.packets, old.packets)
            && (!old.is_set() || self.burst <= old.burst)
    }
}

/// How long `count` take at a rate, in parts; rounded up, so that it is never too fast.
const fn time_of(count: u64, rate: u64) -> u64 {
    let parts = count.saturating_mul(PARTS_OF_SECOND).checked_add(rate);
    match parts {
        Some(parts) => match parts.saturating_sub(1).checked_div(rate) {
            Some(time) => time,
            None => 0,
        },
        // Only with rates beyond all that can be reached.
        None => 0,
    }
}

/// Holds packets to a rate. Times are of a clock that begins at 0 and does not go back, in
/// nanoseconds; after 36 years of that nobody is let through.
#[derive(Clone, Debug, Default)]
pub struct Pacer {
    rate: Rate,
    /// When all bytes that went would be over at the rate, in parts.
    bytes_until: u64,
    /// Likewise, the packets.
    packets_until: u64,
}

impl Pacer {
    /// No rate is set.
    pub const fn new() -> Self {
        Self {
            rate: Rate {
                bytes: 0,
                packets: 0,
                burst: 0,
            },
            bytes_until: 0,
            packets_until: 0,
        }
    }

    /// Sets another rate, from now on.
    pub fn set(&mut self, now: u64, rate: Rate) {
        self.rate = rate;
        let from = self.from(now);
        // CAST: It is small.
        let largest = u64::from(MAX_PKT_BUF_SIZE).saturating_add(HEADER_LEN as u64);
        for (until, count, rate) in [
            (&mut self.bytes_until, largest, rate.bytes),
            (&mut self.packets_until, 1, rate.packets),
        ] {
            // What has no rate now may have one again.
            if rate != 0 {
                *until = (*until).min(from.saturating_add(time_of(count, rate)));
            }
        }
    }

    /// The time up to which packets may go now, in parts.
    fn from(&self, now: u64) -> u64 {
        let burst = u64::from(self.rate.burst.clamp(LEAST_BURST, MOST_BURST));
        now.saturating_mul(PARTS)
            .saturating_add(burst.saturating_mul(PARTS_OF_MICROSECOND))
    }

    /// How many nanoseconds the next packet has to wait; not at all if it may go now.
    ///
    /// # Examples
    ///
    /// ```
    /// use vsock_proto::pace::{Pacer, Rate};
    ///
    /// let mut pacer = Pacer::new();
    /// pacer.set(0, Rate { packets: 100, ..Rate::default() });
    /// assert_eq!(pacer.wait(1_000_000_000), None);
    /// pacer.spend(1_000_000_000, 0);
    /// // 10 milliseconds without the one that may come at once.
    /// assert_eq!(pacer.wait(1_000_000_000), Some(9_000_000));
    /// assert_eq!(pacer.wait(1_009_000_000), None);
    /// ```
    pub fn wait(&self, now: u64) -> Option<u64> {
        if !self.rate.is_set() {
            return None;
        }
        let mut until = 0;
        if self.rate.bytes != 0 {
            until = self.bytes_until;
        }
        if self.rate.packets != 0 {
            until = until.max(self.packets_until);
        }
        let wait = until.saturating_sub(self.from(now)).div_ceil(PARTS);
        (wait != 0).then_some(wait)
    }

    /// Writes down that a packet with so much payload went.
    pub fn spend(&mut self, now: u64, payload: usize) {
        let now = now.saturating_mul(PARTS);
        let Rate { bytes, packets, .. } = self.rate;
        if bytes != 0 {
            let size = payload.saturating_add(HEADER_LEN) as u64;
            self.bytes_until = self
                .bytes_until
                .max(now)
                .saturating_add(time_of(size, bytes));
        }
        if packets != 0 {
            self.packets_until = self
                .packets_until
                .max(now)
                .saturating_add(time_of(1, packets));
        }
    }
}

#[cfg(test)]
#[path = "pace/tests.rs"]
mod tests;
