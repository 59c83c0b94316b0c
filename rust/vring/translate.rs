// SPDX-License-Identifier: GPL-2.0

//! From guest addresses to addresses of the owner.

use core::cell::Cell;

use crate::{
    nospec,
    Gpa,
    UserAddr, //
};

/// What is to be done with a piece of memory, seen from the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// The device reads.
    Read,
    /// The device writes.
    Write,
}

/// A piece of memory that is contiguous for the owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Where it begins.
    pub addr: UserAddr,
    /// How many bytes it has.
    pub len: u32,
}

/// A table that maps guest addresses: the memory table, or a device IOTLB.
///
/// # Examples
///
/// ```
/// use vring::{Access, Gpa, Region, Regions, Segment, Translate, TranslateError, UserAddr};
///
/// let mut table = [
///     Region { gpa_start: Gpa(0x2000), size: 0x1000, user_addr: UserAddr(0x70000), writable: true },
///     Region { gpa_start: Gpa(0x1000), size: 0x1000, user_addr: UserAddr(0x90000), writable: true },
/// ];
/// let table = Regions::new_check(&mut table)?;
///
/// // A buffer that lies in both regions is two pieces.
/// let mut pieces = table.pieces(Gpa(0x1ff0), 0x20, Access::Read);
/// assert_eq!(pieces.next(), Some(Ok(Segment { addr: UserAddr(0x90ff0), len: 0x10 })));
/// assert_eq!(pieces.next(), Some(Ok(Segment { addr: UserAddr(0x70000), len: 0x10 })));
/// assert_eq!(pieces.next(), None);
///
/// assert_eq!(table.lookup(Gpa(0x3000), 1, Access::Read), Err(TranslateError::Unmapped));
/// # Ok::<(), vring::RegionError>(())
/// ```
pub trait Translate {
    /// Why an address has no translation. A table whose entries come on demand has a value that
    /// says "not yet": the chain can be popped again later.
    type Error;

    /// Translates the beginning of the `len` bytes at `at`, with `len` > 0.
    ///
    /// The result has from 1 to `len` bytes, all of which belong to one entry of the table that
    /// permits `access`. A caller that needs more asks for the rest.
    ///
    /// # Errors
    ///
    /// The byte at `at` is not mapped, or not for `access`.
    fn lookup(&self, at: Gpa, len: u32, access: Access) -> Result<Segment, Self::Error>;

    /// Iterates over the pieces that the `len` bytes at `at` consist of.
    ///
    /// Together the pieces are exactly the `len` bytes, in order, or the last item is an error. For
    /// `len` = 0 there is none, wherever `at` is.
    #[doc(alias = "translate_desc")]
    #[inline]
    fn pieces(&self, at: Gpa, len: u32, access: Access) -> Pieces<'_, Self> {
        Pieces {
            table: self,
            at: Some(at),
            left: len,
            access,
        }
    }

    /// Calls `emit` with each of the [`pieces`](Self::pieces).
    ///
    /// # Errors
    ///
    /// The first error of the translation or of `emit`; it has then been called with the pieces
    /// before.
    #[inline]
    fn translate<E: From<PieceError<Self::Error>>>(
        &self,
        at: Gpa,
        len: u32,
        access: Access,
        mut emit: impl FnMut(Segment) -> Result<(), E>,
    ) -> Result<(), E> {
        for piece in self.pieces(at, len, access) {
            emit(piece?)?;
        }
        Ok(())
    }
}

/// Why a piece of memory has no translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PieceError<E> {
    /// The area goes beyond the last address that exists, or the table gave an empty answer.
    Address,
    /// The table has no translation.
    Lookup(E),
}

/// The iterator of [`Translate::pieces`].
pub struct Pieces<'a, T: Translate + ?Sized> {
    table: &'a T,
    /// Where the next piece begins; [`None`] if that is beyond the last address.
    at: Option<Gpa>,
    left: u32,
    access: Access,
}

impl<T: Translate + ?Sized> Pieces<'_, T> {
    #[inline(always)]
    fn step(&mut self) -> Result<Segment, PieceError<T::Error>> {
        let at = self.at.ok_or(PieceError::Address)?;
        let mut piece = self
            .table
            .lookup(at, self.left, self.access)
            .map_err(PieceError::Lookup)?;
        piece.len = piece.len.min(self.left);
        if piece.len == 0 {
            return Err(PieceError::Address);
        }
        // If this is the last piece, it may end at the very end of the address space.
        self.at = at.checked_add(piece.len.into());
        // OVERFLOW: `piece.len` was limited to `self.left`.
        self.left = self.left.wrapping_sub(piece.len);
        Ok(piece)
    }
}

impl<T: Translate + ?Sized> Iterator for Pieces<'_, T> {
    type Item = Result<Segment, PieceError<T::Error>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let item = self.step();
        if item.is_err() {
            self.left = 0;
        }
        Some(item)
    }
}

