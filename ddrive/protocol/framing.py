"""Frames: a length, a header with channel and type, a body; out of any split of the byte stream.

A frame is `varint(size) header body`, where size counts header and body and header is `varint(channel * 16 + type)`.
A size of 0 is a frame without header: the sign of life that keeps a link open. What the types mean is decided
elsewhere. Source: `simple-message-channels`.
"""

from contextlib import suppress
from functools import lru_cache
from typing import Final, NamedTuple

from ddrive.errors import LocalProtocolError, RemoteProtocolError
from ddrive.protocol.varint import decode_varint, encode_varint

MAX_BODY_BYTES = 8 * 1024 * 1024  # a block plus its proof; a longer body ends the link
MAX_HEADER_BYTES = 8  # the header is a varint
PING: Final = b"\0"  # a frame of size 0


class Frame(NamedTuple):
    """One frame; `body` is a view into received bytes and is valid for as long as somebody holds it."""

    channel: int  # the sender's number
    kind: int  # 0 to 15
    body: memoryview


@lru_cache(1024)  # blocks of a feed are mostly of one size
def frame_head(channel: int, kind: int, body_size: int) -> bytes:
    """Return the bytes that go before a body of `body_size` bytes.

    Raises: LocalProtocolError when no peer would accept a body of this size.
    """
    if body_size > MAX_BODY_BYTES:
        raise LocalProtocolError(f"a message body of {body_size} bytes is over the limit of {MAX_BODY_BYTES}")
    header = encode_varint(channel << 4 | kind)
    return encode_varint(len(header) + body_size) + header


def encode_frame(channel: int, kind: int, body: bytes) -> bytes:
    """Return the whole frame."""
    return frame_head(channel, kind, len(body)) + body


class FrameReader:
    """Cuts a byte stream into frames. Holds at most one unfinished frame; nothing is allocated for a declared size."""

    def __init__(self) -> None:
        self._held = bytearray()  # the beginning of a frame, its length varint included
        self._needed = 1  # no frame can end before this many bytes
        self.max_body_bytes = MAX_BODY_BYTES  # may be lowered: a longer body ends the link

    @property
    def held_bytes(self) -> int:
        """How much of an unfinished frame is kept."""
        return len(self._held)

    @property
    def held_head(self) -> tuple[int, int] | None:
        """The channel and the type of the unfinished frame; None when there is none or they are not here yet."""
        with suppress(RemoteProtocolError):  # told when the frame is complete
            size = decode_varint(self._held, 0, len(self._held))
            header = decode_varint(self._held, size[1], len(self._held)) if size is not None else None
            return None if header is None else (header[0] >> 4, header[0] & 15)
        return None

    def feed(self, chunk: bytes | bytearray) -> list[Frame]:
        """Return the frames that `chunk` completes, without those of size 0.

        Raises: RemoteProtocolError when the length is over the limit or not well formed.
        """
        frames: list[Frame] = []
        start = 0
        while self._held and start < len(chunk):  # finish the held frame alone: the rest of the chunk is not copied
            take = max(self._needed - len(self._held), 1)
            self._held += chunk[start : start + take]
            start += take
            if len(self._held) >= self._needed:
                data, self._held = self._held, bytearray()
                frames += self._cut(data, 0)
        if start < len(chunk):
            frames += self._cut(chunk, start)
        return frames

    def _cut(self, data: bytes | bytearray, offset: int) -> list[Frame]:
        frames: list[Frame] = []
        view = memoryview(data)
        end = len(data)
        self._needed = 1
        while offset < end:
            found = decode_varint(data, offset, end)
            if found is None:
                self._needed = end - offset + 1
                break
            size, start = found
            if size > self.max_body_bytes + MAX_HEADER_BYTES:
                raise RemoteProtocolError(f"a frame of {size} bytes is over the limit")
            stop = start + size
            if stop > end:
                self._needed = stop - offset
                break
            if size:
                frames.append(_frame(data, view, start, stop))
            offset = stop
        if offset < end:
            self._held += view[offset:]
        return frames


def _frame(data: bytes | bytearray, view: memoryview, start: int, stop: int) -> Frame:
    """Return the frame whose header and body are `data[start:stop]`."""
    found = decode_varint(data, start, stop)
    if found is None:
        raise RemoteProtocolError("a frame ends within its header")
    header, body = found
    if stop - body > MAX_BODY_BYTES:
        raise RemoteProtocolError(f"a message body of {stop - body} bytes is over the limit of {MAX_BODY_BYTES}")
    return Frame(header >> 4, header & 15, view[body:stop])
