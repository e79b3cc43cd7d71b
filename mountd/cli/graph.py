"""`graph create|list|put|del|walk|watch|seed|unseed`: labelled graphs from the shell."""

import json
import sys
from typing import Annotated, Any

import typer

from ddrive.drive.address import parse_key
from ddrive.errors import NotFound
from ddrive.graph import Edge, Graph
from ddrive.ids import PublicKey
from ddrive.trie import open_trie
from mountd.cli import options, report, sharing
from mountd.cli.options import Common
from mountd.cli.session import Session, patience, run
from mountd.cli.sharing import KeyText

KIND = "graph"

Source = Annotated[str, typer.Argument(metavar="FROM", help="Node that the edge leaves.", show_default=False)]
Target = Annotated[str, typer.Argument(metavar="TO", help="Node that the edge leads to.", show_default=False)]
Label = Annotated[str, typer.Argument(metavar="LABEL", help="Label of the edge.", show_default=False)]

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
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Add an edge."""

    async def verb(session: Session) -> None:
        graph = await _opened(session, key)
        await graph.put(source, target, label)
        session.say(_shown(Edge(source, target, label)), [])

    run(Common(state, as_json, start=not no_start), verb)


@app.command("del")
def delete(
    key: KeyText,
    source: Source,
    target: Target,
    label: Label,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Remove an edge."""

    async def verb(session: Session) -> None:
        graph = await _opened(session, key)
        if not await graph.delete(source, target, label):
            raise NotFound(f"there is no edge {label!r} from {source!r} to {target!r}")
        session.say(_shown(Edge(source, target, label)), [])

    run(Common(state, as_json, start=not no_start), verb)


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

    async def verb(session: Session) -> None:
        async with patience(session, timeout, f"graph {key[:16]}"):
            graph = await _opened(session, key, peer, timeout)
            await graph.trie.refresh()
            found = [edge async for edge in graph.walk(label, source=source, target=target, depth=depth)]
        session.say([_shown(edge) for edge in found], report.columns([[edge.source, edge.target] for edge in found]))

    run(Common(state, as_json, start=not no_start), verb)


@app.command()
def watch(
    key: KeyText,
    label: Annotated[str | None, typer.Argument(metavar="[LABEL]", help="Only this label.", show_default=False)] = None,
    peer: options.Peers = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Print each edge that is added or removed, until interrupted; with --json one value per line."""

    async def verb(session: Session) -> None:
        graph = await _opened(session, key, peer)
        async for changes in graph.watch(label):
            for change in changes:
                value = _shown(change.edge) | {"removed": change.is_removal}
                sign = "-" if change.is_removal else "+"
                line = f"{sign} {change.edge.source}  {change.edge.target}  {change.edge.label}"
                sys.stdout.write(f"{json.dumps(value) if as_json else report.printable(line)}\n")
            sys.stdout.flush()

    run(Common(state, as_json, start=not no_start), verb)


async def _opened(session: Session, key: str, peers: list[str] | None = None, wait_s: float | None = None) -> Graph:
    ref = parse_key(key)
    store = await sharing.opened(session, ref, KIND, peers, wait_s)
    feed = await store.open_feed(key=PublicKey(ref.key), live=True)
    return Graph(await open_trie(feed, store.dialect))


def _shown(edge: Edge) -> dict[str, Any]:
    return {"from": edge.source, "to": edge.target, "label": edge.label}
