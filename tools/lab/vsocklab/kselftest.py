# SPDX-License-Identifier: GPL-2.0
"""The kernel's own test programs for vsock, built unmodified and statically, and one of ours."""

from . import cache, config
from .chroot import Chroot
from .cprogram import compile_c
from .root import build_root
from .say import step

PROGRAMS = ["vsock_test", "vsock_diag_test", "vsock_uring_test", "vsock_perf"]

SCRIPT = """
mkdir -p /tmp/t/tools/testing
cp -r /build/linux/tools/include /tmp/t/tools/
cp -r /build/linux/tools/testing/vsock /tmp/t/tools/testing/
cd /tmp/t/tools/testing/vsock
make -j JOBS LDFLAGS=-static PROGRAMS
cp PROGRAMS /out/
"""


PEER = config.TESTING / "guest" / "vsock_peer.c"


def programs(kernel):
    """Paths of the built programs, for the host VM and the guest."""
    kdir, root = kernel.kdir(), build_root()
    script = SCRIPT.replace("PROGRAMS", " ".join(PROGRAMS)).replace("JOBS", str(config.JOBS))

    def build(directory):
        with step("building the kernel's vsock tests"):
            place = Chroot(root).bind(kdir, "/build/linux", True).bind(directory, "/out")
            place.run(script, "kselftest", "building the kernel's vsock tests")

    found = cache.entry("kselftest", [kdir.parent.name, root.parent.name, SCRIPT], build)
    return [*(found / name for name in PROGRAMS), compile_c(PEER)]
