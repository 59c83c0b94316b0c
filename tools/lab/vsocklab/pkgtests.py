# SPDX-License-Identifier: GPL-2.0
"""Tier PKG: the packages in a Debian 13 with systemd, over several boots of one disk.

The system is Debian's own, with its own initial RAM disk; of ours it has what the packages bring.
Each boot runs one of the scripts in tools/testing/pkg, in the order of their names; a script ends
its boot, and what it installed is there in the next one.
"""

import re
import shutil

from . import cache, config, deb, logscan, vm
from .chroot import Chroot, with_apt
from .root import runtime_root
from .say import run, step

SCRIPTS = config.TESTING / "pkg"
TIMEOUT = 900
PACKAGES = ["systemd-sysv", "udev", "dbus", "initramfs-tools", "openssh-client"]

ROOT_SCRIPT = """
apt-get -q update
apt-get -q -y install --no-install-recommends PACKAGES
apt-get -q -y install --no-install-recommends /debs/linux-modules-*.deb /debs/linux-binary-*.deb
for kernel in /usr/lib/modules/*; do
    release=${kernel##*/}
    cp $kernel/vmlinuz /boot/vmlinuz-$release
    update-initramfs -c -k $release
done
rm -f /usr/sbin/policy-rc.d
"""

SERVICE = """[Unit]
Description=The lab's script
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/bash /usr/local/sbin/lab
StandardOutput=journal+console
[Install]
WantedBy=graphical.target multi-user.target
"""

RUNNER = """#!/bin/bash
mkdir -p /run/lab
tar -xf /dev/vdb -C /run/lab
cd /run/lab
bash /run/lab/main >/dev/virtio-ports/lab.results 2>&1
status=$?
dmesg >/dev/virtio-ports/lab.kernel
echo "LAB-EXIT $status" >/dev/virtio-ports/lab.results
systemctl --no-block poweroff
"""

IMAGE_SCRIPT = """
cd /stage
rm -rf usr/share/doc usr/share/man usr/share/locale usr/share/info var/lib/apt/lists var/cache/apt
mkdir -p var/cache proc sys dev tmp run
rm -f etc/resolv.conf
rm -f etc/hostname
echo vsock-pkg > etc/hostname
cp /parts/lab.service etc/systemd/system/lab.service
cp /parts/lab usr/local/sbin/lab
mkdir -p etc/systemd/system/multi-user.target.wants
ln -sf /etc/systemd/system/lab.service etc/systemd/system/multi-user.target.wants/lab.service
cp boot/vmlinuz-* /out/vmlinuz
size=$(du -sm . | cut -f1)
truncate -s $((size + size / 4 + 512))M /out/root.img
mke2fs -q -F -t ext4 -m 0 -L root -d . /out/root.img
"""


def system_root(kernel):
    """A Debian 13 that boots with systemd and the kernel of the archive."""
    base, debs = runtime_root(), kernel.debs()

    def build(directory):
        root = directory / "root"
        with step("installing systemd and a kernel into a copy of the root"):
            run(["cp", "-a", "--reflink=auto", base, root], "system-root-copy", "copying the root")
            with_apt(root, ROOT_SCRIPT.replace("PACKAGES", " ".join(PACKAGES)), "system-root",
                     "installing packages into the root", extra=[(debs, "/debs")])

    return cache.entry("system", [base.parent.name, debs.name, PACKAGES, ROOT_SCRIPT], build) / "root"


def system_image(kernel):
    """Its disk, and beside it the kernel that it boots."""
    root = system_root(kernel)

    def build(directory):
        stage, parts = directory / "stage", directory / "parts"
        parts.mkdir()
        (parts / "lab.service").write_text(SERVICE)
        (parts / "lab").write_text(RUNNER)
        with step("making the disk image of a Debian with systemd"):
            run(["cp", "-al", root, stage], "system-image-copy", "copying the root")
            place = Chroot(root).bind(stage, "/stage").bind(directory, "/out").bind(parts, "/parts")
            place.run(IMAGE_SCRIPT, "system-image", "making the disk image")
            cache.remove_tree(stage)

    return cache.entry("systemimage", [root.parent.name, IMAGE_SCRIPT, SERVICE, RUNNER], build)


