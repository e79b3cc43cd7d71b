"""A link handler that writes down what happens and does what the test tells it."""

from collections.abc import Callable, Sequence

import trio

from ddrive.dialect import DWEB
from ddrive.ids import ChannelId, DiscoveryKey, PublicKey
from ddrive.protocol import Link, Message


class Recorder:
    """Opens the given feeds on each link, agrees to those that the peer asks for, refuses all others."""

    def __init__(self, *keys: PublicKey, on_message: Callable[[Link, ChannelId, Message], None] | None = None) -> None:
        self.keys = keys
        self.on_message = on_message
        self.links: list[Link] = []
        self.channels: list[ChannelId] = []
        self.messages: list[Message] = []
        self.calls: list[str] = []
        self.changed = trio.Event()

    def _note(self, call: str) -> None:
        self.calls.append(call)
        self.changed.set()
        self.changed = trio.Event()

    async def wait_for(self, call: str, count: int = 1) -> None:
        """Return when `call` has happened `count` times."""
        while self.calls.count(call) < count:
            await self.changed.wait()

    def established(self, link: Link) -> None:
        self.links.append(link)
        for key in self.keys:
            link.open_channel(key, DWEB)
        self._note("established")

    def channel_requested(self, link: Link, discovery_key: DiscoveryKey) -> None:
        link.refuse(discovery_key)
        self._note("channel_requested")

    def channel_opened(self, link: Link, channel: ChannelId) -> None:
        self.channels.append(channel)
        self._note("channel_opened")

    def channel_closed(self, link: Link, channel: ChannelId) -> None:
        self._note("channel_closed")

    def received(self, link: Link, channel: ChannelId, messages: Sequence[Message]) -> None:
        for message in messages:
            if link.end is not None:
                return
            self.messages.append(message)
            if self.on_message is not None:
                self.on_message(link, channel, message)
            self._note("received")

    def drained(self, link: Link) -> None:
        self._note("drained")

    def closed(self, link: Link) -> None:
        self._note("closed")
