"""A file that is being changed, against plain bytes: whatever is written, cut off, sealed and committed in between."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ddrive.drive.stat import FILE_MODE, Stat
from mountd.draft import Base, Content, Draft
from mountd.spool import CHUNK_BYTES, Spool, open_spools
from tests.support.memory_drive import MemoryDrive, Reader

OWNER = {"key": "00", "dialect": "dweb"}
SIZE_MAX = 5 * CHUNK_BYTES
EDGES = [0, 1, 100, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES + 7]
positions = st.one_of(st.sampled_from(EDGES), st.integers(0, SIZE_MAX))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), positions, st.one_of(st.sampled_from(EDGES[1:]), st.integers(1, SIZE_MAX))),
        st.tuples(st.just("truncate"), positions),
        st.tuples(st.just("refused"), positions),
        st.tuples(st.just("full"), positions, st.integers(1, SIZE_MAX), positions),
        st.tuples(st.just("seal")),
        st.tuples(st.just("commit")),
        st.tuples(st.just("restart")),
    ),
    max_size=12,
)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = open_spools(tmp_path / "spool", OWNER, "/mnt")[0]
    yield opened
    opened.close(remove=True)


class Author:
    """Whose drive the base is in."""

    def __init__(self) -> None:
        self.drive = MemoryDrive()

    def base(self, data: bytes) -> Base | None:
        stat = self.drive.write("/a", data)
        return Base("/a", stat, self.open) if data else None

    async def open(self, path: str, stat: Stat) -> Reader:
        return Reader(self.drive, path, stat)


async def stored(spool: Spool, draft: Draft, offset: int, data: bytes, room: int) -> int:
    """Write while the disk has room for `room` bytes; return how many of `data` were stored."""
    write_some = spool.write_some

    def limited(place: int, piece: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(28, "full")
        written = write_some(place, piece[:room])
        room -= written
        return written

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(spool, "write_some", limited)
        try:
            count = await draft.write(offset, data)
        except OSError:
            return 0
    assert count  # what finds no room at all is told
    return count


def pattern(size: int, salt: int) -> bytes:
    """Return bytes that are never zero and differ from step to step."""
    return bytes((salt * 37 + number) % 255 + 1 for number in range(256)) * (size // 256 + 1)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(base_size=st.sampled_from([0, *EDGES]), steps=steps)
async def test_it_is_what_plain_bytes_would_be(spool: Spool, base_size: int, steps: list[tuple[object, ...]]) -> None:
    author = Author()
    expected = bytearray(pattern(base_size, 0)[:base_size])
    draft = Draft(spool, author.base(bytes(expected)), base_size, base_size)
    sealed: list[tuple[Content, bytes]] = []
    is_committed = False
    for salt, (kind, *rest) in enumerate(steps, 1):
        numbers = [number for number in rest if isinstance(number, int)]
        if kind == "write":
            offset, size = numbers
            data = pattern(size, salt)[:size]
            await draft.write(offset, data)
            expected[len(expected) : offset] = bytes(max(0, offset - len(expected)))
            expected[offset : offset + size] = data
        elif kind == "truncate":
            await draft.truncate(numbers[0])
            del expected[numbers[0] :]
            expected += bytes(numbers[0] - len(expected))
        elif kind == "refused":  # another size, of which sealing is refused
            was_dirty = draft.is_dirty
            await draft.make_ready(numbers[0])
            former = draft.resize(numbers[0])
            draft.unseal(draft.seal())
            draft.take_back(former)
            assert draft.is_dirty == was_dirty
        elif kind == "full":
            offset, size, room = numbers
            data = pattern(size, salt)[:size]
            if count := await stored(spool, draft, offset, data, room):
                expected[len(expected) : offset] = bytes(max(0, offset - len(expected)))
                expected[offset : offset + count] = data[:count]
            assert count == size or room < size + 3 * CHUNK_BYTES
        elif kind == "seal" or (kind == "restart" and draft.is_dirty):
            content = draft.seal()
            content.users = 1
            sealed.append((content, bytes(expected)))
            is_committed = False
        elif kind == "commit" and sealed and not is_committed:
            content, data = sealed[-1]
            draft.rebase(content, author.base(data))
            is_committed = True
        elif kind == "restart" and sealed:
            draft.discard()
            draft = Draft.restored(spool, sealed[-1][0])
            assert await draft.read(0, SIZE_MAX * 2) == sealed[-1][1]
            expected = bytearray(sealed[-1][1])
        assert draft.size == len(expected)
        assert await draft.read(0, SIZE_MAX * 2) == expected
        assert await draft.read(CHUNK_BYTES - 3, 70_000) == expected[CHUNK_BYTES - 3 :][:70_000]
        for content, data in sealed:
            assert await content.read(0, SIZE_MAX * 2) == data
            for start in (0, CHUNK_BYTES):
                blocks = content.blocks(start, content.size)
                assert blocks is None or b"".join(blocks) == data[start:]
    for content, _ in sealed:
        content.drop(done=True)
    draft.discard()
    assert len(spool.slots) == 0


async def test_a_sealed_content_stays_while_the_slots_of_others_are_used_again(spool: Spool) -> None:
    draft = Draft(spool, None, 0, 0)
    await draft.write(0, b"a" * CHUNK_BYTES)
    content = draft.seal()
    content.users = 1
    for number in range(5):
        await draft.write(0, bytes([number]) * CHUNK_BYTES)
        await draft.truncate(0)
    assert await content.read(0, CHUNK_BYTES) == b"a" * CHUNK_BYTES
    assert spool.slots.shorten() == 1


async def test_a_seal_while_a_write_waits_for_the_base_loses_nothing(spool: Spool) -> None:
    author = Author()
    data = pattern(4 * CHUNK_BYTES, 1)[: 4 * CHUNK_BYTES]
    draft = Draft(spool, author.base(data), len(data), len(data))
    await draft.write(10, b"first")
    author.drive.withheld.add("/a")
    expected = bytearray(data)
    expected[10:15] = b"first"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(draft.write, 20, b"y" * (2 * CHUNK_BYTES))
        await trio.testing.wait_all_tasks_blocked()
        sealed = draft.seal()
        author.drive.arrive()
    assert await sealed.read(0, 100) == expected[:100]
    expected[20 : 20 + 2 * CHUNK_BYTES] = b"y" * (2 * CHUNK_BYTES)
    assert await draft.read(0, len(data)) == expected


async def test_a_base_that_is_opened_while_it_is_replaced_is_not_read_later(spool: Spool) -> None:
    author = Author()
    data = pattern(CHUNK_BYTES + 10, 1)[: CHUNK_BYTES + 10]
    may_open = trio.Event()

    async def open_late(path: str, stat: Stat) -> Reader:
        await may_open.wait()
        return await author.open(path, stat)

    stat = author.drive.write("/former", data)
    draft = Draft(spool, Base("/former", stat, open_late), len(data), len(data))
    await draft.write(CHUNK_BYTES, data[CHUNK_BYTES:])
    await draft.write(len(data), b"y" * (2 * CHUNK_BYTES - len(data)))
    sealed = draft.seal()
    sealed.users = 1
    expected = data + b"y" * (2 * CHUNK_BYTES - len(data))
    found: list[bytes] = []

    async def read() -> None:
        found.append(await draft.read(0, 100))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        draft.rebase(sealed, author.base(expected))  # it was committed
        may_open.set()
    assert found == [data[:100]]
    assert await draft.read(0, 2 * CHUNK_BYTES) == expected


async def test_whoever_appends_it_can_read_what_is_in_the_spool(spool: Spool) -> None:
    author = Author()
    data = pattern(3 * CHUNK_BYTES, 1)[: 3 * CHUNK_BYTES]
    draft = Draft(spool, author.base(data), len(data), len(data))
    await draft.write(CHUNK_BYTES, b"n" * (CHUNK_BYTES + 10))
    content = draft.seal()
    assert content.blocks(0, CHUNK_BYTES) is None  # it is in the drive alone
    found = content.blocks(CHUNK_BYTES, content.size)
    assert found is not None
    assert found.sizes == [CHUNK_BYTES, CHUNK_BYTES]
    assert b"".join(found) == b"n" * (CHUNK_BYTES + 10) + data[2 * CHUNK_BYTES + 10 :]


async def test_a_hole_takes_no_room(spool: Spool) -> None:
    draft = Draft(spool, None, 0, 0)
    await draft.truncate(1 << 40)
    await draft.write((1 << 40) - 5, b"end")
    assert len(spool.slots) == 1
    assert await draft.read((1 << 40) - 10, 10) == b"\0\0\0\0\0end\0\0"
    assert draft.runs() == [[(1 << 40) // CHUNK_BYTES - 1, 0, 1]]


async def test_a_full_disk_leaves_the_file_as_it_was(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = Draft(spool, None, 0, 0)
    await draft.write(0, b"x" * 100_000)

    def full(place: int, data: bytes) -> None:
        raise OSError(28, "full")

    with monkeypatch.context() as patched:
        patched.setattr(spool, "write_some", full)
        for call in (draft.write(150_000, b"y" * 300_000), draft.write(50, b"y" * 300_000)):
            with pytest.raises(OSError, match="full"):
                await call
    assert (await draft.read(0, 100_000)) == b"x" * 100_000
    assert len(spool.slots) == 2
    assert Stat(FILE_MODE).size == 0


async def test_a_write_that_finds_room_for_a_part_stores_that(spool: Spool) -> None:
    draft = Draft(spool, None, 0, 0)
    first, second = pattern(300_000, 1)[:300_000], pattern(300_000, 2)[:300_000]
    assert await stored(spool, draft, 0, first, 100_000) == 100_000
    assert await draft.read(0, 400_000) == first[:100_000]
    assert len(spool.slots) == 2
    await draft.write(100_000, first[100_000:])
    sealed = draft.seal()
    assert await stored(spool, draft, 0, second, 100_000) == CHUNK_BYTES  # a chunk that shows is replaced whole
    assert await draft.read(0, 400_000) == second[:CHUNK_BYTES] + first[CHUNK_BYTES:]
    assert await sealed.read(0, 400_000) == first
    assert len(spool.slots) == 6
