"""Two connections joined without a stream, and the keys they use."""

from dataclasses import dataclass, field

from nacl import bindings

from ddrive.protocol import Connection, Event

FIRST_SECRET, SECOND_SECRET = b"\x01" * 32, b"\x02" * 32


def public_of(secret: bytes) -> bytes:
    """Return the X25519 public key of `secret`."""
    return bindings.crypto_scalarmult_base(secret)


@dataclass
class Side:
    """One end of a pair; `events` collects what happened there."""

    connection: Connection
    events: list[Event] = field(default_factory=list)

    def inject(self, frame: bytes) -> None:
        """Send bytes in place of frames, as a peer with a mind of its own would."""
        self.connection._queue(frame)

    def take(self) -> list[Event]:
        """Return the events since the last call."""
        events, self.events = self.events + self.connection.take_events(), []
        return events


@dataclass
class Pair:
    """Two sides of one connection; `settle` carries bytes to and fro until both are quiet."""

    first: Side
    second: Side
    chunk_bytes: int = 1 << 20

    def settle(self) -> None:
        """Deliver everything that both sides want to send."""
        busy = True
        while busy:
            busy = False
            for here, there in ((self.first, self.second), (self.second, self.first)):
                data = here.connection.data_to_send()
                busy = busy or bool(data)
                for start in range(0, len(data), self.chunk_bytes):
                    there.events += there.connection.receive_data(data[start : start + self.chunk_bytes])


def new_pair(*, chunk_bytes: int = 1 << 20, settled: bool = True) -> Pair:
    """Return an initiator and a responder with fixed keys, with the handshake done when `settled`."""
    first = Connection(initiator=True, static_secret=FIRST_SECRET, nonce=b"\xa0" * 24, ephemeral_secret=b"\x03" * 32)
    second = Connection(initiator=False, static_secret=SECOND_SECRET, nonce=b"\xa1" * 24, ephemeral_secret=b"\x04" * 32)
    pair = Pair(Side(first), Side(second), chunk_bytes)
    if settled:
        pair.settle()
        pair.first.take(), pair.second.take()
    return pair
