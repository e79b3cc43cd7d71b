"""What one peer is answered."""

import errno
import logging

import pytest

from ddrive.errors import LocalProtocolError
from ddrive.ids import BlockIndex
from ddrive.protocol.messages import Data, Message, Request, Unhave
from ddrive.replication.peer import PeerStats
from ddrive.replication.serving import Uploads
from tests.replication.peers import Place, block


async def test_what_does_not_fit_into_a_frame_is_not_counted_on():
    place, sent, stats = Place(8), list[Message](), PeerStats()

    def send(*messages: Message) -> None:
        if any(isinstance(message, Data) and message.index == 0 for message in messages):
            raise LocalProtocolError("too large")
        sent.extend(messages)

    uploads = Uploads(send, (stats,))
    uploads.begin_account()
    for index in range(2):
        uploads.add(Request(BlockIndex(index), nodes=0))
        uploads.serve(place.feed, place.feed.log, lambda: True)
    (answer,) = sent
    assert isinstance(answer, Data)
    assert answer.value == block(1)
    assert answer.signature is not None
    assert 0 in [node.number for node in answer.nodes]
    assert (stats.uploaded_blocks, stats.uploaded_bytes) == (1, len(block(1)))


async def test_a_block_that_the_disk_does_not_read_is_refused_and_others_are_given(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)  # the error is expected
    place, sent = Place(8), list[Message]()
    read = place.feed.log.block

    def read_alone(index: int) -> bytes:
        if index == 3:
            raise OSError(errno.EIO, "a bad sector")
        return read(index)

    def read_run(start: int, end: int) -> list[bytes] | None:
        raise OSError(errno.EIO, "a bad sector")

    monkeypatch.setattr(place.feed.log, "block", read_alone)
    monkeypatch.setattr(place.feed.log, "blocks", read_run)
    uploads = Uploads(lambda *messages: sent.extend(messages), (PeerStats(),))
    for index in range(8):
        uploads.add(Request(BlockIndex(index)))
    uploads.serve(place.feed, place.feed.log, lambda: True)
    assert [isinstance(answer, Data) for answer in sent] == [index != 3 for index in range(8)]
    assert sent[3] == Unhave(BlockIndex(3))
