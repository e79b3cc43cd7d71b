"""Feeds that a program opens by themselves, without a store: `open_feed` and what it gives.

It stands beside `store` in the layers: both bind feeds to links, the store for many feeds under one master key.
"""

from ddrive.feed.subscription import Subscription
from ddrive.protocol.keys import NoiseKeyPair
from ddrive.standalone.downloads import Download
from ddrive.standalone.encodings import Encoding
from ddrive.standalone.events import (
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
from ddrive.standalone.extending import ExtensionError, ExtensionMessage, FeedExtension
from ddrive.standalone.feed import AuditReport, StandaloneFeed
from ddrive.standalone.host import Event
from ddrive.standalone.opening import open_feed
from ddrive.standalone.peers import Peer
from ddrive.standalone.replicating import Replication
from ddrive.standalone.streams import ReadStream, WriteStream
from ddrive.standalone.tries import open_trie

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
    "NoiseKeyPair",
    "Peer",
    "PeerAdded",
    "PeerOpened",
    "PeerRemoved",
    "ReadStream",
    "RemoteUpdate",
    "Replication",
    "StandaloneFeed",
    "Subscription",
    "Synced",
    "Uploaded",
    "WriteStream",
    "open_feed",
    "open_trie",
]
