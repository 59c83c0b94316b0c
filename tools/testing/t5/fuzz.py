# SPDX-License-Identifier: GPL-2.0
"""Everything at once, at random; the seed says which."""

import time

from bench import PEER, case
from events import Events
from host import (ALLOC, BUFFER, ECHO, GUEST_ECHO, HEADER, HOLD, HOST, PAYLOAD, REQUEST, RST, SILENT,
                  Conn)
from vhost_user import RX, TX

CIDS = (0, 1, 2, 3, 4, 7, 0xffffffff, 1 << 32, (1 << 32) + 2, (1 << 32) + 3, (1 << 64) - 1)
LENGTHS = (0, 1, 43, 44, 45, 100, 144, 1000, PAYLOAD, PAYLOAD + 1, BUFFER, BUFFER + 1, 65536,
           0x7fffffff, 0xffffffff)
COUNTERS = (0, 1, 44, 4096, ALLOC - 1, ALLOC, 0x7fffffff, 0x80000000, 0xffffffff)
# Between two looks at whether the driver still works.
STRETCH = 1000


class Fuzz:
    def __init__(self, b):
        self.b, self.random = b, b.random
        self.conns, self.counts, self.done = [], {}, 0
        self.events = None
        # How often each is done, compared with the others.
        self.actions = [(self.any_packet, 400), (self.near_packet, 400), (self.lie, 60),
                        (self.connect, 30), (self.stall, 6), (self.interrupts, 20),
                        (self.event, 10), (self.config, 4), (self.garbage, 20), (self.wrong_used, 1)]

    def pick(self, of):
        return self.random.choice(of)

    def cid(self):
        return self.pick(CIDS) if self.random.random() < 0.3 else self.pick((HOST, 3))

    def any_packet(self):
        r = self.random
        length = self.pick(LENGTHS)
        head = HEADER.pack(self.cid(), self.cid(), self.pick((GUEST_ECHO, 6000, r.getrandbits(32))),
                           self.pick((GUEST_ECHO, GUEST_ECHO + 1, 4999, r.getrandbits(32))),
                           length, self.pick((0, 1, 1, 2, 3, r.getrandbits(16))),
                           self.pick((*range(9), r.getrandbits(16))), r.getrandbits(32),
                           self.pick(COUNTERS), self.pick(COUNTERS))
        self.send(head + r.randbytes(self.pick((0, 1, 100, PAYLOAD))))

    def near_packet(self):
        """Nearly right, for somebody who listens, or is connected."""
        r = self.random
        sport, dport = self.pick(self.conns) if self.conns and r.random() < 0.8 else \
            (self.pick((ECHO, HOLD, SILENT)), self.pick((GUEST_ECHO, GUEST_ECHO + 1)))
        size = self.pick((0, 1, 10, 100, 1000, PAYLOAD))
        head = HEADER.pack(HOST, self.b.device.cid, sport, dport, size, self.pick((1, 1, 1, 2)),
                           self.pick((1, 2, 3, 4, 5, 5, 5, 5, 6, 7)), self.pick((0, 1, 2, 3)),
                           ALLOC, self.pick((0, 0, size, r.getrandbits(32))))
        self.send(head + b"n" * size)

    def send(self, data):
        used = len(data) if self.random.random() < 0.7 else self.pick(LENGTHS)
        self.b.device.send(data, used, wait=0.2, notify=self.random.random() < 0.9)

    def lie(self):
        if self.conns:
            sport, dport = self.pick(self.conns)
            self.send(HEADER.pack(HOST, self.b.device.cid, sport, dport, 0, 1, 6, 0,
                                  self.pick(COUNTERS), self.pick(COUNTERS)))

    def connect(self):
        conn = Conn(self.b.device, GUEST_ECHO + (self.random.random() < 0.3))
        conn.tell(REQUEST, ty=1 + conn.dport - GUEST_ECHO)
        self.conns.append((conn.port, conn.dport))
        if len(self.conns) > 20:
            sport, dport = self.conns.pop(0)
            self.send(HEADER.pack(HOST, self.b.device.cid, sport, dport, 0, 1, RST, 0, 0, 0))

    def stall(self):
        device = self.b.device
        if self.random.random() < 0.5:
            device.consume = not device.consume
        else:
            device.silent = not device.silent

    def interrupts(self):
        for _ in range(self.random.randrange(30)):
            self.pick(self.b.device.rings).notify()

    def event(self):
        content = self.pick((b"\0\0\0\0", b"\1\0\0\0", self.random.randbytes(4)))
        self.events.say(content, self.pick((None, None, 0, 3, 5, 0xffffffff)), wait=0.01)
        self.events.notify()

    def config(self):
        for cid in (self.pick((4, 0, 2, 1 << 32)), 3):
            self.b.device.cid = cid
            self.b.device.config_changed()
            if self.random.random() < 0.5:
                self.event()

    def garbage(self):
        """Writes into a buffer that it does not use yet."""
        device = self.b.device
        with device.lock:
            ring = device.rings[RX]
            if device.ready(RX) and (head := ring.next()) is not None:
                place, size, _ = ring.chain(head).parts[0]
                place.write(0, self.random.randbytes(min(size, 200)))

    def wrong_used(self):
        """Breaks a queue, most of the time: what comes after it would not be seen."""
        device = self.b.device
        queue = self.pick((RX, TX))
        with device.lock:
            ring = device.rings[queue]
            if not device.ready(queue):
                return
            waiting = ring.waiting()
            if self.random.random() < 0.5:
                what = self.pick((0, 1, ring.num, self.random.getrandbits(32)))
                ring.push(what, self.pick(LENGTHS))
            else:
                by = self.pick((-1, 2, 100, 5000, self.random.getrandbits(16)))
                what = f"{by:+}"
                ring.publish(ring.used + by)
            self.b.note(f"{self.done}: queue {queue}, {waiting} of {ring.num} waiting: used {what}")
            ring.notify()
        self.look()

    def look(self):
        """Does the driver work, once the device is honest and it was bound again?"""
        if not self.b.check(f"works-after-{self.done}", self.settle()):
            self.b.fresh(vectors=2)
            self.events = Events(self.b)

    def settle(self):
        b = self.b
        device = b.device
        device.consume, device.silent = True, False
        device.poke()
        for ring in device.rings:
            ring.notify()
        time.sleep(0.3 * b.patience)        # it may just be restarted
        self.conns.clear()
        with device.lock:
            device.sent.clear()
        if not b.rebind():
            return False
        self.events = Events(b)
        with device.lock:
            device.sent.clear()
        return b.alive()

    def run(self, rounds):
        b = self.b
        names = [action for action, _ in self.actions]
        weights = [weight for _, weight in self.actions]
        b.fresh(vectors=2)
        self.events = Events(b)
        b.sh(f"{PEER} traffic 2 {ECHO} 100000 3 >/tmp/traffic 2>&1 &")
        try:
            for done in range(rounds):
                action = self.random.choices(names, weights)[0]
                self.counts[action.__name__] = self.counts.get(action.__name__, 0) + 1
                try:
                    action()
                except (LookupError, OSError):
                    pass        # the driver reset the device meanwhile
                self.done = done + 1
                if self.done % STRETCH == 0:
                    self.look()
            self.look()
        finally:
            b.sh("killall vsock_peer; sleep 0.2")
            b.listen()
        b.note(" ".join(f"{name} {count}" for name, count in sorted(self.counts.items())))


@case("HH-26", "all of it at random")
def fuzz(b):
    begin = time.monotonic()
    Fuzz(b).run(b.rounds)
    took = time.monotonic() - begin
    b.note(f"seed {b.seed}: {b.rounds} rounds in {took:.0f} s")
