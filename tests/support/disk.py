"""A small disk of its own: an ext4 file system in a file, mounted for as long as a block lasts."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[Path]:
    """Give an empty directory on a disk of about `size` bytes below `place`."""
    place.mkdir(parents=True)
    image, root = place / "image", place / "disk"
    root.mkdir()
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", str(image)], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(root)], check=True, capture_output=True)
    try:
        yield root
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True, capture_output=True)


def free_bytes(root: Path) -> int:
    """Return how much of the disk is free."""
    disk = os.statvfs(root)
    return disk.f_bavail * disk.f_frsize


def fill(root: Path) -> Path:
    """Write a file until the disk is full, and return it; what is too little for that goes to further ones."""
    path = root / "filler"
    for size in (1 << 20, 4096):
        try:
            with path.open("ab", buffering=0) as file:
                while True:
                    file.write(bytes(size))
        except OSError:
            continue
    with suppress(OSError):
        for number in count():
            (root / f"filler{number}").write_bytes(b"x")
    return path
