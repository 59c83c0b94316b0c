# SPDX-License-Identifier: GPL-2.0
"""Crates that run on a machine: their tests, and programs for the host VM."""

import os
import re
import subprocess
import tomllib

from . import build, cache, config, mirror
from .chroot import Chroot
from .root import build_root
from .say import LabError, die_with_parent, log_path, step

TRIPLE = "x86_64-unknown-linux-gnu"
# Directories with a Cargo.toml whose tests belong to T0.
WORKSPACES = ["rust", "tools/testing/ring", "tools/testing/bench", "tools/testing/models", "tools/vsockctl"]


def place():
    """The build root with the tree and Cargo's own places in the cache."""
    root = Chroot(build_root())
    # Cargo goes by the times of files: what another tree built from its own, older ones at the same
    # place of the root would be taken for ours.
    home = config.CACHE / "cargo-home"
    target = config.CACHE / "cargo-target" / cache.digest(str(config.REPO))
    home.mkdir(parents=True, exist_ok=True)
    target.mkdir(parents=True, exist_ok=True)
    for name, content in mirror.cargo_config().items():
        (home / name).write_text(content)
    root.bind(config.REPO, build.TREE)
    root.bind(home, "/cargo/home").bind(target, "/cargo/target")
    root.env.update(CARGO_HOME="/cargo/home", CARGO_TARGET_DIR="/cargo/target",
                    CARGO_TERM_COLOR="never")
    return root


def workspace(directory):
    """The directory of the workspace that a package is a member of, or its own."""
    for above in directory.parents:
        if above == config.REPO:
            break
        if (above / "Cargo.toml").exists():
            return above
    return directory


def sources(directory, found=None):
    """All files that a package is built from: its own, those of what it depends on by path, and what
    its workspace says."""
    found = set() if found is None else found
    manifest = directory / "Cargo.toml"
    if manifest in found:
        return found
    found |= {path for path in directory.rglob("*") if path.is_file() and "target" not in path.parts}
    found |= {path for name in ("Cargo.toml", "Cargo.lock")
              if (path := workspace(directory) / name).exists()}
    for what in tomllib.loads(manifest.read_text()).get("dependencies", {}).values():
        if isinstance(what, dict) and "path" in what:
            sources((directory / what["path"]).resolve(), found)
    return found


def binary(directory, static=True, extra=None):
    """The program of a package: static, for a VM without anything, or for Debian.

    `extra` is the variable that tells its build script where else to put files: in `extra/` beside it."""
    root = build_root()
    name, target = directory.name, f"/cargo/target/{workspace(directory).name}"

    def compile(output):
        inside = place().bind(output, "/out")
        inside.env.update(CARGO_TARGET_DIR=target)
        if static:
            inside.env["RUSTFLAGS"] = "-C target-feature=+crt-static"
        if extra:
            inside.env[extra] = "/out/extra"
        relative = directory.relative_to(config.REPO)
        # With a target named, the flags are not those of macros, which the compiler loads itself.
        inside.run(["sh", "-ec", f"cargo build --release --locked --target {TRIPLE} -j {config.JOBS} && "
                    f"cp {target}/{TRIPLE}/release/{name} /out/"],
                   f"cargo-{name}", f"compiling {relative}", cwd=f"{build.TREE}/{relative}")

    key = [root.parent.name, str(directory), static, extra,
           [(str(path), cache.file_digest(path)) for path in sorted(sources(directory))]]
    return cache.entry(f"cargo-{name}", key, compile) / name


def test(report):
    """`cargo test` of all workspaces: one line per test."""
    for workspace in WORKSPACES:
        test_one(report, workspace)


def test_one(report, workspace):
    arguments = ["cargo", "test", "--workspace", "--locked", "--no-fail-fast",
                 "-j", str(config.JOBS)]
    log = log_path(f"cargo-test-{workspace.replace('/', '-')}")
    unit, failures, seen = "unknown", {}, 0
    inside = place()
    # Random input is the same in each run, unless somebody wants to look further.
    inside.env["PROPTEST_RNG_SEED"] = os.environ.get("PROPTEST_RNG_SEED", "1")
    with open(log, "w") as out, step(f"cargo test in {workspace}"):
        child = subprocess.Popen(
            inside.argv(arguments, cwd=f"{build.TREE}/{workspace}"), stdin=subprocess.DEVNULL,
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
        report.add(f"T0/cargo/build/{workspace}", "not ok", f"cargo test failed (status {status}); see {log}",
                   text[-25:])
    elif not seen:
        report.add(f"T0/cargo/build/{workspace}", "not ok", "cargo ran no test")
