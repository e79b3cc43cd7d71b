"""Who wins when several change one path: whoever closed the file, or removed or moved it, last.

Mostly what is changed here is in the drive a moment later, and the order of commits is that of closes. What waits
longer, for room on the disk or for another worker to go on, meets what others have stored meanwhile: that stays.
"""

from ddrive.drive.stat import Stat
from ddrive.drive.walks import stat_or_none
from ddrive.trie import Trie, TrieNode
from mountd.nodes import Sealed
from mountd.ownversions import OwnVersions


async def newer_entry(view: Trie, base: str, sealed: Sealed, own: OwnVersions) -> tuple[TrieNode, Stat] | None:
    """Return what others have stored at the path of `sealed` after that was made here; None when that is newer.

    Only files and links of which the content is not what we have changed: attributes that we gave are kept with it.
    """
    made, origin = sealed.made, sealed.origin
    keeps_content = sealed.stat is not None and sealed.content is None
    if made is None or made.base != base or (keeps_content and origin is not None and origin[0] == sealed.path):
        return None
    node = await view.get(sealed.path.removeprefix(base))
    if node is None or node.seq < made.version:
        return None
    there = stat_or_none(node)
    if there is None or there.is_dir or (sealed.stat is not None and sealed.stat.is_dir):
        return None
    if origin is not None and origin[0] == sealed.path and alike(there, origin[1]):
        return None
    if own.knows(sealed.path) and own.final(sealed.path) == there:
        return None
    before = await view.checkout(made.version).get(sealed.path.removeprefix(base))
    if (was := stat_or_none(before)) is not None and alike(there, was):
        return None  # only its attributes have changed since
    is_late = made.late_from is not None and node.seq >= made.late_from
    return (node, there) if is_late or there.ctime_ms > made.at_ms else None


def alike(one: Stat, other: Stat) -> bool:
    """Tell whether two entries have the same content."""
    return (one.offset, one.blocks, one.size, one.linkname) == (other.offset, other.blocks, other.size, other.linkname)
