"""Keys as paths of digits: what decides where in the trie a key lies.

A key is split at `/`; each component becomes 32 base-4 digits of its hash. Digit 0 of the whole path tells the visible
half of the database (0) from the hidden one (1); a path ends with the digit 4. Digits are computed when they are asked
for, so that a key with very many components costs nothing but its split. Nothing here reads blocks.

Source: path hashing of `hypertrie@5`.
"""

from functools import lru_cache
from sys import intern
from typing import ClassVar, Final

from ddrive.crypto import siphash
from ddrive.errors import InvalidName, InvalidPath, NameTooLong

COMPONENT_DIGITS: Final = 32  # two bits each of a 64-bit hash
END: Final = 4  # the digit behind the last component
MAX_PATH_BYTES: Final = 8192  # of an entry that is moved along with others; as `drive.paths`
MAX_KEY_BYTES: Final = MAX_PATH_BYTES + 64  # the longest path of a drive plus the prefix of a mount record or tag
_SPREAD_COMPONENTS = 64  # of a path whose digits are kept as one number
_CACHED_CHARS = 255  # longer ones are hashed each time, so that the cache stays small
_CACHED_COMPONENTS = 1 << 16
_BYTE_DIGITS: Final = [bytes(byte >> shift & 3 for shift in (0, 2, 4, 6)) for byte in range(256)]


def normalize(key: str) -> str:
    """Return the stored form of `key`: one leading slash removed, nothing else changed."""
    return key[1:] if key.startswith("/") else key


def split(key: str) -> tuple[str, ...]:
    """Return the components of a stored key; one empty component at either end does not count."""
    parts = key.split("/")
    if not parts[0]:
        del parts[0]
    if parts and not parts[-1]:
        del parts[-1]
    if len(parts) > 1:
        parts[:-1] = map(intern, parts[:-1])  # the names of directories are the same in many nodes
    return tuple(parts)  # the collector of cycles does not visit tuples of text, and there are as many as nodes


def _hash(component: str) -> int:
    return int.from_bytes(siphash(component.encode("utf-8", "replace")), "little")


_cached_hash = lru_cache(_CACHED_COMPONENTS)(_hash)


def component_hash(component: str) -> int:
    """Return the 64-bit hash of `component`; its digit k (of 32) is the bits 2k and 2k + 1."""
    return _cached_hash(component) if len(component) <= _CACHED_CHARS else _hash(component)


@lru_cache(_CACHED_COMPONENTS // 4)
def _component_digits(component: str) -> bytes:
    return b"".join([_BYTE_DIGITS[byte] for byte in component_hash(component).to_bytes(8, "little")])


class KeyPath:
    """A stored key with its components: all that is needed to tell where it lies. Not changed after creation."""

    __slots__ = ("hidden", "key", "parts", "spread")

    recurs: ClassVar = True  # whether the hash of the last component is worth keeping

    def __init__(self, key: str, hidden: bool = False) -> None:
        self.key = key
        self.hidden = hidden
        self.parts = split(key)
        self.spread: int | None = None  # all digits as one number, once they are needed (`parting`)

    @property
    def length(self) -> int:
        """Number of digits, the first (half) and the last (end) included."""
        return COMPONENT_DIGITS * len(self.parts) + 2

    def digit(self, index: int) -> int:
        """Return the digit at `index`; `END` beyond the last component."""
        if not index:
            return 1 if self.hidden else 0
        index -= 1
        depth = index >> 5
        if depth >= len(self.parts):
            return END
        if self.spread is not None and self.spread >= 0:
            return self.spread >> (index << 1) & 3
        return (component_hash(self.parts[depth]) >> ((index & 31) << 1)) & 3

    def digits(self) -> bytes:
        """Return all digits; for a path that is about to be stored, as it is of bounded length."""
        return b"".join([b"\1" if self.hidden else b"\0", *map(_component_digits, self.parts), b"\4"])


def key_path(key: str, hidden: bool = False) -> KeyPath:
    """Return the path of a key as a caller writes it, with or without its leading slash."""
    return KeyPath(normalize(key), hidden)


def writable_path(key: str, hidden: bool = False) -> KeyPath:
    """Return the path of a key that is about to be stored.

    Raises: InvalidPath for a key without components (it would make the database look empty), NameTooLong over
    `MAX_KEY_BYTES`, InvalidName when the key cannot be written as UTF-8.
    """
    path = key_path(key, hidden)
    if not path.parts:
        raise InvalidPath(f"{key!r} names no entry")
    try:
        size = len(path.key.encode())
    except UnicodeEncodeError as error:
        raise InvalidName(f"{key!r} is not valid Unicode") from error
    if size > MAX_KEY_BYTES:
        raise NameTooLong(f"a key has at most {MAX_KEY_BYTES} bytes, not {size}")
    return path


def is_check_point(index: int) -> bool:
    """Tell whether `index` is the last digit of a component: there two different components may share all digits."""
    return index > 0 and not index & 31


def parting(left: KeyPath, right: KeyPath) -> int:
    """Return where the two paths part and how `right` goes on there: index << 3 | digit of `right` at index.

    The index is the first at which the digits differ, or the common length when they never do. Different components
    with equal hashes part at their check point.
    """
    if left.hidden is not right.hidden:
        return 1 if right.hidden else 0
    ours = _spread(left) if left.spread is None else left.spread
    theirs = _spread(right) if right.spread is None else right.spread
    difference = ours ^ theirs
    if difference > 0:
        shift = (difference & -difference).bit_length() - 1 & ~1
        depth = shift >> 6
        if depth < len(left.parts) and depth < len(right.parts) and left.parts[:depth] == right.parts[:depth]:
            return (depth << 8) + 8 + ((shift & 62) << 2) + (theirs >> shift & 3)
    elif left.parts == right.parts:
        return (len(left.parts) << 8) + 16 + END
    return _parting_by_parts(left.parts, right.parts)


def _spread(path: KeyPath) -> int:
    """Return the hashes of all components as one number, the first one lowest, and note it; -1 when they are many."""
    number, parts = 0, path.parts
    if len(parts) > _SPREAD_COMPONENTS:
        number = -1
    elif parts:
        number = component_hash(parts[-1]) if path.recurs else _hash(parts[-1])
        for part in parts[-2::-1]:
            number = number << 64 | component_hash(part)
    path.spread = number
    return number


def _parting_by_parts(ours: tuple[str, ...], theirs: tuple[str, ...]) -> int:
    """Return what `parting` does, component by component: when one path ends, hashes are equal, or there are many."""
    depth, count = 0, len(ours)
    for theirs_here in theirs:
        if depth == count:
            return (depth << 8) + 8 + (component_hash(theirs_here) & 3)
        if theirs_here != ours[depth]:
            number = component_hash(theirs_here)
            difference = number ^ component_hash(ours[depth])
            shift = ((difference & -difference).bit_length() - 1) & 62 if difference else 62
            return (depth << 8) + 8 + (shift << 2) + (number >> shift & 3)
        depth += 1
    return (depth << 8) + (16 if depth == count else 8) + END


def divergence(left: KeyPath, right: KeyPath) -> int:
    """Return the index of `parting` alone."""
    return parting(left, right) >> 3
