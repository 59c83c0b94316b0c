#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Compares what a program of tools/testing/api printed with C and with ours.

same.py PREFIX PROGRAM C-OUTPUT OUR-OUTPUT DIFFERENCES

Prints a verdict for each test of the program. Lines that DIFFERENCES names are
left out of both; it also tells where one of its lines names nothing any more. A
line there that begins with `again:` names those only that are the second of
their connection or later, or are made after the other machine's was received.
"""

import fnmatch
import re
import sys

VERDICT = re.compile(r"(ok|not ok|skip) (\S+)")


def tests(path):
    """name -> the lines of that test, its verdict last."""
    found, lines = {}, []
    for line in open(path, errors="replace"):
        line = line.rstrip("\n")
        lines.append(line)
        match = VERDICT.match(line)
        if match:
            found[match[2]] = lines
            lines = []
    if lines:
        found["end"] = lines
    return found


def differences(path, program):
    """[test pattern, line pattern, was it used, only repetitions]: what may differ."""
    found = []
    for line in open(path):
        match = re.match(r"(\w+)\s+(\S+)\s+(.+?)\s+#\s", line)
        if match and match[1] == program:
            again = match[3].startswith("again:")
            found.append([match[2], re.compile(match[3][6 * again:]), False, again])
    return found


def without(lines, test, allowed):
    kept, seen = [], set()

    def named(line, entry):
        pattern, line_pattern, _, again = entry
        if not fnmatch.fnmatchcase(test, pattern) or not line_pattern.search(line):
            return False
        if not again:
            return True
        # What kind of line, and the two addresses, in any order.
        kind = next((kind for kind in ("alloc", "recv") if f"trace virtio_transport_{kind}" in line), "")
        connection = frozenset(re.findall(r"\d+:\d+", line))
        repeated = (kind, connection) in seen or kind == "alloc" and ("recv", connection) in seen
        seen.add((kind, connection))
        return repeated

    for line in lines:
        entry = next((entry for entry in allowed if named(line, entry)), None)
        if entry:
            entry[2] = True
        else:
            kept.append(line)
    return kept


def main():
    prefix, program, c_path, our_path, allow_path = sys.argv[1:6]
    c, ours, allowed = tests(c_path), tests(our_path), differences(allow_path, program)
    if not c or not ours:
        print(f"not ok {prefix}/start # there is no output")
    for test in list(c) + [name for name in ours if name not in c]:
        before = without(c.get(test, []), test, allowed)
        after = without(ours.get(test, []), test, allowed)
        if before == after:
            print(f"ok {prefix}/{test}")
            continue
        print(f"not ok {prefix}/{test} # not as with C")
        for side, lines, other in (("C", before, after), ("ours", after, before)):
            for line in [line for line in lines if line not in other][:30]:
                print(f"#   only {side}: {line}")
    for pattern, line, used, _ in allowed:
        if not used:
            print(f"not ok {prefix}/differences # {pattern} {line.pattern} names nothing")


main()
