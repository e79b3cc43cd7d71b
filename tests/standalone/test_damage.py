"""A copy whose tree the disk has changed, with a peer that is not to blame for that."""

import random

import pytest
import trio

from ddrive.feed.storage import MemoryDirectory
from ddrive.standalone import open_feed
from tests.standalone.pairs import join

BLOCKS = [b"block %d" % index for index in range(70)]


@pytest.mark.parametrize("start", range(40, 40 * 138, 241))
async def test_a_peer_is_not_taken_for_a_liar_because_nodes_here_are_damaged(start, autojump_clock, caplog):
    chance = random.Random(start)
    place = MemoryDirectory()
    async with open_feed(MemoryDirectory()) as author:
        await author.append(BLOCKS)
        async with open_feed(place, author.key) as copy:
            join(author, copy)
            await copy.download(0, len(BLOCKS))
        place.files["tree"][start : start + 400] = chance.randbytes(400)
        async with open_feed(place, author.key, sparse=True) as copy:
            links = join(author, copy)
            with trio.fail_after(30):
                for index in chance.sample(range(len(BLOCKS)), len(BLOCKS)):
                    assert await copy.get(index) == BLOCKS[index]
            assert not any(link.end for link in links)
