# SPDX-License-Identifier: GPL-2.0
"""Packets that a host should not send: their addresses, lengths, types and times."""

import threading
import time

from bench import DRIVER_MODULE, PEER, case
from host import (BUFFER, CREDIT_REQUEST, CREDIT_UPDATE, ECHO, GUEST_ECHO, HEADER, HOST, PAYLOAD,
                  REQUEST, RESPONSE, RST, RW, SEQPACKET, SHUTDOWN, SILENT, STREAM, Conn, Packet,
                  header, is_own, said, take)
from vhost_user import RX


def connected(b, **more):
    conn = Conn(b.good(), **more)
    b.check("control", conn.connect() and conn.alive(), "an honest connection does not work")
    return conn


@case("HH-01", "packets for another machine")
def wrong_destination(b):
    device = b.good()
    for cid in (0, 1, 2, 4, 99, 0xffffffff, device.cid + (1 << 32), 1 << 63):
        said(device)
        device.send(header(REQUEST, (HOST, 6001), (cid, GUEST_ECHO)))
        b.equal(f"dst-cid-{cid:#x}", said(device), [])
    b.check("alive", b.alive())


@case("HH-01-zero", "a header of zeroes, as some hosts send one for a connection that is gone")
def zero_header(b):
    """The driver drops it, and says once which packet that was."""
    b.good()
    b.equal("unloaded", b.unload(DRIVER_MODULE), "")
    b.check("loaded-again", b.load())
    conn = connected(b)
    begin = b.begin()
    for _ in range(3):
        b.device.send(bytes(44))
    said = b.lines(begin, "dropped a packet")
    b.check("said-once", len(said) == 1 and
            "for another machine: 0:0 to 0:0, operation 0; no connection lost anything" in said[0], said)
    b.check("connection", conn.alive())
    conn.reset()


@case("HH-02", "packets from ourselves")
def own_source(b):
    device = b.good()
    for cid in (1, device.cid):
        said(device)
        device.send(header(REQUEST, (cid, 6001), (device.cid, GUEST_ECHO)))
        b.equal(f"src-cid-{cid:#x}", said(device), [])
    b.check("alive", b.alive())


@case("HH-03", "a source of 64 bits, reserved sources")
def wide_source(b):
    device = b.good()
    for cid in (HOST + (1 << 32), 0, 0xffffffff, 1 << 63):
        said(device)
        device.send(header(REQUEST, (cid, 6001), (device.cid, GUEST_ECHO)))
        b.equal(f"src-cid-{cid:#x}", said(device), [])
    b.check("alive", b.alive())


SIBLING = 7


@case("HH-04", "another machine, by way of the host")
def sibling(b):
    """`siblings`, a parameter of the driver, says whether it may open connections."""
    device = b.good()
    parameter = f"/sys/module/{DRIVER_MODULE}/parameters/siblings"
    b.equal("default", b.sh(f"cat {parameter}").strip(), "Y")
    conn = Conn(device, cid=SIBLING)
    b.check("Y/accepted", conn.connect() and conn.alive())
    conn.reset()
    b.equal("Y/connect", b.sh(f"{PEER} try {SIBLING} {ECHO}").strip(), "OK")

    b.equal("unloaded", b.unload(DRIVER_MODULE), "")
    b.check("N/loaded", b.load("siblings=N") and b.sh(f"cat {parameter}").strip() == "N")
    for ty in (STREAM, SEQPACKET):
        said(device)
        device.send(header(REQUEST, (SIBLING, 6001), (device.cid, GUEST_ECHO), ty=ty))
        b.equal(f"N/request-type-{ty}", said(device), [])
    # There is no connection with it: what is no request is answered, but not as that of a friend.
    for op in (RW, CREDIT_REQUEST):
        device.send(header(op, (SIBLING, 6001), (device.cid, GUEST_ECHO)))
        b.equal(f"N/op-{op}", [p.op for p in said(device)], [RST])
    # Whom a user of this machine asked may answer.
    b.equal("N/connect", b.sh(f"{PEER} try {SIBLING} {ECHO}").strip(), "OK")
    b.check("N/host", b.alive())

    b.equal("unloaded-again", b.unload(DRIVER_MODULE), "")
    b.check("after", b.load() and b.alive())


@case("HH-05", "used lengths too short for a header")
def short(b):
    conn = connected(b)
    for used in (0, 1, 43):
        conn.data(b"y" * 10, used=used)
        b.check(f"used-{used}", conn.echo(1, 0.3) == b"" and conn.alive())


@case("HH-06", "used lengths beyond the buffer")
def beyond(b):
    conn = connected(b)
    for used in (BUFFER + 1, 4096, 65536, 0x80000000, 0xffffffff):
        conn.data(b"y" * 10, used=used)
        b.check(f"used-{used:#x}", conn.echo(1, 0.3) == b"" and conn.alive())


