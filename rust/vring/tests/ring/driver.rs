// SPDX-License-Identifier: GPL-2.0

//! A driver, its memory, and its owner's address space.

use std::cell::{
    Cell,
    RefCell, //
};
use vring::{
    layout,
    Chain,
    Config,
    Endian,
    Gpa,
    Malformed,
    Region,
    Regions,
    RingAddr,
    RingError,
    RingMemory,
    RingSize,
    Segment,
    SliceSegments,
    SplitRing,
    TranslateError,
    UserAddr, //
};

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// Where the guest's memory begins, for the guest.
pub(crate) const GPA: u64 = 0x1000_0000;
/// Where the guest's memory begins, for its owner.
pub(crate) const USER: u64 = 0x7f00_0000_0000;
/// Offset of the buffers in the guest's memory.
pub(crate) const BUFFERS: u64 = 0x10_0000;
/// Offset of the indirect tables in the guest's memory.
pub(crate) const TABLES: u64 = 0x20_0000;
/// How large the guest's memory is.
pub(crate) const MEMORY: u64 = 0x40_0000;

/// Length of a packet's header.
pub(crate) const HEADER: u32 = 44;

/// Where a buffer is for the owner.
pub(crate) fn segment(offset: u64, len: u32) -> Segment {
    Segment {
        addr: UserAddr(USER + BUFFERS + offset),
        len,
    }
}

/// An access to memory that is not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fault;

pub(crate) type Error = RingError<Fault, TranslateError>;

/// A mapping of the owner.
struct Map {
    start: u64,
    read: bool,
    write: bool,
    bytes: RefCell<Vec<u8>>,
}

/// The address space of the owner.
#[derive(Default)]
pub(crate) struct Space {
    maps: Vec<Map>,
    /// How often memory was read.
    pub(crate) reads: Cell<u64>,
    /// What was written, and what of it was noted.
    pub(crate) written: RefCell<Vec<(u64, u64)>>,
    pub(crate) noted: RefCell<Vec<(u64, u64)>>,
    /// A second thread of the driver: changes what is read next.
    #[expect(clippy::type_complexity, reason = "used once")]
    pub(crate) mutator: RefCell<Option<Box<dyn FnMut(&mut [u8])>>>,
}

impl Space {
    pub(crate) fn map(&mut self, start: u64, len: u64) {
        self.maps.push(Map {
            start,
            read: true,
            write: true,
            bytes: RefCell::new(vec![0; len as usize]),
        });
    }

    pub(crate) fn protect(&mut self, start: u64, read: bool, write: bool) {
        for map in &mut self.maps {
            if map.start == start {
                (map.read, map.write) = (read, write);
            }
        }
    }

    fn with(&self, at: u64, len: usize, f: impl FnOnce(&Map, &mut [u8])) -> Result<(), Fault> {
        for map in &self.maps {
            let mut bytes = map.bytes.borrow_mut();
            if let Some(offset) = at.checked_sub(map.start) {
                let range = offset as usize..(offset as usize).saturating_add(len);
                if let Some(bytes) = bytes.get_mut(range) {
                    f(map, bytes);
                    return Ok(());
                }
            }
        }
        Err(Fault)
    }

    /// As the driver, which can access everything.
    pub(crate) fn peek(&self, at: u64, out: &mut [u8]) {
        self.with(at, out.len(), |_, bytes| out.copy_from_slice(bytes))
            .expect("the test reads what does not exist");
    }

    /// As the driver, which can access everything.
    pub(crate) fn poke(&self, at: u64, from: &[u8]) {
        self.with(at, from.len(), |_, bytes| bytes.copy_from_slice(from))
            .expect("the test writes what does not exist");
    }

    pub(crate) fn peek_u16(&self, at: u64) -> u16 {
        let mut raw = [0; 2];
        self.peek(at, &mut raw);
        u16::from_le_bytes(raw)
    }

    pub(crate) fn read(&self, at: u64, out: &mut [u8]) -> Result<(), Fault> {
        self.reads.set(self.reads.get() + 1);
        let mut readable = false;
        self.with(at, out.len(), |map, bytes| {
            readable = map.read;
            if let Some(mutator) = &mut *self.mutator.borrow_mut() {
                mutator(bytes);
            }
            out.copy_from_slice(bytes);
        })?;
        readable.then_some(()).ok_or(Fault)
    }

    pub(crate) fn write(&self, at: u64, from: &[u8]) -> Result<(), Fault> {
        let mut writable = false;
        self.with(at, from.len(), |map, bytes| {
            writable = map.write;
            if writable {
                bytes.copy_from_slice(from);
            }
        })?;
        writable.then_some(()).ok_or(Fault)?;
        self.written.borrow_mut().push((at, from.len() as u64));
        Ok(())
    }
}

