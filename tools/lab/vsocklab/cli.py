# SPDX-License-Identifier: GPL-2.0
"""The commands of tools/lab/lab."""

import os
import signal
import sys

from . import cache, config, host
from .say import LabError, say

HELP = """\
tools/lab/lab COMMAND: what the top-level Makefile calls.

  stock                   build the modules for Debian's kernel: build/stock/*.ko
  deb                     Debian packages of modules and tools: build/deb/*.deb
  install                 those for the kernel that runs here, installed
  test                    all tests; TIERS="T0 T2" TESTS=glob select
  debug | test-debug      the same for the debug kernel: build/debug/*.ko, T1 to T4
  fuzz                    the ring driver at its full length; RING_SEED=N repeats a run
  bench-scale             what 10,000 connections cost, ours and C, in instructions
  bench                   ours and C side by side, in instructions: ROWS="glob..." RIGS= KERNELS=
                          BOOTS=3 select; PROFILE=row tells where they go; UPDATE=1 commits the table
  bench-check             the same against the committed table; fails where a row got worse
  vmtest [--modules ours|c] [--guest ours|c] [TEST...]
                          the kernel's vmtest.sh in the host VM
  demo                    files through vsock between a host VM and its guest
  shell                   a shell in the host VM, modules loaded, guest running
  run --script FILE [--modules ours|c] [--guest [ours|c]] [--timeout S]
      [--kernel stock|debug] [--guest-kernel stock|debug] [--icount]
                          run a shell script in the host VM
  chroot [COMMAND...]     run in the build root, here; kernel tree at /build/linux
  kdir | release          print the path of the kernel tree | the kernel's release
  kernel-files            print the directory with vmlinuz and modules
  fmt | fmt-check | clippy | rust-analyzer
  use-graph [PART]        which file uses which, level by level, of each crate whose path has PART
  prepare                 make everything in the cache that the others need
  clean | distclean       remove build/ and its objects | the whole cache too
"""


def command_chroot(arguments):
    from .build import KDIR
    from .chroot import Chroot
    from .kernel import Kernel
    from .root import build_root
    here = os.getcwd()
    place = Chroot(build_root())
    place.bind(Kernel().kdir(), KDIR, True)
    if here != "/":
        place.bind(here)
    return place.call(arguments or ["bash"], cwd=here)


def command_clean(arguments):
    from .build import clean
    return clean()


def command_distclean(arguments):
    command_clean(arguments)
    cache.distclean()
    return 0


def command_stock(arguments):
    from .build import stock
    return stock(arguments)


def command_deb(arguments):
    from .deb import deb
    deb()
    return 0


def command_install(arguments):
    from .deb import install
    return install()


def command_clippy(arguments):
    from .build import stock
    return stock(["CLIPPY=1", *arguments])


def command_fmt(arguments):
    from .build import fmt
    return fmt(check=False)


def command_fmt_check(arguments):
    from .build import fmt
    return fmt(check=True)


def command_kdir(arguments):
    from .kernel import Kernel
    print(Kernel().kdir())
    return 0


def command_release(arguments):
    from .kernel import Kernel
    print(Kernel().release)
    return 0


def command_kernel_files(arguments):
    from .kernel import Kernel
    print(Kernel().files())
    return 0


def command_run(arguments):
    from .run import run
    return run(arguments)


def command_shell(arguments):
    from .run import shell
    return shell(arguments)


def command_test(arguments):
    from .tests import run
    return run()


def command_vmtest(arguments):
    from .vmtest import command
    return command(arguments)


def command_debug(arguments):
    from .debugkernel import debug
    return debug(arguments)


def command_lean(arguments):
    from .leankernel import LeanKernel
    from .ownkernel import make
    return make(LeanKernel(), arguments)


def command_test_debug(arguments):
    from .debugtests import run
    return run()


def command_fuzz(arguments):
    from .tests import fuzz
    return fuzz()


def command_bench_scale(arguments):
    from .scale import bench
    return bench()


def command_bench(arguments):
    from .bench import bench
    return bench()


def command_bench_check(arguments):
    from .bench import check
    return check()


def command_demo(arguments):
    from .demo import demo
    return demo()


def command_prepare(arguments):
    from .run import prepare
    return prepare()


def command_rust_analyzer(arguments):
    from .build import rust_analyzer
    return rust_analyzer()


def command_use_graph(arguments):
    from . import build, checks, usegraph
    part = arguments[0] if arguments else ""
    for crate in usegraph.crates(build.tree_files(), checks.read):
        if part in crate.root and len(crate.files) > 1:
            print(usegraph.draw(crate), end="\n\n")
    return 0


def command_help(arguments):
    print(HELP, end="")
    return 0


def main(argv):
    name = argv[0] if argv else "help"
    handler = globals().get("command_" + name.replace("-", "_"))
    if name in ("-h", "--help"):
        handler = command_help
    if handler is None:
        say(f"no such command: {name}; `tools/lab/lab help` lists them")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if handler not in (command_help, command_clean, command_distclean):
            host.require_tools()
        return handler(argv[1:])
    except LabError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 130
