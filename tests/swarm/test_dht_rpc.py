"""Datagrams of the DHT: those recorded from npm nodes mean what they should, and nothing made-up does harm."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddrive.errors import RemoteProtocolError
from ddrive.swarm import dht_rpc as rpc
from ddrive.swarm.dht_rpc import Contact, Datagram, Kind, PeersAsked
from ddrive.swarm.static import Address
from tests.support.vectors import vector

RECORDED = {entry["what"]: entry for entry in vector("dht.json")}
TOPIC = b"\xab" * 32
LOCAL = Address("192.168.1.2", 0x4321)

addresses = st.builds(Address, st.ip_addresses(v=4).map(str), st.integers(1, 65535))
ids = st.binary(min_size=32, max_size=32)
datagrams = st.builds(
    Datagram,
    kind=st.sampled_from(Kind),
    rid=st.integers(0, rpc.MAX_RID),
    command=st.text(max_size=20),
    to=st.none() | addresses,
    id=st.none() | ids,
    target=st.none() | ids,
    closer=st.lists(st.builds(Contact, ids, addresses), max_size=rpc.MAX_CLOSER).map(tuple),
    token=st.none() | st.binary(min_size=1, max_size=rpc.MAX_TOKEN_BYTES),
    error=st.text(max_size=20),
    value=st.none() | st.binary(max_size=400),
)


def recorded(what: str) -> Datagram:
    return rpc.decode(bytes.fromhex(RECORDED[what]["hex"]))


@pytest.mark.parametrize("what", RECORDED)
def test_recorded_datagrams_are_understood_and_written_alike(what: str) -> None:
    datagram = recorded(what)
    assert datagram.to == Address("127.0.0.1", RECORDED[what]["to"])
    again = rpc.encode(datagram)
    assert rpc.decode(again) == datagram
    assert sorted(again) == sorted(bytes.fromhex(RECORDED[what]["hex"]).replace(b"\x42\x00", b"")), "but for the order"


def test_what_the_recorded_ones_say() -> None:
    question = recorded("find_node of an ephemeral node")
    assert (question.kind, question.command, question.id) == (Kind.QUERY, "_find_node", None)
    answer = recorded("answer to find_node")
    assert (answer.kind, answer.rid, len(answer.token or b"")) == (Kind.ANSWER, question.rid, rpc.TOKEN_BYTES)
    assert [contact.address for contact in answer.closer] == [Address("127.0.0.1", 10003), Address("127.0.0.1", 10002)]
    assert answer.closer[0].id.hex().startswith("69ab01ff")
    update = recorded("announcement with a local address")
    assert (update.kind, update.command, update.target) == (Kind.UPDATE, "peers", TOPIC)
    assert rpc.decode_peers_asked(update.value or b"") == PeersAsked(0x5678, LOCAL)
    found = rpc.decode_peers_answered(recorded("answer with peers and a local one").value or b"", LOCAL)
    assert found == ([Address("127.0.0.1", 0x1234), Address("127.0.0.1", 0x5678)], [LOCAL])
    assert rpc.decode_peers_asked(recorded("taking back an announcement").value or b"") == PeersAsked(
        0x1234, unannounce=True
    )
    assert recorded("answer to an unknown command").error == "Unsupported command"
    assert rpc.decode_holepunch(recorded("holepunch to the referrer").value or b"") == (
        None,
        Address("127.0.0.1", 10004),
    )
    assert rpc.decode_holepunch(recorded("holepunch to the peer").value or b"") == (Address("127.0.0.1", 10003), None)


@given(datagrams)
def test_what_is_written_is_read(datagram: Datagram) -> None:
    assert rpc.decode(rpc.encode(datagram)) == datagram


@given(st.builds(PeersAsked, st.integers(0, 65535), st.none() | addresses, st.booleans()))
def test_questions_about_peers_are_read_as_written(asked: PeersAsked) -> None:
    assert rpc.decode_peers_asked(rpc.encode_peers_asked(asked)) == asked


@given(st.lists(addresses, max_size=rpc.MAX_PEERS), addresses)
def test_answers_about_peers_are_read_as_written(peers: list[Address], local: Address) -> None:
    value = rpc.encode_peers_answered(peers, [local])
    assert rpc.decode_peers_answered(value, local) == (peers, [local])
    assert rpc.decode_peers_answered(value) == (peers, [])


@given(st.binary(max_size=300) | datagrams.map(rpc.encode).flatmap(lambda data: st.just(data[: len(data) // 2])))
def test_anything_else_is_a_protocol_error(data: bytes) -> None:
    for read in (rpc.decode, rpc.decode_peers_asked, rpc.decode_peers_answered, rpc.decode_holepunch):
        try:
            read(data)
        except RemoteProtocolError:
            continue


@pytest.mark.parametrize(
    "body",
    [
        rpc.schema.Datagram(kind=0, rid=1),
        rpc.schema.Datagram(kind=4, rid=1),
        rpc.schema.Datagram(kind=1, rid=1 << 16),
        rpc.schema.Datagram(kind=1, rid=1, id=b"short"),
        rpc.schema.Datagram(kind=1, rid=1, target=b"x" * 33),
        rpc.schema.Datagram(kind=1, rid=1, token=b"x" * 129),
        rpc.schema.Datagram(kind=1, rid=1, closer=b"x" * 39),
        rpc.schema.Datagram(kind=1, rid=1, value=b"x" * rpc.MAX_DATAGRAM_BYTES),
    ],
)
def test_sizes_that_cannot_be_are_refused(body: rpc.schema.Datagram) -> None:
    with pytest.raises(RemoteProtocolError):
        rpc.decode(body.SerializeToString())


def test_lists_are_cut() -> None:
    closer = (bytes(32) + b"\x01\x02\x03\x04\x00\x05") * 60
    data = rpc.schema.Datagram(kind=1, rid=1, closer=closer).SerializeToString()
    assert len(rpc.decode(data).closer) == rpc.MAX_CLOSER
    peers = rpc.schema.PeersAnswered(peers=b"\x01\x02\x03\x04\x00\x05" * 500).SerializeToString()
    assert len(rpc.decode_peers_answered(peers)[0]) == rpc.MAX_PEERS_TAKEN


def test_nobody_is_at_port_0() -> None:
    assert rpc.decode_peers_answered(rpc.encode_peers_answered([Address("1.2.3.4", 0)])) == ([], [])
