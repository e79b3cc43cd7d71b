"""Buffers that go straight to the kernel."""

import socket

import pytest
import trio
import trio.testing

from ddrive.protocol.sending import STRAIGHT_BYTES, Send, sender


async def connected() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Return both ends of a TCP connection."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        near = await trio.testing.open_stream_to_socket_listener(listener)
        return near, await listener.accept()


async def forever(send: Send) -> None:
    """Send until that fails."""
    while True:
        await send(memoryview(bytes(STRAIGHT_BYTES)))


async def test_more_than_the_kernel_takes_arrives_whole_and_in_order():
    near, far = await connected()
    content = bytes(range(256)) * 4096 * 24
    received = bytearray()

    async def read() -> None:
        async for chunk in far:
            received.extend(chunk)

    async with near, far, trio.open_nursery() as nursery:
        nursery.start_soon(read)
        send = sender(near)
        for start in range(0, len(content), 100_000):
            await send(memoryview(content)[start : start + 100_000])
        await near.send_eof()
    assert received == content


async def test_other_tasks_have_their_turn_although_the_kernel_takes_everything():
    near, far = await connected()
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with near, far, trio.open_nursery() as nursery:
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * STRAIGHT_BYTES)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * STRAIGHT_BYTES)
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 8 * STRAIGHT_BYTES)
        nursery.start_soon(other)
        send = sender(near)
        for _ in range(8):
            await send(memoryview(bytes(STRAIGHT_BYTES // 2)))
        nursery.cancel_scope.cancel()
    assert turns >= 2


async def test_many_connections_together_keep_the_event_loop_no_longer_than_a_few():
    piece, links, turns = STRAIGHT_BYTES // 4, 16, [0]
    pairs = [await connected() for _ in range(links)]

    async def send_much(send: Send) -> None:
        for _ in range(8):
            await send(memoryview(bytes(piece)))
            turns[-1] += piece

    async with trio.open_nursery() as nursery:
        for near, far in pairs:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * STRAIGHT_BYTES)
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * STRAIGHT_BYTES)
            nursery.start_soon(send_much, sender(near))
        for _ in range(20):
            await trio.lowlevel.checkpoint()
            turns.append(0)
        nursery.cancel_scope.cancel()
    for end in (end for pair in pairs for end in pair):
        await trio.aclose_forcefully(end)
    assert 0 < max(turns) <= 2 * (STRAIGHT_BYTES + links * piece)  # what we count as one turn may be two


async def test_a_connection_that_the_peer_has_reset_is_broken():
    near, far = await connected()
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # close with a reset
    await far.aclose()
    send = sender(near)
    async with near:
        with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
            await forever(send)  # the reset may take a moment


async def test_a_closed_connection_is_broken():
    near, far = await connected()
    send = sender(near)
    await near.aclose()
    await far.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await send(memoryview(b"x"))


async def test_waiting_for_a_peer_that_takes_nothing_can_be_cancelled():
    near, far = await connected()
    async with near, far:
        with trio.move_on_after(0.2) as scope:
            await forever(sender(near))
        assert scope.cancelled_caught
