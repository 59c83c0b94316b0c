# SPDX-License-Identifier: GPL-2.0
"""Commands in a root, in mount and process namespaces of their own.

All mounts live in a private namespace that dies with the command, so nothing
is ever left mounted, and no process outlives an interrupted lab.
"""

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from . import config, mirror
from .say import LabError, die_with_parent, log_path, run, tail, which

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Chroot:
    """A root directory with what is mounted into it for one command."""

    def __init__(self, root):
        self.root = Path(root)
        self.binds = []         # (source, target, read only)
        self.env = {}
        self.certificates = {name: name for name in mirror.certificate_files()}

    def bind(self, source, target=None, read_only=False):
        target = str(target or source)
        self.binds.append((str(source), target, read_only))
        return self

    def argv(self, command, cwd="/"):
        """The whole command line, from `unshare` on."""
        if isinstance(command, str):
            command = ["sh", "-ec", command]
        root = shlex.quote(str(self.root))
        lines = ["set -e", f"R={root}", "cd /"]
        # Only empty mount points are ever made in a root of the cache.
        lines += ["mount --bind $R $R", "mkdir -p $R/tmp $R/run $R/proc $R/sys $R/dev",
                  "mount -t proc proc $R/proc", "mount --rbind /dev $R/dev",
                  "mount -t sysfs sysfs $R/sys 2>/dev/null || true",
                  "mount -t tmpfs -o mode=1777 tmp $R/tmp"]
        files = [name for name in ("/etc/resolv.conf", "/etc/hosts") if os.path.exists(name)]
        binds = [(os.path.realpath(name), name, True) for name in files]
        binds += [(os.path.realpath(source), target, True)
                  for source, target in self.certificates.items()]
        binds += self.binds
        for source, target, read_only in binds:
            src, dst = shlex.quote(source), "$R" + shlex.quote(target)
            if os.path.isdir(source):
                lines.append(f"mkdir -p {dst}; mount --rbind {src} {dst}")
            else:
                parent = "$R" + shlex.quote(os.path.dirname(target))
                lines.append(f"mkdir -p {parent}; [ -e {dst} ] || : >{dst}; "
                             f"mount --bind {src} {dst}")
            if read_only:
                lines.append(f"mount -o remount,bind,ro {dst}")
        env = {"PATH": PATH, "HOME": "/tmp", "LC_ALL": "C.UTF-8",
               "TERM": os.environ.get("TERM", "dumb"),
               **mirror.passed_environment(), **self.env}
        assignments = " ".join(shlex.quote(f"{k}={v}") for k, v in env.items())
        inner = f"cd {shlex.quote(str(cwd))} && exec {shlex.join(map(str, command))}"
        lines.append(f"exec chroot $R env -i {assignments} sh -c {shlex.quote(inner)}")
        return [which("unshare"), "--mount", "--pid", "--fork", "--kill-child",
                "--propagation", "private", "sh", "-c", "\n".join(lines)]

    def run(self, command, log, what, cwd="/"):
        run(self.argv(command, cwd), log, what)

    def output(self, command, cwd="/", log="chroot"):
        """Output of a short command; raises with its messages on failure."""
        path = log_path(log)
        with open(path, "wb") as errors:
            result = subprocess.run(self.argv(command, cwd), stdin=subprocess.DEVNULL,
                                    stdout=subprocess.PIPE, stderr=errors,
                                    preexec_fn=die_with_parent)
        if result.returncode != 0:
            raise LabError(f"{command!r} failed in the root; see {path}{tail(path)}")
        return result.stdout.decode(errors="replace")

    def call(self, command, cwd="/"):
        """Runs in the foreground with the caller's terminal; exit status."""
        return subprocess.call(self.argv(command, cwd), preexec_fn=die_with_parent)


def with_apt(root, command, log, what, extra=()):
    """Runs a command that uses apt, with the machine's sources and proxies."""
    state = config.CACHE / "apt"
    for sub in ("lists/partial", "debs/partial"):
        (state / sub).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="vsock-lab-apt.") as directory:
        mirror.write_apt(directory)
        place = Chroot(root)
        # Installing ca-certificates writes the usual bundle: use it elsewhere.
        if mirror.BUNDLE in place.certificates:
            place.certificates[mirror.BUNDLE] = mirror.BUNDLE_FOR_APT
        place.bind(directory, "/etc/apt")
        place.bind(state / "lists", "/var/lib/apt/lists")
        place.bind(state / "debs", "/var/cache/apt/archives")
        for source, target in extra:
            place.bind(source, target)
        place.env["DEBIAN_FRONTEND"] = "noninteractive"
        place.run(command, log, what)
    shutil.rmtree(state / "lists" / "partial", ignore_errors=True)
