# SPDX-License-Identifier: GPL-2.0
"""The host VM's disk and initramfs, and the guest's initramfs."""

import re
from pathlib import Path

from . import cache, config, params
from .chroot import Chroot
from .cpio import Initramfs
from .root import runtime_root
from .say import run, step

# Not needed in a VM; makes the image smaller.
IMAGE_SCRIPT = """
cd /stage
rm -rf usr/share/doc usr/share/man usr/share/locale usr/share/i18n usr/share/info \
    var/lib/apt var/cache usr/share/seabios/*.debug usr/lib/ipxe usr/share/bash-completion
mkdir -p var/cache proc sys dev tmp run lab
rm -f etc/resolv.conf
echo vsock-host > etc/hostname
echo '127.0.0.1 localhost vsock-host' > etc/hosts
size=$(du -sm . | cut -f1)
rm -f /out/root.img
truncate -s $((size + size / 4 + 256))M /out/root.img
mke2fs -q -F -t ext4 -O ^has_journal -m 0 -L lab -d . /out/root.img
"""

HOST_INIT = """#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0
export PATH=/bin
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for module in $(/bin/busybox cat /modules/order); do
    /bin/busybox insmod /modules/$module
done
if /bin/busybox grep -q lab.probe /proc/cmdline; then
    echo LAB-PROBE-OK >/dev/console
    /bin/busybox poweroff -f
fi
/bin/busybox mount -t ext4 -o noatime /dev/vda /root || exec /bin/busybox sh
/bin/busybox mount -t tmpfs -o mode=755,size=2g lab /root/lab
/bin/busybox tar -xf /dev/vdb -C /root/lab
/bin/busybox umount /dev
/bin/busybox umount /proc
exec /bin/busybox switch_root /root /bin/sh /lab/vm/init
"""


def disk(kernel):
    """The host VM's root file system, with the kernel's modules."""
    root, files = runtime_root(), kernel.files()

    def build(directory):
        stage = directory / "stage"
        with step("making the disk image of the host VM"):
            run(["cp", "-al", root, stage], "image-copy", "copying the root")
            run(["cp", "-al", files / "root" / "lib" / "modules", stage / "usr/lib/modules"],
                "image-modules", "copying the modules")
            place = Chroot(root).bind(stage, "/stage").bind(directory, "/out")
            place.run(IMAGE_SCRIPT, "image", "making the disk image")
            cache.remove_tree(stage)

    return cache.entry("image", [root.parent.name, files.name, IMAGE_SCRIPT], build) / "root.img"


def _busybox(archive, root):
    archive.copy("bin/busybox", root / "usr/bin/busybox")
    archive.link("bin/sh", "busybox")
    for path in ("proc", "sys", "dev", "root", "tmp", "run"):
        archive.directory(path)


def _modules(archive, directory, paths):
    order = []
    for path in paths:
        archive.copy(f"{directory}/{path.name}", path)
        order.append(path.name)
    archive.file(f"{directory}/order", "\n".join(order) + "\n")


def host_initramfs(kernel):
    root, files = runtime_root(), kernel.files()

    def build(directory):
        archive = Initramfs()
        _busybox(archive, root)
        _modules(archive, "modules", kernel.module_closure(config.HOST_INITRAMFS_MODULES))
        archive.file("init", HOST_INIT, 0o755)
        archive.write(directory / "initramfs")

    return cache.entry("hostinit", [root.parent.name, files.name, HOST_INIT,
                                    config.HOST_INITRAMFS_MODULES], build) / "initramfs"


def add_program(archive, root, path):
    """A dynamic program of the root with its libraries."""
    text = Chroot(root).output(["ldd", path])
    archive.copy(path, root / path.lstrip("/"))
    for library in re.findall(r"(/\S+) \(0x", text):
        archive.copy(library, (root / library.lstrip("/")).resolve())


def guest_base(kernel):
    """Initramfs of the guest without what is under test."""
    root, files = runtime_root(), kernel.files()
    base_modules = kernel.module_closure(config.GUEST_BASE_MODULES)
    c_modules = [path for path in kernel.module_closure(config.GUEST_C_MODULES)
                 if path not in base_modules]

    def build(directory):
        archive = Initramfs()
        _busybox(archive, root)
        for program in config.GUEST_PROGRAMS:
            add_program(archive, root, program)
        _modules(archive, "modules/base", base_modules)
        _modules(archive, "modules/c", c_modules)
        archive.write(directory / "initramfs")

    return cache.entry("guestbase", [root.parent.name, files.name, config.GUEST_PROGRAMS,
                                     [p.name for p in base_modules + c_modules]],
                       build) / "initramfs"


def guest_overlay(target, scripts, modules, programs):
    """Second archive, laid over the base: scripts, our modules, test programs."""
    archive = Initramfs()
    for path in scripts:
        archive.copy(f"lab/{Path(path).name}", path)
    archive.link("init", "lab/guest-init")
    archive.file("lab/params", params.text())
    _modules(archive, "modules/ours", modules)
    for path in programs:
        archive.copy(f"lab/bin/{Path(path).name}", path)
    archive.write(target)
