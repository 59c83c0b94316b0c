# SPDX-License-Identifier: GPL-2.0
"""`make bench`: what an operation costs, ours beside C, in instructions.

C and ours take turns on the same kernel image; each boot says one figure for each row, and a row is
the median of its boots. See Documentation/performance.rst.
"""

import os
import shlex

from . import benchtable, cargo, config, countplugin, vm
from .build import Builder
from .kernel import Kernel
from .say import LabError, say

PLACE = config.TESTING / "bench"
TABLE = PLACE / "table.json"
CHART = config.REPO / "Documentation" / "performance.svg"
TIMEOUT = 1800
# Programs that run inside the VM, by rig.
PROGRAMS = {"host": "host", "loopback": "loopback"}
RIGS = ["host", "loopback"]
KERNELS = ["stock"]

# Self tests of the kernel disturb the first seconds; then it is idle for one.
MAIN = """#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
. /lab/vm/lib.sh
load_host {modules} || exit 1
sleep 4
/lab/bench/{program} {rows}
"""


def program(name):
    """A program of the bench, compiled."""
    return cargo.binary(PLACE / name)


def boot(kernel, side, rig, number, rows):
    """One boot of one side: a list of (row, figures)."""
    name = f"bench-{kernel.name}-{rig}-{side}-{number}"
    payload = vm.base_payload(kernel, kernel.modules(side))
    payload.add(f"bench/{PROGRAMS[rig]}", program(PROGRAMS[rig]))
    payload.text("vm/main", MAIN.format(modules=side, program=PROGRAMS[rig],
                                        rows=" ".join(shlex.quote(row) for row in rows)))
    lines = []
    result = countplugin.PluginVM(kernel, name, payload, TIMEOUT).run(lines.append)
    found = [parsed for parsed in map(benchtable.parse, lines) if parsed]
    if result.status != 0:
        bad = [line for line in lines if line.startswith("not ok")]
        raise LabError(f"{name}: {result.reason or ' '.join(bad) or 'failed'}; see {result.directory}")
    failed = [line for line in lines if line.startswith("failed ")]
    for line in failed:
        print(f"# {side}: {line}", flush=True)
    if failed and side == "ours":
        raise LabError(f"{name}: ours cannot do all rows; see {result.directory}")
    say(f"{name}: {len(found)} rows in {result.seconds:.0f} s")
    return benchtable.figures(found, countplugin.windows(result))


def measure(kernels, rigs, rows, boots):
    """kernel -> row -> summary."""
    tables = {}
    for kernel in kernels:
        found = {}
        for rig in rigs:
            for number in range(boots):
                for side in ("c", "ours"):
                    for row, figures in boot(kernel, side, rig, number + 1, rows):
                        found.setdefault(row, benchtable.Row(row)).add(side, figures)
        tables[kernel.name] = {name: row.summary() for name, row in found.items() if row.complete()}
        print(f"\n# Instructions on the {kernel.name} kernel, medians of {boots} boots")
        print(benchtable.table(tables[kernel.name]), flush=True)
    return tables


class Stock(Kernel):
    """Debian's kernel with our modules of build/stock."""
    name = "stock"

    def modules(self, side):
        return vm.modules(side)


def chosen(variable, known):
    """What an environment variable selects of `known`, all if it is not set."""
    found = os.environ.get(variable, "").split() or known
    unknown = sorted(set(found) - set(known))
    if unknown:
        raise LabError(f"{variable}: no such thing as {' '.join(unknown)}; there are {' '.join(known)}")
    return found


def kernels(names):
    """The kernels, with our modules built for them."""
    found = []
    for name in names:
        if name == "stock":
            Builder().make(quiet=True)
            found.append(Stock())
    return found


def arguments():
    boots = int(os.environ.get("BOOTS") or 3)
    if boots < 1:
        raise LabError("BOOTS is the number of boots, at least 1")
    return (kernels(chosen("KERNELS", KERNELS)), chosen("RIGS", RIGS),
            os.environ.get("ROWS", "").split(), boots)


def bench():
    """`make bench`"""
    tables = measure(*arguments())
    if not any(tables.values()):
        raise LabError("no row has such a name")
    place = config.BUILD / "bench.json"
    benchtable.save(place, tables)
    say(f"figures: {place}")
    noisy = [name for rows in tables.values() for name, row in rows.items()
             if max(row["c"]["spread"], row["ours"]["spread"]) > benchtable.SPREAD]
    if noisy:
        say(f"the boots differ by more than {benchtable.SPREAD} %, which does not count: {' '.join(noisy)}")
    if os.environ.get("UPDATE"):
        committed = benchtable.load(TABLE)
        for kernel, rows in tables.items():
            committed.setdefault(kernel, {}).update(rows)
        benchtable.save(TABLE, committed)
        CHART.write_text(benchtable.chart(committed))
        say(f"updated {TABLE} and {CHART}")
    return 0


def check():
    """`make bench-check`"""
    committed = benchtable.load(TABLE)
    if not committed:
        raise LabError(f"there is no {TABLE}: UPDATE=1 make bench writes it")
    status = 0
    for kernel, rows in measure(*arguments()).items():
        for name, before, now, allowed in benchtable.losses(committed.get(kernel, {}), rows):
            say(f"{kernel}: {name} got worse: {before:.3f} -> {now:.3f} of C, {allowed:.3f} is allowed")
            status = 1
    return status
