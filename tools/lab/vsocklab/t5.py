# SPDX-License-Identifier: GPL-2.0
"""Tier T5: a hostile host against the guest driver, in one VM.

The host is tools/testing/t5: a vhost-user back end on this machine, and the guest's memory is
shared with it. QEMU runs in the lab's root as everywhere else.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from . import accel, cargo, config, kselftest, logscan, vm
from .chroot import Chroot
from .cprogram import compile_c
from .root import runtime_root
from .say import die_with_parent

INSIDE = "/run-lab"


def run(kernel, report, modules, name="t5", patience=1.0, memory="512M", append=""):
    """Runs the cases that the report wants in a guest with this kernel and these modules.

    The directory with its log, or None if no case is wanted.
    """
    sys.path.insert(0, str(config.TESTING / "t5"))
    import bench
    import cases
    from machine import GuestError, Machine

    def wanted(case):
        return report.wanted(f"T5/{case}") or case in report.glob

    directory = config.LOGS / name
    if not any(wanted(case) for case, _, _ in bench.CASES):
        return None
    seed = int(os.environ.get("SEED") or (random.randrange(1 << 32) if os.environ.get("LONG") else 1))
    rounds = int(os.environ.get("ROUNDS") or cases.ROUNDS)
    long = int(os.environ.get("LONG") or 1)
    print(f"# T5: seed {seed} (SEED=), {rounds} rounds of HH-26 (ROUNDS=), each life {long} times "
          "as long (LONG=)", flush=True)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    # The name of a socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="vsock-t5.") as scratch:
        scratch = Path(scratch)
        payload = vm.base_payload(kernel, modules, [compile_c(kselftest.PEER), cargo.binary(config.TESTING / "ring")])
        with open(scratch / "initramfs", "wb") as initramfs:
            initramfs.write(payload.members["guest/base"].read_bytes())
            initramfs.write(payload.members["guest/overlay"])
        place = Chroot(runtime_root())
        place.bind(kernel.files(), "/kernel", True).bind(scratch, INSIDE)
        errors = open(directory / "qemu.log", "ab")

        def start(arguments):
            return subprocess.Popen(place.argv(arguments), stdin=subprocess.DEVNULL, stdout=errors,
                                    stderr=errors, preexec_fn=die_with_parent)

        machine = Machine(scratch, INSIDE, accel.choose(kernel), start, directory / "qemu.log", memory,
                          f"lab.modules=ours {append}")
        try:
            machine.ready(120 * patience)
            table = bench.Bench(machine, report, seed, rounds, long, patience)
            table.listen()
            table.run(wanted)
        except (GuestError, OSError) as error:
            report.add("T5/guest", "not ok", str(error))
        finally:
            machine.kill()
            shutil.copy(machine.log, directory / "console.log")
            errors.close()
    return directory


def test(kernel, report, modules):
    """T5 of `make test`."""
    directory = run(kernel, report, modules)
    if directory is None:
        return
    by_test = {}
    for mark, line, context in logscan.scan(directory / "console.log", "guest kernel"):
        by_test.setdefault(mark or "T5/boot", []).append((line, context))
    for mark, found in by_test.items():
        report.add(f"{mark}/kernel-log", "not ok",
                   f"{len(found)} complaints, first: {found[0][0][:160]}", found[0][1])
