# SPDX-License-Identifier: GPL-2.0
"""Building this tree's modules, and its style checks, in the build root."""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from . import cache, config
from .chroot import Chroot
from .kernel import Kernel
from .root import build_root
from .say import LabError, die_with_parent, log_path, say, step

# Where the trees appear in the chroot: fixed, since paths get into objects.
KDIR = "/build/linux"
TREE = "/build/vsock"


def tree_files():
    """Files of the tree: tracked, or new and not ignored."""
    out = subprocess.run(["git", "-c", "safe.directory=*", "-C", str(config.REPO), "ls-files", "-z", "--cached",
                          "--others", "--exclude-standard"], stdout=subprocess.PIPE)
    if out.returncode != 0:
        raise LabError(f"git cannot list the files of {config.REPO}")
    names = sorted(set(out.stdout.decode().split("\0")) - {""})
    return [name for name in names if os.path.lexists(config.REPO / name)]


def sync(target):
    """Mirrors the tree's files to `target`, touching only what changed."""
    target.mkdir(parents=True, exist_ok=True)
    record = target.parent / "files"
    old = set(record.read_text().split("\n")) if record.exists() else set()
    names = tree_files()
    for name in names:
        source, copy = config.REPO / name, target / name
        if source.is_symlink() or not source.is_file():
            continue
        have = source.stat()
        try:
            there = copy.stat()
            if there.st_size == have.st_size and there.st_mtime_ns == have.st_mtime_ns:
                continue
            if there.st_size == have.st_size and copy.read_bytes() == source.read_bytes():
                continue
        except FileNotFoundError:
            copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, copy)
        # An older file that replaces a newer one must look newer to make.
        if have.st_mtime < (record.stat().st_mtime if record.exists() else 0):
            os.utime(copy)
    for name in old - set(names) - {""}:
        (target / name).unlink(missing_ok=True)
    record.write_text("\n".join(names))


class Builder:
    """The build root with the kernel tree and a mirror of this tree."""

    def __init__(self):
        self.kernel = Kernel()
        self.kdir = self.kernel.kdir()
        key = hashlib.sha256(str(config.REPO).encode()).hexdigest()[:12]
        self.base = config.CACHE / "objects" / f"{key}-{self.kdir.parent.name}"

    def place(self, variant):
        tree = self.base / variant / "tree"
        sync(tree)
        root = Chroot(build_root())
        root.bind(self.kdir, KDIR, True).bind(tree, TREE)
        return root, tree

    def locked(self, variant):
        (self.base / variant).mkdir(parents=True, exist_ok=True)
        return cache.locked(f"objects-{self.base.name}-{variant}")

    def make(self, arguments=(), variant="stock", quiet=False):
        """Runs kbuild; returns its output. Raises with the errors on failure."""
        with self.locked(variant):
            root, tree = self.place(variant)
            log = log_path(f"make-{variant}")
            command = ["make", "-C", KDIR, f"M={TREE}", f"-j{config.JOBS}", *arguments]
            lines = []
            with open(log, "w") as out:
                child = subprocess.Popen(root.argv(command), stdin=subprocess.DEVNULL,
                                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                         text=True, errors="replace",
                                         preexec_fn=die_with_parent)
                for line in child.stdout:
                    line = line.replace(TREE + "/", "")
                    out.write(line)
                    lines.append(line)
                    if not quiet and not re.match(r"make(\[\d+\])?: |Skipping BTF", line):
                        print(line, end="", flush=True)
            text = "".join(lines)
            if child.wait() != 0:
                if quiet:
                    print(text, end="", flush=True)
                raise LabError(f"the build failed; see {log}")
            self.collect(tree, variant)
            return text

    def output(self, variant):
        """Where the modules go: those of another kernel than the usual one, to a place of its own."""
        if config.KERNEL or config.FLAVOUR != config.DEFAULT_FLAVOUR:
            return config.BUILD / f"{variant}-{self.kernel.release}"
        return config.BUILD / variant

    def collect(self, tree, variant):
        """Copies the modules to build/<variant>/."""
        target = self.output(variant)
        target.mkdir(parents=True, exist_ok=True)
        order = (tree / "modules.order").read_text().split()
        names = set()
        for name in order:
            module = tree / Path(name).with_suffix(".ko").name
            if not module.exists():
                module = tree / Path(name.replace(TREE + "/", "")).with_suffix(".ko")
            names.add(module.name)
            shutil.copy2(module, target / module.name)
        for old in target.glob("*.ko"):
            if old.name not in names:
                old.unlink()


