"""ddrive: a file system backed by signed, append-only feeds that peers exchange.

What a program needs is here: `open_feed` gives one feed by itself, `open_store` or `open_attached` many, `open_drive`
a drive in them, and `ddrive.errors` says what can go wrong.
"""

from ddrive import errors
from ddrive.dialect import DIALECTS, DWEB, HYPERCORE, Dialect
from ddrive.drive import (
    Change,
    DirEntry,
    Drive,
    ExportReport,
    FileReader,
    ImportReport,
    KeyRef,
    Mount,
    NewEntry,
    Stat,
    export_tree,
    format_url,
    import_tree,
    open_drive,
    parse_key,
)
from ddrive.errors import DriveError
from ddrive.feed import Feed, FileDirectory, MemoryDirectory
from ddrive.ids import PublicKey
from ddrive.standalone import NoiseKeyPair, Peer, Replication, StandaloneFeed, open_feed
from ddrive.store.attached import open_attached
from ddrive.store.linked import replicate
from ddrive.store.store import OwnedStore, Store, open_store

__all__ = [
    "DIALECTS",
    "DWEB",
    "HYPERCORE",
    "Change",
    "Dialect",
    "DirEntry",
    "Drive",
    "DriveError",
    "ExportReport",
    "Feed",
    "FileDirectory",
    "FileReader",
    "ImportReport",
    "KeyRef",
    "MemoryDirectory",
    "Mount",
    "NewEntry",
    "NoiseKeyPair",
    "OwnedStore",
    "Peer",
    "PublicKey",
    "Replication",
    "StandaloneFeed",
    "Stat",
    "Store",
    "errors",
    "export_tree",
    "format_url",
    "import_tree",
    "open_attached",
    "open_drive",
    "open_feed",
    "open_store",
    "parse_key",
    "replicate",
]
