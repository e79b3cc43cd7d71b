"""From a master key and a name to a feed's key pair, and from a discovery key to its folder.

Values only: the files themselves are read and written by `store`. Source: `basestorex@1`, `corestore@5`
(`keys-<dialect>.json` of the test vectors).
"""

from typing import Any

from ddrive.crypto import KEY_BYTES, KeyPair, discovery_key, hash_of
from ddrive.dialect import Dialect
from ddrive.errors import InvalidKey
from ddrive.ids import DiscoveryKey, PublicKey

DEFAULT_NAME = "default"  # the name of a store's first drive
_VARINT_BITS = 7


def checked_key(key: object) -> PublicKey:
    """Return `key` when it can be that of a feed. Raises: InvalidKey."""
    if isinstance(key, bytes) and len(key) == KEY_BYTES:
        return PublicKey(key)
    found = (
        "none" if key is None else f"{len(key)} bytes" if isinstance(key, bytes) else f"of type {type(key).__name__}"
    )
    raise InvalidKey(f"a feed is opened by its name or its key of {KEY_BYTES} bytes, this is {found}: see parse_key")


def derive_seed(master_key: bytes, name: bytes, dialect: Dialect) -> bytes:
    """Return the 32-byte seed of the feed called `name`. Source: `deriveSeed` of `derive-key@1`."""
    namespace = dialect.store_ns
    return hash_of(b"%d\n%b%b" % (len(namespace), namespace, name), key=master_key)


def derive_pair(master_key: bytes, name: bytes, dialect: Dialect) -> KeyPair:
    """Return the key pair of the feed called `name`."""
    if len(master_key) != KEY_BYTES:
        raise InvalidKey(f"a master key has {KEY_BYTES} bytes, not {len(master_key)}")
    return KeyPair.from_seed(derive_seed(master_key, name, dialect))


def check_store(dialect: object, master_key: object) -> None:
    """Raise TypeError or InvalidKey for what no store can be opened with; without a `master_key` the stored one is."""
    if not isinstance(dialect, Dialect):
        raise TypeError(f"dialect is ddrive.DWEB or ddrive.HYPERCORE, not {dialect!r:.80}")
    if master_key is not None and not (isinstance(master_key, bytes) and len(master_key) == KEY_BYTES):
        raise InvalidKey(f"a master key is {KEY_BYTES} bytes, this is of type {type(master_key).__name__}")  # a secret


def discovery_of(key: PublicKey, dialect: Dialect) -> DiscoveryKey:
    """Return the name under which peers of `dialect` look for a feed. Raises: InvalidKey."""
    return discovery_key(checked_key(key), dialect.discovery_ns)


def key_of(feed: Any) -> PublicKey:
    """Return the key of an open feed. Raises: TypeError for what is no feed."""
    key = getattr(feed, "key", None)
    if not isinstance(key, bytes):
        raise TypeError(f"a feed that `open_feed` of the store gave is needed, not {feed!r:.80}")
    return PublicKey(key)


def name_bytes(name: bytes | str) -> bytes:
    """Return the bytes that a name stands for: text is UTF-8. Raises: TypeError for what is neither."""
    if not isinstance(name, str | bytes | bytearray | memoryview):
        raise TypeError(f"a name is text or bytes, not {name!r:.80}")
    return name.encode() if isinstance(name, str) else bytes(name)


def content_name(metadata_key: PublicKey) -> str:
    """Return the name of the feed that holds the file content of the drive with this metadata key."""
    return f"{metadata_key.hex()}-content"


def child_namespace(parent: str | None, name: bytes | str) -> str:
    """Return the name of a namespace inside `parent` (None: the root); it names the namespace's default feed."""
    own = name if isinstance(name, str) else name_bytes(name).hex()
    return own if parent is None else f"{parent}:{own}"


def feed_folder(discovery_key: DiscoveryKey) -> str:
    """Return the folder of a feed below the store's root, with `/` between its three parts. Raises: InvalidKey."""
    if not isinstance(discovery_key, bytes):
        raise InvalidKey(f"a discovery key is bytes, not {discovery_key!r:.80}")
    digits = discovery_key.hex()
    return f"{digits[:2]}/{digits[2:4]}/{digits}"


def encode_name(name: bytes) -> bytes:
    """Return the content of a `name` file: varint length, then the name."""
    size, prefix = len(name), bytearray()
    while size > 0x7F:
        prefix.append(size & 0x7F | 0x80)
        size >>= _VARINT_BITS
    prefix.append(size)
    return bytes(prefix) + name


def decode_name(content: bytes) -> bytes | None:
    """Return the name that a `name` file holds, or None when it is malformed or has trailing bytes."""
    size = 0
    for position, byte in enumerate(content[:8]):
        size |= (byte & 0x7F) << (_VARINT_BITS * position)
        if not byte & 0x80:
            name = content[position + 1 :]
            return name if len(name) == size else None
    return None
