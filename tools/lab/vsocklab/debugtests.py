# SPDX-License-Identifier: GPL-2.0
"""`make test-debug`: tiers on the debug kernel; its reports are failures."""

import os
import re
import shlex

from . import config, debugkernel, kselftest, ktap, logscan, ownkernel, t5, vm, vmtests
from .build import Builder, rust_files
from .debugkernel import DebugKernel, DebugVM
from .say import LabError, say

GROUPS = {
    "T1": ["debug_kunit"],
    "T2": ["debug_life", "loopback", "netns", "api"],
    "T3": ["t3", "device"],
    "T4": ["ours_ours"],
    "T5": [],
}
DEFAULT_TIERS = ["T1", "T2", "T3", "T4"]
TIMEOUT = 7200          # seconds, for all groups

MAIN = """#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
export LAB_TESTS={tests} {ring}
LAB_GROUPS={groups}
. /lab/vm/lib.sh
. /lab/vm/groups.sh
. /lab/vm/debug.sh
run_debug_groups
"""

# What makes a report one about our code: a frame or a lock of ours, or of the
# parts of the kernel that only we call there.
OURS = re.compile(r"vmw_vsock|vsock_loopback|vhost_core|vhost_vsock|virtio_transport|virtio_vsock|"
                  r"kernel_ext|vsock_proto|vsock_bindings|vring|\[vsock\]|rust_vsock_helper|vhost_task")
# Lines of a report that name what was running, or loaded, not what did it.
CONTEXT = re.compile(r"Modules linked in|Comm: |comm \"|lab-test:|\[last unloaded|Hardware name")
# Lines that tell at boot what is looked for.
BENIGN = re.compile(r"debug is enabled|RCU CPU stall warnings")
BLOCK_LINES = 200
STAMP = re.compile(r"^(?:<\d+>)?\[\s*(\d+\.\d+)\]")


def reports(path):
    """[(test or None, [lines], names our code)]: the reports in one log."""
    try:
        lines = path.read_bytes().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    allowed, found, test = logscan.allowed_lines(), [], None
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        mark = logscan.MARK.search(line)
        if mark:
            test = mark[1]
            continue
        if not logscan.COMPLAINT.search(line) or BENIGN.search(line) \
                or logscan.message(line) in allowed:
            continue
        block, last = [line], STAMP.match(line)
        while number < len(lines) and len(block) < BLOCK_LINES:
            stamp = STAMP.match(lines[number])
            if logscan.MARK.search(lines[number]) or \
                    stamp and last and float(stamp[1]) - float(last[1]) > 2:
                break
            block.append(lines[number])
            last = stamp or last
            number += 1
        ours = any(OURS.search(text) for text in block if not CONTEXT.search(text))
        found.append((test, [logscan.message(text) for text in block], ours))
    return found


def report_all(directory, report):
    """A failed test for each report of a kernel that names our code."""
    others = 0
    for name, label in (("console.log", "host kernel"), ("guest.log", "guest kernel")):
        for number, (test, block, ours) in enumerate(reports(directory / name), 1):
            if not ours:
                others += 1
                print(f"# {label}, not about our code: {block[0]}", flush=True)
                continue
            report.add(f"{test or 'boot'}/{label.split()[0]}-report-{number}", "not ok",
                       f"{label}: {block[0][:160]}", block[:120])
    if others:
        print(f"# {others} reports that do not name our code; see {directory}", flush=True)


def kunit_suites():
    """Names of the KUnit suites in the tree."""
    found = []
    for name in rust_files():
        text = (config.REPO / name).read_text()
        found += re.findall(r"^#\[kunit_tests\((\w+)\)\]", text, re.M)
    return sorted(found)


class Run(vmtests.Run):
    """Groups on the debug kernel; the guest's kernel is the stock or the debug one."""

    def __init__(self, kernel, report, groups, guest):
        super().__init__(kernel, report, groups, debugkernel.modules())
        self.guest_kernel = kernel if guest == "debug" else kernel.stock
        self.guest_modules = self.modules if guest == "debug" else vm.modules("ours")

    def payload(self):
        programs = kselftest.programs(self.kernel.stock)
        payload = debugkernel.payload(self.guest_kernel, self.modules, self.guest_modules, programs)
        payload.text("vm/vsock_test.skip", "".join(
            (config.TESTING / name).read_text() for name in ("vsock_test.skip", "vsock_test.debug-skip")))
        payload.add("vm/vsock_test.alone", config.TESTING / "vsock_test.alone")
        payload.text("kunit", "".join(name + "\n" for name in kunit_suites()))
        vmtests.t3_programs(payload)
        vmtests.api_programs(payload)
        payload.text("vm/main", debugkernel.SETUP + MAIN.format(
            ring=vmtests.ring_environment(), tests=shlex.quote(self.report.glob), groups=shlex.quote(" ".join(self.left))))
        return payload

    def all(self):
        boots = 0
        while self.left:
            boots += 1
            self.current = None
            name = "test-debug" if boots == 1 else f"test-debug-{boots}"
            machine = DebugVM(self.kernel, name, self.payload(), TIMEOUT)
            result = machine.run(self.on_line)
            print(f"# host VM: {result.seconds:.0f} s, logs in {result.directory}", flush=True)
            report_all(result.directory, self.report)
            if result.status is None:
                group = self.current or (self.left[0] if self.left else "end")
                self.report.add(f"group/{group}/host-vm", "not ok", result.reason)
                if group in self.left:
                    self.left.remove(group)
        print(f"# guests that hung before READY and were started again: {self.hangs}")


def run():
    tiers = os.environ.get("TIERS", "").replace(",", " ").split() or DEFAULT_TIERS
    guest = os.environ.get("GUEST") or "stock"
    unknown = [tier for tier in tiers if tier not in GROUPS]
    if unknown or guest not in ("stock", "debug"):
        raise LabError(f"test-debug knows TIERS {' '.join(GROUPS)} and GUEST stock, debug")
    report = ktap.Report(os.environ.get("TESTS", ""))
    print("KTAP version 1", flush=True)
    try:
        kernel = DebugKernel()
        print(f"# kernel {kernel.release} ({kernel.version}), guest: {guest}, "
              f"tiers {' '.join(tiers)}", flush=True)
        ownkernel.build_modules(kernel, quiet=True)
        if "T4" in tiers and guest == "stock":
            Builder().make(quiet=True)
        groups = [group for tier in GROUPS if tier in tiers for group in GROUPS[tier]]
        if "t3" in groups and not vmtests.t3_programs(vm.Payload()):
            groups.remove("t3")
        Run(kernel, report, groups, guest).all()
        if "T5" in tiers:
            directory = t5.run(kernel, report, debugkernel.modules(), "test-debug-t5", patience=4.0,
                               memory="1G", append="kasan_multi_shot")
            if directory:
                report_all(directory, report)
    except LabError as error:
        say(f"error: {error}")
        report.add("lab", "not ok", str(error).splitlines()[0])
    return report.finish()
