from . import errors
from .dialect import DIALECTS, DWEB, HYPERCORE, Dialect
from .drive import (
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
    Reach,
    Stat,
    export_tree,
    format_url,
    import_tree,
    mirror,
    open_drive,
    parse_key,
)
from .errors import DriveError
from .feed import Feed, FileDirectory, MemoryDirectory
from .ids import PublicKey
from .protocol import NoiseKeyPair
from .standalone import Peer, Replication, StandaloneFeed, open_feed, open_trie
from .store.attached import open_attached
from .store.interface import Store
from .store.linked import replicate
from .store.namespace import Namespace, namespace
from .store.store import OwnedStore, open_store
from .trie import Delete, Put, Trie, TrieNode

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
    "Reach",
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
