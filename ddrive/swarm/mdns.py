"""The multicast DNS packets with which npm peers find each other on a LAN, to and from bytes.

A topic has the name `<hex of its first 20 bytes>.<domain of a dialect>`. Who looks for peers asks for its SRV record;
who is one answers with SRV (target 0.0.0.0, that is the address from which the answer came, and the TCP port) and TXT
(`id=` and 32 random bytes, by which a peer knows its own answer). Source: npm `@hyperswarm/discovery@2`,
`@dswarm/discovery@1`; RFC 6762.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from zeroconf import DNSIncoming, DNSOutgoing, DNSQuestion, DNSService, DNSText

from ddrive.dialect import DIALECTS
from ddrive.swarm.discovery import TOPIC_BYTES

GROUP: Final = "224.0.0.251"
PORT: Final = 5353
MAX_PACKET_BYTES: Final = 9000  # of any mDNS packet. Source: RFC 6762, 17
ID_BYTES: Final = 32
DOMAINS: Final = tuple(dialect.lan_domain for dialect in DIALECTS.values())

_SRV, _TXT, _IN = 33, 16, 1
_QUERY, _ANSWER = 0x0000, 0x8400  # an answer is authoritative
_THE_SENDER = "0.0.0.0"  # as the target of an SRV record
_ID = b"id="


class Name(NamedTuple):
    """What is asked for: a topic (20 bytes) in one of the domains."""

    topic: bytes
    domain: str

    def __str__(self) -> str:
        return f"{self.topic.hex()}.{self.domain}."


class Offer(NamedTuple):
    """An answer: somebody takes in peers of a topic at a port. `host` None is the sender of the packet."""

    name: Name
    port: int
    id: bytes | None
    host: str | None = None


@dataclass(slots=True)
class Packet:
    """What of a packet concerns us."""

    number: int  # chosen by the sender
    asked: list[Name] = field(default_factory=list)
    offers: list[Offer] = field(default_factory=list)


def encode_questions(names: Iterable[Name], number: int) -> list[bytes]:
    """Return packets that ask for all of `names`."""
    out = DNSOutgoing(_QUERY, multicast=False, id_=number)  # as multicast it would have no number
    for name in names:
        out.add_question(DNSQuestion(str(name), _SRV, _IN))
    return out.packets() if out.questions else []


def encode_offers(offers: Iterable[Offer], number: int) -> list[bytes]:
    """Return packets that answer with `offers`."""
    out = DNSOutgoing(_ANSWER, multicast=False, id_=number)
    for offer in offers:
        out.add_answer_at_time(DNSService(str(offer.name), _SRV, _IN, 0, 0, 0, offer.port, f"{_THE_SENDER}."), 0)
        if offer.id is not None:
            text = _ID + offer.id
            out.add_answer_at_time(DNSText(str(offer.name), _TXT, _IN, 0, bytes([len(text)]) + text), 0)
    return out.packets() if out.answers else []


def decode(data: bytes) -> Packet | None:
    """Return what of a packet concerns us, None when it is no mDNS packet."""
    try:
        return _decode(DNSIncoming(data))
    except Exception:  # whatever a stranger makes the codec stumble over is no packet
        return None


def _decode(incoming: DNSIncoming) -> Packet | None:
    if not incoming.valid:
        return None
    packet = Packet(incoming.id)
    if incoming.is_query():
        asked = (_name(question.name) for question in incoming.questions if question.type == _SRV)
        packet.asked = [name for name in asked if name is not None]
        return packet
    ids: dict[Name, bytes] = {}
    found: list[Offer] = []
    for record in incoming.answers():
        name = _name(record.name)
        if name is None:
            continue
        if isinstance(record, DNSText) and record.text[1:4] == _ID:
            ids[name] = record.text[4 : 1 + record.text[0]]
        elif isinstance(record, DNSService) and record.port:
            host = record.server.rstrip(".")
            found.append(Offer(name, record.port, None, None if host == _THE_SENDER else host))
    packet.offers = [offer._replace(id=ids.get(offer.name)) for offer in found]
    return packet


def _name(text: str) -> Name | None:
    """Return the topic that a name stands for, None for the name of anything else."""
    topic, _, domain = text.rstrip(".").lower().partition(".")
    if domain not in DOMAINS or len(topic) != 2 * TOPIC_BYTES:
        return None
    try:
        return Name(bytes.fromhex(topic), domain)
    except ValueError:
        return None
