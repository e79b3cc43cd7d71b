"""Nodes of the DHT in a network without sockets: they find, forget, bear loss and strangers, keep to their bounds."""

import pytest

from ddrive.swarm import dht_node, dht_peers, dht_search
from ddrive.swarm import dht_rpc as rpc
from ddrive.swarm.dht_node import Node, Walk, is_plausible
from ddrive.swarm.dht_peers import Announcements, Tokens
from ddrive.swarm.dht_rpc import Contact, Datagram, Kind, PeersAsked, distance
from ddrive.swarm.dht_search import Search
from ddrive.swarm.dht_table import BUCKET_NODES, MAX_OF_HOST, NodeTable
from ddrive.swarm.static import Address
from tests.support.dht_net import Net

TOPIC = bytes(range(32))


def network(size: int, *, loss: float = 0.0, seed: int = 1) -> tuple[Net, Address]:
    """Return a network that has settled, and the address at which all began."""
    net = Net(seed, loss=loss)
    first = net.add()
    for _ in range(size - 1):
        net.add(first)
    return net, first


def question(command: str = rpc.PING, **fields: object) -> bytes:
    return rpc.encode(Datagram(Kind.QUERY, 7, command, **fields))  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_an_announcement_is_found_from_everywhere_and_taken_back(loss: float) -> None:
    net, first = network(100, loss=loss)
    seeder, reader = net.add(is_ephemeral=True), net.add(is_ephemeral=True)
    announced = net.announce(seeder, TOPIC, 4000, first)
    assert announced.updated >= dht_search.NEAREST * (1 - 2 * loss)
    assert announced.asked < 60, "it goes towards the target"
    assert net.lookup(reader, TOPIC, first) == {Address(seeder.host, 4000)}
    nearest = sorted(net.nodes, key=lambda address: distance(net.nodes[address].id, TOPIC))
    keepers = {address for address, node in net.nodes.items() if len(node.announcements)}
    assert len(keepers & set(nearest[:25])) >= 0.8 * len(keepers)
    net.announce(seeder, TOPIC, 4000, first, unannounce=True)
    if not loss:
        assert net.lookup(reader, TOPIC, first) == set()


def test_it_survives_that_half_of_the_nodes_go_away() -> None:
    net, first = network(70)
    seeder, reader = net.add(is_ephemeral=True), net.add(is_ephemeral=True)
    net.announce(seeder, TOPIC, 4000, first)
    staying = {first, seeder, reader}
    for address in [address for address in net.nodes if address not in staying and net.random.random() < 0.5]:
        del net.nodes[address]
    assert net.lookup(reader, TOPIC, first) == {Address(seeder.host, 4000)}
    net.run(400)
    known = {contact.address for contact in net.nodes[first].table.nearest(TOPIC, 1000)}
    assert known, "others are still there"
    assert known <= set(net.nodes), "who is gone is forgotten"


def test_an_announcement_is_forgotten_in_time() -> None:
    net, first = network(3)
    seeder = net.add(is_ephemeral=True)
    net.announce(seeder, TOPIC, 4000, first)
    net.run(dht_peers.KEEP_S - 60)
    assert net.lookup(seeder, TOPIC, first) == {Address(seeder.host, 4000)}
    net.run(120)
    assert net.lookup(seeder, TOPIC, first) == set()
    assert not any(len(node.announcements) for node in net.nodes.values())


def test_a_walk_ends_though_nobody_answers() -> None:
    net = Net()
    alone = net.add(is_ephemeral=True)
    begin = net.now
    walk = net.announce(alone, TOPIC, 4000, Address("10.9.9.9", 1), Address("10.9.9.8", 1))
    assert (walk.asked, walk.answers, walk.updated) == (2, 0, 0)
    assert net.now - begin < sum(dht_node.TRY_S) + 1
    assert net.sent == 2 * len(dht_node.TRY_S)
    assert net.walk(alone, Walk(TOPIC)).asked == 0, "with nobody to ask it ends at once"


