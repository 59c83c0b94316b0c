# SPDX-License-Identifier: GPL-2.0
"""What every case of T5 has: a guest, a device in it, checks with names."""

import contextlib
import random
import re
import time
import traceback

import host
import vhost_user
from machine import KNOWN_FAULT, GuestError

PEER = "/lab/bin/vsock_peer"
DRIVER_MODULE = "vmw_vsock_virtio_transport"
DRIVER = f"/sys/bus/virtio/drivers/{DRIVER_MODULE}"
# What vsock_peer's waiting calls must say when their peer is gone.
RESET = {kind: "ECONNRESET" for kind in ("recv", "seqpacket", "send", "poll", "connect", "idle")}
CASES = []
# More often than this it is no bad luck.
MOST_KNOWN_FAULTS = 2


def case(name, about):
    """Registers a function as the case `name`."""

    def register(function):
        CASES.append((name, about, function))
        return function

    return register


def skip(name, about, reason):
    """Registers a case that cannot be driven here."""
    CASES.append((name, about, reason))


class Bench:
    def __init__(self, machine, report, seed, rounds, long=1, patience=1.0):
        self.machine, self.report, self.seed = machine, report, seed
        self.rounds, self.long = rounds, long
        self.patience = patience        # how much slower than usual this guest is
        self.random = random.Random(seed)
        self.serial = 0
        self.device = self.name = None
        self.prefix = "T5"
        self.results = []               # of the case that runs
        self.known_faults = 0           # how often QEMU has ended by itself

    # --- results ----------------------------------------------------------------------

    def check(self, name, good, why=""):
        full = f"{self.prefix}/{name}" if name else self.prefix
        self.results.append((full, "ok" if good else "not ok", "" if good else str(why)[:300]))
        return good

    def equal(self, name, found, expected):
        return self.check(name, found == expected, f"{found!r} instead of {expected!r}")

    def note(self, text):
        print(f"# {self.prefix}: {text}", flush=True)

    # --- devices ----------------------------------------------------------------------

    def plug(self, cid=3, features=vhost_user.FEATURES, start=True, **properties):
        """Plugs a device; with `start`, waits until the driver has filled its queues."""
        self.serial += 1
        name = f"vs{self.serial}"
        file = f"{name}.sock"
        device = vhost_user.Device(str(self.machine.directory / file), cid, features)
        device.host = host.Host(device)
        self.machine.plug(name, self.serial % 4, f"{self.machine.inside}/{file}", **properties)
        self.device, self.name = device, name
        if start and not self.up(device):
            raise GuestError("the driver does not take the device")
        return device

    def up(self, device, seconds=20):
        end = time.monotonic() + seconds * self.patience
        while time.monotonic() < end:
            with contextlib.suppress(LookupError), device.lock:
                if device.ready(vhost_user.RX) and device.ready(vhost_user.TX) and \
                        device.rings[vhost_user.RX].waiting():
                    return True
            time.sleep(0.01)
        return False

    def unplug(self):
        if self.device is None:
            return
        device, self.device = self.device, None
        try:
            self.machine.unplug(self.name, 30 * self.patience)
        finally:
            device.close()
            for fault in device.faults:
                raise GuestError(f"a fault of the back end: {fault}")

    def fresh(self, **arguments):
        """A device of which nobody knows anything bad."""
        self.unplug()
        return self.plug(**arguments)

    def good(self):
        """The device there is if it works, else a new one."""
        if self.device is not None and self.alive():
            return self.device
        return self.fresh()

    def alive(self):
        """Can a connection still be made?"""
        conn = host.Conn(self.device)
        good = conn.connect() and conn.alive()
        conn.reset()
        return good

    def rebind(self):
        """Takes the driver from the device, if it has it, and gives it back."""
        self.sh("d=$(basename $(dirname $(grep -lx 0x0013 /sys/bus/virtio/devices/*/device))); "
                f"[ ! -e {DRIVER}/$d ] || echo $d >{DRIVER}/unbind; echo $d >{DRIVER}/bind")
        return self.up(self.device)

    def unload(self, *modules, seconds=15):
        """Unloads modules; a socket that was closed keeps them until its timers ran out. Says why not."""
        return self.sh(
            # The next one needs its port.
            "killall vsock_peer; n=0; while killall -0 vsock_peer 2>/dev/null && [ $n -lt 20 ]; do "
            "sleep 0.05; n=$((n+1)); done; "
            f"for m in {' '.join(modules)}; do n=0; "
            f"while ! rmmod $m 2>/tmp/rmmod && [ $n -lt {int(5 * seconds * self.patience)} ]; do "
            "sleep 0.2; n=$((n+1)); done; [ ! -d /sys/module/$m ] || cat /tmp/rmmod; done").strip()

    def load(self, parameters=""):
        """Loads the driver, and starts who listens."""
        self.sh(f"/lab/guest-insert ours {DRIVER_MODULE}.ko {parameters}")
        self.listen()
        return self.up(self.device)

    def scan(self):
        """How many buffers the driver has posted, in how many of them is a byte that is neither zero nor
        what we wrote there, and the size of the largest."""
        device, scanned, foreign, largest = self.device, 0, 0, 0
        ring = device.rings[vhost_user.RX]
        with device.lock:
            for n in range(ring.waiting()):
                for place, size, _ in ring.chain(ring.head_at(ring.last + n)).parts:
                    scanned += 1
                    foreign += not host.is_own(place.read(0, size), place.written(0, size))
                    largest = max(largest, size)
        return scanned, foreign, largest

    # --- the guest --------------------------------------------------------------------

    def sh(self, command, timeout=60):
        return self.machine.sh(command, timeout * self.patience)

    def begin(self):
        """A place in the guest's log to look at what came after it."""
        return self.machine.log.stat().st_size

    def lines(self, begin, pattern):
        """Lines of the guest's log since then that match, once the log is quiet."""
        time.sleep(0.3 * self.patience)
        return [line for line in self.machine.text(begin).splitlines() if re.search(pattern, line)]

    def listen(self):
        """Starts the echo server in the guest; it must never have to be started again."""
        # A former one has the port until it is gone.
        self.sh("n=0; while killall -9 vsock_peer 2>/dev/null && [ $n -lt 200 ]; do sleep 0.05; n=$((n+1)); done; "
                f"{PEER} echo {host.GUEST_ECHO} >/tmp/echo 2>&1 & n=0; "
                "while ! grep -q listening /tmp/echo && [ $n -lt 600 ]; do sleep 0.05; n=$((n+1)); done")

    def block(self):
        """Starts system calls in the guest that wait for the host."""
        self.sh(f"{PEER} block 2 {host.HOLD} 2 {host.SILENT} {int(10 * self.patience)} "
                ">/tmp/block 2>&1 & n=0; "
                "while ! grep -q ready /tmp/block && [ $n -lt 400 ]; do sleep 0.05; n=$((n+1)); done; "
                "sleep 0.1")

    def blocked(self, seconds=15.0):
        """What became of them, as {call: error}, once all have ended."""
        text = self.sh(f"n=0; while ! grep -q done /tmp/block && [ $n -lt {int(seconds * 20 * self.patience)} ]; "
                       "do sleep 0.05; n=$((n+1)); done; cat /tmp/block; killall vsock_peer_block 2>/dev/null; true")
        return dict(line.split(None, 1) for line in text.splitlines()
                    if " " in line and not line.startswith("ready"))

    # --- all cases --------------------------------------------------------------------

    def run(self, wanted):
        for name, about, what in CASES:
            self.prefix = f"T5/{name}"
            if not wanted(name):
                continue
            if isinstance(what, str):
                self.report.add(self.prefix, "skip", f"{about}: {what}")
                continue
            begin = time.monotonic()
            while not self.run_case(name, what):
                self.start_again()
            for result in self.results:
                self.report.add(*result)
            print(f"# {self.prefix} ({about}): {time.monotonic() - begin:.1f} s", flush=True)

    def run_case(self, name, what):
        """Runs a case. False if QEMU had a fault of its own, in which case nothing was found out."""
        self.results.clear()
        self.machine.mark(self.prefix)
        self.random = random.Random(f"{self.seed} {name}")
        try:
            what(self)
            for fault in self.device.faults if self.device else ():
                self.check("back-end", False, fault)
        except (GuestError, OSError, LookupError) as error:
            self.check("ran", False, f"{type(error).__name__}: {error}")
            traceback.print_exc()
            with contextlib.suppress(GuestError, OSError):
                self.unplug()
        failed = any(status != "ok" for _, status, _ in self.results)
        return not (failed and self.known_faults < MOST_KNOWN_FAULTS and self.machine.has_known_fault())

    def start_again(self):
        """Boots the guest anew, after a fault of QEMU."""
        self.known_faults += 1
        self.note(f"QEMU ended by itself ({KNOWN_FAULT}): once more, in a new VM")
        self.device = None
        self.machine.boot_again(120 * self.patience)
        self.listen()
