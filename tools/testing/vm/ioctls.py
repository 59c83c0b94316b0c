#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The vhost ioctls of an strace log on standard input, comparable between two runs.

Addresses, descriptors and process ids are masked; order and results stay.
"""

import re
import sys

unfinished = {}
for line in sys.stdin:
    match = re.match(r"(\d+)\s+(.*)", line.rstrip())
    if not match:
        continue
    pid, text = match.groups()
    if text.endswith("<unfinished ...>"):
        unfinished[pid] = text[:-len("<unfinished ...>")].rstrip()
        continue
    resumed = re.match(r"<\.\.\. \w+ resumed>\s?(.*)", text)
    if resumed:
        text = unfinished.pop(pid, "") + resumed[1]
    if "/dev/vhost-vsock" in text:
        print(re.sub(r"= \d+$", "= FD", text))
        continue
    if not re.match(r"ioctl\(\d+, VHOST", text):
        continue
    text = re.sub(r"ioctl\(\d+", "ioctl(FD", text)
    text = re.sub(r"0x[0-9a-f]{5,}", "ADDRESS", text)
    text = re.sub(r"\bfd=-?\d+", "fd=FD", text)
    print(text)
