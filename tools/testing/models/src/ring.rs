// SPDX-License-Identifier: GPL-2.0

//! From the host to a guest: senders that fill the ring themselves, the worker, the guest, which
//! may do the work itself when it kicks, and who stops the device.
//!
//! `direct.rs` and `to_guest.rs` of `drivers/vhost/vhost_vsock` are as they are, and so is the
//! ring, of [`vring`], and what ends a run, of `chain.rs` of `drivers/vhost/vhost_core`. What is
//! below them is here: the lock of the queue, which senders and inline runs only try, the two words
//! of the ring that tell of buffers, the queue of packets with its length that is read without a
//! lock, and the kick. All accesses to the ring are in one order: that the barriers are where they
//! have to be is said in `vring`. A kick that is served inline is so at once, and what it leaves is
//! for the worker: who has it until then, and what becomes of a thread that ends, is in the models
//! of kicks.
//!
//! - **No packet is left behind.** When all is quiet and packets wait, there is no buffer, and the
//!   next one that the guest offers makes it kick.
//! - **The order** of the packets of a sender, and of their pieces, is that in which they were
//!   sent, and nothing comes between the pieces of a packet.
//! - **The guest is told** of all buffers that it has back, once all is quiet.

#[path = "ring/memory.rs"]
pub(crate) mod memory;
#[path = "ring/packets.rs"]
pub(crate) mod packets;

pub(crate) use crate::kernel::error::Error;
use std::cell::RefCell;

/// What an inline run does.
#[derive(Clone, Copy)]
pub(crate) struct Inline {
    /// How many buffers it fills.
    pub(crate) budget: u64,
    /// The memory of how many buffers is there.
    pub(crate) good: u32,
}

thread_local! {
    /// What the guest got: of whom, which one, and which piece.
    static SEEN: RefCell<Vec<(u8, u8, usize)>> = const { RefCell::new(Vec::new()) };
}

pub(crate) fn seen(of: u8, nth: u8, piece: usize) {
    SEEN.with_borrow_mut(|seen| seen.push((of, nth, piece)));
}

pub(crate) fn take_seen() -> Vec<(u8, u8, usize)> {
    SEEN.take()
}

/// How the packets of each sender came.
pub(crate) fn check(seen: &[(u8, u8, usize)], sent: &[&[usize]], whole: bool) {
    for (of, lens) in sent.iter().enumerate() {
        let got: Vec<_> = seen.iter().filter(|s| usize::from(s.0) == of).collect();
        let mut want = Vec::new();
        for (nth, len) in lens.iter().enumerate() {
            want.extend((0..*len).map(|piece| (of as u8, nth as u8, piece)));
        }
        assert!(
            got.into_iter().eq(want.iter()),
            "packets come in the order: {seen:?}"
        );
    }
    for pair in seen.windows(2).filter(|_| whole) {
        let (a, b) = (pair[0], pair[1]);
        let goes_on = sent[usize::from(a.0)][usize::from(a.1)] > a.2 + 1;
        assert!(
            !goes_on || b == (a.0, a.1, a.2 + 1),
            "a packet comes as a whole: {seen:?}"
        );
    }
}

pub(crate) mod kernel {
    //! What these sources use of the kernel.

    pub(crate) mod prelude {
        pub(crate) use crate::kernel::error::*;
        pub(crate) const EHOSTUNREACH: Error = EIO;
    }

    pub(crate) mod sync {
        pub(crate) mod rcu {
            pub(crate) struct Guard;

            pub(crate) fn read_lock() -> Guard {
                Guard
            }
        }

        pub(crate) use crate::kernel::sync::atomic;
    }
}

/// The sources: as they are, and with mistakes.
#[allow(
    missing_docs,
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::all,
    reason = "they are looked at where they are"
)]
pub(crate) mod variants {
    include!(concat!(env!("OUT_DIR"), "/rings.rs"));
}
