# SPDX-License-Identifier: GPL-2.0
"""The device's end of vhost-user: messages, the guest's memory, split rings.

It does what it is told, honest or not. QEMU owns the event queue of a vsock
device and its configuration space; the two packet queues are ours.
"""

import array
import collections
import contextlib
import mmap
import os
import select
import socket
import struct
import threading
import time
import traceback

F_SEQPACKET, F_INDIRECT, F_EVENT_IDX = 1 << 1, 1 << 28, 1 << 29
F_PROTOCOL, F_VERSION_1, F_IN_ORDER = 1 << 30, 1 << 32, 1 << 35
FEATURES = F_SEQPACKET | F_INDIRECT | F_PROTOCOL | F_VERSION_1
PROTOCOL_FEATURES = 1 << 3 | 1 << 5 | 1 << 9        # REPLY_ACK, BACKEND_REQ, CONFIG
RX, TX, EVENT = 0, 1, 2
VERSION, REPLY, NEED_REPLY = 1, 4, 8
CONFIG_CHANGED = 2                                  # on the channel of the back end
# Seconds that a guest has for what it must do: it may be slow, where a machine has other things to do.
WAIT = 10.0


PAGE = 4096


class Region:
    """A piece of the guest's memory. Aligned numbers are written in one go.

    What was written is remembered: whatever else is found in a buffer that we may write, is of the guest.
    """

    def __init__(self, gpa, size, uva, offset, fd):
        self.gpa, self.size, self.uva, self.offset = gpa, size, uva, offset
        self.map = mmap.mmap(fd, offset + size)
        self.u8 = memoryview(self.map)
        self.u16, self.u32 = self.u8.cast("H"), self.u8.cast("I")
        self.pages = {}         # page of the mapping -> what was written there last, zeroes elsewhere

    def note(self, at, data):
        done = 0
        while done < len(data):
            page, start = divmod(at + done, PAGE)
            some = data[done:done + PAGE - start]
            self.pages.setdefault(page, bytearray(PAGE))[start:start + len(some)] = some
            done += len(some)

    def noted(self, at, size):
        found = b""
        while len(found) < size:
            page, start = divmod(at + len(found), PAGE)
            found += self.pages.get(page, bytes(PAGE))[start:start + size - len(found)]
        return bytes(found)


class Place:
    """An address of the guest, found in its region."""

    def __init__(self, region, offset):
        self.region, self.offset = region, offset

    def read(self, at, size):
        return bytes(self.region.u8[self.offset + at:self.offset + at + size])

    def write(self, at, data):
        self.region.note(self.offset + at, data)
        self.region.u8[self.offset + at:self.offset + at + len(data)] = data

    def written(self, at, size):
        """What was written there, zeroes if nothing was."""
        return self.region.noted(self.offset + at, size)

    def get16(self, at):
        return self.region.u16[(self.offset + at) >> 1]

    def get32(self, at):
        return self.region.u32[(self.offset + at) >> 2]

    def set16(self, at, value):
        self.region.note(self.offset + at, struct.pack("<H", value & 0xffff))
        self.region.u16[(self.offset + at) >> 1] = value & 0xffff

    def set32(self, at, value):
        self.region.note(self.offset + at, struct.pack("<I", value & 0xffffffff))
        self.region.u32[(self.offset + at) >> 2] = value & 0xffffffff


class Memory:
    def __init__(self, regions=()):
        self.regions = list(regions)

    def gpa(self, addr, size=1):
        return self._find(addr, size, "gpa")

    def uva(self, addr, size=1):
        return self._find(addr, size, "uva")

    def _find(self, addr, size, space):
        for region in self.regions:
            start = getattr(region, space)
            if start <= addr and addr + size <= start + region.size:
                return Place(region, addr - start + region.offset)
        raise LookupError(f"the guest has no memory at {addr:#x}")


Chain = collections.namedtuple("Chain", "head parts")       # parts: (Place, size, flags)


