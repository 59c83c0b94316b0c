# SPDX-License-Identifier: GPL-2.0
"""Costs that must not grow with the number of connections, in instructions."""

import os
import shlex

from . import config, icount, logscan, vm, vmtests
from .build import Builder
from .kernel import Kernel
from .say import LabError, say

PROGRAMS = ["connections", "device_close", "devices"]
PLACE = config.TESTING / "scale"
TIMEOUT = 1200

# Self tests of the kernel disturb the first seconds.
MAIN = """#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
export LAB_TESTS={tests}
. /lab/vm/lib.sh
load_host {modules} || exit 1
sleep 3
for name in {programs}; do
    want_group T3/scale/$name && own_program T3/scale/$name /lab/scale/$name {options}
done
exit 0
"""


def boot(kernel, modules, which, name, on_line, options="", glob=""):
    """Runs the programs in a VM that counts instructions."""
    payload = vm.base_payload(kernel, modules)
    for program in PROGRAMS:
        payload.add(f"scale/{program}", vmtests.compile_c(PLACE / f"{program}.c"))
    payload.text("vm/main", MAIN.format(tests=shlex.quote(glob), modules=which, options=options,
                                        programs=" ".join(PROGRAMS)))
    result = icount.CountingVM(kernel, name, payload, TIMEOUT).run(on_line)
    print(f"# VM that counts instructions: {result.seconds:.0f} s, logs in {result.directory}",
          flush=True)
    return result


def test(kernel, report, modules):
    """The part of `make test`."""
    if report.glob and "scale" not in report.glob and not report.wanted("T3/scale/"):
        return

    def on_line(line):
        if not report.line(line):
            print(f"# {line}", flush=True)

    result = boot(kernel, modules, "ours", "test-scale", on_line, glob=report.glob)
    logscan.report_complaints(result.directory, report, "scale")
    if result.status is None:
        report.add("T3/scale/host-vm", "not ok", result.reason)


def bench():
    """`make bench-scale`: ours and C in turns, BOOTS of each."""
    kernel = Kernel()
    Builder().make(quiet=True)
    boots = int(os.environ.get("BOOTS") or 1)
    if boots < 1:
        raise LabError("BOOTS is the number of boots, at least 1")
    status = 0
    for number in range(boots):
        for which in ("ours", "c"):
            def show(line, which=which):
                print(f"{which}: {line}", flush=True)

            result = boot(kernel, vm.modules(which), which, f"bench-scale-{which}-{number + 1}",
                          show, "--tell")
            if result.status is None:
                say(result.reason)
                status = 1
    return status
