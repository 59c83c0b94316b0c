# SPDX-License-Identifier: GPL-2.0
"""Nobody waits for a user of the guest who stands in a call on a socket."""

from bench import DRIVER, case
from host import ECHO, HOST, RW, SILENT, header

RING = "/lab/bin/ring"
LIMIT = 1.0         # seconds, of a guest as quick as usual
CALLS = {"send": ECHO, "recv": ECHO, "setsockopt": ECHO, "connecting": SILENT}


def stuck(b, call):
    """A user stands in a call, until `go_on`; says whether it does."""
    # Nothing of it may hold what the agent waits for.
    b.sh("rm -f /tmp/go /tmp/stuck; ( { n=0; "
         f"while [ ! -e /tmp/go ] && [ $n -lt {int(200 * b.patience)} ]; do sleep 0.1; n=$((n+1)); done; echo; }} | "
         f"{RING} --stuck 2 {CALLS[call]} {call} >/tmp/stuck 2>&1 ) >/dev/null 2>&1 </dev/null &")
    text = b.sh(f"n=0; while [ ! -s /tmp/stuck ] && [ $n -lt {int(100 * b.patience)} ]; do sleep 0.1; "
                "n=$((n+1)); done; cat /tmp/stuck").strip()
    return b.check(f"{call}/stuck", text == "stuck", text)


def go_on(b):
    """What became of the call, and of the socket."""
    text = b.sh("touch /tmp/go; n=0; "
                f"while ! grep -q then /tmp/stuck && [ $n -lt {int(300 * b.patience)} ]; do sleep 0.1; "
                "n=$((n+1)); done; cat /tmp/stuck").split()
    return text[text.index("then") + 1:] if "then" in text else text


@case("HH-27-unbind", "the driver is taken from it while a user is stuck in a call")
def unbind(b):
    for call in CALLS:
        b.good()
        if not stuck(b, call):
            continue
        # The user is let go if the driver waits for that.
        b.sh(f"(sleep {4 * b.patience}; touch /tmp/go) >/dev/null 2>&1 &")
        seconds = float(b.sh(f"d=$(basename {DRIVER}/virtio*); read a x </proc/uptime; echo $d >{DRIVER}/unbind; "
                             "read b x </proc/uptime; echo $d >/tmp/device; echo $a $b | "
                             "awk '{ print $2 - $1 }'"))
        b.note(f"{call}: unbound in {seconds:.2f} s")
        b.check(f"{call}/in-time", seconds < LIMIT * b.patience, f"{seconds:.2f} s")
        b.sh(f"cat /tmp/device >{DRIVER}/bind")
        b.check(f"{call}/works-again", b.up(b.device) and b.alive())
        words = go_on(b)
        b.check(f"{call}/reset", len(words) == 2 and words[1] == "ECONNRESET", words)


@case("HH-27-packets", "packets come for a socket while a user is stuck in a call on it")
def packets(b):
    for call in ("send", "recv", "setsockopt"):
        device = b.good()
        before = set(device.host.open)
        if not stuck(b, call):
            continue
        with device.lock:
            (guest, ours), = set(device.host.open) - before
        device.send(header(RW, (HOST, ours), (device.cid, guest), 4) + b"more")
        b.check(f"{call}/others-go-on", b.alive())
        words = go_on(b)
        b.check(f"{call}/goes-on", len(words) == 2 and words[1] == "EAGAIN", words)
