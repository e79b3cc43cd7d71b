"""The drives that an engine knows, kept in `drives.json`: what each is called, whether it is served, who has it."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ddrive.dialect import DIALECTS, Dialect
from ddrive.errors import NotFound, StorageError
from ddrive.ids import PublicKey
from mountd.files import load_json, save_json


@dataclass
class KnownDrive:
    """One drive. `dialect` is None until a peer has proven which family it is of.

    `seeding` None: nobody said, so it is served while it is writable or mounted. A `private` one is served to those who
    know where we are, and never shown to anybody else.
    """

    key: PublicKey
    dialect: Dialect | None
    name: str | None = None
    writable: bool = False
    seeding: bool | None = None
    peers: list[str] = field(default_factory=list)
    content: PublicKey | None = None  # the feed with the bytes of its files; None until its first block is here
    created: float = 0.0  # seconds since 1970
    private: bool = False

    @property
    def url(self) -> str:
        """The address of the newest version, or the bare key while the dialect is unknown."""
        return f"{self.dialect.url_scheme}://{self.key.hex()}" if self.dialect else self.key.hex()

    def to_json(self) -> dict[str, Any]:
        """Return the form in which the drive is kept."""
        return asdict(self) | {
            "key": self.key.hex(),
            "dialect": self.dialect.name if self.dialect else None,
            "content": self.content.hex() if self.content else None,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "KnownDrive":
        """Return the drive that was kept as `value`. Raises: KeyError, TypeError, ValueError."""
        dialect, content = value["dialect"], value["content"]
        return cls(
            **value
            | {
                "key": PublicKey(bytes.fromhex(value["key"])),
                "dialect": None if dialect is None else DIALECTS[dialect],
                "content": None if content is None else PublicKey(bytes.fromhex(content)),
            }
        )


class DriveTable:
    """All known drives by key; every change is on disk when the call returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._drives = {
                drive.key: drive for drive in (KnownDrive.from_json(value) for value in load_json(path, []))
            }
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(f"{path} is damaged ({error!r}): move it away to start anew") from error

    def __iter__(self) -> Iterator[KnownDrive]:
        return iter(list(self._drives.values()))

    def __len__(self) -> int:
        return len(self._drives)

    def get(self, key: PublicKey) -> KnownDrive | None:
        """Return the drive with this key, or None."""
        return self._drives.get(key)

    def find(self, key: PublicKey) -> KnownDrive:
        """Return the drive with this key. Raises: NotFound."""
        drive = self._drives.get(key)
        if drive is None:
            raise NotFound(f"drive {key.hex()} is not known here: ddrive list shows the known drives")
        return drive

    def add(self, drive: KnownDrive) -> None:
        """Keep a drive, instead of the one with the same key. Raises: OSError; then it is not known."""
        former = self._drives.copy()
        self._drives[drive.key] = drive
        try:
            self.save()
        except OSError:
            self._drives = former
            raise

    def remove(self, key: PublicKey) -> None:
        """Forget a drive, if it is known."""
        if self._drives.pop(key, None):
            self.save()

    def save(self) -> None:
        """Keep what was changed in the drives themselves."""
        save_json(self._path, [drive.to_json() for drive in self._drives.values()])
