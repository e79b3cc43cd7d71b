"""The five lines that a program needs: open, append, replicate over a stream, get."""

from trio.testing import memory_stream_pair

from ddrive.feed.storage import MemoryDirectory
from ddrive.standalone import open_feed


async def test_what_one_appends_the_other_gets(autojump_clock):
    here, there = memory_stream_pair()
    async with open_feed(MemoryDirectory()) as written, open_feed(MemoryDirectory(), written.key) as copy:
        await written.append(b"hello")
        written.replicate(here, initiator=True)
        copy.replicate(there, initiator=False)
        assert await copy.get(0) == b"hello"
