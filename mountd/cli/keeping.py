"""`du` and `download`: how much of a drive is held here, and fetching it to keep."""

import posixpath
from typing import Any

from ddrive.drive.holdings import Usage, download, extents, usage
from mountd.cli import options, report
from mountd.cli.look import DriveText, PathText, joined
from mountd.cli.options import Common
from mountd.cli.session import Session, named_drive, patience, run, short_name
from mountd.values import counted, format_size


def du(
    drive: DriveText,
    path: PathText = None,
    peer: options.Peers = None,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Show how large a drive or a part of it is, and how much of it is held here."""

    async def verb(session: Session) -> None:
        ref = await session.find(named)
        place = joined(ref, path)
        async with (
            patience(session, timeout, f"{short_name(ref)}, {place}") as patient,
            session.drive(ref, peers=peer, wait_s=timeout) as opened,
        ):
            reach = patient.reach(opened, place)
            found = await usage(opened, place, reach=reach)
        value = _summed(place, found) | {"refused": session.say_refused(reach)}
        session.say(value, [f"{format_size(value['bytes'])} in {counted(value['files'], 'file')}", _held_line(value)])

    named = named_drive(drive)
    run(Common(state, as_json, start=not no_start), verb)


def fetch(
    drive: DriveText,
    path: PathText = None,
    peer: options.Peers = None,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Fetch a drive or a part of it and keep it here."""

    async def verb(session: Session) -> None:
        ref = await session.find(named)
        place = joined(ref, path)
        async with (
            patience(session, timeout, f"{short_name(ref)}, {place}") as patient,
            session.drive(ref, peers=peer, wait_s=timeout) as opened,
        ):
            reach = patient.reach(opened, place)
            wanted = _summed(place, await usage(opened, place, reach=reach))
            blocks = {key.hex(): runs for key, runs in (await extents(opened, place, reach=reach)).items()}
            await session.call("pin", key=ref.key.hex(), path=place, version=opened.version, blocks=blocks)
            with report.meter(posixpath.basename(place) or "all", total=wanted["bytes"], quiet=as_json) as meter:
                done = 0

                def count(_: str, file: Usage) -> None:
                    nonlocal done
                    done += file.size
                    meter.update(done)

                await download(opened, place, done=count, reach=reach)
            value = _summed(place, await usage(opened, place, reach=reach))
        value["refused"] = session.say_refused(reach)
        session.say(value, [_held_line(value)])

    named = named_drive(drive)
    run(Common(state, as_json, start=not no_start), verb)


def _summed(path: str, found: dict[Any, Usage]) -> dict[str, Any]:
    """Return the totals; what is held is counted by what the feeds prove, the rest by what the entries claim."""
    return {
        "path": path,
        "files": len(found),
        "bytes": sum(file.size for file in found.values()),
        "held": sum(file.held_bytes for file in found.values()),
    }


def _held_line(value: dict[str, Any]) -> str:
    return f"{format_size(value['held'])} held here"
