// SPDX-License-Identifier: GPL-2.0

//! One chain of descriptors.
//!
//! Specification: virtio 1.3, sections 2.7.4 to 2.7.5.3.

use core::{
    convert::Infallible,
    fmt, //
};

use crate::{
    ahead::Ahead,
    layout,
    memory::{
        raw_desc,
        Endian,
        RawDesc, //
    },
    nospec,
    translate::PieceError,
    Access,
    Config,
    Gpa,
    RingMemory,
    Segment,
    Translate,
    UserAddr, //
};

/// The most entries of an indirect table: an entry is named by 16 bits.
const INDIRECT_MAX: u32 = 1 << 16;

/// The most pieces that an indirect table may be scattered over, as in C (`UIO_MAXIOV`).
const INDIRECT_PIECES: usize = 1024;

/// How many entries of an indirect table are read at once.
const WINDOW: usize = 4;
/// The same: a table that has not more is read as a whole.
const SHORT: u32 = WINDOW as u32;

/// What is wrong with a ring.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Malformed {
    /// More new chains than the ring has entries, or fewer than there were before.
    AvailIndex,
    /// A chain begins at a descriptor that does not exist.
    Head,
    /// A chain goes on at a descriptor that does not exist.
    Next,
    /// A chain has more descriptors than the ring, or than its indirect table: it is too long, or
    /// a loop.
    TooLong,
    /// The size of an indirect table is zero, not a multiple of 16, or too large.
    IndirectLength,
    /// An indirect table refers to another one.
    IndirectNested,
    /// A descriptor refers to an indirect table and goes on.
    IndirectNext,
    /// A descriptor for reading comes after one for writing.
    Order,
    /// The lengths of a chain do not fit into 32 bits.
    Length,
    /// The sink has no room for another segment, or an indirect table is too scattered.
    Segments,
    /// A buffer goes beyond the last guest address.
    Address,
    /// A part of the ring goes beyond the last address.
    RingAddress,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AvailIndex => "the available index moved by an impossible amount",
            Self::Head => "a chain begins outside of the ring",
            Self::Next => "a chain continues outside of its table",
            Self::TooLong => "a chain is a loop or too long",
            Self::IndirectLength => "the size of an indirect table is invalid",
            Self::IndirectNested => "an indirect table refers to another one",
            Self::IndirectNext => "an indirect descriptor continues",
            Self::Order => "a readable descriptor follows a writable one",
            Self::Length => "the length of a chain is too large",
            Self::Segments => "a chain has too many segments",
            Self::Address => "a buffer wraps around",
            Self::RingAddress => "the ring wraps around",
        })
    }
}

/// Why the ring did not do what it was asked for.
///
/// After any of these the owner of the ring marks the queue broken, with one exception: an error
/// of the translation that means "not yet" can be followed by another
/// [`pop`](crate::SplitRing::pop).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RingError<M, T = Infallible> {
    /// The driver broke the rules.
    Malformed(Malformed),
    /// A buffer or an indirect table has no translation.
    Translate(T),
    /// The memory of the ring or of an indirect table is not accessible.
    Memory(M),
}

impl<M> RingError<M> {
    /// Converts from the error of an operation that translates nothing.
    #[inline]
    pub fn widen<T>(self) -> RingError<M, T> {
        match self {
            Self::Malformed(kind) => RingError::Malformed(kind),
            Self::Translate(never) => match never {},
            Self::Memory(error) => RingError::Memory(error),
        }
    }
}

impl<M, T> From<Malformed> for RingError<M, T> {
    #[inline]
    fn from(kind: Malformed) -> Self {
        Self::Malformed(kind)
    }
}

impl<M, T> From<PieceError<T>> for RingError<M, T> {
    #[inline]
    fn from(error: PieceError<T>) -> Self {
        match error {
            PieceError::Address => Self::Malformed(Malformed::Address),
            PieceError::Lookup(error) => Self::Translate(error),
        }
    }
}

/// A [`Segments`] has no room left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// Where [`SplitRing::pop`](crate::SplitRing::pop) puts the segments of a chain.
///
/// The capacity is the caller's limit for the number of segments, `UIO_MAXIOV` for vhost.
pub trait Segments {
    /// Forgets everything; called before the first segment of a chain.
    fn clear(&mut self);

    /// Appends a segment. All readable ones come before the first writable one; the lengths are
    /// not zero.
    ///
    /// # Errors
    ///
    /// There is no room; the chain is then refused.
    fn push(&mut self, segment: Segment, writable: bool) -> Result<(), Full>;
}

/// Segments in a slice of the caller.
///
/// What is writable is told by the [`Chain`]: the first [`Chain::readable_segments`] are readable,
/// the others writable.
#[derive(Debug)]
pub struct SliceSegments<'a> {
    slots: &'a mut [Segment],
    len: usize,
}

