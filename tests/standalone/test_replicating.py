"""Links that carry feeds: who may come, which way blocks go, several feeds at once, and the end."""

from pathlib import Path

import pytest
import trio
from trio.testing import memory_stream_pair

from ddrive.dialect import HYPERCORE
from ddrive.errors import Behind, Closed, NoPeers
from ddrive.feed.storage import MemoryDirectory
from ddrive.protocol import NoiseKeyPair
from ddrive.standalone import Acknowledged, PeerOptions, PeerRemoved, open_feed
from tests.standalone.pairs import BLOCKS, author_and_copy, join


async def test_a_link_that_is_not_live_ends_when_the_copy_is_complete(autojump_clock):
    async with author_and_copy(joined=False, sparse=False) as (author, copy):
        one, other = join(author, copy, {"live": False}, {"live": False})
        await one.wait()
        await other.wait()
        assert copy.has(0, 20)


async def test_a_link_with_nothing_to_fetch_ends_too(autojump_clock):
    async with author_and_copy([], joined=False, sparse=False) as (author, copy):
        one, other = join(author, copy, {"live": False}, {"live": False})
        await one.wait()
        await other.wait()


async def test_all_links_end_when_several_peers_have_shared_the_work(autojump_clock):
    async with (
        author_and_copy([b"x" * 100] * 300, joined=False, sparse=False) as (author, first),
        open_feed(MemoryDirectory(), author.key) as second,
    ):
        join(author, first)
        await first.download(0, 300)
        links = [*join(author, second, {"live": False}, {"live": False})]
        links += join(first, second, {"live": False}, {"live": False})
        for link in links:
            await link.wait()
        assert second.has(0, 300)


async def test_two_copies_complete_each_other_and_end(autojump_clock):
    async with (
        author_and_copy(joined=False, sparse=False) as (author, one),
        open_feed(MemoryDirectory(), author.key) as other,
    ):
        for index in range(20):
            copy = (one, other)[index % 2]
            copy.put(index, BLOCKS[index], author.proof(index, digest=copy.digest(index)))
        links = join(one, other, {"live": False}, {"live": False})
        for link in links:
            await link.wait()
        assert one.has(0, 20)
        assert other.has(0, 20)


async def test_a_live_link_stays(autojump_clock):
    async with author_and_copy(joined=False, sparse=False) as (author, copy):
        one, _ = join(author, copy)
        await trio.sleep(100)
        assert one.end is None


async def test_without_download_nothing_is_fetched(autojump_clock):
    async with author_and_copy(joined=False, sparse=False) as (author, copy):
        join(author, copy, None, {"download": False})
        await trio.sleep(5)
        assert copy.downloaded_count(0, 20) == 0
        assert not author.peers[0].downloading


async def test_without_upload_nothing_is_given(autojump_clock):
    async with author_and_copy(joined=False, sparse=False) as (author, copy):
        join(author, copy, {"upload": False})
        await trio.sleep(5)
        assert copy.downloaded_count(0, 20) == 0
        assert not copy.peers[0].uploading


async def test_downloading_can_be_switched_off_and_on(autojump_clock):
    async with author_and_copy(sparse=False) as (_, copy):
        copy.set_downloading(False)
        await trio.sleep(5)
        assert copy.downloaded_count(0, 20) == 0
        copy.set_downloading(True)
        await trio.sleep(5)
        assert copy.has(0, 20)


async def test_uploading_can_be_switched_off_and_on(autojump_clock):
    async with author_and_copy(sparse=False) as (author, copy):
        author.set_uploading(False)
        await trio.sleep(5)
        assert copy.downloaded_count(0, 20) == 0
        author.set_uploading(True)
        await trio.sleep(5)
        assert copy.has(0, 20)


@pytest.mark.parametrize("switched", ["set_downloading", "set_uploading"])
async def test_a_switch_leaves_a_link_in_use_as_it_is(switched: str, autojump_clock):
    async with author_and_copy() as (author, copy):
        await copy.get(0)
        feed = copy if switched == "set_downloading" else author
        for on in (False, True):
            getattr(feed, switched)(on)
            await trio.sleep(1)
            assert len(author.peers) == len(copy.peers) == 1
            assert getattr(feed, switched.removeprefix("set_")) is on
        assert await copy.get(1, timeout=5) == BLOCKS[1]


async def test_a_link_ends_when_the_one_that_is_not_to_stay_is_done(autojump_clock):
    async with author_and_copy(joined=False, sparse=False) as (author, copy):
        one, other = join(author, copy, {"live": True}, {"live": False})
        await one.wait()
        await other.wait()
        assert copy.has(0, 20)


