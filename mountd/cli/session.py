"""One run of a verb: the connection to the engine, the drive that the caller names, and the deadline."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from math import inf
from pathlib import Path
from typing import Any, TypeVar

import trio
import typer

import ddrive.drive
from ddrive.dialect import DIALECTS
from ddrive.drive.address import KeyRef, parse_key
from ddrive.drive.reaching import Reach
from ddrive.errors import DriveError, EngineError, InvalidKey, NotFound, TimedOut
from ddrive.feed import Feed
from ddrive.ids import PublicKey, short
from ddrive.store.attached import Attached
from mountd.cli import report
from mountd.cli.nested import NestedWaits, nested_name
from mountd.cli.options import Common
from mountd.client import connect_engine
from mountd.errnos import EXIT_TRY_AGAIN, EXIT_UNVERIFIED
from mountd.interpreter import tune
from mountd.versions import TOP, VERSIONS, is_number

SILENT_S = 10.0  # somebody who waits longer is told why
POLL_S = 1.0  # between two looks at whether anything arrives
RESOLVE_S = 3.0  # for finding out whether the host of an address exists
PATIENCE_S = 30.0  # a verb gives up after this long without progress; `--timeout` changes it
VERSION_WAIT_S = 10.0  # for somebody with a version that no connected peer has; `--timeout` changes it

Named = TypeVar("Named", bound=KeyRef | Path)


class Session:
    """What a verb works with."""

    def __init__(self, common: Common, engine: Attached) -> None:
        self.common = common
        self.engine = engine
        self.opened: PublicKey | None = None  # the drive, database or graph that is read here
        self.kind = "drive"  # what that is
        self.about: dict[str, Any] = {}  # what the engine says of it: "key", "url", "dialect"
        self.explained = False  # why nothing of that drive comes was said
        self.private = False  # drives that are opened are to be shown to nobody
        self.exit_code = 0  # of a verb that did what could be done

    async def call(self, method: str, **params: Any) -> Any:
        """Return the engine's answer; parameters that are None are left out."""
        return await self.engine.call(method, {name: value for name, value in params.items() if value is not None})

    def say(self, value: Any, lines: Iterable[str]) -> None:
        """Write the result of the verb to stdout."""
        report.say(value, lines, as_json=self.common.as_json)

    def say_refused(self, reach: Reach, *, told: bool = False) -> list[dict[str, str]]:
        """Tell a person what could not be had of nested drives, unless `told` already, and return it for JSON.

        When something was waited for in vain, or is damaged here, the verb ends with the exit code for that.
        """
        refused = [{"path": path, "why": why} for path, why in reach.refused]
        if not told:
            report.note_refused(refused)
        if not reach.complete:
            self.exit_code = EXIT_TRY_AGAIN
        if reach.unverified:
            self.exit_code = EXIT_UNVERIFIED
        return refused

    async def find(self, named: KeyRef | Path) -> KeyRef:
        """Return the drive at a path inside one of the engine's mounts; a key is returned as it is.

        Raises: NotFound when the path lies in no mount.
        """
        if not isinstance(named, Path):
            return named
        mounts = (await self.call("status"))["mounts"]
        for mount in sorted(mounts, key=lambda mount: len(mount["mountpoint"]), reverse=True):
            if named.is_relative_to(mount["mountpoint"]):
                inner = named.relative_to(mount["mountpoint"])
                ref = parse_key(mount["url"])._replace(path=f"/{inner}" if inner.parts else "/")
                return await self._at_version(ref) if ref.path.startswith(VERSIONS + "/") else ref
        raise NotFound(f"not a path in a mount of this engine ({named}): ddrive status shows the mounts")

    async def _at_version(self, ref: KeyRef) -> KeyRef:
        """Return what a path below `VERSIONS` names: one in that version, unless the drive has `VERSIONS` itself."""
        name, _, inner = ref.path.removeprefix(VERSIONS + "/").partition("/")
        async with patience(self, None, f"{short_name(ref)}, version {name}"), self.drive(ref) as drive:
            if await drive.exists(VERSIONS):
                return ref
            version = int(name) if is_number(name) else await drive.tags.get(name)
            if drive.fixed and version > drive.version:
                raise NotFound(f"the mount is one of version {drive.version}: there is no version {version} in it")
        return ref._replace(path="/" + inner, version=version)

    async def doubt(self, peers: Iterable[str]) -> None:
        """Say which of these addresses cannot be dialled now; they are remembered all the same."""
        for address in peers:
            host, _, port = address.rpartition(":")
            with trio.move_on_after(RESOLVE_S):
                try:
                    await trio.socket.getaddrinfo(host.strip("[]"), int(port))
                except OSError as error:
                    report.note(f"the host of {address} is not found now ({error.strerror}): check the spelling")

    async def require_version(self, feed: Feed, version: int, wait_s: float | None = None) -> None:
        """Return when the drive with the metadata `feed` has a version, waited for for a while. Raises: NotFound."""
        await ddrive.drive.require_version(feed, version, VERSION_WAIT_S if wait_s is None else wait_s, report.note)

    async def meet(self, ref: KeyRef, peers: list[str], wait_s: float | None = None) -> dict[str, Any]:
        """Make the engine know a drive, whose peers it remembers and dials; return what it knows of it.

        When nobody has told the dialect yet that is waited for. Raises: NoPeers.
        """
        await self.doubt(peers)
        about: dict[str, Any] = await self.call(
            "drive.open", key=ref.key.hex(), dialect=ref.dialect, peers=peers, private=self.private, wait_s=wait_s
        )
        return about

    @asynccontextmanager
    async def drive(
        self, ref: KeyRef, *, peers: list[str] | None = None, wait_s: float | None = None
    ) -> AsyncIterator["ddrive.drive.Drive"]:
        """Open the drive at the version that `ref` names, in this process: the engine fetches what is missing."""
        self.about = await self.meet(ref, peers or [], wait_s)
        store = self.engine.store(DIALECTS[self.about["dialect"]])
        self.opened = PublicKey(ref.key)
        drive = await ddrive.drive.open_drive(store, key=self.opened)
        try:
            version = ref.version if ref.tag is None else await drive.tags.get(ref.tag)
            if version is not None:
                await self.require_version(drive.metadata, version, wait_s)
            yield drive if version is None else drive.checkout(version)
        except NotFound:
            if ref.path not in (TOP, VERSIONS):
                raise
            raise NotFound(
                f"{ref.path[1:]!r} is in mounts only ({short_name(ref)}): name a version, {VERSIONS[1:]}/NUMBER; "
                "ddrive log and ddrive tag ls tell which there are, plain ls of the mount shows the newest"
            ) from None
        finally:
            with trio.CancelScope(shield=True):
                await drive.close()


