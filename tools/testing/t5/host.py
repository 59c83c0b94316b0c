# SPDX-License-Identifier: GPL-2.0
"""Packets, an honest host on top of a device, and single connections to the guest."""

import struct
import time

from vhost_user import WAIT

HEADER = struct.Struct("<QQIIIHHIII")
REQUEST, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST = range(1, 8)
STREAM, SEQPACKET = 1, 2
EOM = 1
HOST = 2
BUFFER = 4076                   # a receive buffer of the guest that is not busy: header and payload
PAYLOAD = BUFFER - HEADER.size
ALLOC = 256 << 10

# Ports of the honest host.
ECHO, HOLD, SILENT = 7000, 7002, 7004
# Ports of vsock_peer in the guest.
GUEST_ECHO = 5000
# A port of the guest at which nobody is.
NOBODY = 4998


def header(op, src, dst, length=0, ty=STREAM, flags=0, alloc=ALLOC, fwd=0):
    return HEADER.pack(src[0], dst[0], src[1], dst[1], length, ty, op, flags, alloc, fwd & 0xffffffff)


def is_own(found, written):
    """Whether there is nothing but what we wrote, or zeroes."""
    return len(found) == len(written) and (
        found == written or all(a in (0, b) for a, b in zip(found, written)))


class Packet:
    def __init__(self, data):
        (self.src_cid, self.dst_cid, self.sport, self.dport, self.len, self.ty, self.op, self.flags,
         self.alloc, self.fwd) = HEADER.unpack(data[:HEADER.size])
        self.data = data[HEADER.size:]

    def __repr__(self):
        return (f"<op {self.op} type {self.ty} {self.src_cid}:{self.sport} to "
                f"{self.dst_cid}:{self.dport} len {self.len} flags {self.flags}>")


class Host:
    """Answers connections of the guest as a host should."""

    def __init__(self, device):
        self.device = device
        self.open = {}          # (guest's port, ours) -> bytes taken
        self.modes = {ECHO: "echo", ECHO + 1: "echo", HOLD: "hold", HOLD + 1: "hold",
                      SILENT: "silent"}
        self.alloc = ALLOC
        device.listener = self.packet

    def packet(self, data):
        """Called with the device locked. False: somebody else's."""
        p = Packet(data)
        mode = self.modes.get(p.dport)
        if mode is None:
            return False
        key = p.sport, p.dport
        if p.op == REQUEST:
            if mode != "silent":
                self.open[key] = 0
                self.answer(p, RESPONSE)
        elif key not in self.open:
            if p.op != RST and mode != "silent":
                self.answer(p, RST)
        elif p.op == RW and mode == "echo":
            self.open[key] += p.len
            for at in range(0, p.len, PAYLOAD):
                piece = p.data[at:at + PAYLOAD]
                last = at + PAYLOAD >= p.len
                self.answer(p, RW, piece, p.flags if last else 0)
        elif p.op == CREDIT_REQUEST:
            self.answer(p, CREDIT_UPDATE)
        elif p.op == SHUTDOWN and p.flags == 3:
            self.answer(p, RST)
            del self.open[key]
        elif p.op == RST:
            del self.open[key]
        return True

    def answer(self, p, op, data=b"", flags=0):
        self.device.outbox.append(header(
            op, (p.dst_cid, p.dport), (p.src_cid, p.sport), len(data), p.ty, flags, self.alloc,
            self.open.get((p.sport, p.dport), 0)) + data)


class Conn:
    """A connection of ours, or of another guest, to a port of the guest."""

    port = 20000

    def __init__(self, device, dport=GUEST_ECHO, ty=STREAM, cid=HOST):
        Conn.port += 1
        self.device, self.port, self.dport, self.ty, self.fwd = device, Conn.port, dport, ty, 0
        self.cid = cid

    def header(self, op, length=0, **more):
        more.setdefault("fwd", self.fwd)
        more.setdefault("ty", self.ty)
        return header(op, (self.cid, self.port), (self.device.cid, self.dport), length, **more)

    def tell(self, op, length=0, **more):
        return self.device.send(self.header(op, length, **more))

    def data(self, data, used=None, **more):
        if self.ty == SEQPACKET:
            more.setdefault("flags", EOM)
        return self.device.send(self.header(RW, len(data), **more) + data, used)

    def take(self, *ops, wait=WAIT):
        """The next packet of this connection with one of these operations."""
        return take(self.device, lambda p: p.dport == self.port and p.sport == self.dport and
                    p.dst_cid == self.cid and (not ops or p.op in ops), wait)

    def connect(self):
        self.tell(REQUEST)
        answer = self.take(RESPONSE, RST)
        return answer is not None and answer.op == RESPONSE

    def echo(self, size, wait=WAIT):
        """What comes back, until there are `size` bytes or none come any more."""
        got, end = b"", time.monotonic() + wait
        while len(got) < size and time.monotonic() < end:
            p = self.take(RW, RST, wait=max(0.05, end - time.monotonic()))
            if p is None or p.op == RST:
                break
            got += p.data
            self.fwd += p.len
        return got

    def alive(self):
        self.data(b"x")
        return self.echo(1) == b"x"

    def reset(self):
        self.tell(RST)


def take(device, match, wait=WAIT):
    end = time.monotonic() + wait
    while True:
        with device.lock:
            for number, data in enumerate(device.sent):
                p = Packet(data)
                if match(p):
                    del device.sent[number]
                    return p
        if time.monotonic() > end:
            return None
        time.sleep(0.001)


def said(device):
    """What the guest says until it answers a packet for nobody, which comes after all that came before."""
    marker, got = Conn(device, NOBODY), []
    marker.tell(RW)
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        got += drain(device, 0.02)
        for number, p in enumerate(got):
            if (p.op, p.sport, p.dport) == (RST, NOBODY, marker.port):
                return got[:number] + got[number + 1:]
    return [*got, "nothing to a packet for nobody"]


def drain(device, wait):
    """What the guest says until it has been silent for so long."""
    got, quiet = [], time.monotonic() + wait
    while time.monotonic() < quiet:
        with device.lock:
            if device.sent:
                got += map(Packet, device.sent)
                device.sent.clear()
                quiet = time.monotonic() + wait
        time.sleep(0.005)
    return got
