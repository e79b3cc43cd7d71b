"""`graph create|list|info|put|write|del|walk|diff|watch|seed|unseed`: labelled graphs from the shell."""

import json
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import trio
import typer

from ddrive.drive.address import KeyRef
from ddrive.errors import InvalidKey, NotFound
from ddrive.graph import Edge, EdgeChange, Graph
from ddrive.ids import PublicKey, short
from ddrive.trie import open_trie
from mountd.cli import options, report, sharing
from mountd.cli.changes import edge_change, read_changes
from mountd.cli.options import Common
from mountd.cli.session import Session, explain_waits, patience, run
from mountd.cli.sharing import KeyText
from mountd.values import counted

KIND = "graph"

Source = Annotated[str, typer.Argument(metavar="FROM", help="Node that the edge leaves.", show_default=False)]
Target = Annotated[str, typer.Argument(metavar="TO", help="Node that the edge leads to.", show_default=False)]
Label = Annotated[str, typer.Argument(metavar="LABEL", help="Label of the edge.", show_default=False)]

OneLabel = Annotated[str | None, typer.Argument(metavar="[LABEL]", help="Only this label.", show_default=False)]

app = typer.Typer(help="Directed graphs with labelled edges.", pretty_exceptions_enable=False)


@app.command()
def create(
    name: options.Name = None,
    dialect: options.DialectName = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Make a new, empty graph and print its key."""
    sharing.create(KIND, name, dialect, Common(state, as_json, start=not no_start))


@app.command("list")
def listing(state: options.State = None, as_json: options.Json = False, no_start: options.NoStart = False) -> None:
    """List the graphs that the engine keeps."""
    sharing.listing(KIND, Common(state, as_json, start=not no_start))


@app.command()
def seed(
    key: KeyText, state: options.State = None, as_json: options.Json = False, no_start: options.NoStart = False
) -> None:
    """Exchange a graph with peers, as it is at first; remembered over restarts."""
    sharing.seed(KIND, key, Common(state, as_json, start=not no_start), seeding=True)


@app.command()
def unseed(
    key: KeyText, state: options.State = None, as_json: options.Json = False, no_start: options.NoStart = False
) -> None:
    """Exchange a graph with peers no longer, neither way; what is held here stays readable."""
    sharing.seed(KIND, key, Common(state, as_json, start=not no_start), seeding=False)


@app.command()
def put(
    key: KeyText,
    source: Source,
    target: Target,
    label: Label,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Add an edge."""

    async def verb(session: Session, graph: Graph) -> None:
        await graph.put(source, target, label)
        session.say(_shown(Edge(source, target, label)), [])

    _run_with(key, verb, Common(state, as_json, start=not no_start), timeout=timeout, changes=True)


@app.command()
def write(
    key: KeyText,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Do many changes: lines of JSON on stdin, such as {"from": "a", "to": "b", "label": "l", "removed": false}."""

    async def verb(session: Session, graph: Graph) -> None:
        count = 0
        async for some in read_changes(edge_change):
            count += len(await graph.batch(some))
        session.say({"changes": count}, [counted(count, "change")])

    _run_with(key, verb, Common(state, as_json, start=not no_start), timeout=timeout, changes=True)


@app.command("del")
def delete(
    key: KeyText,
    source: Source,
    target: Target,
    label: Label,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Remove an edge."""

    async def verb(session: Session, graph: Graph) -> None:
        if not await graph.delete(source, target, label):
            raise NotFound(
                f"there is no edge {label!r} from {source!r} to {target!r}: "
                f"ddrive graph walk {graph.trie.feed.key.hex()} {label} shows those that are there"
            )
        session.say(_shown(Edge(source, target, label)), [])

    _run_with(key, verb, Common(state, as_json, start=not no_start), timeout=timeout, changes=True)


@app.command()
def walk(
    key: KeyText,
    label: Label,
    source: Annotated[str | None, typer.Option("--from", metavar="NODE", help="Begin at this node.")] = None,
    target: Annotated[str | None, typer.Option("--to", metavar="NODE", help="Only edges into this node.")] = None,
    depth: Annotated[int | None, typer.Option("--depth", min=1, help="How many edges deep (default no limit).")] = None,
    peer: options.Peers = None,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """List the edges that can be reached along a label, depth first, each once."""

    async def verb(session: Session, graph: Graph) -> None:
        found = [edge async for edge in graph.walk(label, source=source, target=target, depth=depth)]
        rows = [[report.printable(edge.source), report.printable(edge.target)] for edge in found]
        session.say([_shown(edge) for edge in found], report.columns(rows))

    _run_with(key, verb, Common(state, as_json, start=not no_start), peer, timeout)


@app.command()
def info(
    key: KeyText,
    peer: options.Peers = None,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Show the version, the labels, and whether the graph is our own."""

    async def verb(session: Session, graph: Graph) -> None:
        labels = [label async for label in graph.labels()]
        feed = graph.trie.feed
        value = {"key": feed.key.hex(), "version": graph.version, "writable": feed.writable, "labels": labels}
        rows = [["key", feed.key.hex()], ["version", str(graph.version)], ["ours", "yes" if feed.writable else "no"]]
        session.say(value, report.columns(rows + [["label", report.printable(label)] for label in labels]))

    _run_with(key, verb, Common(state, as_json, start=not no_start), peer, timeout)


@app.command()
def diff(
    key: KeyText,
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="As ddrive graph info shows it.")],
    label: OneLabel = None,
    peer: options.Peers = None,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Show the edges added or removed since a version. KEY+VERSION compares up to that version."""

    async def verb(session: Session, graph: Graph) -> None:
        _require(graph, version)
        found = [change async for change in graph.changes(version, label)]
        session.say([_told(change) for change in found], [_line(change) for change in found])

    _run_with(key, verb, Common(state, as_json, start=not no_start), peer, timeout)


@app.command()
def watch(
    key: KeyText,
    label: OneLabel = None,
    peer: options.Peers = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Print each edge that is added or removed, until interrupted; with --json one value per line."""

    ref = sharing.newest(key)

    async def verb(session: Session) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(explain_waits, session)
            graph = await _opened(session, ref, peer)
            async for changes in graph.watch(label):
                for change in changes:
                    sys.stdout.write(f"{json.dumps(_told(change)) if as_json else _line(change)}\n")
                sys.stdout.flush()

    run(Common(state, as_json, start=not no_start), verb)


def _run_with(
    key: str,
    verb: Callable[[Session, Graph], Awaitable[None]],
    common: Common,
    peers: list[str] | None = None,
    timeout: float | None = None,
    *,
    changes: bool = False,
) -> None:
    """Run a verb with the graph at the version that `key` names, by default the newest that peers have.

    A verb that `changes` it takes no version, and does not ask peers for a newer one.
    """
    ref = sharing.newest(key) if changes else sharing.named(key)
    if ref.tag is not None:
        raise InvalidKey(f"{ref.tag!r} is no version of a graph: ddrive graph info shows the present one")

    async def work(session: Session) -> None:
        async with patience(session, timeout, f"graph {short(ref.key)}"):
            graph = await _opened(session, ref, peers, timeout)
            if not changes:
                await graph.trie.refresh()
            if ref.version is not None:
                _require(graph, ref.version)
            await verb(session, graph if ref.version is None else graph.checkout(ref.version))

    run(common, work)


async def _opened(session: Session, ref: KeyRef, peers: list[str] | None = None, wait_s: float | None = None) -> Graph:
    store = await sharing.opened(session, ref, KIND, peers, wait_s)
    feed = await store.open_feed(key=PublicKey(ref.key), live=True)
    return Graph(await open_trie(feed, store.dialect))


def _require(graph: Graph, version: int) -> None:
    """Raises: NotFound when the graph has no such version that is known here."""
    if version > graph.version:
        raise NotFound(
            f"graph {short(graph.trie.feed.key)} has no version {version} that is known here, "
            f"the newest is {graph.version}: choose one of those up to it"
        )


def _shown(edge: Edge) -> dict[str, Any]:
    return {"from": edge.source, "to": edge.target, "label": edge.label}


def _told(change: EdgeChange) -> dict[str, Any]:
    return _shown(change.edge) | {"removed": change.is_removal}


def _line(change: EdgeChange) -> str:
    edge = change.edge
    return report.printable(f"{'-' if change.is_removal else '+'} {edge.source}  {edge.target}  {edge.label}")
