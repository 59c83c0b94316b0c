# SPDX-License-Identifier: GPL-2.0
"""What the machine itself must have."""

import os

from . import config
from .say import LabError, output, run, say, which


def require_root():
    if os.geteuid() != 0:
        raise LabError("the lab makes roots and mounts: run it as root")


def _knows_trixie():
    directory = os.path.dirname(config.HOST_KEYRING)
    return os.path.exists(os.path.join(directory, "debian-archive-trixie-stable.gpg")) or \
        os.path.exists(os.path.join(directory, "debian-archive-trixie-stable.pgp"))


def require_tools():
    """Installs the few packages that the machine needs outside of the roots."""
    require_root()
    packages = sorted({package for program, package in config.HOST_TOOLS
                       if not which(program)})
    if not (os.path.exists(config.HOST_KEYRING) and _knows_trixie()):
        packages.append("debian-archive-keyring")
    if not packages:
        return
    if not which("apt-get"):
        raise LabError(f"this machine lacks {', '.join(packages)} and has no apt-get: "
                       "the lab needs Debian 12 or 13")
    say(f"installing on this machine with apt-get: {' '.join(packages)}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # A third-party source that does not answer is none of our business.
    output(["apt-get", "update", "-q"], env=env)
    run(["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages],
        "host-packages", f"apt-get install {' '.join(packages)}", env=env)
