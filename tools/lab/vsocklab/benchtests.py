# SPDX-License-Identifier: GPL-2.0
"""The measuring tools against a program whose windows are known (part of `make test`)."""

from . import countplugin, profile, vm
from .cprogram import compile_c

COUNTS, PROFILE = "T3/bench/plugin", "T3/bench/profile"
SYSCALLS, CONNECT = 3, 5        # windows of marked.c

MAIN = """#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
. /lab/vm/lib.sh
load_host ours || exit 1
sleep 1
/lab/bench/marked || exit 1
""" + profile.DUMP


def counts_problems(result, found, wanted):
    """What is wrong with the windows, of which `wanted` has the bounds."""
    problems, sums = [], {}
    for line in (result.directory / countplugin.OUTPUT).read_text().splitlines():
        if line.startswith("pc "):
            _, window, _, count = line.split()
            sums[int(window)] = sums.get(int(window), 0) + int(count)
    if not found or len(found) != len(wanted):
        problems.append(f"{len(found)} windows, {len(wanted)} were closed")
    for number, (count, (least, most)) in enumerate(zip(found, wanted)):
        if not least <= count <= most:
            problems.append(f"window {number}: {count} instructions, not {least} to {most}")
        if sums.get(number, 0) != count:
            problems.append(f"window {number}: {sums.get(number, 0)} by address, {count} in all")
    return problems


def profile_problems(result, modules, found):
    """What is wrong with the tables."""
    problems = []
    run = profile.Run(profile.Files.of(result, windows=[SYSCALLS]), 100)
    if abs(run.total * 100 - found[SYSCALLS]) > 1:
        problems.append(f"{run.total * 100} instructions, not {found[SYSCALLS]}")
    for name in (("do_syscall_64", ""), (profile.USER, "")):
        if not 3 <= run.functions[name] <= 500:
            problems.append(f"{run.functions[name]} instructions in {name[0]} for a system call")
    ours = profile.Files.of(result, modules, windows=[CONNECT])
    text = profile.report(ours, ours, 1)
    for part in ("transport+vhost modules", "close::tell_behind::<", "net/vmw_vsock/virtio_transport_common/"):
        if part not in text:
            problems.append(f"nothing of {part} in the report of a connection")
    return problems


def test(kernel, report, modules):
    if not report.wanted(COUNTS) and not report.wanted(PROFILE):
        return
    payload = vm.base_payload(kernel, modules)
    payload.add("bench/marked", compile_c(countplugin.SOURCE / "marked.c"))
    payload.text("vm/main", MAIN)
    wanted = []

    def on_line(line):
        if line.startswith("expect "):
            wanted.append(tuple(int(word) for word in line.split()[1:]))

    result = countplugin.PluginVM(kernel, "test-bench", payload, 300, profile=True).run(on_line)
    if result.status != 0:
        problem = result.reason or f"the script ended with {result.status}"
        report.add(COUNTS, "not ok", f"{problem}; see {result.directory}")
        return
    found = countplugin.windows(result)
    problems = counts_problems(result, found, wanted)
    report.add(COUNTS, "not ok" if problems else "ok", "; ".join(problems))
    if not problems:
        problems = profile_problems(result, modules, found)
        report.add(PROFILE, "not ok" if problems else "ok", "; ".join(problems))
