"""Links to peers over loopback TCP: who is dialled, who is let in, and that one link's trouble stays its own."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from ddrive.crypto import KeyPair
from ddrive.errors import RemoteProtocolError
from ddrive.ids import BlockIndex, ChannelId
from ddrive.protocol import Data, Have, Link, Message, static_public_key
from ddrive.swarm import Peer, Swarm, open_swarm
from ddrive.swarm import members as members_module
from ddrive.swarm import swarm as swarm_module
from ddrive.swarm.dialing import OURSELVES
from tests.protocol.recorder import Recorder

FEED = KeyPair.from_seed(b"\x07" * 32).public_key
SECRETS = sorted((bytes((number,)) * 32 for number in range(1, 6)), key=static_public_key)  # by public key


@asynccontextmanager
async def swarm_of(place: int, handler: Recorder, listen: str = "127.0.0.1:0") -> AsyncIterator[Swarm]:
    """Give a swarm with the `place`th smallest public key."""
    async with open_swarm(handler, listen=listen, static_secret=SECRETS[place]) as swarm:
        yield swarm


async def until(condition: Callable[[], object]) -> None:
    """Return when `condition` holds; the caller's deadline is that of the test."""
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.005)


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_added_peer_is_dialled_and_listed() -> None:
    async with swarm_of(0, near := Recorder(FEED)) as here, swarm_of(1, far := Recorder(FEED)) as there:
        here.add_peer(there.listen_addresses[0])
        assert here.peers() == [Peer(there.listen_addresses[0], None, False, None)]
        await near.wait_for("channel_opened")
        await far.wait_for("channel_opened")
        assert here.peers() == [Peer(there.listen_addresses[0], there.public_key, True, None, near.links[0])]
        (visitor,) = there.peers()
        assert (visitor.key, visitor.connected, visitor.source) == (here.public_key, True, None)
        assert here.links == near.links
        near.links[0].send(near.channels[0], Have(BlockIndex(5)))
        await far.wait_for("received")
    assert near.calls[-1] == far.calls[-1] == "closed"


@pytest.mark.parametrize("listen", ["[::1]:0", "localhost:0"])
async def test_other_ways_to_write_an_address(listen: str) -> None:
    async with swarm_of(0, near := Recorder()) as here, swarm_of(1, Recorder(), listen) as there:
        port = there.listen_addresses[0].rpartition(":")[2]
        here.add_peer(listen.replace(":0", f":{port}"))
        await near.wait_for("established")


async def test_small_messages_are_not_held_back() -> None:
    async with swarm_of(0, near := Recorder()) as here, swarm_of(1, Recorder()) as there:
        here.add_peer(there.listen_addresses[0])
        await near.wait_for("established")
        stream = near.links[0]._stream
        assert isinstance(stream, trio.SocketStream)
        assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("places", [(0, 1), (1, 0)])
async def test_two_peers_that_dial_each_other_keep_the_link_of_the_smaller_key(places: tuple[int, int]) -> None:
    near, far = Recorder(), Recorder()
    async with swarm_of(places[0], near) as here, swarm_of(places[1], far) as there:
        here.add_peer(there.listen_addresses[0])
        there.add_peer(here.listen_addresses[0])
        smaller, larger = (here, there) if places[0] == 0 else (there, here)

        def settled() -> bool:
            return all(
                [member.address is not None for member in swarm._members] == [began]
                and [member.key for member in swarm._members] == [other.public_key]
                for swarm, other, began in ((smaller, larger, True), (larger, smaller, False))
            )

        await until(settled)
        assert [peer.connected for peer in (*here.peers(), *there.peers())] == [True, True]
        assert not here._plan.due(trio.current_time() + 1000)
        assert not there._plan.due(trio.current_time() + 1000)


async def test_peer_known_by_two_addresses_is_linked_once() -> None:
    async with swarm_of(0, near := Recorder()) as here, swarm_of(1, far := Recorder(), "localhost:0") as there:
        port = there.listen_addresses[0].rpartition(":")[2]
        here.add_peer(f"localhost:{port}")
        await near.wait_for("established")
        here.add_peer(there.listen_addresses[0])
        await until(lambda: len(here._members) == 1 and all(peer.key for peer in here.peers()))
        assert [peer.connected for peer in here.peers()] == [True, True]
    assert near.calls == ["established", "closed"]
    assert "established" in far.calls


async def test_own_address_is_noticed() -> None:
    async with swarm_of(0, handler := Recorder()) as swarm:
        swarm.add_peer(swarm.listen_addresses[0])
        await until(lambda: swarm.peers()[0].last_error and not swarm._members)
        assert swarm.peers()[0].last_error == OURSELVES
        assert not swarm._plan.due(trio.current_time() + 1000)
    assert handler.calls == []


