"""The record of a mount: which trie is to be found at a path.

A mount is two nodes: a visible one at the path itself, and a hidden one whose value is this record. Source:
`mountable-hypertrie@2`.
"""

from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from ddrive.errors import InvalidKey
from ddrive.ids import PublicKey
from ddrive.trie import schema_pb2
from ddrive.trie.node import TrieNode

MOUNT_FLAG: Final = 1  # user flags of both nodes, exactly
RECORDS: Final = "mounts"  # first component of the hidden keys
_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class MountPoint:
    """At `path`, relative to the trie that holds the record, lies the trie `key`, at `version` or the newest (None)."""

    path: str
    key: PublicKey
    version: int | None = None

    @property
    def record_key(self) -> str:
        """The hidden key of the record."""
        return f"{RECORDS}/{self.path}"


def encode_mount(mount: MountPoint) -> bytes:
    """Return the value of the hidden node. Raises: InvalidKey."""
    if len(mount.key) != _KEY_BYTES:
        raise InvalidKey(f"the key of a mounted drive has {_KEY_BYTES} bytes, not {len(mount.key)}")
    record = schema_pb2.Mount(key=mount.key, localPath=mount.path)
    if mount.version:
        record.version = mount.version
    return record.SerializeToString()


def decode_mount(node: TrieNode) -> MountPoint:
    """Return what the hidden `node` says; the path is that of its key. Raises: InvalidNode."""
    try:
        record = schema_pb2.Mount.FromString(node.value or b"")
    except DecodeError as error:
        raise node.fault(f"it is no mount record: {error}") from error
    if len(record.key) != _KEY_BYTES:
        raise node.fault("the key in its mount record has the wrong length")
    return MountPoint("/".join(node.parts[1:]), PublicKey(record.key), record.version or None)


def is_mount(node: TrieNode | None) -> bool:
    """Tell whether `node` is one of the two nodes of a mount."""
    return node is not None and node.flags == MOUNT_FLAG
