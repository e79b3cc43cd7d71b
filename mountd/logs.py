"""Log lines on stderr: time, level, module, then the event and its `key=value` pairs. Only this module configures."""

import logging
import os
import sys
import time
from pathlib import Path

KEEP_BYTES = 10 * 1024 * 1024  # a longer log is set aside at the next start; one old log is kept

_FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s %(message)s"


class _OneLine(logging.Formatter):
    """Keeps every record on one line, tracebacks aside: names in messages come from peers."""

    def converter(self, seconds: float | None) -> time.struct_time:
        """Return the time as UTC."""
        return time.gmtime(seconds)

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = "".join(
            char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in record.message
        )
        return super().formatMessage(record)


def configure(level: str = "info") -> None:
    """Send the log of this process to stderr from now on; `level` is one of `config.LOG_LEVELS`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine(_FORMAT, datefmt="%Y-%m-%dT%H:%M:%S"))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())


def open_log(path: Path) -> int:
    """Return a descriptor that appends to the log at `path`, which is made when needed; a long old one is set aside."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > KEEP_BYTES:
        path.replace(path.with_suffix(path.suffix + ".old"))
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def last_line(path: Path, since: int = 0) -> str:
    """Return the last line of the log at `path`, from position `since` on, that is whole and not empty, or ""."""
    try:
        with path.open("rb") as file:
            file.seek(max(since, file.seek(0, 2) - 4096))
            lines = file.read().decode(errors="replace").split("\n")[:-1]  # a full disk cuts lines off
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
