# SPDX-License-Identifier: GPL-2.0
"""Devices that come, go, sleep, and are not what they should be."""

import os
import re
import time

from bench import DRIVER, DRIVER_MODULE, PEER, RESET, case, skip
from host import ECHO
from vhost_user import (F_EVENT_IDX, F_IN_ORDER, F_INDIRECT, F_SEQPACKET, FEATURES)


def bound(b):
    """How many devices the driver has."""
    return int(b.sh(f"ls -d {DRIVER}/virtio* 2>/dev/null | wc -l"))


@case("HH-21", "addresses that no guest may have")
def addresses(b):
    for cid in (0, 1, 2, 0xffffffff, (1 << 32) + 5, 1 << 63):
        b.unplug()
        begin = b.begin()
        b.plug(cid, start=False)
        said = b.machine.wait_for("no valid CID", 10 * b.patience, begin)
        b.check(f"cid-{cid:#x}", said and bound(b) == 0)
    for cid in (3, 0x7fffffff, 0xfffffffe):
        b.fresh(cid=cid)
        b.equal(f"cid-{cid:#x}", b.sh(f"{PEER} cid").strip(), str(cid))
        b.check(f"cid-{cid:#x}/alive", b.alive())


@case("HH-21-change", "an address that changes without an event")
def change(b):
    device = b.fresh(cid=3)
    device.cid = 4
    device.config_changed()
    time.sleep(0.3 * b.patience)
    b.equal("not-taken", b.sh(f"{PEER} cid").strip(), "3")
    b.check("rebind", b.rebind() and b.alive())
    b.equal("taken-with-a-new-driver", b.sh(f"{PEER} cid").strip(), "4")


def traffic(b, seconds, connections=4):
    b.sh(f"{PEER} traffic 2 {ECHO} {seconds} {connections} >/tmp/traffic 2>&1 &")


# What a user may be told when a device goes: his connection is gone, there is no way, or nobody
# answers in time.
GONE = {"ECONNRESET", "EPIPE", "ENODATA", "ENODEV", "ENETUNREACH", "ESOCKTNOSUPPORT", "ETIMEDOUT"}


def traffic_done(b, seconds=60):
    text = b.sh(f"n=0; while ! grep -q ^traffic /tmp/traffic && [ $n -lt {int(seconds * 10 * b.patience)} ]; "
                "do sleep 0.1; n=$((n+1)); done; cat /tmp/traffic").strip()
    b.note(text)
    words = text.split()
    found = dict(zip(words[1::2], words[2::2])) if words[:1] == ["traffic"] else {}
    told = set(found) - {"connections", "bytes", "damaged"}
    b.check("traffic", found and found["damaged"] == "0" and int(found["bytes"]) > 0 and
            told <= GONE, text)


@case("second", "a second device")
def second(b):
    first = b.fresh(), b.name
    begin = b.begin()
    b.plug(cid=4, start=False)
    b.check("refused", b.machine.wait_for("has a vsock device already", 10 * b.patience, begin) and
            bound(b) == 1)
    b.unplug()
    b.device, b.name = first
    b.check("first-works", b.alive())


@case("HH-22-unplug", "unplugged while it is used")
def unplug(b):
    b.fresh()
    b.block()
    b.unplug()
    b.equal("sockets", b.blocked(), RESET)
    b.equal("no-device", b.sh(f"{PEER} try 2 {ECHO}").strip(), "connect ENODEV")
    rounds = 6 * b.long
    traffic(b, int(rounds * 2 * b.patience))
    for n in range(rounds):
        b.plug(cid=3 + n)
        time.sleep(0.3 * b.patience)
        b.check(f"round-{n}", b.alive() and b.sh(f"{PEER} cid").strip() == str(3 + n))
        b.unplug()
    b.plug()
    traffic_done(b)
    b.check("after", b.alive())


@case("HH-22-unbind", "the driver is taken from it while it is used")
def unbind(b):
    b.good()
    b.block()
    good = b.rebind()
    b.equal("sockets", b.blocked(), RESET)
    b.check("rebind", good and b.alive())
    rounds = 10 * b.long
    traffic(b, int(rounds * 0.7 * b.patience))
    for n in range(rounds):
        b.check(f"round-{n}", b.rebind() and b.alive())
        time.sleep(0.1 * b.patience)
    traffic_done(b)


