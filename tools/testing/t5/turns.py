# SPDX-License-Identifier: GPL-2.0
"""Whose packet is next, of the sockets of a guest that send all at once."""

import time

from bench import PEER, case
from host import HOLD, RW, Packet
from vhost_user import TX

FLOODERS, BYTES = 4, 64
# What a connection may send before one that had nothing, once that waits: see vsock_proto::turns.
BURST = 16


@case("HH-28", "one packet behind four connections that flood")
def behind_a_flood(b):
    device = b.fresh()
    b.sh("rm -f /tmp/flood.go; "
         f"{PEER} flood 2 {HOLD} {FLOODERS} /tmp/flood.go >/tmp/flood 2>&1 </dev/null & n=0; "
         f"while ! grep -q connected /tmp/flood && [ $n -lt {int(100 * b.patience)} ]; do sleep 0.1; n=$((n+1)); "
         "done")
    if not b.equal("connected", len(device.host.open), FLOODERS + 1):
        return
    with device.lock:
        device.consume = False
    text = b.sh(f"touch /tmp/flood.go; n=0; while ! grep -q taken /tmp/flood && [ $n -lt {int(300 * b.patience)} ]; "
                "do sleep 0.1; n=$((n+1)); done; cat /tmp/flood").split()
    if not b.check("floods", text[:2] == ["connected", "taken"], text):
        return
    queued, order, hold = int(text[2]) // BYTES, [], device.listener
    b.check("much", queued > 2 * device.rings[TX].num, queued)

    def listen(data):
        order.append(Packet(data))
        return hold(data)

    with device.lock:
        device.listener, device.consume = listen, True
    device.poke()
    end = time.monotonic() + 30 * b.patience
    while len(order) <= queued and time.monotonic() < end:
        time.sleep(0.01)
    b.equal("all-came", sum(p.len for p in order if p.op == RW), queued * BYTES + 1)
    ahead = next((n for n, p in enumerate(order) if p.op == RW and p.len == 1), None)
    b.note(f"{queued} packets of the others were queued, {ahead} came before it")
    # The ring was full already.
    most = device.rings[TX].num + FLOODERS * BURST
    b.check("among-the-first", ahead is not None and ahead <= most, f"{ahead}, not {most} at most")
    shares = [p.sport for p in order[:queued // 2] if p.len == BYTES]
    least, largest = (f([shares.count(port) for port in set(shares)]) for f in (min, max))
    b.check("the-same-for-all", len(set(shares)) == FLOODERS and largest <= least + 2 * 65536 // BYTES,
            f"{least} to {largest}")
    b.sh("killall vsock_peer; true")
    b.listen()
    b.check("alive", b.alive())
