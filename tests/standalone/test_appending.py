"""Appending values, in every encoding, and what may keep a block from being written."""

from pathlib import Path
from typing import Any

import pytest

from ddrive.errors import Closed, InvalidProof, NotHeld, NotWritable, UndecodableBlock
from ddrive.feed.storage import MemoryDirectory
from ddrive.standalone import Appended, AuditReport, Peer, open_feed
from tests.standalone.pairs import BLOCKS, author_and_copy, join


async def test_one_value_is_one_block():
    async with open_feed(MemoryDirectory()) as feed:
        assert await feed.append(b"a") == 0
        assert await feed.append("b") == 1
        assert (len(feed), feed.byte_length) == (2, 2)


async def test_a_list_is_one_append():
    async with open_feed(MemoryDirectory()) as feed:
        assert await feed.append([b"a", b"b", b"c"]) == 0
        assert feed.signature(0)[0] == 2


@pytest.mark.parametrize("bad", [object(), 3.5, 3, [b"a"]])
async def test_what_is_no_bytes_is_not_binary(bad: object):
    async with open_feed(MemoryDirectory()) as feed:
        with pytest.raises(TypeError):
            await feed.append([bad])


async def test_a_copy_cannot_be_appended_to():
    async with author_and_copy(joined=False) as (_, copy):
        with pytest.raises(NotWritable):
            await copy.append(b"x")


async def test_a_closed_feed_cannot_be_appended_to():
    async with open_feed(MemoryDirectory()) as feed:
        pass
    with pytest.raises(Closed):
        await feed.append(b"x")


@pytest.mark.parametrize(
    ("encoding", "value", "block"),
    [
        ("binary", b"\x00\xff", b"\x00\xff"),
        ("utf-8", "grüße", "grüße".encode()),
        ("json", {"a": [1, None, "ü"]}, '{"a":[1,null,"ü"]}\n'.encode()),
        ("ascii", "plain", b"plain"),
        ("hex", "00ff", b"\x00\xff"),
        ("base64", "AP8=", b"\x00\xff"),
        ("ucs2", "ü", b"\xfc\x00"),
    ],
)
async def test_an_encoding_turns_values_into_blocks_and_back(encoding: str, value: Any, block: bytes):
    async with open_feed(MemoryDirectory(), value_encoding=encoding) as feed:
        await feed.append(value)
        assert await feed.get(0, value_encoding="binary") == block
        assert await feed.get(0) == value


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "ucs2"])
@pytest.mark.parametrize("value", [None, 5, {"a": 1}])
async def test_what_is_no_text_is_not_written_as_what_it_prints_as(encoding: str, value: Any):
    async with open_feed(MemoryDirectory(), value_encoding=encoding) as feed:
        with pytest.raises(TypeError, match="is text"):
            await feed.append(value)
        assert feed.length == 0


class Shifted:
    """An encoder object of a program."""

    def encode(self, value: int) -> bytes:
        return bytes([value + 1])

    def decode(self, block: bytes) -> int:
        return block[0] - 1


async def test_any_object_can_be_the_encoding():
    async with open_feed(MemoryDirectory(), value_encoding=Shifted()) as feed:
        await feed.append([4, 5])
        assert await feed.get_range(0, 2) == [4, 5]


async def test_an_unknown_encoding_is_refused():
    with pytest.raises(ValueError, match="utf-8"):
        async with open_feed(MemoryDirectory(), value_encoding="klingon"):
            pass


async def test_a_block_of_another_encoding_is_reported():
    async with open_feed(MemoryDirectory()) as feed:
        await feed.append(b"\xff")
        with pytest.raises(UndecodableBlock, match="block 0"):
            await feed.get(0, value_encoding="json")


async def test_what_is_not_durable_can_be_read_at_once_and_is_kept(tmp_path: Path):
    async with open_feed(tmp_path / "feed") as feed:
        await feed.append([b"a", b"b"], durable=False)
        assert await feed.get(1, wait=False) == b"b"
    async with open_feed(tmp_path / "feed") as feed:
        assert feed.length == 2


