"""What an authorised writer can do to the others: nothing but be named. Every lie costs bounded work."""

from collections.abc import Callable

import pytest
import trio

from ddrive.appdb import AppDB, InvalidEntry
from ddrive.appdb.schema_pb2 import Entry as Fields
from ddrive.appdb.schema_pb2 import Header
from ddrive.appdb.table import MAX_POINTERS
from ddrive.appdb.writers import ARRIVAL_S
from ddrive.crypto import KeyPair
from ddrive.errors import InvalidKey, NotHeld
from ddrive.feed import Feed, FeedLog, MemoryDirectory
from tests.appdb.stores import copy_feed, memory_db

OWNER, LIAR, OTHER = (KeyPair.from_seed(bytes([number]) * 32) for number in (1, 2, 3))
NAME = LIAR.public_key[:4].hex()


def fields(seq: int, clock: list[int], *, key: str = "k", trie: str = "", inflate: int = 1) -> Fields:
    """Return an entry of the liar, whose list is owner, liar, other."""
    made = Fields(key=key, value=b"lie", trie=bytes.fromhex(trie), clock=clock, inflate=inflate)
    if inflate == seq:
        for pair in (OWNER, LIAR, OTHER):
            made.feeds.add(key=pair.public_key)
    return made


def feed_of(pair: KeyPair, entries: list[bytes], header: bytes | None = None) -> Feed:
    """Return a feed with these blocks behind its header."""
    log = FeedLog.create(MemoryDirectory(), key=pair.public_key, secret_key=pair.secret_key)
    log.append([header or Header(protocol="hyperdb").SerializeToString(), *entries])
    return Feed(log)


