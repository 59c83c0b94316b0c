# SPDX-License-Identifier: GPL-2.0
"""C programs of the tests, built statically in the build root."""

from . import cache, config
from .chroot import Chroot
from .root import build_root


def compile_c(source):
    """Path of the built program."""
    root = build_root()
    siblings = sorted(source.parent.glob("*.[ch]"))
    flags = ["-pthread"]
    if source.stem.endswith("32"):
        # A 32-bit program, for which there is no C library.
        flags = ["-m32", "-ffreestanding", "-nostdlib", "-fno-stack-protector", "-fno-pie", "-no-pie",
                 "-fno-tree-loop-distribute-patterns"]

    def build(directory):
        place = Chroot(root).bind(config.REPO, "/build/vsock", True).bind(directory, "/out")
        relative = source.relative_to(config.REPO)
        place.run(["gcc", "-O2", "-g", "-Wall", "-Werror", "-static", *flags,
                   "-I/build/vsock/include", "-o", f"/out/{source.stem}", str(relative)],
                  f"t3-{source.stem}", f"compiling {relative}", cwd="/build/vsock")

    key = [root.parent.name, str(source), flags, [cache.file_digest(path) for path in siblings]]
    return cache.entry(f"t3-{source.stem}", key, build) / source.stem
