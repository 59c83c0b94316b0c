# SPDX-License-Identifier: GPL-2.0
"""A host VM that counts instructions, for costs that can be compared.

QEMU's TCG gives the VM a clock that one instruction moves by a nanosecond, so that
CLOCK_MONOTONIC counts what one CPU does, whatever the machine is doing. When the CPU
is idle the clock jumps to the next timer.
"""

from . import vm

# Copies and fills cost what they move, not an instruction per byte or one in all: QEMU 10's `max` has
# all five of these.
CPU = "max,-erms,-fsrm,-fsrs,-fzrm,-fsrc,-la57"
ACCEL = ["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-cpu", CPU]


class CountingVM(vm.HostVM):
    """The host VM, with one CPU that counts."""

    def qemu(self):
        self.accel = ACCEL
        argv = super().qemu()
        argv[argv.index("-smp") + 1] = "1"
        return argv
