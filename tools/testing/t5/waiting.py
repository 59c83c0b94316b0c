# SPDX-License-Identifier: GPL-2.0
"""Nobody waits for a user of the guest who stands in a call on a socket.

Each user has a file of its own that lets it go on: one that is touched for a former user when
that is done already must not release the next.
"""

import itertools

from bench import DRIVER, case
from host import ECHO, HOST, RW, SILENT, header

RING = "/lab/bin/ring"
LIMIT = 1.0         # seconds, of a guest as quick as usual
NUMBERS = itertools.count(1)
CALLS = {"send": ECHO, "recv": ECHO, "setsockopt": ECHO, "connecting": SILENT}


def stuck(b, call):
    """A user stands in a call, until `go_on`; the file for that, or None if it does not."""
    go = f"/tmp/go.{next(NUMBERS)}"
    # Nothing of it may hold what the agent waits for.
    b.sh("rm -f /tmp/stuck; ( { n=0; "
         f"while [ ! -e {go} ] && [ $n -lt {int(200 * b.patience)} ]; do sleep 0.1; n=$((n+1)); done; echo; }} | "
         f"{RING} --stuck 2 {CALLS[call]} {call} >/tmp/stuck 2>&1 ) >/dev/null 2>&1 </dev/null &")
    text = b.sh(f"n=0; while [ ! -s /tmp/stuck ] && [ $n -lt {int(100 * b.patience)} ]; do sleep 0.1; "
                "n=$((n+1)); done; cat /tmp/stuck").strip()
    return go if b.check(f"{call}/stuck", text == "stuck", text) else None


def go_on(b, go):
    """What became of the call, and of the socket."""
    text = b.sh(f"touch {go}; n=0; "
                f"while ! grep -q then /tmp/stuck && [ $n -lt {int(300 * b.patience)} ]; do sleep 0.1; "
                "n=$((n+1)); done; cat /tmp/stuck").split()
    return text[text.index("then") + 1:] if "then" in text else text


@case("HH-27-unbind", "the driver is taken from it while a user is stuck in a call")
def unbind(b):
    for call in CALLS:
        b.good()
        go = stuck(b, call)
        if not go:
            continue
        # The user is let go if the driver waits for that.
        b.sh(f"(sleep {4 * b.patience}; touch {go}) >/dev/null 2>&1 &")
        seconds = float(b.sh(f"d=$(basename {DRIVER}/virtio*); read a x </proc/uptime; echo $d >{DRIVER}/unbind; "
                             "read b x </proc/uptime; echo $d >/tmp/device; echo $a $b | "
                             "awk '{ print $2 - $1 }'"))
        b.note(f"{call}: unbound in {seconds:.2f} s")
        b.check(f"{call}/in-time", seconds < LIMIT * b.patience, f"{seconds:.2f} s")
        b.sh(f"cat /tmp/device >{DRIVER}/bind")
        b.check(f"{call}/works-again", b.up(b.device) and b.alive())
        words = go_on(b, go)
        b.check(f"{call}/reset", len(words) == 2 and words[1] == "ECONNRESET", words)


@case("HH-27-packets", "packets come for a socket while a user is stuck in a call on it")
def packets(b):
    for call in ("send", "recv", "setsockopt"):
        device = b.good()
        before = set(device.host.open)
        go = stuck(b, call)
        if not go:
            continue
        with device.lock:
            (guest, ours), = set(device.host.open) - before
        device.send(header(RW, (HOST, ours), (device.cid, guest), 4) + b"more")
        b.check(f"{call}/others-go-on", b.alive())
        words = go_on(b, go)
        b.check(f"{call}/goes-on", len(words) == 2 and words[1] == "EAGAIN", words)
