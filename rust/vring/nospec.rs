// SPDX-License-Identifier: GPL-2.0

//! Numbers of others as indexes, under speculation.
//!
//! A processor runs ahead of a comparison that it has not finished, and may read beyond the end of
//! a table with the index that is about to be refused; what it read leaves traces. So every index
//! that a guest or user space chose, and every offset into an area that it chose, goes through
//! [`below`] after it was compared and before it is used.
//!
//! There is one such function, written in assembly, so that it can be found in the disassembly of
//! the modules: `make test` looks there for each call (`tools/lab/vsocklab/nospec.py`).
//!
//! C header: [`include/linux/nospec.h`](srctree/include/linux/nospec.h).

/// Returns `index` if it is less than `bound`, and 0 otherwise, without a branch.
///
/// The caller has compared the two already, and goes on only with an index that is in bounds: for
/// that one this changes nothing, and costs three instructions.
///
/// # Examples
///
/// ```
/// use vring::nospec;
///
/// assert_eq!(nospec::below(5, 6), 5);
/// assert_eq!(nospec::below(6, 6), 0);
/// assert_eq!(nospec::below(u64::MAX, 6), 0);
/// assert_eq!(nospec::below(0, 0), 0);
/// ```
#[doc(alias = "array_index_nospec")]
#[inline(always)]
pub fn below(index: u64, bound: u64) -> u64 {
    index & mask(index, bound)
}

/// All bits if `index` is less than `bound`, none otherwise.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn mask(index: u64, bound: u64) -> u64 {
    let mask: u64;
    // The comparison sets the carry flag if `index` is less; a number minus itself and the carry is
    // 0 or -1. The compiler does not look inside, and so cannot conclude from a comparison of the
    // caller that the result is known.
    //
    // SAFETY: Two registers are compared, a third one is written; nothing else is touched but the
    // flags.
    #[allow(unsafe_code)]
    unsafe {
        core::arch::asm!(
            "cmp {index}, {bound}",
            "sbb {mask}, {mask}",
            index = in(reg) index,
            bound = in(reg) bound,
            mask = lateout(reg) mask,
            options(pure, nomem, nostack),
        )
    };
    mask
}

/// All bits if `index` is less than `bound`, none otherwise; only for numbers below 2^63.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn mask(index: u64, bound: u64) -> u64 {
    // If `index` is not less, or is not below 2^63, the sign bit of this is set; spread over the
    // word, its complement is the mask. `black_box` keeps the compiler from concluding the result
    // from a comparison of the caller.
    let outside = core::hint::black_box(index | bound.wrapping_sub(1).wrapping_sub(index));
    // CAST: The sign is what is wanted.
    !((outside as i64 >> 63) as u64)
}
