"""The log stays readable whatever peers put into it, and does not grow for ever."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mountd import logs


@pytest.fixture
def clean_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("clean_logging")
def test_a_record_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info")
    logging.getLogger("some.module").info("file found name=%s", "a\nb\x1b[31m é")
    logging.getLogger("some.module").debug("not shown")
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "INFO    some.module file found name=a\\nb\\x1b[31m é\n" in line


def test_a_long_log_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log" / "engine.log"
    for text in (b"first\n", b"second\n"):
        descriptor = logs.open_log(path)
        os.write(descriptor, text)
        os.close(descriptor)
    assert path.read_bytes() == b"first\nsecond\n"
    assert path.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(logs, "KEEP_BYTES", 5)
    os.close(logs.open_log(path))
    assert path.read_bytes() == b""
    assert path.with_name("engine.log.old").read_bytes() == b"first\nsecond\n"


def test_the_last_line_is_found(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert logs.last_line(path) == ""
    path.write_bytes(b"x" * 10000 + b"\nlast \xff words\n\n")
    assert logs.last_line(path) == "last \ufffd words"
    assert logs.last_line(path, path.stat().st_size) == ""
    with path.open("ab") as file:
        file.write(b"cut off by a full d")
    assert logs.last_line(path) == "last \ufffd words"