async def test_our_own_feed_downloads_when_it_is_told_to(tmp_path: Path, autojump_clock):
    directory = MemoryDirectory()
    async with open_feed(directory) as author:
        await author.append(list(BLOCKS))
        async with open_feed(MemoryDirectory(), author.key) as copy:
            join(author, copy)
            await copy.download(0, 20)
            author.clear(5)
            author.set_downloading(True)
            assert await author.get(5) == BLOCKS[5]


@pytest.mark.parametrize("side", [0, 1])
async def test_a_peer_can_be_refused_by_its_key(side: int, autojump_clock):
    async with author_and_copy(joined=False) as (author, copy):
        options: list[dict[str, object]] = [{}, {}]
        options[side] = {"on_authenticate": lambda key: False}
        links = join(author, copy, *options)
        assert "refused" in (await links[side].wait()).reason
        assert copy.peers == []


async def test_a_peer_is_known_by_the_key_pair_of_the_link(autojump_clock):
    pair = NoiseKeyPair.from_seed(b"\x02" * 32)
    async with author_and_copy(joined=False) as (author, copy):
        one, _ = join(author, copy, None, {"key_pair": pair})
        assert (await one.connected()).remote_public_key == pair.public_key


async def test_both_sides_share_the_handshake_hash(autojump_clock):
    async with author_and_copy(joined=False) as (author, copy):
        one, other = join(author, copy)
        hashes = {(await link.connected()).handshake_hash for link in (one, other)}
        assert len(hashes) == 1
        assert len(hashes.pop()) == 64


async def test_a_link_knows_which_feeds_its_peer_has_proven_to_know(autojump_clock):
    async with author_and_copy(joined=False) as (author, copy):
        one, _ = join(author, copy)
        await copy.update(1)
        assert one.link.is_verified(author.key, author.dialect)
        assert not one.link.is_verified(author.key, HYPERCORE)


async def test_a_link_counts_its_bytes(autojump_clock):
    async with author_and_copy(joined=False) as (author, copy):
        one, other = join(author, copy)
        await copy.get(3)
        await trio.sleep(1)
        assert one.link.bytes_sent == other.link.bytes_received > 0


@pytest.mark.parametrize("modes", [{"encrypted": False}, {"encrypted": False, "noise": False}])
async def test_unencrypted_modes_carry_blocks(modes, autojump_clock):
    async with author_and_copy(joined=False) as (author, copy):
        join(author, copy, modes, modes)
        assert await copy.get(3) == BLOCKS[3]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"noise": False}, "encrypted=False"),
        ({"noise": False, "encrypted": False, "on_authenticate": lambda key: True}, "on_authenticate"),
        ({"timeout": 0}, "timeout is"),
        ({"handshake_timeout": -1}, "handshake_timeout is"),
        ({"keep_alive": 0}, "keep_alive is"),
    ],
)
async def test_options_that_no_link_can_have_are_refused_at_once(options, reason, autojump_clock):
    async with author_and_copy(joined=False) as (author, copy):
        near, far = memory_stream_pair()
        with pytest.raises(ValueError, match=reason):
            author.replicate(near, True, **options)
        author.replicate(near, True)
        copy.replicate(far, False)
        assert await copy.get(3) == BLOCKS[3]


async def test_a_link_may_wait_for_ever(autojump_clock):
    async with author_and_copy(joined=False) as (author, copy):
        never = {"timeout": None, "handshake_timeout": None}
        join(author, copy, never, never)
        await trio.sleep(1000)
        assert await copy.get(3) == BLOCKS[3]


async def test_one_link_carries_several_feeds(autojump_clock):
    async with author_and_copy(joined=False) as (a, b), author_and_copy([b"other"], joined=False) as (c, d):
        one, other = join(a, b)
        one.add(c)
        other.add(d)
        assert await d.get(0) == b"other"
        assert await b.get(0) == BLOCKS[0]


async def test_a_feed_can_be_added_to_a_link_that_is_up(autojump_clock):
    async with author_and_copy(joined=False) as (a, b), author_and_copy([b"other"], joined=False) as (c, d):
        one, other = join(a, b, {"keep_unknown": True})
        await b.get(0)
        other.add(d)
        await trio.sleep(1)
        one.add(c)
        assert await d.get(0) == b"other"


