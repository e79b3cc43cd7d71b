"""What is mounted where, from /proc/self/mountinfo: never asks a file system, so a dead or waiting one does no harm."""

import re
from pathlib import Path
from typing import NamedTuple

MOUNTINFO = Path("/proc/self/mountinfo")
FILE_SYSTEM = "fuse.ddrive"  # what the kernel shows for our mounts: `fuse` and our subtype

_ESCAPE = re.compile(rb"\\([0-7]{3})")


class Mounted(NamedTuple):
    """One line of the kernel's table: the mountpoint, the type of the file system, what is mounted, the device.

    `number` names the mount, and `parent` the one that it is mounted on.
    """

    mountpoint: str
    kind: str
    source: str
    device: str
    number: str
    parent: str


def parse(table: bytes) -> list[Mounted]:
    """Return the mounts of a mountinfo table, in its order. Source: proc_pid_mountinfo(5)."""
    found = []
    for line in table.splitlines():
        words = line.split(b" ")
        try:
            tail = words.index(b"-", 6)
            fields = words[4], words[tail + 1], words[tail + 2], words[2], words[0], words[1]
            found.append(Mounted(*map(_text, fields)))
        except (ValueError, IndexError):
            continue
    return found


def mounted_at(mountpoint: str) -> Mounted | None:
    """Return what is mounted at `mountpoint` now, the uppermost when there are several, or None."""
    places = mounts_at(mountpoint)
    covered = {entry.parent for entry in places if entry.parent != entry.number}  # they come in any order
    return next((entry for entry in reversed(places) if entry.number not in covered), None)


def mounts_at(mountpoint: str) -> list[Mounted]:
    """Return all that is mounted at `mountpoint`, one over the other, in the order of the kernel's table."""
    return [entry for entry in parse(MOUNTINFO.read_bytes()) if entry.mountpoint == mountpoint]


def is_ours(mountpoint: str) -> bool:
    """Tell whether a drive is mounted at `mountpoint`, by whichever engine."""
    found = mounted_at(mountpoint)
    return found is not None and found.kind == FILE_SYSTEM


def _text(word: bytes) -> str:
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), word).decode(errors="surrogateescape")
