# SPDX-License-Identifier: GPL-2.0
"""What a VM executed within windows, by subsystem, function and inlined line.

A run with `countplugin.PluginVM(..., profile=True)` whose script ends with DUMP leaves what is
needed; `Files.of(result, modules)` names it, and `report(c, ours, ops)` makes the text:

    c = profile.Files.of(result_of_c, windows=[3, 4, 5])
    ours = profile.Files.of(result_of_ours, vm.modules("ours"), windows=[3, 4, 5])
    print(profile.report(c, ours, ops=1000))

All figures are instructions per operation: the windows are added up and divided by their number
and by `ops`, the operations in one window. Lines are told for modules that are given and that
have debug information, which Debian's modules have not.
"""

import bisect
import collections
import os
import re
import shutil

from . import cache, config, countplugin, subsystems
from .build import TREE
from .chroot import Chroot
from .root import build_root
from .say import LabError

# For the script in the VM, after all modules were loaded and before the first is unloaded.
DUMP = """
cat /proc/kallsyms >/lab/out/kallsyms
(cd /sys/module && grep -H . */sections/.text*) >/lab/out/sections 2>/dev/null
"""

USER = "(user space)"       # subsystems.of() knows it
NOWHERE = "(no counter)"


class Files:
    """What a run left: counts, symbols, where the modules were, and their files."""

    def __init__(self, count, kallsyms, sections, modules=(), windows=None):
        self.count, self.kallsyms, self.sections = count, kallsyms, sections
        self.modules = {path.stem: path for path in modules}
        self.windows = None if windows is None else set(windows)

    @classmethod
    def of(cls, result, modules=(), windows=None):
        """Of a vm.Result; `windows` are numbers, or None for all."""
        found = cls(result.directory / countplugin.OUTPUT, result.directory / "out" / "kallsyms",
                    result.directory / "out" / "sections", modules, windows)
        for path in (found.count, found.kallsyms, found.sections):
            if not path.exists():
                raise LabError(f"the run left no {path.name}; see {result.directory}")
        return found


class Symbols:
    """Functions of the kernel and of its modules by address."""

    def __init__(self, path):
        found = {}
        for line in path.read_text().splitlines():
            address, kind, name, *module = line.split()
            if kind not in "tTwW" or not int(address, 16):
                continue
            at = int(address, 16)
            # Of several names a global one is better known, but marks of the linker are none.
            rank = (not re.search(r"_(start|end|begin)$|^_s?text$", name), kind == "T")
            if at not in found or rank > found[at][0]:
                found[at] = (rank, name, module[0].strip("[]") if module else "")
        if not found:
            raise LabError(f"{path} has no addresses (kptr_restrict?)")
        self.starts = sorted(found)
        self.names = [found[at][1:] for at in self.starts]

    def of(self, address):
        """(name, module); the kernel itself is the module ''."""
        if address == 0:
            return NOWHERE, ""
        if address < 1 << 63:
            return USER, ""
        number = bisect.bisect_right(self.starts, address) - 1
        return self.names[number] if number >= 0 else (f"{address:x}", "")


class Run:
    """The counts of one run, per operation."""

    def __init__(self, files, ops):
        self.files = files
        counts, windows = collections.Counter(), set()
        with open(files.count) as file:
            for line in file:
                kind, number, *rest = line.split()
                if files.windows is not None and int(number) not in files.windows:
                    continue
                if kind == "pc":
                    counts[int(rest[0], 16)] += int(rest[1])
                else:
                    windows.add(int(number))
        if not windows:
            raise LabError(f"{files.count} has none of the windows")
        scale = 1 / (len(windows) * ops)
        self.counts = {address: count * scale for address, count in counts.items()}
        self.total = sum(self.counts.values())
        symbols = Symbols(files.kallsyms)
        self.where = {address: symbols.of(address) for address in self.counts}
        self.functions = collections.Counter()
        for address, count in self.counts.items():
            self.functions[self.where[address]] += count

    def subsystems(self):
        found = collections.Counter()
        for (name, module), count in self.functions.items():
            found[subsystems.of(name, module)] += count
        return found

    def sections(self):
        """[(begin, module, section)] of the modules that we have as files, sorted."""
        found = []
        for line in self.files.sections.read_text().splitlines():
            path, _, address = line.rpartition(":")
            module, _, section = path.split("/")
            if module in self.files.modules:
                found.append((int(address, 16), module, section))
        return sorted(found)

    def frames(self):
        """{address: [(function, file:line), ...]}, innermost first, of modules we have."""
        places = collections.defaultdict(list)
        sections = self.sections()
        begins = [begin for begin, _, _ in sections]
        for address in self.counts:
            if self.where[address][1] not in self.files.modules:
                continue
            number = bisect.bisect_right(begins, address) - 1
            if number >= 0:
                begin, module, section = sections[number]
                places[module, section].append((address, address - begin))
        found = {}
        for (module, section), addresses in places.items():
            chains = resolve(self.files.modules[module], section, [offset for _, offset in addresses])
            found.update((address, chain) for (address, _), chain in zip(addresses, chains))
        return found


