# SPDX-License-Identifier: GPL-2.0
"""The debug kernel: with KASAN, lockdep and the like, and how a VM runs it."""

import os

from . import ownkernel, vm

# For scripts that start a guest: what is slow here (each letter on its console, of
# which only warnings are looked for), and no interrupt controller for it in the kernel
# (that needs CONFIG_KVM_IOAPIC) but the APIC.
SETUP = """export GUEST_READY_SECONDS=400 GUEST_LOGLEVEL=5
GUEST_EXTRA="-machine kernel-irqchip=split"
"""


class DebugKernel(ownkernel.OwnKernel):
    """configs/debug.config"""

    NAME = "debug"
    # For our modules only: what no other build of them has, to be tested somewhere.
    OF_MODULES = ["KRUSTFLAGS=--cfg=CONFIG_VHOST_CROSS_ENDIAN_LEGACY"]


def debug(arguments=()):
    """`make debug`; KCOV=1 also instruments the modules for coverage."""
    coverage = ["KCOV_INSTRUMENT=y"] if os.environ.get("KCOV") else []
    return ownkernel.make(DebugKernel(), [*arguments, *coverage])


def modules():
    """Our modules of build/debug, in load order."""
    return vm.modules("ours", DebugKernel.NAME)


def payload(guest_kernel, host_modules, guest_modules, programs):
    """What a run has: the guest's kernel and modules may be of another build."""
    made = vm.base_payload(guest_kernel, guest_modules, programs, programs)
    for name in [name for name in made.members if name.startswith("modules/ours/")]:
        del made.members[name]
    for module in host_modules:
        made.add(f"modules/ours/{module.name}", module)
    return made


def for_run(host, guest, guest_kernel):
    """Kernel and payload of `lab run --kernel debug`."""
    from . import kselftest
    kernel = DebugKernel()
    inner = kernel if guest_kernel == "debug" else kernel.stock
    there = []
    if guest == "ours":
        there = modules() if guest_kernel == "debug" else vm.modules("ours")
    return kernel, payload(inner, modules() if host != "c" else [], there,
                           kselftest.programs(kernel.stock))


class DebugVM(vm.HostVM):
    """The host VM with the debug kernel."""

    APPEND = "loglevel=7 kasan_multi_shot kunit.enable=1"

    def qemu(self):
        argv = super().qemu()
        at = argv.index("-append") + 1
        argv[at] += " " + self.APPEND
        return argv
