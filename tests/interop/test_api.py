"""What the library's methods write is read by npm, and what npm changes in a drive of ours is read by us."""

import os
from pathlib import Path

import pytest

import ddrive
from ddrive.drive import Drive
from tests.support import npm

both = pytest.mark.parametrize("dialect", npm.DIALECTS)


async def contents(drive: Drive) -> dict[str, bytes]:
    """Return the bytes of all files."""
    return {f"/{path}": await drive.read_file(path) async for path, stat in drive.walk() if stat.is_file}


async def change(drive: Drive) -> None:
    """Change a drive in every way that the library has."""
    data = os.urandom(200_000)
    await drive.write_file("plain", data, mode=0o600, uid=7, gid=8)
    async with drive.write_stream("streamed", mode=0o755) as stream:
        for start in range(0, len(data), 30_000):
            await stream.send_all(data[start : start + 30_000])
    await drive.copy("plain", "dir/copy")
    async with await drive.open_file("plain", "r+") as file:
        await file.write_at(70_000, b"in the middle")
        await file.write_at(250_000, b"behind a gap")
    await drive.append_file("streamed", b"the end")
    await drive.write_file("cut", data)
    await drive.truncate("cut", 65_536)
    await drive.write_file("emptied", data)
    await drive.truncate("emptied")
    await drive.set_metadata("dir/copy", "user.one", b"1")
    await drive.set_metadata("dir/copy", "user.two", b"2")
    await drive.remove_metadata("dir/copy", "user.one")
    await drive.symlink("link", "dir/copy")
    await drive.copy("dir", "other")
    await drive.rename("other", "moved")
    await drive.tags.add("first")


@both
async def test_npm_reads_what_every_method_writes(dialect: str, tmp_path: Path) -> None:
    async with ddrive.open_store(tmp_path / "store", ddrive.DIALECTS[dialect]) as store:
        drive = await ddrive.open_drive(store, create=True)
        await change(drive)
        stats = {f"/{path}": stat async for path, stat in drive.walk()}
        wanted = await contents(drive)
        tags = await drive.tags.all()
    seen = npm.dump(dialect, tmp_path / "store", drive.key.hex())["manifest"]
    assert seen.keys() == stats.keys()
    for path, data in wanted.items():
        assert (seen[path]["size"], seen[path]["sha256"]) == (len(data), npm.sha256(data)), path
        assert (seen[path]["mode"], seen[path]["uid"]) == (stats[path].mode & 0o7777, stats[path].uid)
    assert seen["/link"] == {"type": "link", "target": "dir/copy"}
    with npm.serving(dialect, tmp_path / "store", drive.key.hex()) as peer:
        about = peer.ask(do="about", path="/moved/copy")
        assert (about["offset"], about["blocks"]) == (stats["/moved/copy"].offset, stats["/moved/copy"].blocks)
        assert about["metadata"] == {"user.two": "2"}
        assert peer.ask(do="tags")["tags"] == tags


@both
async def test_npm_changes_our_drive_and_we_read_it(dialect: str, tmp_path: Path) -> None:
    async with ddrive.open_store(tmp_path / "store", ddrive.DIALECTS[dialect]) as store:
        drive = await ddrive.open_drive(store, create=True)
        await drive.batch([ddrive.NewEntry(f"many/{number}", ddrive.Stat(0o100644)) for number in range(50)])
        await change(drive)
        version, before = drive.version, await contents(drive)
    with npm.serving(dialect, tmp_path / "store", drive.key.hex()) as peer:
        for step in (
            {"do": "file", "path": "/new/file", "seed": "new", "size": 100_000},
            {"do": "copy", "path": "/plain", "to": "/renamed/plain"},
            {"do": "unlink", "path": "/plain"},
            *({"do": "unlink", "path": f"/many/{number}"} for number in range(0, 50, 3)),
            {"do": "metadata", "path": "/streamed", "name": "user.npm", "value": "theirs"},
        ):
            peer.play(step)
        new = peer.ask(do="about", path="/new/file")
    async with ddrive.open_store(tmp_path / "store", ddrive.DIALECTS[dialect]) as store:
        drive = await ddrive.open_drive(store)
        now = await contents(drive)
        added = now.pop("/new/file")
        assert len(added) == new["size"] == 100_000
        wanted = {path: data for path, data in before.items() if path not in {f"/many/{n}" for n in range(0, 50, 3)}}
        wanted["/renamed/plain"] = wanted.pop("/plain")
        assert now == wanted
        assert await drive.names("many") == sorted(str(number) for number in range(50) if number % 3)
        assert (await drive.stat("streamed")).metadata == {"user.npm": b"theirs"}
        assert await contents(drive.checkout(version)) == before
        changed = {str(change.path): change.kind async for change in drive.diff(version)}
        assert (changed["plain"], changed["renamed/plain"], changed["many/0"]) == ("del", "put", "del")
        await drive.write_file("after", b"ours again")
    seen = npm.dump(dialect, tmp_path / "store", drive.key.hex())["manifest"]
    assert seen["/after"]["size"] == 10
    assert "/plain" not in seen
