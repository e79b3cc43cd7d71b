from .feed import Feed
from .log import FeedLog, Stored
from .merkle import MAX_BLOCK_BYTES, MAX_LENGTH, Proof, RemoteTree
from .opening import open_feed
from .source import BlockSource, FeedListener
from .storage import Directory, FileDirectory, MemoryDirectory, Storage
from .view import FeedView

__all__ = [
    "MAX_BLOCK_BYTES",
    "MAX_LENGTH",
    "BlockSource",
    "Directory",
    "Feed",
    "FeedListener",
    "FeedLog",
    "FeedView",
    "FileDirectory",
    "MemoryDirectory",
    "Proof",
    "RemoteTree",
    "Storage",
    "Stored",
    "open_feed",
]
