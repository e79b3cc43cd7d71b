"""How two peers talk: handshake, encryption, frames, messages and channels.

Everything but `link` is a machine without I/O: bytes in, events out. `link` puts one such machine on a stream.
"""

from ddrive.protocol.connection import (
    ChannelClosed,
    ChannelOpened,
    ChannelRequested,
    Connection,
    Established,
    Event,
    Received,
    StreamReceived,
)
from ddrive.protocol.handshake import static_public_key
from ddrive.protocol.keys import NoiseKeyPair
from ddrive.protocol.link import Link, LinkEnd, LinkHandler, run_link
from ddrive.protocol.messages import (
    Cancel,
    Close,
    Data,
    Extension,
    Have,
    Message,
    Open,
    Options,
    Request,
    Status,
    Unhave,
    Unwant,
    Want,
)

__all__ = [
    "Cancel",
    "ChannelClosed",
    "ChannelOpened",
    "ChannelRequested",
    "Close",
    "Connection",
    "Data",
    "Established",
    "Event",
    "Extension",
    "Have",
    "Link",
    "LinkEnd",
    "LinkHandler",
    "Message",
    "NoiseKeyPair",
    "Open",
    "Options",
    "Received",
    "Request",
    "Status",
    "StreamReceived",
    "Unhave",
    "Unwant",
    "Want",
    "run_link",
    "static_public_key",
]
