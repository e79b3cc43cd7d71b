"""What the fuzzer feeds: each target takes bytes, builds something near to the real thing of them, and checks it.

The one error that a layer promises for bad input is fine; anything else, a wrong result too, is a finding.
"""

import sys
from collections.abc import Callable
from contextlib import redirect_stderr, suppress
from io import StringIO

import atheris

INSTRUMENTED = ["ddrive.appdb.node", "ddrive.drive.stat", "ddrive.feed", "ddrive.protocol", "ddrive.trie"]
INSTRUMENTED += [f"ddrive.swarm.dht_{part}" for part in ("node", "peers", "rpc", "search", "table")]

with redirect_stderr(StringIO()), atheris.instrument_imports(include=INSTRUMENTED):  # it names every module
    from ddrive.appdb import node as appdb_node
    from ddrive.crypto import KeyPair
    from ddrive.dialect import DWEB
    from ddrive.drive.stat import decode_stat
    from ddrive.errors import DriveError, InvalidProof, RemoteProtocolError
    from ddrive.feed import FeedLog, MemoryDirectory, Proof, RemoteTree, rle
    from ddrive.ids import Node, NodeIndex
    from ddrive.protocol import Connection
    from ddrive.protocol.codec import decode, encode, encode_pieces
    from ddrive.protocol.framing import FrameReader, encode_frame
    from ddrive.swarm import dht_rpc
    from ddrive.swarm.dht_node import Node as DhtNode
    from ddrive.swarm.dht_node import Walk
    from ddrive.swarm.static import Address
    from ddrive.trie import extension as trie_extension
    from ddrive.trie.node import decode_header, decode_node

PAIR = KeyPair.from_seed(bytes(32))
BLOCKS = [bytes([number]) * (number * 37 % 90) for number in range(21)]
AUTHOR = FeedLog.create(MemoryDirectory(), key=PAIR.public_key, secret_key=PAIR.secret_key)
for _start in (0, 5, 13):
    AUTHOR.append(BLOCKS[_start : {0: 5, 5: 13, 13: 21}[_start]])


def frames(data: bytes) -> None:
    """Any split of a stream gives the same frames, or the same refusal."""
    source = atheris.FuzzedDataProvider(data)
    stream = b""
    for _ in range(source.ConsumeIntInRange(0, 6)):
        body = source.ConsumeBytes(source.ConsumeIntInRange(0, 300))
        stream += encode_frame(source.ConsumeIntInRange(0, 130), source.ConsumeIntInRange(0, 15), body)
    stream += source.ConsumeBytes(40)
    cuts = sorted(source.ConsumeIntListInRange(4, 0, len(stream)))
    whole, pieces = FrameReader(), FrameReader()
    expected = _taken(whole, [stream])
    found = _taken(pieces, [stream[low:high] for low, high in zip([0, *cuts], [*cuts, len(stream)], strict=True)])
    assert found[: len(expected)] == expected[: len(found)]


def _taken(reader: FrameReader, chunks: list[bytes]) -> list[tuple[int, int, bytes]]:
    found: list[tuple[int, int, bytes]] = []
    with suppress(RemoteProtocolError):
        for chunk in chunks:
            found += [(number, kind, bytes(body)) for number, kind, body in reader.feed(chunk)]
    return found


def messages(data: bytes) -> None:
    """A body is refused, or gives a message that is the same after another trip."""
    if not data:
        return
    try:
        message = decode(data[0] & 15, data[1:])
    except RemoteProtocolError:
        return
    if message is not None:
        kind, body = encode(message)
        assert decode(kind, body) == message
        assert b"".join(encode_pieces(message)[1]) == body


def connection(data: bytes) -> None:
    """Frames and calls in any order break nothing but the connection."""
    source = atheris.FuzzedDataProvider(data)
    machine = Connection(initiator=True, static_secret=bytes(32), nonce=bytes(24), encrypted=False, noise=False)
    for _ in range(source.ConsumeIntInRange(0, 12)):
        if source.ConsumeBool():
            with suppress(DriveError):
                machine.open_channel(PAIR.public_key, DWEB)
        body = source.ConsumeBytes(source.ConsumeIntInRange(0, 120))
        try:
            machine.receive_data(encode_frame(source.ConsumeIntInRange(0, 4), source.ConsumeIntInRange(0, 15), body))
        except RemoteProtocolError:
            return
        machine.data_to_send()


