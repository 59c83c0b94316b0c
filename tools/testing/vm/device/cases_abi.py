# SPDX-License-Identifier: GPL-2.0
"""The ioctls: who may do what, and which error comes otherwise."""

import errno
import os
import socket
import struct

import vhost
from vhost import Device, Guest, KernelLog

PARAMETERS = "/sys/module/vhost_core/parameters"


def same(found, wanted, what=""):
    name = lambda status: errno.errorcode.get(status, str(status)) if status else "0"
    assert found == wanted, f"{what} {name(found)} instead of {name(wanted)}"


def case_parameters_in_sysfs():
    """Names, values and rights of the parameters are those of the C module."""
    found = {}
    for name in os.listdir(PARAMETERS):
        with open(f"{PARAMETERS}/{name}") as file:
            found[name] = file.read().strip()
        assert os.stat(f"{PARAMETERS}/{name}").st_mode & 0o777 == 0o444, name
    assert found == {"max_mem_regions": "64", "max_iotlb_entries": "2048",
                     "fork_from_owner_default": "Y"}, found


def case_cid_in_use_names_the_owner():
    """The owner is named, not the one that set the CID and passed the descriptor on."""
    device = Device()
    same(device.set_cid(79), 0)

    def owner(report, wait):
        with open("/proc/self/comm", "w") as file:
            file.write("the\nowner")
        device.must(vhost.SET_OWNER)
        report("owner")
        wait()

    child = vhost.Child(owner)
    assert child.line() == "owner"
    log = KernelLog()
    with Device() as other:
        same(other.set_cid(79), errno.EADDRINUSE)
    # The file in which we read it escapes the escape.
    lines = [line.replace("\\x5c", "\\") for line in log.lines() if "CID 79" in line]
    # The name cannot begin a line of its own in the log.
    assert lines and f"process {child.pid} (the\\nowner)" in lines[0], lines
    child.go()
    assert child.wait()[0] == 0
    device.close()


def case_cid_in_use_is_explained():
    """The kernel's log says by which process a CID is used, and not without end. Those after
    this case, within 5 s, get no message."""
    with Device() as device:
        same(device.set_cid(78), 0)
        log = KernelLog()
        with Device() as other:
            same(other.set_cid(78), errno.EADDRINUSE)
            with open("/proc/self/comm") as file:
                comm = file.read().strip()
            lines = [line for line in log.lines() if "CID 78" in line]
            assert lines and f"process {os.getpid()} ({comm})" in lines[0], lines
            for _ in range(500):
                same(other.set_cid(78), errno.EADDRINUSE)
            more = [line for line in log.lines() if "CID 78" in line]
            assert len(more) < 20, f"{len(more)} lines"


def case_cid_errors():
    """Which CIDs a guest can have, and that no owner is needed to set one."""
    with Device() as device, Device() as other:
        for cid in (0, 1, 2, 0xffffffff, 1 << 32, (1 << 32) + 5, (1 << 64) - 1):
            same(device.set_cid(cid), errno.EINVAL, f"CID {cid:#x}")
        same(device.call(vhost.SET_GUEST_CID, 0), errno.EFAULT, "null pointer")
        same(device.set_cid(0xfffffffe), 0)
        same(device.set_cid(77), 0, "another CID")
        same(device.set_cid(77), 0, "the same CID")
        same(other.set_cid(77), errno.EADDRINUSE)
        same(other.set_cid(0xfffffffe), 0, "a CID that was given up")
        device.close()
        same(other.set_cid(77), 0, "the CID of a closed device")


def case_cid_found_by_loop():
    """libvirt, systemd-vmspawn, LXD and Kata try CIDs until one is free."""
    taken = [Device() for _ in range(5)]
    for number, device in enumerate(taken):
        same(device.set_cid(1000 + number), 0)
    with Device() as device:
        tries = []
        for cid in range(1000, 1010):
            tries.append(device.set_cid(cid))
            if tries[-1] != errno.EADDRINUSE:
                break
        assert tries == [errno.EADDRINUSE] * 5 + [0], tries
    for device in taken:
        device.close()


def case_descriptor_passed_on():
    """One process sets the CID, another one gets the descriptor and becomes the owner."""
    ours, theirs = socket.socketpair()
    device = Device()
    same(device.set_cid(90), 0)

    def owner(report, wait):
        _, fds, _, _ = socket.recv_fds(theirs, 1, 1)
        with Guest(90, device=Device(fds[0])) as guest:     # sets the same CID again
            guest.start()
            guest.give()
            guest.alive()
            report("running")
            wait()
            guest.alive(1111)

    child = vhost.Child(owner)
    socket.send_fds(ours, [b"x"], [device.fd])
    assert child.line() == "running"
    # Not ours any more, except for what needs no owner.
    same(device.set_running(0), errno.EPERM, "SET_RUNNING")
    same(device.state(vhost.GET_VRING_BASE, 0), errno.EPERM, "GET_VRING_BASE")
    same(device.call(vhost.SET_OWNER), errno.EBUSY, "SET_OWNER")
    same(device.call(vhost.GET_FEATURES, bytes(8)), 0, "GET_FEATURES")
    child.go()
    assert child.wait()[0] == 0
    device.close()
    ours.close()
    theirs.close()


