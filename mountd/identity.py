"""By what peers know an engine: a secret in its state directory, and what becomes of it when the directory is copied.

Two engines with one secret would take each other for themselves. The copy, which lies elsewhere than where the secret
was made, takes a new one when it meets the other; where neither can tell, the one that is dialled twice does.
"""

import os
from pathlib import Path

from ddrive.store.linked import STATIC_SECRET_BYTES
from mountd.files import load_json, save_bytes, save_json


class Identity:
    """The secret of one state directory, made when there is none."""

    def __init__(self, state: Path) -> None:
        self._path = state / "identity"
        self._home = state / "home.json"
        self._inode = state.stat().st_ino
        self._is_copy = load_json(self._home, {}).get("inode", self._inode) != self._inode
        self._times_met = 0
        try:
            self.secret = self._path.read_bytes()
        except FileNotFoundError:
            self.secret = b""
        if len(self.secret) != STATIC_SECRET_BYTES:
            self._renew()
        elif not self._is_copy:
            save_json(self._home, {"inode": self._inode})

    def met(self, *, we_dialled: bool) -> bytes | None:
        """Return the secret that we have from now on, None for the same, as somebody was met who has ours.

        Who was dialled may be ourselves.
        """
        self._times_met += not we_dialled
        if not self._is_copy and self._times_met < 2:
            return None
        return self._renew()

    def _renew(self) -> bytes:
        self.secret = os.urandom(STATIC_SECRET_BYTES)
        save_bytes(self._path, self.secret)
        save_json(self._home, {"inode": self._inode})
        self._is_copy, self._times_met = False, 0
        return self.secret
