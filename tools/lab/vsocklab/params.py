# SPDX-License-Identifier: GPL-2.0
"""PARAMS="MODULE.NAME=VALUE ...": parameters that our modules are loaded with, in host and guest.

The lab writes them to /lab/params, a line each, and whatever inserts a module of ours
(tools/testing/vm/lib.sh, guest-insert) looks there; those in C get none. What a test gives a module
itself comes after them, and wins.
"""

import os
import re

from .say import LabError, say

FORM = re.compile(r"(\w+)\.(\w+)(=\S*)?")


def given():
    """What the user wants, as [(module, assignment)]."""
    found = []
    for word in os.environ.get("PARAMS", "").split():
        match = FORM.fullmatch(word)
        if not match:
            raise LabError(f"PARAMS: {word} is not MODULE.NAME=VALUE")
        found.append((match[1], match[2] + (match[3] or "")))
    return found


def text():
    """The file of a VM."""
    return "".join(f"{module}.{assignment}\n" for module, assignment in given())


def known(module):
    """Names of the parameters of a module's file."""
    return {name.decode() for name in re.findall(rb"\bparmtype=(\w+):", module.read_bytes())}


def check(modules):
    """The kernel only logs a parameter that it does not know: fail before anything is measured."""
    files = {path.stem: path for path in modules}
    for module, assignment in given():
        name = assignment.split("=")[0]
        there = known(files[module]) if module in files else ()
        if name not in there:
            raise LabError(f"PARAMS: {module} has no parameter {name}; it has: {' '.join(sorted(there)) or 'none'}")
    if given():
        say("parameters: " + " ".join(text().split()))
