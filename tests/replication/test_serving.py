"""What one peer is answered."""

from ddrive.errors import LocalProtocolError
from ddrive.ids import BlockIndex
from ddrive.protocol.messages import Data, Message, Request
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
