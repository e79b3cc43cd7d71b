"""Changes as lines of JSON on stdin, in the form in which `watch --json` prints them: `db write`, `graph write`."""

import base64
import json
import sys
from collections.abc import AsyncIterator, Callable
from itertools import islice
from typing import Any, Final, TypeVar

import trio

from ddrive.appdb import AnyChange, Delete, Put
from ddrive.errors import UnusablePlace
from ddrive.graph import Edge, EdgeChange

LINES: Final = 256  # that are read, and done, at once

Change = TypeVar("Change")


async def read_changes(parse: Callable[[dict[str, Any]], Change]) -> AsyncIterator[list[Change]]:
    """Give what `parse` makes of the lines of stdin, some at a time. Raises: UnusablePlace, which names the line."""
    number = 0
    while lines := await trio.to_thread.run_sync(_some_lines, abandon_on_cancel=True):
        found: list[Change] = []
        for line in lines:
            number += 1
            try:
                if line.strip():
                    found.append(parse(json.loads(line)))
            except (KeyError, TypeError, ValueError) as error:
                why = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
                raise UnusablePlace(
                    f"line {number} of stdin is no change ({why}): give one object per line, as watch --json prints"
                ) from None
        yield found


def _some_lines() -> list[bytes]:
    return list(islice(sys.stdin.buffer, LINES))


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
