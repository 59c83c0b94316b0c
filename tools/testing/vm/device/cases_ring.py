# SPDX-License-Identifier: GPL-2.0
"""Rings: sizes, positions, notifications, and a ring that breaks."""

import os
import struct
import time

import vhost
from cases_abi import same
from vhost import GUEST_BASE, RX, TX, Device, Guest


def traffic(guest, count=20):
    guest.start()
    guest.give()
    for number in range(count):
        guest.alive(number + 1)


def case_sizes_and_positions():
    """Rings from the smallest to the largest; indexes that wrap."""
    for size in (1, 2, 64, 1024, 32768):
        for base in (0, 65535, 65530):
            with Guest(300, size=size, base=base) as guest:
                traffic(guest)
                guest.stop()
                same(guest.device.state(vhost.GET_VRING_BASE, TX), 0)
                assert guest.device.number() == (base + 20) & 0xffff, (size, guest.device.number())


def case_wrap_around():
    """70000 packets: the free running indexes go around, with and without EVENT_IDX."""
    for features in (vhost.VERSION_1, vhost.VERSION_1 | vhost.EVENT_IDX):
        with Guest(301, size=256, buffers=256, features=features) as guest:
            guest.start()
            ring, header = guest.rings[TX], guest.header(vhost.OP_RST, 1, 2)
            for slot in range(256):
                guest.memory.write(guest.slot(TX, slot), header)
                ring.set_desc(slot, GUEST_BASE + guest.slot(TX, slot), 44)
            for _ in range(70000 // 256 + 1):
                for slot in range(256):
                    ring.offer(slot)
                ring.publish()
                guest.kick_queue(TX)
                done = ring.next_avail
                assert vhost.until(lambda: ring.used_idx() == done, 10, 0.0005), guest.queue(TX)
            packets = 256 * (70000 // 256 + 1)
            assert guest.device.info()["from-guest"] == f"{packets} packets, 0 bytes"
            guest.free = list(range(256))
            ring.next_used = ring.used_idx()
            guest.give()
            guest.alive()


def offered_rst(guest, count):
    """Packets that are answered by nothing."""
    for _ in range(count):
        guest.send(vhost.OP_RST, 1, 2, kick=False)
    guest.kick_queue(TX)
    ring = guest.rings[TX]
    assert vhost.until(lambda: ring.used_idx() == ring.next_avail), guest.queue(TX)
    guest.reap()
    # The signal comes after the index.
    guest.device.must(vhost.GET_VRING_BASE, struct.pack("=II", TX, 0))
    return vhost.signalled(guest.calls[TX])


def case_interrupts():
    """When the driver is signalled: flags, event index, and NOTIFY_ON_EMPTY."""
    with Guest(302) as guest:
        guest.start()
        assert offered_rst(guest, 3) > 0, "no signal"
        guest.rings[TX].set_flags(1)
        assert offered_rst(guest, 3) == 0, "signalled against its will"
    with Guest(302, features=vhost.VERSION_1 | vhost.NOTIFY_ON_EMPTY) as guest:
        guest.start()
        guest.rings[TX].set_flags(1)
        assert offered_rst(guest, 3) > 0, "no signal for an empty ring"
    with Guest(302, features=vhost.VERSION_1 | vhost.EVENT_IDX) as guest:
        guest.start()
        ring = guest.rings[TX]
        offered_rst(guest, 1)
        ring.set_used_event(ring.next_used + 4)
        assert offered_rst(guest, 3) == 0, "signalled too early"
        assert offered_rst(guest, 3) > 0, "no signal at the event index"
        assert offered_rst(guest, 3) == 0, "signalled again"


def case_legacy_byte_order():
    """Without VERSION_1 the ring has the byte order of this machine."""
    with Guest(303, features=0, order="=") as guest:
        traffic(guest)


def case_byte_order_of_choice():
    """The other byte order for a driver without VERSION_1, with CONFIG_VHOST_CROSS_ENDIAN_LEGACY."""
    with Device() as device:
        device.must(vhost.SET_OWNER)
        status = device.state(vhost.SET_VRING_ENDIAN, 0, 1)
        if status:
            same(status, vhost.errno.ENOTTY, "SET_VRING_ENDIAN")
            same(device.state(vhost.GET_VRING_ENDIAN, 0), vhost.errno.ENOTTY, "GET_VRING_ENDIAN")
            raise vhost.Skip("vhost_core is built without CONFIG_VHOST_CROSS_ENDIAN_LEGACY")
        same(device.state(vhost.SET_VRING_ENDIAN, 0, 2), vhost.errno.EINVAL, "neither")
        same(device.state(vhost.GET_VRING_ENDIAN, 0), 0)
        assert device.number() == 1
        same(device.state(vhost.GET_VRING_ENDIAN, 1), 0)
        assert device.number() == 0, "not the one of this machine"
    for features, order in ((0, ">"), (0, "<"), (vhost.VERSION_1, "<")):
        with Guest(303, features=features, order=order) as guest:
            for queue in (RX, TX):
                # Of no effect with VERSION_1.
                big = order == ">" or features != 0
                same(guest.device.state(vhost.SET_VRING_ENDIAN, queue, big), 0)
            traffic(guest)
            same(guest.device.state(vhost.SET_VRING_ENDIAN, RX, 0), vhost.errno.EBUSY)


def case_broken_ring():
    """The error eventfd fires once, the ring is left alone, and a restart repairs it."""
    with Guest(304) as guest:
        guest.start()
        guest.give()
        guest.alive()
        ring = guest.rings[TX]
        ring.offer(guest.rings[TX].size)
        ring.publish()
        for _ in range(20):
            guest.kick_queue(TX)
            time.sleep(0.005)
        assert vhost.until(lambda: guest.device.info()["state"] == "broken"), guest.device.info()
        assert vhost.signalled(guest.errors[TX]) == 1
        assert vhost.signalled(guest.errors[RX]) == 0
        assert guest.queue(TX).startswith("broken, size 128: a chain begins"), guest.queue(TX)
        same(vhost.connect(304, 1)[1], vhost.errno.EHOSTUNREACH, "connect()")
        # Still started for the ioctls.
        same(guest.device.state(vhost.SET_VRING_NUM, TX, 64), vhost.errno.EBUSY)
        guest.stop()
        same(guest.device.state(vhost.GET_VRING_BASE, TX), 0)
        base = guest.device.number()
        assert base == (ring.next_avail - 1) & 0xffff, base
        # The driver takes back what it should not have offered.
        ring.next_avail = base
        ring.publish()
        guest.start()
        guest.alive(2)
        assert guest.device.info()["state"] == "running"


def case_changes_while_running():
    """What cannot be changed while the rings are in use, and what can."""
    busy, invalid = vhost.errno.EBUSY, vhost.errno.EINVAL
    with Guest(305) as guest:
        guest.start()
        guest.give()
        device = guest.device
        same(device.state(vhost.SET_VRING_NUM, TX, 64), busy, "NUM")
        same(device.state(vhost.SET_VRING_BASE, TX, 0), busy, "BASE")
        kernel = struct.pack("=IIQQQQ", TX, 0, 1 << 63, 1 << 63, 1 << 63, 0)
        same(device.call(vhost.SET_VRING_ADDR, kernel), invalid, "ADDR")
        same(device.regions([(0, 4096, 1 << 63)]), vhost.errno.EFAULT, "MEM_TABLE")
        guest.alive(1)
        same(device.u64(vhost.SET_FEATURES, vhost.VERSION_1 | vhost.SEQPACKET), 0, "FEATURES")
        guest.alive(2)
        for fd in (-1, guest.calls[RX]):
            same(device.file(vhost.SET_VRING_CALL, RX, fd), 0, "CALL")
        same(device.file(vhost.SET_VRING_KICK, TX, -1), 0, "KICK")
        guest.send(vhost.OP_REQUEST, 3, 9999)
        assert guest.receive(0.2) is None, "without a kick"
        # An eventfd that was signalled before counts.
        same(device.file(vhost.SET_VRING_KICK, TX, guest.kick[TX]), 0, "KICK")
        guest.expect(vhost.OP_RST)
        same(device.set_running(1), 0, "started twice")
        guest.alive(4)


def worst_chains(guest, heads):
    """`heads` chains of as many descriptors without bytes as the ring has, all the same."""
    ring = guest.rings[TX]
    size = ring.size
    for index in range(size):
        following = index + 1
        ring.set_desc(index, GUEST_BASE, 0, vhost.NEXT if following < size else 0,
                      following % size)
    for _ in range(heads):
        ring.offer(0)
    ring.publish()


def case_bounded_work():
    """However long the chains, an ioctl that waits for the worker is not kept waiting (R14)."""
    with Guest(306, size=32768, buffers=4) as guest:
        guest.start()
        worst_chains(guest, 1)
        begin = time.monotonic()
        guest.kick_queue(TX)
        assert vhost.until(lambda: guest.rings[TX].used_idx() == 1, 10, 0.0005)
        one = time.monotonic() - begin
        worst_chains(guest, 2000)
        guest.kick_queue(TX)
        worst = 0.0
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            begin = time.monotonic()
            # Flushes the worker; SET_VRING_KICK of the same file does, too.
            same(guest.device.state(vhost.GET_VRING_BASE, RX), 0)
            worst = max(worst, time.monotonic() - begin)
        begin = time.monotonic()
        guest.close()
        closing = time.monotonic() - begin
        print(f"# a chain of 32768 descriptors: {one * 1000:.0f} ms; ioctl at worst "
              f"{worst * 1000:.0f} ms, close {closing * 1000:.0f} ms", flush=True)
        assert worst < 1 and closing < 1, (worst, closing)


def case_many_devices():
    """200 devices with owners in one process, which go with it."""
    def owner(report, _wait):
        devices = [Device() for _ in range(200)]
        for number, device in enumerate(devices):
            same(device.set_cid(5000 + number), 0)
            device.must(vhost.SET_OWNER)
        report(str(len(os.listdir("/proc/self/task"))))

    child = vhost.Child(owner)
    assert int(child.line()) >= 200
    status, took = child.wait(60)
    assert status == 0
    print(f"# 200 devices closed within {took:.1f} s", flush=True)
