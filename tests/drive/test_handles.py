"""Open files and streams: reading and writing anywhere, and what becomes of it when the file is closed."""

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ddrive.drive import handles
from ddrive.drive.drive import Drive
from ddrive.drive.handles import FileHandle
from ddrive.drive.streams import FileSendStream
from ddrive.errors import AlreadyExists, BadHandle, IsADirectory, NotADirectory, NotFound, NotWritable


@pytest.fixture(params=[4 * 1024 * 1024, 16], ids=["in memory", "on disk"])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spools of both kinds."""
    monkeypatch.setattr(handles, "MEMORY_BYTES", request.param)


async def test_what_is_written_is_there_when_the_file_is_closed(own: Drive, memory: None) -> None:
    async with await own.open_file("a/b.txt", "w", permissions=0o600, metadata={"user.x": b"y"}) as file:
        assert await file.write(b"hello ") == 6
        await file.write(b"world")
        assert (file.size, file.tell()) == (11, 11)
        assert not await own.exists("a/b.txt")
        version = own.version
    assert own.version == version + 1
    assert await own.read_file("a/b.txt") == b"hello world"
    stat = await own.stat("a/b.txt")
    assert (stat.mode, stat.size, dict(stat.metadata)) == (0o100600, 11, {"user.x": b"y"})


async def test_positions(own: Drive, memory: None) -> None:
    async with await own.open_file("f", "w+") as file:
        await file.write_at(30, b"end")
        assert file.tell() == 0
        await file.write(b"start")
        assert file.seek(-3, 2) == 30
        assert await file.read() == b"end"
        assert file.seek(1) == 1
        assert file.seek(1, 1) == 2
        assert await file.read(3) == b"art"
        assert await file.read_at(29, 100) == b"\0end"
        assert await file.truncate(31) == 31
    assert await own.read_file("f") == b"start" + bytes(25) + b"e"


async def test_an_existing_file_keeps_its_attributes(own: Drive, memory: None) -> None:
    await own.write_file("f", b"0123456789" * 10, mode=0o640, uid=7, metadata={"a": b"b"})
    async with await own.open_file("f", "r+") as file:
        assert await file.read(4) == b"0123"
        await file.write(b"xx")
        await own.set_stat("f", mode=0o600)
    assert (await own.read_file("f"))[:10] == b"0123xx6789"
    stat = await own.stat("f")
    assert (stat.mode & 0o777, stat.uid, dict(stat.metadata), stat.size) == (0o600, 7, {"a": b"b"}, 100)


async def test_appending(own: Drive, memory: None) -> None:
    async with await own.open_file("log", "a") as file:
        await file.write(b"one ")
    async with await own.open_file("log", "a+") as file:
        file.seek(0)
        await file.write(b"two ")
        assert await file.read_at(0, 8) == b"one two "
        with pytest.raises(BadHandle):
            await file.write_at(0, b"x")
    await own.append_file("log", b"three")
    assert await own.read_file("log") == b"one two three"


async def test_a_file_that_is_only_read_makes_no_version(own: Drive) -> None:
    await own.write_file("f", b"content")
    version = own.version
    for mode in ("r", "r+", "a+"):
        async with await own.open_file("f", mode) as file:
            assert await file.read() == b"content"
    assert own.version == version


async def test_commit_stores_what_was_written_so_far(own: Drive) -> None:
    async with await own.open_file("f", "w") as file:
        await file.write(b"one")
        assert (await file.commit()).size == 3
        assert await own.read_file("f") == b"one"
        version = own.version
        await file.commit()
        assert own.version == version
        await file.write(b" two")
    assert await own.read_file("f") == b"one two"


async def test_an_exception_stores_nothing(own: Drive, memory: None) -> None:
    await own.write_file("f", b"before")
    version = own.version

    async def fail(file: FileHandle | FileSendStream) -> None:
        async with file:
            await (file.write(b"x" * 100) if isinstance(file, FileHandle) else file.send_all(b"x" * 100))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail(await own.open_file("f", "r+"))
    with pytest.raises(RuntimeError):
        await fail(own.write_stream("f"))
    assert (own.version, await own.read_file("f")) == (version, b"before")


async def test_cancelling_stores_nothing(own: Drive) -> None:
    with trio.CancelScope() as scope:
        async with await own.open_file("f", "w") as file:
            await file.write(b"x")
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert not await own.exists("f")


async def test_modes_are_kept_to(own: Drive) -> None:
    await own.write_file("f", b"abc")
    await own.mkdir("d")
    async with await own.open_file("f") as file:
        with pytest.raises(BadHandle):
            await file.write(b"x")
        with pytest.raises(BadHandle):
            await file.truncate(0)
    with pytest.raises(BadHandle):
        await file.read()
    async with await own.open_file("f", "wb") as file:
        with pytest.raises(BadHandle):
            await file.read()
    assert await own.read_file("f") == b""
    for path, mode, error in (
        ("f", "x", AlreadyExists),
        ("missing", "r", NotFound),
        ("missing", "r+", NotFound),
        ("d", "r", IsADirectory),
        ("d", "w", IsADirectory),
        ("f/below", "w", NotADirectory),
        ("f", "rw", ValueError),
    ):
        with pytest.raises(error):
            await own.open_file(path, mode)
    with pytest.raises(NotWritable):
        await own.snapshot().open_file("f", "a")


async def test_links_are_followed(own: Drive) -> None:
    await own.write_file("real", b"1")
    await own.symlink("link", "real")
    await own.append_file("link", b"2")
    assert (await own.read_file("real"), await own.read_link("link")) == (b"12", "real")


async def test_truncate_both_ways(own: Drive) -> None:
    await own.write_file("f", b"0123456789")
    assert (await own.truncate("f", 4)).size == 4
    assert (await own.truncate("f", 6)).size == 6
    assert await own.read_file("f") == b"0123\0\0"
    assert (await own.truncate("f")).size == 0
    assert await own.read_file("f") == b""


async def test_two_open_files_do_not_disturb_each_other(own: Drive) -> None:
    async with await own.open_file("a", "w") as one, await own.open_file("b", "w") as two:
        for _ in range(100):
            await one.write(b"a" * 1000)
            await two.write(b"b" * 1000)
    assert await own.read_file("a") == b"a" * 100_000
    assert await own.read_file("b") == b"b" * 100_000


async def test_streams(own: Drive) -> None:
    data = bytes(range(256)) * 4000
    async with own.write_stream("f", mode=0o755) as sink:
        for start in range(0, len(data), 70_000):
            await sink.send_all(data[start : start + 70_000])
            await sink.wait_send_all_might_not_block()
    with pytest.raises(trio.ClosedResourceError):
        await sink.send_all(b"x")
    assert (await own.stat("f")).mode == 0o100755
    async with own.read_stream("f") as source:
        assert b"".join([chunk async for chunk in source]) == data
    with pytest.raises(trio.ClosedResourceError):
        await source.receive_some()
    for start, end in ((0, 0), (5, 5), (1, 2), (65_530, 65_550), (1_000_000, None), (2_000_000, None), (0, 9**9)):
        async with own.read_stream("f", start, end) as source:
            assert b"".join([chunk async for chunk in source]) == data[start:end]
    async with own.read_stream("f") as source:
        assert await source.receive_some(10) == data[:10]
        assert await source.receive_some(10) == data[10:20]


async def test_an_empty_write_stream_makes_an_empty_file(own: Drive) -> None:
    async with own.write_stream("f"):
        pass
    assert (await own.stat("f")).size == 0


step = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 60), st.binary(max_size=40)),
    st.tuples(st.just("truncate"), st.integers(0, 80), st.just(b"")),
    st.tuples(st.just("read"), st.integers(0, 80), st.just(b"")),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(step, max_size=20), st.sampled_from([16, 64, 1000]))
def test_a_spool_is_like_a_file(steps: list[tuple[str, int, bytes]], memory_bytes: int) -> None:
    async def run() -> None:
        spool, wanted = handles.Spool(), bytearray()
        for what, place, data in steps:
            if what == "write" and data:
                wanted.extend(bytes(max(0, place - len(wanted))))
                wanted[place : place + len(data)] = data
                await spool.write(place, data)
            elif what == "truncate":
                del wanted[place:]
                wanted.extend(bytes(place - len(wanted)))
                await spool.truncate(place)
            else:
                assert await spool.read(place, 30) == wanted[place : place + 30]
        assert b"".join([bytes(block) async for block in spool.blocks()]) == wanted
        spool.close()

    saved, handles.MEMORY_BYTES = handles.MEMORY_BYTES, memory_bytes
    try:
        trio.run(run)
    finally:
        handles.MEMORY_BYTES = saved
