# SPDX-License-Identifier: GPL-2.0
"""The lean kernel: without hardening and accounting, for `make bench`.

    kernel = LeanKernel()                   # the face of kernel.Kernel
    ownkernel.build_modules(kernel)         # our modules, to build/lean
    vm.modules("ours", "lean")              # the same, in load order
"""

from . import ownkernel


class LeanKernel(ownkernel.OwnKernel):
    """configs/lean.config"""

    NAME = "lean"
    # The kernel has no debug information, but `profile` wants to know inlined lines.
    OF_MODULES = ["KRUSTFLAGS=-Cdebuginfo=2", "KCFLAGS=-g"]
