"""Iterating over what happens, instead of being called back.

Who wants to know subscribes and iterates. A subscriber that does not keep up loses the newest events, never the memory
of the process; `dropped` counts them.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from weakref import ref

import trio

MAX_WAITING_EVENTS = 4096  # kept for one subscriber

E = TypeVar("E")


class Subscription(Generic[E]):
    """An iterator over what happens from now on; ends when its source or it is closed."""

    def __init__(self, wanted: Callable[[E], bool], leave: Callable[["Subscription[E]"], None]) -> None:
        self.dropped = 0  # events that found no room
        self._wanted = wanted
        self._leave = leave
        self._send, self._receive = trio.open_memory_channel[E](MAX_WAITING_EVENTS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        try:
            return await self._receive.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise StopAsyncIteration from None

    def close(self) -> None:
        """Hear no more; who waits for the next event comes to the end."""
        self._leave(self)
        self._send.close()
        self._receive.close()

    def offer(self, event: E) -> None:
        """Take in an event."""
        if self._wanted(event):
            try:
                self._send.send_nowait(event)
            except trio.WouldBlock:
                self.dropped += 1

    def finish(self) -> None:
        """Come to an end after what is waiting."""
        self._send.close()


class Source(Generic[E]):
    """Where events of one kind or several come from."""

    def __init__(self) -> None:
        self._subscriptions: list[ref[Subscription[E]]] = []  # who broke off a loop over one lets go of it unsaid
        self._kinds: list[tuple[type[Any], ...]] = []
        self._is_closed = False

    def subscribe(self, *kinds: type[Any], where: Callable[[E], bool] | None = None) -> Subscription[E]:
        """Return an iterator over events of the given classes, or over all; of those that `where` says yes to."""
        if wrong := [kind for kind in kinds if not isinstance(kind, type)]:
            raise TypeError(f"events are chosen by their classes, not by {wrong[0]!r:.80}")

        def wanted(event: E) -> bool:
            return (not kinds or isinstance(event, kinds)) and (where is None or where(event))

        subscription: Subscription[E] = Subscription(wanted, self._forget)
        if self._is_closed:
            subscription.finish()
        else:
            self._subscriptions.append(ref(subscription, self._drop))
            self._kinds.append(kinds)
        return subscription

    def listens(self, kind: type[Any]) -> bool:
        """Tell whether somebody wants events of this class, so that making them is worth while."""
        return any(not kinds or kind in kinds for kinds in self._kinds)

    def publish(self, event: E) -> None:
        """Give an event to everybody who wants it."""
        for followed in tuple(self._subscriptions):
            if (subscription := followed()) is not None:
                subscription.offer(event)

    def close(self) -> None:
        """Let every iterator come to its end."""
        self._is_closed = True
        for followed in tuple(self._subscriptions):
            if (subscription := followed()) is not None:
                subscription.finish()
        self._subscriptions.clear()
        self._kinds.clear()

    def _forget(self, subscription: Subscription[E]) -> None:
        self._drop(ref(subscription))

    def _drop(self, followed: "ref[Subscription[E]]") -> None:
        if followed in self._subscriptions:
            place = self._subscriptions.index(followed)
            del self._subscriptions[place], self._kinds[place]
