"""Keeping the state directories of engines out of what is imported and exported.

They hold secret keys: in a drive everybody who has its key could read them, and an export with `--delete` would remove
them. That of the running engine also changes with every import. Others, and stores without an engine, are known by what
lies in them.
"""

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from ddrive.drive.report import Refused
from ddrive.errors import UnusablePlace
from ddrive.store.keyed import is_state, keys_in
from mountd.cli import report
from mountd.config import load_config


class Apart:
    """The state directory of the running engine, as seen from a directory that is imported."""

    def __init__(self, source: Path, state: Path | None) -> None:
        """Look where it is. Raises: UnusablePlace when `source` lies in one, or is a store itself."""
        own, root = _real(load_config({"state": state}).state), _real(source)
        if root.is_relative_to(own) or _lies_in_another(root):
            raise UnusablePlace(f"the state directory of ddrive holds your secret keys ({source}): import another one")
        if (what := keys_in(str(root))) is not None:
            raise UnusablePlace(f"this is {what} ({source}): import another directory")
        below = own.is_relative_to(root)  # an engine that is still to be started makes it
        self.path = str(own.relative_to(root)) if below else None  # from the source; None: elsewhere
        self._told: set[str] = set()

    def leaves_out(self, path: str, is_directory: bool) -> bool:
        """Tell whether a path of the source is that directory."""
        return path == self.path

    def others(self, paths: Collection[str]) -> list[str]:
        """Return the paths that do not lie in it."""
        return [path for path in paths if self.path is None or not f"{path}/".startswith(f"{self.path}/")]

    def tell(self, found: Iterable[Refused] = ()) -> None:
        """Say what is left out, each once: our own state directory, and what else was found."""
        own = [] if self.path is None else [Refused(self.path, "the state directory of ddrive, with your secret keys")]
        for path, why in (*own, *found):
            if path not in self._told:
                self._told.add(path)
                report.note(f"left out ({path}): {why}")


def check_target(dest: Path, state: Path | None, *, delete: bool) -> None:
    """Raise UnusablePlace when an export to `dest` would write into a directory with keys, or remove our own."""
    own, place = _real(load_config({"state": state}).state), _real(dest)
    if place.is_relative_to(own) or (delete and own.is_relative_to(place)) or _lies_in_another(place):
        raise UnusablePlace(f"the state directory of ddrive lies there ({dest}): choose another name")
    if (what := keys_in(str(place))) is not None:
        raise UnusablePlace(f"this is {what} ({dest}): choose another name")


def _lies_in_another(place: Path) -> bool:
    return any(is_state(str(above)) for above in (place, *place.parents))


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
