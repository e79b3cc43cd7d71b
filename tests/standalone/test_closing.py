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
