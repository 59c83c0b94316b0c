# SPDX-License-Identifier: GPL-2.0
"""`make bench`: what an operation costs, ours beside C, in instructions.

C and ours take turns on the same kernel image; each boot says one figure for each row, and a row is
the median of its boots. See Documentation/performance.rst.
"""

import os
import shlex
from pathlib import Path

from . import benchtable, cargo, config, guestbench, ownkernel, params, profile, vm,\
    wallclock
from .build import Builder
from .kernel import Kernel
from .leankernel import LeanKernel
from .say import LabError, say

PLACE = config.TESTING / "bench"
COMMITTED = PLACE / "table.json"
CHART = config.REPO / "Documentation" / "performance.svg"
TIMEOUT = 1800
RIGS = ["host", "loopback", "guest"]
KERNELS = ["stock", "lean"]
# How rows of the guest rig begin, by whose host half the peer behaves as.
PEERS = {"guest/": "c", "guest-ours/": "ours"}
# What `make test` looks at: rows that stand for the others, in one boot of each side; boots of these
# differ by less than a percent.
SHORT = {"host": ["host/rr_64", "host/to_host_64", "host/to_guest_64"],
         "loopback": ["loopback/stream_64"],
         "guest": ["guest/rr_64", "guest/rx_64k"]}

# Self tests of the kernel disturb the first seconds; then it is idle for one.
MAIN = """#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
. /lab/vm/lib.sh
load_host {modules} || exit 1
sleep 4
BENCH_SIDE={modules} /lab/bench/{program} {rows} || exit 1
"""


class Place:
    """A kernel, and the modules of ours that were built for it."""

    def __init__(self, name):
        self.name = name
        if name == "stock":
            self.kernel = Kernel()
            Builder().make(quiet=True)
        else:
            self.kernel = LeanKernel()
            ownkernel.build_modules(self.kernel, quiet=True)

    def modules(self, side):
        return vm.modules(side, self.name)


def inside(place, side, rig, name, rows, by_address):
    """One boot of a rig that is a program in the VM: its result, and its rows with their windows."""
    payload = vm.base_payload(place.kernel, place.modules(side))
    payload.add(f"bench/{rig}", cargo.binary(PLACE / rig))
    script = MAIN.format(modules=side, program=rig, rows=" ".join(shlex.quote(row) for row in rows))
    payload.text("vm/main", script + (profile.DUMP if by_address else ""))
    lines = []
    result = wallclock.machine(place.kernel, name, payload, TIMEOUT, by_address).run(lines.append)
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
    return result, found


def boot_guest(place, side, name, rows):
    """One boot of one guest driver for each behaviour of the peer: as C's host half, and as ours."""
    found = []
    for prefix, like in PEERS.items():
        wanted = ["guest/" + row.removeprefix(prefix) for row in rows if row.startswith(prefix)]
        # A pattern that names no rig is of any.
        wanted += [row for row in rows if row.startswith("*")]
        if rows and not wanted:
            continue
        result, lines = guestbench.run(side, f"{name}-like-{like}", like, wanted, kernel=place.kernel,
                                       modules=place.modules("ours"))
        found += [(prefix + row.removeprefix("guest/"), figures)
                  for row, figures in benchtable.figures(lines, wallclock.windows(result))]
    return found


def boot(place, side, rig, number, rows):
    """One boot of one side: a list of (row, figures)."""
    name = f"bench-{place.name}-{rig}-{side}-{number}"
    if rig == "guest":
        return boot_guest(place, side, name, rows)
    result, found = inside(place, side, rig, name, rows, False)
    return benchtable.figures(found, wallclock.windows(result))


def measure(places, rigs, rows, boots):
    """kernel -> row -> summary."""
    tables = {}
    for kernel in places:
        found = {}
        for rig in rigs:
            for number in range(boots):
                for side in ("c", "ours"):
                    for row, figures in boot(kernel, side, rig, number + 1, rows):
                        found.setdefault(row, benchtable.Row(row)).add(side, figures)
        tables[kernel.name] = {name: row.summary() for name, row in found.items() if row.complete()}
        unit = "Nanoseconds" if wallclock.wanted() else "Instructions"
        print(f"\n# {unit} on the {kernel.name} kernel, medians of {boots} boots")
        print(benchtable.table(tables[kernel.name], limit()), flush=True)
    return tables


def limit():
    """How far boots may be apart, in percent."""
    return wallclock.SPREAD if wallclock.wanted() else benchtable.SPREAD


def chosen(variable, known):
    """What an environment variable selects of `known`, all if it is not set."""
    found = os.environ.get(variable, "").split() or known
    unknown = sorted(set(found) - set(known))
    if unknown:
        raise LabError(f"{variable}: no such thing as {' '.join(unknown)}; there are {' '.join(known)}")
    return found


