"""What is mounted where, from /proc/self/mountinfo: never asks a file system, so a dead or waiting one does no harm."""

import re
from pathlib import Path
from typing import NamedTuple

MOUNTINFO = Path("/proc/self/mountinfo")
FILE_SYSTEM = "fuse.ddrive"  # what the kernel shows for our mounts: `fuse` and our subtype

_ESCAPE = re.compile(rb"\\([0-7]{3})")


class Mounted(NamedTuple):
    """One line of the kernel's table: the mountpoint, the type of the file system, what is mounted, the device."""

    mountpoint: str
    kind: str
    source: str
    device: str


def parse(table: bytes) -> list[Mounted]:
    """Return the mounts of a mountinfo table, oldest first. Source: proc_pid_mountinfo(5)."""
    found = []
    for line in table.splitlines():
        words = line.split(b" ")
        try:
            tail = words.index(b"-", 6)
            found.append(Mounted(*(_text(word) for word in (words[4], words[tail + 1], words[tail + 2], words[2]))))
        except (ValueError, IndexError):
            continue
    return found


def mounted_at(mountpoint: str) -> Mounted | None:
    """Return what is mounted at `mountpoint` now, the uppermost when there are several, or None."""
    places = [entry for entry in parse(MOUNTINFO.read_bytes()) if entry.mountpoint == mountpoint]
    return places[-1] if places else None


def _text(word: bytes) -> str:
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), word).decode(errors="surrogateescape")
