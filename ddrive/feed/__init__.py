"""Signed append-only feeds: their tree, their files, and waiting for blocks that peers send."""

from ddrive.feed.feed import Feed
from ddrive.feed.log import FeedLog, Stored
from ddrive.feed.merkle import MAX_BLOCK_BYTES, MAX_LENGTH, Proof, RemoteTree
from ddrive.feed.opening import open_feed
from ddrive.feed.source import BlockSource, FeedListener
from ddrive.feed.storage import Directory, FileDirectory, MemoryDirectory, Storage
from ddrive.feed.view import FeedView

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
