"""Changes as lines of JSON on stdin, in the form in which `watch --json` prints them: `db write`, `graph write`."""

import base64
import json
import os
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, TypeVar

import trio

from ddrive.appdb import AnyChange, Delete, Put
from ddrive.errors import UnusablePlace
from ddrive.graph import Edge, EdgeChange

STDIN: Final = 0
CHUNK_BYTES: Final = 1024 * 1024
LINES: Final = 256  # that are done at once, at most
MAX_LINE_BYTES: Final = 64 * 1024 * 1024  # a value of 8 MiB, the largest, of which each byte is written as \u00xx

Change = TypeVar("Change")


async def read_changes(parse: Callable[[dict[str, Any]], Change]) -> AsyncIterator[list[Change]]:
    """Give what `parse` makes of the lines of stdin as they come, some at a time.

    Raises: UnusablePlace, which names the line.
    """
    number = 0
    async for lines in _lines():
        for some in (lines[start : start + LINES] for start in range(0, len(lines), LINES)):
            found: list[Change] = []
            for line in some:
                number += 1
                try:
                    if line.strip():
                        found.append(parse(json.loads(line)))
                except (KeyError, TypeError, ValueError, RecursionError) as error:
                    why = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
                    raise UnusablePlace(
                        f"line {number} of stdin is no change ({why}): give one object per line, as watch --json prints"
                    ) from None
            if found:
                yield found


async def _lines() -> AsyncIterator[list[bytes]]:
    """Give the lines of stdin as they come.

    They are read from the descriptor: a thread that waits in `sys.stdin` would hold its lock when the process ends.
    Raises: UnusablePlace for a line that is too long; it is not read to its end.
    """
    rest: list[bytes] = []  # of the line that goes on
    done = size = 0
    while chunk := await trio.to_thread.run_sync(os.read, STDIN, CHUNK_BYTES, abandon_on_cancel=True):
        first, *others = chunk.split(b"\n")
        rest.append(first)
        size += len(first)
        if others:
            whole = [b"".join(rest), *others[:-1]]
            rest, size, done = others[-1:], len(others[-1]), done + len(whole)
            yield whole
        if size > MAX_LINE_BYTES:
            raise UnusablePlace(
                f"line {done + 1} of stdin is longer than {MAX_LINE_BYTES >> 20} MiB, which no value needs: "
                "give one object per line, as watch --json prints"
            )
    yield [b"".join(rest)]


def db_change(value: dict[str, Any]) -> AnyChange:
    """Return what a line says of a key: its value, or that it is deleted. Raises: KeyError, TypeError, ValueError."""
    key = _text(value, "key")
    if value.get("deleted"):
        return Delete(key)
    content = value["value"]
    if content is None:
        return Put(key, None, bool(value.get("if_not_exists")))
    text = _text(value, "value")
    is_bytes = value.get("encoding") == "base64"
    return Put(
        key, base64.b64decode(text, validate=True) if is_bytes else text.encode(), bool(value.get("if_not_exists"))
    )


def edge_change(value: dict[str, Any]) -> EdgeChange:
    """Return what a line says of an edge: that it is there, or removed. Raises: KeyError, TypeError, ValueError."""
    edge = Edge(_text(value, "from"), _text(value, "to"), _text(value, "label"))
    return EdgeChange(edge, is_removal=bool(value.get("removed")))


def _text(value: dict[str, Any], name: str) -> str:
    if not isinstance(value, dict):
        raise TypeError("it is no JSON object")
    text = value[name]
    if not isinstance(text, str):
        raise TypeError(f"{name!r} is no text")
    return text
