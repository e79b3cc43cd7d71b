"""The calls between an engine and the processes attached to it: plain values, and their bytes on a Unix socket.

A frame is a length (u32, big endian) and one msgpack array whose first element tells the kind. Nothing here does I/O:
bytes go in and messages come out. Text may hold the surrogates of undecodable file names and survives unchanged.

    Call    [0, id, method, params]   id 0: no reply is wanted, which makes it a notice; with `file` true among the
                                      params an open file comes beside the frame (SCM_RIGHTS), files in order of calls
    Cancel  [1, id]                   the caller has lost interest; a Reply or Failure comes all the same
    Reply   [2, id, result]
    Failure [3, id, {code, message}]  code is the name of a class in `ddrive.errors`
    Event   [4, topic, params]        pushed by the engine
"""

import struct
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgpack

from ddrive import errors
from ddrive.errors import DISK_FULL, DiskFull, DriveError, RemoteProtocolError, StorageError, TooLarge, first_cause

MAX_FRAME_BYTES = 64 * 1024 * 1024  # twice the largest append that a view sends; a longer frame ends the connection
NOTICE = 0  # id of a call that gets no reply

_LENGTH = struct.Struct(">I")
_CODES = {name: item for name, item in vars(errors).items() if isinstance(item, type) and issubclass(item, DriveError)}


@dataclass(frozen=True, slots=True)
class Call:
    """A wish to have `method` run with `params`."""

    id: int
    method: str
    params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cancel:
    """The caller of call `id` no longer waits."""

    id: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What call `id` gave back."""

    id: int
    result: Any


@dataclass(frozen=True, slots=True)
class Failure:
    """How call `id` failed."""

    id: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened that the other side asked to hear about."""

    topic: str
    params: dict[str, Any]


Message: TypeAlias = Call | Cancel | Reply | Failure | Event


def encode(message: Message) -> bytes:
    """Return the frame of `message`.

    Raises: TooLarge when it is longer than `MAX_FRAME_BYTES`, DriveError when a value has no msgpack form.
    """
    try:
        body = msgpack.packb(_fields(message), use_bin_type=True, unicode_errors="surrogateescape")
    except (TypeError, ValueError, OverflowError) as error:
        raise DriveError(f"{type(message).__name__} cannot be sent: {error}") from error
    if len(body) > MAX_FRAME_BYTES:
        raise TooLarge(f"a message of {len(body)} bytes is over the limit of {MAX_FRAME_BYTES} bytes")
    return _LENGTH.pack(len(body)) + bytes(body)


def failure(call_id: int, error: BaseException) -> Failure:
    """Return the form in which `error` crosses the socket: under the nearest class that the other side knows.

    A system call that failed was one for files of the sender: `DiskFull` where they have no room, else `StorageError`.
    """
    error = first_cause(error)
    if isinstance(error, OSError):
        place = f" ({error.filename})" if isinstance(error.filename, str) else ""
        kind = DiskFull if error.errno in DISK_FULL else StorageError
        error = kind(f"{error.strerror}{place}" if error.strerror else str(error))
    elif not isinstance(error, DriveError):
        error = DriveError(f"internal error: {type(error).__name__}: {error}")
    code = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _CODES)
    return Failure(call_id, code, str(error))


def exception(error: Failure) -> DriveError:
    """Return the exception that `error` stands for; a code unknown here becomes a plain DriveError."""
    kind = _CODES.get(error.code)
    return DriveError(f"{error.code}: {error.message}") if kind is None else kind(error.message)


class MessageReader:
    """Cuts a stream of bytes into messages, however it was split on its way."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def pending_bytes(self) -> int:
        """How many bytes of an unfinished frame are waiting."""
        return len(self._buffer)

    def receive(self, chunk: bytes) -> list[Message]:
        """Return the messages that `chunk` completes.

        Raises: RemoteProtocolError when the bytes are not of this protocol; the reader is useless afterwards.
        """
        self._buffer += chunk
        found: list[Message] = []
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._buffer, start)
            if size > MAX_FRAME_BYTES:
                raise RemoteProtocolError(f"control socket: a frame of {size} bytes is over {MAX_FRAME_BYTES} bytes")
            body = start + _LENGTH.size
            if len(self._buffer) < body + size:
                break
            with memoryview(self._buffer) as view, view[body : body + size] as frame:
                found.append(_decode(frame))
            start = body + size
        del self._buffer[:start]
        return found


def _fields(message: Message) -> tuple[Any, ...]:
    match message:
        case Call(call_id, method, params):
            return (0, call_id, method, params)
        case Cancel(call_id):
            return (1, call_id)
        case Reply(call_id, result):
            return (2, call_id, result)
        case Failure(call_id, code, text):
            return (3, call_id, {"code": code, "message": text})
        case Event(topic, params):
            return (4, topic, params)


def _decode(frame: memoryview) -> Message:
    try:
        fields = msgpack.unpackb(frame, raw=False, unicode_errors="surrogateescape")
    except (ValueError, msgpack.UnpackException) as error:
        raise RemoteProtocolError(f"control socket: a frame is not msgpack: {error}") from error
    match fields:
        case [0, int(call_id), str(method), dict(params)] if call_id >= 0 and _named(params):
            return Call(call_id, method, params)
        case [1, int(call_id)]:
            return Cancel(call_id)
        case [2, int(call_id), result]:
            return Reply(call_id, result)
        case [3, int(call_id), {"code": str(code), "message": str(text)}]:
            return Failure(call_id, code, text)
        case [4, str(topic), dict(params)] if _named(params):
            return Event(topic, params)
    raise RemoteProtocolError("control socket: a frame is none of call, cancel, reply, failure, event")


def _named(params: dict[Any, Any]) -> bool:
    return all(isinstance(name, str) for name in params)
