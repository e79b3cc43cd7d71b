"""`import` and `export`: copy a directory tree into a drive and out of one.

This process reads and writes the files; the engine signs what is appended and fetches what is missing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ddrive.drive.address import parse_key
from ddrive.drive.exporter import ExportReport, export_tree
from ddrive.drive.importer import ImportReport, import_tree
from ddrive.drive.report import Progress
from ddrive.errors import NotFound, NotWritable, UnusablePlace
from mountd.cli import options, report
from mountd.cli.look import DriveText, joined, short_name
from mountd.cli.options import Common
from mountd.cli.session import Session, named_drive, patience, run
from mountd.values import format_size

SHOWN_REFUSALS = 10  # more are only counted; --json lists them all


def import_(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="The directory to copy.", show_default=False)],
    drive: Annotated[
        str | None,
        typer.Argument(metavar="[KEY]", help="An own drive to bring up to date.", show_default=False),
    ] = None,
    name: options.Name = None,
    dialect: options.DialectName = None,
    ignore_file: Annotated[
        Path | None,
        typer.Option("--ignore-file", envvar="DDRIVE_IGNORE_FILE", metavar="F", help="Patterns as in .gitignore."),
    ] = None,
    private: options.Private = False,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Copy a directory tree into a new drive, or into an own one what changed; prints its key."""

    async def verb(session: Session) -> None:
        if named is None:
            ref = parse_key((await session.call("create", name=name, dialect=dialect, private=private))["url"])
        else:
            ref = await session.find(named)
        async with session.drive(ref) as opened:
            if not opened.writable:
                raise NotWritable(f"{short_name(ref)} was not made here: import into a new drive, without KEY")
            with report.meter("importing", quiet=as_json) as meter:
                done = await import_tree(opened, source, patterns=patterns, progress=_shown(meter))
            version = opened.version
        about = await session.call("info", key=ref.key.hex())
        value = _value(about, version, done)
        session.say(value, [about["key"]])
        if not as_json:
            _summary("imported", value)

    named = None if drive is None else named_drive(drive)
    _check_source(source)
    patterns = [] if ignore_file is None else ignore_file.read_text().splitlines()
    run(Common(state, as_json, start=not no_start), verb)


def export(
    drive: DriveText,
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="The directory to write to.", show_default=False)],
    peer: options.Peers = None,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Write a drive's tree, of a version or below a path, to a directory."""

    async def verb(session: Session) -> None:
        ref = await session.find(named)
        with report.meter("exporting", quiet=as_json) as meter:
            async with (
                patience(session, timeout, short_name(ref)),
                session.drive(ref, peers=peer, wait_s=timeout) as opened,
            ):
                done = await export_tree(opened, joined(ref, None), dest, progress=_shown(meter))
                version = opened.version
        about = await session.call("info", key=ref.key.hex())
        value = _value(about, version, done)
        session.say(value, [])
        if not as_json:
            _summary("exported", value)

    named = named_drive(drive)
    _check_target(dest)
    run(Common(state, as_json, start=not no_start), verb)


def _check_source(source: Path) -> None:
    if not source.exists():
        raise NotFound(f"the directory to import does not exist ({source}): check the spelling")
    if not source.is_dir():
        raise UnusablePlace(f"only a directory can be imported ({source}): name the directory that holds it")


def _check_target(dest: Path) -> None:
    if dest.exists() and not dest.is_dir():
        raise UnusablePlace(f"the target of an export is a directory, and this is none ({dest}): choose another name")


def _shown(meter: report.Meter) -> Progress:
    def progress(_files: int, size: int, _files_total: int, size_total: int) -> None:
        meter.update(size, size_total)

    return progress


def _value(about: dict[str, Any], version: int, done: ImportReport | ExportReport) -> dict[str, Any]:
    return {
        "key": about["key"],
        "url": about["url"],
        "dialect": about["dialect"],
        "version": version,
        "files": done.files,
        "directories": done.directories,
        "links": done.links,
        "bytes": done.bytes,
        "changed": done.changed if isinstance(done, ImportReport) else done.written,
        "removed": done.removed,
        "refused": [{"path": refused.path, "why": refused.why} for refused in done.refused],
    }


def _summary(what: str, value: dict[str, Any]) -> None:
    """Tell a person what was copied and what was not."""
    report.note(
        f"{what} {value['files']} files, {value['directories']} directories, {value['links']} links, "
        f"{format_size(value['bytes'])}, {value['changed'] or 'none'} of them new or changed"
        f"{', ' + str(value['removed']) + ' removed' if value['removed'] else ''}; "
        f"version {value['version']} of {value['url']}"
    )
    refused: Sequence[dict[str, str]] = value["refused"]
    for one in refused[:SHOWN_REFUSALS]:
        report.note(f"left out ({one['path']}): {one['why']}")
    if len(refused) > SHOWN_REFUSALS:
        report.note(f"left out {len(refused) - SHOWN_REFUSALS} more: --json lists them")
