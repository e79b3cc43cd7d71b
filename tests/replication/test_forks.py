"""A fork found on a link: the first history stays, the second is refused, and neither is passed on from then on."""

import pytest

from ddrive.errors import Forked
from ddrive.feed.feed import Feed
from ddrive.feed.log import FeedLog
from ddrive.feed.storage import FORKED
from ddrive.ids import BlockIndex
from ddrive.protocol.messages import Data, Status
from tests.replication.peers import Place, linked, until


def history(mark: bytes, length: int) -> Place:
    """Return the author with a history in which every block says `mark`."""
    place = Place(0)
    place.feed.log.append([mark * (index + 1) for index in range(length)])  # type: ignore[union-attr]
    return place


async def forked_place(caplog: pytest.LogCaptureFixture) -> tuple[Place, Place]:
    """Return a place that holds block 0 of one history and has met the other, with the peer that had it."""
    place = Place()
    async with linked((place, history(b"a", 4))):
        assert await place.feed.get(0) == b"a"
    other = history(b"b", 6)
    async with linked((place, other)):
        with place.feed.want(4, 6, urgent=True):
            await until(lambda: place.feed.forked)
            await until(lambda: not place.session.links())
            assert not place.ends
    assert "feed forked" in caplog.text
    return place, other


async def test_the_first_history_stays_and_the_giver_of_the_second_is_left(
    caplog: pytest.LogCaptureFixture, autojump_clock: object
) -> None:
    place, _ = await forked_place(caplog)
    assert not any(end.lied for end in place.ends)
    assert place.feed.length == 4
    assert place.feed.get_held(0) == b"a"
    assert not place.feed.has(4)


async def test_evidence_of_both_is_kept_over_a_restart(
    caplog: pytest.LogCaptureFixture, autojump_clock: object
) -> None:
    place, _ = await forked_place(caplog)
    directory = place.feed.log._directory
    await place.feed.aclose()
    assert directory.exists(FORKED)
    again = Feed(FeedLog.open(directory))
    assert again.forked
    assert await again.get(0, wait=False) == b"a"


async def test_it_is_not_passed_on_any_more(caplog: pytest.LogCaptureFixture, autojump_clock: object) -> None:
    place, _ = await forked_place(caplog)
    asker = Place()
    async with linked((place, asker)):
        await until(lambda: asker.of_type(Status))
        assert not asker.of_type(Status)[-1].uploading  # type: ignore[attr-defined]
        with asker.feed.want(0, 1, urgent=True):
            await until(lambda: True)
        assert asker.of_type(Data) == []
    assert not asker.feed.has(0)


async def test_an_author_who_meets_a_copy_of_himself_stops(
    caplog: pytest.LogCaptureFixture, autojump_clock: object
) -> None:
    author = Place(3)
    author.session.downloading = True
    other = history(b"b", 6)
    async with linked((author, other)):
        with author.feed.want(3, 6, urgent=True):
            await until(lambda: author.feed.forked)
    with pytest.raises(Forked):
        await author.feed.append([b"more"])
    assert author.feed.length == 3
    assert author.feed.has(BlockIndex(2))


def branches(common: int, left: int, right: int) -> tuple[Place, Place]:
    """Return the author twice: a history in common, then one of `left` blocks of its own, one of `right`."""
    places = Place(0), Place(0)
    for place, mark, more in zip(places, (b"l", b"r"), (left, right), strict=True):
        log = place.feed.log
        log.append([b"common %d" % index for index in range(common)])  # type: ignore[union-attr]
        for index in range(more):
            log.append([mark + b"%d" % index])  # type: ignore[union-attr]
    return places


@pytest.mark.parametrize("eager", [False, True], ids=["asked", "eager"])
@pytest.mark.parametrize(
    ("common", "left", "right"),
    [(5, 1, 4), (28, 1, 5), (3, 2, 20), (4, 2, 4), (16, 1, 2), (1, 1, 2), (7, 1, 1), (8, 5, 3), (6, 3, 9), (4, 4, 4)],
)
async def test_no_second_history_covers_the_first(common: int, left: int, right: int, eager: bool) -> None:
    # by the real clock: what is sent after a doubt is not excused by it
    first, second = branches(common, left, right)
    reader = Place(eager_length=eager)
    async with linked((reader, first)):
        with reader.feed.want(0, common + left, urgent=False):
            await until(lambda: reader.feed.held(0, common + left) == common + left)
    seen = [reader.feed.get_held(BlockIndex(index)) for index in range(common + left)]
    async with linked((reader, second)):
        with reader.feed.want(0, common + right, urgent=False):
            await reader.feed.refresh()
            if right > left:
                await until(lambda: reader.feed.forked, 5)
    assert not any(end.lied for end in (*reader.ends, *second.ends))
    assert reader.feed.length == common + left
    assert [reader.feed.get_held(BlockIndex(index)) for index in range(common + left)] == seen
    assert reader.feed.forked == (right > left)


@pytest.mark.parametrize(("common", "left", "right"), [(3, 1, 5), (5, 1, 4), (16, 2, 3), (4, 4, 5)])
async def test_an_author_finds_that_his_copy_has_gone_another_way(common: int, left: int, right: int) -> None:
    mine, copy = branches(common, left, right)
    mine.session.downloading = True
    mine.session.set_eager_length()
    async with linked((mine, copy)):
        await until(lambda: mine.feed.forked, 5)
    with pytest.raises(Forked):
        await mine.feed.append([b"more"])
    assert not any(end.lied for end in (*mine.ends, *copy.ends))
    assert mine.feed.length == common + left
