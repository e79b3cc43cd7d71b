"""The bodies of messages as bytes: `encode` and `decode`, by way of protobuf.

What a message of a peer may claim is bounded here: sizes of hashes, numbers, lists.
Source: `simple-hypercore-protocol`.
"""

from collections.abc import Callable

from google.protobuf.message import DecodeError

from ddrive.crypto import HASH_BYTES, KEY_BYTES, SIGNATURE_BYTES
from ddrive.errors import RemoteProtocolError
from ddrive.ids import BlockIndex, DiscoveryKey, Node, NodeIndex
from ddrive.protocol import schema_pb2 as schema
from ddrive.protocol.messages import (
    Cancel,
    Close,
    Data,
    Extension,
    Have,
    Message,
    Open,
    Options,
    Request,
    Status,
    Unhave,
    Unwant,
    Want,
)
from ddrive.protocol.varint import decode_varint, encode_varint

MAX_BLOCKS = 1 << 52  # block indexes stay below: node numbers then stay below 2**53, exact in every peer
MAX_SIZE_BYTES = 1 << 53  # sizes of nodes stay below: exact in every peer
MAX_PROOF_NODES = 128  # a proof has at most 2 * 52 nodes
MAX_EXTENSIONS = 256  # names in one Options
MAX_EXTENSION_NAME_BYTES = 255
MAX_SMALL_BODY_BYTES = 128 * 1024  # of a message that is neither Have, Data nor Extension; the rest are far smaller
MAX_DATA_FIELDS = 2 * MAX_PROOF_NODES  # counted before protobuf makes an object of each
LARGE_BYTES = 4096  # from here on the value of Data is copied once, and fields are counted; shorter has few of them
_VALUE_TAG = 0x12  # of the field `value` of Data: field 2, with a length


def _encode_open(message: Open) -> bytes:
    return schema.Open(discovery_key=message.discovery_key, capability=message.capability).SerializeToString()


def _encode_options(message: Options) -> bytes:
    return schema.Options(extensions=message.extensions, ack=message.ack).SerializeToString()


def _encode_status(message: Status) -> bytes:
    return schema.Status(uploading=message.uploading, downloading=message.downloading).SerializeToString()


def _encode_have(message: Have) -> bytes:
    plain = message.bitfield is None and not message.ack
    return schema.Have(
        start=message.start,
        length=None if plain and message.length == 1 else message.length,
        bitfield=message.bitfield,
        ack=message.ack or None,
    ).SerializeToString()


def _encode_want(message: Want) -> bytes:
    return schema.Range(start=message.start, length=message.length, keeps=message.keeps or None).SerializeToString()


def _encode_range(message: Unhave | Unwant) -> bytes:
    return schema.Range(start=message.start, length=message.length).SerializeToString()


def _encode_request(message: Request) -> bytes:
    return schema.Request(
        index=message.index, bytes=message.bytes, hash=message.hash, nodes=message.nodes
    ).SerializeToString()


def _encode_cancel(message: Cancel) -> bytes:
    return schema.Request(index=message.index, bytes=message.bytes, hash=message.hash).SerializeToString()


def _encode_data(message: Data) -> bytes:
    return schema.Data(
        index=message.index,
        value=message.value,
        nodes=[schema.Node(index=number, hash=digest, size=size) for number, digest, size in message.nodes],
        signature=message.signature,
    ).SerializeToString()


def _encode_large_data(message: Data, value: bytes) -> tuple[bytes, ...]:
    """Return the same body as `_encode_data`, in pieces, with the value as it is."""
    start = b"\x08%b\x12%b" % (encode_varint(message.index), encode_varint(len(value)))
    if not message.nodes and message.signature is None:
        return start, value
    rest = schema.Data(
        nodes=[schema.Node(index=number, hash=digest, size=size) for number, digest, size in message.nodes],
        signature=message.signature,
    )
    return start, value, rest.SerializePartialToString()


def _encode_close(message: Close) -> bytes:
    return schema.Close(discovery_key=message.discovery_key).SerializeToString()


def _encode_extension(message: Extension) -> bytes:
    return encode_varint(message.id) + message.payload