class SystemVM(vm.HostVM):
    """Boots a disk that keeps what is written to it."""

    OUTPUTS = ("console.log", "kernel.log")

    def __init__(self, kernel, name, payload, disk, boot):
        super().__init__(kernel, name, payload, TIMEOUT)
        self.disk, self.boot = disk, boot

    def qemu(self):
        usual = super().qemu()
        changes = {"/kernel/vmlinuz": "/boot-lab/vmlinuz", "/initramfs": "/boot-lab/initrd"}
        argv = [changes.get(word, word).replace("file=/disk.img,", "file=/system.img,").replace("snapshot=on,", "")
                for word in usual]
        at = argv.index("-append") + 1
        argv[at] = argv[at].replace("console=ttyS0", "console=ttyS0 root=/dev/vda rw systemd.show_status=no")
        return [*argv, "-chardev", "file,id=c9,path=/run-lab/kernel.log",
                "-device", "virtserialport,chardev=c9,name=lab.kernel"]

    def prepare(self, place):
        place.bind(self.disk, "/system.img").bind(self.boot, "/boot-lab", True)


def initrd_of(root, disk, target):
    """Copies the initial RAM disk that the system on the disk made for itself."""
    script = """
    name=$(debugfs -R 'ls -p /boot' /disk.img 2>/dev/null | tr / '\\n' | grep '^initrd.img-' | head -1)
    [ -n "$name" ]
    rm -f /boot-lab/initrd
    debugfs -R "dump /boot/$name /boot-lab/initrd" /disk.img 2>/dev/null
    [ -s /boot-lab/initrd ]
    """
    Chroot(root).bind(disk, "/disk.img", True).bind(target, "/boot-lab").run(
        script, "system-initrd", "reading the initial RAM disk of the system")


def test(kernel, report):
    """Runs all scripts, if one of them is wanted."""
    scripts = sorted(SCRIPTS.glob("[0-9]*.sh"))
    if not any(report.wanted(f"PKG/{script.stem}/") for script in scripts) and report.glob:
        return
    image = system_image(kernel)
    scratch = cache.scratch("pkg")
    scratch.mkdir()
    try:
        disk, boot = scratch / "root.img", scratch / "boot"
        boot.mkdir()
        run(["cp", "--reflink=auto", "--sparse=always", image / "root.img", disk], "system-disk", "copying the disk")
        shutil.copy2(image / "vmlinuz", boot / "vmlinuz")
        for script in scripts:
            initrd_of(runtime_root(), disk, boot)
            boot_once(kernel, report, script, disk, boot)
    finally:
        cache.remove_tree(scratch)


def boot_once(kernel, report, script, disk, boot):
    payload = vm.Payload()
    payload.add("main", script)
    payload.add("lib.sh", SCRIPTS / "lib.sh")
    for package in set(deb.OUT.glob("*.deb")) - set(deb.OUT.glob("*-dkms_*")):
        payload.add(f"debs/{package.name}", package)

    def on_line(line):
        if not report.line(line):
            print(f"# {line}", flush=True)

    result = SystemVM(kernel, f"pkg-{script.stem}", payload, disk, boot).run(on_line)
    print(f"# {script.stem}: {result.seconds:.0f} s, logs in {result.directory}", flush=True)
    logscan.report_complaints(result.directory, report, f"PKG/{script.stem}")
    reason = result.reason or (f"status {result.status}" if result.status else "")
    report.add(f"PKG/{script.stem}/ends", "not ok" if reason else "ok", re.sub(r"\s+", " ", reason))
