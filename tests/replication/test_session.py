"""Sessions over links in memory: whole feeds, single blocks, several peers, silence, lies, growth, ends."""

import errno
import random
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest
import trio

from ddrive.errors import DiskFull, NotHeld, RemoteProtocolError
from ddrive.ids import BlockIndex, Node, NodeIndex
from ddrive.protocol.messages import Cancel, Data, Extension, Have, Options, Request, Status, Unhave, Want
from ddrive.replication import serving
from ddrive.replication.demand import AHEAD_BLOCKS
from ddrive.replication.session import FeedSession
from tests.replication.peers import Place, Scripted, block, honest, linked, log_of, lying, silent, until


async def test_a_reader_fetches_a_whole_feed(autojump_clock):
    writer, reader = Place(300), Place()
    async with linked((reader, writer)):
        await reader.feed.refresh()
        await reader.feed.download(0, 300)
    assert [reader.feed.get_held(index) for index in range(300)] == [block(index) for index in range(300)]
    assert reader.session.stats.downloaded_blocks == writer.session.stats.uploaded_blocks == 300
    assert reader.session.stats.downloaded_bytes == writer.session.stats.uploaded_bytes == 300 * 100


async def test_small_blocks_that_were_asked_for_together_are_read_and_stored_together(autojump_clock, monkeypatch):
    writer, reader = Place(300), Place()
    runs: dict[str, list[int]] = {"read": [], "stored": []}
    read, put_all = writer.feed.get_held_run, reader.feed.put_all

    def note_read(start, end):
        runs["read"].append(end - start)
        return read(start, end)

    def note_stored(blocks, *, soon):
        runs["stored"].append(put_all(blocks, soon=soon))
        return runs["stored"][-1]

    monkeypatch.setattr(writer.feed, "get_held_run", note_read)
    monkeypatch.setattr(reader.feed, "put_all", note_stored)
    async with linked((reader, writer)):
        await reader.feed.refresh()
        await reader.feed.download(0, 300)
    assert sum(runs["read"]) > 250
    assert sum(runs["stored"]) > 250
    assert len(runs["read"]) + len(runs["stored"]) < 60


async def test_as_many_blocks_are_read_together_as_may_be(autojump_clock, monkeypatch):
    monkeypatch.setattr(serving, "MAX_RUN_BYTES", 11 * 100)
    writer, reader = Place(300), Place()
    runs: list[int] = []
    read = writer.feed.get_held_run

    def note_read(start, end):
        runs.append(end - start)
        return read(start, end)

    monkeypatch.setattr(writer.feed, "get_held_run", note_read)
    async with linked((reader, writer)):
        await reader.feed.refresh()
        await reader.feed.download(0, 300)
    assert max(runs) == 11
    assert runs.count(11) > len(runs) // 2


async def test_only_what_nobody_reads_soon_is_written_past_the_cache(autojump_clock, monkeypatch):
    count = AHEAD_BLOCKS + 10
    writer, reader = Place(count), Place()
    data = reader.feed.log._files.data
    written: dict[str, int] = {"write_all": 0, "write_through": 0}

    def count_pieces(name):
        write = getattr(data, name)

        def counting(offset, pieces):
            written[name] += len(pieces)
            write(offset, pieces)

        monkeypatch.setattr(data, name, counting)

    count_pieces("write_all")
    count_pieces("write_through")
    async with linked((reader, writer)):
        await reader.feed.refresh()
        for index in range(5):
            await reader.feed.get(index)
        with reader.feed.want(5, 10):  # what is read ahead
            await reader.feed.get(9)
        before = dict(written)
        await reader.feed.download(0, count)
    assert before["write_through"] == 0
    assert before["write_all"] >= 6
    assert written["write_through"] > AHEAD_BLOCKS - 100


async def test_a_damaged_block_among_those_read_together_is_taken_back(autojump_clock):
    writer, reader = Place(300), Place()
    offset = writer.feed.log.byte_offset(100)
    writer.feed.log._verified.set_blocks(0, 300, False)
    writer.feed.log._files.data.write(offset, b"damage")
    async with linked((reader, writer)):
        await reader.feed.refresh()
        with trio.move_on_after(10):
            await reader.feed.download(0, 300)
    assert reader.feed.held(0, 300) == 299
    assert not reader.feed.has(100)
    assert not writer.feed.has(100)
    assert reader.ends == []