def test_one_that_does_not_stay_is_told_to_nobody_and_answers_a_ping_alone() -> None:
    net, first = network(5)
    guest = net.add(is_ephemeral=True)
    net.lookup(guest, TOPIC, first)
    assert all(guest not in {c.address for c in n.table.nearest(TOPIC, 99)} for n in net.nodes.values())
    node = net.nodes[guest]
    for command in (rpc.FIND_NODE, rpc.PEERS, rpc.HOLEPUNCH, "other"):
        node.receive(question(command, target=TOPIC, value=b""), first, net.now)
        assert node.out == []
    ping = question()
    node.receive(ping, first, net.now)
    ((answer, to),) = node.out
    assert (to, rpc.decode(answer).value) == (first, rpc.pack_address(first))


def test_an_update_needs_the_token_of_its_sender() -> None:
    node = Node(Net().random.randbytes, 0.0, is_ephemeral=False)
    here, there = Address("10.1.1.1", 5), Address("10.1.1.2", 5)
    node.receive(question(rpc.PEERS, target=TOPIC, value=b""), here, 0.0)
    token = rpc.decode(node.out.pop()[0]).token
    value = rpc.encode_peers_asked(PeersAsked(4000))

    def update(source: Address, token: bytes | None, now: float) -> int:
        data = rpc.encode(Datagram(Kind.UPDATE, 8, rpc.PEERS, target=TOPIC, token=token, value=value))
        node.receive(data, source, now)
        out, node.out = node.out, []
        return len(out)

    assert update(here, None, 1.0) == update(here, b"x" * 32, 1.0) == update(there, token, 1.0) == 0
    assert len(node.announcements) == 0
    assert update(here, token, 1.0) == 1
    assert update(here, token, dht_peers.TOKEN_S + 1) == 1
    assert update(here, token, 3 * dht_peers.TOKEN_S) == 0


def test_tokens_that_nobody_asked_for_in_long_are_not_taken_either() -> None:
    tokens = Tokens(Net().random.randbytes, 0.0)
    token = tokens.make("10.0.0.1", 0.0)
    assert tokens.fits(token, "10.0.0.1", dht_peers.TOKEN_S)
    tokens = Tokens(Net().random.randbytes, 0.0)
    token = tokens.make("10.0.0.1", 0.0)
    assert not tokens.fits(token, "10.0.0.1", 10 * dht_peers.TOKEN_S)


def test_a_newcomer_is_told_to_others_once_it_has_answered() -> None:
    net, first = network(3)
    node = net.nodes[first]
    for number in range(1, 500):
        net.send(question(rpc.FIND_NODE, target=TOPIC, id=net.random.randbytes(32)), Address("10.5.5.5", number), first)
    net.run(0.5)
    assert len(node._newcomers) <= dht_node.MAX_NEWCOMERS
    net.run(10)
    assert not node._newcomers
    assert len(node.table) == 2, "no made-up id got in"


def test_answers_to_one_host_are_bounded() -> None:
    net, first = network(30)
    node, flooder = net.nodes[first], Address("10.5.5.5", 9)
    for _ in range(3 * dht_node.MAX_ANSWERS_S):
        node.receive(question(rpc.FIND_NODE, target=TOPIC), flooder, net.now)
    assert sum(to == flooder for _, to in node.out) <= dht_node.MAX_ANSWERS_S
    node.out.clear()
    node.receive(question(), Address("10.5.5.6", 9), net.now)
    assert len(node.out) == 1, "others are served meanwhile"
    node.receive(question(), flooder, net.now + 1.5)
    assert len(node.out) == 2


def test_only_who_was_asked_can_answer() -> None:
    net = Net()
    node = Node(net.random.randbytes, 0.0, is_ephemeral=True)
    asked, liar = Address("10.0.0.1", 1), Address("10.0.0.2", 1)
    walk = Walk(TOPIC)
    node.start(walk, [asked], 0.0)
    rid = rpc.decode(node.out.pop()[0]).rid
    for source, number in ((liar, rid), (asked, rid ^ 1)):
        node.receive(rpc.encode(Datagram(Kind.ANSWER, number, id=bytes(32))), source, 0.1)
        assert walk.answers == 0
    node.receive(rpc.encode(Datagram(Kind.ANSWER, rid, id=bytes(32))), asked, 0.1)
    assert walk.answers == 1
    assert len(node.table) == 1


