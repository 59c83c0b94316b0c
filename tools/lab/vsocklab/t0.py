# SPDX-License-Identifier: GPL-2.0
"""Tier T0: Cargo's tests and what can be seen without running the modules."""

import re
import subprocess

from . import build, checks, config, mirror, nospec
from .chroot import Chroot
from .root import build_root
from .say import LabError, die_with_parent, log_path, step


def cargo_place():
    """The build root with the tree and Cargo's own places in the cache."""
    place = Chroot(build_root())
    home, target = config.CACHE / "cargo-home", config.CACHE / "cargo-target"
    home.mkdir(parents=True, exist_ok=True)
    target.mkdir(parents=True, exist_ok=True)
    for name, content in mirror.cargo_config().items():
        (home / name).write_text(content)
    place.bind(config.REPO, build.TREE)
    place.bind(home, "/cargo/home").bind(target, "/cargo/target")
    place.env.update(CARGO_HOME="/cargo/home", CARGO_TARGET_DIR="/cargo/target",
                     CARGO_TERM_COLOR="never")
    return place


def cargo(report):
    """`cargo test` of rust/: one line per test."""
    if not (config.REPO / "rust" / "Cargo.toml").exists():
        report.add("T0/cargo", "not ok", "there is no rust/Cargo.toml")
        return
    arguments = ["cargo", "test", "--workspace", "--locked", "--no-fail-fast",
                 "-j", str(config.JOBS)]
    log = log_path("cargo-test")
    unit, failures, seen = "unknown", {}, 0
    with open(log, "w") as out, step("cargo test"):
        child = subprocess.Popen(
            cargo_place().argv(arguments, cwd=f"{build.TREE}/rust"), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            preexec_fn=die_with_parent)
        for line in child.stdout:
            out.write(line)
            running = re.match(r"\s+(?:Running (?:unittests )?(\S+) \(\S*/([\w-]+?)(?:-[0-9a-f]{16})?\)|"
                               r"Doc-tests (\S+))", line)
            if running:
                unit = f"{running[3]}/doc" if running[3] else running[2]
                continue
            test = re.match(r"test (.+?)(?: - should panic)? \.\.\. (ok|FAILED|ignored)(?:, (.*))?", line)
            if test:
                seen += 1
                name = f"T0/cargo/{unit}/{re.sub(r'[^A-Za-z0-9_:./-]+', '_', test[1])}"
                if test[2] == "FAILED":
                    failures[name] = True
                verdict = {"ok": "ok", "FAILED": "not ok", "ignored": "skip"}[test[2]]
                report.add(name, verdict, (test[3] or "marked as ignored") if verdict == "skip" else
                           f"see {log}" if verdict == "not ok" else "")
        status = child.wait()
    if status != 0 and not failures:
        text = log.read_text(errors="replace").splitlines()
        report.add("T0/cargo/build", "not ok", f"cargo test failed (status {status}); see {log}",
                   text[-25:])
    elif not seen:
        report.add("T0/cargo/build", "not ok", "cargo ran no test")


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
    if report.wanted("T0/cargo/") or "cargo" in report.glob:
        cargo(report)
    built(report)
