# SPDX-License-Identifier: GPL-2.0
"""Workers: which there are, what they belong to, and what happens when they die."""

import errno
import os
import signal
import struct
import threading
import time

import vhost
from cases_abi import same
from vhost import Child, Device, Guest

CGROUP = "/sys/fs/cgroup/vhost-case"


def thread_of(info, queue=0):
    return int(info[f"worker{queue}"].split("thread ")[1])


def worker_of(device, queue):
    same(device.state(vhost.GET_VRING_WORKER, queue), 0, "GET_VRING_WORKER")
    return device.number()


def new_worker(device):
    same(device.call(vhost.NEW_WORKER, bytes(4)), 0, "NEW_WORKER")
    return struct.unpack("=I", device.out)[0]


def fork_owner(device, value):
    return device.call(vhost.SET_FORK_FROM_OWNER, struct.pack("=B", value))


def status_of(pid):
    with open(f"/proc/{pid}/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def case_default_worker():
    """The worker of a device is a thread of the owner, called vhost-PID."""
    with Guest(200) as guest:
        guest.start()
        guest.give()
        guest.alive()
        thread = thread_of(guest.device.info())
        assert thread == thread_of(guest.device.info(), 1)
        assert os.path.exists(f"/proc/self/task/{thread}")
        with open(f"/proc/self/task/{thread}/comm") as file:
            assert file.read().strip() == f"vhost-{os.getpid()}"
        assert worker_of(guest.device, 0) == worker_of(guest.device, 1) == 0
    assert not os.path.exists(f"/proc/self/task/{thread}"), "it outlives the device"


def case_worker_ioctls():
    """Creating, attaching and freeing workers; the errors are those of vhost_worker_ioctl()."""
    with Guest(201) as guest:
        guest.start()
        guest.give()
        device = guest.device
        first, second = new_worker(device), new_worker(device)
        assert (first, second) == (1, 2)
        attach = lambda queue, worker: device.state(vhost.ATTACH_VRING_WORKER, queue, worker)
        free = lambda worker: device.call(vhost.FREE_WORKER, struct.pack("=I", worker))
        same(free(0), errno.EBUSY, "the default worker")
        same(attach(vhost.RX, first), 0)
        same(attach(vhost.TX, second), 0)
        guest.alive()
        info = device.info()
        assert thread_of(info, 0) != thread_of(info, 1), info
        assert worker_of(device, vhost.RX) == first and worker_of(device, vhost.TX) == second
        same(free(first), errno.EBUSY, "a worker in use")
        same(free(0), 0, "the default worker, of no use now")
        same(free(0), errno.ENODEV, "a worker that is gone")
        same(attach(vhost.RX, 0), errno.ENODEV)
        same(attach(vhost.RX, 7), errno.ENODEV)
        same(attach(2, first), errno.ENOBUFS)
        same(attach(vhost.TX, first), 0)
        same(attach(vhost.TX, first), 0, "once more")
        guest.alive(1)
        same(free(second), 0)
        assert new_worker(device) == 0, "the lowest number that is free"
        for name in ("NEW_WORKER", "FREE_WORKER", "ATTACH_VRING_WORKER", "GET_VRING_WORKER"):
            same(device.call(getattr(vhost, name), 0), errno.EFAULT, name)
        assert new_worker(device) == 2, "the worker that nobody was told of is there"
        guest.alive(2)


def case_workers_swapped_under_traffic():
    """No packet is lost or doubled while queues change their workers."""
    with Guest(202, size=256) as guest:
        guest.start()
        guest.give()
        device = guest.device
        workers = [0, new_worker(device), new_worker(device)]
        stop = threading.Event()
        swaps = [0]

        def swap():
            while not stop.is_set():
                for queue in (vhost.RX, vhost.TX):
                    worker = workers[(swaps[0] + queue) % 3]
                    same(device.state(vhost.ATTACH_VRING_WORKER, queue, worker), 0)
                swaps[0] += 1

        thread = threading.Thread(target=swap)
        thread.start()
        try:
            count = 0
            while swaps[0] < 20 or count < 500:
                count += 1
                guest.alive(count)
                assert count < 100000
        finally:
            stop.set()
            thread.join()
        info = device.info()
        assert info["from-guest"] == info["to-guest"] == f"{count} packets, 0 bytes", (info, count)


def case_fork_from_owner():
    """Which kind of thread the worker is can be chosen until there is an owner."""
    with Device() as device:
        get = lambda: device.call(vhost.GET_FORK_FROM_OWNER, bytes(1)) or device.out[0]
        assert get() == 1
        same(fork_owner(device, 2), errno.EINVAL)
        same(device.call(vhost.SET_FORK_FROM_OWNER, 0), errno.EFAULT)
        same(fork_owner(device, 0), 0)
        assert get() == 0
        device.must(vhost.SET_OWNER)
        same(fork_owner(device, 1), errno.EBUSY)
        assert get() == 0
        same(device.call(vhost.NEW_WORKER, bytes(4)), errno.EFAULT, "NEW_WORKER")
        assert worker_of(device, 0) == 0


def case_kernel_thread():
    """A worker that is a thread of the kernel: in the owner's cgroup, not in its process."""
    os.makedirs(CGROUP, exist_ok=True)

    def owner(report, _wait):
        with open(f"{CGROUP}/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))
        with Guest(203, setup=lambda device: same(fork_owner(device, 0), 0)) as guest:
            guest.start()
            guest.give()
            guest.alive()
            thread = thread_of(guest.device.info())
            assert not os.path.exists(f"/proc/self/task/{thread}")
            status = status_of(thread)
            assert status["PPid"] == "2", status
            assert status["Name"] == f"vhost-{os.getpid()}", status
            with open(f"/proc/{thread}/cgroup") as file:
                text = file.read()
            assert "/vhost-case" in text, text
        assert not os.path.exists(f"/proc/{thread}"), "it outlives the device"
        report("done")

    child = Child(owner)
    assert child.line() == "done"
    child.wait()
    os.rmdir(CGROUP)


def case_owner_task_in_cgroup():
    """A worker that is a thread of the owner moves with it to another cgroup."""
    os.makedirs(CGROUP, exist_ok=True)

    def owner(report, _wait):
        with Guest(204) as guest:
            guest.start()
            thread = thread_of(guest.device.info())
            with open(f"{CGROUP}/cgroup.procs", "w") as file:
                file.write(str(os.getpid()))
            with open(f"/proc/self/task/{thread}/cgroup") as file:
                assert "/vhost-case" in file.read()
            guest.give()
            guest.alive()
        report("done")

    child = Child(owner)
    assert child.line() == "done"
    child.wait()
    os.rmdir(CGROUP)


def orphaned(cid, die, setup=None):
    """A device whose owner is gone, while we have the descriptor: (device, connected socket)."""
    device = Device()
    listener = vhost.socket.socket(vhost.socket.AF_VSOCK, vhost.socket.SOCK_STREAM)
    listener.bind((2, 3000))
    listener.listen()

    def owner(report, wait):
        guest = Guest(cid, device=device, setup=setup)
        guest.start()
        guest.give()
        guest.send(vhost.OP_REQUEST, 50, 3000)
        guest.expect(vhost.OP_RESPONSE)
        report("running")
        wait()
        die(guest)

    child = Child(owner)
    assert child.line() == "running"
    listener.settimeout(5)
    sock, _ = listener.accept()
    listener.close()
    return device, child, sock


def dead_worker(cid, die, kept=False, seconds=2.0):
    """What holds whenever the worker of a device died and the device is still open; `kept` by
    the owner as well."""
    device, child, sock = orphaned(cid, die)
    sock.settimeout(5)
    child.go()
    begin = time.monotonic()
    # Whoever waits for the guest learns of it.
    try:
        assert sock.recv(1) == b"", "data from nowhere"
    except ConnectionResetError:
        pass
    took = time.monotonic() - begin
    assert took < seconds, f"recv() returned after {took:.1f} s"
    _, status, took = vhost.connect(cid, 1)
    same(status, errno.EHOSTUNREACH, "connect()")
    assert took < 0.5, f"connect() took {took:.1f} s"
    try:
        sock.send(b"x")
        raise AssertionError("send() succeeded")
    except OSError as error:
        assert error.errno in (errno.EPIPE, errno.ECONNRESET, errno.EHOSTUNREACH), error
    info = device.info()
    assert info["worker0"] == info["worker1"] == "killed", info
    assert info["queued"].startswith("0 packets, 0 bytes") and info["replies"] == "0", info
    same(device.set_running(0), errno.EPERM, "SET_RUNNING")
    sock.close()
    begin = time.monotonic()
    device.close()
    took = time.monotonic() - begin
    assert took < 1, f"close() took {took:.1f} s"
    if kept:
        child.kill()
    same(vhost.connect(cid, 1)[1], errno.ENODEV, "connect() after close()")
    return child


def case_owner_exits_descriptor_kept():
    """LC-06: the owner exits, another process has the descriptor."""
    assert dead_worker(210, lambda _guest: os._exit(0)).wait()[0] == 0


def case_owner_killed_descriptor_kept():
    """The same with SIGKILL."""
    status, _ = dead_worker(211, lambda _guest: os.kill(os.getpid(), signal.SIGKILL)).wait()
    assert status == signal.SIGKILL


def case_owner_executes_descriptor_kept():
    """LC-07: the owner executes another program."""
    def execute(guest):
        os.set_inheritable(guest.device.fd, True)
        os.execvp("sleep", ["sleep", "60"])

    dead_worker(212, execute, kept=True)


def case_kernel_thread_outlives_owner():
    """A worker of the kernel goes on without the owner, in the owner's memory."""
    # At once, before Python gives the guest's memory back.
    device, child, sock = orphaned(213, lambda _guest: os._exit(0),
                                   lambda device: same(fork_owner(device, 0), 0))
    child.go()
    child.wait()
    # The guest has buffers left, and nobody answers.
    sent = device.info()["to-guest"]
    status = vhost.connect(213, 1, 0.3)[1]
    info = device.info()
    assert status == errno.ETIMEDOUT, (status, info)
    assert info["to-guest"] != sent, info
    thread = thread_of(info)
    begin = time.monotonic()
    device.close()
    assert time.monotonic() - begin < 1
    assert not os.path.exists(f"/proc/{thread}")
    try:
        sock.settimeout(1)
        assert sock.recv(1) == b""
    except ConnectionResetError:
        pass
    sock.close()


def case_killed_under_traffic():
    """LC-05: SIGKILL of the owner while packets go both ways; it is gone soon, with the device."""
    for number in range(5):
        def owner(report, _wait):
            with Guest(220) as guest:
                guest.start()
                guest.give()
                report("running")
                port = 0
                while True:
                    port = port % 60000 + 1
                    guest.alive(port)

        child = Child(owner)
        assert child.line() == "running"
        time.sleep(0.05 * number)
        status, took = child.kill()
        assert status == signal.SIGKILL and took < 2, (status, took)
        assert vhost.until(lambda: vhost.connect(220, 1)[1] == errno.ENODEV, 1)


def case_cgroup_frozen_and_killed():
    """LC-14: while the owner's cgroup is frozen nothing moves, and nobody hangs; then it is killed."""
    os.makedirs(CGROUP, exist_ok=True)

    def set_cgroup(file, text):
        with open(f"{CGROUP}/{file}", "w") as where:
            where.write(text)

    def owner(report, wait):
        set_cgroup("cgroup.procs", str(os.getpid()))
        with Guest(222) as guest:
            guest.start()
            guest.give()
            guest.alive()
            report("running")
            while True:
                guest.alive()

    child = Child(owner)
    assert child.line() == "running"
    set_cgroup("cgroup.freeze", "1")

    def frozen():
        with open(f"{CGROUP}/cgroup.events") as file:
            return "frozen 1" in file.read()

    assert vhost.until(frozen), "the cgroup does not freeze"
    _, status, took = vhost.connect(222, 1, 0.5)
    same(status, errno.ETIMEDOUT, "connect()")
    assert took < 2, took
    set_cgroup("cgroup.freeze", "0")
    assert vhost.until(lambda: not frozen())
    set_cgroup("cgroup.freeze", "1")
    assert vhost.until(frozen)
    set_cgroup("cgroup.kill", "1")
    status, took = child.wait()
    assert status == signal.SIGKILL and took < 2, (status, took)
    same(vhost.connect(222, 1)[1], errno.ENODEV, "connect() afterwards")
    os.rmdir(CGROUP)


def case_closed_under_traffic():
    """LC-03: close() while host programs send."""
    stop = threading.Event()

    def sender():
        while not stop.is_set():
            sock, _, _ = vhost.connect(221, 1, 0.05)
            if sock:
                sock.close()

    senders = [threading.Thread(target=sender) for _ in range(2)]
    for thread in senders:
        thread.start()
    try:
        for _ in range(10):
            guest = Guest(221)
            guest.start()
            guest.give()
            for _ in range(5):
                fields, _ = guest.receive(1) or (None, None)
                if fields and fields[6] == vhost.OP_REQUEST:
                    guest.send(vhost.OP_RST, fields[3], fields[2])
            begin = time.monotonic()
            guest.close()
            took = time.monotonic() - begin
            assert took < 1, f"close() took {took:.1f} s"
    finally:
        stop.set()
        for thread in senders:
            thread.join()


def case_limit_of_threads():
    """Workers are threads of the owner, thus within its RLIMIT_NPROC: not for root, so as a user."""
    device = Device()

    def owner(report, _wait):
        os.setgroups([])
        os.setresgid(1234, 1234, 1234)
        os.setresuid(1234, 1234, 1234)
        device.must(vhost.SET_OWNER)
        made = 0
        while made < 100 and device.call(vhost.NEW_WORKER, bytes(4)) == 0:
            made += 1
        report(str(made))

    # There is no resource module here, but prlimit.
    def limited(report, wait):
        command = ["prlimit", "--pid", str(os.getpid()), "--nproc=20:20"]
        assert os.spawnvp(os.P_WAIT, command[0], command) == 0
        owner(report, wait)

    child = Child(limited)
    made = int(child.line())
    child.wait()
    device.close()
    assert 10 < made < 20, made