class Ring:
    """A split ring, of which both ends trust the other no further than they must.

    A buffer that was used without having been taken belongs to the driver again, maybe for something
    else: the next time that the driver seems to make it available does not count. What the guest's
    memory then has in it would be our doing, and no fault of the driver.
    """

    def __init__(self):
        self.num, self.places = 0, None
        self.last = self.used = 0
        self.taken, self.void = set(), collections.Counter()
        self.memory = None
        self.kick = self.call = None
        self.running = False

    def place(self, memory, desc, used, avail, space="uva"):
        find = memory.uva if space == "uva" else memory.gpa
        self.memory = memory
        self.places = find(desc), find(avail), find(used)

    def begin(self, index):
        """The driver has just started the queue."""
        self.last = self.used = index
        self.taken.clear()
        self.void.clear()

    def waiting(self):
        """How many buffers the driver has made available."""
        return (self.places[1].get16(2) - self.last) & 0xffff

    def head_at(self, index):
        return self.places[1].get16(4 + 2 * (index % self.num))

    def chain(self, head):
        table, parts, n, limit = self.places[0], [], head, 1024
        while limit:
            limit -= 1
            addr, size, flags, following = struct.unpack("<QIHH", table.read(16 * n, 16))
            if flags & 4:
                table, n = self.memory.gpa(addr, size), 0
                continue
            parts.append((self.memory.gpa(addr, size), size, flags))
            if not flags & 1:
                return Chain(head, parts)
            n = following
        raise LookupError("the driver's chain has no end")

    def _advance(self):
        self.last = (self.last + 1) & 0xffff
        self.places[2].set16(4 + 8 * self.num, self.last)       # avail_event: tell always

    def next(self):
        """The head of the next buffer that is ours, or None.

        What was given back by lies can make the driver's index run into entries that we have not read.
        """
        while self.waiting():
            head = self.head_at(self.last)
            if self.waiting() > self.num:
                return None
            if not self.void[head]:
                return head
            self.void[head] -= 1
            self._advance()
        return None

    def pop(self):
        head = self.next()
        if head is None:
            return None
        self._advance()
        chain = self.chain(head)
        self.taken.add(head)
        return chain

    def entry(self, index, head, length):
        """Writes a used entry, which the driver does not know of yet."""
        at = 4 + 8 * (index % self.num)
        self.places[2].set32(at, head)
        self.places[2].set32(at + 4, length)

    def publish(self, index):
        for n in range((index - self.used) & 0xffff):
            head = self.places[2].get32(4 + 8 * ((self.used + n) % self.num))
            if head in self.taken:
                self.taken.remove(head)
            else:
                self.void[head] += 1
        self.used = index & 0xffff
        self.places[2].set16(2, self.used)

    def push(self, head, length):
        self.entry(self.used, head, length)
        self.publish(self.used + 1)

    def notify(self):
        if self.call is not None:
            os.write(self.call, b"\1\0\0\0\0\0\0\0")


