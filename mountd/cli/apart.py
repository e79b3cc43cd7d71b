"""Keeping the engine's own state directory out of what is imported and exported.

It holds the secret keys: in a drive everybody who has its key could read them, and an export with `--delete` would
remove them. It also changes with every import.
"""

import os
from collections.abc import Collection
from pathlib import Path

from ddrive.errors import UnusablePlace
from mountd.config import load_config


class Apart:
    """The state directory, as seen from a directory that is imported."""

    def __init__(self, source: Path, state: Path | None) -> None:
        """Look where it is. Raises: UnusablePlace when `source` lies in it."""
        self.state, root = _real(load_config({"state": state}).state), _real(source)
        if root.is_relative_to(self.state):
            raise UnusablePlace(f"the state directory of ddrive holds your secret keys ({source}): import another one")
        below = self.state.is_relative_to(root)  # an engine that is still to be started makes it
        self.path = str(self.state.relative_to(root)) if below else None  # from the source; None: it is elsewhere

    def leaves_out(self, path: str, is_directory: bool) -> bool:
        """Tell whether a path of the source is the state directory."""
        return path == self.path

    def others(self, paths: Collection[str]) -> list[str]:
        """Return the paths that do not lie in it."""
        return [path for path in paths if self.path is None or not f"{path}/".startswith(f"{self.path}/")]


def check_target(dest: Path, state: Path | None, *, delete: bool) -> None:
    """Raise UnusablePlace when an export to `dest` would write into the state directory, or remove it."""
    own, place = _real(load_config({"state": state}).state), _real(dest)
    if place.is_relative_to(own) or (delete and own.is_relative_to(place)):
        raise UnusablePlace(f"the state directory of ddrive lies there ({dest}): choose another name")


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
