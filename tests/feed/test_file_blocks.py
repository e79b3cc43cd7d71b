"""Blocks that lie in a file: read by who appends them, and only then."""

import threading
from io import FileIO
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ddrive.errors import SourceChanged, TimedOut
from ddrive.feed import Feed, FileDirectory, file_blocks
from ddrive.feed.file_blocks import THREADS, FileBlocks, FileThreads, Place, loaded, sizes_of
from tests.feed.samples import writer

TEXT = bytes(range(256)) * 8
PLACES = [Place(10, 5), Place(15, 20), Place(0, 4), Place(3, 2), Place(2000, 48)]
BLOCKS = [TEXT[offset : offset + size] for offset, size in PLACES]


def made(path: Path) -> FileBlocks:
    path.write_bytes(TEXT)
    return FileBlocks(FileIO(path), PLACES)


async def test_they_are_what_lies_at_their_places(tmp_path: Path) -> None:
    blocks = made(tmp_path / "file")
    assert [bytes(block) for block in blocks.load()] == list(blocks) == BLOCKS
    assert await loaded(blocks) == BLOCKS
    assert list(blocks[1:4]) == BLOCKS[1:4]
    assert (blocks[-1], len(blocks), sizes_of(blocks)) == (BLOCKS[-1], 5, sizes_of(BLOCKS))
    assert FileBlocks(blocks.file, []).load() == []
    assert await loaded(BLOCKS) is BLOCKS
    blocks.file.close()


async def test_a_file_that_became_shorter_is_refused(tmp_path: Path) -> None:
    blocks = made(tmp_path / "file")
    (tmp_path / "file").write_bytes(TEXT[:-1])
    with pytest.raises(SourceChanged):
        await loaded(blocks)
    with pytest.raises(SourceChanged):
        blocks[4]
    assert bytes(blocks[3]) == BLOCKS[3]
    blocks.file.close()


async def test_files_that_never_answer_do_not_keep_the_others_waiting_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_blocks, "_threads", FileThreads())
    blocks, answer = made(tmp_path / "file"), threading.Event()

    class Hanging(FileBlocks):
        def load(self, buffer: bytearray | None = None) -> list[memoryview]:
            answer.wait(60)
            return super().load(buffer)

    with monkeypatch.context() as patch:
        patch.setattr(file_blocks, "TURN_S", 0.1)
        async with trio.open_nursery() as nursery:
            for _ in range(THREADS):
                nursery.start_soon(loaded, Hanging(blocks.file, PLACES))
            await wait_all_tasks_blocked()
            with pytest.raises(TimedOut, match=f"{THREADS} files .* have not answered"):
                await loaded(blocks)
            nursery.cancel_scope.cancel()  # which frees no thread
        with pytest.raises(TimedOut):
            await loaded(blocks)
    answer.set()
    assert await loaded(blocks) == BLOCKS
    blocks.file.close()


@pytest.mark.parametrize("durable", [True, False])
async def test_a_feed_reads_them_itself(tmp_path: Path, durable: bool) -> None:
    blocks = made(tmp_path / "file")
    feed = Feed(writer([b"before"], FileDirectory(tmp_path / "feed")))
    assert await feed.append(blocks, durable=durable) == 1
    assert [feed.get_held(index + 1) for index in range(len(PLACES))] == BLOCKS
    await feed.aclose()
    blocks.file.close()
