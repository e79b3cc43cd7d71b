"""Durable appends of several tasks at once: one signature and one sync for all that wait."""

import pytest
import trio

from ddrive.errors import LengthChanged, TooLarge
from ddrive.feed import Feed, FeedLog, MemoryDirectory
from ddrive.feed.appending import TOGETHER_BYTES
from ddrive.feed.owned import MAX_APPEND_BYTES
from ddrive.feed.storage import MemoryStorage, Storage
from tests.feed.samples import content, writer


class CountingStorage(MemoryStorage):
    """A file that counts its syncs, and fails them when told to."""

    def __init__(self, directory: "CountingDirectory", name: str) -> None:
        super().__init__(directory.files[name])
        self._directory, self._name = directory, name

    def sync(self) -> None:
        self._directory.synced.append(self._name)
        if self._directory.failing:
            raise OSError(5, "the disk fails")


class CountingDirectory(MemoryDirectory):
    def __init__(self) -> None:
        super().__init__()
        self.synced: list[str] = []
        self.failing = False

    def open(self, name: str, *, create: bool) -> Storage:
        super().open(name, create=create)
        return CountingStorage(self, name)


def feed_on(directory: CountingDirectory) -> Feed:
    feed = Feed(writer(directory=directory))
    directory.synced.clear()
    return feed


async def append_all(feed: Feed, batches: list[list[bytes]], **options: object) -> list[object]:
    """Append each batch in a task of its own; returns what each got, an index or an exception."""
    found: list[object] = [None] * len(batches)

    async def one(number: int) -> None:
        try:
            found[number] = await feed.append(batches[number], **options)  # type: ignore[arg-type]
        except Exception as error:
            found[number] = error

    async with trio.open_nursery() as nursery:
        for number in range(len(batches)):
            nursery.start_soon(one, number)
    return found


async def test_those_that_wait_share_a_sync():
    directory = CountingDirectory()
    feed = feed_on(directory)
    found = await append_all(feed, [[bytes([number])] for number in range(20)])
    assert sorted(found) == list(range(20))  # type: ignore[type-var]
    assert directory.synced.count("signatures") == 1
    assert [content(feed.log)[index] for index in found] == [bytes([number]) for number in range(20)]  # type: ignore[arg-type,index]


async def test_each_gets_the_index_of_its_own_first_block():
    feed = feed_on(CountingDirectory())
    batches = [[b"a"], [b"b", b"c"], [], [b"d", b"e", b"f"]]
    found = await append_all(feed, batches)
    for start, batch in zip(found, batches, strict=True):
        assert [feed.log.block(start + place) for place in range(len(batch))] == batch  # type: ignore[operator]


async def test_one_that_cannot_be_appended_does_not_spoil_the_others():
    feed = feed_on(CountingDirectory())
    found = await append_all(feed, [[b"a"], [bytes(MAX_APPEND_BYTES + 1)], [b"c"]])
    assert [type(result) for result in found if not isinstance(result, int)] == [TooLarge]
    assert feed.length == 2


async def test_a_compare_and_swap_counts_what_goes_before_it():
    feed = feed_on(CountingDirectory())
    found = await append_all(feed, [[b"a"], [b"b"], [b"c"]], expected_length=0)
    assert [result for result in found if isinstance(result, int)] == [0]
    assert sum(isinstance(result, LengthChanged) for result in found) == 2


async def test_a_failed_sync_is_final_for_all_that_shared_it():
    directory = CountingDirectory()
    feed = feed_on(directory)
    directory.failing = True
    found = await append_all(feed, [[b"a"], [b"b"], [b"c"]])
    assert all(isinstance(result, OSError) for result in found)
    assert feed.length == 0
    directory.failing = False
    assert await feed.append([b"d"]) == 0
    feed.log.close()
    again = FeedLog.open(directory)
    assert content(again) == {0: b"d"}


async def test_much_at_once_is_cut():
    directory = CountingDirectory()
    feed = feed_on(directory)
    piece = bytes(TOGETHER_BYTES // 8)
    await append_all(feed, [[piece] * 4 + [b"."] for _ in range(4)])
    assert directory.synced.count("signatures") == 4
    assert feed.length == 20


async def test_with_a_hook_each_goes_alone():
    directory = CountingDirectory()
    feed = feed_on(directory)

    def refuse(index: int, block: object) -> None:
        if block == b"b":
            raise ValueError("no b")

    feed.log.on_write = refuse  # type: ignore[union-attr]
    found = await append_all(feed, [[b"a"], [b"b"], [b"c"]])
    assert sum(isinstance(result, ValueError) for result in found) == 1
    assert feed.length == 2


async def test_one_cancelled_before_it_was_begun_is_not_appended():
    feed = feed_on(CountingDirectory())
    async with feed._turn:
        with trio.CancelScope() as scope:
            scope.cancel()
            await feed.append([b"a"])
        assert scope.cancelled_caught
    assert await feed.append([b"b"]) == 0


@pytest.mark.parametrize("victim", range(4))
async def test_one_cancelled_while_another_task_writes_it_is_done(victim: int):
    feed, scopes, found = feed_on(CountingDirectory()), [trio.CancelScope() for _ in range(4)], {}

    async def one(number: int) -> None:
        with scopes[number]:
            found[number] = await feed.append([bytes([number])])

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(one, number)
        while not feed.length:
            await trio.lowlevel.checkpoint()
        scopes[victim].cancel()
    assert {index: bytes([number]) for number, index in found.items()}.items() <= content(feed.log).items()
    assert feed.length in (3, 4)


@pytest.mark.parametrize("wrong", [b"abc", ["text"], [b"good", 3], [None]], ids=repr)
async def test_what_is_no_list_of_blocks_spoils_nothing(wrong):
    feed = Feed(writer())
    found = []

    async def append(block):
        found.append(await feed.append([block]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(append, b"one")
        with pytest.raises(TypeError, match="list of blocks"):
            await feed.append(wrong)
        nursery.start_soon(append, b"two")
    assert sorted(found) == [0, 1]
    assert await feed.append([b"three", bytearray(b"four"), memoryview(b"five")]) == 2
    assert feed.length == 5


async def test_one_that_cannot_be_appended_takes_none_of_the_others_along(monkeypatch):
    feed = Feed(writer())
    check = feed.log.check_appendable

    def fails_for_two(blocks):
        if blocks == [b"two"]:
            raise RuntimeError("broken")
        check(blocks)

    monkeypatch.setattr(feed.log, "check_appendable", fails_for_two)
    found = {}

    async def append(block):
        try:
            found[block] = await feed.append([block])
        except RuntimeError as error:
            found[block] = str(error)

    async with feed._turn, trio.open_nursery() as nursery:
        for block in (b"one", b"two", b"three"):
            nursery.start_soon(append, block)
        await trio.testing.wait_all_tasks_blocked()
        feed._turn.release()
        await trio.testing.wait_all_tasks_blocked()
        await feed._turn.acquire()
    assert found.pop(b"two") == "broken"
    assert {feed.get_held(index): index for index in range(feed.length)} == found
