"""Answering the peers of one trie: the owner of its feed registers the extension with the exchange of that feed."""

import logging
from typing import Any

from ddrive.errors import RemoteProtocolError
from ddrive.feed.feed import Feed
from ddrive.feed.source import ExtensionRegistry
from ddrive.ids import short
from ddrive.trie.extension import Assistant

logger = logging.getLogger(__name__)


def answer_peers(feed: Feed, extensions: ExtensionRegistry, name: str) -> None:
    """Answer from now on what peers ask about the trie in `feed`; `name` is that of the extension."""
    if name in extensions.names:
        return
    assistant = Assistant(feed)

    def received(link: Any, payload: bytes) -> None:
        try:
            assistant.received(payload, lambda answer: extension.send(link, answer))
        except RemoteProtocolError as error:
            logger.debug("message refused feed=%s error=%s", short(feed.key), error)

    extension = extensions.register(name, received, asked=assistant.asked)
