"""`diff` and `tag`: what changed between two versions of a drive, and names for versions."""

from typing import Annotated, Any

import typer

from ddrive.drive import Drive
from ddrive.drive.walks import Change
from ddrive.errors import InvalidPath
from mountd.cli import options, report
from mountd.cli.look import DriveText
from mountd.cli.options import Common
from mountd.cli.session import Session, named_drive, patience, run, short_name
from mountd.values import format_size

tags = typer.Typer(help="Names for versions of a drive.", pretty_exceptions_enable=False)

SIGNS = {"put": "A", "del": "D", "mount": "A", "unmount": "D"}  # as git shows them
CHANGED = "M"

TagName = Annotated[str, typer.Argument(metavar="NAME", help="Name of a version.", show_default=False)]


def diff(
    drive: DriveText,
    old: Annotated[str, typer.Argument(metavar="V1", help="The older version, by number or tag.", show_default=False)],
    new: Annotated[
        str | None,
        typer.Argument(metavar="[V2]", help="The newer one, by number or tag; else the newest.", show_default=False),
    ] = None,
    peer: options.Peers = None,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """List what changed between two versions; nested drives are not entered."""

    async def verb(session: Session) -> None:
        ref = await session.find(named)
        async with (
            patience(session, timeout, short_name(ref)),
            session.drive(ref, peers=peer, wait_s=timeout) as opened,
        ):
            first = await _number(opened, old)
            last = None if new is None else await _number(opened, new)
            await session.require_version(opened.metadata, max(first, last or first), timeout)
            newer = opened if last is None else opened.checkout(last)
            changes = [_shown(change) async for change in newer.diff(first, ref.path or "/")]
        changes.sort(key=lambda change: str(change["path"]))
        rows = [
            [_sign(change), "" if change["size"] is None else format_size(change["size"]), change["path"]]
            for change in changes
        ]
        session.say(changes, [report.printable(line) for line in report.columns(rows)])

    named = named_drive(drive)
    run(Common(state, as_json, start=not no_start), verb)


async def _number(drive: Drive, text: str) -> int:
    """Return the version that `text` names. Raises: NotFound for a tag that is not there, InvalidPath for version 0."""
    if not text.isdecimal():
        return await drive.tags.get(text)
    if not int(text):
        raise InvalidPath("versions are counted from 1, the empty drive")
    return int(text)


@tags.command("add")
def add_tag(
    drive: DriveText,
    name: TagName,
    version: Annotated[
        int | None, typer.Argument(metavar="[VERSION]", min=1, help="Else the newest.", show_default=False)
    ] = None,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Give a version of an own drive a name; then KEY+NAME means that version."""

    async def verb(session: Session) -> None:
        ref = await session.find(named)
        async with patience(session, timeout, short_name(ref)), session.drive(ref, wait_s=timeout) as opened:
            chosen = await opened.tags.add(name, version)
        session.say({"name": name, "version": chosen}, [])

    if name.isdigit():
        raise typer.BadParameter(f"{name!r} would be taken for a version", param_hint="NAME")
    named = named_drive(drive)
    run(Common(state, as_json, start=not no_start), verb)


@tags.command("rm")
def remove_tag(
    drive: DriveText,
    name: TagName,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Forget a name of an own drive; the version stays."""

    async def verb(session: Session) -> None:
        ref = await session.find(named)
        async with patience(session, timeout, short_name(ref)), session.drive(ref, wait_s=timeout) as opened:
            version = await opened.tags.get(name)
            if not dry_run:
                await opened.tags.remove(name)
        session.say({"name": name, "version": version}, [f"would forget {name}: version {version}"] if dry_run else [])

    named = named_drive(drive)
    if not dry_run:
        options.confirm(f"forget the name {name}", yes=yes)
    run(Common(state, as_json, start=not no_start), verb)


@tags.command("ls")
def list_tags(
    drive: DriveText,
    peer: options.Peers = None,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """List the names of versions."""

    async def verb(session: Session) -> None:
        ref = await session.find(named)
        async with (
            patience(session, timeout, short_name(ref)),
            session.drive(ref, peers=peer, wait_s=timeout) as opened,
        ):
            tags = [{"name": name, "version": version} for name, version in (await opened.tags.all()).items()]
        rows = [[str(tag["version"]), str(tag["name"])] for tag in tags]
        session.say(tags, [report.printable(line) for line in report.columns(rows)])

    named = named_drive(drive)
    run(Common(state, as_json, start=not no_start), verb)


def _sign(change: dict[str, Any]) -> str:
    is_new = change["previous_version"] is None
    return SIGNS[change["type"]] if is_new or change["version"] is None else CHANGED


def _shown(change: Change) -> dict[str, Any]:
    return {
        "type": change.kind,
        "path": f"/{change.path}",
        "previous_version": None if change.previous_seq is None else change.previous_seq + 1,
        "version": None if change.seq is None else change.seq + 1,
        "size": None if change.stat is None or change.stat.is_dir else change.stat.size,
    }
