# SPDX-License-Identifier: GPL-2.0
"""Masks against speculation in the built modules.

Every call of `vring::nospec::below()` in the sources must be found in the
disassembly: the two instructions of the mask, attributed by the debug
information to that very line, and an `and` with their result. And no file may
have fewer of these calls than it is known to need.
"""

import re

from . import build, checks, config
from .chroot import Chroot
from .root import build_root

# Where a number of a guest or of user space becomes an index or an offset.
NEEDED = {
    "drivers/vhost/vhost_core/ring_ioctl.rs": 1,    # the number of a queue
    "rust/vring/chain.rs": 2,                       # descriptors, and those read ahead
    "rust/vring/iotlb/mapping.rs": 1,               # offset into a mapping
    "rust/vring/translate.rs": 3,                   # region of memory, and offset into it, or into the last one
}
CALL = re.compile(r"\bnospec::below\(")
# Up to the `and` there may be an instruction that prepares its other operand.
MASK = re.compile(r"^ *([0-9a-f]+):\s+sbb +%(\w+),%\2$")


def calls():
    """{(file, line)} of the calls in the sources."""
    found = set()
    for name in build.tree_files():
        if not name.endswith(".rs") or "/tests/" in name:
            continue
        for number, line in enumerate(checks.without_comments(checks.read(name) or "").splitlines(), 1):
            if CALL.search(line):
                found.add((name, number))
    return found


def names_of(register):
    """All names that x86-64 has for a register, as a regular expression."""
    if register[1:].rstrip("dwb").isdigit():
        return rf"%{register.rstrip('dwb')}[dwb]?"
    return rf"%[re]?{register[1:] if register[0] in 're' else register}"


def masks(place, module):
    """Addresses of the masks in a module whose result is used."""
    lines = place.output(["objdump", "-d", "-j", ".text", "--no-show-raw-insn", module],
                         cwd="/objects").splitlines()
    found = []
    for index, line in enumerate(lines):
        match = MASK.match(line)
        if not match or not re.search(r":\s+cmp ", lines[index - 1]):
            continue
        use = re.compile(rf"\band +(.*,)?{names_of(match[2])}\b|\band +{names_of(match[2])},")
        if any(use.search(later) for later in lines[index + 1:index + 5]):
            found.append(match[1])
    return found


def callers(place, module, addresses):
    """{(file, line)} from which `below()` was inlined at these addresses."""
    if not addresses:
        return set()
    text = place.output(["addr2line", "-i", "-f", "-C", "-a", "-e", module, "-j", ".text",
                         *addresses], cwd="/objects").splitlines()
    found = set()
    for function, position, caller in zip(text, text[1:], text[3:]):
        if function == "vring::nospec::below" and "nospec.rs:" in position:
            file, _, line = caller.partition(":")
            found.add((file.removeprefix(f"{build.TREE}/"), int(line.split()[0])))
    return found


def files_with_code(place, module):
    """Base names of the source files that have code in a module."""
    text = place.output(["objdump", "--dwarf=decodedline", module], cwd="/objects")
    return set(re.findall(r"^(\w+\.rs)\s+\d+\s+0x", text, re.M))


def check(report):
    directory = config.BUILD / "stock-we"
    modules = sorted(path.name for path in directory.glob("*.ko"))
    if not modules:
        report.add("T0/objects/nospec", "not ok", "no module was built")
        return
    place = Chroot(build_root()).bind(directory, "/objects", True)
    wanted, seen, with_code = calls(), set(), set()
    for module in modules:
        seen |= callers(place, module, masks(place, module))
        with_code |= files_with_code(place, module)

    few = [f"{name}: {sum(file == name for file, _ in wanted)} calls of nospec::below() instead of "
           f"at least {count}" for name, count in NEEDED.items()
           if sum(file == name for file, _ in wanted) < count]
    # A generic function that nobody uses has no code.
    lost = [f"{file}:{line}: there is no mask in the modules" for file, line in sorted(wanted - seen)
            if file.rpartition("/")[2] in with_code]
    report.add("T0/objects/nospec", "not ok" if few or lost else "ok",
               f"{len(few) + len(lost)} places" if few or lost else "", few + lost)
