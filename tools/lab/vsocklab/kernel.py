# SPDX-License-Identifier: GPL-2.0
"""Debian's stock kernel: which one, its packages, and a tree to build against."""

import json
import os
import re
import time
from pathlib import Path

from . import cache, config
from .chroot import Chroot, with_apt
from .root import build_root
from .say import LabError, say, step

RESOLUTION_AGE = 24 * 3600

QUERY_SCRIPT = """
apt-get -q update
names=$(apt-cache search --names-only \
    '^linux-(source|headers|binary|binary-unsigned|modules|image|image-unsigned)-7[.]' |
    cut -d' ' -f1 | grep -E '^linux-source|-FLAVOUR$')
[ -n "$names" ] || exit 0
apt-cache show $names | grep -E '^(Package|Version|SHA256):' > /lab-out/packages
"""

UNPACK_SCRIPT = """
cd /out
for deb in /debs/*.deb; do
    case $deb in *linux-source-*) continue ;; esac
    dpkg-deb -x $deb x
done
moddir=$(echo x/usr/lib/modules/RELEASE x/lib/modules/RELEASE | tr ' ' '\\n' |
    while read d; do [ -d $d/kernel ] && echo $d; done | head -1)
image=$(ls -d x/usr/lib/modules/RELEASE/vmlinuz* x/boot/vmlinuz-* 2>/dev/null | head -1)
headers=x/usr/src/linux-headers-RELEASE
[ -n "$moddir" ] && [ -n "$image" ] && [ -e $headers/Module.symvers ]
cp $image vmlinuz
cp $headers/Module.symvers Module.symvers
cp $headers/.config config
mkdir -p root/lib/modules
mv $moddir root/lib/modules/RELEASE
rm -f root/lib/modules/RELEASE/build root/lib/modules/RELEASE/source \
    root/lib/modules/RELEASE/vmlinuz* root/lib/modules/RELEASE/System.map*
find root -name '*.ko.xz' -print0 | xargs -0 -r -n 50 -P JOBS xz -d
find root -name '*.ko.zst' -print0 | xargs -0 -r -n 50 -P JOBS zstd -q -d --rm
mkdir -p /tmp/d/usr/lib
ln -s usr/lib /tmp/d/lib
mv root/lib/modules /tmp/d/usr/lib/modules
depmod -b /tmp/d RELEASE
mv /tmp/d/usr/lib/modules root/lib/modules
rm -rf x
"""

KDIR_SCRIPT = """
dpkg-deb --fsys-tarfile /debs/linux-source-*.deb |
    tar -xO --wildcards '*/linux-source-*.tar.xz' |
    xz -dc | tar -x -C /build/linux --strip-components=1
cd /build/linux
base=$(make -s kernelversion)
release=RELEASE
case $release in
    $base*) printf '%s' "${release#$base}" > localversion ;;
    *) echo "release $release is not of version $base"; exit 1 ;;
esac
cp /kernel/config .config
export KBUILD_BUILD_TIMESTAMP=@0 KBUILD_BUILD_USER=lab KBUILD_BUILD_HOST=lab
make olddefconfig
make -j JOBS prepare modules_prepare
[ "$(cat include/config/kernel.release)" = "$release" ]
[ -e rust/libkernel.rmeta ]
cp /kernel/Module.symvers Module.symvers
rm -rf drivers/gpu/drm/amd Documentation/translations
"""


def _version_key(text):
    return [int(n) for n in re.findall(r"\d+", text)]


def _choose(packages):
    """Newest 7.x whose source, headers and image have the same version."""
    wanted = config.KERNEL
    found = []
    for (name, version) in packages:
        match = re.match(r"linux-headers-((7\.\d+)[^-]*-" + config.FLAVOUR + ")$", name)
        if match and match[1].startswith(wanted):
            found.append((_version_key(match[1]), match[1], match[2], version))
    for _, release, series, version in sorted(found, reverse=True):
        names = [f"linux-source-{series}", f"linux-headers-{release}"]
        if (names[0], version) not in packages:
            continue
        if (f"linux-modules-{release}", version) in packages:
            names.append(f"linux-modules-{release}")
        # Signed packages carry versions of their own: only same ones count.
        for image in ("binary", "binary-unsigned", "image", "image-unsigned"):
            if (f"linux-{image}-{release}", version) in packages:
                names.append(f"linux-{image}-{release}")
                return {"release": release, "version": version,
                        "packages": [[n, packages[(n, version)]] for n in names]}
    return None


def _query():
    out = cache.scratch("query")
    out.mkdir()
    try:
        with_apt(build_root(), QUERY_SCRIPT.replace("FLAVOUR", config.FLAVOUR),
                 "kernel-query", "asking the archive for its kernels",
                 extra=[(out, "/lab-out")])
        text = (out / "packages").read_text() if (out / "packages").exists() else ""
    finally:
        cache.remove_tree(out)
    packages, name, version = {}, None, None
    for line in text.splitlines():
        field, _, value = line.partition(": ")
        if field == "Package":
            name = value
        elif field == "Version":
            version = value
        elif field == "SHA256":
            packages[(name, version)] = value
    return _choose(packages)


def resolution_file():
    """Where the answer of the archive is kept."""
    end = "" if config.FLAVOUR == config.DEFAULT_FLAVOUR else f"-{config.FLAVOUR}"
    return config.CACHE / f"kernel{end}.json"


