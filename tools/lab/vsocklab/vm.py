# SPDX-License-Identifier: GPL-2.0
"""One run of the host VM: payload in, lines and files out."""

import io
import os
import select
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

from . import accel, cache, config, image, params
from .chroot import Chroot
from .root import runtime_root
from .say import LabError, die_with_parent, say

OUT_DISK = 256 << 20
EXIT_MARK = "LAB-EXIT "


class Payload:
    """The tar archive that the host VM unpacks to /lab."""

    def __init__(self):
        self.members = {}

    def add(self, name, source):
        self.members[name] = Path(source)

    def text(self, name, content):
        self.members[name] = content.encode()

    def write(self, target):
        with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as archive:
            for name in sorted(self.members):
                source = self.members[name]
                data = source if isinstance(source, bytes) else source.read_bytes()
                info = tarfile.TarInfo(name)
                info.size = len(data)
                info.mode = 0o755
                info.mtime = int(time.time())
                archive.addfile(info, io.BytesIO(data))


def base_payload(kernel, modules, guest_programs=(), programs=()):
    """Scripts, kernel, guest initramfs, our modules: what every run has."""
    payload = Payload()
    for path in sorted((config.TESTING / "vm").rglob("*")):
        if path.is_file():
            payload.add(f"vm/{path.relative_to(config.TESTING / 'vm')}", path)
    for module in modules:
        payload.add(f"modules/ours/{module.name}", module)
    payload.text("params", params.text())
    payload.add("vmlinuz", kernel.files() / "vmlinuz")
    payload.add("guest/base", image.guest_base(kernel))
    scripts = sorted((config.TESTING / "vm").glob("guest-*"))
    scripts.append(config.TESTING / "vm" / "demo.sh")
    order = {name: n for n, name in enumerate(config.MODULES["guest"])}
    guest_modules = sorted((m for m in modules if m.stem in order), key=lambda m: order[m.stem])
    scratch = cache.scratch("overlay")
    image.guest_overlay(scratch, scripts, guest_modules, guest_programs)
    payload.members["guest/overlay"] = scratch.read_bytes()
    scratch.unlink()
    for program in programs:
        payload.add(f"bin/{Path(program).name}", program)
    return payload


class Result:
    def __init__(self, directory):
        self.directory = directory      # console.log, guest.log, out/
        self.status = None              # of the script, None if it never ended
        self.seconds = 0.0
        self.reason = ""                # why there is no status


