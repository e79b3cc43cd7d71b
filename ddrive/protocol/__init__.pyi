from .connection import (
    ChannelClosed,
    ChannelOpened,
    ChannelRequested,
    Connection,
    Established,
    Event,
    Received,
    StreamReceived,
)
from .handshake import static_public_key
from .keys import NoiseKeyPair
from .link import Link, LinkEnd, LinkHandler
from .messages import (
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
from .running import run_link

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
