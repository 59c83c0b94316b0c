// SPDX-License-Identifier: GPL-2.0

//! Sockets that their user closed, and what they leave behind for their peer.
//!
//! A closed socket waits for the answer of its peer, and what it sent waits in the queue of the
//! carrier until the peer takes it. No limit of open files counts these. A peer that neither answers
//! nor reads, with the help of a user or of a program that serves whoever connects, could make their
//! number grow without end; hence each peer has a budget. Who closes a socket beyond it does so
//! without the peer being told, as with TCP.

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};

/// What the closed sockets of a peer may have together, in bytes: enough for 256 that had all that
/// their credit allows under way, or for 16384 that only wait for an answer.
const LIMIT: usize = 64 * 1024 * 1024;

/// What a socket takes apart from its packets.
const SOCKET: usize = 4096;

/// The closed sockets of a peer.
pub struct Orphans {
    /// Bytes that they take.
    memory: Atomic<usize>,
}

impl Orphans {
    /// Creates the budget of a peer.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new() -> Result<Arc<Self>> {
        let memory = Atomic::new(0);
        Ok(Arc::new(Self { memory }, GFP_KERNEL)?)
    }

    /// Takes in a socket whose packets take `memory` bytes, if there is room for it.
    pub(crate) fn adopt(self: &Arc<Self>, memory: usize) -> Option<Orphan> {
        let memory = memory.saturating_add(SOCKET);
        let mut old = self.memory.load(Relaxed);
        loop {
            let new = old.checked_add(memory).filter(|new| *new <= LIMIT)?;
            match self.memory.cmpxchg(old, new, Relaxed) {
                Ok(_) => {
                    return Some(Orphan {
                        of: self.clone(),
                        memory,
                    })
                }
                Err(now) => old = now,
            }
        }
    }
}

/// A closed socket. It is kept with the state of the connection, to which the socket and each of its
/// packets have a reference: dropping it says that all of them are gone.
pub(crate) struct Orphan {
    of: Arc<Orphans>,
    memory: usize,
}

impl Drop for Orphan {
    fn drop(&mut self) {
        // INVARIANT: `adopt()` added as much.
        self.of
            .memory
            .fetch_add(self.memory.wrapping_neg(), Relaxed);
    }
}
