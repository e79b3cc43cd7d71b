"""Downloads that go on by themselves, and taking them back."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ddrive.errors import Closed, Withdrawn
from ddrive.standalone.downloads import pieces_of
from tests.standalone.pairs import author_and_copy, join


async def test_a_download_can_be_awaited(autojump_clock):
    async with author_and_copy() as (_, copy):
        await copy.download(5, 15)
        assert copy.has(5, 15)
        assert copy.downloaded_count() == 10


async def test_a_download_goes_on_by_itself(autojump_clock):
    async with author_and_copy() as (_, copy):
        download = copy.download(5, 15, linear=True)
        assert copy.downloads == [download]
        await trio.sleep(1)
        assert download.done
        assert copy.downloads == []


async def test_a_list_of_blocks_is_downloaded(autojump_clock):
    async with author_and_copy() as (_, copy):
        await copy.download(blocks=[3, 17, 3])
        assert [index for index in range(20) if copy.has(index)] == [3, 17]


async def test_a_download_of_what_is_held_is_done_at_once():
    async with author_and_copy(joined=False) as (author, _):
        download = author.download(0, 20)
        assert download.done
        await download


async def test_a_download_without_an_end_fetches_what_comes_later(autojump_clock):
    async with author_and_copy() as (author, copy):
        copy.download(10)
        await author.append(b"later")
        await trio.sleep(2)
        assert [index for index in range(21) if copy.has(index)] == list(range(10, 21))


async def test_a_linear_download_goes_in_order(autojump_clock):
    fetched: list[int] = []
    async with author_and_copy(on_write=lambda index, block, peer: fetched.append(index)) as (_, copy):
        await copy.update(20)
        await copy.download(0, 20, linear=True)
    assert fetched == list(range(20))


def test_others_start_somewhere_and_cover_all():
    (middle, end), (start, last) = pieces_of(0, 1000, None, linear=False)
    assert (start, last, end) == (0, middle, 1000)


@pytest.mark.parametrize("by_range", [False, True])
async def test_who_awaits_a_download_that_is_taken_back_is_told(by_range: bool):
    async with author_and_copy(joined=False) as (_, copy), trio.open_nursery() as nursery:
        download = copy.download(5, 15)

        async def wait() -> None:
            with pytest.raises(Withdrawn):
                await download

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        copy.undownload((5, 15) if by_range else download)


async def test_what_is_taken_back_is_not_fetched(autojump_clock):
    async with author_and_copy(joined=False) as (author, copy):
        copy.undownload(copy.download(5, 15))
        join(author, copy)
        await copy.update(20)
        await trio.sleep(2)
        assert copy.downloaded_count() == 0


async def test_cancelling_a_range_takes_downloads_within_it_back():
    async with author_and_copy(joined=False) as (_, copy):
        inside, outside, endless = copy.download(5, 15), copy.download(5, 25), copy.download(0)
        copy.cancel(0, 20)
        assert copy.downloads == [outside, endless]
        assert not inside.done


async def test_who_awaits_a_download_when_the_feed_closes_is_told():
    async with author_and_copy(joined=False) as (_, copy):
        download = copy.download(5, 15)
        await copy.aclose()
        with pytest.raises(Closed):
            await download


async def test_a_block_that_is_cleared_meanwhile_is_missing_again(autojump_clock):
    async with author_and_copy(joined=False) as (author, copy):
        author_proof = author.proof(5)
        download = copy.download(5, 7)
        copy.put(5, await author.get(5), author_proof)
        copy.clear(5)
        join(author, copy)
        await download
        assert copy.has(5, 7)
