# SPDX-License-Identifier: GPL-2.0
"""Checks of the tree's text and of the built objects."""

import fnmatch
import re

from . import build, config
from .chroot import Chroot
from .root import build_root
from .say import LabError

# Formats that have no comments.
NO_COMMENTS = re.compile(r"\.(json|lock|png|jpg|svg|bin|txt|md5|gitkeep|proptest-regressions)$|"
                         r"(^|/)(LICENSE|COPYING)[^/]*$|(^|/)LICENSES/|proptest-regressions/")
# As rustfmt has it for code.
COLUMNS = 100
# The only home of `unsafe` in the modules; and in programs, of system calls that no library has a safe
# function for: those of the ring driver, and the ioctls of vsockctl.
LIBRARIES = ("rust/", "tools/testing/ring/src/sys/", "tools/vsockctl/src/sys.rs")


def read(name):
    try:
        return (config.REPO / name).read_text()
    except (UnicodeDecodeError, IsADirectoryError, FileNotFoundError):
        return None


def without_comments(text):
    """Rust source with comments, strings and characters blanked, lines kept."""
    out, i, n = [], 0, len(text)

    def blank(end):
        nonlocal i
        out.append(re.sub(r"[^\n]", " ", text[i:end]))
        i = end

    while i < n:
        if text.startswith("//", i):
            end = text.find("\n", i)
            blank(n if end < 0 else end)
        elif text.startswith("/*", i):
            depth, j = 1, i + 2
            while j < n and depth:
                if text.startswith("/*", j):
                    depth, j = depth + 1, j + 2
                elif text.startswith("*/", j):
                    depth, j = depth - 1, j + 2
                else:
                    j += 1
            blank(j)
        elif (raw := re.compile(r'\b[bc]?r(#*)"').match(text, i)):
            end = text.find('"' + raw[1], raw.end())
            blank(n if end < 0 else end + 1 + len(raw[1]))
        elif text[i] == '"':
            blank(re.compile(r'"(\\.|[^"\\])*"?', re.S).match(text, i).end())
        elif (char := re.compile(r"'(\\[^\n']+|[^\\'\n])'").match(text, i)):
            blank(char.end())
        else:
            out.append(text[i])
            i += 1
    return "".join(out)


def unsafe_lines(name):
    text = read(name) or ""
    code = without_comments(text)
    # The lint's own name is not the keyword.
    return [f"{name}:{number}: {text.splitlines()[number - 1].strip()}"
            for number, line in enumerate(code.splitlines(), 1)
            if re.search(r"\bunsafe\b", line)]


def wide_comments(text):
    """Lines with a comment of Rust that is too wide; rows of tables, code and links may be."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        comment = re.match(r"\s*//[/!]?(.*)", line)
        if (comment and len(line) > COLUMNS
                and not re.match(r" (\||    |\[.*\]\()", comment[1])):
            found.append(number)
    return found


def static(report):
    names = build.tree_files()
    if report.wanted("T0/tree/spdx"):
        missing = []
        for name in names:
            text = read(name)
            if text is None or not text.strip() or NO_COMMENTS.search(name):
                continue
            if "SPDX-License-Identifier:" not in "\n".join(text.splitlines()[:8]):
                missing.append(name)
        report.add("T0/tree/spdx", "not ok" if missing else "ok",
                   f"{len(missing)} files without SPDX line" if missing else "", missing[:20])
    if report.wanted("T0/tree/unsafe-only-in-rust"):
        found = []
        for name in names:
            if name.endswith(".rs") and not name.startswith(LIBRARIES):
                found += unsafe_lines(name)
        report.add("T0/tree/unsafe-only-in-rust", "not ok" if found else "ok",
                   f"{len(found)} lines outside of its places" if found else "", found[:20])
    if report.wanted("T0/tree/rustfmt"):
        text = build.fmt_problems()
        report.add("T0/tree/rustfmt", "not ok" if text else "ok",
                   "run `make fmt`" if text else "", text.splitlines()[:30])
    if report.wanted("T0/tree/comment-width"):
        wide = [f"{name}:{line}" for name in names if name.endswith(".rs")
                for line in wide_comments(read(name) or "")]
        report.add("T0/tree/comment-width", "not ok" if wide else "ok",
                   f"{len(wide)} comments beyond column {COLUMNS}" if wide else "", wide[:20])
    if report.wanted("T0/tree/file-length"):
        long = [f"{name}: {len(text.splitlines())} lines" for name in names
                if name.startswith("tools/lab/") and (text := read(name))
                and len(text.splitlines()) > 400]
        report.add("T0/tree/file-length", "not ok" if long else "ok",
                   "files of the lab with more than 400 lines" if long else "", long)


def checklist(report):
    """Each pattern in Documentation/checklist.rst must name a test that passed."""
    text = (config.REPO / "Documentation" / "checklist.rst").read_text()
    passed = [name for name, verdict in report.verdicts.items() if verdict == "ok"]
    patterns = dict.fromkeys(re.findall(r"``(T[0-9?]/[^`]+)``", text))
    missing = [pattern for pattern in patterns if not fnmatch.filter(passed, pattern)]
    report.add("T0/checklist", "not ok" if missing or not patterns else "ok",
               f"{len(missing)} of {len(patterns)} patterns match no test that passed"
               if missing else "", missing)


def allowlist():
    entries = []
    for number, line in enumerate((config.TESTING / "panic-allowlist").read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = re.match(r"(\S+)\s+(\S.*?)\s+#\s*(\S.*)$", line)
        if not match:
            raise LabError(f"tools/testing/panic-allowlist:{number}: not `MODULE PATTERN  # REASON`")
        entries.append([match[1], match[2], False])
    return entries


# Panics of core by any of its paths, slice and str index failures among them.
PANIC = re.compile(r"core9panicking|4core5slice5index\w*fail|slice_(start|end)_index\w*fail|"
                   r"4core3str\w*slice_error_fail|4core6option\w*(unwrap|expect)_failed|"
                   r"4core6result\w*unwrap_failed|4core4cell\w*panic|len_mismatch_fail|"
                   r"rust_begin_unwind|rust_panic")


def panics(report):
    modules = sorted((config.BUILD / "stock-we").glob("*.ko"))
    if not modules:
        report.add("T0/objects/no-panic", "not ok", "no module was built")
        return
    allowed = allowlist()
    place = Chroot(build_root()).bind(config.BUILD / "stock-we", "/objects", True)
    for module in modules:
        symbols = place.output(["nm", module.name], cwd="/objects").splitlines()
        bad = []
        for line in symbols:
            symbol = line.split()[-1]
            if not PANIC.search(symbol):
                continue
            match = next((entry for entry in allowed
                          if fnmatch.fnmatchcase(module.stem, entry[0])
                          and fnmatch.fnmatchcase(symbol, f"*{entry[1]}*")), None)
            if match:
                match[2] = True
            else:
                bad.append(line.strip())
        report.add(f"T0/objects/no-panic/{module.stem}", "not ok" if bad else "ok",
                   f"{len(bad)} references to core::panicking" if bad else "", bad[:20])
    unused = [f"{entry[0]} {entry[1]}" for entry in allowed if not entry[2]]
    report.add("T0/objects/panic-allowlist-needed", "not ok" if unused else "ok",
               "entries that no module needs" if unused else "", unused)
