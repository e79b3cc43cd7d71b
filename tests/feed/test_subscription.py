"""Iterating over what happens."""

import gc
from weakref import ref

from ddrive.feed.subscription import Source


async def test_a_loop_that_was_broken_off_keeps_nothing():
    class Told:
        """An event that can be followed."""

    source: Source[Told] = Source()

    async def first() -> None:
        subscription = source.subscribe()
        source.publish(Told())
        async for _ in subscription:
            break

    await first()
    gc.collect()
    event = Told()
    followed = ref(event)
    source.publish(event)
    del event
    gc.collect()
    assert followed() is None
    assert not source.listens(Told)


async def test_others_hear_on_when_one_lets_go():
    source: Source[int] = Source()
    subscriptions = [source.subscribe() for _ in range(3)]
    del subscriptions[1]
    gc.collect()
    source.publish(1)
    source.close()
    assert [[event async for event in each] for each in subscriptions] == [[1], [1]]
