"""What a client sends to be appended: blocks, or where they are in an open file."""

import os
import stat
from collections.abc import Sequence
from typing import Any

from ddrive.errors import LocalProtocolError, TooLarge
from ddrive.feed.file_blocks import FileBlocks, FileThreads, Place, loaded
from ddrive.feed.hashing import Buffer
from ddrive.store.rpc import MAX_FRAME_BYTES

_threads = FileThreads()  # that look at files, which those that read a file must not wait for


async def blocks_in(params: dict[str, Any]) -> Sequence[Buffer]:
    """Return what is to be appended, in memory.

    Raises: LocalProtocolError, TooLarge, SourceChanged, TimedOut, OSError.
    """
    if "file" not in params:
        return list(params["blocks"])
    places = [Place(offset, size) for offset, size in params["places"]]
    if not all(isinstance(number, int) and number >= 0 for place in places for number in place):
        raise LocalProtocolError("feed.append: places are pairs of an offset and a size")
    if sum(place.size for place in places) > MAX_FRAME_BYTES:
        raise TooLarge(f"an append of more than {MAX_FRAME_BYTES} bytes from a file: make several of it")
    descriptor = params["file"].fileno()
    # even that may wait for another process: for one that needs us, where the file lies in a mount of ours
    status = await _threads.run(os.fstat, descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise LocalProtocolError("feed.append: only the bytes of a regular file can be appended")
    return await loaded(FileBlocks(params["file"], places))