async def test_a_lie_among_blocks_that_came_together_ends_the_link_and_keeps_those_before_it(autojump_clock):
    log = log_of(300)
    truth, lie = honest(log), lying(log)
    reader, liar = Place(), Scripted(300, lambda request: (lie if request.index == 150 else truth)(request))
    async with linked((reader, liar)):
        with trio.move_on_after(10):
            await reader.feed.download(0, 300)
    assert reader.ends[0].lied
    held = [index for index in range(300) if reader.feed.has(index)]
    assert [reader.feed.get_held(index) for index in held] == [block(index) for index in held]
    assert 150 not in held
    assert len(held) >= 149


@pytest.mark.parametrize("what", ["write_nodes", "write_signature", "write_data"])
async def test_a_disk_without_room_is_not_the_fault_of_the_peer(autojump_clock, monkeypatch, what):
    writer, reader = Place(600), Place()
    log, dice = reader.feed.log, random.Random(1)
    owner, name = (log._files.data, "write_all") if what == "write_data" else (log._files, what)
    write = getattr(owner, name)
    until_s = trio.current_time() + 60.0

    def full(*arguments):
        if trio.current_time() < until_s and dice.random() < 0.7:
            raise OSError(errno.ENOSPC, "no space left")
        write(*arguments)

    monkeypatch.setattr(owner, name, full)
    async with linked((reader, writer)):
        while reader.feed.held(0, 600) < 600 and not reader.ends:
            with suppress(DiskFull):
                await reader.feed.download(0, 600)
            await trio.sleep(1)
    assert reader.feed.length == 600
    assert reader.ends == []


async def test_a_peer_is_not_to_blame_for_answers_to_seeks_that_were_given_up(autojump_clock, monkeypatch):
    writer, reader, dice = Place(600), Place(), random.Random(4)
    files = reader.feed.log._files
    write = files.write_nodes

    def full(nodes):
        if dice.random() < 0.5:
            raise OSError(errno.ENOSPC, "no space left")
        write(nodes)

    async def read(index):
        with suppress(DiskFull):
            await reader.feed.seek(index * 100 + 50)
            assert await reader.feed.get(index) == block(index)

    monkeypatch.setattr(files, "write_nodes", full)
    async with linked((reader, writer)):
        for start in range(0, 600, 6):
            with trio.move_on_after(dice.choice([0.001, 0.1, 5, 30])):
                async with trio.open_nursery() as nursery:
                    for index in range(start, start + 6):
                        nursery.start_soon(read, index)
    assert reader.ends == []


async def test_a_sparse_read_fetches_only_the_block(autojump_clock):
    writer, reader = Place(300), Place()
    async with linked((reader, writer)):
        assert await reader.feed.get(BlockIndex(217)) == block(217)
    assert reader.session.stats.downloaded_blocks == 1
    assert reader.feed.length == 300
    assert reader.feed.held(0, 300) == 1


async def test_the_first_proof_comes_once(autojump_clock):
    writer, reader = Place(300), Place()
    async with linked((reader, writer)):
        await reader.feed.download(0, 300)
    assert len([data for data in reader.of_type(Data) if data.signature is not None]) == 1


async def test_three_writers_share_the_work(autojump_clock):
    reader, writers = Place(), [Place(600) for _ in range(3)]
    async with linked(*((reader, writer) for writer in writers)):
        await until(lambda: reader.session.peer_count == 3)
        await reader.feed.download(0, 600)
    uploaded = [writer.session.stats.uploaded_blocks for writer in writers]
    assert sum(uploaded) == 600
    assert min(uploaded) > 0
    assert len(reader.of_type(Data)) == 600


