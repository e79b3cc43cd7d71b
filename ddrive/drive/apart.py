"""Keeping directories with secret keys out of drives: everybody who has the key of a drive could read them."""

from ddrive.drive.deep import reachable
from ddrive.drive.ignore import Ignore
from ddrive.drive.report import Refused
from ddrive.store.keyed import SECRET_FILES, keys_in


class Apart:
    """What an import leaves out of the directory `root` whatever its ignore files say; `also` is asked first."""

    def __init__(self, root: str, also: Ignore | None = None) -> None:
        self._root = root
        self._also = also
        self._found: dict[str, str] = {}

    @property
    def found(self) -> list[Refused]:
        """What was left out as it holds secret keys, and what it is."""
        return [Refused(path, why) for path, why in self._found.items()]

    def leaves_out(self, path: str, is_directory: bool) -> bool:
        """Tell whether a path is left out."""
        if self._also is not None and self._also(path, is_directory):
            return True
        directory, _, name = path.rpartition("/")
        if is_directory:
            directory = path
        elif name not in SECRET_FILES:  # in a directory that had none before, or in the source itself
            return False
        try:
            with reachable(self._root, directory) as place:
                why = keys_in(place)
        except (OSError, ValueError):
            return False
        if why is not None:
            self._found.setdefault(path, why)
        return why is not None