async def test_a_feed_that_was_refused_can_be_offered_later(autojump_clock):
    async with author_and_copy(joined=False) as (a, b), author_and_copy([b"other"], joined=False) as (c, d):
        one, other = join(a, b)
        await b.get(0)
        other.add(d)
        await trio.sleep(1)
        one.add(c)
        assert await d.get(0) == b"other"


async def test_a_peer_that_never_answers_for_a_feed_goes_with_its_link(autojump_clock):
    async with author_and_copy(joined=False) as (a, b), author_and_copy(joined=False) as (_, d):
        one, other = join(a, b, {"keep_unknown": True})
        await b.get(0)
        with d.events(PeerRemoved) as events:
            other.add(d)
            await trio.sleep(30)
            one.close()
            assert isinstance(await anext(events), PeerRemoved)


async def test_a_feed_that_is_destroyed_in_memory_is_gone():
    directory = MemoryDirectory()
    async with open_feed(directory) as feed:
        await feed.append(b"x")
        await feed.destroy_storage()
    assert directory.files == {}


async def test_a_feed_that_is_not_known_is_reported(autojump_clock):
    async with author_and_copy(joined=False) as (a, b), author_and_copy(joined=False) as (_, d):
        one, other = join(a, b, {"keep_unknown": True})
        with one.requests() as requests:
            other.add(d)
            assert await anext(requests) == d.discovery_key


async def test_a_feed_that_is_not_known_is_refused(autojump_clock):
    async with author_and_copy(joined=False) as (a, b), author_and_copy(joined=False) as (_, d):
        _, other = join(a, b)
        with d.events(PeerRemoved) as events:
            other.add(d)
            await anext(events)
        assert d.peers == []


@pytest.mark.parametrize("later", [False, True])
async def test_a_link_that_is_not_to_stay_ends_though_the_peer_says_nothing(later: bool, autojump_clock):
    async with author_and_copy(joined=False, sparse=False) as (a, b), author_and_copy(joined=False) as (_, d):
        near, far = memory_stream_pair()
        a.replicate(near, True, keep_unknown=True, keep_alive=2)
        link = (b if later else d).replicate(far, False, live=False, timeout=5)
        if later:
            await link.connected()
            link.add(d)
        with trio.fail_after(60):
            assert (await link.wait()).reason == "all is done"
        assert d.peers == []
        if later:
            assert await b.get_range(0, len(BLOCKS), wait=False) == BLOCKS


async def test_a_program_can_refuse_what_it_kept(autojump_clock):
    async with author_and_copy(joined=False) as (a, b), author_and_copy(joined=False) as (_, d):
        one, other = join(a, b, {"keep_unknown": True})
        with one.requests() as requests, d.events(PeerRemoved) as events:
            other.add(d)
            one.refuse(await anext(requests))
            await anext(events)


async def test_what_was_asked_for_before_the_program_listens_is_reported_too(autojump_clock):
    async with author_and_copy(joined=False) as (a, b), author_and_copy(joined=False) as (c, d):
        one, other = join(a, b, {"keep_unknown": True})
        with trio.fail_after(9), one.requests() as none_yet:
            other.add(c)
            async with open_feed(MemoryDirectory()) as third:
                other.add(third)
                await anext(none_yet), await anext(none_yet)
                requests = one.requests()
                assert [await anext(requests), await anext(requests)] == [c.discovery_key, third.discovery_key]
                one.add(d)
                assert await anext(one.requests()) == third.discovery_key
                one.refuse(third.discovery_key)
                with trio.move_on_after(1) as waiting, one.requests() as decided:
                    await anext(decided)
                assert waiting.cancelled_caught
                assert await d.get(0) == BLOCKS[0]
        one.close()
        await one.wait()
        assert [key async for key in one.requests()] == []


async def test_a_removed_feed_is_carried_no_more(autojump_clock):
    async with author_and_copy(joined=False) as (author, copy):
        one, _ = join(author, copy)
        await copy.get(0)
        with copy.events(PeerRemoved) as events:
            one.remove(author)
            await anext(events)
        assert author.peers == copy.peers == []
        assert one.end is None


async def test_closing_a_feed_leaves_the_others_on_its_link(autojump_clock):
    async with author_and_copy(joined=False) as (a, b), author_and_copy([b"other"], joined=False) as (c, d):
        one, other = join(a, b)
        one.add(c)
        other.add(d)
        await d.update(1)
        await c.aclose()
        assert await b.get(0) == BLOCKS[0]


