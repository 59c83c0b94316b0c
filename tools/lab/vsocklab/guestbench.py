# SPDX-License-Identifier: GPL-2.0
"""Rig R2 of the bench: a guest driver in a VM that counts, and a native peer outside of it.

The VM's only device is QEMU's `vhost-user-vsock-pci`; its back end is tools/testing/bench/peer, a
program of this machine. tools/testing/bench/guest runs in the guest and prints a line for each row.

So that both are in step (see peer's `pace`), QEMU and the peer share one processor. The peer goes
first on it, then QEMU's main loop, which hands interrupts on, then the VM: what the guest says is
answered, and the interrupt is there, before the guest executes another instruction. Without the right
to do so the rows at once ("_fast") are noisy.
"""

import contextlib
import fcntl
import os
import re
import resource
import shutil
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

from . import benchtable, cargo, config, countplugin, icount, vm, wallclock
from .chroot import Chroot
from .cpio import Initramfs
from .kernel import Kernel
from .root import runtime_root
from .say import LabError, die_with_parent, say

PLACE = config.TESTING / "bench"
INSIDE = "/run-lab"
WINDOWS = countplugin.OUTPUT    # what the plugin leaves in INSIDE
DUMP = "symbols.tar.gz"         # what the guest says of its symbols, on its second serial line
MEMORY = "512M"
TIMEOUT = 600
# With sleep=off the clock would run while the guest waits for the peer.
ACCEL = ["-accel", "tcg,thread=single", "-icount", "shift=0", "-cpu", icount.CPU]
PEER_PRIORITY, LOOP_PRIORITY = 20, 10


@contextlib.contextmanager
def processor():
    """A processor of this machine that no other rig uses, if there is one."""
    directory = config.CACHE / "locks"
    directory.mkdir(parents=True, exist_ok=True)
    cpus = sorted(os.sched_getaffinity(0))
    for cpu in cpus:
        with open(directory / f"processor-{cpu}", "a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            yield cpu
            return
    yield cpus[0]


def go_first(pid, priority):
    """Makes a process (0: this one) go before all ordinary ones. If it does not wait for anything for
    seconds, the kernel ends it: nothing else would run any more."""
    with contextlib.suppress(PermissionError, ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_RTTIME, (5_000_000, 6_000_000))
        os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(priority))


def can_lead():
    """Whether this machine lets the peer go before the VM, without which rows are noisy."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        return False
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return True


def find_qemu(name, child, seconds=30):
    """The process of QEMU with this name, which has made its processor's thread, or None."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and child.poll() is None:
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (path / "cmdline").read_bytes().split(b"\0")
                if words[0].startswith(b"qemu-system") and name.encode() in words and \
                        any((task / "comm").read_text().endswith("/TCG\n")
                            for task in (path / "task").iterdir()):
                    return int(path.name)
        time.sleep(0.05)
    return None


def qemu(name, kernel, which, append, rows, by_address):
    """The arguments; `by_address`: also count for a profile."""
    if wallclock.wanted():
        cpu, more = wallclock.options(kernel), []
    else:
        cpu, more = ACCEL, countplugin.arguments(by_address)
    if by_address:
        more += ["-serial", f"file:{INSIDE}/{DUMP}"]
        append += " lab.symbols"
    return ["qemu-system-x86_64", *cpu, "-smp", "1", "-m", MEMORY, "-M", "q35,memory-backend=m",
            "-object", f"memory-backend-memfd,id=m,size={MEMORY},share=on",
            "-name", f"{name},debug-threads=on",
            "-nodefaults", "-display", "none", "-no-reboot",
            "-serial", f"file:{INSIDE}/console.log", *more,
            "-chardev", f"socket,id=v,path={INSIDE}/peer.sock",
            "-device", "vhost-user-vsock-pci,chardev=v",
            "-kernel", "/kernel/vmlinuz", "-initrd", f"{INSIDE}/initramfs",
            "-append", "console=ttyS0 panic=-1 loglevel=5 mitigations=off net.ifnames=0 nokaslr "
            f"random.trust_cpu=on lab.modules={which} {append}"
            + (f" lab.rows={','.join(rows)}" if rows else "")]