def test_liars_cannot_make_a_walk_go_on_for_ever() -> None:
    """Each answer names twenty new nodes, nearer and nearer to the target, all of them at the liar."""
    net = Net()
    guest = net.add(is_ephemeral=True)
    node, asked, names = net.nodes[guest], 0, iter(range(1, 1 << 30))
    ended: list[Walk] = []
    node.start(Walk(TOPIC, on_done=ended.append), [Address("10.6.0.1", 1)], 0.0)
    while node.out:
        data, to = node.out.pop()
        asked += 1
        nearer = []
        for _ in range(rpc.MAX_CLOSER):
            number = next(names)
            id_ = bytes(a ^ b for a, b in zip(TOPIC, (1 << 200 - number.bit_length()).to_bytes(32), strict=True))
            nearer.append(Contact(id_, Address(f"10.7.{number >> 8 & 255}.{number & 255}", 1 + (number >> 16))))
        answer = Datagram(Kind.ANSWER, rpc.decode(data).rid, id=net.random.randbytes(32), closer=tuple(nearer))
        node.receive(rpc.encode(answer), to, 0.0)
    assert asked <= dht_search.MAX_ASKED
    assert len(ended) == 1


def test_a_search_remembers_the_nearest_only() -> None:
    search = Search(bytes(32))
    for number in range(2000, 0, -1):
        search.add([Contact(number.to_bytes(32), Address("10.0.0.1", number))])
    assert len(search._entries) == dht_search.MAX_HEARD
    assert search.next() == Address("10.0.0.1", 1)