/// An entry of the memory table: guest memory that is contiguous for guest and owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    /// Where it is for the guest.
    pub gpa_start: Gpa,
    /// How many bytes it has.
    pub size: u64,
    /// Where it is for the owner.
    pub user_addr: UserAddr,
    /// Whether the device may write to it.
    pub writable: bool,
}

impl Region {
    /// The last guest address; [`None`] if the region is empty or goes beyond the last address.
    fn last(&self) -> Option<Gpa> {
        self.gpa_start.checked_add(self.size.checked_sub(1)?)
    }

    /// The order in which [`Regions::prepare`] sorts.
    fn key(&self) -> (Gpa, u64, UserAddr, bool) {
        // The complement makes the larger one come first. The rest makes the order a total one.
        (self.gpa_start, !self.size, self.user_addr, self.writable)
    }

    /// Removes `bytes` from the beginning; the caller has checked that there are more.
    fn advance(&mut self, bytes: u64) {
        // OVERFLOW: The region has more than `bytes` bytes and a last address. Where it is for the
        // owner was not checked: `lookup` does that.
        self.gpa_start = Gpa(self.gpa_start.0.wrapping_add(bytes));
        self.size = self.size.wrapping_sub(bytes);
        self.user_addr = self.user_addr.offset(bytes);
    }
}

/// Why [`Regions`] does not take a [`Region`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegionError {
    /// It has no bytes.
    Empty,
    /// It goes beyond the last guest address.
    Wrap,
}

/// Why [`Regions`] has no translation for an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TranslateError {
    /// There is no memory at that address.
    Unmapped,
    /// There is, but it may not be written.
    Denied,
}

/// The memory table: regions that are sorted and do not overlap.
///
/// # Overlapping regions
///
/// User space may describe regions that overlap, and C takes them: for each address the region with
/// the lowest beginning counts. [`prepare`](Self::prepare) cuts them so that the result is the same
/// without any overlap: of each region only what lies behind the end of all regions before it is
/// left. Of regions that begin at the same address the largest counts (for C, the first that user
/// space named).
///
/// # Ownership
///
/// The table is borrowed. Whoever owns the memory calls [`prepare`](Self::prepare) once, and
/// [`from_prepared`](Self::from_prepared) for each use.
#[derive(Clone, Copy, Debug)]
pub struct Regions<'a> {
    sorted: &'a [Region],
}

impl<'a> Regions<'a> {
    /// Sorts `regions` and removes what overlaps. The result is how many are left, at the
    /// beginning of `regions`; those behind have no meaning.
    ///
    /// Needs O(n log n) steps whatever the order, and no memory.
    ///
    /// Where the owner's end of a region lies is not checked. The caller checks that user space may
    /// access it, when the ABI says so.
    ///
    /// # Errors
    ///
    /// One of the regions is not acceptable. The order may have changed.
    pub fn prepare(regions: &mut [Region]) -> Result<usize, RegionError> {
        for region in regions.iter() {
            if region.size == 0 {
                return Err(RegionError::Empty);
            }
            if region.last().is_none() {
                return Err(RegionError::Wrap);
            }
        }
        sort(regions);

        let mut kept = 0_usize;
        let mut covered: Option<Gpa> = None;
        for index in 0..regions.len() {
            let Some(mut region) = regions.get(index).copied() else {
                break;
            };
            let Some(last) = region.last() else {
                continue;
            };
            if let Some(covered) = covered {
                if last <= covered {
                    continue;
                }
                if region.gpa_start <= covered {
                    // OVERFLOW: `gpa_start` <= `covered` < `last`.
                    let hidden = covered.0.wrapping_sub(region.gpa_start.0).wrapping_add(1);
                    region.advance(hidden);
                }
            }
            covered = Some(last);
            if let Some(slot) = regions.get_mut(kept) {
                *slot = region;
                // OVERFLOW: Less than the number of regions.
                kept = kept.wrapping_add(1);
            }
        }
        Ok(kept)
    }

    /// Takes a table that [`prepare`](Self::prepare) has made.
    ///
    /// This does nothing at all. With any other table some addresses are not found, or in another
    /// region than expected; nothing worse happens.
    #[inline]
    pub const fn from_prepared(sorted: &'a [Region]) -> Self {
        Self { sorted }
    }

    /// Prepares a table and takes it.
    ///
    /// # Errors
    ///
    /// Like [`prepare`](Self::prepare).
    pub fn new_check(regions: &'a mut [Region]) -> Result<Self, RegionError> {
        let kept = Self::prepare(regions)?;
        let regions: &'a [Region] = regions;
        Ok(Self::from_prepared(regions.get(..kept).unwrap_or_default()))
    }

