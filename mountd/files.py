"""Small JSON files of the state directory, replaced whole: a crash leaves the old or the new one, never a torn one."""

import json
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from ddrive.errors import StorageError

log = logging.getLogger(__name__)


def load_json(path: Path, default: Any) -> Any:
    """Return the content of `path`, `default` when there is no such file.

    Raises: StorageError when it is not JSON, or of another type than `default`.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return default
    except ValueError as error:
        raise StorageError(f"{path} is damaged ({error}): restore it, or move it away to start anew") from error
    if not isinstance(value, type(default)):
        raise StorageError(f"{path} is damaged (not a {type(default).__name__}): move it away to start anew")
    return value


def save_json(path: Path, value: Any) -> None:
    """Make `value` the content of `path`; durable on return."""
    save_bytes(path, json.dumps(value, indent=1).encode("ascii") + b"\n")


def remember_json(path: Path, value: Any) -> None:
    """Make `value` the content of `path` if there is room: what nothing depends on keeps no engine from its work."""
    try:
        save_json(path, value)
    except OSError as error:
        log.warning("not remembered: path=%s why=%s", path, error.strerror)


def save_bytes(path: Path, content: bytes) -> None:
    """Make `content` the content of `path`, readable by its owner alone; durable on return.

    Nothing is written when it is that already: an engine can start although the disk is full.
    Raises: OSError, which names `path`.
    """
    with suppress(OSError):
        if path.read_bytes() == content:
            return
    fresh = path.with_name(f".{path.name}.new")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
