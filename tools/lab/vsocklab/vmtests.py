# SPDX-License-Identifier: GPL-2.0
"""Tiers that run in the host VM: groups of tests in as few boots as possible."""

import os
import re
import shlex

from . import cargo, config, kselftest, logscan, testmodule, vm, vmtest
from .cprogram import compile_c
from .say import LabError, say

GROUPS = {
    "T2": ["life", "loopback", "netns", "samples", "api", "api_c"],
    "T3": ["t3", "device", "t3_c"],
    "T4": ["ours_ours", "ours_c", "strace_ours", "netns_guest", "vmtest", "c_ours",
           "strace_c"],
    "LAB": ["c_c"],
    "VMM": ["guest_life", "options", "iommu", "migrate", "session", "options_c", "iommu_c",
            "migrate_c"],
}
ORDER = ["life", "loopback", "netns", "samples", "api", "t3", "device", "ours_ours", "ours_c",
         "iommu", "migrate", "strace_ours", "netns_guest", "vmtest", "guest_life", "options", "session",
         "api_c", "t3_c", "c_ours", "strace_c", "c_c", "options_c", "iommu_c", "migrate_c"]
# For what nothing in the VM ends by itself: all groups take 12 minutes where there is nothing else to do.
TIMEOUT = 2 * 3600

MAIN = """#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
export LAB_TESTS={tests} {ring}
LAB_GROUPS={groups}
. /lab/vm/lib.sh
. /lab/vm/groups.sh
run_groups
"""


def t3_programs(payload):
    """Puts the programs of tools/testing/t3 into the payload."""
    listed = []
    for line in (config.TESTING / "t3").read_text().splitlines():
        fields = line.split("#")[0].split()
        if len(fields) < 2:
            continue
        name, source, arguments = fields[0], config.REPO / fields[1], fields[2:]
        if not source.exists():
            raise LabError(f"tools/testing/t3 names {fields[1]}, which does not exist")
        if source.suffix == ".c":
            source = compile_c(source)
        elif (source / "Cargo.toml").exists():
            source = cargo.binary(source)
        name, _, modules = name.partition("@")
        payload.add(f"t3/{source.name}", source)
        listed.append(" ".join([modules or "ours", name, source.name, *arguments]))
    payload.add("t3/vsockctl", cargo.binary(config.REPO / "tools" / "vsockctl"))
    payload.text("t3/list", "".join(line + "\n" for line in listed))
    return bool(listed)


def ring_environment():
    """Settings of the ring driver, as assignments of a shell."""
    names = ("RING_SEED", "RING_FULL")
    return " ".join(f"{name}={shlex.quote(os.environ[name])}" for name in names
                    if os.environ.get(name))


def api_programs(payload):
    """Puts the programs of tools/testing/api into the payload."""
    for source in sorted((config.TESTING / "api").glob("*.c")):
        payload.add(f"api/{source.stem}", compile_c(source))
    payload.add("api/differences", config.TESTING / "api" / "differences")


def samples(payload):
    """Puts the programs of samples/ into the payload."""
    for source in sorted((config.REPO / "samples").glob("*.c")):
        payload.add(f"samples/{source.stem}", compile_c(source))
    payload.add("samples/vhost_vsock_devices", config.REPO / "samples" / "vhost_vsock_devices")


class Run:
    """Runs groups, boots again after one that killed the host VM."""

    def __init__(self, kernel, report, groups, modules):
        self.kernel, self.report, self.modules = kernel, report, modules
        self.left = list(groups)
        self.hangs = 0
        self.boots = 0

    def payload(self):
        programs = kselftest.programs(self.kernel)
        payload = vm.base_payload(self.kernel, self.modules,
                                  [*programs, compile_c(config.TESTING / "api" / "session.c")], programs)
        payload.add("vm/vsock_test.skip", config.TESTING / "vsock_test.skip")
        payload.add("vm/vsock_test.alone", config.TESTING / "vsock_test.alone")
        t3_programs(payload)
        api_programs(payload)
        samples(payload)
        payload.add("modules/vsock_place.ko", testmodule.module(self.kernel, "place"))
        if "vmtest" in self.left:
            vmtest.add_to(payload, self.kernel)
        payload.text("vm/main", MAIN.format(tests=shlex.quote(self.report.glob),
                                            ring=ring_environment(),
                                            groups=shlex.quote(" ".join(self.left))))
        return payload

    def on_line(self, line):
        match = re.match(r"LAB-GROUP (begin|end) (\w+)(?: (\d+))?", line)
        if match:
            if match[1] == "begin":
                self.current = match[2]
            else:
                self.left.remove(match[2])
                self.current = None
                print(f"# {match[2]}: {match[3]} s", flush=True)
        elif line.startswith("LAB-GUEST-HANG"):
            self.hangs += 1
            print("# the guest hung before READY (the lab's fault): trying again", flush=True)
        elif not self.report.line(line):
            print(f"# {line}", flush=True)

    def all(self):
        while self.left:
            self.boots += 1
            self.current = None
            name = "test" if self.boots == 1 else f"test-{self.boots}"
            machine = vm.HostVM(self.kernel, name, self.payload(), TIMEOUT)
            result = machine.run(self.on_line)
            print(f"# host VM: {result.seconds:.0f} s, logs in {result.directory}", flush=True)
            # What the group was called does not matter: the mark tells the test.
            logscan.report_complaints(result.directory, self.report, "boot")
            if result.status is None:
                group = self.current or (self.left[0] if self.left else "end")
                self.report.add(f"group/{group}/host-vm", "not ok", result.reason)
                if group in self.left:
                    self.left.remove(group)
        print(f"# guests that hung before READY and were started again: {self.hangs}")


def run(kernel, report, tiers, modules):
    wanted = {group for tier in tiers for group in GROUPS.get(tier, [])}
    groups = [group for group in ORDER if group in wanted]
    if "t3" in groups and not t3_programs(vm.Payload()):
        groups = [group for group in groups if group not in ("t3", "t3_c")]
        say("tier T3 has no program yet (tools/testing/t3)")
    if groups:
        Run(kernel, report, groups, modules).all()
