# SPDX-License-Identifier: GPL-2.0
"""Which file of a crate uses which: drawn for people, and checked for circles.

A crate is read as the compiler reads it: from its root along `mod`, with #[path]. Test modules are
left out. File A uses file B if a path in A (`crate::`, `super::`, `self::`, or by the name of a child
module) leads to something that B defines; names that a module only passes on (`use`, `pub use`) are
followed to where they are defined. To declare a module, or to pass its names on, is no use of it.
What is not seen: methods called on a value whose type another file defines, and traits' impls.
"""

import re
from pathlib import PurePosixPath

from .checks import without_comments

TESTS = re.compile(r"#\[cfg\((test|CONFIG_KUNIT[^\]]*)\)\]")
MOD = re.compile(r"((?:#\[[^\n]*\]\s*)*)(?:pub(?:\([^)]*\))?\s+)?\bmod\s+(\w+)\s*([;{])")
USE = re.compile(r"(?:(pub)(?:\([^)]*\))?\s+)?\buse\s+([^;]+);")
PATH = re.compile(r"(?<![\w:])(\$?\w+)((?:\s*::\s*\w+)+)")
MACRO = re.compile(r"#\[macro_export\][^{]*?\bmacro_rules!\s*(\w+)")


class Module:
    """A module: a file, or a `mod` within one."""

    def __init__(self, file, name, parent, root):
        self.file, self.name, self.parent = file, name, parent
        self.root = root or self
        self.children = {}
        self.names = {}         # what it imports: name -> path
        self.passed = []        # what it passes on: (name, path)
        self.paths = []         # what it uses
        self.macros = {}        # of a root: name -> module
        self.code = ""


def block_end(text, begin):
    """The place behind the block that begins with the brace at `begin`."""
    depth = 0
    for place in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return place + 1
    return len(text)


def use_tree(text):
    """The paths of a `use`, as (segments, name in this module)."""
    text, out = text.strip(), []
    if "{" not in text:
        path, _, alias = text.partition(" as ")
        segments = [part.strip() for part in path.split("::") if part.strip()]
        return [(segments, alias.strip() or segments[-1])] if segments else []
    head, _, body = text.partition("{")
    body = body[:body.rindex("}")]
    prefix = [part.strip() for part in head.split("::") if part.strip()]
    depth, item = 0, ""
    for char in body + ",":
        depth += {"{": 1, "}": -1}.get(char, 0)
        if char == "," and depth == 0:
            for segments, name in use_tree(item):
                if segments == ["self"]:
                    segments, name = [], prefix[-1] if name == "self" and prefix else name
                out.append((prefix + segments, name))
            item = ""
        else:
            item += char
    return out