class Device:
    """A vhost-user-vsock back end behind a socket of its own."""

    def __init__(self, path, cid, features=FEATURES):
        self.path, self.cid, self.features, self.acked = path, cid, features, 0
        self.memory = Memory()
        self.rings = [Ring(), Ring()]
        self.lock = threading.RLock()
        self.sent = collections.deque(maxlen=100000)    # what the guest sent, and nobody took
        self.outbox = collections.deque()               # what waits for a buffer of the guest
        self.listener = None                            # takes packets of the guest: True if done
        self.consume = True                             # take packets out of the guest's queue
        self.silent = False                             # cause no interrupts
        self.keep = False                               # give the guest no packet back
        self.kept = collections.Counter()               # payload of those, by source port
        self.shape = []                                 # sizes of the parts of the last packet
        self.on_call = None                             # QEMU connects us to an interrupt
        self.starts = 0                                 # how often the driver was ready
        self.faults = []
        self.channel = self.connection = None
        self.config_read = threading.Event()
        self.closed = False
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(path)
        self.server.listen(1)
        self.wake = os.eventfd(0, os.EFD_NONBLOCK)
        for run in (self._serve, self._pump):
            threading.Thread(target=run, daemon=True).start()

    # --- messages ------------------------------------------------------------------

    def _serve(self):
        try:
            self.connection, _ = self.server.accept()
            while True:
                self._message(self.connection)
        except (EOFError, OSError):
            pass
        except Exception:       # noqa: a fault of ours must be seen
            self.faults.append(traceback.format_exc())
        with self.lock:
            for ring in self.rings:
                ring.running = False

    def _receive(self, connection):
        fds = array.array("i")
        data, ancillary, _, _ = connection.recvmsg(12, socket.CMSG_SPACE(8 * 4))
        for _, _, content in ancillary:
            fds.frombytes(content[:len(content) - len(content) % 4])
        if len(data) < 12:
            raise EOFError
        request, flags, size = struct.unpack("<III", data)
        body = b""
        while len(body) < size:
            more = connection.recv(size - len(body))
            if not more:
                raise EOFError
            body += more
        return request, flags, body, list(fds)

    def _message(self, connection):
        request, flags, body, fds = self._receive(connection)
        with self.lock:
            handler = getattr(self, f"_request_{request}", None)
            reply = handler(body, fds) if handler else None
            for fd in fds:
                os.close(fd)
            if reply is None and flags & NEED_REPLY:
                reply = struct.pack("<Q", 0)
            if reply is not None:
                connection.sendall(struct.pack("<III", request, VERSION | REPLY, len(reply)) + reply)
        self.poke()

    def _request_1(self, body, fds):        # GET_FEATURES
        return struct.pack("<Q", self.features)

    def _request_2(self, body, fds):        # SET_FEATURES
        self.acked, = struct.unpack("<Q", body)

    def _request_15(self, body, fds):       # GET_PROTOCOL_FEATURES
        return struct.pack("<Q", PROTOCOL_FEATURES)

    def _request_5(self, body, fds):        # SET_MEM_TABLE
        count, _ = struct.unpack_from("<II", body)
        self.memory = Memory(Region(*struct.unpack_from("<QQQQ", body, 8 + 32 * n), fds[n])
                             for n in range(count))

    def _request_8(self, body, fds):        # SET_VRING_NUM
        index, self._ring(body).num = struct.unpack_from("<II", body)

    def _request_9(self, body, fds):        # SET_VRING_ADDR
        _, _, desc, used, avail, _ = struct.unpack("<IIQQQQ", body[:40])
        self._ring(body).place(self.memory, desc, used, avail)

    def _request_10(self, body, fds):       # SET_VRING_BASE
        self._ring(body).begin(struct.unpack_from("<II", body)[1])

    def _request_11(self, body, fds):       # GET_VRING_BASE
        ring = self._ring(body)
        ring.running = False
        if ring.kick is not None:
            os.close(ring.kick)
            ring.kick = None
        return struct.pack("<II", struct.unpack_from("<I", body)[0], ring.last)

    def _request_12(self, body, fds):       # SET_VRING_KICK
        ring = self._ring(body)
        ring.kick = fds.pop(0) if fds else None
        if ring.kick is not None:
            os.set_blocking(ring.kick, False)
        ring.running = True
        self.starts += ring is self.rings[RX]

    def _request_13(self, body, fds):       # SET_VRING_CALL
        ring = self._ring(body)
        if ring.call is not None:
            os.close(ring.call)
        ring.call = fds.pop(0) if fds else None
        if self.on_call:
            self.on_call(ring)

    def _request_18(self, body, fds):       # SET_VRING_ENABLE
        self._ring(body).running = bool(struct.unpack_from("<II", body)[1])

    def _request_21(self, body, fds):       # SET_BACKEND_REQ_FD
        self.channel = socket.socket(fileno=fds.pop(0))

    def _request_24(self, body, fds):       # GET_CONFIG
        self.config_read.set()
        offset, size, flags = struct.unpack_from("<III", body)
        config = struct.pack("<Q", self.cid)
        return struct.pack("<III", offset, size, flags) + \
            config[offset:offset + size].ljust(size, b"\0")

    def _ring(self, body):
        return self.rings[body[0]]

    def config_changed(self):
        """QEMU reads our configuration again, and interrupts the guest.

        QEMU 10 crashes if the driver resets the device meanwhile.
        """
        if not self.ready(RX):
            return
        self.config_read.clear()
        self.channel.sendall(struct.pack("<III", CONFIG_CHANGED, VERSION, 0))
        self.config_read.wait(5)

    # --- packets --------------------------------------------------------------------

    def poke(self):
        os.write(self.wake, struct.pack("<Q", 1))

    def ready(self, index):
        ring = self.rings[index]
        return ring.running and ring.places and ring.num and not self.closed

    def _pump(self):
        poller = select.poll()
        while not self.closed:
            fds = [self.wake] + [ring.kick for ring in self.rings if ring.kick is not None]
            for fd in fds:
                poller.register(fd, select.POLLIN)
            for fd, _ in poller.poll(20):
                try:
                    os.read(fd, 8)
                except OSError:         # closed meanwhile, or read by nobody
                    pass
            for fd in fds:
                poller.unregister(fd)
            try:
                with self.lock:
                    self._flush()
                    self._take()
                    self._flush()
            except LookupError:         # the guest's memory changes while it resets the device
                time.sleep(0.001)
            except Exception:           # noqa: a fault of ours must be seen
                self.faults.append(traceback.format_exc())

    def _take(self):
        ring = self.rings[TX]
        if not self.consume or not self.ready(TX):
            return
        taken = False
        while (chain := ring.pop()) is not None:
            data = b"".join(place.read(0, size) for place, size, _ in chain.parts)
            self.shape = [size for _, size, _ in chain.parts]
            if self.keep:
                self.kept[data[16:20]] += len(data) - 44
            else:
                ring.push(chain.head, 0)
            taken = True
            if not (self.listener and self.listener(data)):
                self.sent.append(data)
        if taken and not self.silent:
            ring.notify()

    def _flush(self):
        sent = False
        while self.outbox and self.ready(RX) and (chain := self.rings[RX].pop()):
            data = self.outbox.popleft()
            place, size, _ = chain.parts[0]
            place.write(0, data[:size])
            self.rings[RX].push(chain.head, len(data))
            sent = True
        if sent and not self.silent:
            self.rings[RX].notify()

    @contextlib.contextmanager
    def buffer(self, wait=WAIT):
        """Takes a receive buffer of the guest, or None; it is not reset meanwhile."""
        end = time.monotonic() + wait
        while True:
            with self.lock:
                chain = None
                if self.ready(RX) and not self.outbox:
                    chain = self.rings[RX].pop()
                if chain or time.monotonic() > end:
                    yield chain
                    return
            time.sleep(0.001)

    def send(self, data, used=None, wait=WAIT, write=True, notify=True):
        """Puts bytes into the next buffer; `used` is the length that is claimed."""
        with self.buffer(wait) as chain:
            if chain is None:
                return False
            place, size, _ = chain.parts[0]
            if write:
                place.write(0, data[:size])
            self.rings[RX].push(chain.head, len(data) if used is None else used)
            if notify and not self.silent:
                self.rings[RX].notify()
        return True

    def close(self):
        self.closed = True
        self.poke()
        for end in (self.connection, self.channel, self.server):
            if end is not None:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                end.close()
        os.unlink(self.path)
