"""One walk towards a target: which node to ask next, and when the nearest ones are found.

The walk asks the nearest nodes that it has heard of, learns nearer ones from the answers, and ends when the 20 nearest
that answer at all have answered. Nothing here sends, waits or knows the time.
"""

from dataclasses import dataclass
from enum import Enum, auto

from ddrive.swarm.dht_rpc import Contact, distance
from ddrive.swarm.static import Address

NEAREST = 20  # nodes that a walk is after, and that keep an announcement
AT_ONCE = 12  # nodes asked at the same time
MAX_HEARD = 400  # nodes that a walk remembers: the nearest
MAX_ASKED = 160  # in one walk; one in a network of a million asks about 60


class _State(Enum):
    HEARD = auto()
    ASKED = auto()
    ANSWERED = auto()
    OUT = auto()  # silent, or not one that keeps anything for others


@dataclass(slots=True)
class _Entry:
    id: bytes | None  # None: a given address of which we do not know who is there
    distance: int  # to the target; -1 for a given address, so that it comes first
    state: _State = _State.HEARD
    token: bytes | None = None


class Search:
    """The nodes that a walk towards `target` has heard of."""

    def __init__(self, target: bytes) -> None:
        self.target = target
        self.answers = 0
        self._entries: dict[Address, _Entry] = {}
        self._asked = 0
        self._in_flight = 0

    def add_given(self, address: Address) -> None:
        """Ask whoever is at `address` first."""
        self._entries.setdefault(address, _Entry(None, -1))

    def add(self, contacts: tuple[Contact, ...] | list[Contact]) -> None:
        """Take note of nodes that somebody has told of."""
        for contact in contacts:
            self._entries.setdefault(contact.address, _Entry(contact.id, distance(contact.id, self.target)))
        if len(self._entries) > MAX_HEARD:
            far = sorted(
                (address for address, entry in self._entries.items() if entry.state is _State.HEARD),
                key=lambda address: -self._entries[address].distance,
            )
            for address in far[: len(self._entries) - MAX_HEARD]:
                del self._entries[address]

    def _front(self) -> list[tuple[Address, _Entry]]:
        """Return the given addresses that have not answered yet, and the nearest nodes that are not out."""
        alive = [item for item in self._entries.items() if item[1].state is not _State.OUT]
        alive.sort(key=lambda item: item[1].distance)
        given = sum(entry.distance < 0 for _, entry in alive)
        return alive[: given + NEAREST]

    def next(self) -> Address | None:
        """Return whom to ask now, and count it as asked; None when nobody is to be asked before somebody answers."""
        if self._in_flight >= AT_ONCE or self._asked >= MAX_ASKED:
            return None
        for address, entry in self._front():
            if entry.state is _State.HEARD:
                entry.state = _State.ASKED
                self._asked += 1
                self._in_flight += 1
                return address
        return None

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to ask or to wait for."""
        if self._asked >= MAX_ASKED:
            return self._in_flight == 0
        return not any(entry.state in (_State.HEARD, _State.ASKED) for _, entry in self._front())

    def answered(self, address: Address, id_: bytes | None, token: bytes | None) -> None:
        """Take note of who has answered, and of the token with which it takes an update."""
        entry = self._entries[address]
        self._in_flight -= 1
        self.answers += 1
        if id_ is None:
            entry.state = _State.OUT
            return
        entry.state, entry.id, entry.token = _State.ANSWERED, id_, token
        entry.distance = distance(id_, self.target)

    def failed(self, address: Address) -> None:
        """Take note of who does not answer."""
        self._entries[address].state = _State.OUT
        self._in_flight -= 1

    def found(self) -> list[tuple[Address, bytes]]:
        """Return the nearest nodes that have answered with a token, and the tokens; the nearest first."""
        answered = sorted(
            (item for item in self._entries.items() if item[1].state is _State.ANSWERED),
            key=lambda item: item[1].distance,
        )
        return [(address, entry.token) for address, entry in answered[:NEAREST] if entry.token is not None]
