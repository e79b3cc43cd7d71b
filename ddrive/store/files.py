"""The directory of a store: folders for us alone, its lock, small files that are written whole or not at all."""

import fcntl
import os
from pathlib import Path

from ddrive.crypto import KEY_BYTES
from ddrive.errors import StorageError, StorageLocked


def write_durably(path: Path, content: bytes) -> None:
    """Make `content` the content of `path` (0600); durable on return, and never torn."""
    temporary = path.with_name(f"{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def make_folders(folder: Path) -> None:
    """Make `folder` and what is missing above it, for us alone (0700)."""
    missing = [folder, *folder.parents]
    for path in reversed([path for path in missing if not path.exists()]):
        path.mkdir(mode=0o700, exist_ok=True)


def lock_store(root: Path) -> int:
    """Return a descriptor that holds the exclusive lock of the store. npm stores ignore the file `lock`."""
    descriptor = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StorageLocked(f"another process owns the store {root}") from error
    return descriptor


def stored_master_key(root: Path) -> bytes:
    """Return the master key of the store at `root`, made when there is none.

    Raises: StorageError when it is cut off.
    """
    path = root / "master_key"
    stored = path.read_bytes() if path.exists() else b""
    if not stored:
        stored = os.urandom(KEY_BYTES)
        write_durably(path, stored)
    if len(stored) < KEY_BYTES:
        raise StorageError(f"{path} has {len(stored)} bytes instead of {KEY_BYTES}")
    return stored[:KEY_BYTES]
