"""From a master key and a name to a feed's key pair, and from a discovery key to its folder.

Values only: the files themselves are read and written by `store`. Source: `basestorex@1`, `corestore@5`
(`keys-<dialect>.json` of the test vectors).
"""

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


def discovery_of(key: PublicKey, dialect: Dialect) -> DiscoveryKey:
    """Return the name under which peers of `dialect` look for a feed."""
    return discovery_key(key, dialect.discovery_ns)


def name_bytes(name: bytes | str) -> bytes:
    """Return the bytes that a name stands for: text is UTF-8."""
    return name.encode() if isinstance(name, str) else bytes(name)


def content_name(metadata_key: PublicKey) -> str:
    """Return the name of the feed that holds the file content of the drive with this metadata key."""
    return f"{metadata_key.hex()}-content"


def child_namespace(parent: str | None, name: bytes | str) -> str:
    """Return the name of a namespace inside `parent` (None: the root); it names the namespace's default feed."""
    own = name if isinstance(name, str) else name.hex()
    return own if parent is None else f"{parent}:{own}"


def feed_folder(discovery_key: DiscoveryKey) -> str:
    """Return the folder of a feed below the store's root, with `/` between its three parts."""
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
