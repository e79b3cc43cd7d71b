"""A seeder among hundreds of connections that say nothing, or a byte now and then, still serves its readers."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.program import Program, program

SILENT = 500
SLOW = 50  # send a byte of what may become a handshake, now and then, and come back when they are turned away
BYTE_S = 0.2
MOST_LINKS = 64


def burden(pid: int) -> tuple[int, int]:
    """Return how many files a process has open, and its memory in KiB."""
    (memory,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:")]
    return len(os.listdir(f"/proc/{pid}/fd")), int(memory.split()[1])


def call(address: str) -> socket.socket:
    """Connect, and say nothing."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)


@contextmanager
def crowd(address: str) -> Iterator[None]:
    """Keep `address` busy."""
    silent = [call(address) for _ in range(SILENT)]
    ends = threading.Event()

    def dribble() -> None:
        slow: dict[int, socket.socket] = {}
        while not ends.wait(BYTE_S):
            for number in range(SLOW):
                try:
                    if number not in slow:
                        slow[number] = call(address)
                    slow[number].send(b"\x01")
                except OSError:
                    if number in slow:
                        slow.pop(number).close()
        for stream in slow.values():
            stream.close()

    thread = threading.Thread(target=dribble)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()
        for stream in silent:
            with suppress(OSError):
                stream.close()


def test_a_reader_is_served_among_hundreds_that_say_nothing(ddrive: Program, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    content = os.urandom(1 << 20)
    (tmp_path / "source" / "a.bin").write_bytes(content)
    with program(tmp_path / "author") as author:
        key = author.ask("import", tmp_path / "source")["key"]
        address = author.address
        pid = author.pid
        files, memory = burden(pid)
        with crowd(address):
            assert ddrive.run("cat", key, "a.bin", "--peer", address).out == content
            more_files, more_memory = (now - before for now, before in zip(burden(pid), (files, memory), strict=True))
            assert more_files < 2 * MOST_LINKS
            assert more_memory < 16 << 10
            assert author.ask("status")["peers"] == 1
