# SPDX-License-Identifier: GPL-2.0
"""The guest: QEMU without any vsock device, to which devices are plugged while it runs."""

import contextlib
import json
import re
import socket
import subprocess
import time

AGENT = 2222
# What QEMU 10 says when a CPU of TCG looks up memory-mapped I/O by an index into the list of what is
# mapped, which another CPU, on which the guest lets go of a device, made shorter in that moment.
# Later ones keep a pointer (`full->section` in accel/tcg/cputlb.c).
KNOWN_FAULT = "iotlb_to_section: Assertion `section_index < d->map.sections_nb' failed"
SLOTS = 4


# The last line of what a command says, from the guest's agent.
END = re.compile(r"^LAB-RC=(\d+)\n\Z", re.M)


class GuestError(Exception):
    """The guest, or QEMU, did not do what it was asked."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Machine:
    """`start(arguments)` gives a Popen of QEMU with these arguments, of which `errors` is what it says;
    `directory` is where it finds and leaves files, which is `inside` for QEMU."""

    def __init__(self, directory, inside, accel, start, errors, memory="512M", append=""):
        self.directory, self.inside = directory, inside
        self.start, self.errors = start, errors
        self.log = directory / "console.log"
        self.log.touch()
        self.port = free_port()
        self.arguments = [
            "qemu-system-x86_64", *accel, "-smp", "2", "-m", memory,
            "-M", "q35,memory-backend=m",
            "-object", f"memory-backend-memfd,id=m,size={memory},share=on",
            "-global", "ICH9-LPC.disable_s3=0",
            "-nodefaults", "-display", "none", "-no-reboot",
            "-chardev", f"file,id=log,path={inside}/console.log,append=on", "-serial", "chardev:log",
            "-qmp", f"unix:{inside}/qmp,server=on,wait=off",
            "-netdev", f"user,id=n,hostfwd=tcp:127.0.0.1:{self.port}-:{AGENT}",
            "-device", "virtio-net-pci,netdev=n,romfile=",
            *(word for n in range(SLOTS) for word in
              ("-device", f"pcie-root-port,id=slot{n},chassis={n + 1}")),
            "-kernel", "/kernel/vmlinuz", "-initrd", f"{inside}/initramfs",
            "-append", "console=ttyS0 panic=-1 loglevel=7 mitigations=off net.ifnames=0 "
            f"no_timer_check random.trust_cpu=on init_on_alloc=0 {append}"]
        self.boot()

    def boot(self):
        self.child = self.start(self.arguments)
        self.monitor, self.events = None, []

    def boot_again(self, seconds):
        begin = self.log.stat().st_size
        self.errors.write_bytes(b"")
        self.boot()
        self.ready(seconds, begin)

    def has_known_fault(self):
        """Whether QEMU has ended for a reason that has nothing to do with us."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(2)
        return self.child.poll() is not None and KNOWN_FAULT in self.errors.read_text(errors="replace")

    # --- what it says -----------------------------------------------------------------

    def text(self, begin=0):
        with open(self.log, "rb") as log:
            log.seek(begin)
            return log.read().decode(errors="replace")

    def mark(self, name):
        """Tells the log which test begins; returns where."""
        with open(self.log, "ab") as log:
            log.write(f"lab-test: {name}\n".encode())
        return self.log.stat().st_size

    def wait_for(self, text, seconds, begin=0):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if re.search(text, self.text(begin)):
                return True
            if self.child.poll() is not None:
                raise GuestError("QEMU ended")
            time.sleep(0.05)
        return False

    # --- what it is told --------------------------------------------------------------

    def sh(self, command, timeout=60):
        """Output of a command in the guest; its status is in `self.status`."""
        with socket.create_connection(("127.0.0.1", self.port), timeout) as agent:
            agent.settimeout(timeout)
            agent.sendall(command.encode() + b"\n")
            agent.shutdown(socket.SHUT_WR)
            data = b""
            try:
                # What a command left running may hold the connection open: its status is the end.
                while not END.search(data.decode(errors="replace")) and (more := agent.recv(65536)):
                    data += more
            except TimeoutError:
                raise GuestError(f"no answer to {command!r} in {timeout:.0f} s: {data[-200:]!r}") from None
        text = data.decode(errors="replace")
        found = END.search(text)
        if not found:
            raise GuestError(f"no answer to {command!r}: {text[-200:]!r}")
        self.status = int(found[1])
        return text[:found.start()]

    def ready(self, seconds, begin=0):
        """Waits until commands can be given."""
        if not self.wait_for("LAB-GUEST-LOADED|LAB-GUEST-FAILED", seconds, begin):
            raise GuestError("the guest did not boot")
        self.agent(60)

    def agent(self, seconds):
        end = time.monotonic() + seconds
        while True:
            try:
                self.sh("true", 5)
                return
            except (OSError, GuestError):
                if time.monotonic() > end or self.child.poll() is not None:
                    raise GuestError("the guest's agent does not answer") from None
                time.sleep(0.2)

    def qmp(self, command, **arguments):
        if self.monitor is None:
            raw = socket.socket(socket.AF_UNIX)
            raw.settimeout(60)
            raw.connect(str(self.directory / "qmp"))
            self.monitor = raw.makefile("rw")
            self.monitor.readline()
            self.qmp("qmp_capabilities")
        with contextlib.suppress(BrokenPipeError):
            self.monitor.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            self.monitor.flush()
        while True:
            line = self.monitor.readline()
            if not line:
                raise GuestError(f"{command}: QEMU ended ({self.events[-3:]})")
            answer = json.loads(line)
            if "event" in answer:
                self.events.append(answer["event"])
            if "error" in answer:
                raise GuestError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    # --- devices ----------------------------------------------------------------------

    def plug(self, name, slot, path, **properties):
        """Adds a vsock device whose back end listens at `path`."""
        self.qmp("chardev-add", id=f"{name}-c", backend={"type": "socket", "data": {
            "addr": {"type": "unix", "data": {"path": path}}, "server": False}})
        self.qmp("device_add", driver="vhost-user-vsock-pci", id=name, bus=f"slot{slot}",
                 chardev=f"{name}-c", **properties)

    def unplug(self, name, seconds=30):
        """Asks the guest to give the device back, and waits until it has."""
        self.qmp("device_del", id=name)
        end = time.monotonic() + seconds
        while any(child["name"] == name for child in
                  self.qmp("qom-list", path="/machine/peripheral")):
            if time.monotonic() > end:
                raise GuestError(f"the guest does not give {name} back")
            time.sleep(0.02)
        # QEMU lets go of it somewhat later.
        while True:
            try:
                self.qmp("chardev-remove", id=f"{name}-c")
                return
            except GuestError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)

    def suspend(self, seconds=60):
        """Sends it to sleep (S3), and wakes it up again."""
        self.events.clear()
        self.sh("(sleep 0.2; echo mem >/sys/power/state) >/tmp/sleep 2>&1 &")
        end = time.monotonic() + seconds
        # Now and then it does not sleep for long by itself.
        while not self.woke_up():
            if self.qmp("query-status")["status"] == "suspended":
                with contextlib.suppress(GuestError):       # it woke up just now
                    self.qmp("system_wakeup")
            if time.monotonic() > end:
                if "SUSPEND" in self.events:
                    raise GuestError("the guest does not wake up")
                why = self.sh("cat /tmp/sleep; dmesg | grep -E 'PM:|reez' | tail -n 6")
                raise GuestError(f"the guest does not go to sleep: {why}")
            time.sleep(0.05)
        self.agent(seconds)

    def woke_up(self):
        """Whether it slept, and woke up again, as far as events were read since they were cleared.

        QEMU tells of the latter after it has answered `system_wakeup`: who does not wait for that
        takes it for that of the next sleep.
        """
        return "SUSPEND" in self.events and \
            "WAKEUP" in self.events[self.events.index("SUSPEND"):]

    def stop(self):
        try:
            self.sh("poweroff -f &", 5)
            self.child.wait(20)
            return True
        except (OSError, GuestError, subprocess.TimeoutExpired):
            return False
        finally:
            self.kill()

    def kill(self):
        self.child.kill()
        self.child.wait()