class Crate:
    """The modules of one crate, or below a module that is no root. `read(name)` gives a file's text, or None."""

    def __init__(self, root, read, is_root=True):
        self.root, self.read, self.files, self.is_root = root, read, [], is_root
        self.skipped = set()    # files of tests
        self.top = self.module(root, "crate", None, None)

    def module(self, file, name, parent, root):
        module = Module(file, name, parent, root)
        self.files.append(file)
        text = self.read(file) or ""
        # Paths of #[path] are strings, which are blank in the code; both have the same places.
        self.fill(module, without_comments(text), text)
        return module

    def folder(self, file):
        """Where the files of a module's children are."""
        path = PurePosixPath(file)
        own = file == self.root and self.is_root or path.name == "mod.rs"
        return path.parent if own else path.with_suffix("")

    def child_file(self, module, name, given):
        if given:
            return str(PurePosixPath(module.file).parent / given)
        inside, at = [], module
        while at.parent is not None and at.parent.file == at.file:
            inside.insert(0, at.name)
            at = at.parent
        folder = self.folder(module.file).joinpath(*inside)
        plain, nested = str(folder / f"{name}.rs"), str(folder / name / "mod.rs")
        return nested if self.read(plain) is None and self.read(nested) is not None else plain

    def fill(self, module, code, text):
        at = 0
        for macro in MACRO.finditer(code):
            module.root.macros[macro[1]] = module
        while (match := MOD.search(code, at)):
            module.code += code[at:match.start()]
            attributes, name, kind = text[match.start():match.end(1)], match[2], match[3]
            given = re.search(r'#\[path\s*=\s*"([^"]+)"\]', attributes)
            at = match.end()
            end = block_end(code, match.end() - 1) if kind == "{" else at
            if TESTS.search(attributes):
                if kind == ";":
                    self.skipped.add(self.child_file(module, name, given and given[1]))
            elif kind == "{":
                child = Module(module.file, name, module, module.root)
                module.children[name] = child
                self.fill(child, code[at:end - 1], text[at:end - 1])
            else:
                file = self.child_file(module, name, given and given[1])
                module.children[name] = self.module(file, name, module, module.root)
            at = end
        module.code += code[at:]
        self.scan(module)

    def scan(self, module):
        rest = USE.sub("", module.code)
        # The children first: theirs are the names that a path may begin with.
        for passed, body in USE.findall(module.code):
            for path, name in use_tree(body):
                local = path[0] in ("crate", "self", "super") or path[0] in module.children
                if not local:
                    # Of another crate.
                    module.names.setdefault(name, None)
                    continue
                if name != "*":
                    module.names[name] = path
                if passed:
                    module.passed.append((name, path))
                else:
                    module.paths.append(path)
        # What is passed on is used, too, if its name is there besides.
        for name, path in module.passed:
            if name != "*" and re.search(rf"\b{re.escape(name)}\b", rest):
                module.paths.append(path)
        for match in PATH.finditer(rest):
            path = [match[1].lstrip("$")] + re.findall(r"\w+", match[2])
            if path[0] in ("crate", "self", "super") or path[0] in module.children:
                module.paths.append(path)

    def target(self, module, path, seen=()):
        """The module that defines what a path leads to; None if that is in another crate."""
        at = module
        for number, segment in enumerate(path):
            if segment == "crate":
                at = module.root
            elif segment == "super":
                at = at.parent or at
            elif segment == "self":
                continue
            elif segment in at.children:
                at = at.children[segment]
            elif segment in at.names and (at, segment) not in seen:
                path_there = at.names[segment]
                inner = path_there and self.target(at, path_there, (*seen, (at, segment)))
                if inner is None:
                    return None
                # The name may be that of a module, and the path go on in it.
                rest = path[number + 1:]
                return self.target(inner, rest, seen) if rest and rest[0] in inner.children else inner
            elif at is at.root and segment in at.macros:
                return at.macros[segment]
            else:
                return at
        return at

    def modules(self, module=None):
        module = module or self.top
        yield module
        for child in module.children.values():
            yield from self.modules(child)

    def graph(self):
        """{file: files that it uses}, by short names."""
        edges = {self.short(file): set() for file in self.files}
        for module in self.modules():
            for path in module.paths:
                used = self.target(module, path)
                if used is not None and used.file != module.file:
                    edges[self.short(module.file)].add(self.short(used.file))
        return edges

    def short(self, file):
        folder = str(self.folder(self.root))
        if file == self.root:
            return "crate"
        if folder != ".":
            file = file.removeprefix(f"{folder}/")
        # Kbuild's crates have a folder of their name beside the root.
        file = file.removeprefix(f"{PurePosixPath(self.root).stem}/")
        return file.removesuffix(".rs").removesuffix("/mod")


def groups(edges):
    """The files, each with those that it is in a circle with, from bottom to top (Tarjan)."""
    index, low, stack, out = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for used in sorted(edges[node]):
            if used not in index:
                visit(used)
                low[node] = min(low[node], low[used])
            elif used in stack:
                low[node] = min(low[node], index[used])
        if low[node] == index[node]:
            place = stack.index(node)
            out.append(sorted(stack[place:]))
            del stack[place:]

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return out


def circles(edges):
    return [group for group in groups(edges) if len(group) > 1]


def levels(edges):
    """[(level, group)]: each is above all that it uses."""
    level = {}
    out = []
    for group in groups(edges):
        below = {used for node in group for used in edges[node]} - set(group)
        height = max((level[used] + 1 for used in below), default=0)
        level.update(dict.fromkeys(group, height))
        out.append((height, group))
    return sorted(out)


def crates(names, read):
    """The crates of a tree: their roots are the Rust files that are no module of another one."""
    rust = [name for name in names if name.endswith(".rs")]
    found, claimed = [], set()
    # A root is above its modules, and a test's file is a module, too.
    for name in sorted(rust, key=lambda name: (name.count("/"), name)):
        if name in claimed:
            continue
        crate = Crate(name, read)
        for skipped in list(crate.skipped):
            # The modules of a test's module are none of the crate.
            crate.skipped.update(Crate(skipped, read, False).files)
        found.append(crate)
        claimed.update(crate.files, crate.skipped)
    # `lib.rs` comes before `main.rs`, and files below both; a file that was taken for a root at first
    # may be the module of a later one.
    modules = set().union(*[set(crate.files[1:]) | crate.skipped for crate in found])
    return sorted((crate for crate in found if crate.root not in modules), key=lambda crate: crate.root)


def draw(crate):
    """A crate for people."""
    edges = crate.graph()
    lines = [f"{crate.root}: {len(edges)} files"]
    last = None
    for height, group in levels(edges):
        for node in group:
            mark = f"{height:3}" if height != last else "   "
            last = height
            circle = f"  CIRCLE with {' '.join(other for other in group if other != node)}" \
                if len(group) > 1 else ""
            used = " ".join(sorted(edges[node]))
            lines.append(f"{mark}  {node}{' -> ' + used if used else ''}{circle}")
    return "\n".join(lines)


def problems(names, read):
    """One line for each circle in each crate."""
    return [f"{crate.root}: {' '.join(group)}" for crate in crates(names, read)
            for group in circles(crate.graph())]
