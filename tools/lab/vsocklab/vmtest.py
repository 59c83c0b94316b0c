# SPDX-License-Identifier: GPL-2.0
"""The kernel's vmtest.sh: what it needs in the host VM and in the guest."""

import argparse
import io
import re
import tarfile

from . import cache, config, image, kselftest, ktap, logscan, vm
from .chroot import Chroot, with_apt
from .cpio import Initramfs
from .kernel import Kernel
from .root import build_root, runtime_root
from .say import LabError, say, step

# Of the runtime root's suite; what they depend on besides is in that root.
HOST_PACKAGES = "openssh-client libedit2 libcbor0.10 libfido2-1".split()
GUEST_PACKAGES = "dropbear-bin libtomcrypt1 libtommath1".split()
HOST_PROGRAMS = ["usr/bin/ssh", "usr/bin/ssh-keygen"]
GUEST_PROGRAMS = ["/usr/bin/bash", "/usr/bin/dmesg", "/usr/bin/ss"]
SELFTESTS = "tools/testing/selftests"
FILES = [f"{SELFTESTS}/vsock/vmtest.sh", f"{SELFTESTS}/kselftest/ktap_helpers.sh"]

UNPACK_SCRIPT = """
apt-get -q update
mkdir /lab-out/debs
cd /lab-out/debs
apt-get -q download PACKAGES
for deb in *.deb; do dpkg-deb -x "$deb" ..; done
rm -r /lab-out/debs
"""


def packages():
    """A tree with ssh for the host VM and its server for the guest."""
    names = HOST_PACKAGES + GUEST_PACKAGES

    def build(directory):
        with step("downloading ssh for vmtest.sh"):
            with_apt(build_root(), UNPACK_SCRIPT.replace("PACKAGES", " ".join(names)),
                     "vmtest-packages", "downloading packages", extra=[(directory, "/lab-out")])

    return cache.entry("vmtestdebs", [config.SUITE, names, UNPACK_SCRIPT], build)


def host_archive():
    """tar of what is laid over the host VM's root."""
    tree, buffer = packages(), io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in [tree / name for name in HOST_PROGRAMS] + sorted(tree.glob("usr/lib/*/*.so.*")):
            archive.add(path, path.relative_to(tree))
    return buffer.getvalue()


def guest_archive():
    """cpio of what is laid over the guest's root."""
    root, tree = runtime_root(), packages()
    server = config.TESTING / "vm" / "vmtest" / "server"

    def build(directory):
        archive = Initramfs()
        for program in GUEST_PROGRAMS:
            image.add_program(archive, root, program)
        place = Chroot(root).bind(tree, "/mnt", True)
        libraries = "/mnt/usr/lib/x86_64-linux-gnu"
        text = place.output(["env", f"LD_LIBRARY_PATH={libraries}", "ldd",
                             "/mnt/usr/sbin/dropbear"])
        archive.copy("usr/sbin/dropbear", tree / "usr/sbin/dropbear")
        for library in re.findall(r"(/\S+) \(0x", text):
            name = library.removeprefix("/mnt/usr")
            source = tree / library.removeprefix("/mnt/") if name != library \
                else root / library.lstrip("/")
            archive.copy(name, source.resolve())
        archive.file("lab/guest-server", server.read_bytes(), 0o755)
        archive.write(directory / "guest")

    key = [root.parent.name, tree.name, GUEST_PROGRAMS, cache.file_digest(server)]
    return cache.entry("vmtestguest", key, build) / "guest"


def add_to(payload, kernel):
    """Puts the script, unmodified, and what it needs into the payload."""
    for name in FILES:
        payload.add(f"vmtest/tree/{name}", kernel.kdir() / name)
    payload.members["vmtest/host.tar"] = host_archive()
    payload.add("vmtest/guest", guest_archive())


MAIN = """#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
. /lab/vm/lib.sh
. /lab/vm/vmtest.sh
load_host {host} || exit 1
tests="{tests}"
vmtest vmtest/host-{host}-guest-{guest} {guest} ${{tests:-$(vmtest_all)}}
"""


def command(arguments):
    """`lab vmtest`: the script alone, with any pairing, all or some of its tests."""
    parser = argparse.ArgumentParser(prog="lab vmtest")
    parser.add_argument("--modules", choices=["ours", "c"], default="ours")
    parser.add_argument("--guest", choices=["ours", "c"], default="ours")
    parser.add_argument("--timeout", type=int, default=1800)
    parser.add_argument("tests", nargs="*", metavar="TEST")
    options = parser.parse_args(arguments)
    if not all(re.fullmatch(r"\w+", name) for name in options.tests):
        raise LabError("a test of vmtest.sh is a plain name")
    kernel, report = Kernel(), ktap.Report()
    programs = kselftest.programs(kernel)
    used = "ours" if "ours" in (options.modules, options.guest) else "c"
    payload = vm.base_payload(kernel, vm.modules(used), programs, programs)
    add_to(payload, kernel)
    payload.text("vm/main", MAIN.format(host=options.modules, guest=options.guest,
                                        tests=" ".join(options.tests)))

    def on_line(line):
        if not report.line(line):
            print(f"# {line}", flush=True)

    result = vm.HostVM(kernel, "vmtest", payload, options.timeout).run(on_line)
    say(f"{result.seconds:.0f} s; logs in {result.directory}")
    logscan.report_complaints(result.directory, report, "boot")
    if result.status is None:
        report.add("vmtest/host-vm", "not ok", result.reason)
    return report.finish()
