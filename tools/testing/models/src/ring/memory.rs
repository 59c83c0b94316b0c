// SPDX-License-Identifier: GPL-2.0

//! The memory of a ring, of which two words change while others look: where the guest is, and where
//! it is to kick.

use core::convert::Infallible;
use loom::sync::atomic::{
    AtomicU16,
    Ordering::SeqCst, //
};
use std::cell::Cell;
use vring::{
    layout,
    Access,
    Config,
    Endian,
    Full,
    Gpa,
    RingAddr,
    RingMemory,
    RingSize,
    Segment,
    Segments,
    Translate,
    UserAddr, //
};

/// The bytes of a buffer: a header, and one.
pub(crate) const SIZE: usize = 45;

const ENTRIES: u16 = 32;
const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;

fn size() -> RingSize {
    RingSize::new(ENTRIES.into()).unwrap()
}

/// The ring.
pub(crate) struct GuestRing {
    avail_idx: AtomicU16,
    avail_event: AtomicU16,
    /// What is used, and up to where the guest knows of it. It looks when it is signalled, and only
    /// then.
    used_idx: Cell<u16>,
    told_idx: Cell<u16>,
}

impl GuestRing {
    pub(crate) fn new() -> Self {
        Self {
            avail_idx: AtomicU16::new(0),
            avail_event: AtomicU16::new(0),
            used_idx: Cell::new(0),
            told_idx: Cell::new(0),
        }
    }

    pub(crate) fn config(&self, base: u16) -> Config {
        Config {
            size: size(),
            desc: RingAddr(0),
            avail: RingAddr(AVAIL),
            used: RingAddr(USED),
            base,
            event_idx: true,
            notify_on_empty: false,
            endian: Endian::Little,
        }
    }

    /// The guest offers another buffer; the result says whether it kicks.
    pub(crate) fn add(&self) -> bool {
        let old = self.avail_idx.load(SeqCst);
        self.avail_idx.store(old + 1, SeqCst);
        self.avail_event.load(SeqCst) == old
    }

    /// The guest is signalled: it takes what is used, and wants to be told of the next one.
    pub(crate) fn signal(&self) {
        self.told_idx.set(self.used_idx.get());
    }

    /// Says whether it knows of all that is used.
    pub(crate) fn is_told(&self) -> bool {
        self.told_idx == self.used_idx
    }
}

impl RingMemory for GuestRing {
    type Error = Infallible;

    fn read_u16(&self, at: RingAddr) -> Result<u16, Infallible> {
        Ok(match at.0 {
            // An index.
            at if at == AVAIL + layout::IDX_OFFSET => self.avail_idx.load(SeqCst),
            at if at == AVAIL + layout::used_event_offset(size()) => self.told_idx.get(),
            // The used index at the start, and heads, which are as the slots.
            at if at < USED => ((at - AVAIL - 4) / 2) as u16,
            _ => 0,
        })
    }

    fn write_u16(&self, at: RingAddr, value: u16) -> Result<(), Infallible> {
        if at.0 == USED + layout::avail_event_offset(size()) {
            self.avail_event.store(value, SeqCst);
        } else if at.0 == USED + layout::IDX_OFFSET {
            self.used_idx.set(value);
        }
        Ok(())
    }

    fn read_ring(&self, _at: RingAddr, out: &mut [u8]) -> Result<(), Infallible> {
        // Descriptors: each has one buffer for writing.
        for desc in out.chunks_mut(16) {
            desc.fill(0);
            desc[8] = SIZE as u8;
            desc[12] = 2;
        }
        Ok(())
    }

    fn read_bytes(&self, _at: UserAddr, _out: &mut [u8]) -> Result<(), Infallible> {
        unreachable!("there are no tables");
    }

    fn write_used(&self, _at: RingAddr, _elem: [u8; 8]) -> Result<(), Infallible> {
        Ok(())
    }

    // Each access is in an order with all others.
    fn read_barrier(&self) {}
    fn write_barrier(&self) {}
    fn full_barrier(&self) {}
}

/// All addresses are what they are.
pub(crate) struct Identity;

impl Translate for Identity {
    type Error = Infallible;

    fn lookup(&self, at: Gpa, len: u32, _access: Access) -> Result<Segment, Infallible> {
        Ok(Segment {
            addr: UserAddr(at.0),
            len,
        })
    }
}

/// Where buffers are does not matter.
pub(crate) struct Sink;

impl Segments for Sink {
    fn clear(&mut self) {}

    fn push(&mut self, _segment: Segment, _writable: bool) -> Result<(), Full> {
        Ok(())
    }
}
