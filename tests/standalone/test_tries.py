"""A database in a feed that stands alone: written here, read there."""

import trio
from trio.testing import memory_stream_pair

import ddrive
from ddrive.feed.storage import MemoryDirectory


async def test_what_one_puts_the_other_gets():
    here, there = memory_stream_pair()
    with trio.fail_after(20):
        async with (
            ddrive.open_feed(MemoryDirectory(), dialect=ddrive.HYPERCORE) as feed,
            ddrive.open_feed(MemoryDirectory(), feed.key, dialect=ddrive.HYPERCORE, sparse=True) as copy,
        ):
            trie = await ddrive.open_trie(feed, metadata=b"about")
            await trie.batch([ddrive.Put(f"key/{number}", b"%d" % number) for number in range(500)])
            feed.replicate(here, initiator=True)
            copy.replicate(there, initiator=False)
            read = await ddrive.open_trie(copy)
            await read.refresh()
            assert (read.metadata, read.version, read.writable) == (b"about", 501, False)
            node = await read.get("key/77")
            assert node is not None
            assert node.value == b"77"
            assert len(await read.list("key")) == 500
            assert trie.header.type == "hypertrie"
            assert trie.dialect.trie_type in feed.session.extensions.names
            watch = read.watch("key")
            await trie.put("key/77", b"new")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read.feed.wait_length, 502)
                assert [change.key for change in await anext(watch)] == ["key/77"]
