from .downloads import Download
from .encodings import Encoding
from .events import (
    Acknowledged,
    Appended,
    Cleared,
    Downloaded,
    FeedClosed,
    PeerAdded,
    PeerOpened,
    PeerRemoved,
    RemoteUpdate,
    Synced,
    Uploaded,
)
from .extending import ExtensionError, ExtensionMessage, FeedExtension
from .feed import AuditReport, StandaloneFeed
from .opening import open_feed
from .peers import Peer
from .replicating import PeerOptions, Replication
from .streams import ReadStream, WriteStream
from .telling import Event
from .tries import open_trie

__all__ = [
    "Acknowledged",
    "Appended",
    "AuditReport",
    "Cleared",
    "Download",
    "Downloaded",
    "Encoding",
    "Event",
    "ExtensionError",
    "ExtensionMessage",
    "FeedClosed",
    "FeedExtension",
    "Peer",
    "PeerAdded",
    "PeerOpened",
    "PeerOptions",
    "PeerRemoved",
    "ReadStream",
    "RemoteUpdate",
    "Replication",
    "StandaloneFeed",
    "Synced",
    "Uploaded",
    "WriteStream",
    "open_feed",
    "open_trie",
]
