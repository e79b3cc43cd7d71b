"""`import` and `export`: copy a directory tree into a drive and out of one.

This process reads and writes the files; the engine signs what is appended and fetches what is missing.
"""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import trio
import typer

from ddrive.drive.address import KeyRef, parse_key
from ddrive.drive.drive import Drive
from ddrive.drive.exporter import ExportReport, export_tree
from ddrive.drive.importer import ImportReport, import_tree
from ddrive.drive.report import Progress
from ddrive.errors import (
    DISK_FULL,
    DiskFull,
    DriveError,
    NotFound,
    NotWritable,
    TimedOut,
    UnusablePlace,
    first_cause,
)
from ddrive.ids import short
from mountd.cli import options, outlasting, report
from mountd.cli.apart import Apart, check_target
from mountd.cli.following import follow, may_follow
from mountd.cli.look import DriveText, joined
from mountd.cli.options import Common
from mountd.cli.session import Session, named_drive, patience, run, short_name, whole
from mountd.errnos import EXIT_NOT_PERMITTED, EXIT_TRY_AGAIN, EXIT_UNVERIFIED
from mountd.values import counted, format_size

Delete = Annotated[
    bool, typer.Option("--delete", envvar="DDRIVE_DELETE", help="Remove there what is not here; asks, or see --yes.")
]


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
        typer.Option(
            "--ignore-file",
            envvar="DDRIVE_IGNORE_FILE",
            metavar="F",
            dir_okay=False,
            help="Patterns as in .gitignore.",
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", envvar="DDRIVE_WATCH", help="Go on with what changes, until interrupted.")
    ] = False,
    delete: Delete = False,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    private: options.Private = False,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Copy a directory tree into a new drive, or into an own one what changed; prints its key."""
    named = None if drive is None else whole(named_drive(drive))
    _check_source(source, watch=watch)
    patterns = [] if ignore_file is None else ignore_file.read_text("utf-8", "surrogateescape").splitlines()
    apart = Apart(source, state)
    copy = _Copy(source, patterns, delete, _Changes(as_json) if dry_run else None, apart)
    apart.tell()
    if named is None and copy.dry_run:
        looked = trio.run(copy.import_into, None, as_json)
        copy.say(None, 0, looked, as_json=as_json)
        raise typer.Exit(_exit_code(looked))
    if delete and named is not None and not dry_run:
        options.confirm(f"remove from the drive what {source} does not have", yes=yes)

    wanted = _Import(copy, named, name, dialect, private, timeout, watch and not dry_run)
    outlasting.run(Common(state, as_json, start=not no_start), wanted.run, timeout)


async def _check_own(session: Session, drive: Drive, timeout: float | None) -> None:
    """Return when `drive` can be changed here: it is our own, and if it was restored from its keys, has begun to come.

    Raises: NotWritable, TimedOut.
    """
    if not session.about["writable"]:
        raise NotWritable(f"drive {short(drive.key)} was not made here: import into a new drive, without KEY")
    try:
        async with patience(session, timeout, f"drive {short(drive.key)}"):
            await drive.trie()
    except TimedOut:
        raise TimedOut(
            f"drive {short(drive.key)} is your own, but what was in it is not here yet: connect to a peer that has it "
            "(ddrive peer add HOST:PORT), then import again"
        ) from None


@asynccontextmanager
async def _room_for(session: Session, source: Path, ref: KeyRef | None, *, is_new: bool = False) -> AsyncIterator[None]:
    """Say what to do when the disk is full; a drive that `is_new` and in which nothing is yet is forgotten again.

    A drive that was given a name stays: a name cannot be used twice. Raises: DiskFull.
    """
    try:
        yield
    except Exception as error:
        cause = first_cause(error)
        if not isinstance(cause, DiskFull) and not (isinstance(cause, OSError) and cause.errno in DISK_FULL):
            raise
        state = (await session.call("status"))["state"]
        if ref is not None:
            about = await session.call("info", key=ref.key.hex())
            if not (is_new and about["version"] <= 1 and not about["content"]["length"]):
                raise DiskFull(
                    f"no room for all of {source} ({short_name(ref)}, {state}): free some space there, "
                    f"then go on with: ddrive import {source} {ref.key.hex()}"
                ) from None
            with suppress(DriveError):
                await session.call("rm", key=ref.key.hex(), own=True)
        raise DiskFull(
            f"no room for a new drive ({state}): free some space there, then import {source} again"
        ) from None


def export(
    drive: DriveText,
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="The directory to write to.", show_default=False)],
    peer: options.Peers = None,
    timeout: options.Timeout = None,
    delete: Delete = False,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Write a drive's tree, of a version or below a path, to a directory."""
    named = named_drive(drive)
    _check_target(dest)
    check_target(dest, state, delete=delete)
    if delete and dest.exists() and not dry_run:
        options.confirm(f"remove from {dest} what the drive does not have", yes=yes)
    changes = _Changes(as_json) if dry_run else None

    async def verb(session: Session) -> None:
        ref = await session.find(named)
        with report.meter("exporting", quiet=as_json) as meter:
            async with (
                patience(session, timeout, short_name(ref)) as patient,
                session.drive(ref, peers=peer, wait_s=timeout) as opened,
            ):
                reach = patient.reach(opened, joined(ref, None))
                done = await export_tree(
                    opened,
                    joined(ref, None),
                    dest,
                    delete=delete,
                    dry_run=dry_run,
                    progress=_shown(meter),
                    notice=changes,
                    reach=reach,
                )
                version = opened.version
        value = _value(session.about, version, done, changes)
        session.say(value, [])
        if not as_json:
            _summary("would export" if dry_run else "exported", value)
        session.say_refused(reach, told=True)
        if done.unverified:
            session.exit_code = EXIT_UNVERIFIED
        elif done.unwritten:
            session.exit_code = EXIT_NOT_PERMITTED

    run(Common(state, as_json, start=not no_start), verb)


