# SPDX-License-Identifier: GPL-2.0
"""A guest played by a program: /dev/vhost-vsock, memory, split rings, packets.

Everything of the device's interface is here by its numbers, not by a library
that might think for us. Addresses of memory come from array.buffer_info().
"""

import array
import errno
import fcntl
import os
import select
import socket
import struct
import time

PATH = "/dev/vhost-vsock"


class Skip(Exception):
    """A case cannot run here."""


def _io(direction, number, size):
    return direction << 30 | size << 16 | 0xAF << 8 | number


R, W, WR = 2, 1, 3
GET_FEATURES = _io(R, 0x00, 8)
SET_FEATURES = _io(W, 0x00, 8)
SET_OWNER = _io(0, 0x01, 0)
RESET_OWNER = _io(0, 0x02, 0)
SET_MEM_TABLE = _io(W, 0x03, 8)
NEW_WORKER = _io(R, 0x08, 4)
FREE_WORKER = _io(W, 0x09, 4)
SET_VRING_NUM = _io(W, 0x10, 8)
SET_VRING_ADDR = _io(W, 0x11, 40)
SET_VRING_BASE = _io(W, 0x12, 8)
GET_VRING_BASE = _io(WR, 0x12, 8)
SET_VRING_ENDIAN = _io(W, 0x13, 8)
GET_VRING_ENDIAN = _io(W, 0x14, 8)
ATTACH_VRING_WORKER = _io(W, 0x15, 8)
GET_VRING_WORKER = _io(WR, 0x16, 8)
SET_VRING_KICK = _io(W, 0x20, 8)
SET_VRING_CALL = _io(W, 0x21, 8)
SET_VRING_ERR = _io(W, 0x22, 8)
SET_VRING_BUSYLOOP = _io(W, 0x23, 8)
GET_VRING_BUSYLOOP = _io(W, 0x24, 8)
SET_BACKEND_FEATURES = _io(W, 0x25, 8)
GET_BACKEND_FEATURES = _io(R, 0x26, 8)
SET_GUEST_CID = _io(W, 0x60, 8)
SET_RUNNING = _io(W, 0x61, 4)
SET_FORK_FROM_OWNER = _io(W, 0x84, 1)
GET_FORK_FROM_OWNER = _io(R, 0x85, 1)

SEQPACKET, NOTIFY_ON_EMPTY = 1 << 1, 1 << 24
INDIRECT, EVENT_IDX, VERSION_1 = 1 << 28, 1 << 29, 1 << 32

NEXT, WRITE, INDIRECT_DESC = 1, 2, 4
RX, TX = 0, 1

OP_REQUEST, OP_RESPONSE, OP_RST, OP_SHUTDOWN, OP_RW, OP_CREDIT_UPDATE = 1, 2, 3, 4, 5, 6
STREAM = 1
HEADER = struct.Struct("<QQIIIHHIII")
assert HEADER.size == 44


class Memory:
    """Memory at a known address, aligned to pages."""

    def __init__(self, size):
        self.array = array.array("B", bytes(size + 4096))
        address = self.array.buffer_info()[0]
        self.base = (address + 4095) & ~4095
        self.view = memoryview(self.array)[self.base - address:][:size]
        self.size = size

    def write(self, at, data):
        self.view[at:at + len(data)] = data

    def read(self, at, length):
        return bytes(self.view[at:at + length])

    def put(self, form, at, *values):
        struct.pack_into(form, self.view, at, *values)

    def get(self, form, at):
        return struct.unpack_from(form, self.view, at)[0]


