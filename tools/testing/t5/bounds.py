# SPDX-License-Identifier: GPL-2.0
"""A host that sends and takes without measure: what the guest spends on it."""

import time

from bench import PEER, case
from host import (ALLOC, CREDIT_REQUEST, CREDIT_UPDATE, GUEST_ECHO, HOLD, HOST, PAYLOAD, REQUEST,
                  RESPONSE, RST, RW, SHUTDOWN, Conn, drain, header, take)

FLOOD = 5000


def memory(b):
    """Kilobytes that the guest's kernel has allocated for itself."""
    text = b.sh("awk '/^SUnreclaim/ {print $2}' /proc/meminfo")
    return int(text.split()[-1])


def pages(b):
    """Kilobytes that are neither free nor known to be of users or files: pages of the kernel, too."""
    text = b.sh("awk '/^(MemFree|Buffers|Cached|SReclaimable|AnonPages):/ {n += $2} /^MemTotal:/ {t = $2} "
                "END {print t - n}' /proc/meminfo")
    return int(text.split()[-1])


def flood(b, name, make, count=FLOOD, most=None, limit=1000):
    """Sends packets while nothing of the guest is taken; its memory must not grow with them."""
    device = b.device
    drain(device, 0.1)
    before = memory(b)
    device.consume = False
    sent = 0
    while sent < count and device.send(make(sent), wait=0.5 * b.patience):
        sent += 1
    time.sleep(0.3 * b.patience)
    grown = memory(b) - before
    device.consume = True
    device.poke()
    got = drain(device, 0.5 * b.patience)
    b.note(f"{name}: {sent} packets taken, {grown} kB more, {len(got)} answers")
    b.check(f"{name}/memory", grown < limit, f"{grown} kB more after {sent} packets")
    if most is not None:
        b.check(f"{name}/answers", len(got) <= most, f"{len(got)} answers to {sent} packets")
    return sent, got


@case("HH-15", "floods, while nothing of the guest is taken")
def floods(b):
    device = b.fresh()
    ring = device.rings[0].num
    # As many answers as each of its queues holds: about 600 bytes for one.
    sent, got = flood(b, "request-unbound", lambda n: header(
        REQUEST, (HOST, 10000 + n), (device.cid, 4999)), limit=3 * ring)
    # Nobody's packets are dropped: the device is not served until the answers went out.
    b.check("request-unbound/throttled", sent <= 4 * ring, sent)
    b.check("request-unbound/all-answered", sum(p.op == RST for p in got) == sent, (sent, len(got)))

    # Each of these is a socket: up to 5 kB until the user has closed it.
    most = min(1000, 4 * ring)
    sent, got = flood(b, "request-listener", lambda n: header(
        REQUEST, (HOST, 30000 + n), (device.cid, GUEST_ECHO)), 1000, limit=5 * most)
    for p in got:
        if p.op == RESPONSE:
            device.send(header(RST, (HOST, p.dport), (device.cid, p.sport)))
    b.check("request-listener/throttled", sent <= 4 * ring, sent)

    conn = Conn(device)
    b.check("control", conn.connect() and conn.alive())
    # At most one waits, besides those that the ring holds.
    flood(b, "credit-request", lambda n: conn.header(CREDIT_REQUEST), most=ring + 2)
    b.check("credit-request/alive", conn.alive())
    flood(b, "credit-update", lambda n: conn.header(CREDIT_UPDATE), most=2)
    b.check("credit-update/alive", conn.alive())
    flood(b, "rst-unbound", lambda n: header(RST, (HOST, 10000 + n), (device.cid, 4999)), most=0)
    flood(b, "shutdown", lambda n: conn.header(SHUTDOWN, flags=0xffffffff), 1000)
    b.check("alive", b.alive())


def small_packets(b, name, make, limit):
    """What a reader that does not read can be made to keep."""
    device = b.device
    conn = Conn(device, 5005)
    b.check(f"{name}/control", conn.connect())
    before, pages_before = memory(b), pages(b)
    sent = 0
    end = time.monotonic() + 15 * b.patience
    while time.monotonic() < end and sent < 20000 and device.send(make(conn)):
        sent += 1
        if sent % 64 == 0 and conn.take(RST, wait=0):
            break
    time.sleep(0.2 * b.patience)
    grown, more = memory(b) - before, pages(b) - pages_before
    b.note(f"{name}: {sent} packets, {grown} kB more, {more} kB with pages")
    # And buffers that a busy device gets, and what lies about on processors.
    b.check(f"{name}/pages", more < limit + 2000, f"{more} kB more after {sent} packets")
    b.check(f"{name}/memory", grown < limit, f"{grown} kB more after {sent} packets")
    conn.reset()


