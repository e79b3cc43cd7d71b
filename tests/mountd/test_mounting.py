"""Mounts for real: made, refused, ended, restored; engines and workers are killed in between."""
# ruff: noqa: ASYNC110, ASYNC220, ASYNC221 - engines and mounts are other processes, as are all who look at them

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from ddrive.dialect import DIALECTS
from ddrive.drive import open_drive
from ddrive.errors import DriveError, InvalidPath, MountFailed, NoPeers, NotFound, UnusablePlace
from ddrive.ids import PublicKey
from tests.mountd.engines import Engine, engine, mounts_below, workers_below
from tests.support.until import until

TEXT = b"what is in the file"


class Scene:
    """An engine with a drive that holds one file, and a directory to mount it at."""

    def __init__(self, running: Engine, key: str, place: Path) -> None:
        self.engine, self.key, self.place = running, key, place

    async def mount(self, **more: Any) -> dict[str, Any]:
        made: dict[str, Any] = await self.engine.call(
            "mount", **{"key": self.key, "mountpoint": str(self.place), "wait_s": 0.1} | more
        )
        return made

    async def unmount(self, *, force: bool = False) -> None:
        await self.engine.call("unmount", mountpoint=str(self.place), force=force)

    async def shown(self) -> dict[str, Any]:
        """Return the one mount in the engine's status."""
        (mount,) = (await self.engine.call("status"))["mounts"]
        return dict(mount)

    async def shown_as(self, state: str) -> dict[str, Any]:
        with trio.fail_after(30):
            while (mount := await self.shown())["state"] != state:
                await trio.sleep(0.05)
            return mount

    async def read(self) -> bytes:
        """Return the content of the file, as another process sees it."""
        return await read(self.place / "file")


async def read(path: Path) -> bytes:
    with trio.fail_after(30):
        done = await trio.run_process(["cat", "--", str(path)], capture_stdout=True, check=False)
        return done.stdout


def waits_for(path: Path) -> bytes:
    """Return the content of a file as soon as it can be read: until then nobody has it, but it is never absent."""
    end = time.monotonic() + 30
    while True:
        try:
            return path.read_bytes()
        except OSError as error:
            if error.errno not in (errno.EHOSTUNREACH, errno.ETIMEDOUT) or time.monotonic() > end:
                raise


async def write_drive(running: Engine, dialect: str = "dweb", **files: bytes) -> str:
    made = await running.call("create", dialect=dialect)
    async with running.attached() as attached:
        drive = await open_drive(attached.store(DIALECTS[dialect]), key=PublicKey(bytes.fromhex(made["key"])))
        for name, content in files.items():
            await drive.write_file(f"/{name}", content)
        await drive.close()
    return str(made["key"])


@asynccontextmanager
async def scene(directory: Path) -> AsyncIterator[Scene]:
    place = directory / "a place"
    place.mkdir()
    async with engine(directory / "state") as running:
        yield Scene(running, await write_drive(running, file=TEXT), place)


