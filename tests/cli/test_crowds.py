"""A seeder among hundreds of connections that say nothing, or a byte now and then, still serves its readers."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.cli.test_discovery import until
from tests.support.program import Program, program

SILENT = 500
SLOW = 50  # send a byte of a handshake now and then
BYTE_S = 0.2
RETURN_S = 1.0  # who was turned away comes back after at most this long
HELLO = b"\xc8\x01" + bytes(200)  # how a handshake message of 200 bytes begins, and what could be one
MOST_LINKS = 64


def burden(pid: int) -> tuple[int, int]:
    """Return how many files a process has open, and its memory in KiB."""
    (memory,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:")]
    return len(os.listdir(f"/proc/{pid}/fd")), int(memory.split()[1])


def call(address: str) -> socket.socket:
    """Connect, and say nothing."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)


class Crowd:
    """Connections that are made again when they are turned away."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._streams = [call(address) for _ in range(SILENT + SLOW)]
        self._sent = [0] * SLOW
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._stay)
        self.returned = 0
        self._thread.start()

    def _stay(self) -> None:
        rounds = 0
        while not self._ends.wait(BYTE_S):
            rounds += 1
            for number in range(SLOW):
                with suppress(OSError):
                    self._streams[number].send(HELLO[self._sent[number] :][:1] or HELLO[-1:])
                    self._sent[number] += 1
            if rounds % int(RETURN_S / BYTE_S) == 0:
                self._return()

    def _return(self) -> None:
        for number, stream in enumerate(self._streams):
            if turned_away(stream):
                stream.close()
                self._streams[number] = call(self._address)
                self.returned += 1
                if number < SLOW:
                    self._sent[number] = 0

    def close(self) -> None:
        """Go home."""
        self._ends.set()
        self._thread.join()
        for stream in self._streams:
            stream.close()


def turned_away(stream: socket.socket) -> bool:
    """Tell whether the other side has ended a connection."""
    try:
        return stream.recv(1, socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


@contextmanager
def crowd(address: str) -> Iterator[Crowd]:
    """Keep `address` busy."""
    made = Crowd(address)
    try:
        yield made
    finally:
        made.close()


def test_a_reader_is_served_among_hundreds_that_say_nothing(ddrive: Program, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    content = os.urandom(1 << 20)
    (tmp_path / "source" / "a.bin").write_bytes(content)
    with program(tmp_path / "author") as author:
        key = author.ask("import", tmp_path / "source")["key"]
        address = author.address
        pid = author.pid
        files, memory = burden(pid)
        with crowd(address) as made:
            assert ddrive.run("cat", key, "a.bin", "--peer", address).out == content
            more_files, more_memory = (now - before for now, before in zip(burden(pid), (files, memory), strict=True))
            assert more_files < 2 * MOST_LINKS
            assert more_memory < 16 << 10
            until(lambda: made.returned > SILENT)  # they were still there, and came back
            assert ddrive.run("cat", key, "a.bin").out == content
            assert author.ask("status")["peers"] == 1
