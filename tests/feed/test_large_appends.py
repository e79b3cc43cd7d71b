"""Appends of many bytes: a thread makes the hashes while the blocks are written. The files are real."""

import errno

import pytest

from ddrive.feed import Feed, FileDirectory
from ddrive.feed.appending import BESIDE_BYTES
from ddrive.feed.storage import FILE_NAMES, FileStorage
from tests.feed.samples import writer

BLOCKS = [bytes([number]) * (65536 - number) for number in range(2 * BESIDE_BYTES // 65536)]


@pytest.mark.parametrize("durable", [True, False])
async def test_the_files_are_those_of_small_appends(tmp_path, durable):
    feed = Feed(writer(directory=FileDirectory(tmp_path / "large")))
    assert await feed.append(BLOCKS, durable=durable) == 0
    assert await feed.append([b"", b"more"], durable=durable) == len(BLOCKS)
    assert await feed.append(BLOCKS, durable=durable) == len(BLOCKS) + 2
    await feed.aclose()
    small = Feed(writer(directory=FileDirectory(tmp_path / "small")))
    for block in [*BLOCKS, b"", b"more", *BLOCKS]:
        await small.append([block], durable=False)
    await small.aclose()
    for name in sorted({*FILE_NAMES} - {"signatures"}):
        found = [tmp_path / kind / name for kind in ("large", "small")]
        assert [path.exists() for path in found] in ([True, True], [False, False])
        if found[0].exists():
            assert found[0].read_bytes() == found[1].read_bytes(), name


@pytest.mark.parametrize("durable", [True, False])
async def test_a_full_disk_leaves_the_feed_as_it_was(tmp_path, monkeypatch, durable):
    feed = Feed(writer([b"before"], FileDirectory(tmp_path)))
    write_all = FileStorage.write_all

    def full(self, offset, pieces):
        write_all(self, offset, pieces[:3])
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patch:
        patch.setattr(FileStorage, "write_all", full)
        with pytest.raises(OSError, match="no space left"):
            await feed.append(BLOCKS, durable=durable)
    assert (feed.length, (tmp_path / "data").stat().st_size) == (1, len(b"before"))
    assert await feed.append(BLOCKS, durable=durable) == 1
    assert [feed.get_held(index + 1) for index in range(len(BLOCKS))] == BLOCKS
    await feed.aclose()