def short(path):
    """A source file's name as a person says it."""
    path = os.path.normpath(path)
    for prefix in (TREE + "/", "/build/linux/"):
        path = path.removeprefix(prefix)
    return re.sub(r"^.*/(?=library/|rust/kernel/|toolchain)", "", path)


def resolve(module, section, offsets):
    """A chain of (function, file:line) for each offset of a section of a module."""
    scratch = cache.scratch("addresses")
    scratch.mkdir()
    try:
        (scratch / "in").write_text("".join(f"{offset:#x}\n" for offset in offsets))
        shutil.copy(module, scratch / "module.ko")
        text = Chroot(build_root()).bind(scratch, "/scratch", True).output(
            f"addr2line -a -i -f -C -j {section} -e /scratch/module.ko </scratch/in", log="addr2line")
    finally:
        cache.remove_tree(scratch)
    chains, lines = [], iter(text.splitlines())
    for line in lines:
        # `-a` prints an address before each chain; then two lines for a frame.
        if line.startswith("0x"):
            chains.append([])
        else:
            place = re.sub(r" \(discriminator \d+\)", "", next(lines))
            path, _, number = place.rpartition(":")
            chains[-1].append((line, f"{short(path)}:{number}"))
    if len(chains) != len(offsets):
        raise LabError(f"addr2line told {len(chains)} places of {len(offsets)} in {module.name}")
    return chains


def demangle(names):
    """{name: name for a person} of functions."""
    names = sorted(names)
    scratch = cache.scratch("names")
    scratch.mkdir()
    try:
        (scratch / "in").write_text("\n".join(names) + "\n")
        text = Chroot(build_root()).bind(scratch, "/scratch", True).output(
            "c++filt -s rust </scratch/in", log="demangle")
    finally:
        cache.remove_tree(scratch)
    plain = [re.sub(r"\[[0-9a-f]{16}\]", "", name) for name in text.splitlines()]
    return dict(zip(names, plain))


def table(title, c, ours, name=str, least=0.5, most=None):
    """Rows of two counters, the largest first; what is below `least` is added up."""
    keys = sorted(set(c) | set(ours), key=lambda key: (-max(c.get(key, 0), ours.get(key, 0)), str(key)))
    shown = [key for key in keys if max(c.get(key, 0), ours.get(key, 0)) >= least][:most]
    lines = [f"{'C':>9} {'ours':>9} {'diff':>9}  {title}"]

    def row(a, b, text):
        lines.append(f"{a:9.1f} {b:9.1f} {b - a:+9.1f}  {text}")

    for key in shown:
        row(c.get(key, 0), ours.get(key, 0), name(key))
    rest = set(keys) - set(shown)
    if rest:
        row(sum(c.get(key, 0) for key in rest), sum(ours.get(key, 0) for key in rest),
            f"({len(rest)} smaller ones)")
    return "\n".join(lines) + "\n"


def own_line(chain):
    """The innermost frame in a driver of this tree: what it was done for."""
    for function, place in chain:
        if re.match(r"(drivers|net|samples)/", place) and (config.REPO / place.rpartition(":")[0]).exists():
            return function, place
    return chain[-1]


def lines_of(run, pick):
    found = collections.Counter()
    for address, chain in run.frames().items():
        if chain:
            found[pick(chain)] += run.counts[address]
    return found


def report(c, ours, ops, functions=60, lines=60):
    """The tables, for `Files` of a run with C and of one with ours."""
    c, ours = Run(c, ops), Run(ours, ops)
    plain = demangle({name for run in (c, ours) for name, _ in run.functions})

    def function(key):
        return plain[key[0]] + (f" [{key[1]}]" if key[1] else "")

    def line(key):
        function, place = key
        return f"{place}  {re.sub(r'<.*>', '<>', function)}"

    parts = [f"{c.total:9.1f} {ours.total:9.1f} {ours.total - c.total:+9.1f}  instructions per operation\n",
             table("subsystem", c.subsystems(), ours.subsystems(), least=0),
             table("function", c.functions, ours.functions, function, most=functions)]
    for title, pick in (("line, the innermost one", lambda chain: chain[0]),
                        ("line of a driver, with what is inlined into it", own_line)):
        mine, theirs = lines_of(ours, pick), lines_of(c, pick)
        if mine or theirs:
            parts.append(table(title, theirs, mine, line, most=lines))
    return "\n".join(parts)
