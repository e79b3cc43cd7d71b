"""The messages of the protocol as values. What a message of a peer means is not known here; its bytes: `codec`.

Source: `simple-hypercore-protocol`.
"""

from dataclasses import dataclass, field

from ddrive.ids import BlockIndex, DiscoveryKey, Node


@dataclass(frozen=True, slots=True)
class Open:
    """The sender wants to talk about the feed, and proves that it knows the feed's public key."""

    discovery_key: DiscoveryKey
    capability: bytes | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """The sender's extensions, whose positions in the list are their ids from now on; `ack` asks for receipts."""

    extensions: tuple[str, ...] = ()
    ack: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """Whether the sender serves requests, and whether it makes any."""

    uploading: bool = False
    downloading: bool = False


@dataclass(frozen=True, slots=True)
class Have:
    """The sender holds `length` blocks from `start`; with `bitfield` (run-length coded) those whose bit is set."""

    start: BlockIndex
    length: int = 1
    bitfield: bytes | None = field(default=None, repr=False)
    ack: bool = False  # a receipt for Data, not an announcement


@dataclass(frozen=True, slots=True)
class Unhave:
    """The sender no longer holds `length` blocks from `start`."""

    start: BlockIndex
    length: int = 1


@dataclass(frozen=True, slots=True)
class Want:
    """The sender wants to be told which of `length` blocks from `start` we hold and come to hold; 0 = no end.

    With `keeps` it promises to keep every node that comes with an answer from now on, so that no later answer has to
    repeat one; a further Want with it takes the promise back for what was sent before.
    """

    start: BlockIndex
    length: int = 0
    keeps: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Unwant:
    """The sender takes a Want back."""

    start: BlockIndex
    length: int = 0


@dataclass(slots=True, unsafe_hash=True)  # a frozen one takes twice as long to make, and there is one for each block
class Request:
    """The sender asks for a block, for its proof only (`hash`), or for the block at byte offset `bytes`.

    `nodes` tells which proof nodes it has already.
    """

    index: BlockIndex
    bytes: int = 0
    hash: bool = False
    nodes: int = 0


@dataclass(frozen=True, slots=True)
class Cancel:
    """The sender no longer needs the answer to a Request."""

    index: BlockIndex
    bytes: int = 0
    hash: bool = False


@dataclass(slots=True, unsafe_hash=True)  # as Request
class Data:
    """A block with its proof; `value` is None when only the proof was asked for, and `b""` for an empty block."""

    index: BlockIndex
    value: bytes | None = field(default=None, repr=False)
    nodes: tuple[Node, ...] = field(default=(), repr=False)
    signature: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Close:
    """The sender leaves the channel; `discovery_key` names a feed for which it never opened one."""

    discovery_key: DiscoveryKey | None = None


@dataclass(frozen=True, slots=True)
class Extension:
    """A message of an extension: `id` is its position in the sender's last Options."""

    id: int
    payload: bytes = field(repr=False)


Message = (
    Open | Options | Status | Have | Unhave | Want | Unwant | Request | Cancel | Data | Close | Extension
)  # in the order of their type numbers, but for the last, which is 15
