"""The record of a mount: which trie is to be found at a path.

A mount is two nodes: a visible one at the path itself, and a hidden one whose value is this record. Source:
`mountable-hypertrie@2`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from ddrive.errors import InvalidKey
from ddrive.ids import PublicKey
from ddrive.trie import schema_pb2
from ddrive.trie.batch import Delete, Put
from ddrive.trie.node import TrieNode
from ddrive.trie.path import KeyPath

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


def mount_changes(mount: MountPoint, value: bytes | None) -> list[Put | Delete]:
    """Return what makes both nodes of a mount; `value` is that of the visible one. Raises: InvalidKey."""
    record = Put(mount.record_key, encode_mount(mount), MOUNT_FLAG, hidden=True)
    return [record, Put("/" + mount.path, value, MOUNT_FLAG)]


def removal(key: str, node: TrieNode | None) -> list[Put | Delete]:
    """Return what removes the entry `node` at `key`, a mount with its record."""
    entry = Delete("/" + key)
    return [Delete(f"{RECORDS}/{key}", hidden=True), entry] if is_mount(node) else [entry]


def move_records(records: Sequence[TrieNode], source: KeyPath, target: KeyPath) -> list[Put | Delete]:
    """Return the changes that move mount records along with their mount points."""
    depth = len(source.parts)
    changes: list[Put | Delete] = []
    for record in records:
        mount = decode_mount(record)
        moved = MountPoint("/".join(target.parts + record.parts[1 + depth :]), mount.key, mount.version)
        changes.append(Put(moved.record_key, encode_mount(moved), record.flags, hidden=True))
    changes += [Delete("/" + record.key, hidden=True) for record in records]
    return changes