async def test_a_drive_is_shown_and_taken_away(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        made = await at.mount()
        assert made == await at.shown()
        assert made["mountpoint"] == str(at.place)
        assert (made["state"], made["pinned"], made["version"]) == ("ok", False, 2)
        assert (await at.engine.call("info", path=f"{at.place}/file"))["mounts"] == [str(at.place)]
        assert await at.read() == TEXT
        assert workers_below(tmp_path) == [made["pid"]]
        await at.unmount()
        assert mounts_below(tmp_path) == []
        assert workers_below(tmp_path) == []
        assert (await at.engine.call("status"))["mounts"] == []
        with pytest.raises(NotFound):
            await at.unmount()


async def test_mounting_the_same_again_changes_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        first = await at.mount()
        assert await at.mount() == first
        other = await at.mount(version=1)
        assert (other["pinned"], other["version"], other["url"]) == (True, 1, f"dweb://{at.key}+1")
        assert other["pid"] != first["pid"]
        assert await at.read() == b""
        assert len(mounts_below(tmp_path)) == 1


async def test_a_link_to_a_directory_is_followed(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        (tmp_path / "link").symlink_to(at.place)
        made = await at.mount(mountpoint=str(tmp_path / "link"))
        assert made["mountpoint"] == str(at.place)
        await at.engine.call("unmount", mountpoint=f"{tmp_path}/./link/")
        assert mounts_below(tmp_path) == []


async def test_unusable_places_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        (tmp_path / "file").write_text("")
        for place, error, words in (
            (str(tmp_path / "missing"), NotFound, "mkdir -p"),
            (str(tmp_path / "file"), UnusablePlace, "not a directory"),
            (str(tmp_path), UnusablePlace, "not empty.*nonempty"),
            ("relative", InvalidPath, "absolute"),
            ("/proc", MountFailed, "busy"),
        ):
            with pytest.raises(error, match=words):
                await at.mount(mountpoint=place)
        other = await write_drive(at.engine)
        await at.mount()
        for key, place, words in ((other, at.place, "busy"), (other, at.place / "sub", "inside")):
            with pytest.raises(MountFailed, match=words):
                await at.mount(key=key, mountpoint=str(place))
        assert len((await at.engine.call("status"))["mounts"]) == 1
        assert await at.read() == TEXT


async def test_a_directory_with_something_in_it_is_covered_on_demand(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        (at.place / "below").write_text("")
        for _ in range(2):  # nothing is left behind by the first one
            with pytest.raises(UnusablePlace, match="nonempty"):
                await at.mount()
        assert (await at.engine.call("status"))["mounts"] == []
        made = await at.mount(options={"nonempty": True})
        assert await at.read() == TEXT
        assert await at.mount() == made  # the same again, though it did not say so again
        await at.mount(version=1)
        await at.mount()
        assert await at.read() == TEXT
        await at.engine.kill()
        os.kill(workers_below(tmp_path)[0], signal.SIGKILL)
        await at.engine.start()
        await at.shown_as("ok")
        assert await at.read() == TEXT
        await at.unmount()
        assert [path.name for path in at.place.iterdir()] == ["below"]


async def test_a_mount_of_another_engine_is_left_alone(tmp_path: Path) -> None:
    async with scene(tmp_path) as at, engine(tmp_path / "other") as other:
        await at.mount()
        key = await write_drive(other)
        with pytest.raises(MountFailed, match="busy"):
            await other.call("mount", key=key, mountpoint=str(at.place))
        with pytest.raises(NotFound):
            await other.call("unmount", mountpoint=str(at.place), force=True)
        assert await at.read() == TEXT


async def test_who_keeps_a_mount_busy_is_named(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.mount()
        script = "import sys; file = open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
        holder = subprocess.Popen(
            [sys.executable, "-c", script, at.place / "file"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with holder:
            assert holder.stdout is not None
            assert await trio.to_thread.run_sync(holder.stdout.readline) == b"open\n"
            with pytest.raises(DriveError, match=rf"busy.*pid {holder.pid}.*unmount --force"):
                await at.unmount()
            with pytest.raises(DriveError, match=rf"busy.*pid {holder.pid}.*unmount --force"):
                await at.mount(version=1)  # instead of what is there
            assert await at.read() == TEXT
            await at.unmount(force=True)
            assert mounts_below(tmp_path) == []
            assert workers_below(tmp_path) == []
        assert list(at.place.iterdir()) == []


async def test_a_killed_worker_is_replaced(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        first = await at.mount()
        os.kill(first["pid"], signal.SIGKILL)
        with trio.fail_after(30):
            while (mount := await at.shown())["pid"] == first["pid"] or mount["state"] != "ok":
                await trio.sleep(0.05)
        assert await at.read() == TEXT
        assert len(mounts_below(tmp_path)) == 1


@pytest.mark.parametrize("mount_again", [True, False])
async def test_a_worker_that_keeps_dying_is_given_up(tmp_path: Path, mount_again: bool) -> None:
    async with scene(tmp_path) as at:
        await at.mount()
        with trio.fail_after(60):
            while (await at.shown())["state"] != "dead":
                for pid in workers_below(tmp_path):
                    os.kill(pid, signal.SIGKILL)
                await trio.sleep(0.1)
        assert set(mounts_below(tmp_path)) == {str(at.place)}, "nobody writes into the directory below"
        if mount_again:
            assert await at.mount() == await at.shown_as("ok")
            assert await at.read() == TEXT
            assert len(mounts_below(tmp_path)) == 1
        else:
            await at.engine.kill(signal.SIGTERM)
            assert mounts_below(tmp_path) == []


async def test_a_worker_that_is_killed_again_and_again_comes_back_each_time(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        pid = (await at.mount())["pid"]
        for _ in range(8):  # more than starts may fail
            os.kill(pid, signal.SIGKILL)
            with trio.fail_after(10):
                while (shown := await at.shown())["state"] != "ok" or shown["pid"] == pid:
                    await trio.sleep(0.05)
            pid = shown["pid"]
            assert await at.read() == TEXT


async def test_a_mount_that_others_end_is_forgotten(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.mount()
        subprocess.run(["fusermount3", "-u", str(at.place)], check=True)
        with trio.fail_after(30):
            while (await at.engine.call("status"))["mounts"]:
                await trio.sleep(0.05)
        assert workers_below(tmp_path) == []
        assert (await at.mount())["state"] == "ok"


async def test_what_others_have_just_ended_is_mounted_again(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        first = await at.mount()
        subprocess.run(["fusermount3", "-u", str(at.place)], check=True)
        assert (await at.mount())["pid"] != first["pid"]  # though the engine may not have noticed the end yet
        assert len(mounts_below(tmp_path)) == 1
        assert await at.read() == TEXT


async def test_a_mount_outlives_a_killed_engine(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        made = await at.mount()
        assert await at.read() == TEXT
        await at.engine.kill()
        assert await at.read() == TEXT
        await at.engine.start()
        assert (await at.shown_as("ok"))["pid"] == made["pid"]
        assert await at.mount() == await at.shown()
        assert await at.read() == TEXT
        await at.unmount()
        assert workers_below(tmp_path) == []


@pytest.mark.parametrize("mount_again", [False, True])
async def test_engine_and_worker_killed(tmp_path: Path, mount_again: bool) -> None:
    async with scene(tmp_path) as at:
        made = await at.mount()
        await at.engine.kill()
        os.kill(made["pid"], signal.SIGKILL)
        await until(lambda: not workers_below(tmp_path))
        assert await at.read() == b""
        await at.engine.start()
        assert (await (at.mount() if mount_again else at.shown_as("ok")))["pid"] != made["pid"]
        assert await at.read() == TEXT
        assert len(mounts_below(tmp_path)) == 1


async def test_a_clean_end_takes_mounts_along_and_brings_them_back(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.mount()
        assert await at.engine.kill(signal.SIGTERM) == 0
        assert mounts_below(tmp_path) == []
        assert workers_below(tmp_path) == []
        assert list(at.place.iterdir()) == []
        await at.engine.start()
        assert await at.read() == TEXT  # from the engine's first answer on
        assert (await at.shown())["state"] == "ok"


async def test_a_busy_mount_does_not_keep_the_engine(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.mount()
        with subprocess.Popen(["sleep", "60"], cwd=at.place) as holder:
            try:
                await at.engine.call("stop")
                assert mounts_below(tmp_path) == []
                assert await at.engine.ended() == 0
                assert workers_below(tmp_path) == []
            finally:
                holder.kill()


async def test_what_a_dead_engine_left_at_a_place_can_be_unmounted(tmp_path: Path) -> None:
    async with scene(tmp_path) as at, engine(tmp_path / "other") as other:
        made = await at.mount()
        await at.engine.kill()
        os.kill(made["pid"], signal.SIGKILL)
        await until(lambda: not workers_below(tmp_path))
        assert mounts_below(tmp_path) == [str(at.place)]
        await other.call("unmount", mountpoint=str(at.place))
        assert mounts_below(tmp_path) == []


@pytest.mark.parametrize("dialect", ["dweb", "hypercore"])
async def test_a_drive_that_nobody_has_yet_fills_in(tmp_path: Path, dialect: str) -> None:
    place = tmp_path / "place"
    place.mkdir()
    async with engine(tmp_path / "author") as author, engine(tmp_path / "reader") as reader:
        key = await write_drive(author, dialect, file=TEXT)
        at = Scene(reader, key, place)
        with pytest.raises(NoPeers):
            await at.mount(options={"require_peer": True})
        assert (await reader.call("status"))["mounts"] == []
        made = await at.mount(options={"timeout_s": 1})
        assert (made["state"], made["url"]) == ("ok", key)
        os.stat(place)
        with pytest.raises(OSError, match=r"No route|timed out"):
            await trio.to_thread.run_sync(os.listdir, place)
        await reader.call("peer.add", address=(await author.call("status"))["listen"][0])
        assert await trio.to_thread.run_sync(waits_for, place / "file") == TEXT
        shown = await at.shown_as("ok")
        assert (shown["url"], shown["pid"]) == (f"{DIALECTS[dialect].url_scheme}://{key}", made["pid"])


async def test_a_copied_state_directory_leaves_the_mounts_of_the_original_alone(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        made = await at.mount()
        shutil.copytree(at.engine.state, tmp_path / "copy", ignore=shutil.ignore_patterns("*.sock"))
        async with engine(tmp_path / "copy") as copy:
            assert (await copy.call("status"))["mounts"] == []
            with pytest.raises(NotFound):
                await copy.call("unmount", mountpoint=str(at.place), force=True)
            await copy.call("stop")
            assert await copy.ended() == 0
            assert await at.read() == TEXT
            assert (await at.shown())["pid"] == made["pid"]
            await at.unmount()
            await copy.start()
            await copy.call("mount", key=at.key, mountpoint=str(at.place), wait_s=0.1)
            await at.engine.kill()
            await at.engine.start()
            assert (await at.engine.call("status"))["mounts"] == []
            assert await at.read() == TEXT


async def test_a_dead_mount_is_unmounted_without_ending_that_of_another_engine(tmp_path: Path) -> None:
    async with scene(tmp_path) as at, engine(tmp_path / "other") as other:
        await at.mount()
        await at.engine.kill(signal.SIGTERM)
        await other.call("mount", key=await write_drive(other, file=b"other"), mountpoint=str(at.place), wait_s=0.1)
        await at.engine.start()
        assert (await at.shown())["state"] == "dead"
        await at.unmount()
        assert (await at.engine.call("status"))["mounts"] == []
        assert await at.read() == b"other"
