# SPDX-License-Identifier: GPL-2.0
"""Kernel modules in C that only tests load."""

from . import cache, config
from .build import KDIR
from .chroot import Chroot
from .root import build_root

SCRIPT = """
cp -r /source /tmp/module
make -C KDIR M=/tmp/module modules
cp /tmp/module/*.ko /out/
"""


def module(kernel, name):
    """The module of the directory tools/testing/<name>, for this kernel."""
    kdir, root, source = kernel.kdir(), build_root(), config.TESTING / name
    script = SCRIPT.replace("KDIR", KDIR)

    def build(directory):
        place = Chroot(root).bind(kdir, KDIR, True)
        place.bind(source, "/source", True).bind(directory, "/out")
        place.run(script, f"module-{name}", f"building tools/testing/{name}")

    files = [(path.name, cache.file_digest(path)) for path in sorted(source.iterdir()) if path.is_file()]
    return next(cache.entry("module", [kdir.parent.name, root.parent.name, script, files], build)
                .glob("*.ko"))