@case("HH-07", "a header that promises more than there is")
def promise(b):
    conn = connected(b)
    for length, used in ((1000, 44), (1, 44), (PAYLOAD + 1, BUFFER), (0xffffffff, BUFFER),
                         (0xffffffff - 43, 44)):
        b.device.send(conn.header(RW, length) + b"z" * (used - 44), used=used)
        b.check(f"len-{length}-used-{used}", conn.echo(1, 0.3) == b"" and conn.alive())


@case("HH-08", "a packet as it should be")
def control(b):
    conn = connected(b)
    conn.data(b"z" * 100, used=144)
    b.equal("data", conn.echo(100), b"z" * 100)


@case("HH-08-parts", "how many parts a packet of the driver has")
def parts(b):
    """One, unless `split_header` wants the header to be a part of its own."""
    def echo(size):
        conn = connected(b)
        conn.data(b"z" * size)
        found = conn.echo(size)
        shape = list(b.device.shape)
        conn.reset()
        return found == b"z" * size and shape

    parameter = f"/sys/module/{DRIVER_MODULE}/parameters/split_header"
    b.equal("default", b.sh(f"cat {parameter}").strip(), "N")
    b.equal("N/64", echo(64), [44 + 64])
    b.equal("N/2000", echo(2000), [44 + 2000])
    b.equal("unloaded", b.unload(DRIVER_MODULE), "")
    b.check("Y/loaded", b.load("split_header=Y") and b.sh(f"cat {parameter}").strip() == "Y")
    b.equal("Y/64", echo(64), [44, 64])
    b.equal("unloaded-again", b.unload(DRIVER_MODULE), "")
    b.check("after", b.load() and b.alive())


@case("HH-09", "bytes behind the packet")
def trailing(b):
    conn = connected(b)
    b.device.send((conn.header(RW, 100) + b"a" * 100).ljust(1044, b"b"), used=1044)
    b.equal("data", conn.echo(100), b"a" * 100)
    b.check("no-more", conn.alive())


@case("HH-10", "a full buffer, and one byte more")
def full(b):
    conn = connected(b)
    for size in (PAYLOAD - 1, PAYLOAD):
        conn.data(b"q" * size)
        b.equal(f"payload-{size}", conn.echo(size), b"q" * size)
    b.device.send(conn.header(RW, PAYLOAD + 1) + b"q" * PAYLOAD, used=BUFFER)
    b.check(f"payload-{PAYLOAD + 1}", conn.echo(1, 0.3) == b"" and conn.alive())


# What a guest answers, by the state of whom the packet is for: ("type", "op") of the packet.
ODD = [(STREAM, 0), (STREAM, 8), (STREAM, 0xffff), (0, RW), (3, RW), (9, REQUEST), (0xffff, RW)]


def answers(b, conn, ty, op):
    said(b.device)
    conn.tell(op, ty=ty)
    return [p.op for p in said(b.device)]


@case("HH-11", "types and operations that there are not, in each state")
def odd(b):
    device = b.good()
    for ty, op in ODD:
        name = f"type-{ty:#x}-op-{op:#x}"
        b.equal(f"closed/{name}", answers(b, Conn(device, 4999), ty, op), [RST])
        b.equal(f"listening/{name}", answers(b, Conn(device), ty, op), [RST])

        conn = connected(b)
        expected = [] if ty == STREAM else [RST]
        b.equal(f"established/{name}", answers(b, conn, ty, op), expected)
        b.check(f"established/{name}/alive", conn.alive())
        conn.reset()

        # Somebody in the guest connects to us, and we say something odd instead of an answer.
        conn = asked(b)
        if conn is None:
            continue
        # Only an operation that is none is ignored, as a mistake of a host that knows more than we.
        expected = [] if (ty, op) == (STREAM, 0) else [RST]
        b.equal(f"connecting/{name}", answers(b, conn, ty, op), expected)
        conn.reset()
    b.check("alive", b.alive())


@case("HH-11-closing", "the same, while a connection is being closed")
def closing(b):
    conn = asked(b)
    if conn is None:
        return
    conn.tell(RESPONSE)
    p = conn.take(RW)
    conn.data(p.data)
    p = conn.take(SHUTDOWN, wait=5)
    b.check("shutdown", p is not None and p.flags == 3, p)
    for ty, op in ODD:
        b.equal(f"type-{ty:#x}-op-{op:#x}", answers(b, conn, ty, op), [] if ty == STREAM else [RST])
    b.equal("data", answers(b, conn, STREAM, RW), [])
    b.equal("rst", answers(b, conn, STREAM, RST), [])
    b.equal("gone", answers(b, conn, STREAM, RW), [RST])


def asked(b):
    """A connection that somebody in the guest wants; we have not answered."""
    said(b.device)
    b.sh(f"({PEER} try 2 {SILENT + 5000} >/tmp/try 2>&1 &) >/dev/null 2>&1")
    p = take(b.device, lambda p: p.op == REQUEST and p.dport == SILENT + 5000, 5 * b.patience)
    if not b.check("request", p is not None, "the guest did not connect"):
        return None
    conn = Conn(b.device, p.sport)
    conn.port = p.dport
    return conn


