// SPDX-License-Identifier: GPL-2.0

//! Instructions that tell the lab's QEMU plugin where a measured part begins and ends. They do
//! nothing else, on any machine.

use std::arch::asm;

/// Opens a window: instructions are counted from here.
#[inline(always)]
pub fn open() {
    // SAFETY: A NOP with an operand that is not accessed.
    unsafe { asm!("nop dword ptr [rax + 0x76616201]", options(nostack, preserves_flags)) };
}

/// Closes the window.
#[inline(always)]
pub fn close() {
    // SAFETY: A NOP with an operand that is not accessed.
    unsafe { asm!("nop dword ptr [rax + 0x76616202]", options(nostack, preserves_flags)) };
}
