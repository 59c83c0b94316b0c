# SPDX-License-Identifier: GPL-2.0
"""Tier T0: Cargo's tests and what can be seen without running the modules."""

from . import build, cargo, checks, nospec, usegraphtest
from .say import LabError, step


def built(report):
    """The build without warnings, and linted; then the objects."""
    for name, arguments, variant in (
            ("T0/build/no-warnings", ["W=e"], "stock-we"),
            ("T0/build/clippy", ["CLIPPY=1", "W=e"], "clippy")):
        if not report.wanted(name):
            continue
        try:
            with step(f"building with {' '.join(arguments)}"):
                text = build.Builder().make(arguments, variant, quiet=True)
            found = build.warnings(text)
            report.add(name, "not ok" if found else "ok",
                       f"{len(found)} warnings" if found else "", found[:20])
        except LabError as error:
            report.add(name, "not ok", str(error).splitlines()[0])
    if report.wanted("T0/objects/no-panic"):
        checks.panics(report)
    if report.wanted("T0/objects/nospec"):
        nospec.check(report)


def run(report):
    checks.static(report)
    usegraphtest.check(report)
    if report.wanted("T0/cargo/") or "cargo" in report.glob:
        cargo.test(report)
    built(report)
