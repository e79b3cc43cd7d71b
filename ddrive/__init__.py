"""ddrive: a file system backed by signed, append-only feeds that peers exchange.

What a program needs is here: `open_feed` gives one feed by itself, `open_store` or `open_attached` many, `open_drive`
a drive in them, `open_trie` a database in a feed, and `ddrive.errors` says what can go wrong.
"""

from ddrive import errors
from ddrive.dialect import DIALECTS, DWEB, HYPERCORE, Dialect
from ddrive.drive import (
    Change,
    DirEntry,
    Drive,
    DriveFeeds,
    ExportReport,
    FileHandle,
    FileReader,
    ImportReport,
    Info,
    KeyRef,
    MirrorReport,
    Mount,
    NewEntry,
    Stat,
    export_tree,
    format_url,
    import_tree,
    mirror,
    open_drive,
    parse_key,
)
from ddrive.errors import DriveError
from ddrive.feed import Feed, FileDirectory, MemoryDirectory
from ddrive.ids import PublicKey
from ddrive.standalone import NoiseKeyPair, Peer, Replication, StandaloneFeed, open_feed, open_trie
from ddrive.store.attached import open_attached
from ddrive.store.linked import replicate
from ddrive.store.namespace import Namespace, namespace
from ddrive.store.store import OwnedStore, Store, open_store
from ddrive.trie import Delete, Put, Trie, TrieNode

__all__ = [
    "DIALECTS",
    "DWEB",
    "HYPERCORE",
    "Change",
    "Delete",
    "Dialect",
    "DirEntry",
    "Drive",
    "DriveError",
    "DriveFeeds",
    "ExportReport",
    "Feed",
    "FileDirectory",
    "FileHandle",
    "FileReader",
    "ImportReport",
    "Info",
    "KeyRef",
    "MemoryDirectory",
    "MirrorReport",
    "Mount",
    "Namespace",
    "NewEntry",
    "NoiseKeyPair",
    "OwnedStore",
    "Peer",
    "PublicKey",
    "Put",
    "Replication",
    "StandaloneFeed",
    "Stat",
    "Store",
    "Trie",
    "TrieNode",
    "errors",
    "export_tree",
    "format_url",
    "import_tree",
    "mirror",
    "namespace",
    "open_attached",
    "open_drive",
    "open_feed",
    "open_store",
    "open_trie",
    "parse_key",
    "replicate",
]
