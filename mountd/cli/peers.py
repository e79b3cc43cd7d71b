"""`peer add`, `peer rm`, `peer ls`: the addresses that the engine knows."""

from typing import Annotated

import typer

from mountd.cli import options, report
from mountd.cli.options import Common
from mountd.cli.session import Session, run

app = typer.Typer(help="Known addresses of peers.", pretty_exceptions_enable=False)

Address = Annotated[
    str, typer.Argument(metavar="HOST:PORT", parser=options.address, help="Where the peer listens.", show_default=False)
]


@app.command()
def add(
    address: Address, state: options.State = None, as_json: options.Json = False, no_start: options.NoStart = False
) -> None:
    """Remember a peer and connect to it."""
    _change("peer.add", address, Common(state, as_json, start=not no_start))


@app.command()
def rm(
    address: Address, state: options.State = None, as_json: options.Json = False, no_start: options.NoStart = False
) -> None:
    """Forget a peer and end its connection."""
    _change("peer.rm", address, Common(state, as_json, start=not no_start))


@app.command()
def ls(state: options.State = None, as_json: options.Json = False, no_start: options.NoStart = False) -> None:
    """List the known peers and whether they are connected."""

    async def verb(session: Session) -> None:
        peers = await session.call("peer.ls")
        rows = [
            [peer["address"], "connected" if peer["connected"] else "not connected", peer.get("last_error") or ""]
            for peer in peers
        ]
        session.say(peers, report.columns(rows))

    run(Common(state, as_json, start=not no_start), verb)


def _change(method: str, address: str, common: Common) -> None:
    async def verb(session: Session) -> None:
        if method == "peer.add":
            await session.doubt([address])
        await session.call(method, address=address)
        session.say({"address": address}, [])

    run(common, verb)
