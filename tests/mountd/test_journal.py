"""What a worker that was killed leaves to the next one, at whatever byte its journal ends."""

import os
import resource
from pathlib import Path

import pytest

from mountd import journal as journals
from mountd.journal import Attempt, Journal, Move, replay

OWNER = {"key": "00", "dialect": "dweb"}


def serials(path: Path) -> list[int]:
    found, _ = replay(path)
    assert found is not None
    return [change[0] for change in found.changes]


def test_changes_that_are_not_done_come_back_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", OWNER)
    journal.changed([[1, "/a"], [2, "/b", b"stat", None, [], None]])
    journal.changed([[3, "/\udcff"]])
    journal.done([1])
    found, length = replay(tmp_path / "j")
    assert found is not None
    assert found.changes == [[2, "/b", b"stat", None, [], None], [3, "/\udcff"]]
    assert found.owner.items() >= OWNER.items()
    assert length == journal.size == (tmp_path / "j").stat().st_size


def test_a_journal_may_end_anywhere(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", OWNER)
    ends = [journal.size]
    for serial in range(1, 4):
        journal.changed([[serial, "/a"], [10 + serial, "/b"]])
        ends.append(journal.size)
    whole = (tmp_path / "j").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:length])
        found, kept = replay(tmp_path / "cut")
        count = sum(end <= length for end in ends)
        assert kept == (ends[count - 1] if count else 0)
        assert found is None if not count else len(found.changes) == (2 if count > 1 else 0)
    for damaged in range(ends[0], len(whole)):
        (tmp_path / "cut").write_bytes(whole[:damaged] + bytes([whole[damaged] ^ 1]) + whole[damaged + 1 :])
        found, kept = replay(tmp_path / "cut")
        assert found is not None
        assert kept == max(end for end in ends if end <= damaged)


@pytest.mark.parametrize("zeros", [1, 7, 8, 9, 4096])
def test_a_power_failure_may_leave_zeros_at_the_end(tmp_path: Path, zeros: int) -> None:
    journal = Journal(tmp_path / "j", OWNER)
    journal.changed([[1, "/a"]])
    whole = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(whole + bytes(zeros))
    found, kept = replay(tmp_path / "j")
    assert (found is not None and found.changes, kept) == ([[1, "/a"]], len(whole))
    (tmp_path / "j").write_bytes(bytes(zeros))
    assert replay(tmp_path / "j") == (None, 0)


def test_what_is_done_takes_older_changes_of_the_path_along(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", OWNER)
    for serial in (1, 2, 3):
        journal.changed([[serial, "/a"]])
    journal.changed([[4, "/b"]])
    journal.done([2])
    assert serials(tmp_path / "j") == [3, 4]
    journal.done([3])
    assert serials(tmp_path / "j") == [4]


def test_after_another_boot_only_what_was_synced_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "j", OWNER)
    journal.changed([[1, "/a"], [2, "/b"]])
    begun = journal.mark()
    journal.changed([[3, "/a"]])  # while the data was on its way
    journal.synced(begun)
    journal.done([2])
    assert serials(tmp_path / "j") == [3]
    (tmp_path / "boot").write_text("another")
    monkeypatch.setattr(journals, "_BOOT_ID", tmp_path / "boot")
    assert serials(tmp_path / "j") == [1]


def test_what_follows_another_boot_counts_and_what_was_lost_stays_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = tmp_path / "boot"
    monkeypatch.setattr(journals, "_BOOT_ID", boot)
    boot.write_text("first")
    journal = Journal(tmp_path / "j", OWNER)
    journal.changed([[1, "/a"]])
    journal.synced(journal.mark())
    journal.changed([[2, "/a"]])  # its data is lost
    boot.write_text("second")
    for _ in range(2):
        found, length = replay(tmp_path / "j")
        assert found is not None
        assert [change[0] for change in found.changes] == [1]
        journal = Journal(tmp_path / "j", OWNER)
        journal.cut(length)
    assert found.survived is not None
    journal.booted(found.survived)
    journal.changed([[3, "/b"]])
    assert serials(tmp_path / "j") == [1, 3]  # its writer was killed
    journal.synced(journal.mark())
    journal.changed([[4, "/c"]])
    assert serials(tmp_path / "j") == [1, 3, 4]
    boot.write_text("third")
    assert serials(tmp_path / "j") == [1, 3]