def proofs(data: bytes) -> None:
    """Whatever proofs are made of true ones, a reader never holds a block that the author has not signed."""
    source = atheris.FuzzedDataProvider(data)
    log = FeedLog.create(MemoryDirectory(), key=PAIR.public_key)
    remote = RemoteTree()
    for _ in range(source.ConsumeIntInRange(1, 8)):
        index = source.ConsumeIntInRange(0, len(BLOCKS))
        digest = source.ConsumeIntInRange(0, 255) if source.ConsumeBool() else log.digest(index)
        hash_only = source.ConsumeBool()
        made = AUTHOR.proof(index, digest=digest, hash_only=hash_only, remote=remote) or Proof()
        value = None if hash_only else BLOCKS[index % len(BLOCKS)]
        if source.ConsumeBool():
            made, value = _spoiled(made, value, source)
        with suppress(InvalidProof):
            log.put(index, value, made)
    assert log.length in (0, 5, 13, 21)
    for first, last in log.runs(0, 64):
        assert [log.block(index) for index in range(first, last)] == BLOCKS[first:last]


def _spoiled(proof: Proof, value: bytes | None, source: atheris.FuzzedDataProvider) -> tuple[Proof, bytes | None]:
    nodes = list(proof.nodes)
    kind = source.ConsumeIntInRange(0, 5)
    if kind == 0 and nodes:
        place = source.ConsumeIntInRange(0, len(nodes) - 1)
        number = NodeIndex(source.ConsumeIntInRange(0, 64))
        nodes[place] = Node(number, nodes[place].hash, source.ConsumeIntInRange(0, 300))
    elif kind == 1 and nodes:
        del nodes[source.ConsumeIntInRange(0, len(nodes) - 1)]
    elif kind == 2:
        digest = source.ConsumeBytes(32).ljust(32, b"\0")
        nodes.append(
            Node(NodeIndex(source.ConsumeIntInRange(0, 1 << 50)), digest, source.ConsumeIntInRange(0, 1 << 52))
        )
    elif kind == 3 and value is not None:
        value = source.ConsumeBytes(50)
    elif kind == 4:
        return Proof(tuple(nodes), source.ConsumeBytes(64).ljust(64, b"\0")), value
    elif kind == 5:
        other = AUTHOR.proof(source.ConsumeIntInRange(0, 20), digest=0, hash_only=False, remote=RemoteTree())
        return other or proof, value
    return Proof(tuple(nodes), proof.signature), value


def trie(data: bytes) -> None:
    """Blocks of a trie and messages between tries are decoded or refused."""
    with suppress(DriveError):
        found = decode_node(7, data, "fuzzed")
        assert found.size_bytes > 0
    with suppress(DriveError):
        decode_header(data, "fuzzed")
    with suppress(DriveError):
        trie_extension.decode(data)


def stats(data: bytes) -> None:
    """Attributes of files, entries of databases and bit maps are decoded or refused."""
    with suppress(DriveError):
        decode_stat(data)
    with suppress(DriveError):
        appdb_node.parse(3, data, "fuzzed")
    with suppress(DriveError):
        assert len(rle.decode(data, 4096)) <= 4096
    assert rle.decode(rle.encode(data), len(data) + 8).rstrip(b"\0") == data.rstrip(b"\0")


def dht(data: bytes) -> None:
    """Datagrams in any order break nothing, and whoever forges a sender gets little sent there."""
    source = atheris.FuzzedDataProvider(data)
    node = DhtNode(lambda size: bytes(size), 0.0, is_ephemeral=source.ConsumeBool())
    node.start(Walk(bytes(32), update=b""), [Address("10.0.0.1", 1)], 0.0)
    for step in range(source.ConsumeIntInRange(0, 12)):
        sender = Address(f"10.0.0.{source.ConsumeIntInRange(1, 3)}", source.ConsumeIntInRange(1, 3))
        datagram = source.ConsumeBytes(source.ConsumeIntInRange(0, 200))
        with suppress(RemoteProtocolError):
            assert dht_rpc.decode(dht_rpc.encode(dht_rpc.decode(datagram))) == dht_rpc.decode(datagram)
        node.out.clear()
        node.receive(datagram, sender, step / 2)
        assert sum(len(sent) for sent, to in node.out if to == sender) < 20 * dht_rpc.MAX_DATAGRAM_BYTES
        node.tick(step / 2)


SINGLE = (frames, messages, connection, proofs, trie, stats, dht)


def every(data: bytes) -> None:
    """Hand the rest to the target that the first byte names: one process that takes turns with all."""
    if data:
        SINGLE[data[0] % len(SINGLE)](data[1:])


TARGETS: dict[str, Callable[[bytes], None]] = {target.__name__: target for target in (*SINGLE, every)}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"no such target; there are {' '.join(TARGETS)} (scripts/fuzz [--seconds 60] [TARGET…])")
    atheris.Setup(sys.argv[1:], TARGETS[sys.argv[1]])
    atheris.Fuzz()
