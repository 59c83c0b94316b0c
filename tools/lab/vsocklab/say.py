# SPDX-License-Identifier: GPL-2.0
"""What the user sees: steps with their time, failures in one sentence."""

import contextlib
import ctypes
import os
import shlex
import signal
import subprocess
import sys
import threading
import time

from . import config

START = time.monotonic()


class LabError(Exception):
    """A failure that is told to the user in one sentence."""


def say(text):
    sys.stdout.flush()
    print(f"lab: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def every(seconds, tell):
    """Calls `tell` again and again, from another thread, as long as the block runs."""
    done = threading.Event()

    def tick():
        while not done.wait(seconds):
            tell()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextlib.contextmanager
def step(what):
    """Tells that a long step begins, that it goes on, and how long it took."""
    begin = time.monotonic()
    say(f"{what} ...")
    with every(30, lambda: say(f"{what}: {time.monotonic() - begin:.0f} s so far")):
        yield
    say(f"{what}: done in {time.monotonic() - begin:.0f} s")


def die_with_parent():
    """In a child: be killed when the lab is (kill-safety)."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def log_path(name):
    directory = config.CACHE / "logs"
    directory.mkdir(parents=True, exist_ok=True)
    return directory / f"{name}.log"


def run(argv, log, what, cwd=None, env=None, stdin=subprocess.DEVNULL):
    """Runs a long command with its output in a log file; raises on failure."""
    path = log_path(log)
    with open(path, "wb") as out:
        out.write(("+ " + shlex.join(map(str, argv)) + "\n").encode())
        out.flush()
        status = subprocess.run(
            list(map(str, argv)), stdin=stdin, stdout=out,
            stderr=subprocess.STDOUT, cwd=cwd, env=env,
            preexec_fn=die_with_parent).returncode
    if status != 0:
        raise LabError(f"{what} failed (status {status}); see {path}{tail(path)}")


def tail(path, lines=8):
    try:
        text = open(path, "rb").read()[-6000:].decode(errors="replace")
    except OSError:
        return ""
    last = [line for line in text.splitlines() if line.strip()][-lines:]
    return "".join(f"\n    {line[:300]}" for line in last)


def output(argv, **kwargs):
    """Output of a short command, or None if it fails."""
    try:
        result = subprocess.run(list(map(str, argv)), stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL, **kwargs)
    except OSError:
        return None
    return result.stdout.decode(errors="replace") if result.returncode == 0 else None


def which(program):
    for directory in (os.environ.get("PATH", "").split(":")
                      + ["/usr/sbin", "/sbin", "/usr/bin", "/bin"]):
        path = os.path.join(directory or ".", program)
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return None
