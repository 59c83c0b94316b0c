#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Runs the cases of the device: one line each (`ok`, `not ok`, `skip`).

run.py PREFIX GLOB [MODULE...]

A case is a function `case_NAME` of a module cases_*.py; its docstring says what
it shows. It passes if it returns, fails if it raises, and is skipped if it
raises Skip. After each, a fresh device must answer.
"""

import fnmatch
import importlib
import os
import sys
import time
import traceback

import vhost

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
MODULES = ["cases_abi", "cases_worker", "cases_ring"]


def mark(name):
    with open("/dev/kmsg", "w") as kmsg:
        kmsg.write(f"<4>lab-test: {name}\n")


def probe():
    with vhost.Guest(0x7ffff001) as guest:
        guest.start()
        guest.give()
        guest.alive()


def run(name, function):
    mark(name)
    begin = time.monotonic()
    try:
        function()
        probe()
    except vhost.Skip as reason:
        print(f"skip {name} # {reason}", flush=True)
        return True
    except Exception as error:      # whatever a case may do wrong
        print(f"not ok {name} # {type(error).__name__}: {str(error).splitlines()[:1]}", flush=True)
        for line in traceback.format_exc().splitlines()[-12:]:
            print(f"#   {line}", flush=True)
        return False
    finally:
        vhost.Child.end_all()
    print(f"ok {name}", flush=True)
    seconds = time.monotonic() - begin
    if seconds > 3:
        print(f"# {name}: {seconds:.1f} s", flush=True)
    return True


def main():
    prefix, glob = sys.argv[1], sys.argv[2]
    good = True
    for module in sys.argv[3:] or MODULES:
        cases = importlib.import_module(module)
        for attribute in vars(cases).copy():
            if not attribute.startswith("case_"):
                continue
            name = f"{prefix}/{attribute[5:].replace('_', '-')}"
            if fnmatch.fnmatch(name, f"*{glob}*"):
                good &= run(name, getattr(cases, attribute))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
