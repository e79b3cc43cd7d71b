"""Pending signals and open files are read from /proc correctly, also when processes come and go."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mountd.callers import ProcessTable, ending_files, parse_status

BLOCK = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]);"


def mask(*numbers: signal.Signals) -> bytes:
    return b"%016x" % sum(1 << (number - 1) for number in numbers)


@pytest.mark.parametrize(
    ("own", "shared", "blocked", "ignored", "ending"),
    [
        ((), (), (), (), False),
        ((signal.SIGKILL,), (), (), (), True),
        ((), (signal.SIGINT,), (), (), True),
        ((), (signal.SIGINT,), (signal.SIGINT,), (), False),
        ((), (signal.SIGTERM,), (), (signal.SIGTERM,), False),
        ((), (signal.SIGCHLD, signal.SIGUSR1), (), (), False),
        ((), (signal.SIGINT, signal.SIGTERM), (signal.SIGINT,), (), True),
    ],
)
def test_which_pending_signals_end_a_wait(
    own: tuple[signal.Signals, ...],
    shared: tuple[signal.Signals, ...],
    blocked: tuple[signal.Signals, ...],
    ignored: tuple[signal.Signals, ...],
    ending: bool,
) -> None:
    fields = (mask(*own), mask(*shared), mask(*blocked), mask(*ignored))
    text = (
        b"Name:\tx\nState:\tD (disk sleep)\nThreads:\t3\nSigPnd:\t%s\nShdPnd:\t%s\nSigBlk:\t%s\nSigIgn:\t%s\n" % fields
    )
    signals = parse_status(text)
    assert signals.ending == ending
    assert (signals.threads, signals.zombie) == (3, False)


@pytest.mark.parametrize("text", [b"", b"\n\n", b"State:\nThreads:\nSigPnd:\n", b"State:\tZ (zombie)"])
def test_a_status_with_little_in_it(text: bytes) -> None:
    assert not parse_status(text).ending


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A process that has a file open and blocks SIGINT."""
    place = tmp_path / "a file"
    place.touch()
    code = f"import signal, sys; {BLOCK} file = open(sys.argv[1]); print('begun', flush=True); sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", code, place], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        yield process, place
    finally:
        process.kill()
        process.communicate()


def test_a_file_is_in_use_while_a_process_has_it_open(holder: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, place = holder
    number = place.stat().st_ino
    files = {number: place.name.encode()}
    assert ending_files(files, frozenset(files)) == set()
    place.rename(place.with_name("another"))
    assert ending_files({number: b"another"}, frozenset(files)) == set()
    process.kill()
    process.communicate()
    assert ending_files(files, frozenset(files)) == {number}
    assert ending_files(files, frozenset()) == set()


def test_a_blocked_signal_is_not_an_ending_one(holder: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, _ = holder
    table = ProcessTable(sees_all=True)
    process.send_signal(signal.SIGINT)
    assert not table.is_ending(process.pid)
    assert not table.is_gone(process.pid)


def test_threads_that_are_gone_or_were_never_known() -> None:
    table = ProcessTable(sees_all=True)
    process = subprocess.Popen(["true"])
    process.wait()
    assert table.is_gone(process.pid)
    assert not table.is_ending(process.pid)
    assert not table.is_gone(0)
    assert not table.is_gone(os.getpid())


async def test_where_processes_are_hidden_nothing_counts_as_given_up() -> None:
    files = {12345678901: b"nobody has this open"}
    assert await ProcessTable(sees_all=True).ending_files(files, frozenset(files)) == set(files)
    assert await ProcessTable(sees_all=False).ending_files(files, frozenset(files)) == set()


def test_the_end_of_a_mount_is_noticed() -> None:
    table = ProcessTable(sees_all=True)
    assert not table.mount_is_gone()
    reading, writing = os.pipe()
    try:
        table.set_mount(writing)
        assert not table.mount_is_gone()
        os.close(reading)
        reading = -1
        assert table.mount_is_gone()
    finally:
        os.close(writing)
        if reading >= 0:
            os.close(reading)
