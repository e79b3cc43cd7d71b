"""What the drive is asked before a change goes into it: whether it has that already, and what others have changed."""

from ddrive.drive.stat import Stat, decode_stat
from ddrive.drive.writer import located
from ddrive.trie import Trie
from mountd.journal import Attempt
from mountd.nodes import Sealed

WRITTEN = frozenset({"size", "blocks", "offset", "byte_offset", "mtime_ms", "ctime_ms"})  # what writing changes


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