async def test_readers_exchange_what_they_hold(autojump_clock):
    writer, first, second = Place(100), Place(), Place()
    async with linked((first, writer), (second, first)):
        await first.feed.download(0, 100)
        await second.feed.download(0, 100)
    assert second.feed.held(0, 100) == 100


async def test_a_silent_peer_does_not_hold_the_reader_up(autojump_clock):
    reader, mute, writer = Place(), Scripted(50, silent), Place(50)
    async with linked((reader, mute)), trio.open_nursery() as nursery:
        nursery.start_soon(reader.feed.get, BlockIndex(7))
        await until(mute.requests)
        async with linked((reader, writer)):
            await until(lambda: reader.feed.has(BlockIndex(7)))
    assert writer.session.stats.uploaded_blocks == 1


async def test_a_silent_peer_that_owes_answers_is_dropped(autojump_clock):
    reader, mute = Place(), Scripted(50, silent)
    async with linked((reader, mute)):
        with trio.move_on_after(30):
            await reader.feed.get(BlockIndex(7))
    assert "owes" in reader.ends[0].reason


async def test_a_liar_is_dropped_and_the_reader_goes_on(autojump_clock):
    reader, liar, writer = Place(), Scripted(50, lying(log_of(50))), Place(50)
    async with linked((reader, liar)), trio.open_nursery() as nursery:
        nursery.start_soon(reader.feed.get, BlockIndex(7))
        await until(lambda: reader.ends)
        assert reader.ends[0].lied
        assert reader.session.stats.verify_failures == 1
        assert not reader.feed.has(BlockIndex(7))
        async with linked((reader, writer)):
            await until(lambda: reader.feed.has(BlockIndex(7)))
    assert reader.feed.get_held(BlockIndex(7)) == block(7)


async def test_a_follower_fetches_the_last_block_as_the_feed_grows(autojump_clock):
    writer, reader = Place(3), Place(eager_length=True)
    async with linked((reader, writer)):
        await until(lambda: reader.feed.length == 3)
        await writer.feed.append([block(3)])
        await until(lambda: reader.feed.length == 4)
        await writer.feed.append([block(4), block(5)])
        await until(lambda: reader.feed.length == 6)
        assert [reader.feed.has(BlockIndex(index)) for index in range(6)] == [False, False, True, True, False, True]


async def test_a_sparse_reader_hears_of_growth_only_when_it_asks(autojump_clock):
    writer, reader = Place(3), Place()
    async with linked((reader, writer)):
        await reader.feed.refresh()
        await writer.feed.append([block(3), block(4)])
        await trio.sleep(1)
        assert reader.feed.length == 3
        await reader.feed.refresh()
        assert reader.feed.length == 5
    assert reader.session.stats.downloaded_blocks == 0


async def test_waiting_for_a_length_ends_when_it_is_proven(autojump_clock):
    writer, reader = Place(3), Place()
    async with linked((reader, writer)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.feed.wait_length, 5)
            await trio.sleep(1)
            await writer.feed.append([block(3), block(4)])
        assert reader.feed.length == 5


async def test_refresh_without_peers_returns_at_once(autojump_clock):
    reader, before = Place(), trio.current_time()
    await reader.feed.refresh()
    assert trio.current_time() == before


async def test_refresh_waits_no_longer_than_five_seconds_for_a_claim_without_proof(autojump_clock):
    reader, mute = Place(), Scripted(50, silent)
    async with linked((reader, mute)):
        await until(lambda: reader.session.peer_count)
        before = trio.current_time()
        await reader.feed.refresh()
        assert trio.current_time() - before <= 5.5


async def test_a_byte_is_located_and_its_block_fetched_with_one_question(autojump_clock):
    writer, reader = Place(300), Place()
    async with linked((reader, writer)):
        await reader.feed.refresh()
        before = len(writer.of_type(Request))
        assert await reader.feed.seek(12_345) == (123, 45)
        assert await reader.feed.get(BlockIndex(123)) == block(123)
        assert len(writer.of_type(Request)) == before + 1
    assert reader.feed.held(0, 300) == 1


