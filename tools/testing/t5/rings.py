# SPDX-License-Identifier: GPL-2.0
"""A device that breaks its rings, or interrupts when it should not."""

import contextlib
import threading
import time

from bench import DRIVER, DRIVER_MODULE, PEER, RESET, case, skip
from host import ECHO, HOLD, RW, Conn
from vhost_user import RX, TX

BROKE = "the device broke its"
# Of virtio_vsock: a device that breaks a queue again within this time stays broken.
INTERVAL = 1.0


def settled(b):
    """A working device that was started long enough ago to be started again."""
    device = b.good()
    time.sleep(INTERVAL + 0.2)
    return device


def broken(b, name, act, queue):
    """`act` breaks a queue: everybody is told at once, in one line, and the device starts anew."""
    device = settled(b)
    conn = Conn(device)
    b.check(f"{name}/control", conn.connect() and conn.alive())
    b.block()
    begin, starts = b.begin(), device.starts
    with device.lock:
        act(device, conn)
    device.rings[queue].notify()
    restarted(b, name, begin, starts)


def restarted(b, name, begin, starts):
    b.equal(f"{name}/sockets", b.blocked(), RESET)
    lines = b.lines(begin, BROKE)
    b.check(f"{name}/one-line", len(lines) == 1 and "restarting" in lines[0], lines)
    b.check(f"{name}/restarted", b.up(b.device) and b.device.starts == starts + 1 and b.alive())


def entry(head, length=44, queue=RX):
    def act(device, conn):
        device.rings[queue].push(head, length)
    return act


def twice(device, conn):
    """Two entries at once with the same buffer, whose payload somebody gets and keeps: one of less payload
    would be a buffer that we have again at the second."""
    ring = device.rings[RX]
    chain = ring.pop()
    packet = conn.header(RW, 3000) + b"t" * 3000
    chain.parts[0][0].write(0, packet)
    ring.entry(ring.used, chain.head, len(packet))
    ring.entry(ring.used + 1, chain.head, len(packet))
    ring.publish(ring.used + 2)


def sent_twice(device, conn):
    ring = device.rings[TX]
    head = ring.head_at(ring.last - 1)      # used before, and not given to us since
    ring.push(head, 0)


@case("HH-12", "identifiers of buffers that the device does not have")
def identifiers(b):
    for name, act, queue in (
            ("rx-out-of-range", entry(60000), RX), ("rx-largest", entry(0xffffffff), RX),
            ("rx-twice", twice, RX), ("tx-out-of-range", entry(128, 0, TX), TX),
            ("tx-twice", sent_twice, TX)):
        broken(b, name, act, queue)


def jump(by, queue, fill):
    def act(device, conn):
        ring = device.rings[queue]
        if fill:
            for n in range(ring.num):
                ring.entry(n, 0xffff, 44)
        ring.publish(ring.used + by)
    return act


@case("HH-13", "an index that jumps, or goes back")
def indexes(b):
    for name, by in (("jump", 5000), ("back", -1), ("half", 0x8000)):
        for queue, label in ((RX, "rx"), (TX, "tx")):
            broken(b, f"{label}-{name}", jump(by, queue, True), queue)


def breach(device):
    """Breaks the receive queue."""
    entry(60000)(device, None)
    device.rings[RX].notify()


def broken_once(b, device):
    """Breaks it, and waits until the driver starts the device anew. Where the log begins."""
    begin, starts = b.begin(), device.starts
    breach(device)
    while device.starts == starts and b.machine.wait_for(BROKE, 5 * b.patience, begin):
        time.sleep(0.001)
    return begin


@case("HH-12-again", "a device that breaks a queue as soon as it was started")
def again(b):
    device = settled(b)
    begin = broken_once(b, device)
    b.check("started", b.up(device))
    breach(device)
    b.check("gives-up", b.machine.wait_for("giving up", 5 * b.patience, begin))
    b.equal("no-way", b.sh(f"{PEER} try 2 {ECHO}").strip(), "connect ENODEV")
    b.equal("lines", len(b.lines(begin, BROKE)), 2)
    b.check("rebind", b.rebind() and b.alive())