    /// The regions, sorted.
    #[inline]
    pub const fn as_slice(&self) -> &'a [Region] {
        self.sorted
    }

    /// The region that contains `at`.
    #[inline]
    pub fn find(&self, at: Gpa) -> Option<&'a Region> {
        // `partition_point` of `core` does the same, with code to panic if it were wrong.
        let (mut after, mut end) = (0_usize, self.sorted.len());
        while after < end {
            // OVERFLOW: Between the two.
            let mid = after.wrapping_add(end.wrapping_sub(after) / 2);
            match self.sorted.get(mid) {
                Some(region) if region.gpa_start <= at => after = mid.wrapping_add(1),
                _ => end = mid,
            }
        }
        let index = after.checked_sub(1)?;
        // CAST: An index of a slice. It gets no larger.
        let index = nospec::below(index as u64, self.sorted.len() as u64) as usize;
        let region = self.sorted.get(index)?;
        let offset = at.0.checked_sub(region.gpa_start.0)?;
        (offset < region.size).then_some(region)
    }
}

impl Translate for Regions<'_> {
    type Error = TranslateError;

    #[inline]
    fn lookup(&self, at: Gpa, len: u32, access: Access) -> Result<Segment, TranslateError> {
        let region = self.find(at).ok_or(TranslateError::Unmapped)?;
        if access == Access::Write && !region.writable {
            return Err(TranslateError::Denied);
        }
        // OVERFLOW: `find` made sure that `at` lies in the region.
        let offset = nospec::below(at.0.wrapping_sub(region.gpa_start.0), region.size);
        let room = region.size.wrapping_sub(offset).min(len.into());
        let addr = region.user_addr.checked_add(offset);
        let addr = addr.ok_or(TranslateError::Unmapped)?;
        // The owner's end of the region must exist, too.
        addr.checked_add(room).ok_or(TranslateError::Unmapped)?;
        Ok(Segment {
            addr,
            // CAST: At most `len`.
            len: room as u32,
        })
    }
}

/// A memory table that looks first where it found the last address.
///
/// The buffers of a driver are mostly in one region, so this is what most lookups need.
pub struct LastRegion<'a> {
    regions: Regions<'a>,
    /// The region of the last address, or one without any bytes. Its end exists for the owner.
    last: Cell<Region>,
}

impl<'a> LastRegion<'a> {
    /// Takes a table.
    #[inline]
    pub const fn new(regions: Regions<'a>) -> Self {
        Self {
            regions,
            last: Cell::new(Region {
                gpa_start: Gpa(0),
                size: 0,
                user_addr: UserAddr(0),
                writable: false,
            }),
        }
    }

    #[inline(never)]
    fn search(&self, at: Gpa, len: u32, access: Access) -> Result<Segment, TranslateError> {
        if let Some(region) = self.regions.find(at) {
            if region.user_addr.checked_add(region.size).is_some() {
                self.last.set(*region);
            }
        }
        self.regions.lookup(at, len, access)
    }
}

impl Translate for LastRegion<'_> {
    type Error = TranslateError;

    #[inline]
    fn lookup(&self, at: Gpa, len: u32, access: Access) -> Result<Segment, TranslateError> {
        let last = self.last.get();
        let offset = at.0.wrapping_sub(last.gpa_start.0);
        if offset >= last.size
            // OVERFLOW: It was just compared.
            || u64::from(len) > last.size.wrapping_sub(offset)
            || (access == Access::Write && !last.writable)
        {
            return self.search(at, len, access);
        }
        let offset = nospec::below(offset, last.size);
        Ok(Segment {
            // OVERFLOW: The region ends below the last address.
            addr: last.user_addr.offset(offset),
            len,
        })
    }
}

/// Sorts by [`Region::key`].
///
/// This is a heap sort: O(n log n) in the worst case, which is the one that user space sends. The
/// sort of `core` panics if the order is inconsistent, and the linker keeps that code.
fn sort(regions: &mut [Region]) {
    let len = regions.len();
    for root in (0..len / 2).rev() {
        sift_down(regions, root, len);
    }
    for end in (1..len).rev() {
        swap(regions, 0, end);
        sift_down(regions, 0, end);
    }
}

/// Makes a heap of `regions[..end]`, of which only `root` may be smaller than its children.
fn sift_down(regions: &mut [Region], root: usize, end: usize) {
    let mut root = root;
    loop {
        // OVERFLOW: `root` is less than the length of the slice, which is at most `isize::MAX`
        // bytes.
        let left = root.wrapping_mul(2).wrapping_add(1);
        let right = left.wrapping_add(1);
        let key = |index: usize| {
            (index < end)
                .then(|| regions.get(index).map(Region::key))
                .flatten()
        };
        // `None` is less than any key.
        let (child, child_key) = if key(right) > key(left) {
            (right, key(right))
        } else {
            (left, key(left))
        };
        if child_key <= key(root) {
            return;
        }
        swap(regions, root, child);
        root = child;
    }
}

/// Swaps two elements; nothing happens if one does not exist.
fn swap(regions: &mut [Region], a: usize, b: usize) {
    let (Some(first), Some(second)) = (regions.get(a).copied(), regions.get(b).copied()) else {
        return;
    };
    if let Some(slot) = regions.get_mut(a) {
        *slot = second;
    }
    if let Some(slot) = regions.get_mut(b) {
        *slot = first;
    }
}
