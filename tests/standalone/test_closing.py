"""What closing a feed, or one of its links, leaves behind."""

from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from ddrive.standalone import Replication
from tests.standalone.pairs import author_and_copy, join


async def test_a_link_that_never_came_up_does_not_hinder_another_one_from_ending(autojump_clock):
    links: list[Replication] = []
    async with author_and_copy(joined=False) as (author, copy):
        links += join(author, copy)
        await copy.get(0)
        near, _ = memory_stream_pair()
        links.append(copy.replicate(near, True))
        await wait_all_tasks_blocked()
    assert all(link.end and not link.end.lied for link in links)


async def test_a_stream_that_cannot_be_closed_does_not_end_the_feed(autojump_clock, caplog):
    def fail() -> None:
        raise OSError("no")

    async with author_and_copy(joined=False) as (author, copy):
        near, far = memory_stream_pair()
        link = author.replicate(near, True)
        copy.replicate(far, False)
        await copy.get(0)
        near.receive_stream.close_hook = fail
        link.close()
        await link.wait()
        assert await author.get(1)
    assert "cannot close stream" in caplog.text
