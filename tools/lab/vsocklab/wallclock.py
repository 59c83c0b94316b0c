# SPDX-License-Identifier: GPL-2.0
"""`make bench WALL=1`: the bench by the clock on the wall, on a machine that has KVM.

The same programs in the same VMs, with the machine's processors instead of a count of instructions: a row is
nanoseconds for an operation, which says whether the direction of the counted rows is that of the time. On
TCG such times mean nothing; WALL=tcg runs there only to see that the command works.
"""

import os

from . import accel, countplugin, vm
from .say import LabError

# Boots of the same modules differ by more than those that count; above this (in percent) a row is noise.
SPREAD = 10.0
BOOTS = 5


def wanted():
    return bool(os.environ.get("WALL"))


def options(kernel):
    """QEMU's options for the processor."""
    if os.environ["WALL"] == "tcg":
        return accel.TCG
    found = accel.choose(kernel)
    if found is not accel.KVM:
        raise LabError("WALL=1 wants a machine with KVM (/dev/kvm that can be opened, and boots a kernel): "
                       "times of an emulated processor mean nothing. Without WALL, instructions are counted")
    return found


def machine(kernel, name, payload, timeout, by_address):
    """The VM of a rig that is a program in it."""
    if not wanted():
        return countplugin.PluginVM(kernel, name, payload, timeout, profile=by_address)
    found = vm.HostVM(kernel, name, payload, timeout)
    found.accel = options(kernel)
    return found


def windows(result):
    """What was counted in the windows of a run; None where only the clock was read."""
    return None if wanted() else countplugin.windows(result)
