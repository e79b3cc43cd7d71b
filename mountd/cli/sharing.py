"""What the verbs of databases and graphs share: opening one through the engine, and how a node is shown."""

import base64
from typing import Annotated, Any

import trio
import typer

from ddrive.dialect import DIALECTS
from ddrive.drive.address import KeyRef, parse_key
from ddrive.errors import InvalidKey
from ddrive.ids import PublicKey, short
from ddrive.store.attached import AttachedStore
from mountd.cli import report
from mountd.cli.options import Common
from mountd.cli.session import SILENT_S, Session, run

KeyText = Annotated[str, typer.Argument(metavar="KEY", help="Key or URL.", show_default=False)]


def named(text: str) -> KeyRef:
    """Return what a key or URL names, maybe at a version. Raises: InvalidKey, also when it names a path."""
    ref = parse_key(text)
    if ref.path.strip("/"):
        raise InvalidKey(f"{text!r} names a path: give the key alone, and the name after it")
    return ref


def newest(text: str) -> KeyRef:
    """Return what a key or URL names. Raises: InvalidKey, also when it names a path or a version."""
    ref = named(text)
    if ref.version is not None or ref.tag is not None:
        raise InvalidKey(f"{text!r} names a version, which does not change: give the key alone")
    return ref


async def opened(
    session: Session, ref: KeyRef, kind: str, peers: list[str] | None, wait_s: float | None
) -> AttachedStore:
    """Return the store that has what `ref` names, after the engine made it known and keeps it open."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_say_looking, ref, kind)
        try:
            known = await session.call(
                "db.open", key=ref.key.hex(), dialect=ref.dialect, kind=kind, peers=peers or [], wait_s=wait_s
            )
        finally:
            nursery.cancel_scope.cancel()
    session.opened, session.kind = PublicKey(ref.key), _called(kind)
    return session.engine.store(DIALECTS[known["dialect"]])


async def _say_looking(ref: KeyRef, kind: str) -> None:
    """Tell somebody who waits long what is going on."""
    await trio.sleep(SILENT_S)
    report.note(f"still looking for a peer that has {_called(kind)} {short(ref.key)}")


def _called(kind: str) -> str:
    return "database" if kind == "db" else kind


def create(kind: str, name: str | None, dialect: str | None, common: Common) -> None:
    """Make a new database or graph and print its key."""

    async def verb(session: Session) -> None:
        made = await session.call("db.create", kind=kind, name=name, dialect=dialect)
        session.say(made, [made["key"]])

    run(common, verb)


def listing(kind: str, common: Common) -> None:
    """Print the databases or graphs that the engine keeps."""

    async def verb(session: Session) -> None:
        found = await session.call("db.list", kind=kind)
        rows = [
            [known["url"], report.printable(known["name"] or "-"), "seeding" if known["seeding"] else "not seeding"]
            for known in found
        ]
        session.say(found, report.columns(rows))

    run(common, verb)


def seed(kind: str, key: str, common: Common, *, seeding: bool) -> None:
    """Exchange a database or graph with peers from now on, or not."""

    async def verb(session: Session) -> None:
        session.say(await session.call("db.seed", key=ref.key.hex(), kind=kind, seeding=seeding), [])

    ref = newest(key)
    run(common, verb)


def readable(value: bytes | None) -> dict[str, Any]:
    """Return a value as JSON can carry it: text when it is UTF-8, else base64, which is said then."""
    if value is None:
        return {"value": None}
    try:
        return {"value": value.decode()}
    except UnicodeDecodeError:
        return {"value": base64.b64encode(value).decode(), "encoding": "base64"}
