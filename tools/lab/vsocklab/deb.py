# SPDX-License-Identifier: GPL-2.0
"""`make deb`: Debian packages of the modules and the tools, checked by lintian; `make install`."""

import os
import re
import shutil
import subprocess
from email.utils import formatdate
from pathlib import Path

from . import cache, cargo, config
from .build import Builder, stock_modules, tree_files
from .chroot import Chroot, with_apt
from .root import build_root, runtime_root
from .say import LabError, run, say, step

PACKAGING = config.REPO / "tools" / "packaging"
OUT = config.BUILD / "deb"
PACKAGES = ["debhelper", "dh-dkms", "dpkg-dev", "fakeroot", "lintian", "binutils", "xz-utils"]
ROOT_SCRIPT = """
apt-get -q update
apt-get -q -y install --no-install-recommends PACKAGES
"""


def packaging_root():
    """The runtime root plus the tools of a packager."""
    base = runtime_root()

    def build(directory):
        root = directory / "root"
        with step("installing the tools that build packages into a copy of the root"):
            run(["cp", "-a", "--reflink=auto", base, root], "packaging-root-copy", "copying the root")
            with_apt(root, ROOT_SCRIPT.replace("PACKAGES", " ".join(PACKAGES)), "packaging-root",
                     "installing packages into the root")

    return cache.entry("packaging", [base.parent.name, PACKAGES, ROOT_SCRIPT], build) / "root"


def version():
    """The version of the tree: the modules say the same one."""
    text = (config.REPO / "rust/kernel_ext/version.rs").read_text()
    return re.search(r'__version \{.*?"([^"]+)"', text, re.S)[1]


def check_versions():
    manifest = (config.REPO / "tools/vsockctl/Cargo.toml").read_text()
    if f'\nversion = "{version()}"\n' not in manifest:
        raise LabError(f"tools/vsockctl/Cargo.toml is not of version {version()}, which rust/kernel_ext/version.rs says")


def split_modules(root, modules, stage, release):
    """Strips the modules into one package, and what was stripped into another."""
    place = f"usr/lib/modules/{release}/updates/vsock-rust"
    stripped, symbols = stage / "modules" / place, stage / "dbgsym" / "usr/lib/debug" / place
    for directory in (stripped, symbols):
        directory.mkdir(parents=True)
    for module in modules:
        shutil.copy2(module, stripped / module.name)
    # The kernel's decompressor knows no other check than CRC32.
    script = f"""
    cd /stage/modules/{place}
    for module in *.ko; do
        objcopy --only-keep-debug "$module" "/stage/dbgsym/usr/lib/debug/{place}/$module.debug"
        objcopy --strip-debug "$module"
        xz --check=crc32 --lzma2=dict=1MiB "$module"
    done
    chmod 0644 *.ko.xz /stage/dbgsym/usr/lib/debug/{place}/*.debug
    """
    Chroot(root).bind(stage, "/stage").run(script, "deb-strip", "stripping the modules")


def stage_tools(stage):
    """vsockctl with all that belongs to it."""
    program = cargo.binary(config.REPO / "tools/vsockctl", static=False, extra="VSOCKCTL_OUT")
    place = stage / "tools"
    files = {
        program: "usr/bin/vsockctl",
        PACKAGING / "files/vsock-rust.modprobe.conf": "usr/lib/modprobe.d/vsock-rust.conf",
        program.parent / "extra/completions/vsockctl.bash": "usr/share/bash-completion/completions/vsockctl",
        program.parent / "extra/completions/_vsockctl": "usr/share/zsh/vendor-completions/_vsockctl",
        program.parent / "extra/completions/vsockctl.fish": "usr/share/fish/vendor_completions.d/vsockctl.fish",
    }
    files |= {page: f"usr/share/man/man1/{page.name}" for page in (program.parent / "extra/man").glob("*.1")}
    for source, target in files.items():
        (place / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place / target)
    (place / "usr/bin/vsockctl").chmod(0o755)
    (place / "var/lib/vsock-rust").mkdir(parents=True)


def stage_dkms(stage):
    """The source of the modules, and how DKMS builds them."""
    place = stage / "dkms/usr/src" / f"vsock-rust-{version()}"
    wanted = ("Kbuild", "scripts/", "include/", "net/", "drivers/", "rust/")
    for name in tree_files():
        if name.startswith(wanted):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(config.REPO / name, place / name)
    shutil.copytree(PACKAGING / "dkms", place / "dkms")


