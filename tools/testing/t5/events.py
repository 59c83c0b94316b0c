# SPDX-License-Identifier: GPL-2.0
"""Events of the device, good and bad.

QEMU owns the event queue, and uses it only after a migration. But its ring is in the guest's
memory, which is ours, too; QEMU tells where. And a device with few vectors has one interrupt for
all of its queues, which we can raise.
"""

import struct
import threading
import time

from bench import PEER, RESET, case
from host import REQUEST, Conn
from rings import INTERVAL, restarted
from vhost_user import RX, Ring

TRANSPORT_RESET = 0


class Events(Ring):
    def __init__(self, b):
        super().__init__()
        self.bench, self.device = b, b.device
        status = b.machine.qmp("x-query-virtio-queue-status", queue=2,
                               path=f"/machine/peripheral/{b.name}/virtio-backend")
        self.num = status["vring-num"]
        self.place(self.device.memory, status["vring-desc"], status["vring-used"],
                   status["vring-avail"], "gpa")

    def notify(self):
        self.device.rings[RX].notify()

    def say(self, content, length=None, wait=5.0):
        """An event with these bytes; the driver is told later."""
        end = time.monotonic() + wait
        while (chain := self.pop()) is None:
            if time.monotonic() > end:
                return False
            self.notify()
            time.sleep(0.001)
        place, size, _ = chain.parts[0]
        place.write(0, content[:size])
        self.push(chain.head, len(content) if length is None else length)
        return True


def reset():
    return struct.pack("<I", TRANSPORT_RESET)


def device(b):
    """With two vectors: one for the configuration, one for the queues."""
    b.fresh(vectors=2)
    return Events(b)


def new_cid(b, cid):
    """QEMU learns it; the driver reads it when there is an event."""
    b.device.cid = cid
    b.device.config_changed()


@case("HH-23", "the transport was reset, with another address")
def transport_reset(b):
    events = device(b)
    b.check("control", b.alive())
    for cid in (4, 5):
        b.block()
        new_cid(b, cid)
        events.say(reset())
        events.notify()
        b.equal(f"cid-{cid}/sockets", b.blocked(), RESET)
        b.equal(f"cid-{cid}/taken", b.sh(f"{PEER} cid").strip(), str(cid))
        # The listener is the one that was there all the time.
        b.check(f"cid-{cid}/listener", b.alive())
    for cid in (1, 2, 0, 0xffffffff, (1 << 32) + 6):
        new_cid(b, cid)
        events.say(reset())
        events.notify()
        time.sleep(0.2 * b.patience)
        b.equal(f"cid-{cid:#x}/refused", b.sh(f"{PEER} cid").strip(), "5")
    new_cid(b, 5)
    b.check("alive", b.alive())


@case("HH-23-early", "a packet for another address comes before the event that tells it")
def early(b):
    """After a restore the host may connect before the driver has seen the event: it is answered."""
    events = device(b)
    b.check("control", b.alive())
    former = Conn(b.device)
    b.check("former/control", former.connect() and former.alive())
    b.block()
    new_cid(b, 4)
    # The device model tells QEMU, without an answer.
    time.sleep(0.2 * b.patience)
    conn = Conn(b.device)
    b.check("accepted", conn.connect() and conn.alive())
    b.equal("taken", b.sh(f"{PEER} cid").strip(), "4")
    b.equal("former/sockets", b.blocked(), RESET)
    b.check("former/ended", not former.alive())
    # The event is about what was before the address.
    events.say(reset())
    events.notify()
    time.sleep(0.1 * b.patience)
    b.check("spared", conn.alive())
    # The next one is about all there is.
    events.say(reset())
    events.notify()
    time.sleep(0.1 * b.patience)
    b.check("next-event", not conn.alive())
    # An address that is none is not taken.
    new_cid(b, 2)
    time.sleep(0.2 * b.patience)
    b.device.send(conn.header(REQUEST))
    time.sleep(0.1 * b.patience)
    b.equal("bad", b.sh(f"{PEER} cid").strip(), "4")
    new_cid(b, 4)
    time.sleep(0.2 * b.patience)
    b.check("after", b.alive())


@case("HH-21-torn", "an address that changes while it is read")
def torn(b):
    """Halves of two addresses make no third one."""
    events = device(b)
    done = threading.Event()
    changes = 0

    def change():
        nonlocal changes
        while not done.is_set():
            for cid in (5 << 32, 9):
                new_cid(b, cid)
                changes += 1

    new_cid(b, 9)
    thread = threading.Thread(target=change)
    thread.start()
    seen = set()
    try:
        for _ in range(15):
            for _ in range(100):
                events.say(reset())
                events.notify()
                time.sleep(0.0002)
            seen.add(b.sh(f"{PEER} cid").strip())
    finally:
        done.set()
        thread.join()
    b.note(f"{changes} changes; the guest had {sorted(seen)}")
    b.check("whole", seen <= {"3", "9"} and "9" in seen, seen)
    new_cid(b, 9)
    b.check("after", b.alive())


@case("HH-23-unknown", "events that there are not, and lengths that are none")
def unknown(b):
    events = device(b)
    conn = Conn(b.device)
    b.check("control", conn.connect() and conn.alive())
    for name, content, length in (
            ("id-1", b"\1\0\0\0", None), ("id-all", b"\xff\xff\xff\xff", None),
            ("len-0", reset(), 0), ("len-3", reset(), 3), ("len-5", reset(), 5),
            ("len-all", reset(), 0xffffffff)):
        b.check(f"{name}/taken", events.say(content, length))
        events.notify()
        time.sleep(0.05 * b.patience)
        b.check(f"{name}/ignored", conn.alive())
    # All buffers came back each time.
    for _ in range(40):
        events.say(b"\1\0\0\0")
        events.notify()
    b.check("many", conn.alive())
    conn.reset()


@case("HH-23-storm", "10000 resets in a row")
def storm(b):
    events = device(b)
    b.block()
    start = time.monotonic()
    count = 0
    for n in range(10000):
        count += events.say(reset())
        if n % 4 == 3:
            events.notify()
        if n % 2500 == 1000:
            begin = time.monotonic()
            b.equal(f"answers-{n}", b.sh("echo here").strip(), "here")
            b.check(f"in-time-{n}", time.monotonic() - begin < 5 * b.patience)
    events.notify()
    b.note(f"{count} events in {time.monotonic() - start:.1f} s")
    b.equal("all-taken", count, 10000)
    b.equal("sockets", b.blocked(), RESET)
    time.sleep(0.1 * b.patience)
    b.check("alive", b.alive())
    # The guest does not look at its sockets for each of them, but does so after the last one.
    survived = 0
    for _ in range(20):
        events.say(reset())
        events.notify()
        conn = Conn(b.device)
        conn.connect()
        events.say(reset())
        events.notify()
        time.sleep(0.05 * b.patience)
        survived += conn.alive()
    b.equal("last", survived, 0)
    b.check("after", b.alive())


@case("HH-23-broken", "an event in a buffer that the device does not have")
def event_broken(b):
    for head in (8, 200, 0xffffffff):
        events = device(b)
        time.sleep(INTERVAL + 0.2)
        b.check(f"{head:#x}/control", b.alive())
        b.block()
        begin, starts = b.begin(), b.device.starts
        events.push(head, 4)
        events.notify()
        restarted(b, f"{head:#x}", begin, starts)