async def test_a_byte_is_located_in_a_feed_of_uneven_blocks(autojump_clock):
    sizes = [1 + 977 * number % 5000 for number in range(200)]
    writer, reader = Place(0), Place()
    await writer.feed.append([block(number, size) for number, size in enumerate(sizes)])
    async with linked((reader, writer)):
        for number in (0, 77, 143, 199):
            with trio.fail_after(60):
                assert await reader.feed.seek(sum(sizes[:number])) == (number, 0)
    assert reader.session.stats.downloaded_blocks <= 8


async def test_a_byte_of_a_block_that_the_peer_lacks_is_located(autojump_clock):
    writer, reader = Place(300), Place()
    writer.feed.clear(BlockIndex(123), BlockIndex(124))
    async with linked((reader, writer)):
        with trio.move_on_after(10):
            await reader.feed.seek(12_345)
        assert reader.feed.locate(12_345) == (123, 45)


async def test_a_byte_is_located_though_the_peer_ignores_seeks(autojump_clock):
    log = log_of(300)
    truth = honest(log)
    stubborn = Scripted(300, lambda request: [] if request.bytes else truth(request))
    reader = Place()
    async with linked((reader, stubborn)):
        await reader.feed.refresh()
        with trio.fail_after(60):
            assert await reader.feed.seek(29_999) == (299, 99)


async def test_a_read_given_up_is_cancelled_and_its_late_answer_kept(autojump_clock):
    reader, mute = Place(), Scripted(50, silent)
    answer = honest(log_of(50))
    async with linked((reader, mute)):
        await until(lambda: reader.session.peer_count)
        with trio.move_on_after(1):
            await reader.feed.get(BlockIndex(7))
        await until(lambda: Cancel(BlockIndex(7)) in mute.got)
        (request,) = (message for message in mute.got if isinstance(message, Request))
        mute.say(answer(request)[0])
        await until(lambda: reader.feed.has(BlockIndex(7)))


async def test_data_that_nobody_asked_for_is_refused(autojump_clock):
    reader, pushy = Place(), Scripted(50, silent)
    async with linked((reader, pushy)):
        await until(lambda: reader.session.peer_count)
        pushy.say(honest(log_of(50))(Request(BlockIndex(3)))[0])
        await until(lambda: Unhave(BlockIndex(3)) in pushy.got)
        assert reader.feed.length == 0


async def test_a_cleared_block_is_taken_back_and_not_asked_for(autojump_clock):
    writer, reader = Place(20), Place()
    async with linked((reader, writer)):
        await reader.feed.refresh()
        writer.feed.clear(BlockIndex(4), BlockIndex(8))
        await until(lambda: Unhave(BlockIndex(4), 4) in reader.received_messages)
        with trio.move_on_after(1):
            await reader.feed.get(BlockIndex(5))
        assert await reader.feed.get(BlockIndex(8)) == block(8)
    assert [request.index for request in writer.of_type(Request) if not request.hash] == [8]


async def test_a_request_for_a_block_that_is_gone_is_answered_with_unhave(autojump_clock):
    writer, asker = Place(20), Scripted(0, silent)
    writer.feed.clear(BlockIndex(4), BlockIndex(5))
    async with linked((asker, writer)):
        await until(lambda: asker.channel)
        asker.say(Request(BlockIndex(4)))
        asker.say(Request(BlockIndex(700)))
        asker.say(Request(BlockIndex(3)))
        await until(lambda: any(isinstance(message, Data) for message in asker.got))
        assert Unhave(BlockIndex(4)) in asker.got
        assert not writer.ends


async def test_the_same_seek_is_answered_once(autojump_clock):
    writer, asker = Place(20), Scripted(0, silent)
    async with linked((asker, writer)):
        await until(lambda: asker.channel)
        for index in (5, 7, 4):
            asker.say(Request(BlockIndex(index), bytes=1234, hash=True))
        asker.say(Request(BlockIndex(0)))
        await until(lambda: any(isinstance(message, Data) and message.value for message in asker.got))
        assert [message.index for message in asker.got if isinstance(message, Data)] == [12, 0]