async def test_a_link_that_has_ended_carries_nothing(autojump_clock):
    async with author_and_copy(joined=False) as (author, copy):
        one, _ = join(author, copy)
        await one.connected()
        one.close()
        await one.wait()
        with pytest.raises(Closed):
            one.add(copy)


async def test_a_link_that_never_came_up_says_so(autojump_clock):
    near, far = memory_stream_pair()
    async with author_and_copy(joined=False) as (author, _):
        link = author.replicate(near, True)
        await far.aclose()
        with pytest.raises(Closed):
            await link.connected()


async def test_a_silent_peer_is_dropped_after_the_chosen_time(autojump_clock):
    near, _far = memory_stream_pair()
    async with author_and_copy(joined=False) as (author, _):
        started = trio.current_time()
        await author.replicate(near, True, timeout=3).wait()
        assert trio.current_time() - started == pytest.approx(3, abs=1.5)


async def test_a_wrong_key_brings_no_peer(autojump_clock):
    async with author_and_copy(joined=False) as (author, _), open_feed(MemoryDirectory()) as stranger:
        join(author, stranger)
        await trio.sleep(3)
        assert author.peers == stranger.peers == []


async def test_what_is_queued_when_a_feed_closes_still_arrives(autojump_clock):
    async with open_feed(MemoryDirectory()) as author:
        await author.append(b"x")
        async with open_feed(MemoryDirectory(), author.key, sparse=True) as copy:
            talk, heard = copy.register_extension("talk"), author.register_extension("talk")
            messages = heard.messages()
            join(author, copy)
            await copy.get(0)
            talk.broadcast(b"goodbye")
        assert (await anext(messages)).value == b"goodbye"


async def _looks(key: bytes) -> bool:
    """A check that is not a plain function."""
    return False


async def test_a_check_of_peers_that_nobody_awaits_lets_nobody_in(autojump_clock):
    async with author_and_copy(joined=False) as (author, copy):
        with pytest.raises(ValueError, match="not awaited"):
            join(author, copy, {"on_authenticate": _looks})
        one, _ = join(author, copy, {"on_authenticate": lambda key: _looks(key)})
        end = await one.wait()
        assert "refused" in end.reason
        assert not author.peers


async def test_an_own_feed_from_a_backup_signs_nothing_twice(autojump_clock):
    files: dict[str, bytearray] = {}
    async with open_feed(MemoryDirectory(files)) as author:
        await author.append([b"one", b"two"])
        backup = {name: bytearray(content) for name, content in files.items()}
        await author.append(b"three")
        async with (
            open_feed(MemoryDirectory(), author.key) as copy,
            open_feed(MemoryDirectory(backup), downloading=True, uploading=False) as restored,
        ):
            join(author, copy)
            await copy.download(0, 3)
            join(copy, restored)
            while restored.remote_length < 3:
                await trio.lowlevel.checkpoint()
            assert restored.length == 2
            with pytest.raises(Behind):
                await restored.append(b"another three")
            await restored.update(3)
            assert await restored.append(b"four") == 3
            with pytest.raises(NoPeers):
                await restored.update(if_available=True, force=True)


async def test_a_feed_on_a_link_may_have_options_of_its_own(autojump_clock):
    async with author_and_copy(joined=False) as (first, _), author_and_copy(joined=False) as (author, copy):
        one, other = join(first, copy)
        with author.events(Acknowledged) as receipts:
            one.add(author, PeerOptions(ack=True))
            await copy.get(3)
            assert (await anext(receipts)).start == 3
        assert other.end is None


async def test_a_link_that_is_closed_before_it_is_up_keeps_the_reason(autojump_clock):
    async with author_and_copy(joined=False) as (author, _):
        near, _ = memory_stream_pair()
        link = author.replicate(near, True)
        link.close("changed our mind")
        assert (await link.wait()).reason == "changed our mind"


async def test_our_own_key_on_a_link_is_known(autojump_clock):
    async with author_and_copy(joined=False) as (author, copy):
        one, other = join(author, copy)
        near, far = await one.connected(), await other.connected()
        assert near.public_key == far.remote_public_key
        assert len(near.public_key) == 32


async def test_without_noise_nobody_has_proven_anything(autojump_clock):
    modes = {"encrypted": False, "noise": False}
    async with author_and_copy(joined=False) as (author, copy):
        one, _ = join(author, copy, modes, modes)
        await copy.get(0)
        assert not one.link.is_verified(author.key, author.dialect)
        assert one.link.public_key == one.link.remote_public_key == b""
