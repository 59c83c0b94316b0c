# SPDX-License-Identifier: GPL-2.0
"""Cache entries keyed by the content of their recipe, made atomically.

An entry is a directory `<kind>-<key>`. It is built in `tmp/` under a lock and
renamed at the end, so that an interrupted run leaves nothing that looks whole.
"""

import contextlib
import fcntl
import hashlib
import inspect
import json
import os
import shutil
import subprocess
from pathlib import Path

from . import config
from .say import LabError, say


def digest(*parts):
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path):
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            sha.update(block)
    return sha.hexdigest()


@contextlib.contextmanager
def locked(name, shared=False):
    """Holds a lock file of the cache; tells when it has to wait."""
    directory = config.CACHE / "locks"
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / name, "a") as file:
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except OSError:
            say(f"waiting for another run of the lab ({name})")
            fcntl.flock(file, how)
        yield


def mounts_below(path):
    """Mount points of this namespace at or below a directory."""
    path = os.path.realpath(path)
    found = []
    for line in open("/proc/self/mountinfo"):
        point = line.split()[4].encode().decode("unicode_escape")
        if point == path or point.startswith(path + "/"):
            found.append(point)
    return found


def remove_tree(path):
    """Removes a directory of the cache unless something is mounted in it."""
    path = Path(path)
    if not path.is_dir() or path.is_symlink():
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        return
    mounted = mounts_below(path)
    if mounted:
        raise LabError(f"not removing {path}: {mounted[0]} is mounted; unmount it first")
    subprocess.run(["rm", "-rf", "--one-file-system", str(path)], check=True)


def entry(kind, parts, build):
    """Directory of the entry; `build(directory)` makes it when it is missing.

    The key covers `parts` and the source text of `build`.
    """
    key = digest(kind, parts, inspect.getsource(build))
    final = config.CACHE / f"{kind}-{key}"
    if final.is_dir():
        os.utime(final)
        return final
    with locked(f"{kind}-{key}"):
        if final.is_dir():
            return final
        scratch = config.CACHE / "tmp"
        scratch.mkdir(parents=True, exist_ok=True)
        for old in scratch.glob(f"{kind}-{key}.*"):
            remove_tree(old)
        room = shutil.disk_usage(scratch).free
        if room < 4 << 30:
            raise LabError(f"less than 4 GiB are free below {config.CACHE}; "
                           "set VSOCK_LAB_CACHE to a directory with 12 GiB")
        temporary = scratch / f"{kind}-{key}.{os.getpid()}"
        temporary.mkdir()
        try:
            build(temporary)
        except BaseException:
            with contextlib.suppress(Exception):
                remove_tree(temporary)
            raise
        os.rename(temporary, final)
    prune(kind, keep=3)
    return final


def prune(kind, keep):
    """Removes the entries of a kind that were not used for longest."""
    entries = [path for path in config.CACHE.glob(f"{kind}-" + "?" * 16) if path.is_dir()]
    entries.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for old in entries[keep:]:
        with contextlib.suppress(LabError, OSError):
            # Renamed first: a half-removed entry must not look whole.
            doomed = config.CACHE / "tmp" / f"{old.name}.old.{os.getpid()}"
            os.rename(old, doomed)
            remove_tree(doomed)


def distclean():
    if not config.CACHE.exists():
        return
    mounted = mounts_below(config.CACHE)
    if mounted:
        raise LabError(f"not removing {config.CACHE}: {mounted[0]} is mounted; unmount it first")
    say(f"removing {config.CACHE}")
    remove_tree(config.CACHE)


_counter = 0


def scratch(kind):
    """A path for something of this run only; old ones of dead runs are removed."""
    global _counter
    directory = config.CACHE / "tmp"
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("scratch-*"):
        pid = old.name.split("-")[1]
        if pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            with contextlib.suppress(LabError, OSError, subprocess.CalledProcessError):
                remove_tree(old)
    _counter += 1
    return directory / f"scratch-{os.getpid()}-{kind}-{_counter}"
