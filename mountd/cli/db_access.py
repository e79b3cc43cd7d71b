"""What the verbs of databases share: opening one at the version that its address names, and how entries are shown."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final

import typer

from ddrive.appdb import AppDB, Entry, open_appdb
from ddrive.drive.address import KeyRef
from ddrive.errors import InvalidKey, NotFound
from ddrive.ids import PublicKey
from mountd.cli import report, sharing
from mountd.cli.options import Common
from mountd.cli.session import Session, patience, run

KIND: Final = "db"

Name = Annotated[str, typer.Argument(metavar="NAME", help="Key of an entry, such as people/ada.", show_default=False)]
Prefix = Annotated[str, typer.Argument(metavar="[PREFIX]", help="Only at and below this.", show_default=False)]


def run_with(
    key: str,
    verb: Callable[[Session, AppDB], Awaitable[None]],
    common: Common,
    peers: list[str] | None = None,
    timeout: float | None = None,
    *,
    changes: bool = False,
) -> None:
    """Run a verb with the database at the version that `key` names, by default the newest that peers have.

    A verb that `changes` it takes no version.
    """
    ref = sharing.newest(key) if changes else sharing.named(key)
    since = None if ref.tag is None and ref.version is None else version_of(str(ref.tag or ref.version))

    async def work(session: Session) -> None:
        async with (
            patience(session, timeout, f"database {ref.key.hex()[:8]}"),
            opened(session, ref, peers, timeout) as db,
        ):
            await db.heads()
            await db.refresh()
            await verb(session, db if since is None else await db.checkout(since))

    run(common, work)


@asynccontextmanager
async def opened(
    session: Session, ref: KeyRef, peers: list[str] | None = None, wait_s: float | None = None
) -> AsyncIterator[AppDB]:
    """Give the database that `ref` names, live."""
    store = await sharing.opened(session, ref, KIND, peers, wait_s)
    async with open_appdb(store, key=PublicKey(ref.key)) as db:
        yield db


def version_of(text: str) -> bytes:
    """Return the version that `ddrive db info` shows as `text`. Raises: InvalidKey."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise InvalidKey(f"{text!r} is no version of a database: ddrive db info shows the present one") from None


def nothing(db: AppDB, name: str) -> NotFound:
    """Return the error that says that there is no entry of this name."""
    return NotFound(f"there is nothing called {name!r}: ddrive db ls {db.key.hex()} shows what is there")


def shown(db: AppDB, node: Entry) -> dict[str, Any]:
    """Return a node as JSON shows it."""
    about = {"key": node.key, "deleted": node.deleted, "writer": db.writer(node).hex(), "seq": node.seq}
    return about | sharing.readable(node.value)


def text_of(node: Entry) -> str:
    """Return the value of a node; bytes that are no text keep their value when they are written."""
    if node.deleted:
        return "(deleted)"
    return "" if node.value is None else node.value.decode("utf-8", "surrogateescape")


async def note_unheard(db: AppDB) -> None:
    """Tell when nobody but us sees what we write."""
    if not await db.authorized():
        report.note(
            f"others do not see this until a writer runs: ddrive db authorize {db.key.hex()} {db.local.key.hex()}"
        )
