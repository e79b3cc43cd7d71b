"""What a program puts into a feed and gets out of it, and the bytes that blocks are made of.

The names and forms are those of the npm packages, so that either side reads what the other wrote.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ddrive.errors import UndecodableBlock


class Encoding(Protocol):
    """Turns values into blocks and back. Any object with these two methods will do."""

    def encode(self, value: Any) -> bytes:
        """Return the block that stands for `value`."""

    def decode(self, block: bytes) -> Any:
        """Return the value that `block` stands for."""


@dataclass(frozen=True, slots=True)
class NamedEncoding:
    """An encoding made of two functions."""

    name: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


def _binary(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    try:
        return bytes(memoryview(value))
    except TypeError:
        raise TypeError(f"a value is bytes or text, without another value_encoding, not {value!r:.80}") from None


def _json_line(value: Any) -> bytes:
    return _json(value) + b"\n"


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _str(value: Any) -> str:
    """Return a value as text: bytes that are UTF-8 stand for what they say, as in the npm packages."""
    if isinstance(value, str):
        return value
    try:
        return bytes(memoryview(value)).decode()
    except TypeError:  # the npm packages take what it prints as, which does not come back as what it was
        raise TypeError(f"a value is text, or bytes that are UTF-8, not {value!r:.80}") from None


def _text(name: str, codec: str = "") -> NamedEncoding:
    codec = codec or name
    return NamedEncoding(name, lambda value: _str(value).encode(codec), lambda block: block.decode(codec))


BINARY = NamedEncoding("binary", _binary, bytes)  # text is accepted and written as UTF-8
UTF8 = _text("utf-8")
ASCII = _text("ascii")
UCS2 = _text("ucs2", "utf-16-le")
HEX = NamedEncoding("hex", bytes.fromhex, bytes.hex)
BASE64 = NamedEncoding("base64", b64decode, lambda block: b64encode(block).decode())
JSON = NamedEncoding("json", _json_line, json.loads)  # one line of text with its end: a feed reads as ndjson
JSON_MESSAGE = NamedEncoding("json", _json, json.loads)  # of extension messages, which have no line end

ENCODINGS: dict[str, NamedEncoding] = {
    "binary": BINARY,
    "utf-8": UTF8,
    "utf8": UTF8,
    "ascii": ASCII,
    "ucs2": UCS2,
    "hex": HEX,
    "base64": BASE64,
    "json": JSON,
    "ndjson": JSON,
}


def encoding_of(chosen: str | Encoding) -> Encoding:
    """Return the encoding of a name, or the encoder object itself.

    Raises: ValueError for a name that is not known and for an object without `encode` and `decode`.
    """
    if not isinstance(chosen, str):
        if not (hasattr(chosen, "encode") and hasattr(chosen, "decode")):
            raise ValueError(f"{chosen!r} is no encoding: it lacks `encode` or `decode`")
        return chosen
    try:
        return ENCODINGS[chosen]
    except KeyError:
        raise ValueError(f"{chosen!r} is no encoding; known are {', '.join(sorted(ENCODINGS))}") from None


def message_encoding_of(chosen: str | Encoding) -> Encoding:
    """Return the encoding of an extension's messages: `json` has no line end there."""
    return JSON_MESSAGE if chosen == "json" else encoding_of(chosen)


def decode(encoding: Encoding, block: bytes, what: str) -> Any:
    """Return the value of a block.

    Raises: UndecodableBlock, naming `what` it was.
    """
    if encoding is BINARY:
        return block
    try:
        return encoding.decode(block)
    except Exception as error:
        raise UndecodableBlock(f"{what} is not of the chosen encoding: {error}") from error
