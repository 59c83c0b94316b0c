// SPDX-License-Identifier: GPL-2.0

//! The dirty log: a bitmap of the guest's pages that the device wrote.
//!
//! User space clears bits and copies the pages meanwhile, so bits are set one word at a time, by an
//! atomic operation: this says which words and bits. Pages of the log have 4 KiB, whatever those of
//! the machine have.

use crate::{
    Gpa,
    Regions,
    UserAddr, //
};

/// How many bytes of guest memory a bit stands for.
#[doc(alias = "VHOST_PAGE_SIZE")]
pub const PAGE: u64 = 4096;

/// The first and the last page of an area that is not empty.
#[inline]
fn pages(at: Gpa, len: u64) -> Option<(u64, u64)> {
    let last = at.0.checked_add(len.checked_sub(1)?)?;
    Some((at.0 / PAGE, last / PAGE))
}

/// Where in a log the bits of an area of guest memory are: the first byte, and how many. [`None`]
/// if the area is empty or does not exist.
#[doc(alias = "log_access_ok")]
#[inline]
pub fn extent(at: Gpa, len: u64) -> Option<(u64, u64)> {
    let (first, last) = pages(at, len)?;
    let (first, last) = (first / 8, last / 8);
    // OVERFLOW: `first` <= `last`, which is below 2^49.
    Some((first, last.wrapping_sub(first).wrapping_add(1)))
}

/// The bits of an area of guest memory, in the log that begins at `base`. [`None`] if the area is
/// empty, or if it or its part of the log does not exist.
///
/// # Examples
///
/// ```
/// use vring::{dirty, Gpa, UserAddr};
///
/// // One byte on either side of the border between the pages 31 and 32.
/// let mut words = dirty::words(UserAddr(0x1000), Gpa(0x1ffff), 2).ok_or(())?;
/// assert_eq!(words.next(), Some((UserAddr(0x1000), 1 << 31)));
/// assert_eq!(words.next(), Some((UserAddr(0x1004), 1)));
/// assert_eq!(words.next(), None);
/// # Ok::<(), ()>(())
/// ```
#[doc(alias = "log_write")]
#[inline]
pub fn words(base: UserAddr, at: Gpa, len: u64) -> Option<Words> {
    let (page, last) = pages(at, len)?;
    // The last word must not wrap.
    base.checked_add(last / 8)?.checked_add(7)?;
    Some(Words {
        base,
        page: Some(page),
        last,
    })
}

/// The iterator of [`words`]: aligned words of 32 bits, in memory order, and the bits to be set in
/// each.
pub struct Words {
    base: UserAddr,
    /// The next page; [`None`] at the end.
    page: Option<u64>,
    last: u64,
}

impl Iterator for Words {
    type Item = (UserAddr, u32);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let page = self.page?;
        let byte = self.base.offset(page / 8).0;
        // The log may begin anywhere, at the third byte of a word for example.
        let bit = (byte % 4).wrapping_mul(8).wrapping_add(page % 8);
        // OVERFLOW: `bit` is below 32, `page` at most `last`.
        let room = 32_u64.wrapping_sub(bit);
        let count = self.last.wrapping_sub(page).wrapping_add(1).min(room);
        self.page = page.checked_add(count).filter(|next| *next <= self.last);

        // CAST: Both are at most 32.
        let (count, bit) = (count as u32, bit as u32);
        // OVERFLOW: `count` is in 1..=32 and `bit` in 0..=31, both together at most 32.
        let mask = u32::MAX
            .wrapping_shr(32_u32.wrapping_sub(count))
            .wrapping_shl(bit);
        // The bits are numbered in words of 64 bits.
        let swap = if cfg!(target_endian = "big") { 4 } else { 0 };
        Some((UserAddr((byte & !3) ^ swap), mask))
    }
}

impl<'a> Regions<'a> {
    /// The guest addresses of an area of the owner: one area for each region that it lies in.
    ///
    /// There may be several for the same memory, and all of them are what the guest sees. The sum
    /// of the lengths is less than `len` if not all of the area is in any region.
    #[doc(alias = "log_write_hva")]
    pub fn guest_areas(
        &self,
        user: UserAddr,
        len: u64,
    ) -> impl Iterator<Item = (Gpa, u64)> + use<'a> {
        let last = len.checked_sub(1).and_then(|more| user.checked_add(more));
        self.as_slice().iter().filter_map(move |region| {
            let end = region.user_addr.checked_add(region.size.checked_sub(1)?)?;
            let first = user.max(region.user_addr);
            // OVERFLOW: The end is not before the beginning.
            let more = last?.min(end).0.checked_sub(first.0)?;
            let offset = first.0.wrapping_sub(region.user_addr.0);
            Some((region.gpa_start.checked_add(offset)?, more.checked_add(1)?))
        })
    }
}
