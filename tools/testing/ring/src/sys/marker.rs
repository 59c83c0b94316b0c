// SPDX-License-Identifier: GPL-2.0

//! Marks in the instruction stream, between which a plugin of QEMU counts instructions.
//!
//! `tools/testing/bench/plugin/count.c` tells what they are. On anything else they do nothing: they
//! are long forms of `nop`.

use core::arch::asm;

/// Opens a window: what any CPU of the machine executes from now on counts. A window that is open
/// starts again.
#[inline(always)]
pub fn open() {
    // SAFETY: It is a `nop`. As memory is not excluded, accesses stay on their side of it.
    unsafe {
        asm!(
            ".byte 0x0f, 0x1f, 0x80",
            ".long 0x76616201",
            options(nostack, preserves_flags)
        )
    };
}

/// Closes the window; nothing happens where none is open.
#[inline(always)]
pub fn close() {
    // SAFETY: As in `open`.
    unsafe {
        asm!(
            ".byte 0x0f, 0x1f, 0x80",
            ".long 0x76616202",
            options(nostack, preserves_flags)
        )
    };
}
