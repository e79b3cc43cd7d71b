"""Unix sockets of an engine: listen, connect, learn who is at the other end, and pass open files.

A socket path may have 107 bytes at most; a longer one is reached through an open descriptor of its directory.
"""

import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import trio

from ddrive.feed.file_blocks import OpenFile

_PATH_BYTES = 107  # sun_path of Linux without its closing NUL
_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid
_DESCRIPTOR = struct.Struct("i")


class Caller(NamedTuple):
    """The process at the other end of a Unix socket, as the kernel knows it."""

    pid: int
    uid: int
    gid: int


class ReceivedFile:
    """A file that somebody else has opened, whatever it is: everything done with it may wait for ever."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        """Return the descriptor. Raises: ValueError when it was closed."""
        if self._descriptor < 0:
            raise ValueError("the file is closed")
        return self._descriptor

    def close(self) -> None:
        """Give the descriptor back in a thread, and do not wait: the kernel asks a FUSE file's process about it."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            trio.lowlevel.start_thread_soon(partial(os.close, descriptor), lambda _: None)


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Give a name for `path` that fits in a socket address, valid within the block."""
    if len(os.fsencode(path)) <= _PATH_BYTES:
        yield str(path)
        return
    descriptor = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)


def listen(path: Path, *, backlog: int = 64) -> trio.SocketListener:
    """Return a listener at `path`, readable and writable by its owner alone.

    Raises: OSError, among others when something lies at `path`.
    """
    plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o177)
        try:
            with _short(path) as name:
                plain.bind(name)
        finally:
            os.umask(before)
        plain.listen(backlog)
        return trio.SocketListener(trio.socket.from_stdlib_socket(plain))
    except BaseException:
        plain.close()
        raise


async def connect(path: Path) -> trio.SocketStream:
    """Return a stream to the listener at `path`.

    Raises: OSError when nobody listens there.
    """
    plain = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    try:
        with _short(path) as name:
            await plain.connect(name)
    except BaseException:
        plain.close()
        raise
    return trio.SocketStream(plain)


def caller(stream: trio.SocketStream) -> Caller:
    """Return who connected to the listener that accepted `stream`."""
    raw = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return Caller(*_CREDENTIALS.unpack(raw))


def has_gone(stream: trio.SocketStream) -> bool:
    """Tell whether the other side has closed its end, even when not all that it sent was received."""
    watch = select.poll()
    watch.register(stream.socket.fileno(), 0)  # an end is always told
    return bool(watch.poll(0))


async def send_file(stream: trio.SocketStream, data: bytes, file: OpenFile) -> None:
    """Send `data`, with the open `file` beside its first byte.

    Raises: trio.BrokenResourceError when the other side is gone.
    """
    beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _DESCRIPTOR.pack(file.fileno()))]
    try:
        sent = await stream.socket.sendmsg([data], beside)
    except OSError as error:
        raise trio.BrokenResourceError(str(error)) from error
    await stream.send_all(memoryview(data)[sent:])


async def receive(stream: trio.SocketStream, max_bytes: int) -> tuple[bytes, ReceivedFile | None]:
    """Return what comes next, no bytes at the end, and the open file that came beside it.

    What follows a file in the stream is never received together with it (unix(7)), so files come in order of their
    frames, and at most one at a time. Further ones that somebody sends at once are closed by the kernel.
    Raises: trio.BrokenResourceError when the other side is gone.
    """
    try:
        data, beside, _, _ = await stream.socket.recvmsg(
            max_bytes, socket.CMSG_LEN(_DESCRIPTOR.size), socket.MSG_CMSG_CLOEXEC
        )
    except OSError as error:
        raise trio.BrokenResourceError(str(error)) from error
    for level, kind, value in beside:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS) and len(value) == _DESCRIPTOR.size:
            return data, ReceivedFile(_DESCRIPTOR.unpack(value)[0])
    return data, None
