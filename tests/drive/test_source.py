"""Files of a tree that is imported are read as a whole, or refused."""

import os
from pathlib import Path

import pytest

from ddrive.drive.content import BLOCK_BYTES
from ddrive.drive.source import Found, OpenFile, load, stat_of
from ddrive.errors import SourceChanged


def found_at(place: Path) -> Found:
    return Found(place.name, stat_of(place.stat()))


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES])
def test_every_byte_of_a_file_is_read_in_blocks(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    (loaded,) = load(tmp_path, [found_at(tmp_path / "file")])
    assert not loaded.found.refused
    assert b"".join(loaded.blocks) == content
    assert all(len(block) == BLOCK_BYTES for block in loaded.blocks[:-1])


def test_a_file_of_the_kernel_that_says_to_be_empty_is_refused() -> None:
    place = Path("/proc/self/status")
    assert place.stat().st_size == 0
    (loaded,) = load(place.parent, [found_at(place)])
    assert loaded.found.refused == "it has more or fewer bytes than its size says"
    assert not loaded.changes
    assert not loaded.blocks


@pytest.mark.parametrize("change", [b"longer", None])
def test_a_file_that_changes_while_it_is_read_is_told(tmp_path: Path, change: bytes | None) -> None:
    place = tmp_path / "file"
    place.write_bytes(bytes(2 * BLOCK_BYTES))
    file = OpenFile(tmp_path, found_at(place))
    try:
        file.read(BLOCK_BYTES)
        if change is None:
            os.truncate(place, BLOCK_BYTES + 5)
        else:
            place.write_bytes(bytes(2 * BLOCK_BYTES) + change)
        file.read(4 * BLOCK_BYTES)
        with pytest.raises(SourceChanged, match="changes while"):
            file.check()
    finally:
        file.close()