def broken_again(b, name):
    """A device that keeps what two programs send, and breaks a queue twice in a second."""
    device = settled(b)
    device.keep = True
    begin = broken_once(b, device)
    if not b.check(f"{name}/started", b.up(device)):
        return False
    device.kept.clear()
    # The agent's socat loses the end of a command that is too short.
    b.sh(f"(for how in fill zerocopy; do {PEER} $how 2 {HOLD} {int(20 * b.patience)} >/tmp/$how 2>&1 & "
         "done) >/dev/null 2>&1; sleep 0.1")
    end = time.monotonic() + 5 * b.patience
    while len([size for size in device.kept.values() if size]) < 2 and time.monotonic() < end:
        time.sleep(0.001)
    b.note(f"{sorted(device.kept.values())} bytes kept")
    breach(device)
    b.machine.wait_for(f"{BROKE}[^\n]*\n(?s:.*){BROKE}", 5 * b.patience, begin)
    device.keep = False
    return bool(b.lines(begin, "giving up"))


@case("HH-12-gives-up", "what a device has that the driver has given up")
def gives_up(b):
    # A guest that is slow may be too late for the second breach to be too early.
    for n in range(5):
        if broken_again(b, n):
            break
        b.fresh()
    else:
        return b.check("gives-up", False)
    text = b.sh("n=0; while [ $(cat /tmp/fill /tmp/zerocopy | wc -l) -lt 2 ] && "
                f"[ $n -lt {int(200 * b.patience)} ]; do sleep 0.05; n=$((n+1)); done; "
                "cat /tmp/fill /tmp/zerocopy")
    words = text.split()
    # Who sends before his connection was reset is told that there is no device.
    b.check("told", len(words) == 8 and {words[2], words[5]} <= {"ECONNRESET", "ENODEV"}, text)
    # The pages of the user are free again.
    b.check("completions", len(words) == 8 and words[6] == words[7] and int(words[6]) > 0, text)
    b.check("no-queues", not b.device.rings[RX].running and not b.device.rings[TX].running)
    # Nothing of a socket is left with the device: nobody uses the module, once the timers of those
    # that the cases before have blocked ran out. The device stays bound.
    b.equal("unloaded", b.unload(DRIVER_MODULE), "")
    b.check("after", b.load() and b.alive())


@case("HH-12-rebind", "a device that breaks queues while its driver goes and comes")
def rebinding(b):
    """A restart, and the driver that is taken from the device, do not meet halfway."""
    for n in range(2):
        device = settled(b)
        begin = b.begin()
        b.sh(f"rm -f /tmp/rebound; (d=$(basename {DRIVER}/virtio*); for n in $(seq 8); do "
             f"echo $d >{DRIVER}/unbind; echo $d >{DRIVER}/bind; sleep 0.1; done; touch /tmp/rebound) "
             ">/dev/null 2>&1 &")
        end = time.monotonic() + 2
        while time.monotonic() < end:
            with contextlib.suppress(LookupError), device.lock:
                if device.ready(RX):
                    breach(device)
            time.sleep(b.random.random() * 0.2)
        b.check(f"{n}/ends", b.sh("n=0; while [ ! -e /tmp/rebound ] && [ $n -lt "
                                  f"{int(100 * b.patience)} ]; do sleep 0.1; n=$((n+1)); done; "
                                  "ls /tmp/rebound").strip() == "/tmp/rebound")
        lines = b.lines(begin, BROKE)
        b.note(f"broken {len(lines)} times, {sum('giving' in line for line in lines)} of them for good")
        b.check(f"{n}/after", b.rebind() and b.alive())


