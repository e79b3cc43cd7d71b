"""What the drive is asked before a change goes into it: whether it has that already, and what others have changed."""

import trio

from ddrive.drive import Drive
from ddrive.drive.mounts import OwnDrive
from ddrive.drive.paths import drive_path
from ddrive.drive.stat import Stat, decode_stat
from ddrive.drive.writer import located
from ddrive.errors import NotWritable, TimedOut
from ddrive.trie import Trie
from mountd.journal import Attempt
from mountd.nodes import Sealed

OWNER_S = 5.0  # to look which drive a path leads to: what of that can be written is here
WRITTEN = frozenset({"size", "blocks", "offset", "byte_offset", "mtime_ms", "ctime_ms"})  # what writing changes


async def owner_of(drive: Drive, directory: str) -> OwnDrive | None:
    """Return the drive that what is in a directory of `drive` goes to; None when that cannot be changed here.

    Raises: TimedOut when nobody can tell, as nothing of a drive that is nested there is here.
    """
    root = await drive.own("/")
    if not await root.mount_paths():
        return root._replace(path=drive_path(directory))
    try:
        with trio.fail_after(OWNER_S):
            return await drive.own(directory)
    except NotWritable:
        return None
    except trio.TooSlowError:
        raise TimedOut(f"nothing is here of the drive that {directory!r} belongs to now") from None


async def has_landed(view: Trie, key: str, attempt: Attempt) -> bool:
    """Tell whether a drive has what an attempt was to store; `key` is where, in that drive."""
    for seq in range(attempt.version, min(attempt.end, view.version)):
        node = await view.nodes.node(seq)
        if node.key == key.strip("/") and node.value == attempt.value:
            return True
    return False


async def merged(view: Trie, base: str, sealed: Sealed) -> Stat | None:
    """Return what to store for `sealed`: with what others have changed meanwhile, where we have not."""
    if sealed.stat is None:
        return None
    stat, changed = sealed.stat, sealed.changed
    extent = None if sealed.content is None else sealed.content.extent
    if extent is not None:
        stat, changed = located(stat, extent), changed | WRITTEN
    if sealed.origin is None:
        return stat
    node = await view.get(sealed.origin[0].removeprefix(base))
    if node is None:
        return stat
    now = decode_stat(node.value)
    if now == sealed.origin[1] or (now.is_file, now.is_dir) != (stat.is_file, stat.is_dir):
        return stat
    return now._replace(**{name: getattr(stat, name) for name in changed})