def test_a_sync_says_nothing_of_a_journal_that_has_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "j", OWNER)
    for serial in range(10):
        journal.changed([[serial, "/a"]])
    begun = journal.mark()
    journal.restart()
    journal.changed([[10, "/a"]])
    journal.synced(begun)
    (tmp_path / "boot").write_text("another")
    monkeypatch.setattr(journals, "_BOOT_ID", tmp_path / "boot")
    assert serials(tmp_path / "j") == []


def test_attempts_are_told(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", OWNER)
    journal.changed([[1, "/a"]])
    journal.tried(Attempt("/a", b"value", 7, 2, [1]))
    found, _ = replay(tmp_path / "j")
    assert found is not None
    assert found.attempts == [Attempt("/a", b"value", 7, 2, [1])]


def test_what_an_attempt_was_known_to_have_stored_is_not_what_a_later_one_has(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", OWNER)
    journal.changed([[1, "/a"], [2, "/b"], [3, "/c"], [4, "/d"]])
    journal.tried(Attempt("/b", b"refused", 7, 1, [2]))
    journal.tried(Attempt("/a", b"value", 7, 3, [1]))  # of these versions some may be none, with nothing to remove
    journal.done([1])
    journal.tried(Attempt("/c", b"value", 8, 2, [3]))
    journal.tried(Attempt("/d", b"value", 9, 2, [4]))
    found, _ = replay(tmp_path / "j")
    assert found is not None
    refused, first, later, last = found.attempts
    assert refused.meets(first)
    assert first.meets(refused)
    assert not first.meets(later)
    assert not later.meets(first)
    assert later.meets(last)
    assert all(attempt.meets(attempt) for attempt in found.attempts)


def test_it_begins_anew_with_what_still_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", OWNER)
    for serial in range(1, 1000):
        journal.changed([[serial, "/a"]])
    before = journal.size
    journal.changed([[1000, "/later"]])
    journal.rewrite([[999, "/a"]], before)
    assert serials(tmp_path / "j") == [999, 1000]
    journal.done([999])
    assert serials(tmp_path / "j") == [1000]
    journal.restart()
    assert serials(tmp_path / "j") == []
    assert [path.name for path in tmp_path.iterdir()] == ["j"]


def test_a_record_that_does_not_fit_is_not_there_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "j", OWNER)
    journal.changed([[1, "/a"]])
    size, write = journal.size, os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:5]) if len(data) > 50 else _full())
    with pytest.raises(OSError, match="full"):
        journal.changed([[2, "/" + "b" * 100]])
    monkeypatch.undo()
    assert journal.size == size == (tmp_path / "j").stat().st_size
    journal.changed([[3, "/c"]])
    assert serials(tmp_path / "j") == [1, 3]


def test_one_that_could_not_begin_anew_begins_with_the_next_record(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", OWNER)
    journal.changed([[1, "/a"]])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # others took the room that it gave back
    try:
        with pytest.raises(OSError, match="too large"):
            journal.restart()
        with pytest.raises(OSError, match="too large"):
            journal.rewrite([[2, "/b"]], 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["j"]
    journal.changed([[3, "/c"]])
    assert serials(tmp_path / "j") == [3]


def test_that_a_directory_was_moved_is_recorded_before_anything_else(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", OWNER)
    journal.changed([[1, "/old/a"]])
    journal.moving(Move("/old", "/new", 7))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.size, limits[1]))
    try:
        journal.moved_along([[2, "/new/a"]], [1])
        journal.moved()
        with pytest.raises(OSError, match="too large"):
            journal.changed([[3, "/old/b"]])
        found, _ = replay(tmp_path / "j")
        assert found is not None
        assert (found.changes, found.move) == ([[1, "/old/a"]], Move("/old", "/new", 7))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    journal.changed([[4, "/old/c"]])
    found, _ = replay(tmp_path / "j")
    assert found is not None
    assert (found.changes, found.move) == ([[2, "/new/a"], [4, "/old/c"]], None)


def test_what_is_no_journal_tells_nothing(tmp_path: Path) -> None:
    assert replay(tmp_path / "absent") == (None, 0)
    (tmp_path / "j").write_bytes(b"\xff" * 100)
    assert replay(tmp_path / "j") == (None, 0)


def _full() -> int:
    raise OSError(28, "full")