def case_errors_without_owner():
    """Before SET_OWNER, and for whoever is not the owner."""
    everything = ("SET_MEM_TABLE", "SET_VRING_NUM", "SET_VRING_ADDR", "SET_VRING_BASE",
                  "GET_VRING_BASE", "SET_VRING_KICK", "SET_VRING_CALL", "SET_VRING_ERR",
                  "SET_VRING_ENDIAN", "GET_VRING_ENDIAN", "SET_VRING_BUSYLOOP",
                  "GET_VRING_BUSYLOOP", "RESET_OWNER")
    workers = ("NEW_WORKER", "FREE_WORKER", "ATTACH_VRING_WORKER", "GET_VRING_WORKER")
    with Device() as device:
        for name in everything:
            same(device.call(getattr(vhost, name), bytes(40)), errno.EPERM, name)
        for name in workers:
            same(device.call(getattr(vhost, name), bytes(8)), errno.EINVAL, name)
        same(device.set_running(1), errno.EPERM, "SET_RUNNING 1")
        same(device.set_running(0), errno.EPERM, "SET_RUNNING 0")
        same(device.call(vhost.SET_RUNNING, 0), errno.EFAULT, "SET_RUNNING of nothing")
        same(device.call(vhost.SET_OWNER), 0, "SET_OWNER")
        same(device.call(vhost.SET_OWNER), errno.EBUSY, "SET_OWNER again")
        same(device.call(vhost.RESET_OWNER, bytes(8)), errno.ENOTTY, "RESET_OWNER")
        same(device.call(vhost.RESET_OWNER, 0), errno.EFAULT, "RESET_OWNER as it is called")

        def stranger(report, _wait):
            for name in everything + workers:
                report(str(device.call(getattr(vhost, name), bytes(40))))

        child = vhost.Child(stranger)
        for name in everything + workers:
            same(int(child.line()), errno.EPERM, f"{name} of a stranger")
        assert child.wait()[0] == 0


def case_features():
    """What is offered, and that nothing else is taken."""
    with Device() as device:
        same(device.call(vhost.GET_FEATURES, bytes(8)), 0)
        offered = struct.unpack("=Q", device.out)[0]
        for bit in (1, 24, 27, 28, 29, 32):
            assert offered & 1 << bit, f"feature {bit} is not offered"
        for bit in (0, 34, 35, 63):
            assert not offered & 1 << bit, f"feature {bit} is offered"
            same(device.u64(vhost.SET_FEATURES, 1 << bit), errno.EOPNOTSUPP, f"feature {bit}")
        same(device.u64(vhost.SET_FEATURES, (1 << 64) - 1), errno.EOPNOTSUPP, "all features")
        same(device.call(vhost.GET_BACKEND_FEATURES, bytes(8)), 0)
        assert struct.unpack("=Q", device.out)[0] & 2, "no IOTLB_MSG_V2"
        same(device.u64(vhost.SET_BACKEND_FEATURES, 2), 0)
        same(device.u64(vhost.SET_BACKEND_FEATURES, 0xff), errno.EOPNOTSUPP)


def case_ring_numbers():
    """Sizes, indexes and positions of rings."""
    with Device() as device:
        device.must(vhost.SET_OWNER)
        for size, wanted in ((0, errno.EINVAL), (1, 0), (3, errno.EINVAL), (128, 0), (32768, 0),
                             (65535, errno.EINVAL), (65536, errno.EINVAL),
                             (1 << 31, errno.EINVAL)):
            same(device.state(vhost.SET_VRING_NUM, 0, size), wanted, f"size {size}")
        for index in (2, 3, 0x7fffffff, 0xffffffff):
            same(device.state(vhost.SET_VRING_NUM, index, 128), errno.ENOBUFS, f"index {index}")
            same(device.state(vhost.GET_VRING_WORKER, index), errno.ENOBUFS, f"index {index}")
        same(device.state(vhost.SET_VRING_BASE, 1, 65535), 0)
        same(device.state(vhost.GET_VRING_BASE, 1), 0)
        assert device.number() == 65535
        same(device.state(vhost.SET_VRING_BASE, 1, 65536), errno.EINVAL)
        same(device.state(vhost.SET_VRING_BUSYLOOP, 1, 50), 0)
        same(device.state(vhost.GET_VRING_BUSYLOOP, 1), 0)
        assert device.number() == 50
        for name in ("SET_VRING_KICK", "SET_VRING_CALL", "SET_VRING_ERR"):
            same(device.file(getattr(vhost, name), 0, 9999), errno.EBADF, name)
            same(device.file(getattr(vhost, name), 0, 0), errno.EINVAL, name)
            same(device.file(getattr(vhost, name), 0, -1), 0, name)