class Ring:
    """The driver's side of a split ring in `memory`, where guest and owner addresses differ by
    a constant."""

    def __init__(self, memory, at, size, base=0, order="<"):
        self.memory, self.size, self.order = memory, size, order
        self.desc = at
        self.avail = at + 16 * size
        self.used = (self.avail + 6 + 2 * size + 3) & ~3
        self.end = self.used + 6 + 8 * size
        self.next_avail = base & 0xFFFF
        self.next_used = 0
        memory.put(order + "H", self.avail + 2, self.next_avail)
        memory.put(order + "H", self.used + 2, 0)

    def set_desc(self, index, address, length, flags=0, following=0):
        self.memory.put(self.order + "QIHH", self.desc + 16 * index, address, length, flags,
                        following)

    def offer(self, head):
        slot = self.next_avail % self.size
        self.memory.put(self.order + "H", self.avail + 4 + 2 * slot, head)
        self.next_avail = (self.next_avail + 1) & 0xFFFF

    def publish(self):
        self.memory.put(self.order + "H", self.avail + 2, self.next_avail)

    def used_idx(self):
        return self.memory.get(self.order + "H", self.used + 2)

    def take(self):
        """The next used entry as (head, length), or None."""
        if self.used_idx() == self.next_used:
            return None
        at = self.used + 4 + 8 * (self.next_used % self.size)
        entry = struct.unpack_from(self.order + "II", self.memory.view, at)
        self.next_used = (self.next_used + 1) & 0xFFFF
        return entry

    def set_flags(self, flags):
        self.memory.put(self.order + "H", self.avail, flags)

    def set_used_event(self, index):
        self.memory.put(self.order + "H", self.avail + 4 + 2 * self.size, index & 0xFFFF)


class Device:
    """An open /dev/vhost-vsock; calls return 0 or an errno."""

    def __init__(self, fd=None):
        self.fd = os.open(PATH, os.O_RDWR | os.O_CLOEXEC) if fd is None else fd
        self.out = b""

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def call(self, request, argument=0):
        """`argument`: bytes of a structure, or a number that is passed as it is."""
        try:
            if isinstance(argument, int):
                fcntl.ioctl(self.fd, request, argument)
            else:
                buffer = bytearray(argument)
                fcntl.ioctl(self.fd, request, buffer, True)
                self.out = bytes(buffer)
        except OSError as error:
            return error.errno
        return 0

    def must(self, request, argument=0):
        status = self.call(request, argument)
        if status:
            raise AssertionError(f"ioctl {request:#x}: {errno.errorcode.get(status, status)}")

    def u64(self, request, value):
        return self.call(request, struct.pack("=Q", value))

    def state(self, request, index, number=0):
        return self.call(request, struct.pack("=II", index, number))

    def file(self, request, index, fd):
        return self.call(request, struct.pack("=Ii", index, fd))

    def set_cid(self, cid):
        return self.u64(SET_GUEST_CID, cid)

    def set_running(self, on):
        return self.call(SET_RUNNING, struct.pack("=i", on))

    def number(self):
        """The second half of the structure that the last call returned."""
        return struct.unpack("=II", self.out)[1]

    def regions(self, regions):
        """regions: [(guest address, size, owner's address)]"""
        table = struct.pack("=II", len(regions), 0)
        table += b"".join(struct.pack("=QQQQ", *region, 0) for region in regions)
        return self.call(SET_MEM_TABLE, table)

    def info(self):
        """What /proc/self/fdinfo says, as {key: text}."""
        with open(f"/proc/self/fdinfo/{self.fd}") as file:
            return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


GUEST_BASE = 0x100000       # the guest's address of the first byte of Memory
SLOT = 4096                 # one packet


