# SPDX-License-Identifier: GPL-2.0
"""`T3/waiting` where time is counted in instructions, on one CPU.

There a limit says what our code does, however slow this machine is and whatever it does beside, so that
limits can be some hundred times shorter. The other run of the same cases has two CPUs, and finds what
races.
"""

import shlex

from . import cargo, config, icount, logscan, vm

GROUP = "T3/waiting-counted"
TIMEOUT = 1200

# Self tests of the kernel disturb the first seconds.
MAIN = """#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
export LAB_TESTS={tests} LAB_COUNTED=1
. /lab/vm/lib.sh
load_host ours || exit 1
sleep 3
own_program {group} /lab/t3/ring --waiting
exit 0
"""


def test(kernel, report, modules):
    """The part of `make test`."""
    if not report.may_want(GROUP + "/"):
        return

    def on_line(line):
        if not report.line(line):
            print(f"# {line}", flush=True)

    payload = vm.base_payload(kernel, modules)
    payload.add("t3/ring", cargo.binary(config.TESTING / "ring"))
    payload.text("vm/main", MAIN.format(tests=shlex.quote(report.glob), group=GROUP))
    result = icount.CountingVM(kernel, "test-counted", payload, TIMEOUT).run(on_line)
    print(f"# VM that counts instructions: {result.seconds:.0f} s, logs in {result.directory}", flush=True)
    logscan.report_complaints(result.directory, report, "waiting-counted")
    if result.status is None:
        report.add(f"{GROUP}/host-vm", "not ok", result.reason)
