"""Keeping the state directories of engines out of what is imported and exported.

They hold secret keys: in a drive everybody who has its key could read them, and an export with `--delete` would remove
them. That of the running engine also changes with every import. Others are known by what lies in them.
"""

import os
from collections.abc import Collection
from pathlib import Path

from ddrive.dialect import DIALECTS
from ddrive.errors import UnusablePlace
from mountd.cli import report
from mountd.config import load_config

_ALWAYS_THERE = ("engine.lock", "identity")  # an engine makes the first one before it makes its keys


class Apart:
    """The state directories, as seen from a directory that is imported."""

    def __init__(self, source: Path, state: Path | None) -> None:
        """Look where ours is. Raises: UnusablePlace when `source` lies in one."""
        self._state, self._root = _real(load_config({"state": state}).state), _real(source)
        if self._root.is_relative_to(self._state) or _lies_in_another(self._root):
            raise UnusablePlace(f"the state directory of ddrive holds your secret keys ({source}): import another one")
        below = self._state.is_relative_to(self._root)  # an engine that is still to be started makes it
        self.path = str(self._state.relative_to(self._root)) if below else None  # from the source; None: elsewhere
        self._found = [] if self.path is None else [self.path]
        self._told = 0  # how many of these

    def leaves_out(self, path: str, is_directory: bool) -> bool:
        """Tell whether a path of the source is a state directory."""
        if path == self.path:
            return True
        if not (is_directory and _is_state(f"{self._root}/{path}")):
            return False
        if path not in self._found:
            self._found.append(path)
        return True

    def others(self, paths: Collection[str]) -> list[str]:
        """Return the paths that do not lie in that of the running engine."""
        return [path for path in paths if self.path is None or not f"{path}/".startswith(f"{self.path}/")]

    def tell(self) -> None:
        """Say what was left out, each once."""
        untold, self._told = self._found[self._told :], len(self._found)
        for path in untold:
            whose = "with your secret keys" if path == self.path else "with the secret keys of another engine"
            report.note(f"left out ({path}): the state directory of ddrive, {whose}")


def check_target(dest: Path, state: Path | None, *, delete: bool) -> None:
    """Raise UnusablePlace when an export to `dest` would write into a state directory, or remove ours."""
    own, place = _real(load_config({"state": state}).state), _real(dest)
    if place.is_relative_to(own) or (delete and own.is_relative_to(place)) or _lies_in_another(place):
        raise UnusablePlace(f"the state directory of ddrive lies there ({dest}): choose another name")


def _lies_in_another(place: Path) -> bool:
    return any(_is_state(str(above)) for above in (place, *place.parents))


def _is_state(place: str) -> bool:
    """Tell whether a directory is the state directory of some engine, or a copy of one: it has keys in it."""
    return any(os.path.lexists(f"{place}/{name}") for name in _ALWAYS_THERE) and any(
        os.path.lexists(f"{place}/{dialect}/master_key") for dialect in DIALECTS
    )


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