@case("HH-15-unread", "packets for a user that does not read")
def unread(b):
    b.fresh()
    b.sh(f"{PEER} hold 5005 >/tmp/hold 2>&1 & while ! grep -q listening /tmp/hold; do sleep 0.05; done")
    # Memory twice as much as the credit of 256 KiB, and what the allocator adds.
    small_packets(b, "one-byte", lambda c: c.header(RW, 1) + b"x", 2000)
    small_packets(b, "empty", lambda c: c.header(RW), 2000)
    small_packets(b, "full", lambda c: c.header(RW, PAYLOAD) + b"x" * PAYLOAD, 2000)
    b.check("alive", b.alive())


@case("HH-16", "nothing of the guest is taken while a user writes")
def stuck(b):
    device = b.fresh()
    b.check("control", b.alive())
    before = memory(b)
    b.sh(f"{PEER} fill 2 {HOLD} {int(4 * b.patience)} >/tmp/fill 2>&1 & sleep 0.5")
    device.consume = False
    time.sleep(4 * b.patience)
    grown = memory(b) - before
    device.consume = True
    device.poke()
    text = b.sh("n=0; while ! grep -q fill /tmp/fill && [ $n -lt 200 ]; do sleep 0.05; n=$((n+1)); done; cat /tmp/fill")
    b.check("credit", text.split()[:1] == ["fill"] and int(text.split()[1]) <= ALLOC, text)
    b.check("memory", grown < 3000, f"{grown} kB more")
    b.check("alive", b.alive())


def accepted(b):
    """A connection from the guest to a port that the honest host knows nothing of."""
    drain(b.device, 0.02)
    b.sh(f"({PEER} fill 2 12345 {int(1 * b.patience)} >/tmp/fill 2>&1 &) >/dev/null 2>&1")
    p = take(b.device, lambda p: p.op == REQUEST and p.dport == 12345, 5 * b.patience)
    if not b.check("request", p is not None, "the guest did not connect"):
        return None
    conn = Conn(b.device, p.sport)
    conn.port = 12345
    return conn


def filled(b):
    text = b.sh(f"n=0; while ! grep -q fill /tmp/fill && [ $n -lt {int(200 * b.patience)} ]; do sleep 0.05; "
                "n=$((n+1)); done; cat /tmp/fill")
    words = text.split()
    return (int(words[1]), words[2]) if len(words) == 3 else (None, text)


def received(conn, wait):
    """Bytes of payload that come."""
    got, end = 0, time.monotonic() + wait
    while time.monotonic() < end:
        p = conn.take(RW, RST, wait=0.2)
        if p is not None and p.op == RST:
            break
        got += p.len if p else 0
    return got


@case("HH-17", "credit that is a lie")
def credit(b):
    b.fresh()
    own = 256 << 10                         # the guest's own buffer, to which it caps ours
    for name, alloc, most in (("none", 0, 0), ("some", 1000, 1000), ("all", 0xffffffff, own)):
        conn = accepted(b)
        if conn is None:
            return
        conn.tell(RESPONSE, alloc=alloc)
        taken, error = filled(b)
        b.check(f"buffer-{name}", taken is not None and taken <= most and error == "OK" and
                (taken > 0 or not most), (taken, error))
        conn.reset()

    # More given back than was sent, at once and later.
    for name, forward in (("ahead", 1), ("far-ahead", 0x7fffffff), ("wrapped", 0x80000001)):
        conn = accepted(b)
        if conn is None:
            return
        conn.tell(RESPONSE, alloc=0)
        conn.tell(CREDIT_UPDATE, alloc=0, fwd=forward)
        p = conn.take(RST)
        taken, error = filled(b)
        # What is half of the numbers ahead may be behind as well: that is no credit.
        b.check(f"forward-{name}", taken == 0 and
                (error == "EPROTO" and p is not None or forward > 0x7fffffff), (p, taken, error))

    # Given back, and then taken again.
    conn = accepted(b)
    if conn is None:
        return
    conn.tell(RESPONSE, alloc=4096)
    got = received(conn, 0.5 * b.patience)
    conn.tell(CREDIT_UPDATE, alloc=4096, fwd=got)
    got += received(conn, 0.5 * b.patience)
    for step in range(1, 40):
        conn.tell(CREDIT_UPDATE, alloc=4096 * (step % 2), fwd=got - step)
    more = received(conn, 0.5 * b.patience)
    taken, error = filled(b)
    b.check("backwards", taken is not None and taken <= got + more + 4096, (got, more, taken, error))
    b.check("alive", b.alive())
