"""The mounts that are to exist, kept in `mounts.json`: the next engine restores them, or finds their workers alive."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ddrive.dialect import DIALECTS, Dialect
from ddrive.errors import NotFound, StorageError
from ddrive.ids import PublicKey
from mountd.files import load_json, remember_json, save_json

State = Literal["ok", "starting", "dead"]


@dataclass(frozen=True, slots=True)
class MountOptions:
    """How a drive is shown. `timeout_s`: a call gives up after this long; None for the engine's default."""

    read_only: bool = False
    allow_other: bool = False
    timeout_s: float | None = None


@dataclass
class Mount:
    """One mountpoint and the drive that is shown there. `pid` and `started` (ticks since boot) name its worker."""

    mountpoint: str
    key: PublicKey
    dialect: Dialect | None  # None until it is known
    version: int | None = None
    options: MountOptions = field(default_factory=MountOptions)
    pid: int | None = None
    started: int | None = None
    served_as: str | None = None  # the dialect that its worker was told; None: it finds that out itself
    owner: str | None = None  # the state directory for which its worker was started
    state: State = "starting"
    writable: bool = False

    @property
    def url(self) -> str:
        """The address of what is shown."""
        pinned = "" if self.version is None else f"+{self.version}"
        return f"{self.dialect.url_scheme}://{self.key.hex()}{pinned}" if self.dialect else self.key.hex()

    def to_json(self) -> dict[str, Any]:
        """Return the form in which the mount is kept."""
        kept = asdict(self) | {"key": self.key.hex(), "dialect": self.dialect.name if self.dialect else None}
        del kept["state"]
        return kept

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Mount":
        """Return the mount that was kept as `value`. Raises: KeyError, TypeError, ValueError."""
        dialect = value["dialect"]
        return cls(
            **value
            | {
                "key": PublicKey(bytes.fromhex(value["key"])),
                "dialect": None if dialect is None else DIALECTS[dialect],
                "options": MountOptions(**value["options"]),
            }
        )


class MountTable:
    """All mounts by mountpoint; changes are on disk when a call returns, removals if there is room."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._mounts = {
                mount.mountpoint: mount for mount in (Mount.from_json(value) for value in load_json(path, []))
            }
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(f"{path} is damaged ({error!r}): move it away to start anew") from error

    def __iter__(self) -> Iterator[Mount]:
        return iter(list(self._mounts.values()))

    def get(self, mountpoint: str) -> Mount | None:
        """Return what is mounted at exactly this place, or None."""
        return self._mounts.get(mountpoint)

    def find(self, mountpoint: str) -> Mount:
        """Return what is mounted at exactly this place. Raises: NotFound."""
        mount = self._mounts.get(mountpoint)
        if mount is None:
            raise NotFound(f"nothing of this engine is mounted at {mountpoint}: ddrive status shows the mounts")
        return mount

    def above(self, path: str) -> Mount | None:
        """Return the mount that `path` lies in, its mountpoint itself not counted, or None."""
        inside = [mount for mount in self._mounts.values() if path.startswith(mount.mountpoint.rstrip("/") + "/")]
        return max(inside, key=lambda mount: len(mount.mountpoint), default=None)

    def of(self, key: PublicKey) -> list[Mount]:
        """Return the mounts of one drive."""
        return [mount for mount in self._mounts.values() if mount.key == key]

    def add(self, mount: Mount) -> None:
        """Keep a mount. Raises: OSError; then it is not known."""
        former = self._mounts.copy()
        self._mounts[mount.mountpoint] = mount
        try:
            self.save()
        except OSError:
            self._mounts = former
            raise

    def remove(self, mountpoint: str) -> None:
        """Forget a mount, if it is known; on disk as soon as there is room: nothing keeps a mount from being ended."""
        if self._mounts.pop(mountpoint, None):
            self.note_workers()

    def save(self) -> None:
        """Keep what was changed in the mounts themselves. Raises: OSError."""
        save_json(self._path, self._content())

    def note_workers(self) -> None:
        """Keep what is mounted and who serves it, if there is room: the next engine goes by what it finds."""
        remember_json(self._path, self._content())

    def _content(self) -> list[dict[str, Any]]:
        return [mount.to_json() for mount in self._mounts.values()]


def owner_of(state: Path) -> str:
    """Return what tells a state directory from its copies, as long as this machine runs. Raises: OSError."""
    status = state.stat()
    return f"{status.st_dev}:{status.st_ino}"