def table(device, count):
    memory = vhost.Memory(4096)
    return device.regions([(number << 20, 4096, memory.base) for number in range(count)])


def case_memory_regions():
    """How many regions a table may have, and which."""
    with Device() as device:
        device.must(vhost.SET_OWNER)
        same(table(device, 64), 0, "64 regions")
        same(table(device, 65), errno.E2BIG, "65 regions")
        same(table(device, 0), 0, "no region")
        same(device.call(vhost.SET_MEM_TABLE, struct.pack("=II", 0, 1)), errno.EOPNOTSUPP, "padding")
        same(device.regions([(0, 0, 4096)]), errno.EFAULT, "empty region")
        same(device.regions([((1 << 64) - 4096, 8192, 4096)]), errno.EFAULT, "region that wraps")


def case_regions_as_promised():
    """What /sys/module/vhost/parameters/max_mem_regions says, where QEMU looks, is accepted."""
    if os.path.exists("/sys/module/vhost"):
        raise vhost.Skip("the C vhost is loaded already")
    modules = f"/lib/modules/{os.uname().release}/kernel/drivers/vhost"
    if not os.path.exists(f"{modules}/vhost.ko"):
        raise vhost.Skip("there is no C vhost")

    def run(*command):
        assert os.spawnvp(os.P_WAIT, command[0], command) == 0, command

    run("insmod", f"{modules}/vhost_iotlb.ko")
    run("insmod", f"{modules}/vhost.ko", "max_mem_regions=509")
    try:
        with Device() as device:
            device.must(vhost.SET_OWNER)
            same(table(device, 509), 0, "509 regions")
            same(table(device, 510), errno.E2BIG, "510 regions")
    finally:
        run("rmmod", "vhost", "vhost_iotlb")
    with Device() as device:
        device.must(vhost.SET_OWNER)
        same(table(device, 65), errno.E2BIG, "65 regions afterwards")


def case_connect_errors():
    """What a program of the host gets if there is no guest, or one that does not take part."""
    same(vhost.connect(4711, 1)[1], errno.ENODEV, "nobody")
    with Guest(4711) as guest:
        same(vhost.connect(4711, 1)[1], errno.EHOSTUNREACH, "not started")
        guest.start()
        same(vhost.connect(4711, 1, 0.3)[1], errno.ETIMEDOUT, "does not answer")
        guest.stop()
        same(vhost.connect(4711, 1)[1], errno.EHOSTUNREACH, "stopped")
    same(vhost.connect(4711, 1)[1], errno.ENODEV, "closed")


def case_fdinfo():
    """What /proc/PID/fdinfo says of a device."""
    with Device() as device:
        info = device.info()
        assert info["cid"] == "0" and info["state"] == "stopped", info
        netns = os.stat("/proc/self/ns/net").st_ino
        assert info["netns"] == str(netns), info
    with Guest(4712) as guest:
        guest.start()
        guest.give()
        guest.alive()
        info = guest.device.info()
        assert info["cid"] == "4712" and info["state"] == "running", info
        assert int(info["features"], 16) == vhost.VERSION_1, info
        assert info["from-guest"] == "1 packets, 0 bytes", info
        assert info["to-guest"] == "1 packets, 0 bytes", info
        assert info["refused"] == "0 malformed, 0 misaddressed, 0 buffers", info
        assert info["queued"].startswith("0 packets, 0 bytes"), info
        assert info["replies"] == "0", info
        assert info["queue0"].startswith("running, size 128"), info
        guest.stop()
        assert guest.device.info()["state"] == "stopped"
        # Packets that are not for us, from somebody else, and none at all.
        guest.start()
        guest.cid = 4713
        guest.send(vhost.OP_RST, 1, 2)
        guest.cid = 4712
        ring, slot = guest.rings[vhost.TX], guest.free.pop()
        ring.set_desc(slot, vhost.GUEST_BASE + guest.slot(vhost.TX, slot), 43)
        ring.offer(slot)
        ring.publish()
        guest.kick_queue(vhost.TX)
        wanted = "1 malformed, 1 misaddressed, 0 buffers"
        assert vhost.until(lambda: guest.device.info()["refused"] == wanted), guest.device.info()
        # Replies that the guest does not take: the ring has no buffers left.
        guest.rings[vhost.RX].next_used = guest.rings[vhost.RX].used_idx()
    with Guest(4712) as guest:
        guest.start()
        for port in range(10):
            guest.send(vhost.OP_REQUEST, port + 1, 9999)
        assert vhost.until(lambda: guest.device.info()["replies"] == "10"), guest.device.info()
        packets, memory = guest.device.info()["queued"].split(", ")
        assert packets == "10 packets" and int(memory.split()[0]) > 440, memory
        guest.give()
        assert vhost.until(lambda: guest.device.info()["replies"] == "0"), guest.device.info()
        assert guest.device.info()["queued"].startswith("0 packets, 0 bytes")
