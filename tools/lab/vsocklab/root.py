# SPDX-License-Identifier: GPL-2.0
"""The two Debian 13 roots: one that runs in the VMs, one that builds."""


from . import cache, config, mirror
from .chroot import with_apt
from .say import run, step, which

RUNTIME_SCRIPT = """
printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
apt-get -q update
apt-get -q -y install --no-install-recommends PACKAGES
mkdir -p /lab /build /mnt
"""

BUILD_SCRIPT = """
apt-get -q update
apt-get -q -y install --no-install-recommends PACKAGES
rustc --version | grep -F 'rustc VERSION ' || {
    echo "this archive's rustc is not VERSION"; exit 1; }
"""


def runtime_root():
    """Root of the host VM, and home of the outer QEMU."""

    def build(directory):
        uri = mirror.debian_mirror()
        debs = config.CACHE / "apt" / "debs"
        debs.mkdir(parents=True, exist_ok=True)
        root = directory / "root"
        with step(f"installing a Debian {config.SUITE} root with debootstrap"):
            run([which("unshare"), "--mount", "--pid", "--fork", "--kill-child",
                 "--propagation", "private", which("debootstrap"), "--variant=minbase",
                 f"--keyring={config.HOST_KEYRING}", f"--cache-dir={debs}",
                 f"--arch={config.ARCH}", config.SUITE, root, uri],
                "debootstrap", "debootstrap")
        with step("installing QEMU and what the VMs need into it"):
            with_apt(root, RUNTIME_SCRIPT.replace("PACKAGES", " ".join(config.RUNTIME_PACKAGES)),
                     "runtime-root", "installing packages into the root")

    return cache.entry("runtime", [config.SUITE, config.RUNTIME_PACKAGES, RUNTIME_SCRIPT],
                       build) / "root"


def build_root():
    """The runtime root plus compilers."""
    base = runtime_root()

    def build(directory):
        root = directory / "root"
        with step("installing compilers into a copy of the root"):
            run(["cp", "-a", "--reflink=auto", base, root], "build-root-copy",
                "copying the root")
            script = BUILD_SCRIPT.replace("VERSION", config.RUSTC_VERSION)
            with_apt(root, script.replace("PACKAGES", " ".join(config.BUILD_PACKAGES)),
                     "build-root", "installing compilers into the root")

    return cache.entry("buildroot", [base.parent.name, config.BUILD_PACKAGES, BUILD_SCRIPT,
                                     config.RUSTC_VERSION], build) / "root"