async def victim(
    blocks: list[bytes | Fields], *, other: list[Fields] | None = None, header: bytes | None = None
) -> AppDB:
    """Return the owner's database after he authorised the liar and the other one, and got their blocks."""
    db = await memory_db(OWNER)
    await db.put("k", b"truth")
    await db.put("kk/2", b"truth")
    await db.authorize(LIAR.public_key)
    await db.authorize(OTHER.public_key)
    await db.heads()
    feeds = db._writers.store.feeds  # type: ignore[attr-defined]
    lies = [block if isinstance(block, bytes) else block.SerializeToString() for block in blocks]
    copy_feed(feed_of(LIAR, lies, header), feeds[LIAR.public_key])
    if other is not None:
        copy_feed(feed_of(OTHER, [block.SerializeToString() for block in other]), feeds[OTHER.public_key])
    return db


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (b"\xff\xff", "no entry"),
        (fields(1, [5, 7]), "does not count its own feed right"),
        (fields(1, [5, 1]), "does not count its own feed right"),
        (fields(1, [5]), "does not count its own feed right"),
        (fields(1, [5, 2, 0, 0]), "counts 4 feeds, its list 3"),
        (fields(1, [5, 2], inflate=0), "names block 0"),
        (fields(1, [5, 2], inflate=9), "names block 9"),
        (fields(1, [5, 2], key="x" * 70_000), "a key that nobody may store"),
        (Fields(key="k", trie=b"", clock=[1], inflate=1), "should have a list of feeds"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_wrong_entry_is_named(block: bytes | Fields, reason: str) -> None:
    db = await victim([block])
    with pytest.raises(InvalidEntry, match=reason) as caught:
        await db.get("k")
    assert f"block 1 of feed {NAME}" in str(caught.value)


@pytest.mark.parametrize(
    ("trie", "reason"),
    [
        ("0002" + "0009", "to block 9 of feed 0"),  # more than its clock says
        ("0002" + "0000", "to block 0 of feed 0"),  # the header
        ("0002" + "0201", "to block 1 of feed 1"),  # itself
        ("0002" + "0402", "to block 2 of feed 2"),  # a feed of which it has seen nothing
        ("0002" + "0801", "beyond the list"),
        ("0002" + "00", "cut short"),
        ("0002", "cut short"),
        ("0000", "out of order or its digits"),
        ("0120" + "0001", "out of order or its digits"),
        ("01020001" + "00020001", "rows are out of order"),
        ("0002" + "00ffffffffffffff01", "too large"),
        ("0002" + "0101" * (MAX_POINTERS + 1) + "0001", "pointers"),
    ],
)
async def test_wrong_table_is_named(trie: str, reason: str) -> None:
    db = await victim([fields(1, [5, 2], trie=trie)])
    if reason != "rows are out of order":  # a get looks at one row
        with pytest.raises(InvalidEntry, match=reason):
            await db.get("ww/y")
    for read in (db.list(), db.put("new", b"")):
        with pytest.raises(InvalidEntry, match=reason) as caught:
            await read
        assert f"block 1 of feed {NAME}" in str(caught.value)


async def test_pointer_to_where_it_does_not_belong_is_named() -> None:
    table = "".join(f"{row:02x}0f" + "0001" * 4 for row in range(32))
    db = await victim([fields(1, [5, 2], key="kk/1", trie=table)])
    with pytest.raises(InvalidEntry, match="does not belong there") as caught:
        await db.list()
    assert f"block 1 of feed {NAME}" in str(caught.value)


async def test_writer_whose_feed_is_no_database_has_no_entries(caplog: pytest.LogCaptureFixture) -> None:
    """Somebody gave the key of a drive by mistake, and nobody can take that back."""
    db = await victim([fields(1, [5, 2]), b"\xff"], header=Header(protocol="hypertrie").SerializeToString())
    assert [node.value for node in await db.get("k")] == [b"truth"]
    assert f"block 0 of feed {NAME} begins something else" in caplog.text
    await db.put("k", b"goes on")
    assert [node.value for node in await db.get("k")] == [b"goes on"]


async def test_source_that_is_no_database_is_named() -> None:
    feed = feed_of(OWNER, [b"x"], header=Header(protocol="hypertrie").SerializeToString())
    db = await memory_db(OWNER, LIAR)
    copy_feed(feed, db.source)
    with pytest.raises(InvalidEntry, match="begins something else"):
        await db.get("k")


async def test_feed_that_is_known_to_be_no_writer_is_not_authorised() -> None:
    db = await memory_db(OWNER)
    store = db._writers.store
    drive = await store.open_feed(name="drive")
    await drive.append([Header(protocol="hypertrie").SerializeToString()])
    with pytest.raises(InvalidKey, match="begins something else"):
        await db.authorize(drive.key)
    assert db.local.length == 1


async def test_clock_ahead_of_all_that_is_known_hides_the_entry_only() -> None:
    db = await victim([fields(1, [1, 2], key="early"), fields(2, [1 << 40, 3], key="late")])
    assert [node.value for node in await db.get("early")] == [b"lie"]
    assert await db.get("late") == []
    assert [node.value for node in await db.get("k")] == [b"truth"]
    await db.put("k", b"still writable")


class Silent:
    """Where blocks come from: a peer who announced them and never gives any."""

    peer_count = 1

    def want_blocks(self, start: int, end: int, *, urgent: bool) -> Callable[[], None]:
        return lambda: None

    def want_length(self, min_length: int) -> Callable[[], None]:
        return lambda: None

    def want_offset(self, byte_offset: int, start: int, end: int) -> Callable[[], None]:
        return lambda: None

    async def refresh(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_peer_who_keeps_last_blocks_back_delays_one_read(autojump_clock: trio.abc.Clock) -> None:
    lies = [fields(1, [5, 2], key="early"), fields(2, [5, 3], key="late")]
    others = [fields(1, [5, 0, 2]), fields(2, [5, 0, 3])]
    db = await victim(list(lies), other=others)
    for key in (LIAR.public_key, OTHER.public_key):
        feed = db._writers.store.feeds[key]  # type: ignore[attr-defined]
        feed.clear(2, 3)
        feed.set_source(Silent())
    begun = trio.current_time()
    for _ in range(3):
        assert len(await db.get("early")) == 1
        assert await db.get("late") == []
    assert trio.current_time() - begun == pytest.approx(ARRIVAL_S)


async def test_two_writers_who_hide_each_other_step_by_step_are_named() -> None:
    """Each entry has seen one more of the other feed than fits: hiding them one by one would take hours."""
    count = 400
    ours = [fields(seq, [0, seq + 1, seq + 1]) for seq in range(1, count)]
    theirs = [fields(seq, [0, seq + 2, seq + 1]) for seq in range(1, count)]
    db = await victim(list(ours), other=theirs)
    with pytest.raises(InvalidEntry, match="each hides the other"):
        await db.get("k")


async def test_long_clocks_lists_and_paths_count_as_memory() -> None:
    blocks = []
    for seq in range(1, 60):
        made = fields(seq, [0, seq + 1, *[0] * 400], key="/".join("abc" * 1000), inflate=seq)
        for number in range(400):
            made.feeds.add(key=number.to_bytes(32, "big"))
        blocks.append(made)
    db = await victim(list(blocks))
    assert [entry async for entry in db.history()]
    entry = next(iter(db._writers._young.values()))
    assert db._writers._young_bytes > 40 * 3000 * 59
    assert entry.size_bytes < db._writers._young_bytes


async def test_two_clocks_that_say_later_of_each_other_are_named() -> None:
    theirs = Fields(key="o", trie=b"", clock=[5, 2, 2], inflate=1)
    for pair in (OWNER, LIAR, OTHER):
        theirs.feeds.add(key=pair.public_key)
    db = await victim([fields(1, [5, 2, 2])], other=[theirs])
    with pytest.raises(InvalidEntry, match="came after the other"):
        await db.get("k")


async def test_block_that_is_missing_is_named() -> None:
    db = await victim([fields(1, [5, 2])])
    with pytest.raises(NotHeld, match=f"block 7 of feed {NAME} is needed, and only 2"):
        await db.checkout(LIAR.public_key + b"\x07")


async def test_list_with_too_many_feeds_is_named() -> None:
    made = Fields(key="k", trie=b"", clock=[], inflate=1)
    for number in range(600):
        made.feeds.add(key=number.to_bytes(32, "big"))
    db = await victim([made])
    with pytest.raises(InvalidEntry, match=f"list of feeds in block 1 of feed {NAME}"):
        await db.get("k")


async def test_feed_that_nobody_authorised_is_not_even_opened() -> None:
    stranger = KeyPair.from_seed(b"s" * 32)
    db = await memory_db(OWNER)
    await db.put("k", b"truth")
    other = await memory_db(OWNER, stranger)
    await other.put("k", b"intruder")
    assert not await other.authorized()
    assert [node.value for node in await other.get("k")] == [b"intruder"]  # its own view
    assert await db.get("k")
    assert stranger.public_key not in db._writers.store.feeds  # type: ignore[attr-defined]
    assert await db.authorize(stranger.public_key)
    assert not await db.authorize(stranger.public_key)
    await db.heads()
    assert stranger.public_key in db._writers.store.feeds  # type: ignore[attr-defined]


async def test_tables_that_multiply_ways_cost_bounded_work() -> None:
    """Each entry points twice at all before it: walked one by one there would be 2 to the power of 24 ways."""
    blocks = []
    for seq in range(1, 25):
        table = bytes.fromhex("4010") + b"".join(bytes([0x02 | (older < seq - 1), older]) for older in range(1, seq))
        blocks.append(fields(seq, [5, seq + 1], key=f"kk/2{'/' * (seq % 2)}", trie=table.hex() if seq > 1 else ""))
    db = await victim(list(blocks))
    await db.list()
    await db.put("kk/2", b"settled")
    assert [node.value for node in await db.get("kk/2")] == [b"settled"]
