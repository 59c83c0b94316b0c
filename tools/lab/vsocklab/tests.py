# SPDX-License-Identifier: GPL-2.0
"""`make test`: which tiers, in which order, and the last line."""

import os

from . import bench, benchtests, checks, config, counted, deb, dkmstests, ktap, pkgtests, scale, t0, t5, vm, vmtests
from .build import Builder
from .kernel import Kernel
from .say import LabError, say

KNOWN = ["T0", "T2", "T3", "T4", "T5", "T6", "LAB", "VMM", "PKG"]


def run():
    tiers = os.environ.get("TIERS", "").replace(",", " ").split() or config.DEFAULT_TIERS
    unknown = [tier for tier in tiers if tier not in KNOWN]
    if unknown:
        raise LabError(f"there is no tier {unknown[0]}; there are {' '.join(KNOWN)}")
    report = ktap.Report(os.environ.get("TESTS", ""))
    print("KTAP version 1", flush=True)
    try:
        kernel = Kernel()
        print(f"# kernel {kernel.release} ({kernel.version}), tiers {' '.join(tiers)}", flush=True)
        if "T0" in tiers:
            t0.run(report)
        if set(tiers) & {"T2", "T3", "T4", "T5", "T6", "LAB", "VMM"}:
            modules = []
            if set(tiers) & {"T2", "T3", "T4", "T5", "T6", "VMM"}:
                Builder().make(quiet=True)
                modules = vm.modules("ours")
            vmtests.run(kernel, report, tiers, modules)
            if "T3" in tiers:
                scale.test(kernel, report, modules)
                counted.test(kernel, report, modules)
                benchtests.test(kernel, report, modules)
            if "T5" in tiers:
                t5.test(kernel, report, modules)
            if "T6" in tiers:
                bench.test(report)
        if "PKG" in tiers:
            deb.deb()
            if report.wanted("PKG/dkms/"):
                dkmstests.test(kernel, report)
            pkgtests.test(kernel, report)
        if not report.glob and set(config.DEFAULT_TIERS) <= set(tiers):
            checks.checklist(report)
    except LabError as error:
        say(f"error: {error}")
        report.add("lab", "not ok", str(error).splitlines()[0])
    return report.finish()


def fuzz():
    """`make fuzz`: the ring driver alone, everything in it at full length."""
    os.environ.update(RING_FULL="1", TIERS="T3")
    os.environ.setdefault("TESTS", "")
    os.environ["TESTS"] = os.environ["TESTS"] or "T3/ring/"
    vmtests.TIMEOUT = 3 * 3600
    return run()
