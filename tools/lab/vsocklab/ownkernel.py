# SPDX-License-Identifier: GPL-2.0
"""Kernels of our own: the stock kernel's source with another configuration.

A variant has a name and a fragment `configs/<name>.config`. It is built once with
clang and kept in the cache. `OwnKernel` has the same face as `kernel.Kernel`:
files(), kdir(), release, module_closure(). `build_modules()` builds this tree's
modules for it, into build/<name>.
"""

import contextlib
import hashlib
import re
from pathlib import Path

from . import cache, config
from .build import Builder, make_arguments, warnings
from .chroot import Chroot
from .kernel import Kernel
from .root import build_root
from .say import LabError, every, log_path, say, step

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
LLVM = "LLVM=-19"

CONFIG_SCRIPT = """
dpkg-deb --fsys-tarfile /debs/linux-source-*.deb |
    tar -xO --wildcards '*/linux-source-*.tar.xz' |
    xz -dc | tar -x -C /build/linux --strip-components=1
cd /build/linux
printf '%s' 'SUFFIX' > localversion
make LLVM KCONFIG_ALLCONFIG=/variant.config allnoconfig
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


def counted(name, log):
    """Tells every minute how many objects a kernel build has made."""
    def tell():
        with contextlib.suppress(OSError):
            text = log.read_text(errors="replace")
            count = len(re.findall(r"^  (?:CC|AS|RUSTC)\b", text, re.M))
            last = text.rstrip().rpartition("\n")[2].strip()
            say(f"{name} kernel: {count} objects ({last[:60]})")

    return every(60, tell)


class OwnKernel:
    """A variant; each part is made when it is first asked for."""

    NAME = None
    OF_MODULES = []         # arguments for our modules only

    def __init__(self):
        self.stock = Kernel()
        base = re.match(r"\d+\.\d+(?:\.\d+)?", self.stock.version)[0]
        self.suffix = f"-vsock-{self.NAME}"
        self.release = base + self.suffix
        self.version = self.stock.version

    def kdir(self):
        """The built tree."""
        name, path = self.NAME, CONFIGS / f"{self.NAME}.config"
        debs, root, fragment = self.stock.debs(), build_root(), path.read_text()

        def script(text):
            return text.replace("LLVM", LLVM).replace("SUFFIX", self.suffix)

        def build(directory):
            tree = directory / "linux"
            tree.mkdir()
            (directory / "variant.config").write_text(fragment)
            place = Chroot(root)
            place.bind(tree, "/build/linux").bind(debs, "/debs", True)
            place.bind(directory / "variant.config", "/variant.config", True)
            with step(f"unpacking and configuring the {name} kernel"):
                place.run(script(CONFIG_SCRIPT), f"{name}-config", f"configuring the {name} kernel")
            missing = missing_symbols(fragment, (tree / ".config").read_text())
            if missing:
                raise LabError(f"the {name} kernel cannot have what "
                               f"{path.relative_to(config.REPO)} wants: {' '.join(missing)}")
            log = log_path(f"{name}-kernel")
            with step(f"building the {name} kernel"), counted(name, log):
                place.run(script(BUILD_SCRIPT), f"{name}-kernel", f"building the {name} kernel")

        return cache.entry(f"{name}kdir", [debs.name, root.parent.name, fragment, LLVM, self.suffix,
                                           CONFIG_SCRIPT, BUILD_SCRIPT], build) / "linux"

    def files(self):
        """vmlinuz, config, Module.symvers, root/lib/modules/RELEASE/**.ko"""
        name, kdir, root = self.NAME, self.kdir(), build_root()

        def build(directory):
            with step(f"collecting the {name} kernel and its modules"):
                place = Chroot(root)
                place.bind(kdir, "/build/linux", True).bind(directory, "/out")
                place.run(FILES_SCRIPT.replace("LLVM", LLVM), f"{name}-files",
                          f"installing the {name} kernel's modules")
            if not (directory / "root/lib/modules" / self.release / "modules.dep").exists():
                raise LabError(f"the {name} kernel is not of release {self.release}")

        return cache.entry(f"{name}kernel", [kdir.parent.name, FILES_SCRIPT], build)

    module_closure = Kernel.module_closure


class OwnBuilder(Builder):
    """Builds this tree's modules against a variant."""

    def __init__(self, kernel):
        self.kernel = kernel
        self.kdir = kernel.kdir()
        key = hashlib.sha256(str(config.REPO).encode()).hexdigest()[:12]
        self.base = config.CACHE / "objects" / f"{key}-{self.kdir.parent.name}"


def build_modules(kernel, arguments=(), quiet=False):
    """Builds our modules for a variant; the directory with them."""
    builder, name = OwnBuilder(kernel), kernel.NAME
    with step(f"building the modules for {kernel.release}"):
        text = builder.make([LLVM, *kernel.OF_MODULES, *arguments], name, quiet)
    found = warnings(text)
    if found:
        say(f"the build printed {len(found)} warnings")
    return config.BUILD / name


def make(kernel, arguments=()):
    """`make debug`, `make lean`"""
    directory = build_modules(kernel, [*arguments, *make_arguments()])
    names = sorted(path.name for path in directory.glob("*.ko"))
    say(f"build/{kernel.NAME}: {' '.join(names) or 'no module'}")
    return 0
