"""The file of `keys backup`: JSON encrypted with a key that argon2id makes of a passphrase.

"ddrive keys 1\\n", operations and memory of argon2id (4 + 8 bytes, big endian), 16 bytes of salt, secretbox
"""

import json
from struct import Struct
from typing import Any, Final

from nacl import pwhash, secret, utils
from nacl.exceptions import CryptoError

from ddrive.errors import CorruptStorage

MAGIC: Final = b"ddrive keys 1\n"
MAX_BYTES: Final = 1 << 28
_LIMITS: Final = Struct(">IQ")
_OPERATIONS: Final = pwhash.argon2id.OPSLIMIT_MODERATE
_MEMORY: Final = pwhash.argon2id.MEMLIMIT_MODERATE
_SALT_BYTES: Final = pwhash.argon2id.SALTBYTES
_HEAD_BYTES: Final = len(MAGIC) + _LIMITS.size + _SALT_BYTES


def seal(value: Any, passphrase: bytes) -> bytes:
    """Return the content of a file with `value`. Takes about a second and 256 MiB, as guessing shall."""
    salt = utils.random(_SALT_BYTES)
    box = _box(passphrase, salt, _OPERATIONS, _MEMORY)
    return MAGIC + _LIMITS.pack(_OPERATIONS, _MEMORY) + salt + bytes(box.encrypt(json.dumps(value).encode()))


def unseal(content: bytes, passphrase: bytes) -> Any:
    """Return the value in a file. Raises: CorruptStorage when it is none of ours, damaged, or of another passphrase."""
    if not content.startswith(MAGIC) or len(content) < _HEAD_BYTES:
        raise CorruptStorage("it was not written by ddrive keys backup")
    operations, memory = _LIMITS.unpack_from(content, len(MAGIC))
    if operations > pwhash.argon2id.OPSLIMIT_SENSITIVE or memory > pwhash.argon2id.MEMLIMIT_SENSITIVE:
        raise CorruptStorage("it asks for more time or memory than such a file needs: it is damaged")
    salt = content[len(MAGIC) + _LIMITS.size : _HEAD_BYTES]
    try:
        return json.loads(_box(passphrase, salt, operations, memory).decrypt(content[_HEAD_BYTES:]))
    except (CryptoError, ValueError) as error:
        raise CorruptStorage("the passphrase is wrong, or the file is damaged") from error


def _box(passphrase: bytes, salt: bytes, operations: int, memory: int) -> secret.SecretBox:
    return secret.SecretBox(pwhash.argon2id.kdf(secret.SecretBox.KEY_SIZE, passphrase, salt, operations, memory))
