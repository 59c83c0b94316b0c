#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Talks to a QEMU by QMP.

qmp.py SOCKET COMMAND [JSON]    run a command, print what it returns
qmp.py SOCKET wait STATUS [S]   wait until the migration (in or out) has that status
"""

import json
import socket
import sys
import time


class Qmp:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(120)
        self.socket.connect(path)
        self.lines = self.socket.makefile()
        self.lines.readline()
        self.run("qmp_capabilities")

    def run(self, command, arguments=None):
        message = {"execute": command, "arguments": arguments or {}}
        self.socket.sendall(json.dumps(message).encode())
        for line in self.lines:
            answer = json.loads(line)
            if "error" in answer:
                sys.exit(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        sys.exit(f"{command}: QEMU closed the connection")

    def wait(self, wanted, seconds):
        begin = time.monotonic()
        while time.monotonic() - begin < seconds:
            info = self.run("query-migrate")
            status = info.get("status")
            if status == wanted:
                return info
            if status in ("failed", "cancelled"):
                sys.exit(f"migration {status}: {info.get('error-desc', 'no reason given')}")
            time.sleep(0.2)
        sys.exit(f"migration still {status} after {seconds} s: {info}")


def main():
    qmp = Qmp(sys.argv[1])
    if sys.argv[2] == "wait":
        seconds = int(sys.argv[4]) if len(sys.argv) > 4 else 120
        result = qmp.wait(sys.argv[3], seconds)
    else:
        result = qmp.run(sys.argv[2], json.loads(sys.argv[3]) if len(sys.argv) > 3 else None)
    print(json.dumps(result))


main()
