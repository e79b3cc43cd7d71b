"""`link` and `unlink-drive`: nest a drive in an own one, and take it out again."""

import re
from pathlib import Path
from typing import Annotated, Any

import trio
import typer

from ddrive.dialect import DIALECTS
from ddrive.drive.address import KeyRef, format_url, parse_key
from ddrive.drive.history import NEWER_S, require_version
from ddrive.errors import InvalidKey, InvalidPath
from ddrive.ids import PublicKey
from ddrive.store.attached import AttachedStore
from mountd.cli import options
from mountd.cli.options import Common
from mountd.cli.session import Session, named_drive, patience, run, short_name, version_of, whole

Place = Annotated[
    str,
    typer.Argument(metavar="PATH", help="A path inside a mount, or KEY:PATH in an own drive.", show_default=False),
]
_KEY_AND_PATH = re.compile(r"((?:[a-z]+://)?[0-9A-Za-z]{52,64}):(.*)", re.DOTALL)


def link(
    path: Place,
    key: Annotated[
        str,
        typer.Argument(metavar="KEY", help="Key or URL of the drive to nest.", show_default=False),
    ],
    peer: options.Peers = None,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Nest a drive at a path of a drive of your own."""

    async def verb(session: Session) -> None:
        ref = await session.find(named)
        place = _place(ref, path)
        version = await version_of(session, inner, peers=peer, timeout=timeout)
        if version is not None:
            await _require_own(session, inner)
        async with patience(session, timeout, place), session.drive(ref, wait_s=timeout) as opened:
            if version is not None:
                await _require_known(session.engine.store(DIALECTS[session.about["dialect"]]), inner, version)
            await opened.mount(place, inner.key, version=version)
            value = _shown(opened.key, place, opened.version)
            url = format_url(inner.key, opened.dialect_name, version=version)
        session.say(value | {"linked": inner.key.hex(), "linked_version": version}, [url])

    inner = whole(parse_key(key), newest=False)
    named = _named(path)
    run(Common(state, as_json, start=not no_start), verb)


def unlink_drive(
    path: Place,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Take a nested drive out of a drive of your own; the nested drive itself stays."""

    async def verb(session: Session) -> None:
        ref = await session.find(named)
        place = _place(ref, path)
        async with patience(session, timeout, place), session.drive(ref, wait_s=timeout) as opened:
            await opened.unmount(place)
            value = _shown(opened.key, place, opened.version)
        session.say(value, [])

    named = _named(path)
    run(Common(state, as_json, start=not no_start), verb)


async def _require_own(session: Session, ref: KeyRef) -> None:
    """Return when `ref` is a version that there may be: of a drive of our own, one that there is. Raises: NotFound.

    Of other drives a newer one may be known elsewhere, and who nests it need not wait for a peer: `_require_known`.
    """
    known = [drive for drive in await session.call("list") if drive["key"] == ref.key.hex()]
    if known and known[0]["writable"]:
        async with patience(session, None, short_name(ref)), session.drive(ref):
            pass


async def _require_known(store: AttachedStore, ref: KeyRef, version: int) -> None:
    """Return when a drive has this version, or nobody is connected who knows how many it has. Raises: NotFound."""
    feed = await store.open_feed(key=PublicKey(ref.key), live=True)
    try:
        with trio.move_on_after(NEWER_S):
            await feed.wait_length(version)
        if feed.length and feed.peer_count:
            await feed.refresh()
            await require_version(feed, version)
    finally:
        await store.release(feed)


def _named(text: str) -> KeyRef | Path:
    """Return the drive and path that `text` names: `KEY:PATH`, a URL with a path, or a path in a mount."""
    match = _KEY_AND_PATH.fullmatch(text)
    if match is not None:
        try:
            return parse_key(match[1])._replace(path="/" + match[2].lstrip("/"))
        except InvalidKey:
            pass
    return named_drive(text)


def _place(ref: KeyRef, text: str) -> str:
    place = "/" + ref.path.strip("/")
    if place == "/":
        raise InvalidPath(f"no drive can be nested at the root ({text}): name a path below it")
    return place


def _shown(key: bytes, path: str, version: int) -> dict[str, Any]:
    return {"key": key.hex(), "path": path, "version": version}
