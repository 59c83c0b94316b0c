# SPDX-License-Identifier: GPL-2.0
"""`lab run` and `lab shell`: the host VM for developers."""

import argparse
import sys
from pathlib import Path

from . import vm
from .kernel import Kernel
from .say import LabError, say

MAIN = """#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
. /lab/vm/lib.sh
load_host {modules} || exit 1
{guest}
{what}
"""


def run(arguments):
    parser = argparse.ArgumentParser(prog="lab run")
    parser.add_argument("--script", required=True)
    parser.add_argument("--modules", choices=["ours", "c", "none"], default="ours")
    parser.add_argument("--guest", nargs="?", const="same", choices=["same", "ours", "c"])
    parser.add_argument("--timeout", type=int, default=600)
    parser.add_argument("--file", action="append", default=[],
                        help="another file for /lab/files in the VM")
    parser.add_argument("--kernel", choices=["stock", "debug"], default="stock",
                        help="of the host VM; `debug` wants `make debug`")
    parser.add_argument("--icount", action="store_true",
                        help="one CPU that counts instructions: 1 ns is one (no --guest)")
    parser.add_argument("--guest-kernel", choices=["stock", "debug"], default="stock")
    options = parser.parse_args(arguments)
    script = Path(options.script)
    if not script.is_file():
        raise LabError(f"no such script: {script}")
    guest = options.modules if options.guest == "same" else options.guest
    ours = "ours" in (options.modules, guest)
    machine, setup = vm.HostVM, ""
    if options.kernel == "debug":
        from . import debugkernel
        machine, setup = debugkernel.DebugVM, debugkernel.SETUP
        kernel, payload = debugkernel.for_run(options.modules, guest, options.guest_kernel)
    else:
        kernel = Kernel()
        payload = vm.base_payload(kernel, vm.modules("ours" if ours else "c"),
                                  *programs(kernel))
    if options.icount:
        from .icount import CountingVM as machine
    payload.add("script", script)
    for name in options.file:
        payload.add(f"files/{Path(name).name}", name)
    payload.text("vm/main", setup + MAIN.format(
        modules=options.modules, what="bash /lab/script",
        guest=f"guest_start {guest} || exit 1" if guest else ""))
    machine = machine(kernel, "run", payload, options.timeout)

    def show(line):
        print(line, flush=True)

    result = machine.run(show)
    say(f"{result.seconds:.0f} s; logs in {result.directory}")
    if result.status is None:
        say(result.reason)
        return 1
    return result.status


def programs(kernel):
    """Test programs for the guest and the host VM."""
    from . import kselftest
    found = kselftest.programs(kernel)
    return found, found


def shell(arguments):
    if not sys.stdin.isatty():
        raise LabError("lab-shell needs a terminal")
    from .build import stock
    stock()
    kernel = Kernel()
    payload = vm.base_payload(kernel, vm.modules("ours"), *programs(kernel))
    payload.text("vm/main", MAIN.format(modules="ours", guest="guest_start ours",
                                        what="interactive_shell"))
    say("the host VM and its guest start: half a minute without KVM")
    machine = vm.HostVM(kernel, "shell", payload, shell=True)
    result = machine.run()
    return 0 if result.status == 0 else 1


def prepare():
    """Everything in the cache that the other commands need."""
    from . import image
    from .build import Builder
    kernel = Kernel()
    Builder()
    programs(kernel)
    image.disk(kernel)
    image.host_initramfs(kernel)
    image.guest_base(kernel)
    return 0
