"""What to ask and answer on the LAN, and when. Nothing here sends or sleeps: packets and times are given and returned.

A topic is asked for when it is joined, again after one and three seconds as packets get lost, then every 30 to 60 s.
It is offered without being asked with the first two questions, and whenever somebody asks. Times are seconds of any
steady clock.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from ddrive.ids import DiscoveryKey
from ddrive.swarm.discovery import TOPIC_BYTES, Tally
from ddrive.swarm.mdns import DOMAINS, Name, Offer, Packet, decode, encode_offers, encode_questions

FIRST_PAUSES_S = (1.0, 2.0)  # between the first questions
SHORTEST_PAUSE_S = 30.0
LONGEST_PAUSE_S = 60.0
EARLY_S = 10.0  # a question goes out this much too soon to share a packet with others
ANSWER_PAUSE_S = 0.25  # between two answers about one topic: floods of questions are answered in one
MAX_KNOWN = 64  # addresses remembered per topic, to count each once


@dataclass(slots=True)
class _Topic:
    announce: bool
    id: bytes
    questions: int = 0  # sent since it was joined or refreshed
    next_question_s: float = -math.inf
    next_offer_s: float = -math.inf  # not to be offered before
    to_offer: set[str] = field(default_factory=set)  # domains
    known: set[tuple[str, int]] = field(default_factory=set)


class LanPlan:
    """The topics that are looked for on the LAN.

    `port` is where we take in peers, `number` (16 bits) marks our packets; `random_bytes(count)` and `dice()` (0 to 1)
    give what is random.
    """

    def __init__(self, port: int, number: int, random_bytes: Callable[[int], bytes], dice: Callable[[], float]) -> None:
        self.tally = Tally()
        self._port = port
        self._number = number
        self._random_bytes = random_bytes
        self._dice = dice
        self._topics: dict[bytes, _Topic] = {}  # by what is shown of them
        self._keys: dict[bytes, DiscoveryKey] = {}

    def join(self, discovery_key: DiscoveryKey, *, announce: bool) -> None:
        """Ask for a topic from now on; with `announce`, offer ourselves too."""
        short = discovery_key[:TOPIC_BYTES]
        topic = self._topics.get(short)
        if topic is None:
            topic = self._topics[short] = _Topic(False, self._random_bytes(32))
            self._keys[short] = discovery_key
            self.tally.join(discovery_key)
        if announce and not topic.announce:
            topic.to_offer |= set(DOMAINS)
        topic.announce = announce

    def leave(self, discovery_key: DiscoveryKey) -> None:
        """Ask for a topic no more, and do not offer ourselves."""
        short = discovery_key[:TOPIC_BYTES]
        if self._topics.pop(short, None) is not None:
            self.tally.leave(self._keys.pop(short))

    def refresh(self) -> None:
        """Begin anew with all topics."""
        for topic in self._topics.values():
            topic.questions, topic.next_question_s = 0, -math.inf

    def next_s(self) -> float:
        """Return when `packets` will have something."""
        return min(map(self._due_s, self._topics.values()), default=math.inf)

    def _due_s(self, topic: _Topic) -> float:
        return min(topic.next_question_s, topic.next_offer_s if topic.to_offer and topic.announce else math.inf)

    def packets(self, now: float) -> list[bytes]:
        """Return what to send now, to every network."""
        asked: list[Name] = []
        if any(topic.next_question_s <= now for topic in self._topics.values()):
            for short, topic in self._topics.items():
                early_s = EARLY_S if topic.questions > len(FIRST_PAUSES_S) else 0.0
                if topic.next_question_s <= now + early_s:
                    asked += self._ask(short, topic, now)
        offers = [
            Offer(Name(short, domain), self._port, topic.id)
            for short, topic in self._topics.items()
            for domain in self._offer(short, topic, now)
        ]
        return encode_questions(asked, self._number) + encode_offers(offers, self._number)

    def _ask(self, short: bytes, topic: _Topic, now: float) -> list[Name]:
        if topic.announce and topic.questions <= 1:
            topic.to_offer |= set(DOMAINS)
        if topic.questions < len(FIRST_PAUSES_S):
            pause_s = FIRST_PAUSES_S[topic.questions]
        else:
            pause_s = SHORTEST_PAUSE_S + self._dice() * (LONGEST_PAUSE_S - SHORTEST_PAUSE_S)
        topic.questions += 1
        topic.next_question_s = now + pause_s
        self.tally.add(self._keys[short], asked=1)
        return [Name(short, domain) for domain in DOMAINS]

    def _offer(self, short: bytes, topic: _Topic, now: float) -> list[str]:
        if not topic.announce or topic.next_offer_s > now or not topic.to_offer:
            return []
        domains = sorted(topic.to_offer)
        topic.to_offer.clear()
        topic.next_offer_s = now + ANSWER_PAUSE_S
        self.tally.add(self._keys[short], announced=1)
        return domains

    def received(self, data: bytes, source: str, *, from_here: bool) -> list[tuple[DiscoveryKey, int]]:
        """Take in a packet from the address `source`, which is our own machine's if `from_here`.

        Return topics and ports at which their peers listen there. What `packets` has to send may be due sooner.
        """
        packet = decode(data)
        if packet is None or (from_here and packet.number == self._number):
            return []
        for name in packet.asked:
            topic = self._topics.get(name.topic)
            if topic is not None:
                topic.to_offer.add(name.domain)
        return self._found(packet, source)

    def _found(self, packet: Packet, source: str) -> list[tuple[DiscoveryKey, int]]:
        found: dict[tuple[DiscoveryKey, int], None] = {}
        for offer in packet.offers:
            topic = self._topics.get(offer.name.topic)
            if topic is None or offer.id == topic.id or offer.host not in (None, source):
                continue
            key = self._keys[offer.name.topic]
            is_new = (source, offer.port) not in topic.known and len(topic.known) < MAX_KNOWN
            if is_new:
                topic.known.add((source, offer.port))
            self.tally.add(key, answered=1, found=int(is_new))
            found[key, offer.port] = None
        return list(found)