async def test_a_want_is_answered_with_its_own_length(autojump_clock):
    writer, asker = Place(20), Scripted(0, silent)
    async with linked((asker, writer)):
        await until(lambda: asker.channel)
        asker.say(Want(BlockIndex(0), 1 << 20))
        asker.say(Want(BlockIndex(5), 8192))
        asker.say(Want(BlockIndex(8192), 8192))
        await until(lambda: len(asker.got) == 4)
        assert asker.got == [
            Status(uploading=True, downloading=False),
            Have(BlockIndex(19)),
            Have(BlockIndex(0), 1 << 20, b"\x0b\x02\xf0"),
            Have(BlockIndex(8192), 8192, b""),
        ]


async def test_who_does_not_upload_answers_nothing(autojump_clock):
    writer, reader = Place(20), Place()
    writer.session.uploading = False
    async with linked((reader, writer)):
        with trio.move_on_after(10):
            await reader.feed.get(BlockIndex(5))
        assert writer.session.stats.uploaded_blocks == 0
        writer.session.uploading = True
        assert await reader.feed.get(BlockIndex(5)) == block(5)


async def test_too_many_waiting_requests_end_the_link(autojump_clock):
    writer, asker = Place(8, size=1 << 20), Scripted(0, silent)
    async with linked((asker, writer)):
        await until(lambda: asker.channel)
        for _ in range(600):
            asker.say(Request(BlockIndex(0)))
        await until(lambda: writer.ends)
        assert writer.ends[0].lied


async def test_what_waits_is_answered_when_the_link_has_room_again(autojump_clock):
    writer, asker = Place(8, size=1 << 20), Scripted(0, silent)
    async with linked((asker, writer)):
        await until(lambda: asker.channel)
        for number in range(40):
            asker.say(Request(BlockIndex(number % 8)))
        await until(lambda: len([message for message in asker.got if isinstance(message, Data)]) == 40)


async def test_extension_messages_reach_the_handler_of_their_name(autojump_clock):
    writer, reader = Place(1), Place()
    heard = []
    reader.session.extensions.register("alpha", lambda link, payload: heard.append(("alpha", payload)))
    reader.session.extensions.register("zeta", lambda link, payload: heard.append(("zeta", payload)))
    writer.session.extensions.register("beta", lambda link, payload: None)
    zeta = writer.session.extensions.register("zeta", lambda link, payload: zeta.send(link, payload[::-1]))
    async with linked((reader, writer)):
        await until(lambda: reader.session.peer_count and writer.session.peer_count)
        await trio.sleep(1)
        zeta.broadcast(b"hello")
        await until(lambda: heard)
    assert heard == [("zeta", b"hello")]


async def test_a_live_link_stays_when_the_peer_switches_both_directions_off(autojump_clock):
    writer, asker = Place(20), Scripted(0, silent)
    async with linked((asker, writer)):
        await until(lambda: asker.channel)
        asker.say(Want(BlockIndex(0), 1 << 20))
        asker.say(Status(uploading=True, downloading=False))
        asker.say(Status(uploading=False, downloading=False))
        asker.say(Status(uploading=False, downloading=True))
        asker.say(Request(BlockIndex(3)))
        await until(lambda: any(isinstance(message, Data) for message in asker.got))
        assert writer.session.peer_count == 1


async def test_a_proof_of_absurd_size_is_a_lie(autojump_clock):
    node = Node(NodeIndex(1 << 40), bytes(32), 5)
    reader, liar = Place(), Scripted(50, lambda request: [Data(request.index, b"x", (node,), bytes(64))])
    async with linked((reader, liar)):
        with trio.move_on_after(1):
            await reader.feed.get(BlockIndex(7))
        assert reader.ends[0].lied


async def test_a_closed_session_leaves_its_channels(autojump_clock):
    writer, reader = Place(20), Place()
    async with linked((reader, writer)):
        await until(lambda: reader.session.peer_count and writer.session.peer_count)
        writer.session.close()
        await until(lambda: not reader.session.peer_count)
        assert reader.ends == []