impl<'a> SliceSegments<'a> {
    /// Puts segments into `slots`, whose contents do not matter.
    pub fn new(slots: &'a mut [Segment]) -> Self {
        Self { slots, len: 0 }
    }

    /// The segments of the last chain.
    pub fn as_slice(&self) -> &[Segment] {
        self.slots.get(..self.len).unwrap_or_default()
    }
}

impl Segments for SliceSegments<'_> {
    #[inline]
    fn clear(&mut self) {
        self.len = 0;
    }

    #[inline]
    fn push(&mut self, segment: Segment, _writable: bool) -> Result<(), Full> {
        *self.slots.get_mut(self.len).ok_or(Full)? = segment;
        // OVERFLOW: Not more than the length of the slice.
        self.len = self.len.wrapping_add(1);
        Ok(())
    }
}

/// A chain that was taken from the ring.
///
/// It is neither copied nor cloned: it is given back by exactly one of
/// [`complete`](crate::SplitRing::complete), [`stage`](crate::SplitRing::stage),
/// [`complete_many`](crate::SplitRing::complete_many) and [`unpop`](crate::SplitRing::unpop) of the
/// ring that it came from. If it is dropped, the driver never gets its buffers back.
///
/// All lengths are those that were checked, and belong to the segments that were delivered. They do
/// not change any more, whatever the driver does.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "the driver waits for its buffers: complete the chain, or give it back"]
pub struct Chain {
    pub(crate) head: u16,
    /// The available index at which it was found.
    pub(crate) position: u16,
    pub(crate) readable_len: u32,
    pub(crate) writable_len: u32,
    pub(crate) readable_segments: u32,
    pub(crate) writable_segments: u32,
    pub(crate) descriptors: u32,
}

impl Chain {
    /// The number of the first descriptor, by which the driver knows the chain.
    #[inline]
    pub const fn head(&self) -> u16 {
        self.head
    }

    /// How many bytes the device may read.
    #[inline]
    pub const fn readable_len(&self) -> u32 {
        self.readable_len
    }

    /// How many bytes the device may write.
    #[inline]
    pub const fn writable_len(&self) -> u32 {
        self.writable_len
    }

    /// How many segments the device may read; they come first.
    #[inline]
    pub const fn readable_segments(&self) -> u32 {
        self.readable_segments
    }

    /// How many segments the device may write; they come last.
    #[inline]
    pub const fn writable_segments(&self) -> u32 {
        self.writable_segments
    }

    /// How many descriptors were read, those without any bytes and those that refer to a table
    /// included: what a limit of the work for one run should count.
    #[inline]
    pub const fn descriptors(&self) -> u32 {
        self.descriptors
    }
}

/// A private copy of a descriptor.
#[derive(Clone, Copy)]
struct Descriptor {
    addr: Gpa,
    len: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    const F_NEXT: u16 = 1;
    const F_WRITE: u16 = 2;
    const F_INDIRECT: u16 = 4;

    #[inline]
    fn new([addr, rest]: RawDesc, endian: Endian) -> Self {
        // The fields of the second word, in the order of their bytes.
        let rest = rest.to_le();
        // CAST: Each takes its own bits. `to_le()` makes memory order of them.
        Self {
            addr: Gpa(endian.u64(addr)),
            len: endian.u32((rest as u32).to_le()),
            flags: endian.u16(((rest >> 32) as u16).to_le()),
            next: endian.u16(((rest >> 48) as u16).to_le()),
        }
    }

    #[inline]
    const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// Where the entries of an indirect table are.
#[derive(Clone, Copy)]
enum Place {
    /// In one piece.
    Whole(UserAddr),
    /// In several pieces: each entry is translated by itself.
    Scattered(Gpa),
}

/// An indirect table, with the entries that were read ahead: it belongs to one chain only, and is
/// mostly in order.
struct Table {
    place: Place,
    /// How many entries it has.
    count: u32,
    window: [RawDesc; WINDOW],
    /// The entry that is the first one in `window`.
    window_start: u32,
    /// How many entries are in `window`.
    window_len: u32,
}

impl Table {
    #[inline]
    fn new(place: Place, count: u32) -> Self {
        Self {
            place,
            count,
            window: [[0; 2]; WINDOW],
            window_start: 0,
            window_len: 0,
        }
    }