def _bounded(start: int, length: int) -> BlockIndex:
    """Return `start` as a block index when `length` blocks from there are possible."""
    if start >= MAX_BLOCKS or length > MAX_BLOCKS:
        raise RemoteProtocolError(f"no feed has a block {start} or a range of {length}")
    return BlockIndex(start)


def _require(present: bool, field: str) -> None:
    if not present:
        raise RemoteProtocolError(f"a message lacks its field {field!r}")


def _discovery_key(key: bytes) -> DiscoveryKey:
    if len(key) != KEY_BYTES:
        raise RemoteProtocolError(f"a discovery key has {KEY_BYTES} bytes, not {len(key)}")
    return DiscoveryKey(key)


def _decode_open(body: bytes) -> Open:
    parsed = schema.Open.FromString(body)
    return Open(_discovery_key(parsed.discovery_key), parsed.capability if parsed.HasField("capability") else None)


def _decode_options(body: bytes) -> Options:
    parsed = schema.Options.FromString(body)
    names = tuple(parsed.extensions)
    if len(names) > MAX_EXTENSIONS:
        raise RemoteProtocolError(f"{len(names)} extensions are over the limit of {MAX_EXTENSIONS}")
    for name in names:
        if not isinstance(name, str) or len(name.encode()) > MAX_EXTENSION_NAME_BYTES:
            raise RemoteProtocolError("the name of an extension is too long or not text")
    return Options(names, parsed.ack)


def _decode_status(body: bytes) -> Status:
    parsed = schema.Status.FromString(body)
    return Status(parsed.uploading, parsed.downloading)


def _decode_have(body: bytes) -> Have:
    parsed = schema.Have.FromString(body)
    _require(parsed.HasField("start"), "start")
    length = parsed.length
    start = _bounded(parsed.start, length)
    return Have(start, length, parsed.bitfield if parsed.HasField("bitfield") else None, parsed.ack)


def _range(body: bytes, absent: int) -> tuple[BlockIndex, int]:
    """Return start and length of a range whose length is `absent` when it is not given."""
    parsed = schema.Range.FromString(body)
    _require(parsed.HasField("start"), "start")
    length = parsed.length if parsed.HasField("length") else absent
    return _bounded(parsed.start, length), length


def _decode_unhave(body: bytes) -> Unhave:
    return Unhave(*_range(body, 1))


def _decode_want(body: bytes) -> Want:
    return Want(*_range(body, 0), keeps=schema.Range.FromString(body).keeps)


def _decode_unwant(body: bytes) -> Unwant:
    return Unwant(*_range(body, 0))


def _decode_request(body: bytes) -> Request:
    parsed = schema.Request.FromString(body)
    if not parsed.HasField("index"):
        _require(False, "index")  # a call less for each message
    if parsed.bytes >= MAX_SIZE_BYTES:
        raise RemoteProtocolError(f"no feed has a byte {parsed.bytes}")
    return Request(_bounded(parsed.index, 1), parsed.bytes, parsed.hash, parsed.nodes)


def _decode_cancel(body: bytes) -> Cancel:
    request = _decode_request(body)
    return Cancel(request.index, request.bytes, request.hash)


def _take_value_out(body: bytes) -> tuple[bytes | None, bytes]:
    """Return the value in a long body of Data, and the body without it: protobuf would copy the value twice more.

    Refuses a body of very many fields: 8 MiB hold 4 million empty nodes, which protobuf would blow up to 200 MB.
    """
    offset = count = 0
    value, rest = None, []
    while offset < len(body):
        start = offset
        tag, offset = _varint(body, offset)
        wire_type = tag & 7
        if wire_type in (0, 2):
            number, offset = _varint(body, offset)
            offset += number if wire_type == 2 else 0
        elif wire_type in (1, 5):
            offset += 8 if wire_type == 1 else 4
        else:
            raise RemoteProtocolError("a message has a field of a type that is not in use")
        if offset > len(body):
            raise RemoteProtocolError("a message ends within a field")
        if tag == _VALUE_TAG:
            value = bytes(body[offset - number : offset])
        else:
            rest.append(body[start:offset])
        count += 1
        if count > MAX_DATA_FIELDS:
            raise RemoteProtocolError(f"a message has more than {MAX_DATA_FIELDS} fields")
    return value, b"".join(rest)


