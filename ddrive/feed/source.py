"""What a feed needs from the layers above it, declared here so that it need not import them."""

from collections.abc import Callable
from typing import Any, Protocol

from ddrive.ids import BlockIndex


class BlockSource(Protocol):
    """Who can get what is not held. Each wish is withdrawn by calling what it returned, once or more."""

    def want_blocks(self, start: BlockIndex, end: BlockIndex, *, urgent: bool) -> Callable[[], None]:
        """Wish for the blocks `start` up to `end`."""

    def want_offset(self, byte_offset: int, start: BlockIndex, end: BlockIndex) -> Callable[[], None]:
        """Wish for the nodes needed to locate a byte that lies in the blocks `start` up to `end`."""

    def want_length(self, min_length: int) -> Callable[[], None]:
        """Wish for a proof that the feed has at least `min_length` blocks."""

    def availability(self, index: int) -> bool | None:
        """Tell whether somebody who is asked has block `index`; None while that is not known."""

    async def refresh(self) -> None:
        """Return when what connected peers announced is proven, or there is nothing newer."""

    async def ends(self) -> bool:
        """Tell whether a connected peer has all blocks of the feed, and nobody tells of more, after `refresh`."""

    @property
    def peer_count(self) -> int:
        """How many peers carry this feed now."""

    @property
    def giver_count(self) -> int:
        """How many of them have some of it, or have yet to say what they have."""


class Reserving(Protocol):
    """Who keeps order among the processes that append to a feed of which we have a view."""

    async def reserve(self, took_s: float) -> int:
        """Return the length at which nobody else appends before `unreserve`, unless that takes long.

        `took_s`: how long that has taken already.
        """

    async def settle(self) -> int:
        """Return the length when no append is under way that had begun before. Raises: as `reserve`."""

    def unreserve(self) -> None:
        """Let others append."""


class FeedListener(Protocol):
    """Who is told of changes, by plain calls that must not raise."""

    def stored(self, start: BlockIndex, end: BlockIndex) -> None:
        """Blocks `start` up to `end` are held now."""

    def grew(self, length: int) -> None:
        """The feed is proven to have `length` blocks."""

    def cleared(self, start: BlockIndex, end: BlockIndex) -> None:
        """Blocks `start` up to `end` are not held any more."""

    def nodes_stored(self) -> None:
        """Proof nodes arrived without a block."""


class RegisteredExtension(Protocol):
    """An extension that peers hear of."""

    def send(self, link: Any, payload: bytes) -> None: ...


class ExtensionRegistry(Protocol):
    """The extensions of one feed's exchange; `ddrive.replication.extensions.Extensions`."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def register(
        self, name: str, handler: Callable[[Any, bytes], None], *, asked: Callable[[], None] | None = None
    ) -> RegisteredExtension: ...