class HostVM:
    """Boots the host VM once and runs `/lab/vm/main` in it."""

    OUTPUTS = ("console.log", "guest.log")      # what a run leaves in /run-lab

    def __init__(self, kernel, name, payload, timeout=600, shell=False):
        self.kernel, self.name, self.payload = kernel, name, payload
        self.timeout, self.shell = timeout, shell
        self.accel = accel.choose(kernel)

    def qemu(self):
        def drive(number, file, options):
            return ["-drive", f"file={file},if=none,format=raw,id=d{number},{options}",
                    "-device", f"virtio-blk-pci,drive=d{number}"]

        serial = ["-device", "virtio-serial-pci"]
        stdio = "stdio,id=c0,signal=off" if self.shell else "stdio,id=c0,signal=on"
        serial += ["-chardev", stdio, "-chardev", "file,id=c1,path=/run-lab/guest.log"]
        if self.shell:
            serial += ["-device", "virtconsole,chardev=c0",
                       "-chardev", "file,id=c2,path=/run-lab/results.log",
                       "-device", "virtserialport,chardev=c2,name=lab.results"]
        else:
            serial += ["-device", "virtserialport,chardev=c0,name=lab.results"]
        serial += ["-device", "virtserialport,chardev=c1,name=lab.guest"]
        return ["qemu-system-x86_64", *self.accel, "-smp", "2", "-m", "4G",
                "-nodefaults", "-display", "none", "-no-reboot",
                "-kernel", "/kernel/vmlinuz", "-initrd", "/initramfs",
                "-append", "console=ttyS0 panic=-1 loglevel=5 mitigations=off "
                "watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=120 net.ifnames=0" + (" lab.shell" if self.shell else "")
                + " " + os.environ.get("VSOCK_LAB_APPEND", ""),
                "-serial", "file:/run-lab/console.log", *serial,
                *drive(0, "/disk.img", "snapshot=on,cache=unsafe"),
                *drive(1, "/run-lab/payload.tar", "readonly=on"),
                *drive(2, "/run-lab/out.img", "cache=unsafe")]

    def prepare(self, place):
        """Binds what else the VM's QEMU needs in its root."""

    def run(self, on_line=None):
        """Runs to the end; `on_line` gets each line of the script's output."""
        directory = config.LOGS / self.name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        result = Result(directory)
        scratch = cache.scratch("run")
        scratch.mkdir()
        try:
            self.payload.write(scratch / "payload.tar")
            with open(scratch / "out.img", "wb") as out:
                out.truncate(OUT_DISK)
            place = Chroot(runtime_root())
            place.bind(self.kernel.files(), "/kernel", True)
            place.bind(image.host_initramfs(self.kernel), "/initramfs", True)
            place.bind(image.disk(self.kernel), "/disk.img", True)
            place.bind(scratch, "/run-lab")
            self.prepare(place)
            place.env["TMPDIR"] = "/run-lab"
            begin = time.monotonic()
            if self.shell:
                with open(directory / "qemu.log", "wb") as errors:
                    result.status = subprocess.call(place.argv(self.qemu()), stderr=errors)
            else:
                self._follow(place, result, on_line or (lambda line: None))
            result.seconds = time.monotonic() - begin
            self._collect(scratch, result)
        finally:
            cache.remove_tree(scratch)
        return result

    def _follow(self, place, result, on_line):
        with open(result.directory / "qemu.log", "wb") as errors:
            # At end of file on its stdin QEMU would close the port: hold it open.
            child = subprocess.Popen(place.argv(self.qemu()), stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, stderr=errors,
                                     preexec_fn=die_with_parent)
        os.set_blocking(child.stdout.fileno(), False)
        deadline = time.monotonic() + self.timeout
        pending = b""
        output = open(result.directory / "output.log", "wb")
        try:
            while True:
                wait = deadline - time.monotonic()
                if wait <= 0:
                    result.status = None
                    result.reason = f"the host VM did not finish within {self.timeout} s"
                    break
                if not select.select([child.stdout], [], [], min(wait, 5))[0]:
                    continue
                data = child.stdout.read()
                if data == b"":
                    break
                output.write(data)
                output.flush()
                *lines, pending = (pending + data).split(b"\n")
                for raw in lines:
                    line = raw.decode(errors="replace").rstrip("\r")
                    if line.startswith(EXIT_MARK):
                        result.status = int(line[len(EXIT_MARK):] or 1)
                    else:
                        on_line(line)
        finally:
            output.close()
            child.kill()
            child.wait()
        if result.status is None and not result.reason:
            result.reason = "the host VM stopped before its script ended (a crash of its kernel?)"

    def _collect(self, scratch, result):
        for name in self.OUTPUTS:
            source = scratch / name
            if source.exists():
                shutil.copy(source, result.directory / name)
        out = result.directory / "out"
        out.mkdir(exist_ok=True)
        try:
            with tarfile.open(scratch / "out.img", "r:") as archive:
                for member in archive:
                    if member.isfile() and ".." not in member.name:
                        data = archive.extractfile(member).read()
                        target = out / member.name
                        target.parent.mkdir(parents=True, exist_ok=True)
                        target.write_bytes(data)
        except (tarfile.TarError, EOFError):
            pass                # nothing was written


def modules(which, build="stock"):
    """Our modules (of build/<build>) in load order, or none for the C side."""
    if which == "c":
        return []
    order = {name: n for n, name in enumerate(config.ALL_MODULES)}
    found = [m for m in (config.BUILD / build).glob("*.ko") if m.stem in order]
    if not found:
        raise LabError(f"build/{build} has no module: run `make {build}` first")
    found.sort(key=lambda m: order[m.stem])
    params.check(found)
    say(f"modules of build/{build}: " + " ".join(m.stem for m in found))
    return found