@case("HH-13-stale", "an index that jumps over entries that were right once")
def stale(b):
    for by in (128, 5000, -1):
        device = settled(b)
        begin = b.begin()
        with device.lock:
            jump(by, RX, False)(device, None)
            device.rings[RX].notify()
        start = time.monotonic()
        b.sh("true")
        b.check(f"{by}/guest-lives", time.monotonic() - start < 10 * b.patience)
        lines = b.lines(begin, BROKE)
        b.check(f"{by}/at-most-one-line", len(lines) <= 1, lines)
        if lines:
            b.check(f"{by}/restarted", b.up(device) and b.alive())
        else:
            b.note(f"index {by:+}: all of the entries could be right")
            b.fresh()


def interrupts(b):
    text = b.sh(r"awk '/virtio[0-9]+-(rx|tx|virtqueues)/ {for (n = 2; n <= 3; n++) s += $n} "
                r"END {print s + 0}' /proc/interrupts")
    return int(text.split()[-1])


class Storm:
    """Interrupts in a thread, so many a second, but no more than so many.

    A kernel switches a line off after 100000 interrupts for nothing, as it should.
    """

    def __init__(self, rings, most=90000, rate=100000):
        self.rings, self.most, self.rate = rings, most, rate
        self.count, self.done = 0, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        begin = time.monotonic()
        while not self.done.is_set() and self.count < self.most:
            for ring in self.rings:
                try:
                    ring.notify()
                except OSError:
                    return
                self.count += 1
            while time.monotonic() < begin + self.count / self.rate:
                time.sleep(0)

    def stop(self):
        self.done.set()
        self.thread.join()


@case("HH-14", "interrupts without work, and work without interrupts")
def storm(b):
    device = b.fresh()
    conn = Conn(device)
    b.check("control", conn.connect() and conn.alive())
    before, begin = interrupts(b), time.monotonic()
    running = Storm(device.rings)
    good = True
    while good and running.count < 80000 and time.monotonic() < begin + 2 * b.patience:
        good = conn.alive()
    answered = b.sh("echo here").strip()
    running.stop()
    took = time.monotonic() - begin
    b.check("storm/traffic", good)
    b.equal("storm/guest", answered, "here")
    b.note(f"{running.count} notifications, {interrupts(b) - before} interrupts in {took:.1f} s")
    b.check("storm/after", conn.alive() and b.alive())

    device.silent = True
    start = time.monotonic()
    text = b.sh(f"{PEER} try 2 {ECHO}").strip()
    b.check("none/connect-times-out", text == "connect ETIMEDOUT", text)
    b.check("none/in-time", time.monotonic() - start < 10 * b.patience)
    device.silent = False
    for ring in device.rings:
        ring.notify()
    b.check("none/after", b.alive())


@case("HH-20", "interrupts before the driver is ready")
def early(b):
    storms = []

    def connected(ring):
        if ring.call is not None:
            storms.append(Storm([ring], 4000))

    b.unplug()
    device = b.plug(start=False)
    device.on_call = connected
    b.check("probe", b.up(device) and b.alive())
    for n in range(5):
        b.check(f"bind-{n}", b.rebind() and b.alive())
    b.note(f"{len(storms)} storms")
    device.on_call = None
    for one in storms:
        one.stop()
    b.check("after", b.rebind() and b.alive())


@case("HH-20-used", "a buffer that is used before the driver gave any")
def hasty(b):
    device = b.good()
    hasty_ones = []

    def connected(ring):
        if ring is device.rings[RX] and ring.call is not None and ring.running:
            ring.push(0, 44)
            ring.notify()
            hasty_ones.append(ring)

    device.on_call = connected
    began = b.rebind()
    device.on_call = None
    b.check("hasty", hasty_ones)
    b.note(f"{len(hasty_ones)} times; the driver {'came up' if began else 'gave up'}")
    b.check("after", b.rebind() and b.alive())


skip("HH-20-reset", "interrupts while the device is reset, before it has its driver",
     "QEMU connects a back end to interrupts with DRIVER_OK only; what a callback uses is stored "
     "before the queues are found (rust/kernel_ext/virtio.rs)")