class Guest:
    """A device with an owner, two rings and buffers for them, ready to be started.

    Guest memory: the rings of RX and TX, then `buffers` slots for each of them.
    """

    def __init__(self, cid, size=128, features=VERSION_1, base=0, buffers=None, device=None,
                 order="<", setup=None):
        self.cid, self.features = cid, features
        self.device = device or Device()
        self.buffers = min(size, buffers or 64)
        ring = 32 * size + 8192
        self.memory = Memory(2 * ring + 2 * self.buffers * SLOT)
        self.rings = [Ring(self.memory, index * ring, size, base, order) for index in (RX, TX)]
        self.slots = [2 * ring, 2 * ring + self.buffers * SLOT]
        self.kick = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2)]
        self.calls = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2)]
        self.errors = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2)]
        self.free = list(range(self.buffers))
        if setup:
            setup(self.device)
        if cid is not None:
            status = self.device.set_cid(cid)
            assert not status, errno.errorcode[status]
        self.device.must(SET_OWNER)
        self.configure(base)

    def configure(self, base=0):
        device, memory = self.device, self.memory
        device.must(SET_FEATURES, struct.pack("=Q", self.features))
        assert device.regions([(GUEST_BASE, memory.size, memory.base)]) == 0
        for index, ring in enumerate(self.rings):
            device.must(SET_VRING_NUM, struct.pack("=II", index, ring.size))
            device.must(SET_VRING_BASE, struct.pack("=II", index, base))
            device.must(SET_VRING_ADDR, struct.pack(
                "=IIQQQQ", index, 0, memory.base + ring.desc, memory.base + ring.used,
                memory.base + ring.avail, 0))
            assert device.file(SET_VRING_KICK, index, self.kick[index]) == 0
            assert device.file(SET_VRING_CALL, index, self.calls[index]) == 0
            assert device.file(SET_VRING_ERR, index, self.errors[index]) == 0

    def start(self):
        self.device.must(SET_RUNNING, struct.pack("=i", 1))
        return self

    def stop(self):
        self.device.must(SET_RUNNING, struct.pack("=i", 0))

    def close(self):
        self.device.close()
        for fd in self.kick + self.calls + self.errors:
            os.close(fd)
        self.kick = self.calls = self.errors = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def kick_queue(self, index):
        os.eventfd_write(self.kick[index], 1)

    # --- packets ---------------------------------------------------------------

    def slot(self, queue, index):
        return self.slots[queue] + index * SLOT

    def give(self, count=None):
        """Offers buffers to the device."""
        ring = self.rings[RX]
        for index in range(self.buffers if count is None else count):
            ring.set_desc(index, GUEST_BASE + self.slot(RX, index), SLOT, WRITE)
            ring.offer(index)
        ring.publish()
        self.kick_queue(RX)

    def give_again(self, head):
        self.rings[RX].offer(head)
        self.rings[RX].publish()
        self.kick_queue(RX)

    def header(self, op, src_port, dst_port, length=0, flags=0, credit=(1 << 18, 0)):
        return HEADER.pack(self.cid, 2, src_port, dst_port, length, STREAM, op, flags, *credit)

    def send(self, op, src_port, dst_port, payload=b"", flags=0, credit=(1 << 18, 0), kick=True):
        """Puts a packet into the TX ring; waits for room."""
        ring = self.rings[TX]
        self.reap()
        end = time.monotonic() + 10
        while not self.free:
            assert time.monotonic() < end, "the device does not take packets"
            time.sleep(0.001)
            self.reap()
        index = self.free.pop()
        data = self.header(op, src_port, dst_port, len(payload), flags, credit) + payload
        self.memory.write(self.slot(TX, index), data)
        ring.set_desc(index, GUEST_BASE + self.slot(TX, index), len(data))
        ring.offer(index)
        ring.publish()
        if kick:
            self.kick_queue(TX)

    def reap(self):
        while (entry := self.rings[TX].take()) is not None:
            self.free.append(entry[0])

    def receive(self, seconds=5):
        """The next packet from the host as (header fields, payload), its buffer given back."""
        ring = self.rings[RX]
        end = time.monotonic() + seconds
        while (entry := ring.take()) is None:
            left = end - time.monotonic()
            if left <= 0:
                return None
            poll = select.poll()
            poll.register(self.calls[RX], select.POLLIN)
            if poll.poll(min(left, 0.05) * 1000):
                os.eventfd_read(self.calls[RX])
        head, length = entry
        data = self.memory.read(self.slot(RX, head), length)
        self.give_again(head)
        return HEADER.unpack(data[:44]), data[44:]

    def expect(self, op, seconds=5):
        packet = self.receive(seconds)
        assert packet is not None, f"no packet with op {op}"
        assert packet[0][6] == op, f"op {packet[0][6]} instead of {op}"
        return packet

    def alive(self, port=4321):
        """The shortest round trip: a REQUEST for a port of nobody is answered with RST."""
        self.send(OP_REQUEST, port, 9999)
        fields, _ = self.expect(OP_RST)
        assert fields[0] == 2 and fields[1] == self.cid and fields[3] == port, fields

    def accept(self, seconds=5):
        """Answers the REQUEST of a program of the host; returns (its port, ours)."""
        fields, _ = self.expect(OP_REQUEST, seconds)
        self.send(OP_RESPONSE, fields[3], fields[2])
        return fields[2], fields[3]

    def queue(self, index):
        return self.device.info()[f"queue{index}"]


