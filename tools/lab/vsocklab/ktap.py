# SPDX-License-Identifier: GPL-2.0
"""One line per test, and the counts at the end."""

import fnmatch
import re


class Report:
    """Collects verdicts; prints each as it comes."""

    def __init__(self, glob=""):
        self.glob = glob
        self.verdicts = {}          # name -> "ok" | "not ok" | "skip"
        self.number = 0

    def wanted(self, name):
        return fnmatch.fnmatch(name, f"*{self.glob}*") if self.glob else True

    def may_want(self, group):
        """Whether a test whose name begins so could be wanted."""
        literal = re.split(r"[*?[]", self.glob)[0]
        return "/" not in literal or literal in group or group in literal

    def add(self, name, verdict, reason="", details=()):
        if not self.wanted(name):
            return
        self.number += 1
        self.verdicts[name] = verdict
        word = "not ok" if verdict == "not ok" else "ok"
        line = f"{word} {self.number} {name}"
        if verdict == "skip":
            line += f" # SKIP {reason}"
        elif reason:
            line += f" # {reason}"
        print(line)
        for detail in details:
            print(f"# {detail}")
        print(end="", flush=True)

    def line(self, text):
        """A line of a script: a verdict or a comment. False if it is neither."""
        match = re.match(r"(ok|not ok|skip) (\S.*?)(?: # (.*))?$", text)
        if match:
            name, verdict, reason = re.sub(r"\s+", "_", match[2]), match[1], match[3] or ""
            if verdict == "ok" and re.match(r"SKIP\b", reason, re.I):
                verdict, reason = "skip", reason[4:].strip()
            self.add(name, verdict, reason)
            return True
        if text.startswith("#"):
            print(text, flush=True)
            return True
        return False

    def count(self, verdict):
        return sum(1 for v in self.verdicts.values() if v == verdict)

    def finish(self):
        """Prints the counts; the exit status of the whole."""
        passed, failed, skipped = (self.count(v) for v in ("ok", "not ok", "skip"))
        for name, verdict in self.verdicts.items():
            if verdict == "not ok":
                print(f"# failed: {name}")
        if not self.verdicts:
            print("# no test was run")
        print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
        return 0 if passed and not failed else 1