@dataclass
class _Changes:
    """What a dry run would do: told at once to a person, kept for JSON."""

    as_json: bool
    kept: list[dict[str, str]] = field(default_factory=list)

    def __call__(self, kind: str, path: str) -> None:
        if self.as_json:
            self.kept.append({"type": kind, "path": f"/{path}"})
        else:
            report.say(None, [report.printable(f"{'A' if kind == 'put' else 'D'}  /{path}")], as_json=False)


@dataclass
class _Copy:
    """What is imported, and how."""

    source: Path
    patterns: Sequence[str]
    delete: bool
    changes: _Changes | None  # of a dry run
    apart: Apart

    @property
    def dry_run(self) -> bool:
        return self.changes is not None

    async def import_into(
        self, drive: Drive | None, as_json: bool, only: Collection[str] | None = None
    ) -> ImportReport:
        """Import once, or what is at and below some paths alone."""
        with report.meter("importing", quiet=as_json or only is not None) as meter:
            done = await import_tree(
                drive,
                self.source,
                delete=self.delete,
                dry_run=self.dry_run,
                only=only,
                patterns=self.patterns,
                ignore=self.apart.leaves_out,
                progress=_shown(meter) if only is None else None,
                notice=self.changes,
            )
        self.apart.tell(done.secret)
        return done

    async def follow(self, session: Session, drive: Drive, first: ImportReport, caught_up: Callable[[], None]) -> None:
        """Import what changes from now on, until a signal comes; `first` is what was told already.

        `caught_up` is called whenever the drive is as the directory.
        """
        told = first.refused

        async def changed(only: Collection[str] | None) -> None:
            nonlocal told
            if only is not None and not (only := self.apart.others(only)):
                return
            done = await self.import_into(drive, True, only)
            news = bool(done.refused) if only is not None else done.refused != told
            told = told if only is not None else done.refused
            if done.changed or done.removed or news:
                self.say(session.about, drive.version, done, as_json=session.common.as_json, again=True)
            caught_up()

        await follow(self.source, changed)

    def say(
        self, about: dict[str, Any] | None, version: int, done: ImportReport, *, as_json: bool, again: bool = False
    ) -> None:
        """Tell what was imported; the key of the drive once."""
        value = _value(about or {"key": None, "url": "a new drive", "dialect": None}, version, done, self.changes)
        report.say(value, [] if again or self.dry_run else [value["key"]], as_json=as_json)
        if not as_json:
            _summary("would import" if self.dry_run else "imported", value)


