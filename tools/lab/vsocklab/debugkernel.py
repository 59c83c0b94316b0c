# SPDX-License-Identifier: GPL-2.0
"""The debug kernel: the stock kernel's source with KASAN, lockdep and the like.

It is built once with clang and kept in the cache. `DebugKernel` has the same
face as `kernel.Kernel`: files(), kdir(), release, module_closure().
"""

import contextlib
import hashlib
import os
import re
import threading
from pathlib import Path

from . import cache, config, vm
from .build import Builder, make_arguments, warnings
from .chroot import Chroot
from .kernel import Kernel
from .root import build_root
from .say import LabError, log_path, say, step

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "debug.config"
LLVM = "LLVM=-19"
# For our modules only: what no other build of them has, to be tested somewhere.
OF_MODULES = [LLVM, "KRUSTFLAGS=--cfg=CONFIG_VHOST_CROSS_ENDIAN_LEGACY"]
SUFFIX = "-vsock-debug"

CONFIG_SCRIPT = """
dpkg-deb --fsys-tarfile /debs/linux-source-*.deb |
    tar -xO --wildcards '*/linux-source-*.tar.xz' |
    xz -dc | tar -x -C /build/linux --strip-components=1
cd /build/linux
printf '%s' 'SUFFIX' > localversion
make LLVM KCONFIG_ALLCONFIG=/debug.config allnoconfig
make LLVM olddefconfig
"""

BUILD_SCRIPT = """
cd /build/linux
export KBUILD_BUILD_TIMESTAMP=@0 KBUILD_BUILD_USER=lab KBUILD_BUILD_HOST=lab
nice -n 10 make LLVM -j2 bzImage modules
[ -e rust/libkernel.rmeta ]
# What a build of external modules never reads.
find vmlinux.o vmlinux.a arch block certs crypto drivers fs init io_uring ipc kernel lib \
    mm net security sound virt -name '*.[oa]' ! -path 'arch/x86/tools/*' -delete 2>/dev/null || true
for d in sound drivers/gpu drivers/media drivers/net drivers/scsi drivers/staging \
    drivers/infiniband drivers/usb arch/[!x]* tools/testing/selftests Documentation; do
    find $d -type f ! -name 'Kconfig*' ! -name 'Makefile*' ! -name '*.ko' -delete
done
"""

FILES_SCRIPT = """
cd /build/linux
cp arch/x86/boot/bzImage /out/vmlinuz
cp .config /out/config
cp Module.symvers System.map /out/
make LLVM INSTALL_MOD_PATH=/out/root modules_install
rm -f /out/root/lib/modules/*/build /out/root/lib/modules/*/source
"""


# For scripts that start a guest: what is slow here (each letter on its console, of
# which only warnings are looked for), and no interrupt controller for it in the kernel
# (that needs CONFIG_KVM_IOAPIC) but the APIC.
SETUP = """export GUEST_READY_SECONDS=400 GUEST_LOGLEVEL=5
GUEST_EXTRA="-machine kernel-irqchip=split"
"""


def missing_symbols(fragment, result):
    """Lines of the fragment that the finished configuration does not have."""
    have = {}
    for line in result.splitlines():
        match = re.match(r"(CONFIG_\w+)=(.*)|# (CONFIG_\w+) is not set", line)
        if match:
            have[match[1] or match[3]] = match[2] or "n"
    missing = []
    for line in fragment.splitlines():
        match = re.match(r"(CONFIG_\w+)=(.*)|# (CONFIG_\w+) is not set", line)
        if match and have.get(match[1] or match[3], "n") != (match[2] or "n"):
            missing.append(match[1] or match[3])
    return missing


