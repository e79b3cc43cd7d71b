"""Limits of the rate: they hold, and what somebody waits for comes before a download all the same."""

from contextlib import ExitStack

import pytest
import trio

from ddrive.ids import BlockIndex
from ddrive.protocol.sharing import BURST_S, Bucket, Share
from tests.replication.peers import Place, block, linked, until

SIZE = 64 * 1024
BLOCKS = 120
RATE = 200_000
OVERHEAD = 1.02  # proofs and frames


@pytest.mark.parametrize("limited", ["down", "up"])
async def test_a_limit_holds_and_a_read_does_not_wait_behind_a_download(autojump_clock: object, limited: str) -> None:
    author, reader = Place(BLOCKS, size=SIZE), Place()
    (reader if limited == "down" else author).share = Share(**{limited: Bucket(RATE)})
    stats = reader.session.stats
    async with linked((reader, author)):
        began_s = trio.current_time()
        with ExitStack() as download:
            download.enter_context(reader.feed.want(BlockIndex(0), BlockIndex(BLOCKS)))
            for number in range(1, 5):
                await until(lambda: stats.downloaded_blocks >= 10 * number)  # noqa: B023
                asked_s, before = trio.current_time(), stats.downloaded_blocks
                assert await reader.feed.get(BlockIndex(BLOCKS - number)) == block(BLOCKS - number, SIZE)
                assert stats.downloaded_blocks - before <= 8, "those that were asked for already, and itself"
                assert trio.current_time() - asked_s < 8 * SIZE / RATE
            await until(lambda: stats.downloaded_blocks == BLOCKS, timeout_s=100)
        took_s = trio.current_time() - began_s
    assert BLOCKS * SIZE / RATE - BURST_S - 1.0 <= took_s <= BLOCKS * SIZE / RATE * OVERHEAD + 1.0