def connect(cid, port, seconds=5):
    """Connects a socket of the host; returns (socket or None, errno, seconds)."""
    sock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    sock.settimeout(seconds)
    begin = time.monotonic()
    try:
        sock.connect((cid, port))
        return sock, 0, time.monotonic() - begin
    except OSError as error:
        sock.close()
        status = error.errno
        if status is None:
            status = errno.ETIMEDOUT
        return None, status, time.monotonic() - begin


class Child:
    """A process of its own that runs `function(report, wait)`: report(text) sends a line to us,
    wait() waits until we say so by go()."""

    alive = set()

    def __init__(self, function):
        (self.reader, writer), (reader, self.writer) = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.close(self.reader)
                os.close(self.writer)
                function(lambda text: os.write(writer, (text + "\n").encode()),
                         lambda: os.read(reader, 1))
                status = 0
            except BaseException as error:      # to be told to the parent
                os.write(writer, f"child: {type(error).__name__} {error}\n".encode())
            finally:
                os._exit(status)
        os.close(writer)
        os.close(reader)
        self.buffer = b""
        Child.alive.add(self)

    @classmethod
    def end_all(cls):
        """Kills those that a case left behind."""
        for child in list(cls.alive):
            child.kill()

    def line(self, seconds=20):
        end = time.monotonic() + seconds
        while b"\n" not in self.buffer:
            poll = select.poll()
            poll.register(self.reader, select.POLLIN)
            if not poll.poll(max(0, end - time.monotonic()) * 1000):
                raise AssertionError("the child says nothing")
            data = os.read(self.reader, 65536)
            if not data:
                raise AssertionError("the child ended")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        text = line.decode()
        assert not text.startswith("child: "), text
        return text

    def go(self):
        os.write(self.writer, b"x")

    def wait(self, seconds=20):
        """Its status, and how long it took to end."""
        begin = time.monotonic()
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                Child.alive.discard(self)
                os.close(self.reader)
                os.close(self.writer)
                return status, time.monotonic() - begin
            if time.monotonic() - begin > seconds:
                raise AssertionError(f"the child does not end within {seconds} s")
            time.sleep(0.005)

    def kill(self, signal=9):
        os.kill(self.pid, signal)
        return self.wait()


class KernelLog:
    """What the kernel says from now on."""

    def __init__(self):
        self.fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self.fd, 0, os.SEEK_END)

    def lines(self):
        found = []
        while True:
            try:
                found.append(os.read(self.fd, 8192).decode(errors="replace").split(";", 1)[1])
            except BlockingIOError:
                return found
            except BrokenPipeError:     # overwritten before it was read
                continue


def signalled(fd):
    """How often an eventfd was signalled since the last time."""
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0


def until(what, seconds=5, step=0.01):
    """Waits until what() is true."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(step)
    return True
