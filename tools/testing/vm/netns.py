#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Network namespaces of vsock over loopback, for STREAM and SEQPACKET.

netns.py PREFIX

Runs in the host VM, whose own namespace is global. A namespace is local if its
parent says so in child_ns_mode when it is made; a socket is of the namespace
in which it was made, so one process can have sockets in all of them.
"""

import errno
import os
import socket
import sys

LOCAL_CID = 1
HOST_CID = 2
KINDS = {"stream": socket.SOCK_STREAM, "seqpacket": socket.SOCK_SEQPACKET}
SECONDS = 10


class Namespace:
    """A new network namespace; `with` makes it the process's own."""

    def __init__(self, mode):
        home = here()
        try:
            # The mode of children can be set once in each namespace: in one of its own.
            os.unshare(os.CLONE_NEWNET)
            write("/proc/sys/net/vsock/child_ns_mode", mode)
            os.unshare(os.CLONE_NEWNET)
            self.fd = here()
            self.mode = read("/proc/sys/net/vsock/ns_mode")
        finally:
            os.setns(home, os.CLONE_NEWNET)
            os.close(home)

    def __enter__(self):
        self.home = here()
        os.setns(self.fd, os.CLONE_NEWNET)

    def __exit__(self, *_):
        os.setns(self.home, os.CLONE_NEWNET)
        os.close(self.home)

    def forget(self):
        os.close(self.fd)


def here():
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def read(path):
    with open(path) as file:
        return file.read().strip()


def listen(space, kind, port):
    with space:
        sock = socket.socket(socket.AF_VSOCK, kind)
    sock.settimeout(SECONDS)
    sock.bind((socket.VMADDR_CID_ANY, port))
    sock.listen()
    return sock


def connect(space, kind, port, cid=LOCAL_CID):
    with space:
        sock = socket.socket(socket.AF_VSOCK, kind)
    sock.settimeout(SECONDS)
    sock.connect((cid, port))
    return sock


def same(what, found, wanted):
    if found != wanted:
        raise AssertionError(f"{what}: {found!r}, not {wanted!r}")


def talk(client, server):
    """A message each way, whole, and then the end."""
    client.sendall(b"from the client")
    same("what the server gets", server.recv(100), b"from the client")
    server.sendall(b"from the server")
    same("what the client gets", client.recv(100), b"from the server")
    client.shutdown(socket.SHUT_WR)
    same("what the server gets at the end", server.recv(100), b"")


def reaches(kind, one, other, cid=LOCAL_CID):
    with listen(other, kind, 7000) as listener, connect(one, kind, 7000, cid) as client:
        server, (peer, _) = listener.accept()
        with server:
            same("the peer's CID", peer, LOCAL_CID)
            talk(client, server)


def refused(kind, one, other, cid=LOCAL_CID):
    with listen(other, kind, 7000) as listener:
        try:
            connect(one, kind, 7000, cid).close()
        except OSError as error:
            same("connect", errno.errorcode.get(error.errno), "ECONNRESET")
        else:
            raise AssertionError("the connection was made")
        listener.settimeout(0.2)
        try:
            listener.accept()
        except TimeoutError:
            return
        raise AssertionError("the listener has a connection")


def same_port(kind, one, other):
    """Both listen on one port, and each gets its own calls."""
    with listen(one, kind, 7000) as first, listen(other, kind, 7000) as second:
        for space, listener in ((one, first), (other, second)):
            with connect(space, kind, 7000) as client:
                server, _ = listener.accept()
                with server:
                    talk(client, server)


def port_in_use(kind, one, other):
    """Global namespaces share their ports."""
    with listen(one, kind, 7000):
        try:
            listen(other, kind, 7000).close()
        except OSError as error:
            same("bind", errno.errorcode.get(error.errno), "EADDRINUSE")
        else:
            raise AssertionError("two listeners on one port")


def deleted(kind, mode):
    """Sockets keep the namespace that nobody else has any more."""
    space = Namespace(mode)
    with listen(space, kind, 7000) as listener, connect(space, kind, 7000) as client:
        server, _ = listener.accept()
        space.forget()
        with server:
            talk(client, server)


def modes(_kind, one, other):
    same("the mode of one", one.mode, "local")
    same("the mode of the other", other.mode, "global")


def tests():
    local, local2 = Namespace("local"), Namespace("local")
    global_, global2 = Namespace("global"), Namespace("global")
    yield "modes", modes, (None, local, global_)
    for name, kind in KINDS.items():
        yield f"{name}/same-local", reaches, (kind, local, local)
        yield f"{name}/same-local-by-host-cid", reaches, (kind, local, local, HOST_CID)
        yield f"{name}/same-global", reaches, (kind, global_, global_)
        yield f"{name}/global-to-global", reaches, (kind, global_, global2)
        yield f"{name}/local-to-local", refused, (kind, local, local2)
        yield f"{name}/local-to-local-by-host-cid", refused, (kind, local, local2, HOST_CID)
        yield f"{name}/local-to-global", refused, (kind, local, global_)
        yield f"{name}/global-to-local", refused, (kind, global_, local)
        yield f"{name}/one-port-in-two-locals", same_port, (kind, local, local2)
        yield f"{name}/one-port-in-local-and-global", same_port, (kind, local, global_)
        yield f"{name}/one-port-in-two-globals", port_in_use, (kind, global_, global2)
        yield f"{name}/local-deleted", deleted, (kind, "local")
        yield f"{name}/global-deleted", deleted, (kind, "global")


def main(prefix):
    failed = 0
    for name, function, arguments in tests():
        try:
            function(*arguments)
        except (AssertionError, OSError) as error:
            failed = 1
            print(f"not ok {prefix}/{name} # {type(error).__name__}: {error}", flush=True)
        else:
            print(f"ok {prefix}/{name}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
