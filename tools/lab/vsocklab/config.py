# SPDX-License-Identifier: GPL-2.0
"""Paths, names and package lists: what a person may want to change."""

import os
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]
BUILD = REPO / "build"
LOGS = BUILD / "logs"
TESTING = REPO / "tools" / "testing"


def cache_dir():
    explicit = os.environ.get("VSOCK_LAB_CACHE")
    if explicit:
        return Path(explicit).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(
        os.path.expanduser("~"), ".cache")
    return Path(base).absolute() / "vsock-rust-lab"


CACHE = cache_dir()
JOBS = os.cpu_count() or 1

SUITE = "trixie"
BACKPORTS = "trixie-backports"
ARCH = "amd64"
# The kernels that packages are made for.
SERIES = "7.3"
DEFAULT_FLAVOUR = "cloud-amd64"
# Which of Debian's kernels: the flavour, and the series or the release, the newest if empty.
FLAVOUR = os.environ.get("FLAVOUR") or DEFAULT_FLAVOUR
KERNEL = os.environ.get("KERNEL") or os.environ.get("VSOCK_LAB_KERNEL", "")
# Debian 13's own compiler built Debian's kernel; no other one gives the same
# symbol names.
RUSTC_VERSION = "1.85.1"

# What the machine itself needs: (program, package).
HOST_TOOLS = [
    ("debootstrap", "debootstrap"),
    ("unshare", "util-linux"),
    ("chroot", "coreutils"),
    ("mke2fs", "e2fsprogs"),
    ("xz", "xz-utils"),
    ("tar", "tar"),
    ("git", "git"),
]
HOST_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# What runs in the host VM; the same root gives the outer QEMU.
RUNTIME_PACKAGES = """
busybox-static ca-certificates cpio e2fsprogs ipxe-qemu iperf3 iproute2 kmod
ncat procps psmisc python3-minimal qemu-system-x86 seabios socat strace
util-linux xz-utils
""".split()

# What is installed on top of it for building.
BUILD_PACKAGES = """
bc bindgen bison bsdextrautils cargo clang-19 dwarves flex gcc gcc-14 git libc6-dev
libclang-19-dev libelf-dev libssl-dev liburing-dev lld-19 llvm-19 make pahole
pkgconf python3 rsync rust-clippy rust-src rustc rustfmt zstd
""".split()

# Modules of ours in load order, by the side that needs them. Whichever of
# them exists in build/stock is loaded.
MODULES = {
    "loopback": ["vmw_vsock_virtio_transport_common", "vsock_loopback"],
    "host": ["vmw_vsock_virtio_transport_common", "vsock_loopback",
             "vhost_core", "vhost_vsock"],
    "guest": ["vmw_vsock_virtio_transport_common",
              "vmw_vsock_virtio_transport", "vsock_loopback"],
}
ALL_MODULES = ["vmw_vsock_virtio_transport_common", "vmw_vsock_virtio_transport",
               "vsock_loopback", "vhost_core", "vhost_vsock"]

# Modules of the kernel (with everything they depend on; those built in do not
# matter): the host VM's initramfs, every guest, and the guest with the C driver.
HOST_INITRAMFS_MODULES = ["virtio_pci", "virtio_blk", "ext4"]
GUEST_BASE_MODULES = ["virtio_pci", "virtio_net", "virtio_rng", "vsock", "vsock_diag"]
GUEST_C_MODULES = ["vmw_vsock_virtio_transport", "vsock_loopback"]
GUEST_PROGRAMS = ["/usr/bin/socat"]

DEFAULT_TIERS = ["T0", "T2", "T3", "T4", "T5", "T6"]