def make_arguments(environment=os.environ):
    """CLIPPY=1, W=e and V=1 as given to the top-level make."""
    return [f"{name}={environment[name]}" for name in ("CLIPPY", "W", "V", "KCFLAGS")
            if environment.get(name)]


WARNING = re.compile(r"(^|\s)warning(\[|:)|^WARNING:", re.I)


def warnings(text):
    return [line for line in text.splitlines() if WARNING.search(line)]


def stock(arguments=()):
    """`make stock`"""
    arguments = list(arguments) + make_arguments()
    builder = Builder()
    variant = "stock"
    if any(a.startswith("CLIPPY=") for a in arguments):
        variant = "clippy"      # objects of clippy are not for loading
    with step(f"building the modules for {builder.kernel.release}"):
        text = builder.make(arguments, variant)
    found = warnings(text)
    if found:
        say(f"the build printed {len(found)} warnings")
    where = builder.output(variant)
    modules = sorted(path.name for path in where.glob("*.ko"))
    say(f"build/{where.name}: {' '.join(modules) or 'no module'}, for kernel {builder.kernel.release}")
    return 0


def stock_modules(builder):
    """Builds the modules for one of Debian's kernels; their paths."""
    with step(f"building the modules for {builder.kernel.release}"):
        builder.make(quiet=True)
    return sorted(builder.output("stock").glob("*.ko"))


def rust_files():
    return [name for name in tree_files() if name.endswith(".rs")]


def fmt_problems():
    """Output of rustfmt --check over the tree's Rust files ('' when clean)."""
    names = rust_files()
    if not names:
        return ""
    root = Chroot(build_root()).bind(config.REPO, TREE, True)
    result = subprocess.run(
        root.argv(["rustfmt", "--check", "--color", "never", "--edition", "2021",
                   "--config", "skip_children=true,unstable_features=true", *names], cwd=TREE),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace")
    return "" if result.returncode == 0 else (result.stdout or "rustfmt failed")


def fmt(check):
    names = rust_files()
    if check:
        text = fmt_problems()
        print(text, end="")
        say("rustfmt: " + ("not clean: run `make fmt`" if text else "clean"))
        return 1 if text else 0
    root = Chroot(build_root()).bind(config.REPO, TREE)
    return root.call(["rustfmt", "--edition", "2021", "--config",
                      "skip_children=true,unstable_features=true", *names], cwd=TREE)


def rust_analyzer():
    """rust-project.json for editors, with paths outside of the chroot."""
    builder = Builder()
    with builder.locked("stock"):
        root, tree = builder.place("stock")
        root.run(["make", "-C", KDIR, f"M={TREE}", "rust-analyzer"], "rust-analyzer",
                 "make rust-analyzer")
        text = (tree / "rust-project.json").read_text()
    text = text.replace(f'{TREE}/', f'{config.REPO}/').replace(f'"{TREE}"', f'"{config.REPO}"')
    text = text.replace(f'{KDIR}/', f'{builder.kdir}/').replace(f'"{KDIR}"', f'"{builder.kdir}"')
    text = text.replace('"/usr/', f'"{build_root()}/usr/')
    (config.REPO / "rust-project.json").write_text(text)
    say(f"wrote {config.REPO / 'rust-project.json'}")
    return 0


def clean():
    """Removes build/ and the objects of this tree (not the cache's roots)."""
    shutil.rmtree(config.BUILD, ignore_errors=True)
    key = hashlib.sha256(str(config.REPO).encode()).hexdigest()[:12]
    for directory in (config.CACHE / "objects").glob(f"{key}-*"):
        cache.remove_tree(directory)
    return 0
