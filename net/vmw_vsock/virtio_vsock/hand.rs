// SPDX-License-Identifier: GPL-2.0

//! Whose turn it is to take packets: that of a softirq, or of the thread for what a softirq cannot.
//!
//! A packet that needs the thread is held, and no other is taken before it was: there is one such
//! at most, and that keeps the order. This is under the lock of the receive queue. The thread has
//! another lock, too, from before it takes what is held until it is done with it: who waits for
//! that knows that nothing is in hand. (Modelled: `tools/testing/models/src/hand.rs`.)

/// What the thread finds.
pub(crate) enum Turn {
    /// No packets are taken any more.
    Stopped,
    /// Nothing is held: packets may be taken.
    Free,
    /// What was taken comes first; [`Hand::done`] follows.
    Held,
}

/// Who takes packets, if anybody may.
pub(crate) struct Hand<T> {
    running: bool,
    /// What comes before the packets in the queue.
    held: Option<T>,
    /// The thread has taken that out, and is not done with it.
    busy: bool,
}

impl<T> Hand<T> {
    /// Nobody may take packets.
    pub(crate) const fn new() -> Self {
        Self {
            running: false,
            held: None,
            busy: false,
        }
    }

    /// Packets may be taken from here on. What is returned is from before.
    #[must_use]
    pub(crate) fn start(&mut self) -> Option<T> {
        self.running = true;
        self.busy = false;
        self.held.take()
    }

    /// No packets may be taken any more. What is returned is to be dropped.
    #[must_use]
    pub(crate) fn stop(&mut self) -> Option<T> {
        self.running = false;
        self.held.take()
    }

    /// Whether packets are taken, by whomever.
    #[inline]
    pub(crate) fn is_running(&self) -> bool {
        self.running
    }

    /// Whether the next packet may be taken out of the queue now.
    #[inline]
    pub(crate) fn may_take(&self) -> bool {
        self.running && self.held.is_none() && !self.busy
    }

    /// A packet was taken that needs the thread.
    #[inline]
    pub(crate) fn hold(&mut self, packet: T) {
        self.held = Some(packet);
    }

    /// Whether a packet is held.
    #[inline]
    pub(crate) fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// The thread takes what is held to `held`, which is nothing.
    ///
    /// A packet is large: it is moved once.
    #[inline]
    pub(crate) fn take(&mut self, held: &mut Option<T>) -> Turn {
        if !self.running {
            return Turn::Stopped;
        }
        if self.held.is_none() {
            return Turn::Free;
        }
        *held = self.held.take();
        self.busy = true;
        Turn::Held
    }

    /// The thread is done with what it took. Says whether packets are still taken.
    pub(crate) fn done(&mut self) -> bool {
        self.busy = false;
        self.running
    }
}
