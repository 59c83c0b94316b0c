// SPDX-License-Identifier: GPL-2.0

//! What kind of packets come, and how many at once.

/// Packets in a window.
const WINDOW: u32 = 64;

/// Packets of a window that fill a small block, if there is bulk: more than if each such packet has
/// a rest in another one, which is better off with small blocks that need not be copied.
const BULK: u32 = 40;

/// Packets of a window that would fill several small blocks, if there still is bulk.
const STILL_BULK: u32 = 8;

/// Windows without bulk until there is no more. A device that was given large blocks and never put
/// more into one than a small block holds has less time.
const QUIET: u32 = 16;
const QUIET_UNPROVEN: u32 = 2;

/// Most windows of bulk that are let pass after a device was found to make no use of large blocks.
const MOST_SKIPPED: u32 = 255;

/// Windows after which the most packets at once are asked for again.
const ROW_WINDOWS: u32 = 16;

/// The packets that came lately.
pub(super) struct Load {
    packets: u32,
    bulk: u32,
    /// Windows in a row without bulk.
    quiet: u32,
    /// There was a packet that needs a large block, since such were given out.
    proven: bool,
    /// Windows of bulk that do not count, and how many that were the last time.
    skip: u32,
    skipped: u32,
    /// Packets since there were none, and most of these lately.
    in_row: usize,
    most_in_row: usize,
    /// Windows since `most_in_row` was asked for.
    windows: u32,
}

/// A window of packets: how many of them were bulk.
#[derive(Clone, Copy)]
pub(super) struct Window(u32);

impl Load {
    pub(super) const fn new() -> Self {
        Self {
            packets: 0,
            bulk: 0,
            quiet: 0,
            proven: false,
            skip: 0,
            skipped: 0,
            in_row: 0,
            most_in_row: 0,
            windows: 0,
        }
    }

    /// A packet came, maybe the last one of a window. It is `bulk` if it fills a small block, and
    /// `large` if it needs a large one.
    #[inline]
    pub(super) fn note(&mut self, bulk: bool, large: bool) -> Option<Window> {
        self.in_row = self.in_row.saturating_add(1);
        self.packets = self.packets.saturating_add(1);
        self.bulk = self.bulk.saturating_add(u32::from(bulk));
        self.proven |= large;
        if self.packets < WINDOW {
            return None;
        }
        self.packets = 0;
        self.windows = self.windows.saturating_add(1);
        Some(Window(core::mem::take(&mut self.bulk)))
    }

    /// Says whether large blocks are of use after this window. `given` says whether they are given
    /// out now.
    pub(super) fn is_bulk(&mut self, Window(bulk): Window, given: bool) -> bool {
        let now = bulk >= if given { STILL_BULK } else { BULK };
        if !given {
            let skip = now && self.skip > 0;
            self.skip = self.skip.saturating_sub(u32::from(now));
            self.quiet = 0;
            self.proven = false;
            return now && !skip;
        }
        if self.proven {
            self.skipped = 0;
        }
        if now {
            self.quiet = 0;
            return true;
        }
        self.quiet = self.quiet.saturating_add(1);
        let most = if self.proven { QUIET } else { QUIET_UNPROVEN };
        if self.quiet < most {
            return true;
        }
        if !self.proven {
            self.skipped = self
                .skipped
                .saturating_mul(2)
                .saturating_add(1)
                .min(MOST_SKIPPED);
            self.skip = self.skipped;
        }
        false
    }

    /// There are no large blocks: lets some bulk pass without.
    pub(super) fn let_pass(&mut self) {
        self.skip = QUIET;
    }

    /// Packets since there were none, or [`restart_row`](Self::restart_row).
    #[inline]
    pub(super) fn in_row(&self) -> usize {
        self.in_row
    }

    /// Counts from zero again.
    pub(super) fn restart_row(&mut self) {
        self.most_in_row = usize::MAX;
        self.in_row = 0;
    }

    /// There are no more packets. Returns how many there were in a row at most, now and then.
    #[inline]
    pub(super) fn end_row(&mut self) -> Option<usize> {
        self.most_in_row = self.most_in_row.max(core::mem::take(&mut self.in_row));
        if self.windows < ROW_WINDOWS {
            return None;
        }
        self.windows = 0;
        Some(core::mem::take(&mut self.most_in_row))
    }
}
