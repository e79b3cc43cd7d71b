"""`db create|list|seed|unseed|info|authorize|put|write|del`: databases of several writers, and who may write."""

import sys
from typing import Annotated

import typer

from ddrive.appdb import AppDB, Put
from ddrive.drive.address import parse_key
from ddrive.feed.owned import MAX_APPEND_BYTES
from ddrive.ids import PublicKey
from mountd.cli import db_reading, options, report, sharing
from mountd.cli.changes import db_change, read_changes
from mountd.cli.db_access import KIND, Name, note_unheard, nothing, opened, run_with, shown
from mountd.cli.options import Common
from mountd.cli.session import Session, patience, run
from mountd.cli.sharing import KeyText
from mountd.values import counted

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
        is_ours = await db.authorized()
        key, local, version = db.key.hex(), db.local.key.hex(), (await db.version()).hex()
        writers = [feed.hex() for feed in db.feeds if await db.authorized(feed)]
        value = {
            "key": key,
            "local": local,
            "authorized": is_ours,
            "version": version,
            "feeds": [feed.hex() for feed in db.feeds],
            "writers": writers,
            "forked": [feed.hex() for feed in db.forked],
        }
        rows = [["key", key], ["our key", local], ["version", version]]
        rows.append(["authorised", "yes" if is_ours else "no: give our key to somebody who is"])
        rows += [["writer", f"{writer} (ours)" if writer == local else writer] for writer in writers]
        rows += [["forked", f"{feed.hex()}: two histories were signed with it, one is not shown"] for feed in db.forked]
        session.say(value, report.columns(rows))

    run_with(key, verb, Common(state, as_json, start=not no_start), peer, timeout)


@app.command()
def put(
    key: KeyText,
    name: Name,
    value: Annotated[
        str, typer.Argument(metavar="VALUE", help="The value; - reads it from stdin.", show_default=False)
    ],
    if_not_exists: Annotated[bool, typer.Option("--if-not-exists", help="Leave a value that is there.")] = False,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Store a value; it replaces all values of that name that are seen here."""
    sharing.newest(key)  # a wrong one is told before anything is read
    # one byte more than fits is enough to be refused
    content = sys.stdin.buffer.read(MAX_APPEND_BYTES + 1) if value == "-" else value.encode("utf-8", "surrogateescape")

    async def verb(session: Session, db: AppDB) -> None:
        length = db.local.length
        [nodes] = await db.batch([Put(name, content, if_not_exists)])
        is_stored = db.writer(nodes[0]) == db.local.key and nodes[0].seq >= length
        if is_stored:
            await note_unheard(db)
        else:
            report.note(f"there is something called {name!r} already: it was left as it is")
        session.say(shown(db, nodes[0]) | {"stored": is_stored}, [])

    run_with(key, verb, Common(state, as_json, start=not no_start), timeout=timeout, changes=True)


@app.command()
def write(
    key: KeyText,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Do many changes: lines of JSON on stdin, such as {"key": "a", "value": "1"} and {"key": "b", "deleted": true}."""
    ref = sharing.newest(key)

    async def work(session: Session) -> None:
        async with opened(session, ref, wait_s=timeout) as db:
            async with patience(session, timeout, f"database {ref.key.hex()[:8]}"):
                await db.heads()
            count = 0
            async for some in read_changes(db_change):
                count += len(await db.batch(some))
            await note_unheard(db)
        session.say({"changes": count}, [counted(count, "change")])

    run(Common(state, as_json, start=not no_start), work)


@app.command("del")
def delete(
    key: KeyText,
    name: Name,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Remove a name."""

    async def verb(session: Session, db: AppDB) -> None:
        if not await db.get(name):
            raise nothing(db, name)
        node = await db.delete(name)
        await note_unheard(db)
        session.say(shown(db, node), [])

    run_with(key, verb, Common(state, as_json, start=not no_start), timeout=timeout, changes=True)


@app.command()
def authorize(
    key: KeyText,
    writer: Annotated[str, typer.Argument(metavar="WRITER", help="Their key: ddrive db info shows it.")],
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Let somebody else write."""
    other = PublicKey(parse_key(writer).key)

    async def verb(session: Session, db: AppDB) -> None:
        is_news = await db.authorize(other)
        await note_unheard(db)
        session.say({"writer": other.hex(), "news": is_news}, [] if is_news else ["authorised already"])

    run_with(key, verb, Common(state, as_json, start=not no_start), timeout=timeout, changes=True)


for _verb in (db_reading.get, db_reading.ls, db_reading.watch, db_reading.diff, db_reading.log):
    app.command()(_verb)