def initramfs(path, kernel, modules):
    payload = vm.base_payload(kernel, modules)
    archive = Initramfs()
    archive.copy("lab/guest-server", PLACE / "guest-server")
    archive.copy("lab/bin/guest", cargo.binary(PLACE / "guest"))
    archive.write(path.with_suffix(".rows"))
    with open(path, "wb") as whole:
        whole.write(payload.members["guest/base"].read_bytes())
        whole.write(payload.members["guest/overlay"])
        whole.write(path.with_suffix(".rows").read_bytes())


def parse(text):
    """Rows of the console's text, as benchtable.parse() has them."""
    lines = re.findall(r"\brow guest/\S+ [^\r\n]*", text)
    return [row for row in map(benchtable.parse, lines) if row]


def unpack(directory):
    """Makes of a dump what profile.Files looks for."""
    (directory / "out").mkdir()
    with tarfile.open(directory / DUMP) as archive:
        for name in ("kallsyms", "sections"):
            (directory / "out" / name).write_bytes(archive.extractfile(name).read())


def run(which, name, like="c", rows=(), append="", kernel=None, modules=None, by_address=False):
    """Boots one VM with the driver of C ("c") or ours ("ours"); returns its vm.Result and its rows as
    benchtable.parse() has them.

    The peer behaves as the host half of `like`. `rows`: patterns of names, all by default. `modules`
    are ours for this kernel, those of build/stock by default. `by_address`: the plugin also counts by
    address, and the result has what `profile` reads. Logs are in build/logs/NAME, with what the plugin
    wrote: its windows are the rows with instructions, in order.
    """
    kernel = kernel or Kernel()
    modules = vm.modules(which) if modules is None or which == "c" else modules
    by_clock = wallclock.wanted()
    directory = config.LOGS / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    program = cargo.binary(PLACE / "peer")
    # The name of a socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="vsock-r2.") as scratch, processor() as cpu, \
            contextlib.ExitStack() as children, open(directory / "qemu.log", "wb") as errors:
        scratch = Path(scratch)
        initramfs(scratch / "initramfs", kernel, modules)
        place = Chroot(runtime_root()).bind(kernel.files(), "/kernel", True).bind(scratch, INSIDE)
        if not by_clock:
            place.bind(countplugin.build().parent, countplugin.INSIDE, True)
        # This is what the peer finds QEMU by.
        unique = f"{scratch.name},debug-threads=on"

        def start(argv, priority=None):
            def prepare():
                die_with_parent()
                if by_clock:
                    return
                os.sched_setaffinity(0, {cpu})
                if priority is not None:
                    go_first(0, priority)

            child = subprocess.Popen(list(map(str, argv)), stdin=subprocess.DEVNULL, stdout=errors,
                                     stderr=errors, preexec_fn=prepare)
            children.callback(child.wait)
            children.callback(child.kill)
            return child

        in_step = [] if by_clock else ["--vm", unique]
        peer = start([program, "--socket", scratch / "peer.sock", "--like", like, *in_step], PEER_PRIORITY)
        begin = time.monotonic()
        while not (scratch / "peer.sock").exists():
            if time.monotonic() > begin + 10:
                raise LabError(f"the peer does not start; see {directory / 'qemu.log'}")
            time.sleep(0.02)
        child = start(place.argv(qemu(scratch.name, kernel, which, append, rows, by_address)))
        pid = None if by_clock else find_qemu(unique, child)
        if pid is not None:
            go_first(pid, LOOP_PRIORITY)
        while child.poll() is None and peer.poll() is None and time.monotonic() < begin + TIMEOUT:
            time.sleep(0.1)
        # The peer ends when QEMU begins to.
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(10)
        for file in ("console.log", WINDOWS, DUMP):
            if (scratch / file).exists():
                shutil.copy(scratch / file, directory / file)
    text = (directory / "console.log").read_text(errors="replace")
    found = parse(text)
    say(f"R2 {which}, peer like {like}: {len(found)} rows, {time.monotonic() - begin:.0f} s; logs in {directory}")
    if "LAB-EXIT 0" not in text:
        raise LabError(f"the guest did not run all its rows; see {directory / 'console.log'}")
    if by_address:
        unpack(directory)
    return vm.Result(directory), found