def write_debian(stage, release):
    """debian/, as debhelper wants it."""
    debian = stage / "debian"
    debian.mkdir()
    # A package's name has no '+' of its own meaning, but small letters only: releases have those.
    values = {"@RELEASE@": release, "@RELEASE_NAME@": release.lower(), "@VERSION@": version()}
    names = {"modules": f"vsock-rust-modules-{release.lower()}", "tools": "vsock-rust-tools",
             "dbgsym": f"vsock-rust-modules-{release.lower()}-dbgsym", "dkms": "vsock-rust-dkms"}

    def fill(source, target):
        text = source.read_text()
        for key, value in values.items():
            text = text.replace(key, value)
        (debian / target).write_text(text)

    for source in sorted((PACKAGING / "debian").iterdir()):
        kind, _, what = source.name.partition(".")
        if source.name == "control.in":
            fill(source, "control")
        elif what and kind in names:
            fill(source, f"{names[kind]}.{what}")
        else:
            shutil.copy2(source, debian / source.name)
    shutil.copy2(PACKAGING / "files/vsock-rust-apply.service", debian / "vsock-rust-tools.vsock-rust-apply.service")
    for kind, name in names.items():
        (debian / f"{name}.install").write_text(f"{kind}/* /\n")
    (debian / "changelog").write_text(
        f"vsock-rust ({version()}) unstable; urgency=medium\n\n  * Built from the tree: see its history.\n\n"
        f" -- vsock-rust developers <vsock-rust@lists.invalid>  {formatdate(last_change())}\n")


def last_change():
    """When the tree last changed: the same tree gives the same packages."""
    out = subprocess.run(["git", "-c", "safe.directory=*", "-C", str(config.REPO), "log", "-1", "--format=%ct"],
                         stdout=subprocess.PIPE, text=True)
    return int(out.stdout.strip() or 0)


def deb():
    check_versions()
    builder = Builder()
    release = builder.kernel.release
    modules = stock_modules(builder)
    root = packaging_root()
    stage = cache.scratch("deb")
    try:
        stage.mkdir()
        source = stage / "vsock-rust"
        source.mkdir()
        split_modules(root, modules, source, release)
        stage_tools(source)
        stage_dkms(source)
        write_debian(source, release)
        with step("building the packages"):
            place = Chroot(root).bind(stage, "/stage")
            place.env["SOURCE_DATE_EPOCH"] = str(last_change())
            place.run("cd /stage/vsock-rust && dpkg-buildpackage -b -us -uc --no-check-builddeps",
                      "deb-build", "building the packages")
        OUT.mkdir(parents=True, exist_ok=True)
        for old in OUT.glob("*.deb"):
            if release.lower() in old.name or "modules" not in old.name:
                old.unlink()
        built = [Path(shutil.copy2(package, OUT)) for package in sorted(stage.glob("*.deb"))]
        problems = lint(root, stage)
    finally:
        cache.remove_tree(stage)
    for package in built:
        say(f"build/deb/{package.name}: {package.stat().st_size // 1024} KiB")
    if problems:
        print(problems)
        raise LabError("lintian found what is above")
    return built


def flavour_of(release):
    """The flavour of a kernel that there are packages for."""
    match = re.fullmatch(rf"{re.escape(config.SERIES)}\.\d+\+deb13-((?:cloud-|rt-)?{config.ARCH})", release)
    if not match:
        raise LabError(
            f"this machine runs Linux {release}, and packages are for Linux {config.SERIES} of {config.BACKPORTS}: "
            f"boot that first (`apt install -t {config.BACKPORTS} linux-image-{config.ARCH}`), or run `make demo`, "
            "which has a kernel of its own")
    return match[1]


def install():
    """`make install`: the packages for the kernel that runs here, built and installed."""
    config.KERNEL = os.uname().release
    config.FLAVOUR = flavour_of(config.KERNEL)
    built = [package for package in deb() if not re.search("-(dbgsym|dkms)_", package.name)]
    # What the packages say is for who installs them.
    return subprocess.run(["apt-get", "install", "-y", *built]).returncode


def lint(root, stage):
    """What lintian says against the packages; '' if nothing."""
    with step("checking the packages with lintian"):
        result = subprocess.run(
            Chroot(root).bind(stage, "/stage").argv(
                "cd /stage && lintian --allow-root --fail-on error,warning --suppress-tags-from-file /dev/null *.changes"),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    return "" if result.returncode == 0 else result.stdout or f"lintian failed with {result.returncode}"
