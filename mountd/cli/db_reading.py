"""`db get|ls|diff|log|watch`: what is in a database, what changed, and what changes."""

import json
import sys
from typing import Annotated, Any

import trio
import typer

from ddrive.appdb import AppDB, Entry
from ddrive.errors import InvalidKey
from ddrive.trie.path import split
from mountd.cli import options, report, sharing
from mountd.cli.db_access import Name, Prefix, nothing, opened, run_with, shown, text_of, version_of
from mountd.cli.options import Common
from mountd.cli.session import Session, explain_waits, run
from mountd.cli.sharing import KeyText


def get(
    key: KeyText,
    name: Name,
    raw: Annotated[bool, typer.Option("--raw", help="Only the bytes of one value, without a newline.")] = False,
    peer: options.Peers = None,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Print the value of a name: several where writers conflict, each followed by a newline."""

    async def verb(session: Session, db: AppDB) -> None:
        nodes, first = await db.get(name), await db.first(name)
        if first is None:
            raise nothing(db, name)
        if len(nodes) > 1:
            report.note(f"{len(nodes)} writers disagree about {name!r}; whoever puts it again settles it")
        if raw and not as_json:
            sys.stdout.buffer.write(first.value or b"")
            sys.stdout.buffer.flush()
            return
        session.say([shown(db, node) for node in nodes], [text_of(node) for node in nodes])

    run_with(key, verb, Common(state, as_json, start=not no_start), peer, timeout)


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
        if recursive:
            found = {nodes[0].key: list(nodes) for nodes in await db.list(prefix)}
        else:
            found = await _level(db, prefix.strip("/"))
        session.say(
            [{"name": name, "nodes": [shown(db, node) for node in nodes]} for name, nodes in sorted(found.items())],
            [report.printable(name) for name in sorted(found)],
        )

    run_with(key, verb, Common(state, as_json, start=not no_start), peer, timeout)


async def _level(db: AppDB, stem: str) -> dict[str, list[Entry]]:
    """Return `stem` and the names right below it; one with a final slash has the nodes of a name further below."""
    depth = len(stem.split("/")) if stem else 0
    found: dict[str, list[Entry]] = {}
    for child in await db.list(stem, recursive=False):
        name = "/".join(child[0].key.split("/")[: depth + 1])
        if len(split(name)) <= len(split(stem)):
            found[child[0].key] = list(child)
            continue
        async for nodes in db.iterate(name):  # what has that name itself comes first
            if len(split(nodes[0].key)) > len(split(name)):
                found[f"{name}/"] = nodes
                break
            found[nodes[0].key] = nodes
    return found


def watch(
    key: KeyText,
    prefix: Prefix = "",
    peer: options.Peers = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Print each change at and below a prefix, until interrupted; with --json one value per line."""
    ref = sharing.newest(key)

    async def verb(session: Session) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(explain_waits, session)
            async with opened(session, ref, peer) as db:
                seen = await db.snapshot()
                async for _ in db.watch(prefix):
                    now = await db.snapshot()
                    await _print_changes(db, now, seen, prefix, as_json=as_json)
                    seen = now

    run(Common(state, as_json, start=not no_start), verb)


async def _print_changes(db: AppDB, now: AppDB, seen: AppDB, prefix: str, *, as_json: bool) -> None:
    async for change in now.diff(seen, prefix):
        for node in change.left:
            _print(shown(db, node), f"{node.key} = {text_of(node)}", as_json=as_json)
        if not change.left:
            _print({"key": change.key, "deleted": True}, f"{change.key} is gone", as_json=as_json)
    sys.stdout.flush()


def _print(value: dict[str, Any], line: str, *, as_json: bool) -> None:
    sys.stdout.write(f"{json.dumps(value) if as_json else report.printable(line)}\n")


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
    """Show what changed since a version; without one since the beginning. KEY+VERSION compares up to that version."""
    since = version_of(version)

    async def verb(session: Session, db: AppDB) -> None:
        found = [change async for change in db.diff(await db.checkout(since), prefix)]
        found.sort(key=lambda change: change.key)
        signs = {(True, False): "+", (True, True): "~", (False, True): "-"}
        session.say(
            [
                {
                    "key": change.key,
                    "now": [shown(db, node) for node in change.left],
                    "then": [shown(db, node) for node in change.right],
                }
                for change in found
            ],
            [report.printable(f"{signs[bool(change.left), bool(change.right)]} {change.key}") for change in found],
        )

    run_with(key, verb, Common(state, as_json, start=not no_start), peer, timeout)


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
        found, rows = [], []
        async for node in entries:
            new = [writer.hex() for writer in await db.authorizes(node)]
            found.append(shown(db, node) | ({"authorizes": new} if new else {}))
            line = f"{node.key} = {text_of(node)}" if node.key else f"authorised {', '.join(new) or 'nobody new'}"
            rows.append([db.writer(node).hex()[:8], str(node.seq), report.printable(line)])
        session.say(found, report.columns(rows))

    if name == "":
        raise InvalidKey("'' names no entry: leave it out for the changes of all names")
    run_with(key, verb, Common(state, as_json, start=not no_start), peer, timeout)
