# SPDX-License-Identifier: GPL-2.0
"""`make demo`: the main job, seen with ordinary programs."""

import time

from . import accel, logscan, vm
from .build import Builder
from .kernel import Kernel
from .ktap import Report
from .say import say, step

MAIN = """#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
. /lab/vm/lib.sh
. /lab/vm/demo.sh
demo
"""


def demo():
    begin = time.monotonic()
    kernel = Kernel()
    builder = Builder()
    with step(f"building the modules for {kernel.release}"):
        builder.make(quiet=True)
    payload = vm.base_payload(kernel, vm.modules("ours"))
    payload.text("vm/main", MAIN)
    machine = vm.HostVM(kernel, "demo", payload, timeout=600)
    print(f"demo: host VM under {accel.describe(machine.accel)}, "
          f"in it a guest with -device vhost-vsock-pci", flush=True)
    hangs = 0

    def show(line):
        nonlocal hangs
        if line.startswith("LAB-GUEST-HANG"):
            hangs += 1
            line = "demo: the guest hung before READY (the lab's fault): trying again"
        print(line, flush=True)

    result = machine.run(show)
    clean = logscan.report_complaints(result.directory, Report(), "demo")
    if clean:
        print("demo: logs clean (host kernel and guest kernel)")
    else:
        print(f"demo: FAILED: the kernels complained; see {result.directory}")
    if result.status is None:
        print(f"demo: FAILED: {result.reason}")
    if hangs:
        print(f"demo: guests that hung before READY and were started again: {hangs}")
    good = result.status == 0 and clean
    print(f"demo: {'done' if good else 'FAILED'} in {time.monotonic() - begin:.0f} s")
    say(f"logs in {result.directory}")
    return 0 if good else 1