@contextlib.contextmanager
def counted(log):
    """Tells every minute how many objects a kernel build has made."""
    done = threading.Event()

    def tick():
        while not done.wait(60):
            with contextlib.suppress(OSError):
                text = log.read_text(errors="replace")
                count = len(re.findall(r"^  (?:CC|AS|RUSTC)\b", text, re.M))
                last = text.rstrip().rpartition("\n")[2].strip()
                say(f"debug kernel: {count} objects ({last[:60]})")

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class DebugKernel:
    """The debug kernel; each part is made when it is first asked for."""

    def __init__(self):
        self.stock = Kernel()
        base = re.match(r"\d+\.\d+(?:\.\d+)?", self.stock.version)[0]
        self.release = base + SUFFIX
        self.version = self.stock.version

    def kdir(self):
        """The built tree."""
        debs, root, fragment = self.stock.debs(), build_root(), CONFIG.read_text()

        def script(text):
            return text.replace("LLVM", LLVM).replace("SUFFIX", SUFFIX)

        def build(directory):
            tree = directory / "linux"
            tree.mkdir()
            (directory / "debug.config").write_text(fragment)
            place = Chroot(root)
            place.bind(tree, "/build/linux").bind(debs, "/debs", True)
            place.bind(directory / "debug.config", "/debug.config", True)
            with step("unpacking and configuring the debug kernel"):
                place.run(script(CONFIG_SCRIPT), "debug-config", "configuring the debug kernel")
            missing = missing_symbols(fragment, (tree / ".config").read_text())
            if missing:
                raise LabError("the debug kernel cannot have what "
                               f"{CONFIG.relative_to(config.REPO)} wants: {' '.join(missing)}")
            with step("building the debug kernel"), counted(log_path("debug-kernel")):
                place.run(script(BUILD_SCRIPT), "debug-kernel", "building the debug kernel")

        return cache.entry("debugkdir", [debs.name, root.parent.name, fragment, LLVM, SUFFIX,
                                         CONFIG_SCRIPT, BUILD_SCRIPT], build) / "linux"

    def files(self):
        """vmlinuz, config, Module.symvers, root/lib/modules/RELEASE/**.ko"""
        kdir, root = self.kdir(), build_root()

        def build(directory):
            with step("collecting the debug kernel and its modules"):
                place = Chroot(root)
                place.bind(kdir, "/build/linux", True).bind(directory, "/out")
                place.run(FILES_SCRIPT.replace("LLVM", LLVM), "debug-files",
                          "installing the debug kernel's modules")
            if not (directory / "root/lib/modules" / self.release / "modules.dep").exists():
                raise LabError(f"the debug kernel is not of release {self.release}")

        return cache.entry("debugkernel", [kdir.parent.name, FILES_SCRIPT], build)

    module_closure = Kernel.module_closure


class DebugBuilder(Builder):
    """Builds this tree's modules against the debug kernel."""

    def __init__(self):
        self.kernel = DebugKernel()
        self.kdir = self.kernel.kdir()
        key = hashlib.sha256(str(config.REPO).encode()).hexdigest()[:12]
        self.base = config.CACHE / "objects" / f"{key}-{self.kdir.parent.name}"


def debug(arguments=()):
    """`make debug`; KCOV=1 also instruments the modules for coverage."""
    arguments = [*OF_MODULES, *arguments, *make_arguments()]
    if os.environ.get("KCOV"):
        arguments.append("KCOV_INSTRUMENT=y")
    builder = DebugBuilder()
    with step(f"building the modules for {builder.kernel.release}"):
        text = builder.make(arguments, "debug")
    found = warnings(text)
    if found:
        say(f"the build printed {len(found)} warnings")
    names = sorted(path.name for path in (config.BUILD / "debug").glob("*.ko"))
    say(f"build/debug: {' '.join(names) or 'no module'}")
    return 0


def modules():
    """Our modules of build/debug, in load order."""
    order = {name: n for n, name in enumerate(config.ALL_MODULES)}
    found = [m for m in (config.BUILD / "debug").glob("*.ko") if m.stem in order]
    if not found:
        raise LabError("build/debug has no module: run `make debug` first")
    return sorted(found, key=lambda m: order[m.stem])


def payload(guest_kernel, host_modules, guest_modules, programs):
    """What a run has: the guest's kernel and modules may be of another build."""
    made = vm.base_payload(guest_kernel, guest_modules, programs, programs)
    for name in [name for name in made.members if name.startswith("modules/ours/")]:
        del made.members[name]
    for module in host_modules:
        made.add(f"modules/ours/{module.name}", module)
    return made


def for_run(host, guest, guest_kernel):
    """Kernel and payload of `lab run --kernel debug`."""
    from . import kselftest
    kernel = DebugKernel()
    inner = kernel if guest_kernel == "debug" else kernel.stock
    there = []
    if guest == "ours":
        there = modules() if guest_kernel == "debug" else vm.modules("ours")
    return kernel, payload(inner, modules() if host != "c" else [], there,
                           kselftest.programs(kernel.stock))


class DebugVM(vm.HostVM):
    """The host VM with the debug kernel."""

    APPEND = "loglevel=7 kasan_multi_shot kunit.enable=1"

    def qemu(self):
        argv = super().qemu()
        at = argv.index("-append") + 1
        argv[at] += " " + self.APPEND
        return argv
