"""Messages of a program to the peers of a feed, and to the peer of a link."""

import pytest
import trio

from ddrive.errors import Closed, TooLarge
from ddrive.standalone import PeerOpened
from tests.standalone.pairs import author_and_copy, join


@pytest.mark.parametrize(("encoding", "value"), [("binary", b"\x00\xff"), ("utf-8", "grüße"), ("json", {"a": [1]})])
async def test_a_message_arrives_with_its_sender(encoding, value, autojump_clock):
    async with author_and_copy(joined=False) as (author, copy):
        ours, theirs = (feed.register_extension("talk", encoding) for feed in (author, copy))
        with theirs.messages() as messages:
            join(author, copy)
            await copy.update(1)
            ours.send(value, author.peers[0])
            message = await anext(messages)
            assert (message.value, message.peer) == (value, copy.peers[0])


async def test_a_broadcast_reaches_every_peer(autojump_clock):
    async with author_and_copy(joined=False) as (author, first):
        ours, theirs = (feed.register_extension("talk") for feed in (author, first))
        with theirs.messages() as messages:
            join(author, first)
            join(author, first)
            while len(author.peers) < 2:  # noqa: ASYNC110
                await trio.sleep(0.1)
            ours.broadcast(b"all")
            assert [(await anext(messages)).value for _ in range(2)] == [b"all", b"all"]


async def test_an_extension_that_is_registered_later_works(autojump_clock):
    async with author_and_copy() as (author, copy):
        await copy.update(1)
        first = author.register_extension("zeta", "utf-8")
        author.register_extension("alpha")
        theirs = copy.register_extension("zeta", "utf-8")
        with theirs.messages() as messages:
            await trio.sleep(1)
            first.broadcast("renumbered")
            assert (await anext(messages)).value == "renumbered"


async def test_a_message_that_is_sent_as_soon_as_there_is_a_peer_arrives(autojump_clock):
    async with author_and_copy(joined=False) as (author, copy):
        ours, theirs = author.register_extension("talk"), copy.register_extension("talk")
        with author.events(PeerOpened) as opened, theirs.messages() as messages:
            one, other = join(author, copy)
            on_link, on_other = one.register_extension("link"), other.register_extension("link")
            with on_other.messages() as link_messages:
                await one.connected()
                on_link.broadcast(b"to the link")
                ours.send(b"at once", (await anext(opened)).peer)
                assert (await anext(link_messages)).value == b"to the link"
                assert (await anext(messages)).value == b"at once"


async def test_a_peer_without_the_extension_never_sees_a_message(autojump_clock):
    async with author_and_copy(joined=False) as (author, copy):
        ours, other = author.register_extension("talk"), copy.register_extension("other")
        with other.messages() as messages:
            join(author, copy)
            await copy.update(1)
            ours.broadcast(b"lost")
            with trio.move_on_after(5) as scope:
                await anext(messages)
            assert scope.cancelled_caught


async def test_a_message_that_cannot_be_decoded_is_reported_and_the_link_stays(autojump_clock):
    async with author_and_copy(joined=False) as (author, copy):
        ours, theirs = author.register_extension("talk"), copy.register_extension("talk", "json")
        with theirs.errors() as errors:
            join(author, copy)
            await copy.update(1)
            ours.broadcast(b"{")
            assert "talk" in str((await anext(errors)).error)
            assert copy.peers[0].is_open


async def test_a_closed_extension_hears_nothing(autojump_clock):
    async with author_and_copy() as (author, copy):
        ours, theirs = author.register_extension("talk"), copy.register_extension("talk")
        messages = theirs.messages()
        await copy.update(1)
        theirs.close()
        ours.broadcast(b"late")
        assert [message async for message in messages] == []


async def test_the_link_itself_has_extensions(autojump_clock):
    async with author_and_copy(joined=False) as (author, copy):
        one, other = join(author, copy)
        ours, theirs = (link.register_extension("talk", "json") for link in (one, other))
        with theirs.messages() as messages, copy.events(PeerOpened) as opened:
            await anext(opened)
            ours.broadcast([1])
            assert (await anext(messages)).value == [1]


async def test_who_sent_a_message_on_a_link_can_be_answered(autojump_clock):
    async with author_and_copy(joined=False) as (author, copy):
        one, other = join(author, copy)
        join(author, copy)
        ours, theirs = (link.register_extension("talk", "utf-8") for link in (one, other))
        with ours.messages() as answers, theirs.messages() as messages:
            await copy.get(0)
            ours.broadcast("hello")
            message = await anext(messages)
            for peer in [*copy.peers, message.peer]:
                theirs.send("again", peer)
            await trio.sleep(1)
            ours.close()
            assert [answer.value async for answer in answers] == ["again", "again"]


async def test_the_extensions_of_a_link_end_with_it(autojump_clock):
    async with author_and_copy(joined=False) as (author, copy):
        one, _ = join(author, copy)
        messages = one.register_extension("talk").messages()
        await one.connected()
        one.close()
        with trio.fail_after(5):
            assert [message async for message in messages] == []
        with pytest.raises(Closed):
            one.register_extension("more")


async def test_the_sender_on_a_link_is_always_the_same_object(autojump_clock):
    async with author_and_copy(joined=False) as (author, copy):
        one, other = join(author, copy)
        ours, theirs = (link.register_extension("talk") for link in (one, other))
        with theirs.messages() as messages:
            await copy.get(0)
            ours.broadcast(b"1")
            ours.broadcast(b"2")
            assert (await anext(messages)).peer is (await anext(messages)).peer


@pytest.mark.parametrize("of_link", [False, True])
async def test_a_name_that_is_registered_anew_ends_the_extension_before(of_link: bool, autojump_clock):
    async with author_and_copy() as (author, copy):
        place = join(author, copy)[0] if of_link else author
        before = place.register_extension("talk").messages()
        after = place.register_extension("talk", "utf-8")
        with trio.fail_after(5):
            assert [message async for message in before] == []
        assert after.name == "talk"


@pytest.mark.parametrize("of_link", [False, True])
async def test_a_name_that_ends_links_is_refused(of_link: bool, autojump_clock):
    async with author_and_copy() as (author, copy):
        link = join(author, copy)[0]
        place = link if of_link else author
        await copy.get(0)
        with pytest.raises(ValueError, match="255 bytes"):
            place.register_extension("ü" * 128)
        for number in range(256):
            place.register_extension(str(number))
        with pytest.raises(ValueError, match="256 extensions"):
            place.register_extension("one more")
        place.register_extension("255")
        await trio.sleep(1)
        assert link.end is None


async def test_a_message_that_no_link_carries_is_refused(autojump_clock):
    async with author_and_copy() as (author, copy):
        talk, heard = author.register_extension("talk"), copy.register_extension("talk")
        await copy.get(0)
        with heard.messages() as messages:
            with pytest.raises(TooLarge, match="talk"):
                talk.broadcast(bytes(8 * 1024 * 1024))
            talk.broadcast(bytes(8 * 1024 * 1024 - 8))
            assert len((await anext(messages)).value) == 8 * 1024 * 1024 - 8