@case("HH-18", "a header that changes after it was used")
def changing(b):
    """The guest holds what it gets, so that no buffer is used for something else meanwhile."""
    size, wanted = 3000, 60
    device = b.good()
    b.sh(f"{PEER} late 5004 >/tmp/late 2>&1 & while ! grep -q listening /tmp/late; do sleep 0.05; done")
    conn = Conn(device, 5004)
    b.check("control", conn.connect())
    places, done = [], threading.Event()

    def change():
        flips = 0
        while not done.is_set():
            for place in list(places[-8:]):
                # The length, the operation and the port, as they were and as they must not be.
                for at, value in ((24, 60000), (24, size), (24, 10), (24, size), (28, 0xffff0001),
                                  (28, RW << 16 | STREAM), (20, 1), (20, 5004)):
                    place.set32(at, value)
                    flips += 1
        b.note(f"{flips} changes of headers")

    thread = threading.Thread(target=change)
    thread.start()
    packet = conn.header(RW, size) + b"f" * size
    sent = 0
    for _ in range(wanted):
        with device.buffer() as chain:
            if chain is None:
                break
            place = chain.parts[0][0]
            place.write(0, packet)
            places.append(place)
            time.sleep(0.002)
            device.rings[RX].push(chain.head, len(packet))
            device.rings[RX].notify()
        sent += 1
        time.sleep(0.005 * b.patience)
    done.set()
    thread.join()
    conn.tell(SHUTDOWN, flags=3)
    text = b.sh("touch /tmp/late.go; n=0; while ! grep -q late /tmp/late && [ $n -lt 100 ]; do "
                "sleep 0.05; n=$((n+1)); done; cat /tmp/late; rm -f /tmp/late.go")
    found = [int(word) for word in text.split() if word.isdigit()]
    b.note(f"{sent} packets: {text.split()}")
    # Each packet arrived as one of the things it was, or not at all.
    b.check("whole", len(found) == 2 and found[1] == 0 and
            any(found[0] == size * n + 10 * m for n in range(sent + 1)
                for m in range(sent + 1 - n)) and found[0] > 0, text)
    b.check("alive", b.alive())


@case("HH-19", "bytes that the host never wrote")
def unwritten(b):
    b.fresh()
    conn = connected(b)
    b.device.send(conn.header(RW, PAYLOAD), used=BUFFER)
    b.equal("zeroes", conn.echo(PAYLOAD), b"\0" * PAYLOAD)
    # A packet that somebody got before may be in the next one's buffer: what we wrote, and no more.
    count = b.device.rings[RX].num + 100
    for n in range(count):
        conn.data(b"s" * PAYLOAD)
        if conn.echo(PAYLOAD) != b"s" * PAYLOAD:
            b.check("traffic", False, f"packet {n}")
            break
    claim(b, conn, "own-bytes")
    posted(b, 8)
    b.fresh()


def claim(b, conn, name):
    """Says that the next buffer was filled, of which only the header was written."""
    with b.device.buffer() as chain:
        if chain is None:
            return b.check(name, False, "no buffer")
        place, size, _ = chain.parts[0]
        room = size - HEADER.size
        place.write(0, conn.header(RW, room))
        own = place.written(HEADER.size, room)
        b.device.rings[RX].push(chain.head, size)
        b.device.rings[RX].notify()
    got = conn.echo(room)
    b.check(name, is_own(got, own), f"{len(got)} of {room} bytes, not all of them ours")


def posted(b, least):
    """No buffer that the driver has posted has anything in it that is not ours. The largest one's size."""
    scanned, foreign, largest = b.scan()
    b.note(f"{scanned} posted buffers of up to {largest} bytes, a queue of {b.device.rings[RX].num}")
    b.check("posted", scanned >= least and foreign == 0,
            f"{foreign} of {scanned} posted buffers had something in them that is not ours")
    return largest


@case("HH-19-large", "bytes that the host never wrote, in the buffers that a busy device gets")
def unwritten_large(b):
    device = b.fresh()
    conn = connected(b)
    largest = 0
    for n in range(device.rings[RX].num * 4):
        with device.buffer() as chain:
            if chain is None:
                break
            place, size, _ = chain.parts[0]
            room = size - HEADER.size
            place.write(0, conn.header(RW, room) + bytes([n % 255 + 1]) * room)
            device.rings[RX].push(chain.head, size)
            device.rings[RX].notify()
        if conn.echo(room) != bytes([n % 255 + 1]) * room:
            b.check("traffic", False, f"packet {n} of {room} bytes")
            break
        largest = max(largest, size)
        if largest > 60000:
            break
    b.check("grown", 60000 < largest <= 64 << 10, f"buffers of up to {largest} bytes")
    # Those that were never written, and those that were.
    for n in range(3):
        claim(b, conn, f"own-bytes-{n}")
    b.check("posted-size", posted(b, 8) > 60000, "no large buffer")
    b.check("alive", b.alive())
    b.fresh()
