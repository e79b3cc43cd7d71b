"""The tables of drives and mounts survive restarts whole, and damaged ones are reported."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from ddrive.dialect import DWEB, HYPERCORE
from ddrive.errors import NotFound, StorageError
from ddrive.ids import PublicKey
from mountd import files
from mountd.drives import DriveTable, KnownDrive
from mountd.mounts import Mount, MountOptions, MountTable

ONE, TWO = PublicKey(bytes(32)), PublicKey(b"\x02" * 32)


def test_drives_are_kept(tmp_path: Path) -> None:
    table = DriveTable(tmp_path / "drives.json")
    table.add(KnownDrive(ONE, DWEB, name="mine", writable=True, seeding=False, content=TWO, created=1.5))
    table.add(KnownDrive(TWO, None))
    table.find(TWO).peers.append("127.0.0.1:1")
    table.save()
    again = DriveTable(tmp_path / "drives.json")
    assert list(again) == list(table)
    assert len(again) == 2
    assert again.find(ONE).url == f"dweb://{ONE.hex()}"
    assert again.find(TWO).url == TWO.hex()
    again.remove(TWO)
    assert DriveTable(tmp_path / "drives.json").get(TWO) is None
    with pytest.raises(NotFound):
        again.find(TWO)


def test_mounts_are_kept(tmp_path: Path) -> None:
    table = MountTable(tmp_path / "mounts.json")
    table.add(Mount("/mnt/a", ONE, HYPERCORE, 7, MountOptions(allow_other=True, timeout_s=2.5), pid=9, started=8))
    table.add(Mount("/mnt/\udcff", TWO, None, state="ok"))
    again = MountTable(tmp_path / "mounts.json")
    assert [mount.to_json() for mount in again] == [mount.to_json() for mount in table]
    assert again.find("/mnt/a").url == f"hyper://{ONE.hex()}+7"
    assert again.find("/mnt/\udcff").state == "starting"
    assert again.of(ONE) == [again.find("/mnt/a")]
    again.remove("/mnt/a")
    with pytest.raises(NotFound):
        MountTable(tmp_path / "mounts.json").find("/mnt/a")


def test_a_mount_is_found_from_what_lies_in_it(tmp_path: Path) -> None:
    table = MountTable(tmp_path / "mounts.json")
    for place in ("/mnt", "/mnt/a"):
        table.add(Mount(place, ONE, DWEB))
    assert table.above("/mnt") is None
    assert table.above("/mnta/x") is None
    assert table.above("/mnt/a") is table.get("/mnt")
    assert table.above("/mnt/a/b/c") is table.get("/mnt/a")


@pytest.mark.parametrize("table", [DriveTable, MountTable])
@pytest.mark.parametrize(
    "text", ["", "{", "{}", "3", "[3]", "[{}]", '[{"key": "xy", "dialect": null, "content": null, "options": {}}]']
)
def test_damage_is_reported(tmp_path: Path, table: type[DriveTable | MountTable], text: str) -> None:
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(StorageError, match=r"table\.json"):
        table(path)


def test_a_failed_write_leaves_the_old_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    files.save_json(path, [1])

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        files.save_json(path, [2])
    assert files.load_json(path, []) == [1]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("table", "one", "other"),
    [
        (DriveTable, KnownDrive(ONE, DWEB, name="former"), KnownDrive(ONE, DWEB, name="newer")),
        (MountTable, Mount("/mnt", ONE, DWEB), Mount("/mnt", TWO, DWEB)),
    ],
)
def test_what_finds_no_room_in_a_table_is_not_in_it(
    tmp_path: Path, table: type[DriveTable | MountTable], one: Any, other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = table(tmp_path / "table.json")
    for before in ([], [one]):
        for each in before:
            kept.add(each)
        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", no_room)
            with pytest.raises(OSError, match="no room"):
                kept.add(other)
        assert list(kept) == before


def test_a_mount_ends_though_there_is_no_room_to_note_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = MountTable(tmp_path / "mounts.json")
    for place in ("/mnt/a", "/mnt/b"):
        table.add(Mount(place, ONE, DWEB))
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", no_room)
        table.remove("/mnt/a")
    assert [mount.mountpoint for mount in table] == ["/mnt/b"]
    table.note_workers()  # as an engine does when it ends
    assert [mount.mountpoint for mount in MountTable(tmp_path / "mounts.json")] == ["/mnt/b"]


def no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, "no room")