def resolve():
    """Which kernel to use; asks the archive at most once a day."""
    path = resolution_file()
    wanted = config.KERNEL
    with cache.locked("kernel-resolution"):
        known = json.loads(path.read_text()) if path.exists() else None
        if known and known.get("wanted") != wanted:
            known = None
        if known and 0 <= time.time() - known["time"] < RESOLUTION_AGE:
            return known
        problem = None
        try:
            chosen = _query()
        except LabError as error:
            chosen, problem = None, error
        if chosen is None:
            if known:
                say(f"the archive gives no kernel now: staying with {known['release']}")
                return known
            raise problem or LabError(
                f"the archive has no 7.x kernel {wanted} of flavour {config.FLAVOUR} with "
                f"source, headers and image of one version in {config.BACKPORTS}")
        chosen["time"] = time.time()
        chosen["wanted"] = wanted
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(chosen, indent=1))
        os.rename(temporary, path)
        say(f"stock kernel: {chosen['release']} ({chosen['version']})")
        return chosen


class Kernel:
    """One stock kernel; each part is made when it is first asked for."""

    def __init__(self):
        self.resolution = resolve()
        self.release = self.resolution["release"]
        self.version = self.resolution["version"]

    def debs(self):
        packages, version = self.resolution["packages"], self.version

        def build(directory):
            names = " ".join(f"{name}={version}" for name, _ in packages)
            with step(f"downloading the packages of kernel {self.release}"):
                try:
                    with_apt(build_root(),
                             f"apt-get -q update || true; cd /debs; apt-get -q download {names}",
                             "kernel-download", "downloading the kernel's packages",
                             extra=[(directory, "/debs")])
                except LabError:
                    # The archive may have moved on: ask it again next time.
                    (config.CACHE / "kernel.json").unlink(missing_ok=True)
                    raise
            sums = {cache.file_digest(path) for path in directory.glob("*.deb")}
            for name, sha256 in packages:
                if sha256 not in sums:
                    raise LabError(f"{name} {version} was downloaded damaged")

        try:
            return cache.entry("kerneldebs", [packages, version], build)
        except LabError:
            resolution_file().unlink(missing_ok=True)
            raise

    def files(self):
        """vmlinuz, config, Module.symvers, root/lib/modules/RELEASE/**.ko"""
        debs = self.debs()
        script = UNPACK_SCRIPT.replace("RELEASE", self.release).replace("JOBS", str(config.JOBS))

        def build(directory):
            with step("unpacking the kernel and its modules"):
                place = Chroot(build_root())
                place.bind(directory, "/out").bind(debs, "/debs", True)
                place.run(script, "kernel-unpack", "unpacking the kernel's packages")

        return cache.entry("kernel", [debs.name, UNPACK_SCRIPT], build)

    def kdir(self):
        """The tree to build modules against, checked symbol by symbol."""
        files, debs, root = self.files(), self.debs(), build_root()
        script = KDIR_SCRIPT.replace("RELEASE", self.release).replace("JOBS", str(config.JOBS))

        def build(directory):
            tree = directory / "linux"
            tree.mkdir()
            with step(f"building the Rust metadata of kernel {self.release}"):
                place = Chroot(root)
                place.bind(tree, "/build/linux").bind(files, "/kernel", True)
                place.bind(debs, "/debs", True)
                place.run(script, "kdir", "building the kernel's rust/ directory")
            same, built, shipped = compare_symbols(tree)
            if not same == built == shipped:
                raise LabError(
                    f"the rebuilt rust/ of kernel {self.release} exports {built} symbols, the "
                    f"shipped kernel {shipped}, and only {same} are the same: modules built "
                    "here would not load into it")
            say(f"Rust symbols of kernel {self.release}: {same} of {shipped} are the same")

        return cache.entry("kdir", [files.name, root.parent.name, KDIR_SCRIPT], build) / "linux"

    def module_closure(self, names):
        """Paths of modules with everything they depend on, in load order."""
        base = self.files() / "root" / "lib" / "modules" / self.release
        depends, by_name = {}, {}
        for line in (base / "modules.dep").read_text().splitlines():
            path, _, rest = line.partition(":")
            depends[path] = rest.split()
            by_name[Path(path).stem.replace("-", "_")] = path
        order = []

        def add(path):
            for dependency in reversed(depends[path]):
                add(dependency)
            if path not in order:
                order.append(path)

        for name in names:
            path = by_name.get(name.replace("-", "_"))
            if path:            # otherwise it is built in
                add(path)
        return [base / path for path in order]


def compare_symbols(tree):
    """(same, built, shipped): exports of rust/ and those in Module.symvers."""
    built = set()
    for header in (tree / "rust").glob("exports_*_generated.h"):
        built |= set(re.findall(r"EXPORT_SYMBOL_RUST_GPL\((\w+)\);", header.read_text()))
    every, shipped = set(), set()
    for line in (tree / "Module.symvers").read_text().splitlines():
        fields = line.split("\t")
        every.add(fields[1])
        if fields[2] == "vmlinux" and re.match(r"_R|rust_helper_", fields[1]):
            shipped.add(fields[1])
    # A few plain names (rust_begin_unwind ...) are exported from there too.
    shipped |= {name for name in built if name in every}
    return len(built & shipped), len(built), len(shipped)
