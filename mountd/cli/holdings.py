"""`clear` and `verify`: drop what is held here of a drive, and check it. The engine does it, as the files are its."""

import posixpath
from typing import Annotated, Any

import typer

from ddrive.drive.holdings import droppable
from mountd.cli import options, report
from mountd.cli.look import DriveText, PathText, joined
from mountd.cli.options import Common
from mountd.cli.session import Session, named_drive, patience, run, short_name
from mountd.errnos import EXIT_UNVERIFIED
from mountd.values import counted, format_size


def clear(
    drive: DriveText,
    path: PathText = None,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Drop the local bytes of a drive or a part of it; peers that have them can give them again."""

    async def verb(session: Session) -> None:
        ref = await session.find(named)
        place = joined(ref, path)
        await session.call("drive.why", key=ref.key.hex())  # of one that is not known here nothing is asked of others
        async with (
            patience(session, timeout, f"{short_name(ref)}, {place}") as patient,
            session.drive(ref, wait_s=timeout) as opened,
        ):
            reach = patient.reach()
            blocks, size = await droppable(opened, place, reach=reach)
        runs = {key.hex(): found for key, found in blocks.items()}
        done = await session.call("clear", key=ref.key.hex(), path=place, blocks=runs, dry_run=dry_run or None)
        done["bytes"] = size
        done["refused"] = session.say_refused(reach)
        word = "would free" if dry_run else "freed"
        session.say(done, [f"{word} {format_size(done['bytes'])} in {counted(done['blocks'], 'block')}"])

    named = named_drive(drive)
    if not dry_run:
        options.confirm(f"drop what is held here of {posixpath.join(drive, path or '')}", yes=yes)
    run(Common(state, as_json, start=not no_start), verb)


def verify(
    drive: DriveText,
    repair: Annotated[
        bool, typer.Option("--repair", envvar="DDRIVE_REPAIR", help="Fetch the bad blocks again.")
    ] = False,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Check every held block again and list the bad ones; exit code 4 when there are any left."""
    found: dict[str, Any] = {}

    async def verb(session: Session) -> None:
        ref = await session.find(named)
        found.update(await session.call("verify", key=ref.key.hex(), repair=repair or None, wait_s=timeout))
        lines = [_line(bad) for bad in found["bad"]]
        good = "is" if found["valid"] == 1 else "are"
        line = f"{found['valid']} of {counted(found['blocks'], 'block')} {good} good, {found['repaired']} repaired"
        if restored := found.get("restored"):  # an engine that still runs after an update may not tell
            line += f", {restored} found that the damaged list of held blocks did not name"
        if not_kept := found.get("not_kept"):
            line += f", {not_kept} not kept (a program cleared them)"
        lines.append(line)
        session.say(found, [report.printable(line) for line in lines])
        for name in found.get("cut_off") or []:
            report.note(
                f"the files of the {name} of drive {short_name(ref)} show less than was signed, so its end is lost: "
                "restore the state directory from a backup, or connect to a peer that has it"
            )
        if len(found["bad"]) > found["repaired"] and not as_json:
            advice = "connect to a peer that has them (ddrive peer add HOST:PORT), then " if repair else ""
            report.note(
                f"bad blocks are left ({short_name(ref)}): {advice}fetch them with ddrive verify {drive} --repair"
            )

    named = named_drive(drive)
    run(Common(state, as_json, start=not no_start), verb)
    if len(found["bad"]) > found["repaired"] or found["forked"] or found.get("cut_off"):
        raise typer.Exit(EXIT_UNVERIFIED)


def _line(bad: dict[str, Any]) -> str:
    """Return what a person is told of a bad block."""
    again = " (fetched again)" if bad.get("repaired") else ""
    return f"bad: {bad['feed']} block {bad['block']} {bad['path'] or ''}".rstrip() + again