class Patience:
    """Gives up on what waits without anything arriving over the network; the innermost waiting counts.

    Who keeps the event loop waiting for somebody else than the network calls it, right afterwards.
    """

    def __init__(self, session: Session, limit: float) -> None:
        self.limit = limit
        self.nursery: trio.Nursery | None = None  # for what runs beside the work, set by `patience`
        self._session = session
        self._scopes: list[tuple[trio.CancelScope, float]] = []

    def __call__(self) -> None:
        """Set the deadline to `limit` seconds from now, or those of the waiting itself."""
        if self._scopes:
            scope, limit_s = self._scopes[-1]
            scope.deadline = trio.current_time() + limit_s

    @asynccontextmanager
    async def waiting(self, waiting_for: str, key: PublicKey | None = None, most_s: float = inf) -> AsyncIterator[None]:
        """Give up on the block, which waits for the drive `key`, by default the one that is read; `most_s`: earlier.

        Raises: TimedOut, which names what it was `waiting_for`.
        """
        if self._scopes:
            self._scopes[-1][0].deadline = inf
        with trio.CancelScope() as scope:
            self._scopes.append((scope, min(self.limit, most_s)))
            self()
            try:
                yield
            finally:
                self._scopes.pop()
                self()
        if scope.cancelled_caught:
            why = None if key is None and self._session.explained else await _reason(self._session, key)
            raise self.late(f"{waiting_for}; {why}" if why else waiting_for, min(self.limit, most_s))

    @contextmanager
    def beside(self, task: Callable[[], Awaitable[None]]) -> Iterator[None]:
        """Run `task` until the block ends."""
        scope = trio.CancelScope()

        async def until_left() -> None:
            with scope:
                await task()

        assert self.nursery is not None
        self.nursery.start_soon(until_left)
        try:
            yield
        finally:
            scope.cancel()

    def late(self, waiting_for: str, after_s: float | None = None) -> TimedOut:
        """Return the error of a wait that has lasted too long."""
        return TimedOut(
            f"nothing arrived for {after_s or self.limit:g} s ({waiting_for}): "
            "is a peer that has it running? name one with --peer HOST:PORT, or try again"
        )

    def reach(self, opened: "ddrive.drive.Drive | None" = None, path: str = "/") -> Reach:
        """Return what goes on without a nested drive from which nothing arrives.

        With `opened` all those in it at or below `path` of which nothing is here are waited for together.
        """
        if opened is None:
            return Reach(lambda inside: self.waiting(nested_name(inside), inside.key))
        store = self._session.engine.store(DIALECTS[self._session.about["dialect"]])
        return Reach(NestedWaits(opened, path, store, self))


@asynccontextmanager
async def patience(session: Session, seconds: float | None, waiting_for: str) -> AsyncIterator[Patience]:
    """Give up on the block when it waits for `seconds` without anything arriving over the network.

    Work on what is held here may take as long as it likes.
    Raises: TimedOut, which names what it was `waiting_for`.
    """
    patient = Patience(session, PATIENCE_S if seconds is None else seconds)
    async with patient.waiting(waiting_for), trio.open_nursery() as nursery:
        patient.nursery = nursery
        nursery.start_soon(_extend, session, patient)
        yield patient
        nursery.cancel_scope.cancel()