@pytest.mark.parametrize("copy_dials", [False, True])
async def test_a_copy_with_our_key_is_linked_when_it_has_another_key(copy_dials: bool) -> None:
    met: list[bool] = []

    def take_another(we_dialled: bool) -> bytes:
        met.append(we_dialled)
        return SECRETS[1]

    async with (
        open_swarm(near := Recorder(FEED), listen="127.0.0.1:0", static_secret=SECRETS[0]) as here,
        open_swarm(
            far := Recorder(FEED), listen="127.0.0.1:0", static_secret=SECRETS[0], copy_met=take_another
        ) as copy,
    ):
        dialling, dialled = (copy, here) if copy_dials else (here, copy)
        dialling.add_peer(dialled.listen_addresses[0])
        await near.wait_for("channel_opened")
        await far.wait_for("channel_opened")
        assert met == [copy_dials]
        assert (here.public_key, copy.public_key) == tuple(map(static_public_key, SECRETS[:2]))
        assert near.links[0].remote_public_key == copy.public_key
        assert dialling.peers()[0].connected


async def test_peer_that_comes_up_later_is_found() -> None:
    port = free_port()
    async with swarm_of(0, near := Recorder()) as here:
        here.add_peer(f"127.0.0.1:{port}")
        await until(lambda: here.peers()[0].last_error)
        async with swarm_of(1, Recorder(), f"127.0.0.1:{port}"):
            await near.wait_for("established")
            assert here.peers()[0].last_error is None
        await near.wait_for("closed")
        await until(lambda: here.peers()[0].last_error)
        async with swarm_of(1, Recorder(), f"127.0.0.1:{port}"):
            await near.wait_for("established", 2)


async def test_whoever_turns_us_away_is_known_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members_module, "MAX_INCOMING", 0)
    async with swarm_of(0, Recorder()) as here, swarm_of(1, Recorder()) as full:
        here.add_peer(full.listen_addresses[0])
        (target,) = here._plan.targets.values()
        target.steady_s = trio.current_time()
        await until(lambda: here.peers()[0].last_error)
        assert target.steady_s < 0
        assert "it may have no room" in str(here.peers()[0].last_error)


async def test_unknown_host_is_reported() -> None:
    async with swarm_of(0, Recorder()) as here:
        here.add_peer("no-such-host.invalid:4000")
        await until(lambda: here.peers()[0].last_error)


async def test_asking_again_dials_at_once() -> None:
    port = free_port()
    async with swarm_of(0, near := Recorder()) as here:
        here.add_peer(f"127.0.0.1:{port}")
        await until(lambda: here.peers()[0].last_error)
        here._plan.targets[next(iter(here._plan.targets))].next_s += 1000
        async with swarm_of(1, Recorder(), f"127.0.0.1:{port}"):
            here.add_peer(f"127.0.0.1:{port}")
            await near.wait_for("established")


async def test_removed_peer_is_left_and_not_dialled_again() -> None:
    async with swarm_of(0, near := Recorder()) as here, swarm_of(1, far := Recorder()) as there:
        here.add_peer(there.listen_addresses[0])
        await near.wait_for("established")
        here.remove_peer(there.listen_addresses[0])
        await far.wait_for("closed")
        await until(lambda: not here._members)
        assert here.peers() == []
        here.remove_peer(there.listen_addresses[0])


async def test_peer_removed_while_it_is_dialled_is_not_linked() -> None:
    async with swarm_of(0, near := Recorder()) as here, swarm_of(1, Recorder()) as there:
        here.add_peer(there.listen_addresses[0])
        while not here._members:
            await trio.lowlevel.checkpoint()
        here.remove_peer(there.listen_addresses[0])
        await until(lambda: not here._members and not there._members)
    assert near.calls == []


async def test_liar_is_dropped_and_refused_and_others_are_not() -> None:
    def judge(link: Link, channel: ChannelId, message: Message) -> None:
        if isinstance(message, Data):
            raise RemoteProtocolError("block 0 does not verify")

    async with (
        swarm_of(0, near := Recorder(FEED, on_message=judge)) as here,
        swarm_of(1, liar := Recorder(FEED)) as bad,
        swarm_of(2, honest := Recorder(FEED)) as good,
    ):
        here.add_peer(bad.listen_addresses[0])
        here.add_peer(good.listen_addresses[0])
        await liar.wait_for("channel_opened")
        await honest.wait_for("channel_opened")
        liar.links[0].send(liar.channels[0], Data(BlockIndex(0), b"wrong"))
        await near.wait_for("closed")
        bad.add_peer(here.listen_addresses[0])  # the liar comes back by itself
        await until(lambda: [peer.last_error for peer in bad.peers() if peer.source] not in ([], [None]))
        assert "refuse us for some minutes" in str([peer.last_error for peer in bad.peers()])
        honest.links[0].send(honest.channels[0], Have(BlockIndex(0)))
        await near.wait_for("received")
        assert [peer.last_error for peer in here.peers()] == ["block 0 does not verify", None]
        assert [peer.connected for peer in here.peers()] == [False, True]
    assert near.calls.count("established") == 2


