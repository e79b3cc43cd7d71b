"""Help for the peers of one trie: the owner of its feed answers what they ask about it."""

from ddrive.errors import DriveError
from ddrive.feed.feed import Feed
from ddrive.store.interface import StoreOwner
from ddrive.trie.helping import answer_peers
from ddrive.trie.node import decode_header


def assist(store: StoreOwner, feed: Feed) -> bool:
    """Answer the peers of `feed` from now on if it holds a trie; tell whether its first block is here."""
    try:
        block = feed.get_held(0)
        if block is None:
            return False
        if decode_header(block, feed.name).type == store.dialect.trie_type:
            answer_peers(feed, store.session(feed).extensions, store.dialect.trie_type)
    except DriveError:
        pass  # a feed of another kind
    return True
