# SPDX-License-Identifier: GPL-2.0
"""Complaints of a kernel in its log, and the test during which they came."""

import re

from . import config

COMPLAINT = re.compile(
    r"\bBUG\b|WARNING:|\bOops\b|general protection fault|KASAN|KCSAN|KFENCE|UBSAN|Call Trace|"
    r"possible (circular|recursive|irq lock)|suspicious RCU|inconsistent lock state|"
    r"rust_kernel: panicked|Rust panic|Kernel panic|blocked for more than|"
    r"scheduling while atomic|sleeping function called|kmemleak: \d+ new|refcount_t: |"
    r"unable to handle|soft lockup|hard LOCKUP|detected stall|self-detected stall|"
    r"invalid opcode|ODEBUG|list_(add|del) corruption|unregister_netdevice: waiting|"
    r"Bad page|slab-out-of-bounds|use-after-free|double free|LAB-GUEST-FAILED")
MARK = re.compile(r"lab-test: (\S+)")


def allowed_lines():
    path = config.TESTING / "log-allowlist"
    lines = set()
    for line in path.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            lines.add(line.split("\t")[0])
    return lines


def message(line):
    """The line without time stamp and caller."""
    return re.sub(r"^(<\d+>)?\[\s*\d+\.\d+\](\[[^\]]*\])?\s?", "", line).rstrip()


def scan(path, label):
    """[(test or None, line with context)] for one log."""
    try:
        text = path.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return []
    allowed, found, test = allowed_lines(), [], None
    lines = text.splitlines()
    for number, line in enumerate(lines):
        mark = MARK.search(line)
        if mark:
            test = mark[1]
            continue
        if COMPLAINT.search(line) and message(line) not in allowed:
            found.append((test, f"{label}: {message(line)}",
                          [message(x) for x in lines[number + 1:number + 14]]))
    return found


def report_complaints(directory, report, default):
    """Adds one failed test per test with complaints; true if logs are clean."""
    by_test = {}
    for name, label in (("console.log", "host kernel"), ("guest.log", "guest kernel")):
        for test, line, context in scan(directory / name, label):
            by_test.setdefault(test or default, []).append((line, context))
    for test, complaints in by_test.items():
        line, context = complaints[0]
        report.add(f"{test}/kernel-log", "not ok",
                   f"{len(complaints)} complaints, first: {line[:160]}", context)
    return not by_test
