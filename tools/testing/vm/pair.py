#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Runs one of the kernel's vsock test programs as a client/server pair.

pair.py PREFIX PROGRAM loopback|guest-client|guest-server

Runs in the host VM. Each sub-test becomes one line (`ok`, `not ok`, `skip`).
It passes only if both sides say so. PAIR_SKIP is a pattern of those that cannot
pass with the options that the guest's device has. Those in vsock_test.alone are run
after the others, each by itself. A failing sub-test ends the programs: the later ones
are then run without it.

vsock_uring_test connects again right after it closed a ring, whose teardown signals the
process. If that interrupts the connect(), a C host (or guest) resets the next one: it has
the connection still that the first one made. Such a run says nothing, with C on both
sides neither, and is made again; the kernel's trace tells whether it was so.
"""

import fnmatch
import os
import re
import socket
import subprocess
import sys
import threading
import time

GUEST_CID = int(os.environ.get("GUEST_CID", "3"))
AGENT = ("127.0.0.1", 2222)
VOID = 4            # runs at most that a signal spoiled
WATCH = """mountpoint -q /sys/kernel/tracing || mount -t tracefs nodev /sys/kernel/tracing
cd /sys/kernel/tracing/events/syscalls/sys_exit_connect || exit
echo 'ret == -4' >filter; echo >../../../trace; echo 1 >enable"""
UNWATCH = """cd /sys/kernel/tracing; echo 0 >events/syscalls/sys_exit_connect/enable
grep sys_connect trace"""
IDLE = 60           # seconds without a word from both sides
SUB_TEST = re.compile(r"^(\d+) - (.*?)\.\.\.(.*?)(?=^\d+ - |^All tests have|\Z)", re.M | re.S)


class Side:
    """One running program, here or in the guest, and what it printed."""

    def __init__(self, where, command, on_text=None):
        self.text, self.status, self.moved = "", None, time.monotonic()
        self.where, self.command, self.on_text = where, command, on_text
        self.process = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _add(self, data):
        self.text += data.decode(errors="replace")
        self.moved = time.monotonic()
        if self.on_text:
            self.on_text(self.text)

    def _run(self):
        try:
            self._guest() if self.where == "guest" else self._local()
        except OSError as error:
            self.text += f"\n{error}\n"
            self.status = 255

    def _local(self):
        self.process = subprocess.Popen(self.command, shell=True, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        while data := os.read(self.process.stdout.fileno(), 65536):
            self._add(data)
        self.status = self.process.wait()

    def _guest(self):
        with socket.create_connection(AGENT, 20) as agent:
            agent.settimeout(None)
            agent.sendall(self.command.encode() + b"\n")
            agent.shutdown(socket.SHUT_WR)
            while data := agent.recv(65536):
                self._add(data)
        found = re.findall(r"^LAB-RC=(\d+)", self.text, re.M)
        self.status = int(found[-1]) if found else 255

    def kill(self, program):
        if self.where == "guest":
            try:
                with socket.create_connection(AGENT, 5) as agent:
                    agent.settimeout(5)
                    agent.sendall(f"killall -9 {program}\n".encode())
                    agent.shutdown(socket.SHUT_WR)
                    agent.recv(100)
            except OSError:
                pass
        elif self.process:
            subprocess.run(["pkill", "-KILL", "-P", str(self.process.pid)])
            self.process.kill()
        self.thread.join(5)


def sub_tests(text):
    """index -> (name, verdict): what one side printed."""
    found = {}
    for index, name, rest in SUB_TEST.findall(text):
        verdict = rest.strip()
        found[int(index)] = (name, "ok" if verdict.endswith("ok") else
                             "skipped" if verdict.endswith("skipped") else verdict or "no verdict")
    return found


def clean(name):
    return re.sub(r"[^\w.+()-]+", "_", name).strip("_")


def tail(text, lines=6):
    return [line for line in text.splitlines() if line.strip() and "LAB-RC" not in line][-lines:]


class Pair:
    def __init__(self, prefix, program, direction):
        self.prefix, self.program, self.direction = prefix, program, direction
        self.glob = os.environ.get("LAB_TESTS") or "*"
        self.skips = self._read_skips("vsock_test.skip")
        if pattern := os.environ.get("PAIR_SKIP"):
            self.skips.insert(0, (pattern, "the device is not to have what it wants"))
        self.alone = self._read_skips("vsock_test.alone")
        self.run_number = 0

    def _read_skips(self, name):
        found = []
        for line in open(f"/lab/vm/{name}"):
            match = re.match(r"(\w+)(?:@([\w/*-]+))?:\s*(.*?)\s+#\s*(.+)", line)
            if match and match[1] == self.program and (
                    match[2] in (None, self.direction) or fnmatch.fnmatchcase(self.prefix, match[2])):
                found.append((match[3], match[4]))
        return found

    def name(self, test):
        return f"{self.prefix}/{self.program}/{clean(test)}"

    def wanted(self, test):
        return fnmatch.fnmatch(self.name(test), f"*{self.glob}*")

    def skip_reason(self, test):
        return next((why for pattern, why in self.skips
                     if fnmatch.fnmatchcase(test, pattern)), None)

    def list(self):
        if self.program == "vsock_uring_test":
            return {}           # has no --list and no --skip
        out = subprocess.run([self.program, "--list"], stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True).stdout
        return {int(n): name for n, name in re.findall(r"^(\d+)\t(.+)$", out, re.M)}

    def mark(self, text):
        current = re.findall(r"^\d+ - (.*?)\.\.\.", text, re.M)
        if current and current[-1] != self.marked:
            self.marked = current[-1]
            with open("/dev/kmsg", "w") as log:
                log.write(f"<4>lab-test: {self.name(current[-1])}\n")
            if self.direction != "loopback":
                with open("/lab/out/guest-console.log", "a") as log:
                    log.write(f"lab-test: {self.name(current[-1])}\n")

    def run(self, skipped):
        """One run of both sides; their texts and statuses."""
        self.marked = None
        self.run_number += 1
        # Another port each time, which nobody has: the last run's may be in TIME_WAIT.
        with socket.create_server(("", 0)) as free:
            port = free.getsockname()[1]
        skip = "".join(f" --skip {n}" for n in sorted(skipped))
        server, client = {"loopback": ("host", "host"), "guest-client": ("host", "guest"),
                          "guest-server": ("guest", "host")}[self.direction]
        if server == "guest":
            port = 1234
        target = {"loopback": "127.0.0.1", "guest-client": "10.0.2.2",
                  "guest-server": "127.0.0.1"}[self.direction]
        cid = {"host": GUEST_CID, "guest": 2}
        server_peer = 1 if self.direction == "loopback" else cid[server]
        client_peer = 1 if self.direction == "loopback" else cid[client]
        first = Side(server, f"exec {self.program} --mode server --control-port {port} "
                     f"--peer-cid {server_peer}{skip}", self.mark if server == "host" else None)
        begin = time.monotonic()
        while "listening" not in first.text and first.status is None:
            if time.monotonic() - begin > 30:
                break
            time.sleep(0.05)
        second = Side(client, f"exec {self.program} --mode client --control-host {target} "
                      f"--control-port {port} --peer-cid {client_peer}{skip}",
                      self.mark if server == "guest" else None)
        while first.status is None or second.status is None:
            if time.monotonic() - max(first.moved, second.moved) > IDLE:
                break
            # One side is gone: the other has a few seconds to notice.
            ended = [s for s in (first, second) if s.status is not None]
            if ended and time.monotonic() - max(s.moved for s in ended) > 30 \
                    and time.monotonic() - max(first.moved, second.moved) > 15:
                break
            time.sleep(0.05)
        for side in (first, second):
            if side.status is None:
                side.text += "\n(hung; killed)"
                side.kill(self.program)
        with open(f"/lab/out/{clean(self.prefix)}.{self.program}.{self.run_number}.log", "w") as log:
            log.write(f"== server ({server})\n{first.text}\n== client ({client})\n{second.text}\n")
        return first, second

    def report(self, test, problem, first=None, second=None):
        if not problem:
            print(f"ok {self.name(test)}", flush=True)
            return
        print(f"not ok {self.name(test)} # {problem}")
        for label, side in (("server", first), ("client", second)):
            for line in tail(side.text) if side else ():
                print(f"#   {label}: {line[:200]}")
        sys.stdout.flush()

    def all(self):
        tests = self.list()
        skipped = set()
        for index, test in tests.items():
            why = self.skip_reason(test)
            if why or not self.wanted(test):
                skipped.add(index)
            if why and self.wanted(test):
                print(f"skip {self.name(test)} # {why}", flush=True)
        if not tests:
            self.together(tests, skipped)
            return
        alone = {index for index, test in tests.items() if index not in skipped
                 and any(fnmatch.fnmatchcase(test, pattern) for pattern, _ in self.alone)}
        for run in [set(tests) - skipped - alone, *({index} for index in sorted(alone))]:
            if run:
                self.together(tests, set(tests) - run)

    def unspoiled(self, skipped):
        """One run as of run(), in which no connect() was interrupted by the end of a ring."""
        if self.program != "vsock_uring_test":
            return self.run(skipped)
        client = "guest" if self.direction == "guest-client" else "host"
        for _ in range(VOID):
            Side(client, WATCH).thread.join()
            sides = self.run(skipped)
            watch = Side(client, UNWATCH)
            watch.thread.join()
            interrupted = re.findall(r"sys_connect -> \S+", watch.text)
            if not interrupted or "connect: Connection reset by peer" not in sides[1].text:
                break
            print(f"# {self.prefix}/{self.program}: a ring's end interrupted connect(): again", flush=True)
        return sides

    def together(self, tests, skipped):
        """The sub-tests that are not skipped, in one run unless one fails."""
        left = set(tests) - skipped
        while True:
            first, second = self.unspoiled(skipped)
            servers, clients = sub_tests(first.text), sub_tests(second.text)
            failed = None
            for index in sorted(set(servers) | set(clients)):
                if index in skipped:
                    continue
                test = (servers.get(index) or clients.get(index))[0]
                if not tests and not self.wanted(test):
                    continue
                verdicts = [side.get(index, ("", "not reached"))[1] for side in (servers, clients)]
                left.discard(index)
                skipped.add(index)
                if not tests and (why := self.skip_reason(test)):
                    print(f"skip {self.name(test)} # {why}", flush=True)
                elif verdicts == ["ok", "ok"]:
                    self.report(test, "")
                else:
                    said = [re.sub(r"\s+", " ", v)[:80] for v in verdicts]
                    self.report(test, f"server: {said[0]}; client: {said[1]}", first, second)
                    failed = index
                    break
            if failed is None:
                break
            left -= set(range(failed + 1))
            skipped |= set(range(failed + 1)) & set(tests)
            if not left:
                return
        whole = first.status == 0 and second.status == 0
        if not tests and (not servers or not clients):
            self.report("start", "no sub-test ran", first, second)
        elif not whole and not any(self.skip_reason(n) for n, _ in servers.values()):
            self.report("end", f"exit status: server {first.status}, client {second.status}",
                        first, second)
        for index in sorted(left):
            if self.wanted(tests[index]):
                self.report(tests[index], "was not reached", first, second)


def main():
    Pair(*sys.argv[1:4]).all()


main()
