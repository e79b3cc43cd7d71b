"""`rm` and `gc`: forget a drive, database or graph and its bytes, and free what nothing needs. The engine does both."""

from typing import Annotated, Any

import typer

from mountd.cli import options, report
from mountd.cli.drives import Drive
from mountd.cli.options import Common
from mountd.cli.session import Session, named_drive, run, whole
from mountd.values import counted, format_size

YesAnyway = Annotated[bool, typer.Option("--yes", "-y", envvar="DDRIVE_YES", help="Accepted: nothing is asked.")]


def rm(
    drive: Drive,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Forget a drive, database or graph and delete its bytes; the secret key of your own goes too, for ever."""

    async def verb(session: Session) -> None:
        ref = whole(await session.find(named))
        planned = await session.call("rm", key=ref.key.hex(), dry_run=True)
        if not dry_run:
            options.confirm(_deed(planned), yes=yes)
            planned = await session.call("rm", key=ref.key.hex(), own=planned["writable"])
        word = "would delete" if dry_run else "deleted"
        key_too = ", with the secret key" if planned["writable"] else ""
        size, feeds = format_size(planned["bytes"]), counted(planned["feeds"], "feed")
        session.say(planned, [f"{word} {size} in {feeds}{key_too}"])

    named = whole(named_drive(drive))
    if not (dry_run or yes):
        options.check_askable(f"forget {drive} and delete its bytes")
    run(Common(state, as_json, start=not no_start), verb)


def _deed(planned: dict[str, Any]) -> str:
    size = format_size(planned["bytes"])
    called = "database" if planned["kind"] == "db" else planned["kind"]
    name = f"{called} {planned['key'][:8]}"
    if not planned["writable"]:
        return f"forget {name} and delete {size}"
    if called != "drive":
        return f"you can write to {name}: delete {size} and your secret key for it, with which nobody writes again"
    return f"{name} is your own drive: delete {size} and its secret key, so that nobody can ever change it again"


def gc(
    dry_run: options.DryRun = False,
    yes: YesAnyway = False,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Free what no known drive needs: feeds that none uses, content that only old versions of others' drives had."""

    async def verb(session: Session) -> None:
        done = await session.call("gc", dry_run=dry_run or None)
        lines = [f"feed {report.printable(feed['key'])}: {format_size(feed['bytes'])}" for feed in done["feeds"]]
        lines += [f"content {drive['content']}: {format_size(drive['bytes'])}" for drive in done["drives"]]
        session.say(done, [*lines, f"{'would free' if dry_run else 'freed'} {format_size(done['bytes'])}"])

    run(Common(state, as_json, start=not no_start), verb)
