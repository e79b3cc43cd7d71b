"""Answering the peers of one trie: the owner of its feed registers the extension with the exchange of that feed."""

import logging
from collections.abc import Callable
from typing import Any, Protocol

from ddrive.errors import RemoteProtocolError
from ddrive.feed import Feed
from ddrive.ids import short
from ddrive.trie.extension import Assistant

logger = logging.getLogger(__name__)


class Registered(Protocol):
    """An extension that peers hear of."""

    def send(self, link: Any, payload: bytes) -> None: ...


class Registry(Protocol):
    """The extensions of one feed's exchange; `ddrive.replication.extensions.Extensions`."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def register(
        self, name: str, handler: Callable[[Any, bytes], None], *, asked: Callable[[], None] | None = None
    ) -> Registered: ...


def answer_peers(feed: Feed, extensions: Registry, name: str) -> None:
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