async def test_watchers_hear_of_peers(autojump_clock):
    writer, reader = Place(20), Place()
    counts = []
    unwatch = reader.session.watch_peers(lambda: counts.append(reader.feed.peer_count))
    async with linked((reader, writer)):
        await until(lambda: counts == [1])
    assert counts == [1, 0]
    unwatch()


async def test_watchers_hear_when_a_peer_turns_out_to_have_nothing_and_when_it_gets_some(autojump_clock):
    author, empty, reader = Place(20), Place(), Place()
    counts = []
    reader.session.watch_peers(lambda: counts.append((reader.feed.peer_count, reader.feed.giver_count)))
    async with linked((reader, empty)):
        await until(lambda: counts[-1:] == [(1, 0)])
        async with linked((empty, author)):
            await empty.feed.get(BlockIndex(3))
            await until(lambda: counts[-1:] == [(1, 1)])
    assert (reader.feed.peer_count, reader.feed.giver_count) == (0, 0)


async def test_without_a_peer_a_block_that_is_not_held_is_said_to_be_so(autojump_clock):
    reader = Place()
    with pytest.raises(NotHeld):
        await reader.feed.get(BlockIndex(0), wait=False)
    assert isinstance(reader.session, FeedSession)


@asynccontextmanager
async def asking(indexes):
    """Give a reader that has asked a peer for these blocks, the true answers, and what makes answers to others."""
    log = log_of(20)
    truth = honest(log)
    reader, peer = Place(), Scripted(20, truth)
    async with linked((reader, peer)), trio.open_nursery() as nursery:
        await reader.feed.get(BlockIndex(0))  # from now on no answer needs a signature
        peer.answer = silent
        for index in indexes:
            nursery.start_soon(reader.feed.download, index, index + 1)
        await until(lambda: set(indexes) <= set(peer.requests()))

        def answer(index):
            (data,) = truth(Request(BlockIndex(index), nodes=reader.feed.log.digest(index)))
            assert data.signature is None
            return data

        yield reader, answer
        nursery.cancel_scope.cancel()


async def test_a_lie_is_not_covered_up_by_the_truth_that_comes_with_it(autojump_clock):
    async with asking([4, 9, 14]) as (reader, answer):
        lie = replace(answer(4), value=b"\xff" + answer(4).value[1:])
        with pytest.raises(RemoteProtocolError):
            reader.session.received(reader.link, [lie, answer(4), answer(9)])
        assert not reader.feed.has(4)


async def test_a_block_that_comes_twice_at_once_counts_once(autojump_clock):
    async with asking([4, 9, 14]) as (reader, answer):
        before = reader.session.stats.downloaded_blocks
        reader.session.received(reader.link, [answer(4), answer(9), answer(9), answer(14)])
        assert [reader.feed.has(index) for index in (4, 9, 14)] == [True] * 3
        assert reader.session.stats.downloaded_blocks == before + 3


async def test_what_nobody_asked_for_is_refused_also_among_answers(autojump_clock):
    async with asking([4, 9]) as (reader, answer):
        reader.session.received(reader.link, [answer(4), answer(14), answer(9)])
        assert [reader.feed.has(index) for index in (4, 9, 14)] == [True, True, False]


@pytest.mark.parametrize("how", ["the link is ended", "the peer is removed", "another exchange has begun on the link"])
async def test_what_comes_after_the_end_in_one_piece_does_not_count(autojump_clock, how):
    writer, peer = Place(20), Scripted(0, silent)
    heard = []

    def hear(link, payload):
        heard.append(payload)
        if how == "the link is ended":
            link.disconnect("enough")
            return
        writer.session.remove_peer(link)
        if how == "another exchange has begun on the link":
            writer.session.add_peer(link, peer.channel)

    writer.session.extensions.register("test", hear)
    async with linked((peer, writer)):
        await until(lambda: peer.channel is not None and writer.session.peer_count)
        writer.session.received(
            writer.link, [Options(("test",)), Extension(0, b"one"), Extension(0, b"two"), Want(BlockIndex(0), 1 << 20)]
        )
        await trio.sleep(1)
        assert heard == [b"one"]
        assert not [message for message in peer.got if isinstance(message, Have)], "the want was answered"
