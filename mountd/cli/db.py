"""`db create|list|info|put|get|del|ls|authorize|watch|diff|log|seed|unseed`: databases that several people write."""

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import typer

from ddrive.appdb import AppDB, Entry, open_appdb
from ddrive.drive.address import parse_key
from ddrive.errors import InvalidKey, NotFound
from ddrive.ids import PublicKey
from mountd.cli import options, report, sharing
from mountd.cli.options import Common
from mountd.cli.session import Session, patience, run
from mountd.cli.sharing import KeyText

KIND = "db"

Name = Annotated[str, typer.Argument(metavar="NAME", help="Key of an entry, such as people/ada.", show_default=False)]
Prefix = Annotated[str, typer.Argument(metavar="[PREFIX]", help="Only at and below this.", show_default=False)]

app = typer.Typer(help="Key/value databases that several people write.", pretty_exceptions_enable=False)


@app.command()
def create(
    name: options.Name = None,
    dialect: options.DialectName = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Make a new, empty database and print its key."""
    sharing.create(KIND, name, dialect, Common(state, as_json, start=not no_start))


@app.command("list")
def listing(state: options.State = None, as_json: options.Json = False, no_start: options.NoStart = False) -> None:
    """List the databases that the engine keeps."""
    sharing.listing(KIND, Common(state, as_json, start=not no_start))


@app.command()
def seed(
    key: KeyText, state: options.State = None, as_json: options.Json = False, no_start: options.NoStart = False
) -> None:
    """Exchange a database with peers, as it is at first; remembered over restarts."""
    sharing.seed(KIND, key, Common(state, as_json, start=not no_start), seeding=True)


@app.command()
def unseed(
    key: KeyText, state: options.State = None, as_json: options.Json = False, no_start: options.NoStart = False
) -> None:
    """Exchange a database with peers no longer, neither way; what is held here stays readable."""
    sharing.seed(KIND, key, Common(state, as_json, start=not no_start), seeding=False)


@app.command()
def info(
    key: KeyText,
    peer: options.Peers = None,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Show the version, the writers, and our own key, which an authorised writer needs to let us write."""

    async def verb(session: Session, db: AppDB) -> None:
        value = {
            "key": db.key.hex(),
            "local": db.local.key.hex(),
            "authorized": await db.authorized(),
            "version": (await db.version()).hex(),
            "feeds": [feed.hex() for feed in db.feeds],
        }
        rows = [["key", value["key"]], ["our key", value["local"]], ["version", value["version"]]]
        rows.append(["authorised", "yes" if value["authorized"] else "no: give our key to somebody who is"])
        session.say(value, report.columns([[str(cell) for cell in row] for row in rows]))

    _with(key, verb, Common(state, as_json, start=not no_start), peer, timeout)


@app.command()
def put(
    key: KeyText,
    name: Name,
    value: Annotated[
        str, typer.Argument(metavar="VALUE", help="The value; - reads it from stdin.", show_default=False)
    ],
    if_not_exists: Annotated[bool, typer.Option("--if-not-exists", help="Leave a value that is there.")] = False,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Store a value; it replaces all values of that name that are seen here."""

    async def verb(session: Session, db: AppDB) -> None:
        content = sys.stdin.buffer.read() if value == "-" else value.encode("utf-8", "surrogateescape")
        node = await db.put(name, content, if_not_exists=if_not_exists)
        await _told(session, db, node)

    _with(key, verb, Common(state, as_json, start=not no_start))


@app.command("del")
def delete(
    key: KeyText,
    name: Name,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Remove a name."""

    async def verb(session: Session, db: AppDB) -> None:
        if not await db.get(name):
            raise NotFound(f"there is nothing called {name!r}")
        await _told(session, db, await db.delete(name))

    _with(key, verb, Common(state, as_json, start=not no_start))


@app.command()
def get(
    key: KeyText,
    name: Name,
    peer: options.Peers = None,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Print the value of a name: several where writers conflict, each on a line."""

    async def verb(session: Session, db: AppDB) -> None:
        nodes = await db.get(name)
        if not nodes:
            raise NotFound(f"there is nothing called {name!r}")
        if len(nodes) > 1:
            report.note(f"{len(nodes)} writers disagree about {name!r}; whoever puts it again settles it")
        session.say([_shown(db, node) for node in nodes], [_text(node) for node in nodes])

    _with(key, verb, Common(state, as_json, start=not no_start), peer, timeout)


@app.command()
def ls(
    key: KeyText,
    prefix: Prefix = "",
    recursive: Annotated[bool, typer.Option("--recursive", "-R", help="Everything below too.")] = False,
    peer: options.Peers = None,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """List names: with -R all of them, else the next level, where a final slash tells that there is more below."""

    async def verb(session: Session, db: AppDB) -> None:
        stem = prefix.strip("/")
        depth = len(stem.split("/")) if stem else 0
        found: dict[str, list[Entry]] = {}
        for nodes in await db.list(prefix, recursive=recursive):
            parts = nodes[0].key.split("/")
            deeper = not recursive and len(parts) > depth + 1
            found["/".join(parts[: depth + 1]) + "/" if deeper else nodes[0].key] = nodes
        session.say(
            [{"name": name, "nodes": [_shown(db, node) for node in nodes]} for name, nodes in sorted(found.items())],
            [report.printable(name) for name in sorted(found)],
        )

    _with(key, verb, Common(state, as_json, start=not no_start), peer, timeout)


@app.command()
def authorize(
    key: KeyText,
    writer: Annotated[str, typer.Argument(metavar="WRITER", help="Their key: ddrive db info shows it.")],
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Let somebody else write."""
    other = PublicKey(parse_key(writer).key)

    async def verb(session: Session, db: AppDB) -> None:
        is_news = await db.authorize(other)
        session.say({"writer": other.hex(), "news": is_news}, [] if is_news else ["authorised already"])

    _with(key, verb, Common(state, as_json, start=not no_start))


@app.command()
def watch(
    key: KeyText,
    prefix: Prefix = "",
    peer: options.Peers = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Print each change at and below a prefix, until interrupted; with --json one value per line."""

    async def verb(session: Session) -> None:
        async with _opened(session, key, peer) as db:
            seen = await db.snapshot()
            async for _ in db.watch(prefix):
                now = await db.snapshot()
                async for change in now.diff(seen, prefix):
                    for node in change.left:
                        line = f"{node.key} = {_text(node)}"
                        sys.stdout.write(f"{json.dumps(_shown(db, node)) if as_json else report.printable(line)}\n")
                    if not change.left:
                        gone = json.dumps({"key": change.key, "deleted": True})
                        sys.stdout.write(f"{gone if as_json else report.printable(change.key + ' is gone')}\n")
                seen = now
                sys.stdout.flush()

    run(Common(state, as_json, start=not no_start), verb)


@app.command()
def diff(
    key: KeyText,
    version: Annotated[str, typer.Argument(metavar="[VERSION]", help="As ddrive db info shows it.")] = "",
    prefix: Annotated[str, typer.Option("--prefix", help="Only at and below this.")] = "",
    peer: options.Peers = None,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Show what changed since a version; without one since the beginning."""
    try:
        since = bytes.fromhex(version)
    except ValueError:
        raise InvalidKey(f"{version!r} is no version: ddrive db info shows the present one") from None

    async def verb(session: Session, db: AppDB) -> None:
        found = [change async for change in db.diff(await db.checkout(since), prefix)]
        signs = {(True, False): "+", (True, True): "~", (False, True): "-"}
        session.say(
            [
                {
                    "key": change.key,
                    "now": [_shown(db, node) for node in change.left],
                    "then": [_shown(db, node) for node in change.right],
                }
                for change in found
            ],
            [report.printable(f"{signs[bool(change.left), bool(change.right)]} {change.key}") for change in found],
        )

    _with(key, verb, Common(state, as_json, start=not no_start), peer, timeout)


@app.command()
def log(
    key: KeyText,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only this name.", show_default=False)] = None,
    peer: options.Peers = None,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Show all changes by all writers, or all values of one name, newest first."""

    async def verb(session: Session, db: AppDB) -> None:
        entries = db.history(reverse=True, strict=True) if name is None else db.key_history(name)
        found = [node async for node in entries]
        rows = [[db.writer(node).hex()[:8], str(node.seq), report.printable(_line(node))] for node in found]
        session.say([_shown(db, node) for node in found], report.columns(rows))

    _with(key, verb, Common(state, as_json, start=not no_start), peer, timeout)


def _with(
    key: str,
    verb: Callable[[Session, AppDB], Awaitable[None]],
    common: Common,
    peers: list[str] | None = None,
    timeout: float | None = None,
) -> None:
    """Run a verb with the newest version of the database."""

    async def work(session: Session) -> None:
        async with patience(session, timeout, f"database {key[:16]}"), _opened(session, key, peers, timeout) as db:
            await db.heads()
            await db.refresh()
            await verb(session, db)

    parse_key(key)
    run(common, work)


@asynccontextmanager
async def _opened(
    session: Session, key: str, peers: list[str] | None = None, wait_s: float | None = None
) -> AsyncIterator[AppDB]:
    ref = parse_key(key)
    store = await sharing.opened(session, ref, KIND, peers, wait_s)
    async with open_appdb(store, key=PublicKey(ref.key)) as db:
        yield db


async def _told(session: Session, db: AppDB, node: Entry) -> None:
    """Say what was written, and whether others will see it."""
    if not await db.authorized():
        report.note(
            f"others do not see this until a writer runs: ddrive db authorize {db.key.hex()} {db.local.key.hex()}"
        )
    session.say(_shown(db, node), [])


def _shown(db: AppDB, node: Entry) -> dict[str, Any]:
    about = {"key": node.key, "deleted": node.deleted, "writer": db.writer(node).hex(), "seq": node.seq}
    return about | sharing.readable(node.value)


def _text(node: Entry) -> str:
    if node.deleted:
        return "(deleted)"
    return "" if node.value is None else node.value.decode("utf-8", "replace")


def _line(node: Entry) -> str:
    return "authorised a writer" if not node.key else f"{node.key} = {_text(node)}"