def arguments():
    boots = int(os.environ.get("BOOTS") or (wallclock.BOOTS if wallclock.wanted() else 3))
    if boots < 1:
        raise LabError("BOOTS is the number of boots, at least 1")
    return ([Place(name) for name in chosen("KERNELS", KERNELS)], chosen("RIGS", RIGS),
            os.environ.get("ROWS", "").split(), boots)


def boot_for_profile(place, side, row):
    """One boot of the row's rig, which counts by address: its result, and its rows with their windows."""
    prefix, _, short = row.rpartition("/")
    rig, name = prefix.split("-")[0], f"profile-{place.name}-{side}"
    if rig not in RIGS:
        raise LabError(f"PROFILE is the name of a row, which begins with one of {' '.join(RIGS)}")
    if rig == "guest":
        return guestbench.run(side, name, PEERS[f"{prefix}/"], [f"guest/{short}"], kernel=place.kernel,
                              modules=place.modules("ours"), by_address=True)
    return inside(place, side, rig, name, [row], True)


def tell_profile(row):
    """`make bench PROFILE=row`: where the instructions of one row go, C beside ours."""
    for place in [Place(name) for name in chosen("KERNELS", ["stock"])]:
        files, ops = {}, None
        for side in ("c", "ours"):
            result, found = boot_for_profile(place, side, row)
            if len(found) != 1 or "ops" not in found[0][1]:
                raise LabError(f"there is no such row with instructions: {row}")
            fields = found[0][1]
            ops = int(fields["ops"])
            files[side] = profile.Files.of(result, place.modules(side), [int(fields["window"])])
        print(f"# {row} on the {place.name} kernel: C, ours, difference")
        print(profile.report(files["c"], files["ours"], ops))
    return 0


def bench():
    """`make bench`"""
    if wallclock.wanted() and (os.environ.get("PROFILE") or os.environ.get("UPDATE")):
        raise LabError("a profile and the committed table are of instructions, not of WALL's time")
    if os.environ.get("PROFILE"):
        return tell_profile(os.environ["PROFILE"])
    if os.environ.get("UPDATE") and params.given():
        raise LabError("the committed table is of modules without PARAMS")
    tables = measure(*arguments())
    if not any(tables.values()):
        raise LabError("no row has such a name")
    place = config.BUILD / ("bench-wall.json" if wallclock.wanted() else "bench.json")
    benchtable.save(place, tables)
    say(f"figures: {place}")
    noisy = [name for rows in tables.values() for name, row in rows.items()
             if max(row["c"]["spread"], row["ours"]["spread"]) > limit()]
    if noisy:
        say(f"the boots differ by more than {limit()} %, which does not count: {' '.join(noisy)}")
    if os.environ.get("UPDATE"):
        committed = benchtable.load(COMMITTED)
        for kernel, rows in tables.items():
            committed.setdefault(kernel, {}).update(rows)
        benchtable.save(COMMITTED, committed)
        CHART.write_text(benchtable.chart(committed))
        say(f"updated {COMMITTED} and {CHART}")
    return 0


def check():
    """`make bench-check`: against the committed table, or TABLE, a build/bench.json of another run."""
    if wallclock.wanted():
        raise LabError("the committed table is of instructions, not of WALL's time")
    table = Path(os.environ.get("TABLE") or COMMITTED)
    committed = benchtable.load(table)
    if not committed:
        raise LabError(f"there is no {table}: make bench UPDATE=1 writes the committed one")
    status = 0
    for kernel, rows in measure(*arguments()).items():
        for name, before, now, allowed in benchtable.losses(committed.get(kernel, {}), rows):
            say(f"{kernel}: {name} got worse: {before:.3f} -> {now:.3f} of C, {allowed:.3f} is allowed")
            status = 1
    return status


def test(report):
    """The short form in `make test`: one boot of each side, against the committed table."""
    wanted = {rig: [row for row in rows if report.wanted(f"T6/bench/{row}")] for rig, rows in SHORT.items()}
    if params.given():
        for row in [row for rows in wanted.values() for row in rows]:
            report.add(f"T6/bench/{row}", "skip", "the committed table is of modules without PARAMS")
        return
    committed = benchtable.load(COMMITTED).get("stock", {})
    place = Place("stock")
    for rig, rows in wanted.items():
        if not rows:
            continue
        if rig == "guest" and not guestbench.can_lead():
            for row in rows:
                report.add(f"T6/bench/{row}", "skip", "this machine allows no real-time priority")
            continue
        measured = measure([place], [rig], rows, 1)["stock"]
        lost = {name: (before, now, allowed)
                for name, before, now, allowed in benchtable.losses(committed, measured)}
        for row in rows:
            if row not in measured or row not in committed:
                report.add(f"T6/bench/{row}", "not ok", "no figure, or none in the committed table")
            elif row in lost:
                before, now, allowed = lost[row]
                report.add(f"T6/bench/{row}", "not ok",
                           f"{now:.3f} of C, it was {before:.3f}, and {allowed:.3f} is allowed")
            else:
                report.add(f"T6/bench/{row}", "ok", f"{measured[row]['ratio']:.3f} of C")
