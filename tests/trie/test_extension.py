"""The help between peers: recorded messages, what is answered, and what hostile messages can cost."""

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from ddrive.dialect import DIALECTS, HYPERCORE
from ddrive.errors import RemoteProtocolError
from ddrive.trie import Put, Trie, open_trie
from ddrive.trie.extension import (
    MAX_BLOCKS,
    MESSAGE_BLOCKS,
    Assistant,
    CacheHint,
    GetRequest,
    IteratorRequest,
    answer,
    decode,
    encode_get,
    encode_hint,
    encode_iterator,
)
from ddrive.trie.node import MAX_NUMBERS, TrieNode, encode_varints
from ddrive.trie.path import COMPONENT_DIGITS, key_path
from tests.support.vectors import vector
from tests.trie.feeds import Reader, new_feed
from tests.trie.test_hostile import block, field, trie_of


def recorded(name: str) -> Any:
    return vector(f"trie-{name}.json")


async def recorded_source(data: Any, name: str) -> Trie:
    blocks = [data["header"], *(block for step in data["ops"] for block in step["appended"])]
    return await open_trie(new_feed([bytes.fromhex(block) for block in blocks]), DIALECTS[name])


async def filled(count: int) -> Trie:
    trie = await open_trie(new_feed(), HYPERCORE)
    await trie.batch([Put(f"d{number % 7}/f{number}", b"x") for number in range(count)])
    return trie


@pytest.mark.parametrize("name", sorted(DIALECTS))
async def test_recorded_requests_get_the_recorded_answers(name: str) -> None:
    data = recorded(name)
    source = await recorded_source(data, name)
    assistant = Assistant(source.feed)
    messages = data["extension"]["firstGetMessages"] + data["extension"]["laterMessages"]
    sent: list[bytes] = []
    for message in messages:
        if message["receivedBy"] == "source":
            assistant.received(bytes.fromhex(message["bytes"]), sent.append)
        else:
            assert sent.pop(0).hex() == message["bytes"]
    assert not sent


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_recorded_messages_decode_and_encode(name: str) -> None:
    data = recorded(name)["extension"]
    for recording in data["firstGetMessages"] + data["laterMessages"]:
        payload = bytes.fromhex(recording["bytes"])
        message = decode(payload)
        if isinstance(message, GetRequest):
            assert encode_get(message.head, message.key) == payload
            assert recording["message"] == {"get": {"head": message.head, "key": message.key}}
        elif isinstance(message, IteratorRequest):
            checkpoint = None
            if message.stack is not None:
                checkpoint = encode_varints(number for pair in message.stack for number in pair)
            assert encode_iterator(message.head, message.key, message.flags, checkpoint) == payload
        else:
            assert isinstance(message, CacheHint)
            assert encode_hint(message.blocks) == payload
            assert list(message.blocks) == recording["message"]["cache"]["blocks"]


class HelpedReader(Reader):
    """A reader whose source passes questions on to an assistant of the origin, and notes them."""

    def __init__(self, origin: Trie) -> None:
        super().__init__(origin.feed)
        self.asked: list[Any] = []
        self.assistant = Assistant(self.feed)
        self._helper = Assistant(origin.feed)

    def ask_peers(self, name: str, payload: bytes) -> None:
        assert name == HYPERCORE.trie_type
        self.asked.append(decode(payload))
        self.assistant.asked()
        self._helper.received(payload, lambda answer: self.assistant.received(answer, lambda _: None))


async def test_a_lookup_with_help_waits_twice() -> None:
    source = await filled(400)
    reader = HelpedReader(source)
    rounds: list[list[int]] = []
    reader.deliver(0, source.version - 1)
    trie = await open_trie(reader.feed, HYPERCORE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.serve, rounds)
        for key in ("d3/f3", "d4/f102"):
            rounds.clear()
            reader.asked.clear()
            node = await trie.get(key)
            assert node is not None
            assert len(rounds) == 1
            assert len(reader.asked) == 1
        nursery.cancel_scope.cancel()
    reader.assistant.close()
    assert reader.wishes == []


async def test_hidden_keys_are_asked_for_by_where_the_hidden_half_begins() -> None:
    source = await filled(100)
    await source.batch([Put(f"tag/t{number}", b"x", hidden=True) for number in range(200)])
    await source.put("d1/newest", b"x")
    reader = HelpedReader(source)
    rounds: list[list[int]] = []
    reader.deliver(0, source.version - 1)
    trie = await open_trie(reader.feed, HYPERCORE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.serve, rounds)
        for number in range(200):
            assert await trie.get(f"tag/t{number}", hidden=True) is not None
        nursery.cancel_scope.cancel()
    assert len(rounds) == 1
    assert len(reader.asked) == 1


async def test_an_iteration_asks_once_and_after_many_steps() -> None:
    source = await filled(3000)
    reader = HelpedReader(source)
    rounds: list[list[int]] = []
    reader.deliver(0, source.version - 1)
    trie = await open_trie(reader.feed, HYPERCORE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.serve, rounds)
        assert len(await trie.list()) == 3000
        nursery.cancel_scope.cancel()
    assert reader.asked[0].stack is not None
    assert [request.key for request in reader.asked] == [""] * len(reader.asked)
    assert 1 <= len(reader.asked) <= 3
    assert len(rounds) <= 4


