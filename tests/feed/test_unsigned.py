"""Appends that are not durable yet: readable here at once, unknown to everybody else until they are."""

import pytest

from ddrive.feed import Feed, FeedLog, MemoryDirectory, RemoteTree
from tests.feed.samples import PAIR, CrashingDirectory, copy, reader, writer


class Told:
    """A listener that writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []

    def stored(self, start: int, end: int) -> None:
        self.heard.append(("stored", start, end))

    def grew(self, length: int) -> None:
        self.heard.append(("grew", length))

    def cleared(self, start: int, end: int) -> None:
        self.heard.append(("cleared", start, end))

    def nodes_stored(self) -> None:
        self.heard.append(("nodes",))


async def two_and_two() -> Feed:
    """Return a feed with two durable blocks and two that are not."""
    feed = Feed(writer([b"a", b"b"]))
    await feed.append([b"c"], durable=False)
    await feed.append([b"d"], durable=False)
    return feed


async def test_it_can_be_read_at_once():
    feed = await two_and_two()
    assert [await feed.get(index, wait=False) for index in range(4)] == [b"a", b"b", b"c", b"d"]


async def test_listeners_hear_of_it_once_it_is_durable():
    feed, told = Feed(writer()), Told()
    feed.subscribe(told)
    await feed.append([b"a"], durable=False)
    await feed.append([b"b"], durable=False)
    assert told.heard == []
    await feed.flush()
    assert told.heard == [("grew", 2), ("stored", 0, 2)]


async def test_the_next_durable_append_makes_it_durable():
    feed = await two_and_two()
    told = Told()
    feed.subscribe(told)
    await feed.append([b"e"])
    assert told.heard == [("grew", 5), ("stored", 2, 5)]
    assert feed.log.signed_length == 5  # type: ignore[union-attr]


async def test_peers_are_not_told_that_it_is_held():
    feed = await two_and_two()
    assert feed.log.bitfield_bytes(0, 8) == b"\xc0"  # type: ignore[union-attr]


@pytest.mark.parametrize("index", [2, 3])
async def test_peers_are_not_given_it(index: int):
    feed = await two_and_two()
    assert feed.log.proof(index, digest=0, hash_only=False, remote=RemoteTree()) is None  # type: ignore[union-attr]


async def test_peers_still_get_what_was_signed_before():
    feed = await two_and_two()
    target = reader()
    copy(feed.log, target, [0, 1])  # type: ignore[arg-type]
    assert target.length == 2


async def test_once_durable_it_is_given_to_peers():
    feed = await two_and_two()
    await feed.flush()
    target = reader()
    copy(feed.log, target, [0, 1, 2, 3])  # type: ignore[arg-type]
    assert target.length == 4


async def test_closing_makes_it_durable():
    directory = MemoryDirectory()
    feed = Feed(writer([b"a"], directory))
    await feed.append([b"b", b"c"], durable=False)
    await feed.aclose()
    assert FeedLog.open(directory).length == 3


@pytest.mark.parametrize("seed", range(8))
async def test_a_loss_of_power_loses_it_and_nothing_else(seed: int):
    disk = CrashingDirectory(10_000)
    feed = Feed(writer([b"a", b"b"], disk))
    feed.log.sync()  # type: ignore[union-attr]
    await feed.append([b"c" * 600, b"d" * 600], durable=False)
    log = FeedLog.open(disk.after_restart(seed), secret_key=PAIR.secret_key)
    assert [log.block(index) for index in range(log.length)] == [b"a", b"b"]
    assert log.append([b"other"]) == 2
