"""Blocks that their author signed and that are no proper nodes: errors that name feed and block, in bounded time."""

from array import array
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from ddrive.dialect import HYPERCORE
from ddrive.errors import DriveError, InvalidName, InvalidPath, NameTooLong
from ddrive.trie import Delete, InvalidNode, Put, Trie, open_trie
from ddrive.trie.node import (
    MAX_NUMBERS,
    MAX_SLOT,
    SHORT_TABLE,
    Header,
    TrieNode,
    decode_header,
    decode_node,
    encode_header,
    encode_node,
    encode_varints,
)
from ddrive.trie.path import COMPONENT_DIGITS, MAX_KEY_BYTES, key_path
from tests.trie.feeds import all_blocks, new_feed

HEADER = encode_header(Header("hypertrie"))


def field(number: int, data: bytes) -> bytes:
    return encode_varints([number << 3 | 2, len(data)]) + data


def block(key: str, *numbers: int) -> bytes:
    """Return a node with this key whose table is `numbers`."""
    return field(1, key.encode()) + field(2, b"v") + field(3, encode_varints(numbers))


async def trie_of(*blocks: bytes) -> Trie:
    return await open_trie(new_feed([HEADER, *blocks]), HYPERCORE)


async def every_read(trie: Trie) -> None:
    """Look at the trie in all ways; `a/x` is a key that no block has."""
    failures: list[DriveError] = []

    async def attempt(read: Callable[[], Any]) -> None:
        try:
            await read()
        except InvalidNode as error:
            failures.append(error)

    await attempt(lambda: trie.get("a"))
    await attempt(lambda: trie.get("a/x"))
    await attempt(lambda: trie.newest("a"))
    await attempt(lambda: trie.list())
    await attempt(lambda: trie.list("a", recursive=False))
    await attempt(lambda: drained(trie.diff(1)))
    await attempt(lambda: drained(trie.checkout(2).diff(trie)))
    await attempt(lambda: drained(trie.history()))
    await attempt(lambda: trie.put("a", b"new"))
    await attempt(lambda: trie.delete("a"))
    for error in failures:
        assert trie.feed.name in str(error)
        assert "block" in str(error)


async def drained(steps: Any) -> list[Any]:
    return [step async for step in steps]


