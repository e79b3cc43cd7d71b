"""`log`: what each version of a drive brought."""

from typing import Annotated, Any

import typer

from ddrive.drive.history import Event
from mountd.cli import options, report
from mountd.cli.look import DriveText
from mountd.cli.options import Common
from mountd.cli.session import Session, named_drive, patience, run, short_name
from mountd.values import format_size, format_time


def log(
    drive: DriveText,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", "-n", envvar="DDRIVE_LIMIT", min=1, help="Only the newest versions.", show_default=False
        ),
    ] = None,
    peer: options.Peers = None,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """List the changes of a drive, oldest first; nested drives have histories of their own."""

    async def verb(session: Session) -> None:
        ref = await session.find(named)
        async with (
            patience(session, timeout, short_name(ref)),
            session.drive(ref, peers=peer, wait_s=timeout) as opened,
        ):
            await opened.trie()
            if ref.version is None and ref.tag is None:
                await opened.metadata.refresh()
            first = 2 if limit is None else max(2, opened.version - limit + 1)
            events = [_shown(event) async for event in opened.log(first)]
        rows = [
            [
                str(event["version"]),
                event["type"],
                format_time(event["mtime"]),
                "" if event["size"] is None else format_size(event["size"]),
                event["path"],
            ]
            for event in events
        ]
        session.say(events, [report.printable(line) for line in report.columns(rows)])

    named = named_drive(drive)
    run(Common(state, as_json, start=not no_start), verb)


def _shown(event: Event) -> dict[str, Any]:
    stat = event.stat
    return {
        "version": event.version,
        "type": event.kind,
        "path": event.path,
        "size": None if stat is None or stat.is_dir else stat.size,
        "mtime": None if stat is None else stat.mtime_ms,
    }
