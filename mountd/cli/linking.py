"""`link` and `unlink-drive`: nest a drive in an own one, and take it out again."""

import re
from pathlib import Path
from typing import Annotated, Any

import trio
import typer

from ddrive.dialect import DIALECTS
from ddrive.drive.address import KeyRef, format_url, parse_key
from ddrive.drive.history import NEWER_S
from ddrive.errors import InvalidKey, InvalidPath, NotFound
from ddrive.ids import PublicKey
from mountd.cli import options, report
from mountd.cli.options import Common
from mountd.cli.session import PATIENCE_S, Session, named_drive, patience, run, short_name, version_of, whole

Place = Annotated[
    str,
    typer.Argument(metavar="PATH", help="A path inside a mount, or KEY:PATH in an own drive.", show_default=False),
]
_FIRST_S = 10.0  # for somebody at a given address to tell of a drive, as `mount` waits
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
        about = await session.call("drive.open", key=ref.key.hex(), dialect=ref.dialect, wait_s=timeout)
        nested = _of_dialect(inner, about["dialect"])
        own = await _is_own(session, nested, ref)
        if peer and inner.tag is None:
            await session.meet(nested, peer)
        version = await version_of(session, inner, peers=peer, timeout=timeout)
        if version is not None:
            await _require(session, nested._replace(version=version), peer or [], timeout, own=own)
        async with patience(session, timeout, place), session.drive(ref, wait_s=timeout) as opened:
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


def _of_dialect(ref: KeyRef, dialect: str) -> KeyRef:
    """Return `ref` as a drive of the dialect of the one around it. Raises: InvalidKey when it names another one."""
    if ref.dialect not in (None, dialect):
        raise InvalidKey(
            f"{short_name(ref)} is of the dialect {ref.dialect}, and only one of {dialect} can be nested here"
        )
    return ref._replace(dialect=dialect)


async def _is_own(session: Session, ref: KeyRef, outer: KeyRef) -> bool:
    """Tell whether a drive is our own; what is only nested in a private drive is opened as private as that."""
    known = [drive for drive in await session.call("list") if drive["key"] == ref.key.hex()]
    session.private = not known and bool((await session.call("info", key=outer.key.hex()))["private"])
    return bool(known and known[0]["writable"])


async def _require(session: Session, ref: KeyRef, peers: list[str], timeout: float | None, *, own: bool) -> None:
    """Return when a drive has the version that `ref` names, or nobody who has it is connected to tell.

    A connected peer may be behind the author: who has the version is waited for as long as a verb has patience. Without
    any, and none given, nothing is waited for: who nests it may know it from elsewhere.
    Raises: NotFound, TimedOut.
    """
    assert ref.version is not None
    store = session.engine.store(DIALECTS[str(ref.dialect)])
    feed = await store.open_feed(key=PublicKey(ref.key), live=True)
    try:
        if not own:
            with trio.move_on_after(min(_FIRST_S, PATIENCE_S if timeout is None else timeout) if peers else NEWER_S):
                await feed.wait_length(1 if peers else ref.version)
        if own or (feed.length and (feed.peer_count or peers)):
            async with patience(session, timeout, short_name(ref)):
                try:
                    await session.require_version(feed, ref.version, timeout)
                except NotFound:
                    if own or feed.peer_count:
                        raise
    finally:
        with trio.CancelScope(shield=True):
            await store.release(feed)
    if peers and ref.version > feed.length:
        report.note(
            f"nobody who has {short_name(ref)} is connected, so whether it has version {ref.version} is not known"
        )


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