async def test_a_listing_of_one_level_is_answered_with_that_level() -> None:
    source = await filled(1000)
    await source.put("top", b"x")
    level = answer(source.nodes, IteratorRequest(source.version - 1, "", flags=0))
    everything = answer(source.nodes, IteratorRequest(source.version - 1, "", flags=1))
    assert sum(map(len, level)) < 30
    assert sum(map(len, everything)) >= 1000


async def test_answers_come_in_messages_of_bounded_size_and_end() -> None:
    source = await filled(3000)
    messages = answer(source.nodes, IteratorRequest(source.version - 1, ""))
    assert [len(blocks) for blocks in messages] == [MESSAGE_BLOCKS] * (MAX_BLOCKS // MESSAGE_BLOCKS)
    assert answer(source.nodes, GetRequest(source.version - 1, "")) == []
    assert answer(source.nodes, GetRequest(1 << 60, "d1/f1")) == []
    head = source.version - 1
    assert answer(source.nodes, IteratorRequest(head, "", stack=((0, head + 1),))) == []


async def test_a_stack_that_names_one_block_again_and_again_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    source = await filled(50)
    head = source.version - 1
    looked_at = 0
    peek = source.nodes.peek

    def counted(seq: int) -> Any:
        nonlocal looked_at
        looked_at += 1
        return peek(seq)

    monkeypatch.setattr(source.nodes, "peek", counted)
    answer(source.nodes, IteratorRequest(head, "", stack=((0, head),) * MAX_BLOCKS))
    assert looked_at <= 4 * MAX_BLOCKS


async def test_a_long_table_is_not_gone_along_for_a_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    components = MAX_NUMBERS // COMPONENT_DIGITS // 2 - 1
    rows = [number for row in range(components * COMPONENT_DIGITS) for number in (row, 0)]
    trie = await trie_of(block("/".join("a" * components), 0, *rows))
    steps, first_row = 0, TrieNode.first_row

    def counted(node: TrieNode, row: int) -> int:
        nonlocal steps
        steps += 1
        return first_row(node, row)

    monkeypatch.setattr(TrieNode, "first_row", counted)
    assert answer(trie.nodes, IteratorRequest(1, "")) == [[1]]
    assert answer(trie.nodes, IteratorRequest(1, "", stack=((0, 1),) * MAX_BLOCKS)) == []
    assert steps < len(rows) // 4


async def test_not_all_of_many_long_tables_are_looked_at_for_a_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    path, blocks = key_path("a/b"), [block("a")]
    for seq in range(2, 40):  # the newest one is looked at first, and each leads to the one before it
        row = path.length - seq
        table = [0, row, 1 << path.digit(row), seq - 1]
        table += [number for row in range(path.length, 20_000) for number in (row, 0)]
        blocks.append(field(1, b"\xff/" * 700 + b"\xff") + field(3, encode_varints(table)))
    trie = await trie_of(*blocks)
    looked_at, peek = 0, trie.nodes.peek

    def counted(seq: int) -> TrieNode | None:
        nonlocal looked_at
        node = peek(seq)
        looked_at += 0 if node is None else len(node.numbers)
        return node

    monkeypatch.setattr(trie.nodes, "peek", counted)
    for request in (GetRequest(39, "a/b"), IteratorRequest(39, "a/b")):
        looked_at = 0
        assert len(answer(trie.nodes, request)[0]) >= 5
        assert looked_at <= 2 * MAX_NUMBERS


async def test_hints_nobody_asked_for_and_numbers_out_of_range_are_ignored() -> None:
    source = await filled(20)
    reader = Reader(source.feed)
    reader.deliver(0, source.version - 1)
    assistant = Assistant(reader.feed)
    assistant.received(encode_hint([3, 4]), lambda _: None)
    assert reader.wishes == []
    assistant.asked()
    assistant.received(encode_hint([0, 3, 1 << 62, source.version, source.version - 1]), lambda _: None)
    assert reader.wishes == [(3, 4)]
    assistant.close()
    assert reader.wishes == []


async def test_wishes_from_hints_end_when_they_come_true_and_are_bounded() -> None:
    source = await filled(MAX_BLOCKS + 500)
    reader = Reader(source.feed)
    reader.deliver(0, source.version - 1)
    assistant = Assistant(reader.feed)
    assistant.asked()
    for start in (1, MAX_BLOCKS // 2):
        assistant.received(encode_hint(range(start, start + MAX_BLOCKS)), lambda _: None)
    assert len(reader.wishes) == MAX_BLOCKS
    assert max(reader.wishes)[0] == source.version - 2
    reader.deliver(2000)
    assert (2000, 2001) not in reader.wishes
    assistant.close()
    assert reader.wishes == []


@given(st.binary(max_size=60))
def test_any_bytes_decode_or_are_refused(payload: bytes) -> None:
    try:
        decode(payload)
    except RemoteProtocolError:
        return


@pytest.mark.parametrize("checkpoint", [b"\x01", b"\x80", b"\xff" * 11 + b"\x01\x01", b"\x01" * (4 * MAX_BLOCKS + 2)])
def test_a_broken_stack_is_refused(checkpoint: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(encode_iterator(1, "", 1, checkpoint))


@pytest.mark.parametrize("name", ["get", "iterator"])
def test_a_key_that_is_no_text_is_refused(name: str) -> None:
    valid = encode_get(1, "ab") if name == "get" else encode_iterator(1, "ab", 1, None)
    with pytest.raises(RemoteProtocolError):
        decode(valid.replace(b"ab", b"\xff\xfe"))


def test_a_giant_message_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        decode(encode_get(1, "k" * 70_000))
