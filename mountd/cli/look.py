"""`ls` and `cat`: look into a drive without mounting it."""

import posixpath
import stat
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import trio
import typer

from ddrive.drive.address import KeyRef
from ddrive.drive.drive import Drive
from ddrive.drive.reaching import Reach
from ddrive.drive.reader import FileReader
from ddrive.drive.stat import Stat
from ddrive.ids import short
from mountd.cli import options, report
from mountd.cli.options import Common
from mountd.cli.session import Session, named_drive, patience, run, short_name
from mountd.values import format_time

PIECE_BYTES = 1024 * 1024  # one read and one write to stdout
LINES_AT_ONCE = 1024  # of a tree, with one write
SHOW_EVERY_S = 1.0
LONG_READ_BYTES = 8 * 1024 * 1024  # a larger file shows its progress

DriveText = Annotated[
    str, typer.Argument(metavar="DRIVE", help="Key, URL, or a path inside a mount.", show_default=False)
]
PathText = Annotated[str | None, typer.Argument(metavar="[PATH]", help="Path in the drive.", show_default=False)]


def ls(
    drive: DriveText,
    path: PathText = None,
    long: Annotated[bool, typer.Option("--long", "-l", envvar="DDRIVE_LONG", help="Mode, size and time too.")] = False,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-R", envvar="DDRIVE_RECURSIVE", help="Everything below too.")
    ] = False,
    peer: options.Peers = None,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """List a directory of a drive, or show one file."""

    async def verb(session: Session) -> None:
        ref = await session.find(named)
        place = joined(ref, path)
        async with (
            patience(session, timeout, f"{short_name(ref)}, {place}") as patient,
            session.drive(ref, peers=peer, wait_s=timeout) as opened,
        ):
            reach = patient.reach(opened, place)
            if recursive and not as_json and (await opened.stat(place)).is_dir:
                await _show_tree(opened, place, reach, patient, long=long)
                found: Sequence[tuple[str, Stat]] = []
            else:
                found = await _listed(opened, place, reach, recursive=recursive)
        if as_json:
            session.say([_entry(name, about) for name, about in found], [])
        else:
            rows = [_long_row(name, about) if long else [name] for name, about in found]
            session.say(None, (_shown(line) for line in report.columns(rows)))
        session.say_refused(reach)

    named = named_drive(drive)
    run(Common(state, as_json, start=not no_start), verb)


def cat(
    drive: DriveText,
    path: PathText = None,
    peer: options.Peers = None,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Write a file of a drive to stdout; with --json only tell what would be written."""

    async def verb(session: Session) -> None:
        ref = await session.find(named)
        place = joined(ref, path)
        name = f"{short_name(ref)}, {place}"
        async with (
            patience(session, timeout, name) as alive,
            session.drive(ref, peers=peer, wait_s=timeout) as opened,
        ):
            reader = await opened.open(place)
            try:
                if as_json:
                    session.say({"path": place, "size": reader.size}, [])
                else:
                    await _copy(reader, posixpath.basename(place), alive)
            finally:
                await reader.aclose()

    named = named_drive(drive)
    run(Common(state, as_json, start=not no_start), verb)


def joined(ref: KeyRef, path: str | None) -> str:
    """Return the path in the drive: that of the URL, then the one given beside it."""
    return posixpath.normpath(posixpath.join("/", ref.path.lstrip("/"), (path or "").lstrip("/")))


async def _copy(reader: FileReader, name: str, alive: Callable[[], None]) -> None:
    """Write a whole file to stdout; `alive` is told of each piece, which may have taken its reader long."""
    quiet = reader.size < LONG_READ_BYTES or sys.stdout.isatty()
    with report.meter(name, total=reader.size, quiet=quiet) as meter:
        done = 0
        while piece := await reader.read(done, PIECE_BYTES):
            sys.stdout.buffer.write(piece)
            alive()
            done += len(piece)
            meter.update(done)
        sys.stdout.buffer.flush()
        alive()


async def _show_tree(drive: Drive, path: str, reach: Reach, alive: Callable[[], None], *, long: bool) -> None:
    """Print everything below a directory as it is found: a drive can be nested in others without end."""
    start = path.rstrip("/") + "/"
    lines: list[str] = []
    printed_at = trio.current_time()
    async for full, about in drive.walk(path, reach=reach):
        name = full.removeprefix(start)
        lines.append(_shown("  ".join(_long_row(name, about) if long else [name])))
        if len(lines) >= LINES_AT_ONCE or trio.current_time() - printed_at > SHOW_EVERY_S:
            report.say(None, lines, as_json=False)
            alive()
            lines, printed_at = [], trio.current_time()
    report.say(None, lines, as_json=False)
    alive()


async def _listed(drive: Drive, path: str, reach: Reach, *, recursive: bool) -> Sequence[tuple[str, Stat]]:
    """Return the entries of the directory `path`, or the one file that it names."""
    here = await drive.stat(path)
    if not here.is_dir:
        return [(posixpath.basename(path), here)]
    if recursive:
        start = path.rstrip("/") + "/"
        return [(full.removeprefix(start), about) async for full, about in drive.walk(path, reach=reach)]
    return await drive.list(path)


def _entry(name: str, about: Stat) -> dict[str, Any]:
    kind = "directory" if about.is_dir else "link" if about.is_symlink else "file" if about.is_file else "other"
    entry = {"name": name, "type": kind, "size": about.size, "mode": about.mode & 0o7777, "mtime": about.mtime_ms}
    if about.is_symlink:
        entry["target"] = about.linkname
    if about.mount is not None:
        entry["mount"] = about.mount.key.hex()
    return entry


def _long_row(name: str, about: Stat) -> list[str]:
    behind = ""
    if about.mount is not None:
        behind = f" ({'feed' if about.mount.feed else 'drive'} {short(about.mount.key)})"
    elif about.is_symlink:
        behind = f" -> {about.linkname}"
    return [stat.filemode(about.mode), f"{about.size:>12}", f"{format_time(about.mtime_ms):<16}", name + behind]


def _shown(line: str) -> str:
    """Return `line` as it is safe to print: names come from strangers, a terminal obeys control characters."""
    return report.printable(line) if sys.stdout.isatty() else line
