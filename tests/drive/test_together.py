"""Several changes at once: none is lost, and of several that make the same thing one does."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import trio

from ddrive.dialect import DWEB
from ddrive.drive.drive import Drive, open_drive
from ddrive.errors import AlreadyExists, DriveError, InvalidKey, NotEmpty, NotFound
from ddrive.ids import PublicKey
from ddrive.store.attached import open_attached
from ddrive.store.store import OwnedStore
from tests.support.answering import answered


@pytest.fixture(params=["one drive", "two clients"])
async def drives(
    request: pytest.FixtureRequest, own: Drive, own_store: OwnedStore, tmp_path: Path
) -> AsyncIterator[Sequence[Drive]]:
    """The drive as two who change it see it: the same object, or each from a process of its own."""
    if request.param == "one drive":
        yield own, own
        return
    socket = tmp_path / "socket"
    async with answered(own_store, socket), open_attached(socket) as first, open_attached(socket) as second:
        yield [await open_drive(client.store(DWEB), key=own.key) for client in (first, second)]


async def at_once(*calls: Callable[[], Awaitable[object]]) -> list[type[DriveError]]:
    """Make all calls at once; return which errors they raised."""
    errors: list[type[DriveError]] = []

    async def run(call: Callable[[], Awaitable[object]]) -> None:
        try:
            await call()
        except DriveError as error:
            errors.append(type(error))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(run, call)
    return errors


async def test_every_line_is_appended(drives: Sequence[Drive]) -> None:
    lines = [b"line %d\n" % number for number in range(20)]
    calls = [partial(drives[number % 2].append_file, "log", line) for number, line in enumerate(lines)]
    assert await at_once(*calls) == []
    assert sorted((await drives[0].read_file("log")).splitlines(keepends=True)) == sorted(lines)


async def test_files_open_for_appending_add_to_what_is_there_when_they_are_closed(drives: Sequence[Drive]) -> None:
    await drives[0].write_file("log", b"start ")
    await drives[1].refresh()
    async with await drives[0].open_file("log", "a") as one, await drives[1].open_file("log", "a+") as other:
        await one.write(b"one ")
        await one.commit()
        await other.write(b"other ")
        await one.write(b"more ")
    assert await drives[0].read_file("log") == b"start one other more "


async def test_contents_and_attributes_do_not_lose_each_other(drives: Sequence[Drive]) -> None:
    one, other = drives
    await one.write_file("f", b"content")
    await other.refresh()
    calls: list[Callable[[], Awaitable[object]]] = [partial(one.append_file, "f", b"L") for _ in range(4)]
    calls += [partial(other.set_stat, "f", mode=0o600), partial(other.set_stat, "f", uid=7)]
    calls += [partial(drives[number % 2].set_metadata, "f", f"user.{number}", b"") for number in range(20)]
    calls.append(partial(other.truncate, "f", 100))
    assert await at_once(*calls) == []
    stat = await one.stat("f")
    assert (stat.mode & 0o777, stat.uid, len(stat.metadata)) == (0o600, 7, 20)
    content = await one.read_file("f")
    assert len(content) >= 100
    assert content.count(b"L") == 4


async def test_a_key_in_hex_digits_is_refused(drives: Sequence[Drive]) -> None:
    store = drives[0]._tree.store
    with pytest.raises(InvalidKey, match="parse_key"):
        await open_drive(store, key=PublicKey("ab" * 32))  # type: ignore[arg-type]


async def test_one_of_several_makes_it(drives: Sequence[Drive]) -> None:
    async def exclusively(drive: Drive) -> None:
        async with await drive.open_file("file", "x") as file:
            await file.write(b"x")

    key = drives[0].key
    for make in (
        exclusively,
        lambda drive: drive.mkdir("directory"),
        lambda drive: drive.symlink("link", "file"),
        lambda drive: drive.mount("nested", key),
        lambda drive: drive.tags.add("tag", 1),
    ):
        assert await at_once(*(partial(make, drives[number % 2]) for number in range(5))) == [AlreadyExists] * 4
    for drive in drives:
        await drive.metadata.refresh()
        assert await drive.names() == ["directory", "file", "link", "nested"]


async def test_one_of_several_moves_or_removes_it(drives: Sequence[Drive]) -> None:
    await drives[0].write_file("d/t", b"t")
    await drives[1].refresh()
    calls = [partial(drives[number % 2].rename, "d/t", f"d/t{number}") for number in range(5)]
    assert await at_once(*calls) == [NotFound] * 4
    [name] = await drives[0].names("d")
    await drives[1].refresh()
    assert await at_once(*(partial(drive.unlink, f"d/{name}") for drive in (*drives, *drives))) == [NotFound] * 3
    await drives[1].refresh()
    assert await at_once(*(partial(drive.rmdir, "d") for drive in drives)) == [NotFound]
    assert await drives[0].names() == []


async def test_a_directory_is_not_removed_under_a_new_file(drives: Sequence[Drive]) -> None:
    one, other = drives
    await one.mkdir("d")
    await other.refresh()
    errors = await at_once(partial(one.mkdir, "d/new"), partial(other.rmdir, "d"), partial(one.write_file, "d/f", b""))
    assert errors in ([], [NotEmpty])
    assert set(await one.names("d")) >= {"f"}


async def test_a_directory_that_loses_its_last_entry_stays(own: Drive) -> None:
    await own.write_file("implicit/f")
    await own.rename("implicit/f", "f")
    assert await own.list("implicit") == []
    await own.rename("f", "implicit/f")
    await own.unlink("implicit/f")
    assert await own.names() == ["implicit"]
