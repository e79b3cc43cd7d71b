"""Feeds of one author under random growth, clearing, loss and delay: a reader shows only what the author has written.

No clock and no streams: the two sessions talk through stand-ins for links that hand messages over when the model says
so, in the order of each direction. A link that is lost takes along what was under way; with two links, answers and
announcements of one overtake those of the other.
"""

from collections import deque

import pytest
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ddrive.feed.feed import Feed
from ddrive.feed.log import FeedLog
from ddrive.feed.storage import MemoryDirectory
from ddrive.ids import ChannelId
from ddrive.protocol.messages import Message
from ddrive.replication.session import FeedSession
from tests.replication.peers import PAIR, block


class Wire:
    """A link as one session sees it; what it sends waits in `sent`."""

    def __init__(self) -> None:
        self.sent: deque[Message] = deque()
        self.room = True
        self.bytes_received = 0
        self.address = "model"
        self.reason = ""
        self.end = None

    def send(self, channel: ChannelId, *messages: Message) -> None:
        self.sent += messages

    def is_answering(self, channel: ChannelId) -> bool:
        return False

    def in_flight_bytes(self, most: int) -> int:
        return most

    def disconnect(self, reason: str) -> None:
        self.reason = reason

    def close_channel(self, channel: ChannelId) -> None:
        """Nothing to do."""


class Side:
    """One feed with its session and its ends of the wires to the other side."""

    def __init__(self, *, author: bool) -> None:
        secret = PAIR.secret_key if author else None
        self.log = FeedLog.create(MemoryDirectory(), key=PAIR.public_key, secret_key=secret)
        self.feed = Feed(self.log)
        self.session = FeedSession(self.feed)
        self.feed.set_source(self.session)


class Exchange(RuleBasedStateMachine):
    """An author and a reader with one or two links between them."""

    def __init__(self) -> None:
        super().__init__()
        self.wires: list[tuple[Wire, Wire]] = []
        self.written: list[bytes] = []

    @initialize()
    def begin(self) -> None:
        self.author, self.reader = Side(author=True), Side(author=False)
        self.wish = self.reader.session.want_blocks(0, 1 << 20, urgent=False)  # type: ignore[arg-type]

    @precondition(lambda self: len(self.wires) < 2)
    @rule()
    def connect(self) -> None:
        wires = Wire(), Wire()
        self.wires.append(wires)
        for side, wire in zip((self.author, self.reader), wires, strict=True):
            side.session.add_peer(wire, ChannelId(1))  # type: ignore[arg-type]

    @precondition(lambda self: self.wires)
    @rule(number=st.integers(0, 1))
    def lose_the_link(self, number: int) -> None:
        wires = self.wires.pop(number % len(self.wires))
        for side, wire in zip((self.author, self.reader), wires, strict=True):
            side.session.remove_peer(wire)  # type: ignore[arg-type]

    @rule(count=st.integers(1, 9))
    def grow(self, count: int) -> None:
        blocks = [block(len(self.written) + place, (len(self.written) + place) % 50) for place in range(count)]
        self.written += blocks
        self.author.log.append(blocks)
        self.author.feed._show(len(self.written) - count, len(self.written))

    @rule(start=st.integers(0, 60), count=st.integers(1, 12))
    def clear_at_the_reader(self, start: int, count: int) -> None:
        self.reader.feed.clear(start, start + count)

    @rule(start=st.integers(0, 60), count=st.integers(1, 3))
    def clear_at_the_author(self, start: int, count: int) -> None:
        self.author.feed.clear(start, start + count)

    @precondition(lambda self: self.wires)
    @rule(number=st.integers(0, 1), to_reader=st.booleans(), count=st.integers(1, 40))
    def deliver(self, number: int, to_reader: bool, count: int) -> None:
        wires = self.wires[number % len(self.wires)]
        self.hand_over(wires, to_reader, count)

    def hand_over(self, wires: tuple[Wire, Wire], to_reader: bool, count: int) -> None:
        source, target = wires if to_reader else reversed(wires)
        side = self.reader if to_reader else self.author
        messages = [source.sent.popleft() for _ in range(min(count, len(source.sent)))]
        target.bytes_received += 1000 * len(messages)
        side.session.received(target, messages)  # type: ignore[arg-type]

    @rule(seconds=st.floats(0.1, 4.0))
    def wait(self, seconds: float) -> None:
        CLOCK.now += seconds
        for side in (self.author, self.reader):
            side.session.tick(CLOCK.now)

    @invariant()
    def the_reader_shows_only_what_was_written(self) -> None:
        if not hasattr(self, "reader"):
            return
        log = self.reader.log
        assert log.length <= len(self.written)
        for first, last in log.runs(0, len(self.written) + 8):
            assert [log.block(index) for index in range(first, last)] == self.written[first:last]

    def teardown(self) -> None:
        """With a link that loses nothing, the reader gets all that the author still holds."""
        if not hasattr(self, "reader"):
            return
        while self.wires:
            self.lose_the_link(0)
        self.connect()
        for _ in range(200):
            if not any(wire.sent for wire in self.wires[0]):
                self.wait(0.3)
            self.hand_over(self.wires[0], True, 1000)
            self.hand_over(self.wires[0], False, 1000)
        held = [index for index in range(len(self.written)) if self.author.log.has(index)]
        assert [index for index in held if not self.reader.log.has(index)] == []
        assert not any(wire.reason for wire in self.wires[0])


class Clock:
    """The time that the sessions see."""

    now = 0.0


CLOCK = Clock()


@pytest.fixture(autouse=True)
def model_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let time pass only when the model says so."""
    CLOCK.now = 0.0
    monkeypatch.setattr(trio, "current_time", lambda: CLOCK.now)


@pytest.mark.usefixtures("model_time")
class TestExchange(Exchange.TestCase):  # type: ignore[name-defined,misc]
    settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_the_model_notices_a_wrong_block() -> None:
    machine = Exchange()
    machine.begin()
    machine.grow(3)
    machine.connect()
    machine.written[1] = b"something else"
    machine.teardown()
    with pytest.raises(AssertionError):
        machine.the_reader_shows_only_what_was_written()