@case("HH-22-reset", "its function is reset (FLR) while it is used")
def function_reset(b):
    b.good()
    path = b.sh(f"readlink -f $(readlink -f {DRIVER}/virtio*)/../reset").strip()
    b.block()
    starts = b.device.starts
    b.sh(f"echo 1 >{path}")
    b.equal("sockets", b.blocked(), RESET)
    b.check("after", b.up(b.device) and b.device.starts == starts + 1 and b.alive())
    rounds = 5 * b.long
    traffic(b, int(rounds * 0.7 * b.patience))
    for n in range(rounds):
        b.sh(f"echo 1 >{path}")
        b.check(f"round-{n}", b.up(b.device) and b.alive())
        time.sleep(0.1 * b.patience)
    traffic_done(b)


def sleep(b):
    b.good()
    b.block()
    b.machine.suspend(60 * b.patience)
    b.equal("sockets", b.blocked(), RESET)
    b.check("after", b.up(b.device) and b.alive())
    rounds = 3 * b.long
    traffic(b, int(rounds * 6 * b.patience))
    for n in range(rounds):
        time.sleep(0.3 * b.patience)
        b.machine.suspend(60 * b.patience)
        b.check(f"round-{n}", b.up(b.device) and b.alive())
    traffic_done(b)


if os.environ.get("SLEEP"):
    case("HH-22-sleep", "the guest sleeps (S3) while it is used")(sleep)
else:
    skip("HH-22-sleep", "the guest sleeps (S3) while it is used",
         "in this VM it does not always go to sleep (seen under TCG); T4/guest-life sleeps, and "
         "SLEEP=1 tries it here")


@case("HH-24", "features, each on its own")
def features(b):
    for name, acked, more in (("plain", FEATURES & ~F_INDIRECT, {}),
                              ("event-idx", FEATURES | F_EVENT_IDX, {}),
                              ("in-order", FEATURES | F_IN_ORDER, {"in_order": True}),
                              ("no-seqpacket", FEATURES & ~F_SEQPACKET, {})):
        device = b.fresh(features=acked, **more)
        b.check(f"{name}/alive", b.alive())
        text = b.sh(f"{PEER} try 2 {ECHO}; {PEER} try 2 {ECHO + 1} seqpacket").split("\n")
        expected = "OK" if acked & F_SEQPACKET else "connect ESOCKTNOSUPPORT"
        b.equal(f"{name}/sockets", text[:2], ["OK", expected])
        mask = F_INDIRECT | F_EVENT_IDX | F_IN_ORDER | F_SEQPACKET
        b.equal(f"{name}/negotiated", device.acked & mask, acked & mask)

    b.fresh()
    b.check("after", b.alive())


skip("HH-22-needs-reset", "NEEDS_RESET in the status",
     "QEMU 10 sets it for no fault of a back end; the driver does not act on it, as C")
skip("HH-24-no-version-1", "a device without VERSION_1",
     "QEMU refuses to plug it: \"Device doesn't support modern mode\"")
skip("HH-24-packed", "packed rings", "the back end of these tests has split rings; the layout is "
     "the business of virtio_ring.c, the driver's calls are the same")
skip("HH-25", "queues of 1, 2, 3 and 32768 entries, no event queue",
     "QEMU fixes the size of a vsock device's queues; a chain longer than its queue is refused in "
     "rust/kernel_ext/virtio/queue.rs, a queue without room is left short in rx.rs and event.rs")


@case("reports", "what the debug kernel has found")
def reports(b):
    """Lost memory, while the modules are there to tell their names; reports are in the log."""
    b.unplug()
    b.sh("mount -t debugfs none /sys/kernel/debug 2>/dev/null")
    if b.sh("[ -w /sys/kernel/debug/kmemleak ] && echo yes").strip() == "yes":
        b.sh("sleep 6; echo scan >/sys/kernel/debug/kmemleak; echo scan >/sys/kernel/debug/kmemleak", 200)
        text = b.sh("cat /sys/kernel/debug/kmemleak")
        b.check("kmemleak", not re.search(r"vsock|virtio_transport|kernel_ext|\] 0x[0-9a-f]+$", text, re.M),
                text.replace("\n", " "))
    if b.sh("[ -r /proc/lockdep_stats ] && echo yes").strip() == "yes":
        b.check("lockdep-still-on", "1" in b.sh("grep debug_locks: /proc/lockdep_stats"))


@case("unload", "the driver goes and comes, with the device there")
def unload(b):
    b.good()
    traffic(b, 30)
    busy = b.sh(f"sleep 1; rmmod {DRIVER_MODULE} 2>/dev/null; echo $?").strip()
    b.check("refused-with-sockets", busy != "0")
    b.equal("unloaded", b.unload(DRIVER_MODULE), "")
    b.check("loaded-again", b.load() and b.alive())
    b.unplug()
    b.equal("all-unloaded", b.unload(DRIVER_MODULE, "vsock_loopback",
                                      "vmw_vsock_virtio_transport_common"), "")