async def test_failure_in_one_link_leaves_the_others_alone(caplog: pytest.LogCaptureFixture) -> None:
    def fail(link: Link, channel: ChannelId, message: Message) -> None:
        raise ValueError("a mistake of ours")

    async with (
        swarm_of(0, near := Recorder(FEED, on_message=fail)) as here,
        swarm_of(1, one := Recorder(FEED)) as first,
        swarm_of(2, two := Recorder(FEED)) as second,
    ):
        here.add_peer(first.listen_addresses[0])
        here.add_peer(second.listen_addresses[0])
        await one.wait_for("channel_opened")
        await two.wait_for("channel_opened")
        one.links[0].send(one.channels[0], Have(BlockIndex(0)))
        await near.wait_for("closed")
        assert [link.remote_public_key for link in here.links] == [second.public_key]
    assert "a mistake of ours" in caplog.text


async def test_visitors_that_do_not_shake_hands_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members_module, "MAX_INCOMING_HANDSHAKES", 3)
    async with swarm_of(0, Recorder()) as here:
        host, _, port = here.listen_addresses[0].rpartition(":")
        streams = [await trio.open_tcp_stream(host, int(port)) for _ in range(5)]
        closed = 0
        with trio.fail_after(20):
            for stream in streams[:2]:  # those who came first make room
                with suppress(trio.BrokenResourceError):
                    assert await stream.receive_some(1) == b""
                closed += 1
        assert closed == 2
        await until(lambda: len(here._members) == 3)
        for stream in streams:
            await stream.aclose()
        await until(lambda: not here._members)


async def test_visitors_that_do_not_shake_hands_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("MAX_INCOMING_HANDSHAKES", "MAX_INCOMING", "MAX_LINKS"):
        monkeypatch.setattr(members_module, limit, 2)
    async with swarm_of(0, near := Recorder()) as here, swarm_of(1, Recorder()) as honest:
        host, _, port = here.listen_addresses[0].rpartition(":")
        streams = [await trio.open_tcp_stream(host, int(port)) for _ in range(2)]
        await until(lambda: len(here._members) == 2)
        honest.add_peer(here.listen_addresses[0])
        await near.wait_for("established")
        for stream in streams:
            await stream.aclose()


async def test_visitors_that_want_nothing_of_ours_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members_module, "MAX_INCOMING", 2)
    monkeypatch.setattr(members_module, "STRANGER_S", 0.0)
    async with (
        swarm_of(0, near := Recorder(FEED)) as here,
        swarm_of(1, friend := Recorder(FEED)) as first,
        swarm_of(2, Recorder()) as second,
        swarm_of(3, Recorder(FEED)) as third,
    ):
        first.add_peer(here.listen_addresses[0])
        await friend.wait_for("channel_opened")
        second.add_peer(here.listen_addresses[0])
        await until(lambda: len(here.links) == 2)
        third.add_peer(here.listen_addresses[0])
        await until(lambda: {link.remote_public_key for link in here.links} == {first.public_key, third.public_key})
    assert near.calls.count("established") == 3


async def test_links_are_bounded_and_dials_wait_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swarm_module, "MAX_LINKS", 1)
    async with (
        swarm_of(0, near := Recorder()) as here,
        swarm_of(1, one := Recorder()) as first,
        swarm_of(2, two := Recorder()) as second,
    ):
        here.add_peer(first.listen_addresses[0])
        await near.wait_for("established")
        await one.wait_for("established")
        here.add_peer(second.listen_addresses[0])
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert two.calls == []
        here.remove_peer(first.listen_addresses[0])
        await near.wait_for("established", 2)
        await two.wait_for("established")


async def test_strangers_cannot_take_all_links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members_module, "MAX_INCOMING", 1)
    async with (
        swarm_of(0, near := Recorder()) as here,
        swarm_of(1, Recorder()) as first,
        swarm_of(2, two := Recorder()) as second,
    ):
        first.add_peer(here.listen_addresses[0])
        await near.wait_for("established")
        second.add_peer(here.listen_addresses[0])
        await until(lambda: second.peers()[0].last_error)
        assert two.calls == []
        here.add_peer(second.listen_addresses[0])
        await near.wait_for("established", 2)


async def test_what_is_no_address_is_refused() -> None:
    async with swarm_of(0, Recorder()) as here:
        for call in (here.add_peer, here.remove_peer):
            with pytest.raises(ValueError, match="HOST:PORT"):
                call("nonsense")


async def test_busy_port_is_an_os_error() -> None:
    async with swarm_of(0, Recorder()) as here:
        with pytest.raises(OSError, match="in use"):
            async with swarm_of(1, Recorder(), here.listen_addresses[0]):
                pass


async def test_error_of_the_caller_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError):
        async with swarm_of(0, Recorder()):
            raise KeyError("mine")