impl RingMemory for Space {
    type Error = Fault;

    fn read_u16(&self, at: RingAddr) -> Result<u16, Fault> {
        let mut raw = [0; 2];
        self.read(at.0, &mut raw)?;
        Ok(u16::from_ne_bytes(raw))
    }

    fn write_u16(&self, at: RingAddr, value: u16) -> Result<(), Fault> {
        self.write(at.0, &value.to_ne_bytes())
    }

    fn read_ring(&self, at: RingAddr, out: &mut [u8]) -> Result<(), Fault> {
        self.read(at.0, out)
    }

    fn read_bytes(&self, at: UserAddr, out: &mut [u8]) -> Result<(), Fault> {
        self.read(at.0, out)
    }

    fn write_used(&self, at: RingAddr, elem: [u8; 8]) -> Result<(), Fault> {
        self.write(at.0, &elem)
    }

    fn read_barrier(&self) {}
    fn write_barrier(&self) {}
    fn full_barrier(&self) {}

    fn note_write(&self, at: RingAddr, len: u32) {
        self.noted.borrow_mut().push((at.0, len.into()));
    }
}

/// A descriptor, as the driver writes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Desc {
    pub(crate) addr: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

impl Desc {
    pub(crate) fn new(addr: u64, len: u32, flags: u16, next: u16) -> Self {
        Self {
            addr,
            len,
            flags,
            next,
        }
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        let mut raw = [0; 16];
        raw[..8].copy_from_slice(&self.addr.to_le_bytes());
        raw[8..12].copy_from_slice(&self.len.to_le_bytes());
        raw[12..14].copy_from_slice(&self.flags.to_le_bytes());
        raw[14..].copy_from_slice(&self.next.to_le_bytes());
        raw
    }
}

/// The guest address of a buffer.
pub(crate) fn buffer(offset: u64) -> u64 {
    GPA + BUFFERS + offset
}

/// The guest address of an indirect table.
pub(crate) fn table(offset: u64) -> u64 {
    GPA + TABLES + offset
}

/// A driver with one ring.
pub(crate) struct Driver {
    pub(crate) space: Space,
    pub(crate) regions: Vec<Region>,
    pub(crate) config: Config,
    pub(crate) avail_idx: u16,
    pub(crate) slots: Vec<Segment>,
}

impl Driver {
    /// A driver with a ring at the beginning of its memory.
    pub(crate) fn new(size: u32) -> Self {
        Self::with(size, false, 0)
    }

    pub(crate) fn with(size: u32, event_idx: bool, base: u16) -> Self {
        let size = RingSize::new(size).expect("not a ring size");
        let avail = USER + layout::desc_bytes(size);
        let used = (avail + layout::avail_bytes(size, event_idx)).next_multiple_of(4);
        assert!(used + layout::used_bytes(size, event_idx) <= USER + BUFFERS);

        let mut space = Space::default();
        space.map(USER, MEMORY);
        let driver = Self {
            space,
            regions: vec![Region {
                gpa_start: Gpa(GPA),
                size: MEMORY,
                user_addr: UserAddr(USER),
                writable: true,
            }],
            config: Config {
                size,
                desc: RingAddr(USER),
                avail: RingAddr(avail),
                used: RingAddr(used),
                base,
                event_idx,
                notify_on_empty: false,
                endian: Endian::Little,
            },
            avail_idx: base,
            slots: vec![
                Segment {
                    addr: UserAddr(0),
                    len: 0
                };
                1024
            ],
        };
        driver.poke_u16(driver.config.avail.0 + 2, base);
        driver.poke_u16(driver.config.used.0 + 2, base);
        driver
    }

    pub(crate) fn ring(&self) -> SplitRing {
        SplitRing::new(self.config, &self.space).expect("the ring is accessible")
    }

    pub(crate) fn poke_u16(&self, at: u64, value: u16) {
        self.space.poke(at, &value.to_le_bytes());
    }

    pub(crate) fn desc(&self, index: u16, desc: Desc) {
        let at = self.config.desc.0 + layout::desc_offset(index);
        self.space.poke(at, &desc.to_bytes());
    }

    /// Writes an indirect table.
    pub(crate) fn table(&self, offset: u64, descs: &[Desc]) {
        for (index, desc) in descs.iter().enumerate() {
            self.space
                .poke(USER + TABLES + offset + 16 * index as u64, &desc.to_bytes());
        }
    }

    /// Writes descriptors from number 0 on that form a chain, and makes them available.
    pub(crate) fn chain(&mut self, parts: &[(u64, u32, u16)]) {
        for (index, (addr, len, flags)) in parts.iter().enumerate() {
            let index = index as u16;
            let more = if usize::from(index) + 1 < parts.len() {
                NEXT
            } else {
                0
            };
            self.desc(index, Desc::new(*addr, *len, flags | more, index + 1));
        }
        self.offer(0);
    }

