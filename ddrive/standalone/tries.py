"""A trie in a feed that a program has opened: by itself (`open_feed`) or in a store."""

from ddrive import trie
from ddrive.dialect import DWEB, Dialect
from ddrive.feed import Feed
from ddrive.standalone.arguments import check_kind
from ddrive.standalone.feed import StandaloneFeed
from ddrive.trie import Trie, answer_peers


async def open_trie(
    feed: Feed | StandaloneFeed,
    dialect: Dialect | None = None,
    *,
    metadata: bytes | None = None,
    subtype: str | None = None,
) -> Trie:
    """Return the key/value database in `feed`. An empty feed that is writable becomes one.

    `dialect` is that of a feed that stands alone, else it has to be given (default: DWEB). `metadata` and `subtype` go
    into the header of a new one. Waits for block 0 when it is not held, so `replicate` before that.
    Raises: InvalidNode when the feed holds something else, what the feed raises.
    """
    check_kind("a trie lies in a feed that was opened", feed, (Feed, StandaloneFeed))
    if not isinstance(feed, StandaloneFeed):
        return await trie.open_trie(feed, dialect or DWEB, metadata=metadata, subtype=subtype)
    family = dialect or feed.dialect
    opened = await trie.open_trie(feed.feed, family, metadata=metadata, subtype=subtype)
    answer_peers(feed.feed, feed.session.extensions, family.trie_type)
    return opened