def _varint(body: bytes, offset: int) -> tuple[int, int]:
    found = decode_varint(body, offset, len(body))
    if found is None:
        raise RemoteProtocolError("a message ends within a number")
    return found


def _decode_data(body: bytes) -> Data:
    value = None
    if len(body) > LARGE_BYTES:
        value, body = _take_value_out(body)
    parsed = schema.Data.FromString(body)
    _require(parsed.HasField("index"), "index")
    signature = parsed.signature if parsed.HasField("signature") else None
    if signature is not None and len(signature) != SIGNATURE_BYTES:
        raise RemoteProtocolError(f"a signature has {SIGNATURE_BYTES} bytes, not {len(signature)}")
    if len(parsed.nodes) > MAX_PROOF_NODES:
        raise RemoteProtocolError(f"a proof of {len(parsed.nodes)} nodes is over the limit of {MAX_PROOF_NODES}")
    nodes = tuple([Node(NodeIndex(node.index), node.hash, node.size) for node in parsed.nodes])
    for number, digest, size in nodes:
        if len(digest) != HASH_BYTES or number >= 2 * MAX_BLOCKS or size >= MAX_SIZE_BYTES:
            raise RemoteProtocolError("a proof has a node that no tree can have")
    if value is None and parsed.HasField("value"):
        value = parsed.value
    return Data(_bounded(parsed.index, 1), value, nodes, signature)


def _decode_close(body: bytes) -> Close:
    parsed = schema.Close.FromString(body)
    return Close(_discovery_key(parsed.discovery_key) if parsed.HasField("discovery_key") else None)


def _decode_extension(body: bytes) -> Extension:
    found = decode_varint(body, 0, len(body))
    if found is None:
        raise RemoteProtocolError("an extension message lacks its id")
    return Extension(found[0], bytes(body[found[1] :]))


OPEN, HAVE, DATA, CLOSE, EXTENSION = 0, 3, 9, 10, 15
_LARGE = (HAVE, DATA, 11, 12, 13, 14, EXTENSION)
_ENCODERS: dict[type, tuple[int, Callable[..., bytes]]] = {
    Open: (0, _encode_open),
    Options: (1, _encode_options),
    Status: (2, _encode_status),
    Have: (3, _encode_have),
    Unhave: (4, _encode_range),
    Want: (5, _encode_want),
    Unwant: (6, _encode_range),
    Request: (7, _encode_request),
    Cancel: (8, _encode_cancel),
    Data: (9, _encode_data),
    Close: (10, _encode_close),
    Extension: (EXTENSION, _encode_extension),
}
_DECODERS: tuple[Callable[[bytes], Message], ...] = (
    _decode_open,
    _decode_options,
    _decode_status,
    _decode_have,
    _decode_unhave,
    _decode_want,
    _decode_unwant,
    _decode_request,
    _decode_cancel,
    _decode_data,
    _decode_close,
)


def encode(message: Message) -> tuple[int, bytes]:
    """Return the type number and the body of `message`."""
    kind, encoder = _ENCODERS[type(message)]
    return kind, encoder(message)


def encode_pieces(message: Message) -> tuple[int, tuple[bytes, ...]]:
    """Return what `encode` returns, with the body in pieces, so that a large block is not copied."""
    if isinstance(message, Data) and message.value is not None and len(message.value) > LARGE_BYTES:
        return DATA, _encode_large_data(message, message.value)
    kind, encoder = _ENCODERS[type(message)]
    return kind, (encoder(message),)


def decode(kind: int, body: bytes | memoryview) -> Message | None:
    """Return the message of a frame; None for the types 11 to 14, which nobody uses.

    Raises: RemoteProtocolError when the body cannot be parsed, lacks a field or claims what cannot be.
    """
    if len(body) > MAX_SMALL_BODY_BYTES and kind not in _LARGE:
        raise RemoteProtocolError(f"{len(body)} bytes are too many for a message of type {kind}")
    try:
        if kind < len(_DECODERS):
            return _DECODERS[kind](body)  # type: ignore[arg-type]  # protobuf's stubs do not know of views
        return _decode_extension(body) if kind == EXTENSION else None  # type: ignore[arg-type]
    except (DecodeError, ValueError) as error:
        raise RemoteProtocolError(f"the body of a message of type {kind} cannot be parsed") from error
