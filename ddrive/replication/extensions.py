"""Messages of other layers beside the feed's own, told apart by name.

A peer numbers its extensions by their place in its own sorted list, which it sends in Options; the number in a message
is the sender's. Source: wire.md section 5.
"""

import logging
from collections.abc import Callable
from typing import Protocol

from ddrive.protocol.codec import MAX_EXTENSION_NAME_BYTES, MAX_EXTENSIONS
from ddrive.protocol.link import Link
from ddrive.protocol.messages import Extension as ExtensionMessage
from ddrive.protocol.messages import Message, Options

Handler = Callable[[Link, bytes], None]

logger = logging.getLogger(__name__)


class Carrier(Protocol):
    """The session that carries extension messages."""

    def send(self, link: Link, message: Message) -> None: ...

    def send_options(self, link: Link) -> None: ...

    def links(self) -> list[Link]: ...


class Extension:
    """One extension of one feed: what its owner sends through."""

    def __init__(
        self, name: str, handler: Handler, extensions: "Extensions", asked: Callable[[], None] | None = None
    ) -> None:
        self.name = name
        self.handler = handler
        self.asked = asked
        self._extensions = extensions

    def send(self, link: Link, payload: bytes) -> None:
        """Send `payload` to one peer; one that does not know the extension drops it."""
        self._extensions.send(self, link, payload)

    def broadcast(self, payload: bytes) -> None:
        """Send `payload` to every peer of the feed."""
        self._extensions.broadcast(self, payload)

    def close(self) -> None:
        """Take the extension out of use."""
        self._extensions.remove(self)


class Extensions:
    """All extensions that are in use for one feed."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._by_name: dict[str, Extension] = {}
        self._names: tuple[str, ...] = ()  # sorted: the place is the number
        self._remote: dict[Link, tuple[str, ...]] = {}

    def register(self, name: str, handler: Handler, *, asked: Callable[[], None] | None = None) -> Extension:
        """Return the extension `name`; `handler(link, payload)` is called for each message. The last one counts.

        `asked` is called before others send a payload through it with `ask`.
        Raises: ValueError for a name over 255 bytes and for more than 256 names, which peers would end the link for.
        """
        if len(name.encode()) > MAX_EXTENSION_NAME_BYTES:
            raise ValueError(f"the name of an extension has at most {MAX_EXTENSION_NAME_BYTES} bytes: {name:.40}…")
        if len(self._by_name.keys() | {name}) > MAX_EXTENSIONS:
            raise ValueError(f"no more than {MAX_EXTENSIONS} extensions can be in use: close one before {name!r}")
        extension = self._by_name[name] = Extension(name, handler, self, asked)
        self._renumber()
        return extension

    def ask(self, name: str, payload: bytes) -> None:
        """Send `payload` to every peer through the extension `name`, if that takes questions of others."""
        extension = self._by_name.get(name)
        if extension is not None and extension.asked is not None:
            extension.asked()
            self.broadcast(extension, payload)

    def remove(self, extension: Extension) -> None:
        """Forget an extension, unless a newer one has taken its name."""
        if self._by_name.get(extension.name) is extension:
            del self._by_name[extension.name]
            self._renumber()

    @property
    def names(self) -> tuple[str, ...]:
        """The names in use, in the order of their numbers."""
        return self._names

    def learn(self, link: Link, options: Options) -> None:
        """Remember the peer's list."""
        self._remote[link] = options.extensions

    def forget(self, link: Link) -> None:
        """Drop what is known of a peer."""
        self._remote.pop(link, None)

    def received(self, link: Link, message: ExtensionMessage) -> None:
        """Hand a message to its handler; a failing handler is logged and harms nobody else."""
        names = self._remote.get(link, ())
        extension = self._by_name.get(names[message.id]) if message.id < len(names) else None
        if extension is None:
            return
        try:
            extension.handler(link, message.payload)
        except Exception:
            logger.exception("extension failed name=%s", extension.name)

    def send(self, extension: Extension, link: Link, payload: bytes) -> None:
        """Send `payload` under the extension's number."""
        if self._by_name.get(extension.name) is extension:
            self._carrier.send(link, ExtensionMessage(self._names.index(extension.name), payload))

    def broadcast(self, extension: Extension, payload: bytes) -> None:
        """Send `payload` to all peers."""
        for link in self._carrier.links():
            self.send(extension, link, payload)

    def _renumber(self) -> None:
        """Number the extensions anew and tell all peers."""
        self._names = tuple(sorted(self._by_name))
        for link in self._carrier.links():
            self._carrier.send_options(link)