# rows and digits of the keys used here: "a" has the digits 0 1 2 0 1 ..., "b" 0 0 1 2 3 ...
TABLES = {
    "itself": [2, 1, 1, 2],
    "a later block": [2, 1, 1, 3],
    "a block that does not exist": [2, 1, 1, 99],
    "the header": [2, 1, 1, 0],
    "a huge number": [2, 1, 1, (1 << 64) - 1],
    "slot 31": [2, 1, 1 << 31, 1],
    "slots beyond": [2, 1, (1 << 63) | 1, 1, 1],
    "a row twice": [2, 1, 1, 1, 1, 1, 1],
    "rows in the wrong order": [3, 2, 1, 1, 1, 1, 1],
    "a row beyond the key": [99, 98, 1, 1],
    "a huge row": [1, 1 << 62, 1, 1],
    "a pointer less than bits": [2, 1, 3, 1],
    "a row without bits": [2, 1],
    "its own digit": [2, 1, 2, 1],
    "a wrong digit": [2, 1, 8, 1],
    "two of one digit": [2, 1, 1 | 1 << 5, 1, 1],
    "a row deeper than the other key allows": [6, 5, 1, 1],
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
async def test_a_bad_table_is_reported_or_harmless(table: list[int]) -> None:
    await every_read(await trie_of(block("b"), block("a", *table), block("a/c", *table)))
    trie = await trie_of(block("b"), block("a", *table))
    await every_read(trie)
    trie = await trie_of(block("b"), block("a", *table))
    with pytest.raises(InvalidNode, match=rf"block \d+ of feed {trie.feed.name}"):
        await trie.list()


async def test_numbers_of_more_than_64_bits_are_reported() -> None:
    bad = field(1, b"a") + field(3, b"\xff" * 30 + b"\x01")
    with pytest.raises(InvalidNode, match="block 1 of feed"):
        await (await trie_of(bad)).get("a")


@pytest.mark.parametrize("bad", [b"", b"\xff", b"garbage", field(2, b"no key"), HEADER])
async def test_garbage_blocks_are_reported(bad: bytes) -> None:
    trie = await trie_of(block("b"), bad)
    if bad == HEADER:
        assert await trie.get("b") is None  # reads as an entry called like the type of the trie
        return
    with pytest.raises(InvalidNode, match="block 2 of feed"):
        await trie.get("b")
    assert [node.key for node in await trie.checkout(2).list()] == ["b"]


@pytest.mark.parametrize("bad", [b"", b"\xff", field(2, b"no type")])
async def test_a_garbage_header_is_reported(bad: bytes) -> None:
    with pytest.raises(InvalidNode, match="block 0"):
        await open_trie(new_feed([bad]), HYPERCORE)


async def test_a_node_listed_twice_ends_the_walk_instead_of_doubling_it() -> None:
    """Each node points at the one before from many rows: as a tree this would have 2 ** 60 leaves."""
    blocks = [block("a")]
    for seq in range(2, 60):
        rows = [number for row in range(1, 30) for number in (row, 1 << (seq + row) % 4, seq - 1)]
        blocks.append(block("a", 30, *rows))
    trie = await trie_of(*blocks)
    with pytest.raises(InvalidNode):
        await trie.list()
    with pytest.raises(InvalidNode):
        await drained(trie.diff(1))
    for _ in range(3):
        await every_read(trie)


async def test_a_giant_table_is_refused() -> None:
    with pytest.raises(InvalidNode, match="numbers"):
        await (await trie_of(block("a", *[1] * (1 << 20 | 1)))).list()


async def test_a_key_of_very_many_components_costs_little() -> None:
    trie = await trie_of(block("b"), block("/".join(["a"] * 200_000), 2, 1, 1, 1))
    assert await trie.get("b") is not None
    assert await trie.get("a/a") is None
    assert (await trie.newest("a/a")) is not None
    assert len(await trie.list()) == 2


async def test_a_reset_marker_below_the_head_is_no_entry() -> None:
    trie = await trie_of(block(""), block("a", 2, 1, 1, 1))
    assert await trie.get("b") is None
    with pytest.raises(InvalidNode):
        await trie.list()


@settings(max_examples=150, deadline=None)
@given(st.data())
async def test_changed_bytes_never_do_more_than_raise(data: st.DataObject) -> None:
    trie = await open_trie(new_feed(), HYPERCORE)
    keys = ["a", "b", "a/b", "idgcmnmna", "mpomeiehc", "a/idgcmnmna", "a/mpomeiehc", "c"]
    await trie.batch([Put(key, b"v") for key in keys] + [Delete("b")])
    blocks = all_blocks(trie.feed)
    for _ in range(data.draw(st.integers(1, 3))):
        target = data.draw(st.integers(1, len(blocks) - 1))
        changed = bytearray(blocks[target])
        for _ in range(data.draw(st.integers(1, 3))):
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
        blocks[target] = bytes(changed)
    await every_read(await open_trie(new_feed(blocks), HYPERCORE))


@given(st.binary(max_size=80))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    for decode in (lambda: decode_header(data, "feed"), lambda: decode_node(5, data, "feed").rows()):
        try:
            decode()
        except InvalidNode as error:
            assert "of feed" in str(error)  # noqa: PT017


class Counted(array):
    """A table that counts how often somebody looks at a number of it."""

    looks = 0

    def __getitem__(self, place: Any) -> Any:
        self.looks += 1
        return super().__getitem__(place)


@pytest.mark.parametrize("rows", [SHORT_TABLE // 2 - 1, 50 * SHORT_TABLE])
def test_a_walk_along_the_rows_of_a_node_ends_soon_however_many_they_are(rows: int) -> None:
    numbers = Counted("Q", [0, *(number for row in range(rows) for number in (row, 0))])
    node = TrieNode(5, "/".join("a" * (rows // COMPONENT_DIGITS + 1)), numbers=numbers)
    assert [node.first_row(row) for row in range(rows + 1)] == [*range(2, 2 * rows + 2, 2), 0]
    assert numbers.looks <= SHORT_TABLE * rows


class Turns(trio.abc.Instrument):
    """Counts the turns of the tasks."""

    count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


async def test_a_walk_along_a_table_of_a_great_many_rows_lets_other_tasks_have_their_turn() -> None:
    components = MAX_NUMBERS // COMPONENT_DIGITS // 2 - 1
    rows = [number for row in range(components * COMPONENT_DIGITS) for number in (row, 0)]
    trie = await trie_of(block("/".join("a" * components), 0, *rows))
    turns = Turns()
    trio.lowlevel.add_instrument(turns)
    assert [node.seq for node in await trie.list()] == [1]
    trio.lowlevel.remove_instrument(turns)
    assert turns.count >= len(rows) // 2 // 2048


async def test_a_lookup_through_many_nodes_without_a_place_lets_other_tasks_have_their_turn() -> None:
    path = key_path("a/b")
    blocks = [block("a")]
    for seq in range(2, 62):  # the newest one is looked at first, and each leads to the one before it
        row = path.length - seq
        numbers = [0, row, 1 << path.digit(row), seq - 1]
        blocks.append(field(1, b"\xff/\xff/\xff") + field(3, encode_varints(numbers)))
    trie = await trie_of(*blocks)
    turns = Turns()
    trio.lowlevel.add_instrument(turns)
    await trie.get("a/b")
    trio.lowlevel.remove_instrument(turns)
    assert turns.count >= 60


def test_a_table_that_no_key_needs_is_not_looked_through() -> None:
    components = MAX_NUMBERS // COMPONENT_DIGITS // 2
    rows = [number for row in range(components * COMPONENT_DIGITS) for number in (row, 0)]
    key = "/".join("a" * components)
    assert decode_node(5, block(key, *rows), "feed").numbers[-2:] == array("Q", rows[-2:])
    with pytest.raises(InvalidNode, match=f"the table in block 5 of feed has {MAX_NUMBERS + 1} numbers"):
        decode_node(5, block(key, 0, *rows), "feed")


def test_the_longest_keys_have_room_for_a_dozen_rows_in_each_component() -> None:
    assert MAX_NUMBERS // (MAX_KEY_BYTES // 2) >= 12 * 5


@given(st.lists(st.integers(0, 2) | st.integers(0, 40) | st.sampled_from([1 << 31, (1 << 64) - 1]), max_size=12))
def test_the_next_row_is_that_of_the_whole_table_or_a_usable_one(numbers: list[int]) -> None:
    try:
        rows, starts = TrieNode(50, "a", numbers=array("Q", numbers)).rows()
    except InvalidNode:
        rows, starts = (), (-1,)
    for row in range(COMPONENT_DIGITS + 2):
        node = TrieNode(50, "a", numbers=array("Q", numbers))
        position = bisect_left(rows, row)
        try:
            found = node.first_row(row)
        except InvalidNode:
            found = -1
        if starts == (-1,):
            assert found <= 0 or (row <= numbers[found - 1] < node.length and numbers[found] >> MAX_SLOT + 1 == 0)
            assert found <= 0 or found + numbers[found].bit_count() < len(numbers)
        else:
            assert found == (starts[position] if position < len(rows) else 0)


@pytest.mark.parametrize("key", ["", "/", "//"])
async def test_an_empty_key_is_refused(key: str) -> None:
    trie = await trie_of()
    for change in (Put(key, b""), Delete(key)):
        with pytest.raises(InvalidPath):
            await trie.batch([change])
    assert trie.version == 1


async def test_keys_that_cannot_be_stored_are_refused() -> None:
    trie = await trie_of()
    with pytest.raises(NameTooLong):
        await trie.put("k" * (MAX_KEY_BYTES + 1), b"")
    with pytest.raises(InvalidName):
        await trie.put("\udc80", b"")
    await trie.put("k" * MAX_KEY_BYTES, b"")
    assert await trie.get("\udc80") is None


def test_nodes_encode_as_they_decode() -> None:
    node = decode_node(7, block("a/b", 3, 2, 5, 1, 6), "feed")
    assert (node.pointer(2, 0), node.pointer(2, 2), node.pointer(2, 1), node.pointer(1, 0)) == (1, 6, 0, 0)
    assert node.pointers(2) == [(0, 1), (2, 6)]
    again = decode_node(7, encode_node(node), "feed")
    assert (again.key, again.value, again.numbers) == (node.key, node.value, node.numbers)
    assert encode_node(TrieNode(1, "a", None)).hex() == "0a01611a010020012800"
    assert decode_node(1, encode_node(TrieNode(1, "a", None)), "feed").value is None
    assert decode_node(1, encode_node(TrieNode(1, "a", b"", 9, True)), "feed").value == b""


@pytest.mark.parametrize("count", [1, 2, 12])
async def test_keys_that_are_no_text_do_not_hide_the_others(count: int) -> None:
    source = await open_trie(new_feed(), HYPERCORE)
    keys = [f"d{number % 4}/key{number:02}" for number in range(48)]
    await source.batch([Put(key, b"v") for key in keys])
    for first in range(len(keys)):
        chosen = {f"key{(first + step * 5) % len(keys):02}".encode() for step in range(count)}
        blocks = all_blocks(source.feed, 1)
        for position, data in enumerate(blocks):
            for name in chosen:
                blocks[position] = blocks[position].replace(b"/" + name, b"/\xff\xfe\xfd" + name[-2:])
            assert len(blocks[position]) == len(data)
        trie = await trie_of(*blocks)
        good = [key for key in keys if key[3:].encode() not in chosen]
        found = await trie.list()
        assert sorted(node.key for node in found if not node.garbled) == sorted(good)
        assert sum(node.garbled for node in found) == count
        assert {node.key[:2] for node in await trie.list(recursive=False)} == {"d0", "d1", "d2", "d3"}
        for directory in ("d0", "d1", "d2", "d3"):
            listed = [node.key for node in await trie.list(directory, recursive=False) if not node.garbled]
            assert sorted(listed) == sorted(key for key in good if key.startswith(directory))
        for key in good:
            node = await trie.get(key)
            assert node is not None
            assert node.key == key


async def test_nodes_without_a_place_cannot_make_a_walk_long() -> None:
    blocks = [block("a")]
    for seq in range(2, 60):  # each points at all before it, so there are 2^58 ways down
        rows = [number for row, child in enumerate(range(1, seq), 1) for number in (row, 1 << row % 4, child)]
        blocks.append(field(1, b"\xff/\xff/\xff") + field(2, b"v") + field(3, encode_varints([0, *rows])))
    trie = await trie_of(*blocks)
    assert len(await trie.list()) <= 60
    assert len(await trie.list("a")) <= 60
