"""A feed exchanged with the npm packages of both dialects, in both roles, over TCP on loopback."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from ddrive import DIALECTS, MemoryDirectory, NoiseKeyPair, StandaloneFeed, open_feed
from ddrive.errors import InvalidProof, NoPeers
from ddrive.protocol import static_public_key
from ddrive.standalone import Acknowledged, Appended, Cleared, PeerOpened, Synced
from tests.support.npm_feed import NpmFeed, npm_feed

BLOCKS = [bytes([index]) * (index * 7 % 300 + 1) for index in range(60)]

both = pytest.mark.parametrize("dialect", ["dweb", "hypercore"])
either_dials = pytest.mark.parametrize("npm_dials", [False, True], ids=["we-dial", "npm-dials"])


@asynccontextmanager
async def reader_of_npm(dialect: str, place: Path, **options: object) -> AsyncIterator[tuple[NpmFeed, StandaloneFeed]]:
    """An npm author with `BLOCKS`, and our empty copy of its feed."""
    with trio.fail_after(60):
        async with npm_feed(dialect, place / "npm") as npm:
            await npm.open()
            await npm.append(*BLOCKS)
            async with open_feed(MemoryDirectory(), npm.key, dialect=DIALECTS[dialect], **options) as feed:
                yield npm, feed


@asynccontextmanager
async def npm_reader(dialect: str, place: Path, **options: object) -> AsyncIterator[tuple[NpmFeed, StandaloneFeed]]:
    """Our feed with `BLOCKS`, and an npm peer with an empty copy of it."""
    with trio.fail_after(60):
        async with open_feed(MemoryDirectory(), dialect=DIALECTS[dialect]) as feed, npm_feed(dialect, place) as npm:
            await feed.append(BLOCKS)
            await npm.open(feed.key, **options)
            yield npm, feed


async def link(npm: NpmFeed, feed: StandaloneFeed, *, npm_dials: bool = False, ours: dict | None = None, **theirs):
    """Connect the two feeds; `ours` and `theirs` are the options of each side."""
    theirs.setdefault("live", True)
    stream = await (npm.dial(**theirs) if npm_dials else npm.stream(**theirs))
    return feed.replicate(stream, initiator=not npm_dials, **(ours or {}))


# --- the whole feed


@both
@either_dials
async def test_we_read_the_whole_feed(dialect: str, npm_dials: bool, tmp_path: Path) -> None:
    async with reader_of_npm(dialect, tmp_path) as (npm, feed):
        with feed.events(Synced) as events:
            await link(npm, feed, npm_dials=npm_dials)
            await anext(events)
        assert [await feed.get(index, wait=False) for index in range(60)] == BLOCKS


@both
@either_dials
async def test_npm_reads_the_whole_feed(dialect: str, npm_dials: bool, tmp_path: Path) -> None:
    async with npm_reader(dialect, tmp_path) as (npm, feed):
        await link(npm, feed, npm_dials=npm_dials)
        await npm.ask("download", start=0, end=60)
        values = (await npm.ask("batch", start=0, end=60))["values"]
        assert [bytes.fromhex(value) for value in values] == BLOCKS


# --- some of it


@both
async def test_we_read_one_block(dialect: str, tmp_path: Path) -> None:
    async with reader_of_npm(dialect, tmp_path, sparse=True) as (npm, feed):
        await link(npm, feed)
        assert await feed.get(41) == BLOCKS[41]
        assert (feed.length, feed.downloaded_count()) == (60, 1)


@both
async def test_npm_reads_one_block(dialect: str, tmp_path: Path) -> None:
    async with npm_reader(dialect, tmp_path, sparse=True) as (npm, feed):
        await link(npm, feed)
        assert await npm.get(41) == BLOCKS[41]
        state = await npm.ask("state")
        assert (state["length"], state["downloaded"]) == (60, 1)


@both
async def test_we_read_a_range(dialect: str, tmp_path: Path) -> None:
    async with reader_of_npm(dialect, tmp_path, sparse=True) as (npm, feed):
        await link(npm, feed)
        assert await feed.get_range(10, 30) == BLOCKS[10:30]


@both
async def test_npm_reads_a_range(dialect: str, tmp_path: Path) -> None:
    async with npm_reader(dialect, tmp_path, sparse=True) as (npm, feed):
        await link(npm, feed)
        values = (await npm.ask("batch", start=10, end=30))["values"]
        assert [bytes.fromhex(value) for value in values] == BLOCKS[10:30]


OFFSET = sum(map(len, BLOCKS[:37])) + 5


@both
async def test_we_find_a_byte(dialect: str, tmp_path: Path) -> None:
    async with reader_of_npm(dialect, tmp_path, sparse=True) as (npm, feed):
        await link(npm, feed)
        await feed.update(60)
        assert await feed.seek(OFFSET) == (37, 5)


@both
async def test_npm_finds_a_byte(dialect: str, tmp_path: Path) -> None:
    async with npm_reader(dialect, tmp_path, sparse=True) as (npm, feed):
        await link(npm, feed)
        await npm.ask("update", options={"ifAvailable": True})
        assert await npm.ask("seek", offset=OFFSET) == {"id": 2, "block": 37, "place": 5}


@both
async def test_we_learn_the_length_without_a_block(dialect: str, tmp_path: Path) -> None:
    async with reader_of_npm(dialect, tmp_path, sparse=True) as (npm, feed):
        await link(npm, feed)
        assert await feed.update(if_available=True) == 60
        assert feed.downloaded_count() == 0


@both
async def test_npm_learns_the_length_without_a_block(dialect: str, tmp_path: Path) -> None:
    async with npm_reader(dialect, tmp_path, sparse=True) as (npm, feed):
        await link(npm, feed)
        assert (await npm.ask("update", options={"ifAvailable": True}))["length"] == 60
        assert feed.stats is not None
        assert feed.stats.uploaded_blocks == 0


# --- growth


@both
async def test_we_follow_an_npm_author(dialect: str, tmp_path: Path) -> None:
    async with reader_of_npm(dialect, tmp_path) as (npm, feed):
        with feed.events(Synced) as events:
            await link(npm, feed)
            await anext(events)
            await npm.append(b"one more")
            await anext(events)
        assert await feed.get(60, wait=False) == b"one more"


@both
async def test_npm_follows_us(dialect: str, tmp_path: Path) -> None:
    async with npm_reader(dialect, tmp_path, sparse=True) as (npm, feed):
        await link(npm, feed)
        await npm.ask("update", options={"ifAvailable": True})
        await feed.append([b"one", b"more"])
        assert await npm.get(61) == b"more"


@both
async def test_a_sparse_reader_of_ours_that_follows_hears_of_growth(dialect: str, tmp_path: Path) -> None:
    async with reader_of_npm(dialect, tmp_path, sparse=True, eager_update=True) as (npm, feed):
        with feed.events(Appended) as events:
            await link(npm, feed)
            assert await anext(events) == Appended(60)
            await npm.append(b"one more")
            assert await anext(events) == Appended(61)
        assert feed.downloaded_count() == 0


# --- nothing there


@both
async def test_we_are_told_that_a_block_is_not_to_be_had(dialect: str, tmp_path: Path) -> None:
    async with reader_of_npm(dialect, tmp_path, sparse=True) as (npm, feed):
        await link(npm, feed)
        with pytest.raises(NoPeers):
            await feed.get(60, if_available=True)


@both
async def test_npm_is_told_that_a_block_is_not_to_be_had(dialect: str, tmp_path: Path) -> None:
    async with npm_reader(dialect, tmp_path, sparse=True) as (npm, feed):
        await link(npm, feed)
        assert "not available" in str(await npm.get(60, ifAvailable=True))


@both
async def test_we_are_told_that_there_is_no_update(dialect: str, tmp_path: Path) -> None:
    async with reader_of_npm(dialect, tmp_path, sparse=True) as (npm, feed):
        await link(npm, feed)
        await feed.update(60)
        with pytest.raises(NoPeers):
            await feed.update(if_available=True)


@both
async def test_npm_is_told_that_there_is_no_update(dialect: str, tmp_path: Path) -> None:
    async with npm_reader(dialect, tmp_path, sparse=True) as (npm, feed):
        await link(npm, feed)
        await npm.ask("update", options={"ifAvailable": True})
        assert "No update" in (await npm.ask("update", options={"ifAvailable": True}))["failed"]


# --- receipts, extensions, clearing


@both
async def test_npm_confirms_our_blocks(dialect: str, tmp_path: Path) -> None:
    async with npm_reader(dialect, tmp_path, sparse=True) as (npm, feed):
        with feed.events(Acknowledged) as events:
            await link(npm, feed, ours={"ack": True})
            await npm.get(7)
            assert (await anext(events)).start == 7


@both
async def test_we_confirm_the_blocks_of_npm(dialect: str, tmp_path: Path) -> None:
    async with reader_of_npm(dialect, tmp_path, sparse=True) as (npm, feed):
        await link(npm, feed, ack=True)
        await feed.get(7)
        assert (await npm.ask("acks", count=1))["acks"] == [7]


@both
@pytest.mark.parametrize(("encoding", "value"), [("json", {"a": [1, None]}), ("utf-8", "grüße")])
async def test_extensions_cross_both_ways(dialect: str, encoding: str, value: object, tmp_path: Path) -> None:
    async with reader_of_npm(dialect, tmp_path, sparse=True) as (npm, feed):
        feed.register_extension("alpha")
        extension = feed.register_extension("zeta", encoding)
        await npm.ask("extension", name="beta", encoding="binary")
        await npm.ask("extension", name="zeta", encoding=encoding)
        with extension.messages() as messages, feed.events(PeerOpened) as opened:
            await link(npm, feed)
            await anext(opened)
            await npm.ask("peers", count=1)
            await feed.update(60)
            extension.broadcast(value)
            assert (await npm.ask("messages", count=1))["messages"] == [value]
            await npm.ask("broadcast", name="zeta", value=value)
            assert (await anext(messages)).value == value


@both
async def test_extensions_of_the_link_itself_cross_both_ways(dialect: str, tmp_path: Path) -> None:
    async with reader_of_npm(dialect, tmp_path, sparse=True) as (npm, feed):
        replication = await link(npm, feed, streamExtension="talk")
        extension = replication.register_extension("talk", "utf-8")
        with extension.messages() as messages:
            await replication.connected()
            extension.broadcast("hello")
            assert (await anext(messages)).value == "re: hello"


@both
async def test_we_hear_that_npm_cleared_a_block(dialect: str, tmp_path: Path) -> None:
    async with reader_of_npm(dialect, tmp_path, sparse=True) as (npm, feed):
        await link(npm, feed)
        await feed.update(60)
        await npm.ask("clear", start=3, end=4)
        with trio.fail_after(20):
            while feed.peers[0].has(3):  # noqa: ASYNC110
                await trio.sleep(0.01)
        with pytest.raises(NoPeers):
            await feed.get(3, if_available=True)


@both
async def test_npm_hears_that_we_cleared_a_block(dialect: str, tmp_path: Path) -> None:
    async with npm_reader(dialect, tmp_path, sparse=True) as (npm, feed):
        await link(npm, feed)
        await npm.get(0)
        with feed.events(Cleared) as events:
            feed.clear(3)
            assert await anext(events) == Cleared(3, 4)
        assert await npm.get(4) == BLOCKS[4]
        assert "not available" in str(await npm.get(3, ifAvailable=True))


# --- the end, strangers, keys


@both
@either_dials
async def test_an_exchange_that_is_not_live_ends_when_we_have_all(
    dialect: str, npm_dials: bool, tmp_path: Path
) -> None:
    async with reader_of_npm(dialect, tmp_path) as (npm, feed):
        replication = await link(npm, feed, npm_dials=npm_dials, ours={"live": False}, live=False)
        await replication.wait()
        await npm.ask("ends", count=1)
        assert feed.has(0, 60)


@both
@either_dials
async def test_an_exchange_that_is_not_live_ends_when_npm_has_all(
    dialect: str, npm_dials: bool, tmp_path: Path
) -> None:
    async with npm_reader(dialect, tmp_path) as (npm, feed):
        replication = await link(npm, feed, npm_dials=npm_dials, ours={"live": False}, live=False)
        await replication.wait()
        await npm.ask("ends", count=1)
        assert (await npm.ask("state"))["downloaded"] == 60


@both
async def test_we_end_an_exchange_that_npm_would_go_on_with(dialect: str, tmp_path: Path) -> None:
    async with reader_of_npm(dialect, tmp_path) as (npm, feed):
        replication = await link(npm, feed, ours={"live": False}, live=True)
        await replication.wait()
        assert feed.has(0, 60)


@both
async def test_npm_switches_its_directions_off_and_on_on_one_link(dialect: str, tmp_path: Path) -> None:
    async with npm_reader(dialect, tmp_path, sparse=True) as (npm, feed):
        replication = await link(npm, feed)
        assert await npm.get(0) == BLOCKS[0]
        for on in (False, True):
            await npm.ask("switch", downloading=on, uploading=on)
            while feed.peers[0].downloading is not on:
                await npm.ask("state")
        assert await npm.get(1) == BLOCKS[1]
        assert replication.end is None


@both
async def test_we_switch_our_directions_off_and_on_on_one_link(dialect: str, tmp_path: Path) -> None:
    async with reader_of_npm(dialect, tmp_path, sparse=True) as (npm, feed):
        replication = await link(npm, feed)
        assert await feed.get(0) == BLOCKS[0]
        for on in (False, True):
            feed.set_downloading(on)
            feed.set_uploading(on)
            assert (await npm.ask("state"))["peers"] == 1
        assert await feed.get(1) == BLOCKS[1]
        assert replication.end is None


@both
async def test_another_feed_is_refused(dialect: str, tmp_path: Path) -> None:
    async with (
        reader_of_npm(dialect, tmp_path, sparse=True) as (npm, _),
        open_feed(MemoryDirectory(), dialect=DIALECTS[dialect]) as other,
    ):
        replication = await link(npm, other)
        with replication.requests() as requests:
            assert await anext(requests)
        assert other.peers == []


@both
async def test_each_knows_the_key_pair_of_the_other(dialect: str, tmp_path: Path) -> None:
    pair, seed = NoiseKeyPair.from_seed(b"\x03" * 32), b"\x04" * 32
    async with reader_of_npm(dialect, tmp_path, sparse=True, key_pair=pair) as (npm, feed):
        replication = await link(npm, feed, seed=seed.hex())
        await feed.update(60)
        assert replication.link.remote_public_key == NoiseKeyPair.from_seed(seed).public_key
        assert (await npm.ask("state"))["remoteKeys"] == [pair.public_key.hex()]
        assert static_public_key(pair.secret_key) == pair.public_key


@both
@pytest.mark.parametrize("modes", [{"encrypted": False}, {"encrypted": False, "noise": False}], ids=["open", "bare"])
async def test_unencrypted_modes_agree(dialect: str, modes: dict[str, bool], tmp_path: Path) -> None:
    async with reader_of_npm(dialect, tmp_path, sparse=True) as (npm, feed):
        await link(npm, feed, ours=modes, **modes)
        assert await feed.get(5) == BLOCKS[5]


# --- what the files say


@both
async def test_signatures_and_roots_are_the_same(dialect: str, tmp_path: Path) -> None:
    async with reader_of_npm(dialect, tmp_path) as (npm, feed):
        with feed.events(Synced) as events:
            await link(npm, feed)
            await anext(events)
        theirs = await npm.ask("signature", index=59)
        index, signature = feed.signature(59)
        assert (index, signature.hex()) == (theirs["index"], theirs["signature"])
        roots = [[root.number, root.hash.hex(), root.size] for root in feed.root_hashes(59)]
        assert roots == (await npm.ask("roots", index=59))["roots"]
        feed.verify(59, bytes.fromhex(theirs["signature"]))
        with pytest.raises(InvalidProof):
            feed.verify(58, bytes.fromhex(theirs["signature"]))


@both
async def test_we_open_what_npm_wrote(dialect: str, tmp_path: Path) -> None:
    async with npm_feed(dialect, tmp_path / "npm") as npm:
        await npm.open()
        await npm.append(*BLOCKS)
    async with open_feed(tmp_path / "npm", dialect=DIALECTS[dialect]) as feed:
        assert [await feed.get(index) for index in range(60)] == BLOCKS
        assert feed.writable


@both
async def test_npm_opens_what_we_wrote(dialect: str, tmp_path: Path) -> None:
    async with open_feed(tmp_path / "ours", dialect=DIALECTS[dialect], value_encoding="json") as feed:
        await feed.append([{"a": 1}, "text"])
    async with npm_feed(dialect, tmp_path / "ours") as npm:
        await npm.open(valueEncoding="json")
        answers = [(await npm.ask("get", index=index))["value"] for index in (0, 1)]
        assert answers == [{"a": 1}, "text"]