@dataclass
class _Import:
    """An import as it was asked for, and what has become of it."""

    copy: _Copy
    named: KeyRef | Path | None
    name: str | None
    dialect: str | None
    private: bool
    timeout: float | None
    watch: bool
    ref: KeyRef | None = None
    done: ImportReport | None = None

    async def run(self, session: Session, lasting: outlasting.Outlasting) -> None:
        """Import once, into a new drive if none was named, and follow then, if that is wanted; or go on with that."""
        source = self.copy.source
        session.private = self.private and not self.copy.dry_run
        if self.ref is None:
            self.ref = await self._find(session)
        if self.watch:
            lasting.begun()
        async with (
            _room_for(session, source, self.ref, is_new=self.named is None and self.name is None),
            session.drive(self.ref, wait_s=self.timeout) as opened,
        ):
            await _check_own(session, opened, self.timeout)
            if self.done is None:
                self._tell_what_stays(session.about["dialect"])
                self.done = await self.copy.import_into(opened, session.common.as_json)
                self.copy.say(session.about, opened.version, self.done, as_json=session.common.as_json)
                lasting.caught_up()
            session.exit_code = 0 if self.watch else _exit_code(self.done)  # it is imported as soon as it rests
            if self.watch:
                await self.copy.follow(session, opened, self.done, lasting.caught_up)

    def _tell_what_stays(self, dialect: str) -> None:
        """Say which options a drive that is there already does not follow."""
        given = {"--name": self.name, "--dialect": None if self.dialect == dialect else self.dialect}
        if self.named is not None and (passed := [option for option, value in given.items() if value is not None]):
            report.note(f"{' and '.join(passed)}: for a new drive only, this one stays as it is")

    async def _find(self, session: Session) -> KeyRef:
        """Return the drive that was named, or a new one."""
        if self.named is not None:
            return whole(await session.find(self.named))
        async with _room_for(session, self.copy.source, None):
            made = await session.call("create", name=self.name, dialect=self.dialect, private=self.private)
        ref = parse_key(made["url"])
        if not session.common.as_json:
            report.note(f"if this is interrupted, go on with: ddrive import {self.copy.source} {ref.key.hex()}")
        return ref


def _exit_code(done: ImportReport) -> int:
    """Return the exit code of an import: another one when something was left out that could have been imported."""
    return EXIT_NOT_PERMITTED if done.unreadable else EXIT_TRY_AGAIN if done.unsettled else 0


def _check_source(source: Path, *, watch: bool) -> None:
    if not source.exists():
        raise NotFound(f"the directory to import does not exist ({source}): check the spelling")
    if not source.is_dir():
        raise UnusablePlace(f"only a directory can be imported ({source}): name the directory that holds it")
    if watch and not may_follow(source):
        raise UnusablePlace(f"where a name is not UTF-8 nothing can be followed ({source}): rename it, or import again")


def _check_target(dest: Path) -> None:
    if dest.is_symlink() and not dest.exists():
        raise UnusablePlace(f"the target of an export is no link that leads nowhere ({dest}): make what it leads to")
    if dest.exists() and not dest.is_dir():
        raise UnusablePlace(f"the target of an export is a directory, and this is none ({dest}): choose another name")


def _shown(meter: report.Meter) -> Progress | None:
    """Return what moves the bar; None when there is none, so that nobody counts beforehand what there is to do."""
    if not meter.visible:
        return None

    def progress(_files: int, size: int, _files_total: int, size_total: int) -> None:
        meter.update(size, size_total)

    return progress


def _value(
    about: dict[str, Any], version: int, done: ImportReport | ExportReport, changes: _Changes | None
) -> dict[str, Any]:
    value = {
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
    return value if changes is None else value | {"changes": changes.kept}


def _summary(what: str, value: dict[str, Any]) -> None:
    """Tell a person what was copied and what was not."""
    version = f"version {value['version']} of " if value["version"] else ""
    report.note(
        f"{what} {counted(value['files'], 'file')}, {counted(value['directories'], 'directory', 'directories')}, "
        f"{counted(value['links'], 'link')}, "
        f"{format_size(value['bytes'])}, {value['changed'] or 'none'} of them new or changed"
        f"{', ' + str(value['removed']) + ' removed' if value['removed'] else ''}; "
        f"{version}{value['url']}"
    )
    report.note_refused(value["refused"])
