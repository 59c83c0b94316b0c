# SPDX-License-Identifier: GPL-2.0
"""Writes initramfs archives (cpio, format newc)."""

import os
import stat


class Initramfs:
    """An archive under construction: path -> (mode, content)."""

    def __init__(self):
        self.entries = {}

    def directory(self, path):
        parts = path.strip("/").split("/")
        for count in range(1, len(parts) + 1):
            name = "/".join(parts[:count])
            if name:
                self.entries.setdefault(name, (stat.S_IFDIR | 0o755, b""))

    def file(self, path, content, mode=0o644):
        self.directory(os.path.dirname(path))
        if isinstance(content, str):
            content = content.encode()
        self.entries[path.strip("/")] = (stat.S_IFREG | mode, content)

    def copy(self, path, source):
        with open(source, "rb") as file:
            mode = 0o755 if os.access(source, os.X_OK) else 0o644
            self.file(path, file.read(), mode)

    def link(self, path, target):
        self.directory(os.path.dirname(path))
        self.entries[path.strip("/")] = (stat.S_IFLNK | 0o777, target.encode())

    def write(self, target):
        # Parents come before children since names are sorted.
        with open(target, "wb") as out:
            for number, name in enumerate(sorted(self.entries), 1):
                self._write(out, number, name, *self.entries[name])
            self._write(out, 0, "TRAILER!!!", 0, b"")
            out.write(b"\0" * (-out.tell() % 512))

    @staticmethod
    def _write(out, number, name, mode, content):
        encoded = name.encode() + b"\0"
        fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0]
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        out.write(header + encoded)
        out.write(b"\0" * (-(len(header) + len(encoded)) % 4))
        out.write(content)
        out.write(b"\0" * (-len(content) % 4))
