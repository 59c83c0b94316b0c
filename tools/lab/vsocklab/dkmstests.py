# SPDX-License-Identifier: GPL-2.0
"""Tier PKG: vsock-rust-dkms, in a root with a compiler and the kernel's headers and source.

The builds run in a chroot, at the speed of this machine; a VM loads what came of them.
"""

import subprocess

from . import cache, deb, logscan, vm
from .chroot import Chroot, with_apt
from .pkgtests import SCRIPTS
from .root import build_root
from .say import die_with_parent, log_path, run, step

PACKAGES = ["bc", "bindgen", "dkms", "libelf-dev", "libssl-dev"]
ROOT_SCRIPT = """
apt-get -q update
apt-get -q -y install --no-install-recommends PACKAGES
apt-get -q -y install --no-install-recommends -t BACKPORTS /debs/linux-headers-*.deb /debs/linux-source-*.deb \
    /debs/linux-modules-*.deb
"""


def dkms_root(kernel):
    """The build root, as on the machine of somebody who has DKMS."""
    base, debs = build_root(), kernel.debs()
    script = ROOT_SCRIPT.replace("PACKAGES", " ".join(PACKAGES)).replace("BACKPORTS", "trixie-backports")

    def build(directory):
        root = directory / "root"
        with step("installing DKMS and the kernel's headers into a copy of the root"):
            run(["cp", "-a", "--reflink=auto", base, root], "dkms-root-copy", "copying the root")
            with_apt(root, script, "dkms-root", "installing packages into the root", extra=[(debs, "/debs")])

    return cache.entry("dkms", [base.parent.name, debs.name, script], build) / "root"


def test(kernel, report):
    """Runs dkms.sh on a copy of that root, and dkms-load.sh in a VM."""
    root, scratch = dkms_root(kernel), cache.scratch("dkms")
    scratch.mkdir()
    try:
        # Hard links: packages replace files and do not write into them, but for logs.
        copy, out = scratch / "root", scratch / "out"
        run(["cp", "-al", root, copy], "dkms-copy", "copying the root")
        cache.remove_tree(copy / "var/log")
        (copy / "var/log").mkdir()
        out.mkdir()
        place = Chroot(copy).bind(deb.OUT, "/debs", True).bind(kernel.debs(), "/kernel", True)
        place.bind(SCRIPTS, "/pkg", True).bind(out, "/out")
        place.env["DEBIAN_FRONTEND"] = "noninteractive"
        with open(log_path("dkms-test"), "wb") as log:
            child = subprocess.Popen(place.argv(["bash", "/pkg/dkms.sh"]), stdin=subprocess.DEVNULL, text=True,
                                     stdout=subprocess.PIPE, stderr=log, preexec_fn=die_with_parent)
            for line in child.stdout:
                report.line(line.rstrip("\n"))
        status = child.wait()
        report.add("PKG/dkms/ends", "not ok" if status else "ok", f"status {status}" if status else "")
        load(kernel, report, sorted(out.glob("*.ko")))
    finally:
        cache.remove_tree(scratch)


def load(kernel, report, modules):
    payload = vm.base_payload(kernel, modules)
    payload.add("pkg-lib.sh", SCRIPTS / "lib.sh")
    payload.add("vm/main", SCRIPTS / "dkms-load.sh")
    result = vm.HostVM(kernel, "pkg-dkms", payload).run(report.line)
    logscan.report_complaints(result.directory, report, "PKG/dkms")
    reason = result.reason or (f"status {result.status}" if result.status else "")
    report.add("PKG/dkms/loaded", "not ok" if reason else "ok", reason)
