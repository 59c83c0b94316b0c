// SPDX-License-Identifier: GPL-2.0

//! Allocation contexts.
//!
//! C header: [`include/linux/gfp_types.h`](srctree/include/linux/gfp_types.h).

use crate::bindings;
use kernel::alloc::{
    flags,
    Flags, //
};

/// What an allocation may do to get its memory.
///
/// [`kernel::alloc::Flags`] does not show its bits to other crates; these are the contexts that
/// calls into C need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gfp {
    /// May sleep and reclaim.
    Kernel,
    /// As `Kernel`, and waits for memory for as long as it takes: for small things only.
    KernelNoFail,
    /// Does not sleep: for callers that hold a spinlock or are in an RCU read section.
    Atomic,
    /// As `Atomic`, and leaves the reserves to those who cannot do without: for callers that have
    /// somebody else to do it.
    NoWait,
}

impl Gfp {
    /// The bits that C functions take.
    #[inline]
    pub(crate) fn as_raw(self) -> bindings::gfp_t {
        match self {
            Gfp::Kernel => bindings::GFP_KERNEL,
            Gfp::KernelNoFail => bindings::GFP_KERNEL | bindings::__GFP_NOFAIL,
            Gfp::Atomic => bindings::GFP_ATOMIC,
            Gfp::NoWait => bindings::GFP_NOWAIT,
        }
    }

    /// What allocations of Rust take. Who waits for as long as it takes has none of those.
    #[inline]
    pub fn as_flags(self) -> Flags {
        match self {
            Gfp::Kernel | Gfp::KernelNoFail => flags::GFP_KERNEL,
            Gfp::Atomic => flags::GFP_ATOMIC,
            Gfp::NoWait => flags::GFP_NOWAIT,
        }
    }
}

/// Memory of the machine that the kernel may allocate, in bytes.
#[doc(alias = "totalram_pages")]
pub fn total_memory() -> usize {
    // SAFETY: The counter is there for as long as the kernel.
    let pages = unsafe { &raw const bindings::_totalram_pages.counter };
    // SAFETY: As above; others may write it meanwhile, as in C.
    let pages = unsafe { pages.read_volatile() };
    usize::try_from(pages)
        .unwrap_or(0)
        .saturating_mul(kernel::page::PAGE_SIZE)
}
