"""`keys backup` and `keys restore`: what makes drives your own, in one file that only a passphrase opens."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ddrive.errors import AlreadyExists, CorruptStorage
from mountd.cli import options, report
from mountd.cli.options import Common
from mountd.cli.session import Session, run
from mountd.files import save_bytes
from mountd.keys_file import MAX_BYTES, seal, unseal
from mountd.values import counted

app = typer.Typer(help="Save and restore the keys of your own drives.", pretty_exceptions_enable=False)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The file with the keys.", show_default=False)]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        envvar="DDRIVE_PASSPHRASE_FILE",
        metavar="FILE",
        help="Read the passphrase from the first line of a file instead of asking for it.",
        show_default=False,
    ),
]
VARIABLE = "DDRIVE_PASSPHRASE"
CALLED = {"db": "database", "graph": "graph"}  # what there is beside drives


@app.command()
def backup(
    file: File,
    passphrase_file: PassphraseFile = None,
    yes: options.Yes = False,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Save the keys of all that is your own; with the file and its passphrase anybody can change your drives."""

    async def verb(session: Session) -> None:
        value = await session.call("keys.backup")
        save_bytes(file, seal(value, passphrase))
        drives = [{"key": row["key"], "name": row["name"]} for row in value["drives"]]
        databases = _databases(value["databases"])
        done = {"file": str(file), "drives": drives, "databases": databases, "feeds": _feeds(value)}
        kinds = [row["kind"] for row in databases]
        what = [counted(len(drives), "drive")]
        what += [counted(kinds.count(kind), called) for kind, called in CALLED.items() if kind in kinds]
        session.say(done, [f"saved the keys of {', '.join(what)} in {report.printable(str(file))}"])

    file = Path(os.path.abspath(file))
    if os.path.lexists(file) and not yes:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise AlreadyExists(f"{file} exists: choose another name, or replace it with --yes")
        options.confirm(f"replace {file}", yes=False)
    passphrase = _passphrase(passphrase_file, is_new=True)
    run(Common(state, as_json, start=not no_start), verb)


@app.command()
def restore(
    file: File,
    passphrase_file: PassphraseFile = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Make the drives in a file of `keys backup` your own again; what was in them is fetched from peers."""

    async def verb(session: Session) -> None:
        done = await session.call("keys.restore", **value)
        done["databases"] = _databases(done["databases"])
        lines = [f"{drive['url']}  {report.printable(drive['name'] or '-')}" for drive in done["drives"]]
        lines += [
            f"{row['key']}  {CALLED[row['kind']]}  {report.printable(row['name'] or '-')}" for row in done["databases"]
        ]
        session.say(done, [*lines, "they can be changed as soon as peers have given back what was in them"])

    with file.open("rb") as source:
        content = source.read(MAX_BYTES)
    passphrase = _passphrase(passphrase_file, is_new=False)
    try:
        value: dict[str, Any] = unseal(content, passphrase)
    except CorruptStorage as error:
        raise CorruptStorage(f"{file}: {error}") from error
    run(Common(state, as_json, start=not no_start), verb)


def _databases(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what users are told of databases and graphs."""
    return [{name: row[name] for name in ("key", "kind", "name")} for row in rows]


def _feeds(value: dict[str, Any]) -> int:
    return sum(len(store["feeds"]) for store in value["stores"].values())


def _passphrase(file: Path | None, *, is_new: bool) -> bytes:
    """Return the passphrase from a file, from the environment, or from the terminal.

    Raises: typer.BadParameter when there is none.
    """
    if file is not None:
        found = file.read_bytes().split(b"\n", 1)[0].rstrip(b"\r")
    elif text := os.environ.get(VARIABLE):
        found = os.fsencode(text)
    elif sys.stdin.isatty() and sys.stderr.isatty():
        found = str(typer.prompt("passphrase", hide_input=True, confirmation_prompt=is_new, err=True)).encode()
    else:
        raise typer.BadParameter(f"a passphrase is needed: give --passphrase-file, or set {VARIABLE}")
    if not found:
        raise typer.BadParameter("an empty passphrase protects nothing")
    return found
