"""Keys and URLs of drives ↔ text.

Dialects are told by name (`"dweb"`, `"hypercore"`), as on the command line: which constants belong to a name is
`ddrive.dialect`'s business. No network, no store: whether such a drive exists is not known here.
"""

import re
from typing import NamedTuple
from urllib.parse import quote, unquote

from ddrive.errors import InvalidKey
from ddrive.ids import PublicKey

SCHEMES: dict[str, str | None] = {"dweb": "dweb", "hyper": "hypercore", "dat": None}  # None: both dialects used it
KEY_BYTES = 32
Z_BASE_32 = "ybndrfg8ejkmcpqxot1uwisza345h769"  # source: the human-oriented base-32 encoding of dat URLs
Z_BASE_32_LETTERS = 52  # 5 bits each, 260 bits: the last 4 are zero

_FORM = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9.+-]*)://)?(?P<key>[A-Za-z0-9]+)(?:\+(?P<at>[^/]*))?(?P<path>/.*)?", re.DOTALL
)
_SHOWN = 80  # characters of a wrong text that a message repeats


class KeyRef(NamedTuple):
    """What a key or URL names; `dialect` None when the text does not tell, `path` starts with a slash or is empty."""

    key: PublicKey
    dialect: str | None = None
    version: int | None = None
    tag: str | None = None
    path: str = ""


def parse_key(text: str) -> KeyRef:
    """Return what `text` names: 64 hex digits or 52 z-base-32 letters, alone or as `scheme://KEY[+VERSION|+TAG][/path]`.

    In a URL (with scheme) the path and tag are percent-decoded.
    Raises: InvalidKey, in one line that says what is wrong.
    """
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    form = _FORM.fullmatch(text.strip())
    if form is None:
        raise InvalidKey(f"{shown!r} is not a key: give 64 hex digits or a URL like dweb://KEY/")
    scheme = form["scheme"]
    if scheme is not None and scheme.lower() not in SCHEMES:
        raise InvalidKey(f"{shown!r}: the scheme {scheme!r} is none of {', '.join(SCHEMES)}")
    key = _key_bytes(form["key"], shown)
    path, at = form["path"] or "", form["at"]
    if scheme is not None:
        path, at = unquote(path), None if at is None else unquote(at)
    version, tag = _version_or_tag(at, shown)
    return KeyRef(key, SCHEMES[scheme.lower()] if scheme else None, version, tag, path)


def _key_bytes(letters: str, shown: str) -> PublicKey:
    """Return the 32 bytes that `letters` spell."""
    if len(letters) == 2 * KEY_BYTES:
        try:
            return PublicKey(bytes.fromhex(letters))
        except ValueError:
            raise InvalidKey(f"{shown!r} is not a key: it holds letters other than 0-9 and a-f") from None
    if len(letters) != Z_BASE_32_LETTERS:
        raise InvalidKey(f"{shown!r} is not a key: {len(letters)} characters where 64 hex digits are needed")
    value = 0
    for letter in letters.lower():
        digit = Z_BASE_32.find(letter)
        if digit < 0:
            raise InvalidKey(f"{shown!r} is not a key: {letter!r} is no letter of z-base-32")
        value = value << 5 | digit
    if value & 0xF:
        raise InvalidKey(f"{shown!r} is not a key: its last letter is wrong")
    return PublicKey((value >> 4).to_bytes(KEY_BYTES, "big"))


def _version_or_tag(at: str | None, shown: str) -> tuple[int | None, str | None]:
    """Return what stands after the plus sign of an address: digits are a version, anything else is a tag."""
    if at is None:
        return None, None
    if not at:
        raise InvalidKey(f"{shown!r}: a version or tag must follow the plus sign")
    if not (at.isascii() and at.isdigit()):
        return None, at
    version = int(at[:20])
    if not 0 < version < 1 << 53:
        raise InvalidKey(f"{at[:20]} is no version ({shown}): the first one is 1; ddrive log shows the others")
    return version, None


def format_url(key: bytes, dialect: str, *, version: int | None = None, tag: str | None = None, path: str = "") -> str:
    """Return the URL of a drive, such as `dweb://HEX+5/docs/a%20b`; the dialect is given by its name.

    Raises: InvalidKey when the key has not 32 bytes or the dialect is unknown.
    """
    scheme = next((scheme for scheme, name in SCHEMES.items() if name == dialect), None)
    if scheme is None or len(key) != KEY_BYTES:
        raise InvalidKey(f"no URL can be made of a key of {len(key)} bytes in dialect {dialect!r}")
    at = version if version is not None else quote(tag, safe="") if tag is not None else None
    return f"{scheme}://{key.hex()}{'' if at is None else f'+{at}'}/{quote(path.lstrip('/'))}"