async def _extend(session: Session, patient: Patience) -> None:
    """Move the deadline on as long as bytes arrive, or other wishes stand than before, or none.

    Somebody who waits long because no peer has the drive is told why.
    """
    before: tuple[int, frozenset[tuple[int, int]]] = -1, frozenset()
    told_at = trio.current_time() + SILENT_S
    while True:
        with suppress(EngineError):
            arrived = (await session.call("stats"))["downloaded"]["bytes"]
            now = arrived, session.engine.wishes()
            if now != before or not now[1]:
                before, told_at = now, max(told_at, trio.current_time() + SILENT_S)
                patient()
            elif trio.current_time() >= told_at:
                await _explain(session)
        await trio.sleep(min(POLL_S, patient.limit / 4))


async def explain_waits(session: Session) -> None:
    """Say once why no news come of the database or graph that is read here, if some of it has long been missing."""
    before, since = None, trio.current_time()
    while not session.explained:
        missing = None
        if session.opened is not None:
            with suppress(DriveError):  # an engine of before an update does not know the method
                missing = (await session.call("db.why", key=session.opened.hex()))["missing"]
        if missing is None or missing != before:
            before, since = missing, trio.current_time()
        elif trio.current_time() >= since + SILENT_S:
            await _explain(session)
        await trio.sleep(POLL_S)


async def _explain(session: Session) -> None:
    """Say once why nothing comes of what is read here."""
    if session.opened is not None and not session.explained and (why := await _reason(session)) is not None:
        session.explained = True
        report.note(f"still waiting for a peer that has {session.kind} {short(session.opened)} ({why})")


async def _reason(session: Session, key: PublicKey | None = None) -> str | None:
    """Return in words why nothing of a drive comes, by default of what is read; None when nobody knows."""
    shared = key is None and session.kind != "drive"
    key = key or session.opened
    if key is None:
        return None
    with trio.move_on_after(POLL_S), suppress(DriveError):  # a nested drive may be none that it knows
        found = await session.call("db.why" if shared else "drive.why", key=key.hex())
        if shared:
            return None if found["why"] is None else str(found["why"])
        return found["why"] or f"of {found['peers']} connected none gives what is missing"
    return None


def run(common: Common, verb: Callable[[Session], Awaitable[None]]) -> None:
    """Run `verb` with a connection to the engine, which is started when it may be and none runs."""
    tune(lists=True)
    if code := trio.run(run_here, common, verb):
        raise typer.Exit(code)


async def run_here(common: Common, verb: Callable[[Session], Awaitable[None]]) -> int:
    """Run `verb` as `run` does, and return its exit code."""
    async with (
        connect_engine(common.state, start=common.start) as engine,
        engine.events("progress") as remarks,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_pass_on, remarks)
        session = Session(common, engine)
        await verb(session)
        nursery.cancel_scope.cancel()
    return session.exit_code


async def _pass_on(remarks: trio.MemoryReceiveChannel[dict[str, Any]]) -> None:
    """Show what the engine has to say while a verb runs."""
    async for remark in remarks:
        report.note(str(remark["text"]))


def named_drive(text: str) -> KeyRef | Path:
    """Return the drive that `text` names by key or URL, or the absolute path that it is otherwise.

    Raises: InvalidKey when it looks like a key or URL and is none.
    """
    try:
        return parse_key(text)
    except InvalidKey:
        if "://" in text or not (os.sep in text or text in (".", "..") or os.path.lexists(text)):
            raise
    return Path(os.path.abspath(text))


def whole(named: Named, *, newest: bool = True) -> Named:
    """Return `named`, for verbs that work on a whole drive, with `newest` on no fixed version of it.

    A path in a mount is looked at when `Session.find` has told what it names.
    Raises: InvalidKey when a path in the drive is named, or a version: to pass over them would hit too much.
    """
    if isinstance(named, KeyRef):
        if named.path.strip("/"):
            raise InvalidKey(f"{named.path!r} is a path in {short_name(named)}: name the whole drive, without a path")
        if newest and not (named.version is None and named.tag is None):
            raise InvalidKey(f"a version of {short_name(named)} does not change: name the drive, without a version")
    return named


def short_name(ref: KeyRef) -> str:
    """Return the drive as messages name it."""
    return f"drive {ref.key.hex()[:8]}"


async def version_of(
    session: Session, ref: KeyRef, *, peers: list[str] | None = None, timeout: float | None = None
) -> int | None:
    """Return the fixed version that `ref` names by number or tag, None for the newest. Raises: NotFound, TimedOut."""
    if ref.tag is None:
        return ref.version
    async with (
        patience(session, timeout, f"{short_name(ref)}, tag {ref.tag}"),
        session.drive(ref, peers=peers, wait_s=timeout) as opened,
    ):
        return opened.version