    /// Finds the table that `desc` refers to.
    fn indirect<M: RingMemory, T: Translate>(
        table: &T,
        desc: Descriptor,
    ) -> Result<Self, RingError<M::Error, T::Error>> {
        let count = desc.len / 16;
        if desc.len % 16 != 0 || count == 0 || count > INDIRECT_MAX {
            return Err(Malformed::IndirectLength.into());
        }

        if let Ok(piece) = table.lookup(desc.addr, desc.len, Access::Read) {
            if piece.len == desc.len {
                return Ok(Self::new(Place::Whole(piece.addr), count));
            }
        }
        // As C does, refuse it if any part is not mapped, used or not.
        let mut found = 0_usize;
        for piece in table.pieces(desc.addr, desc.len, Access::Read) {
            piece?;
            found = found.wrapping_add(1);
            if found > INDIRECT_PIECES {
                return Err(Malformed::Segments.into());
            }
        }
        Ok(Self::new(Place::Scattered(desc.addr), count))
    }

    /// Reads the entry `index`, which is less than `count`.
    #[inline]
    fn read<M: RingMemory, T: Translate>(
        &mut self,
        mem: &M,
        table: &T,
        index: u32,
    ) -> Result<RawDesc, RingError<M::Error, T::Error>> {
        // OVERFLOW: `index` is below 65536.
        let offset = u64::from(index).wrapping_mul(layout::DESC_LEN);
        match self.place {
            Place::Whole(base) => {
                let in_window = index.wrapping_sub(self.window_start);
                if in_window >= self.window_len {
                    // OVERFLOW: `index` is less than `count`.
                    let left = self.count.wrapping_sub(index) as usize;
                    let part = self.window.get_mut(..WINDOW.min(left));
                    let part = part.ok_or(Malformed::Next)?;
                    self.window_start = index;
                    self.window_len = part.len() as u32;
                    mem.read_descs(base.offset(offset), part)
                        .map_err(RingError::Memory)?;
                }
                let in_window = u64::from(index.wrapping_sub(self.window_start));
                // CAST: It gets no larger.
                let in_window = nospec::below(in_window, WINDOW as u64) as usize;
                self.window
                    .get(in_window)
                    .copied()
                    .ok_or(Malformed::Next.into())
            }
            Place::Scattered(base) => {
                let mut raw = [0; 16];
                let mut rest: &mut [u8] = &mut raw;
                let at = base.checked_add(offset).ok_or(Malformed::Address)?;
                for piece in table.pieces(at, 16, Access::Read) {
                    let piece = piece?;
                    let (part, behind) = core::mem::take(&mut rest)
                        .split_at_mut_checked(piece.len as usize)
                        .ok_or(Malformed::Address)?;
                    mem.read_bytes(piece.addr, part)
                        .map_err(RingError::Memory)?;
                    rest = behind;
                }
                Ok(raw_desc(raw))
            }
        }
    }
}

/// Reads the chain that begins at `head`, which is less than the size of the ring.
///
/// A chain may have as many descriptors as the ring, wherever they are. The one that refers to a
/// table is not counted, and there can only be one of them since nothing may follow it: thus at
/// most one more is read.
#[inline]
pub(crate) fn walk<M: RingMemory, T: Translate, S: Segments>(
    mem: &M,
    table: &T,
    config: &Config,
    ahead: &mut Ahead,
    head: u16,
    out: &mut S,
) -> Result<Chain, RingError<M::Error, T::Error>> {
    let mut chain = Chain {
        head,
        position: 0,
        readable_len: 0,
        writable_len: 0,
        readable_segments: 0,
        writable_segments: 0,
        descriptors: 0,
    };
    let size = u32::from(config.size);
    let read = |index: u32| {
        // CAST: Less than the size of the ring.
        ahead
            .desc(mem, config, index as u16)
            .map_err(RingError::Memory)
    };
    let first = (u32::from(head), size, size);
    if let Some(desc) = follow(&mut chain, first, table, config.endian, out, read)? {
        walk_indirect(&mut chain, desc, mem, table, config, out)?;
    }
    Ok(chain)
}

/// Reads the indirect table that `desc`, the last descriptor of `chain`, refers to.
#[inline(never)]
fn walk_indirect<M: RingMemory, T: Translate, S: Segments>(
    chain: &mut Chain,
    desc: Descriptor,
    mem: &M,
    table: &T,
    config: &Config,
    out: &mut S,
) -> Result<(), RingError<M::Error, T::Error>> {
    // Otherwise the length of a chain would not be limited by that of the ring. The specification
    // forbids it to the driver.
    if desc.has(Descriptor::F_NEXT) {
        return Err(Malformed::IndirectNext.into());
    }
    // What is left of the budget: of the descriptors that were read, `desc` is not counted.
    let left = u32::from(config.size)
        .saturating_add(1)
        .saturating_sub(chain.descriptors);
    // The write flag has no meaning here (2.7.5.3.2).
    let mut entries = Table::indirect::<M, T>(table, desc)?;
    let count = entries.count;
    let first = (0, count, left.min(count));
    let nested = if let (Place::Whole(at), 1..=SHORT) = (entries.place, count) {
        // A header and a payload: all of the table is read at once.
        // CAST: Few.
        let part = entries.window.get_mut(..count as usize);
        let part = part.ok_or(Malformed::IndirectLength)?;
        mem.read_descs(at, part).map_err(RingError::Memory)?;
        let window = &entries.window;
        let read = |index: u32| {
            // The remainder changes nothing, and holds under speculation, too.
            let entry = window.get((index % SHORT) as usize);
            Ok(entry.copied().unwrap_or_default())
        };
        follow(chain, first, table, config.endian, out, read)?
    } else {
        walk_long(chain, first, &mut entries, mem, table, config, out)?
    };
    match nested {
        Some(_) => Err(Malformed::IndirectNested.into()),
        None => Ok(()),
    }
}

/// Follows a chain in an indirect table that is not short.
#[inline(never)]
fn walk_long<M: RingMemory, T: Translate, S: Segments>(
    chain: &mut Chain,
    first: (u32, u32, u32),
    entries: &mut Table,
    mem: &M,
    table: &T,
    config: &Config,
    out: &mut S,
) -> Result<Option<Descriptor>, RingError<M::Error, T::Error>> {
    let read = |index: u32| entries.read(mem, table, index);
    follow(chain, first, table, config.endian, out, read)
}

/// Follows a chain in one table, of which `read` reads an entry.
///
/// `first` is the entry to begin with, how many entries the table has, and how many may be read.
///
/// Returns the descriptor that refers to another table, if there is one.
#[inline(always)]
fn follow<E, T: Translate, S: Segments>(
    chain: &mut Chain,
    first: (u32, u32, u32),
    table: &T,
    endian: Endian,
    out: &mut S,
    mut read: impl FnMut(u32) -> Result<RawDesc, RingError<E, T::Error>>,
) -> Result<Option<Descriptor>, RingError<E, T::Error>> {
    let (mut index, count, mut left) = first;
    loop {
        if left == 0 {
            return Err(Malformed::TooLong.into());
        }
        // CAST: It gets no larger.
        index = nospec::below(index.into(), count.into()) as u32;
        let desc = Descriptor::new(read(index)?, endian);
        // OVERFLOW: At most one more than the ring has.
        chain.descriptors = chain.descriptors.wrapping_add(1);
        if desc.has(Descriptor::F_INDIRECT) {
            return Ok(Some(desc));
        }

        add(chain, desc, table, out)?;

        if !desc.has(Descriptor::F_NEXT) {
            return Ok(None);
        }
        index = desc.next.into();
        if index >= count {
            return Err(Malformed::Next.into());
        }
        // OVERFLOW: It was compared with zero above.
        left = left.wrapping_sub(1);
    }
}

/// Adds what one descriptor describes.
#[inline(always)]
fn add<E, T: Translate, S: Segments>(
    chain: &mut Chain,
    desc: Descriptor,
    table: &T,
    out: &mut S,
) -> Result<(), RingError<E, T::Error>> {
    let writable = desc.has(Descriptor::F_WRITE);
    if !writable && chain.writable_len != 0 {
        return Err(Malformed::Order.into());
    }

    let (len, other, segments, access) = if writable {
        (
            &mut chain.writable_len,
            chain.readable_len,
            &mut chain.writable_segments,
            Access::Write,
        )
    } else {
        (
            &mut chain.readable_len,
            chain.writable_len,
            &mut chain.readable_segments,
            Access::Read,
        )
    };
    // The sum of all lengths fits, so that those of the two parts do.
    *len = len
        .checked_add(desc.len)
        .filter(|sum| sum.checked_add(other).is_some())
        .ok_or(Malformed::Length)?;
    if desc.len == 0 {
        return Ok(());
    }

    match table.lookup(desc.addr, desc.len, access) {
        // Mostly it is in one piece.
        Ok(piece) if piece.len == desc.len => {
            out.push(piece, writable)
                .map_err(|Full| Malformed::Segments)?;
            // A sink without limit must not wrap the counter.
            *segments = segments.saturating_add(1);
            Ok(())
        }
        _ => add_pieces(segments, desc, access, table, out),
    }
}

/// Adds what a descriptor describes that is not in one piece, or nowhere.
#[cold]
fn add_pieces<E, T: Translate, S: Segments>(
    segments: &mut u32,
    desc: Descriptor,
    access: Access,
    table: &T,
    out: &mut S,
) -> Result<(), RingError<E, T::Error>> {
    for piece in table.pieces(desc.addr, desc.len, access) {
        out.push(piece?, access == Access::Write)
            .map_err(|Full| Malformed::Segments)?;
        *segments = segments.saturating_add(1);
    }
    Ok(())
}
