"""What mounts that have ended could not store in their drives: it waits in the spool for the next mount."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ddrive.ids import PublicKey
from mountd.spool import left_journals


@dataclass(slots=True)
class Left:
    """Changes of one drive that nobody is storing now. `bytes` are those of new contents."""

    key: str
    changes: int = 0
    bytes: int = 0


def left_changes(root: Path, key: PublicKey | None = None) -> list[dict[str, Any]]:
    """Return what waits in the spools below `root`, for one drive or for all, per drive. Raises: OSError."""
    found: dict[str, Left] = {}
    for journal in left_journals(root):
        owner = str(journal.owner.get("key"))
        if journal.changes and (key is None or key.hex() == owner):
            left = found.setdefault(owner, Left(owner))
            left.changes += len(journal.changes)
            left.bytes += sum(change[5][0] for change in journal.changes if len(change) > 2 and change[5] is not None)
    return [asdict(left) for left in found.values()]