async def test_peers_hear_of_it_within_a_second_or_so(autojump_clock):
    async with author_and_copy([b"first"]) as (author, copy):
        with author.events(Appended) as events:
            await author.append(b"later", durable=False)
            assert await copy.get(1) == b"later"
            assert await anext(events) == Appended(2)


async def test_the_hook_sees_our_own_blocks_without_a_peer():
    seen: list[tuple[int, bytes, Peer | None]] = []
    async with open_feed(MemoryDirectory(), on_write=lambda *told: seen.append(told)) as feed:
        await feed.append([b"a", b"b"])
    assert seen == [(0, b"a", None), (1, b"b", None)]


async def test_the_hook_sees_blocks_of_peers_with_the_peer(autojump_clock):
    seen: list[tuple[int, bytes, Peer | None]] = []
    async with author_and_copy(on_write=lambda *told: seen.append(told)) as (_, copy):
        await copy.get(3)
        assert seen == [(3, BLOCKS[3], copy.peers[0])]


async def test_the_hook_can_refuse_our_own_block():
    def refuse(index: int, block: bytes, peer: Peer | None) -> None:
        raise LookupError("no")

    async with open_feed(MemoryDirectory(), on_write=refuse) as feed:
        with pytest.raises(LookupError):
            await feed.append(b"x")
        assert feed.length == 0


async def test_the_hook_can_refuse_a_block_of_a_peer_and_so_ends_the_link(autojump_clock):
    def refuse(index: int, block: bytes, peer: Peer | None) -> None:
        raise LookupError("not this one")

    async with author_and_copy(joined=False, on_write=refuse) as (author, copy):
        _, replication = join(author, copy)
        copy.download(3, 4)
        assert "not this one" in (await replication.wait()).reason
        assert not copy.has(3)
        assert copy.length == 0


async def test_a_proof_carries_a_block_by_hand():
    async with author_and_copy(joined=False) as (author, copy):
        copy.put(5, BLOCKS[5], author.proof(5, digest=copy.digest(5)))
        assert await copy.get(5, wait=False) == BLOCKS[5]


async def test_a_proof_without_a_block_carries_the_length():
    async with author_and_copy(joined=False) as (author, copy):
        copy.put(5, None, author.proof(5, hash=True))
        assert (copy.length, copy.downloaded_count()) == (20, 0)


async def test_a_false_block_is_not_stored():
    async with author_and_copy(joined=False) as (author, copy):
        with pytest.raises(InvalidProof):
            copy.put(5, b"false", author.proof(5))
        assert copy.downloaded_count(0, 20) == 0


async def test_what_is_not_known_cannot_be_proven():
    async with author_and_copy(joined=False) as (_, copy):
        with pytest.raises(NotHeld):
            copy.proof(5)


async def test_a_signature_of_the_whole_feed_verifies():
    async with author_and_copy() as (author, _):
        index, signature = author.signature()
        assert index == 19
        author.verify(index, signature)


async def test_the_roots_of_the_feed_cover_its_bytes():
    async with author_and_copy() as (author, _):
        assert sum(root.size for root in author.root_hashes(19)) == author.byte_length


async def test_an_audit_reports_what_is_damaged():
    directory = MemoryDirectory()
    async with open_feed(directory) as feed:
        await feed.append([b"aa", b"bb", b"cc"])
        directory.files["data"][3] ^= 1
        assert await feed.audit() == AuditReport(2, (1,))


async def test_cleared_blocks_are_not_held():
    async with open_feed(MemoryDirectory()) as feed:
        await feed.append([b"a", b"b", b"c", b"d"])
        feed.clear(0)
        feed.clear(2, 4)
        assert [feed.has(index) for index in range(4)] == [False, True, False, False]