def test_the_table_keeps_who_answers_and_few_far_away() -> None:
    table = NodeTable(bytes(32))
    far = [Contact(bytes([128 + i % 128, i // 128]) + bytes(30), Address("10.0.0.1", i + 1)) for i in range(500)]
    for contact in far:
        table.heard(contact, 0.0)
    near = Contact(bytes(31) + b"\x01", Address("10.0.0.2", 1))
    table.heard(near, 5.0)
    assert len(table) == BUCKET_NODES + 1
    assert table.nearest(bytes(32), 3) == [near, *far[:2]]
    table.heard(Contact(near.id, Address("10.6.6.6", 1)), 6.0)
    assert table.nearest(bytes(32), 1) == [near], "nobody can move it"
    table.heard(Contact(bytes(32), Address("10.6.6.6", 1)), 6.0)
    assert table.nearest(bytes(32), 1) == [near], "nobody has our own id"
    assert len(table.silent(1.0, 5)) == 5
    table.lost(near.address)
    assert near not in table.nearest(bytes(32))


def test_announcements_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dht_peers, "MAX_TOPICS", 50)
    kept = Announcements()
    for number in range(200):
        kept.add(number.to_bytes(32), Address("10.0.0.2", 1), None, 0.0)
    for number in range(2 * dht_peers.MAX_PEERS_OF_TOPIC):
        kept.add(TOPIC, Address("10.0.0.1", number + 1), None, 0.0)
    assert len(kept) == 50
    asker = Address("10.0.0.9", 1)
    assert len(kept.find(TOPIC, asker, 3, 1.0)) == rpc.MAX_PEERS
    assert kept.find(TOPIC, asker, 3, 1.0) != kept.find(TOPIC, asker, 4, 1.0)
    assert not kept.knows(Address("10.0.0.1", 1))
    kept.expire(dht_peers.KEEP_S)
    assert len(kept) == 0


def test_no_host_announces_too_much_and_all_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dht_peers, "MAX_OF_HOST", 10)
    monkeypatch.setattr(dht_peers, "MAX_ANNOUNCED", 25)
    kept, first = Announcements(), Address("10.0.0.1", 1)
    for host in ("10.0.0.1", "10.0.0.2"):
        for number in range(20):
            kept.add(number.to_bytes(32), Address(host, 1), None, 0.0)
    kept.add(bytes(32), first, None, 1.0)  # again
    assert len(kept) == 10
    assert kept.knows(first)
    for number in range(20, 30):
        kept.add(number.to_bytes(32), Address("10.0.0.3", 1), None, 0.0)
    assert kept._count == sum(map(len, kept._topics.values())) == 25
    kept.expire(dht_peers.KEEP_S + 2)
    assert (len(kept), kept._count, dict(kept._peers), dict(kept._hosts)) == (0, 0, {}, {})


def test_an_address_has_one_id_and_a_host_of_the_internet_few_nodes() -> None:
    table = NodeTable(bytes(32))
    for number in range(1, 100):
        table.heard(Contact(bytes([number]) + bytes(31), Address("9.9.9.9", 1)), 0.0)
    assert [contact.id[0] for contact in table.nearest(bytes(32))] == [99]
    for number in range(1, 100):
        table.heard(Contact(bytes([number]) + bytes(31), Address("9.9.9.9", number)), 0.0)
    assert len(table) == MAX_OF_HOST
    for number in range(1, 100):
        table.lost(Address("9.9.9.9", number))
    assert (len(table), dict(table._ids), dict(table._hosts)) == (0, {}, {})


def test_local_addresses_are_told_behind_the_same_router_only() -> None:
    kept = Announcements()
    here = Address("192.168.1.5", 1)
    kept.add(TOPIC, Address("1.2.3.4", 1), here, 0.0)
    kept.add(TOPIC, Address("1.2.3.4", 2), Address("10.0.0.1", 1), 0.0)
    kept.add(TOPIC, Address("1.2.3.5", 1), Address("192.168.1.6", 1), 0.0)
    ask = Address("192.168.7.7", 1)
    assert kept.find_local(TOPIC, Address("1.2.3.4", 9), ask, 0.0) == [here]
    assert kept.find_local(TOPIC, Address("1.2.3.4", 9), here, 0.0) == []
    assert kept.find_local(TOPIC, Address("1.2.3.6", 9), ask, 0.0) == []


@pytest.mark.parametrize(
    ("told", "teller", "expected"),
    [
        ("8.8.8.8", "9.9.9.9", True),
        ("8.8.8.8", "10.0.0.1", True),
        ("10.0.0.2", "10.0.0.1", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("10.0.0.2", "9.9.9.9", False),
        ("127.0.0.1", "9.9.9.9", False),
        ("224.0.0.1", "10.0.0.1", False),
        ("0.0.0.0", "10.0.0.1", False),
        ("255.255.255.255", "10.0.0.1", False),
    ],
)
def test_addresses_of_others_networks_are_not_believed(told: str, teller: str, expected: bool) -> None:
    assert is_plausible(Address(told, 1), Address(teller, 1)) == expected
    assert not is_plausible(Address(told, 0), Address(teller, 1))


def test_a_peer_is_introduced_if_we_told_of_it() -> None:
    net, first = network(2)
    seeder, reader, stranger = Address("10.8.0.1", 4000), Address("10.8.0.2", 7), Address("10.8.0.3", 7)
    node = net.nodes[first]
    node.announcements.add(TOPIC, seeder, None, net.now)
    node.receive(question(rpc.HOLEPUNCH, value=rpc.encode_holepunch(wanted=stranger)), reader, net.now)
    node.receive(question(rpc.HOLEPUNCH, value=b"\xff"), reader, net.now)
    assert node.out == []
    node.receive(question(rpc.HOLEPUNCH, value=rpc.encode_holepunch(wanted=seeder)), reader, net.now)
    ((data, to),) = node.out
    sent = rpc.decode(data)
    assert (to, sent.command, sent.rid, rpc.decode_holepunch(sent.value or b"")) == (
        seeder,
        rpc.HOLEPUNCH,
        7,
        (reader, None),
    )


def test_rubbish_is_passed_over() -> None:
    net, first = network(2)
    node = net.nodes[first]
    for number in range(300):
        node.receive(net.random.randbytes(number), Address("10.8.0.1", 1), net.now)
    node.receive(question(rpc.PEERS, target=TOPIC, value=b"\xff\xff"), Address("10.8.0.1", 1), net.now)
    node.receive(question(rpc.PEERS, value=b""), Address("10.8.0.1", 1), net.now)
    assert node.out == []
