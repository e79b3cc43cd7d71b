"""What is kept of a path as newer entries for it come in, in any order."""

import pytest

from ddrive.ids import PublicKey
from mountd.space_pins import Newer, Pin, Pins

DRIVE, CONTENT = PublicKey(bytes([1]) * 32), PublicKey(bytes([2]) * 32)


@pytest.fixture
def pins(tmp_path):
    """Return the pin of a directory that had blocks 0 to 4 in version 10."""
    made = Pins(tmp_path / "pins.json")
    made.add(Pin(DRIVE, "/kept", 10, {CONTENT: [(0, 4)]}))
    return made


def newer(version, *run):
    return Newer(version, CONTENT, run)


def test_the_newest_entry_counts_in_whatever_order_they_come(pins):
    assert pins.follow(DRIVE, "kept/file", newer(12, 20, 25))
    assert not pins.follow(DRIVE, "kept/file", newer(11, 10, 15))
    assert pins.runs(CONTENT) == [(0, 4), (20, 25)]
    assert not pins.follow(DRIVE, "kept/file", newer(12, 30, 35)), "it is known already"
    assert pins.runs(CONTENT) == [(0, 4), (20, 25)]
    assert pins.follow(DRIVE, "kept/file", newer(13, 40, 45))
    assert pins.runs(CONTENT) == [(0, 4), (40, 45)], "the one before is kept no longer"


def test_entries_older_than_the_pin_or_elsewhere_are_passed_over(pins):
    assert not pins.follow(DRIVE, "kept/file", newer(9, 20, 25))
    assert not pins.follow(DRIVE, "other", newer(12, 20, 25))
    assert not pins.follow(DRIVE, "keptfile", newer(12, 20, 25))
    assert not pins.follow(CONTENT, "kept/file", newer(12, 20, 25))
    assert pins.runs(CONTENT) == [(0, 4)]
    assert pins.follow(DRIVE, "kept", newer(10, 20, 25))


def test_a_file_that_became_empty_needs_nothing(pins):
    assert pins.follow(DRIVE, "kept/file", newer(11, 20, 25))
    assert pins.follow(DRIVE, "kept/file", newer(12, 25, 25))
    assert pins.runs(CONTENT) == [(0, 4)]


def test_a_new_pin_replaces_what_older_entries_had(pins):
    pins.follow(DRIVE, "kept/file", newer(11, 20, 25))
    pins.follow(DRIVE, "kept/later", newer(13, 30, 35))
    pins.add(Pin(DRIVE, "/kept", 12, {CONTENT: [(0, 2)]}))
    assert pins.runs(CONTENT) == [(0, 2), (30, 35)]
