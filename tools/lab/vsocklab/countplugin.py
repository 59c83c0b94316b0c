# SPDX-License-Identifier: GPL-2.0
"""The TCG plugin that counts instructions between markers, and a VM that has it.

`PluginVM` is an icount.CountingVM; after its run `windows(result)` gives the instructions of
each window, and `result.directory / OUTPUT` is what `profile` reads. A program opens and closes
a window with the instructions that tools/testing/bench/plugin/count.c describes.
"""

from . import cache, config, icount
from .chroot import Chroot
from .root import build_root
from .say import LabError

SOURCE = config.TESTING / "bench" / "plugin"
OUTPUT = "count.log"
INSIDE = "/count-plugin"


def build():
    """Path of the plugin, built for the QEMU of the lab's root."""
    root = build_root()

    def compile(directory):
        place = Chroot(root).bind(SOURCE, "/build/plugin", True).bind(directory, "/out")
        place.run(["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden",
                   "-o", "/out/count.so", "count.c"],
                  "count-plugin", "compiling the plugin that counts", cwd="/build/plugin")

    key = [root.parent.name, [cache.file_digest(SOURCE / name) for name in ("count.c", "qemu_plugin.h")]]
    return cache.entry("count-plugin", key, compile) / "count.so"


def arguments(profile=False):
    """What QEMU gets, where the directory of `build()` is at INSIDE and /run-lab is writable."""
    return ["-plugin", f"{INSIDE}/count.so,out=/run-lab/{OUTPUT},profile={'on' if profile else 'off'}"]


class PluginVM(icount.CountingVM):
    """A VM that counts, with the plugin. `profile` also counts each instruction's address."""

    OUTPUTS = (*icount.CountingVM.OUTPUTS, OUTPUT)

    def __init__(self, *given, profile=False, **named):
        super().__init__(*given, **named)
        self.profile = profile
        self.plugin = build()

    def prepare(self, place):
        place.bind(self.plugin.parent, INSIDE, True)

    def qemu(self):
        argv = super().qemu()
        return argv + arguments(self.profile)


def windows(result):
    """Instructions of each window of a run, in order."""
    path = result.directory / OUTPUT
    if not path.exists():
        raise LabError(f"the plugin wrote nothing; see {result.directory / 'qemu.log'}")
    found = []
    with open(path) as file:
        for line in file:
            if line.startswith("window "):
                found.append(int(line.split()[2]))
    return found