    /// Makes a chain available.
    pub(crate) fn offer(&mut self, head: u16) {
        let slot = self.config.size.mask(self.avail_idx);
        self.poke_u16(self.config.avail.0 + layout::avail_offset(slot), head);
        self.set_avail_idx(self.avail_idx.wrapping_add(1));
    }

    pub(crate) fn set_avail_idx(&mut self, index: u16) {
        self.avail_idx = index;
        self.poke_u16(self.config.avail.0 + 2, index);
    }

    pub(crate) fn set_avail_flags(&self, flags: u16) {
        self.poke_u16(self.config.avail.0, flags);
    }

    pub(crate) fn set_used_event(&self, index: u16) {
        let at = self.config.avail.0 + layout::used_event_offset(self.config.size);
        self.poke_u16(at, index);
    }

    pub(crate) fn avail_event(&self) -> u16 {
        self.space
            .peek_u16(self.config.used.0 + layout::avail_event_offset(self.config.size))
    }

    pub(crate) fn used_flags(&self) -> u16 {
        self.space.peek_u16(self.config.used.0)
    }

    pub(crate) fn used_idx(&self) -> u16 {
        self.space.peek_u16(self.config.used.0 + 2)
    }

    /// The entry of the used ring for a free-running index: head and length.
    pub(crate) fn used(&self, index: u16) -> (u32, u32) {
        let slot = self.config.size.mask(index);
        let mut raw = [0; 8];
        self.space
            .peek(self.config.used.0 + layout::used_offset(slot), &mut raw);
        let raw = u64::from_le_bytes(raw);
        (raw as u32, (raw >> 32) as u32)
    }

    pub(crate) fn pop(&mut self, ring: &mut SplitRing) -> Result<Option<Chain>, Error> {
        let (result, _) = self.pop_segments(ring);
        result
    }

    pub(crate) fn pop_segments(
        &mut self,
        ring: &mut SplitRing,
    ) -> (Result<Option<Chain>, Error>, Vec<Segment>) {
        let mut segments = SliceSegments::new(&mut self.slots);
        let table = Regions::from_prepared(&self.regions);
        let result = ring.pop(&self.space, &table, &mut segments);
        (result, segments.as_slice().to_vec())
    }

    /// Expects that the next chain is refused, in a bounded number of steps, and that the ring
    /// does not move.
    #[track_caller]
    pub(crate) fn refused(&mut self, error: Error) {
        let mut ring = self.ring();
        let base = ring.vring_base();
        for _ in 0..3 {
            let before = self.space.reads.get();
            assert_eq!(self.pop(&mut ring), Err(error));
            let reads = self.space.reads.get() - before;
            assert!(reads <= u64::from(self.config.size.get()) + 3, "{reads}");
        }
        assert_eq!(ring.vring_base(), base);
        assert_eq!(self.used_idx(), ring.last_used_idx());
    }

    #[track_caller]
    pub(crate) fn malformed(&mut self, kind: Malformed) {
        self.refused(RingError::Malformed(kind));
    }

    #[track_caller]
    pub(crate) fn unmapped(&mut self) {
        self.refused(RingError::Translate(TranslateError::Unmapped));
    }

    /// Expects that the next chain is taken and can be returned; tells lengths and segments.
    #[track_caller]
    pub(crate) fn accepted(&mut self, ring: &mut SplitRing) -> (u32, u32, Vec<Segment>) {
        let (result, segments) = self.pop_segments(ring);
        let chain = result.expect("refused").expect("nothing there");
        assert_eq!(
            (chain.readable_segments() + chain.writable_segments()) as usize,
            segments.len()
        );
        let lens = (chain.readable_len(), chain.writable_len());
        let split = chain.readable_segments() as usize;
        let sum = |part: &[Segment]| part.iter().map(|s| s.len).sum::<u32>();
        assert_eq!(lens, (sum(&segments[..split]), sum(&segments[split..])));
        assert!(chain.descriptors() <= u32::from(self.config.size) + 1);

        let head = chain.head();
        let old = self.used_idx();
        ring.complete(&self.space, chain, lens.1).expect("complete");
        assert_eq!(self.used_idx(), old.wrapping_add(1));
        assert_eq!(self.used(old), (head.into(), lens.1));
        (lens.0, lens.1, segments)
    }

    /// [`accepted`](Self::accepted) with a ring of its own.
    #[track_caller]
    pub(crate) fn taken(&mut self) -> (u32, u32, Vec<Segment>) {
        let mut ring = self.ring();
        let result = self.accepted(&mut ring);
        assert_eq!(self.pop(&mut ring), Ok(None));
        result
    }
}
