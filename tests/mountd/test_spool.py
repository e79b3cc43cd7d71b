"""Spool directories: whose they are, who may take them over, and when their slots are used again."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mountd import journal as journals
from mountd import spool as spool_module
from mountd.spool import CHUNK_BYTES, Slots, open_spools

OWNER = {"key": "00", "dialect": "dweb"}


def test_a_spool_of_a_dead_worker_is_taken_over_once(tmp_path: Path) -> None:
    first = open_spools(tmp_path, OWNER, "/mnt")
    first[0].journal.changed([[7, "/a"]])
    second = open_spools(tmp_path, OWNER, "/mnt")
    assert [spool.directory for spool in second] != [spool.directory for spool in first]
    first[0].close(remove=False)
    stranger = open_spools(tmp_path, OWNER | {"key": "01"}, "/mnt")
    assert stranger[0].directory not in [first[0].directory, second[0].directory]
    again = open_spools(tmp_path, OWNER, "/mnt")
    assert [spool.directory for spool in again] == [first[0].directory]
    assert again[0].replayed == [[7, "/a"]]
    assert again[0].serial() == 8
    for spool in (*second, *stranger, *again):
        spool.close(remove=True)
    assert list(tmp_path.iterdir()) == []


def test_a_spool_waits_for_the_mount_that_left_it(tmp_path: Path) -> None:
    here = open_spools(tmp_path, OWNER, "/a")
    there = open_spools(tmp_path, OWNER, "/b")
    here[0].journal.changed([[1, "/here"]])
    there[0].journal.changed([[1, "/there"]])
    for spool in (*here, *there):
        spool.close(remove=False)
    again = open_spools(tmp_path, OWNER, "/b", ["/a", "/c"])
    assert [spool.replayed for spool in again] == [[[1, "/there"]]]
    third = open_spools(tmp_path, OWNER, "/c", ["/a", "/b"])
    assert [spool.replayed for spool in third] == [[]]
    for spool in (*again, *third):
        spool.close(remove=False)
    first, *others = open_spools(tmp_path, OWNER, "/b")  # nothing is mounted at /a any more
    assert first.replayed == [[1, "/there"]]
    assert sorted(spool.replayed for spool in others) == [[], [[1, "/here"]]]
    for spool in (first, *others):
        spool.close(remove=True)


def test_a_killed_process_leaves_its_spool_unlocked(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from mountd.spool import open_spools\n"
        f"spool = open_spools(Path(sys.argv[1]), {OWNER!r}, '/mnt')[0]\n"
        "spool.write(0, b'data'); spool.journal.changed([[1, '/a']])\n"
        "os.kill(os.getpid(), 9)"
    )
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", program, tmp_path], cwd=root).returncode == -9
    spool = open_spools(tmp_path, OWNER, "/mnt")[0]
    assert spool.replayed == [[1, "/a"]]
    assert spool.read(0, 10) == b"data" + bytes(6)
    assert spool.directory.stat().st_mode & 0o077 == 0
    spool.close(remove=True)


def test_a_spool_without_anything_recorded_is_removed(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path\n"
        "from mountd.journal import Journal; from mountd.spool import open_spools\n"
        f"spool = open_spools(Path(sys.argv[1]), {OWNER!r}, '/mnt')[0]\n"
        "spool.write(0, b'data'); spool.journal.changed([[1, '/a']])\n"
        "Journal._begin = lambda journal: os.kill(os.getpid(), 9)\n"
        "spool.journal.restart()"
    )
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", program, tmp_path], cwd=root).returncode == -9
    (left,) = tmp_path.iterdir()
    spool = open_spools(tmp_path, OWNER | {"key": "01"}, "/mnt")[0]
    assert list(tmp_path.iterdir()) == [spool.directory] != [left]
    spool.close(remove=True)


def test_a_spool_of_which_a_power_failure_left_only_zeros_is_removed(tmp_path: Path) -> None:
    open_spools(tmp_path, OWNER, "/mnt")[0].close(remove=False)
    (left,) = tmp_path.iterdir()
    (left / "journal").write_bytes(bytes((left / "journal").stat().st_size))
    spool = open_spools(tmp_path, OWNER, "/mnt")[0]
    assert list(tmp_path.iterdir()) == [spool.directory] != [left]
    spool.close(remove=True)


def test_a_spool_of_another_drive_is_never_locked_for_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_spools(tmp_path, OWNER, "/mnt")[0].close(remove=False)
    (left,) = tmp_path.iterdir()
    looked_at: list[Path] = []
    locked = spool_module._locked

    def noting(directory: Path, *, create: bool = False) -> int | None:
        looked_at.append(directory)
        return locked(directory, create=create)

    monkeypatch.setattr(spool_module, "_locked", noting)
    stranger = open_spools(tmp_path, OWNER | {"key": "01"}, "/mnt")[0]
    assert looked_at == [stranger.directory] != [left]
    ours = open_spools(tmp_path, OWNER, "/mnt")[0]
    assert ours.directory == left
    for spool in (stranger, ours):
        spool.close(remove=True)


def test_slots_that_a_record_names_wait_until_the_disk_knows_better() -> None:
    slots = Slots()
    first, second, third = slots.take(), slots.take(), slots.take()
    slots.hold([second])
    slots.drop([first, second])
    assert slots.take() == first
    slots.drop_superseded([second])
    slots.drop_done([third])
    assert slots.take() == 3
    with slots.leaving(all_data=False):
        assert slots.take() == 4
    assert slots.take() == third
    with slots.leaving(all_data=True):
        assert slots.take() == 5
    assert slots.take() == second


def test_slots_of_a_sync_that_failed_wait_for_another() -> None:
    slots = Slots()
    first, second = slots.take(), slots.take()
    slots.drop_done([first])
    slots.drop_superseded([second])
    with pytest.raises(OSError, match="full"), slots.leaving(all_data=True):
        raise OSError("the disk is full")
    assert slots.take() == 2
    with slots.leaving(all_data=True):
        pass
    assert [slots.take(), slots.take()] == [first, second]


def test_slots_that_leave_while_the_file_is_shortened_are_given_out_once() -> None:
    slots = Slots()
    kept, done, superseded = slots.take(), slots.take(), slots.take()
    slots.drop_done([done])
    slots.drop_superseded([superseded])
    with slots.leaving(all_data=True):
        assert slots.shorten() == 3  # the disk may still count on them
    taken = [slots.take() for _ in range(5)]
    assert len({kept, *taken}) == 6


def test_slots_that_a_dead_worker_used_last_wait_until_the_disk_knows_better() -> None:
    slots = Slots()
    slots.hold([1, 3])  # what counts
    slots.seal_gaps()
    assert slots.take() == 4
    with slots.leaving(all_data=True):
        pass
    assert [slots.take(), slots.take(), slots.take()] == [0, 2, 5]


async def test_what_the_worker_after_another_boot_records_outlives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = tmp_path / "boot"
    monkeypatch.setattr(journals, "_BOOT_ID", boot)
    for number, name in enumerate(("first", "second", "second"), 1):
        boot.write_text(name)
        spool = open_spools(tmp_path / "spool", OWNER, "/mnt")[0]
        assert [change[0] for change in spool.replayed] == list(range(1, number))
        spool.journal.changed([[spool.serial(), f"/{number}"]])
        if name == "first":
            await spool.sync()
        spool.close(remove=False)


async def test_a_slot_that_is_replaced_during_a_sync_waits_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = open_spools(tmp_path, OWNER, "/mnt")[0]
    slot = spool.slots.take()
    sync = os.fdatasync

    def replaced_meanwhile(descriptor: int) -> None:
        if spool.slots.superseded == 0 and len(spool.slots):
            spool.slots.drop_superseded([slot])
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", replaced_meanwhile)
    await spool.sync()
    assert spool.slots.take() != slot  # what replaced it may be newer than the sync
    spool.slots.drop([1])
    await spool.sync()
    assert spool.slots.take() == slot
    spool.close(remove=True)


async def test_nothing_is_left_on_the_disk_when_nothing_counts(tmp_path: Path) -> None:
    spool = open_spools(tmp_path, OWNER, "/mnt")[0]
    slot = spool.slots.take()
    spool.write(slot * CHUNK_BYTES, b"x" * CHUNK_BYTES)
    spool.journal.changed([[spool.serial(), "/a"]])
    await spool.sync()
    await spool.settle(lambda: [[1, "/a"]], empty=False)
    assert (spool.directory / "data").stat().st_size == CHUNK_BYTES
    spool.slots.drop_done([slot])
    size = spool.journal.size
    await spool.settle(list, empty=True)
    assert (spool.directory / "data").stat().st_size == 0
    assert spool.journal.size < size
    spool.close(remove=True)


async def test_a_spool_that_finds_no_room_is_made_when_something_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(journal: journals.Journal, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "full")

    descriptors = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patched:
        patched.setattr(journals.Journal, "_write", full)
        spool = open_spools(tmp_path / "spool", OWNER, "/mnt")[0]
        for number in range(3):
            with pytest.raises(OSError, match="full"):
                spool.journal.changed([[spool.serial(), f"/{number}"]])
            with pytest.raises(OSError, match="full"):
                spool.write(0, b"x")
        await spool.sync(give_back=True)
        await spool.sync_journal()
        assert not spool.is_made
        assert list((tmp_path / "spool").iterdir()) == []
        assert len(os.listdir("/proc/self/fd")) == descriptors
    spool.journal.changed([[spool.serial(), "/a"]])
    spool.write(spool.slots.take(), b"x")
    await spool.sync()
    spool.close(remove=False)
    again = open_spools(tmp_path / "spool", OWNER, "/mnt")[0]
    assert again.directory == spool.directory
    assert [change[1] for change in again.replayed] == ["/a"]
    assert again.read(0, 1) == b"x"
    again.close(remove=True)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_disk_that_refuses_what_is_too_much_takes_what_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = open_spools(tmp_path, OWNER, "/mnt")[0]
    pwrite = os.pwrite

    def strict(descriptor: int, data: bytes, place: int) -> int:
        if place + len(data) > 2 * CHUNK_BYTES:
            raise OSError(errno.ENOSPC, "full")
        return pwrite(descriptor, data, place)

    monkeypatch.setattr(os, "pwrite", strict)
    with pytest.raises(OSError, match="full"):
        spool.write(0, b"x" * 3 * CHUNK_BYTES)
    assert spool.has(0, 2 * CHUNK_BYTES)
    assert spool.write_some(0, b"y" * 3 * CHUNK_BYTES) == CHUNK_BYTES
    spool.close(remove=True)
