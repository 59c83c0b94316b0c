# SPDX-License-Identifier: GPL-2.0
"""KVM where it really works, otherwise TCG."""

import os
import re
import subprocess

from . import cache, image
from .chroot import Chroot
from .root import runtime_root
from .say import die_with_parent, say

TCG = ["-accel", "tcg,thread=multi", "-cpu", "EPYC-Milan"]
KVM = ["-accel", "kvm", "-cpu", "host"]


def _probe(kernel):
    """Boots the stock kernel under KVM; true when it reaches user space."""
    place = Chroot(runtime_root())
    place.bind(kernel.files(), "/kernel", True)
    place.bind(image.host_initramfs(kernel), "/initramfs", True)
    command = ["timeout", "-s", "KILL", "20", "qemu-system-x86_64", *KVM, "-smp", "2", "-m", "512M",
               "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio",
               "-kernel", "/kernel/vmlinuz", "-initrd", "/initramfs",
               "-append", "console=ttyS0 panic=-1 lab.probe"]
    result = subprocess.run(place.argv(command), stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                            preexec_fn=die_with_parent)
    return b"LAB-PROBE-OK" in result.stdout


def choose(kernel):
    """QEMU options of the outer VM. VSOCK_LAB_ACCEL=tcg|kvm overrides."""
    wanted = os.environ.get("VSOCK_LAB_ACCEL", "")
    if wanted == "kvm":
        return KVM
    text = open("/proc/cpuinfo").read()
    capable = re.search(r"^flags\s*:.*\b(vmx|svm)\b", text, re.M)
    if wanted == "tcg" or not capable or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return TCG
    model = re.search(r"^model name\s*:\s*(.*)", text, re.M)
    boot = open("/proc/sys/kernel/random/boot_id").read()

    def build(directory):
        works = _probe(kernel)
        say("KVM works here" if works else
            "the processor has KVM but a kernel does not boot with it: using TCG")
        (directory / ("kvm" if works else "tcg")).touch()

    found = cache.entry("accel", [kernel.release, model and model[1], boot], build)
    return KVM if (found / "kvm").exists() else TCG


def describe(options):
    return "KVM" if options is KVM else "TCG (no usable KVM: slow)"
