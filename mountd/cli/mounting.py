"""`mount` and `unmount`: the engine does it, in a process of its own per mountpoint."""

import errno
import os
import signal
import stat
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import trio
import typer

from ddrive.drive.address import KeyRef, parse_key
from ddrive.errors import InvalidKey, NotFound, UnusablePlace
from mountd.cli import options, report
from mountd.cli.options import Common
from mountd.cli.session import Session, run, version_of, whole
from mountd.values import counted, format_size, parse_address, parse_duration

DEAD_MOUNT = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)  # what the kernel says when the process behind is gone
IGNORED_OPTIONS = {
    *("", "defaults", "rw", "async", "exec", "auto", "noauto", "user", "users", "nouser", "owner", "group"),
    *("nofail", "_netdev", "atime", "noatime", "relatime", "norelatime", "diratime", "nodiratime"),
    *("nosuid", "suid", "nodev", "dev"),  # no set-user-id program and no device ever works in a mount
}
POLL_S = 0.5  # how often a mount in the foreground looks whether it still exists


def mount(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Key or URL of the drive.", show_default=False)],
    mountpoint: Annotated[str, typer.Argument(metavar="MOUNTPOINT", help="An empty directory.", show_default=False)],
    peer: options.Peers = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", "-r", envvar="DDRIVE_READ_ONLY", help="Do not allow writing.")
    ] = False,
    allow_other: Annotated[
        bool, typer.Option("--allow-other", envvar="DDRIVE_ALLOW_OTHER", help="Let other users in.")
    ] = False,
    private: options.Private = False,
    timeout: options.Timeout = None,
    require_peer: Annotated[
        bool,
        typer.Option("--require-peer", envvar="DDRIVE_REQUIRE_PEER", help="Fail when no peer has the drive."),
    ] = False,
    foreground: Annotated[
        bool, typer.Option("--foreground", "-f", envvar="DDRIVE_FOREGROUND", help="Stay until it is unmounted.")
    ] = False,
    mount_options: Annotated[
        list[str] | None,
        typer.Option(
            "-o", envvar="DDRIVE_O", metavar="OPTS", help="ro,allow_other,nonempty,timeout=30s,peer=HOST:PORT …"
        ),
    ] = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Mount a drive; returns when the mount answers. KEY and MOUNTPOINT may be given in either order."""
    ref, place = told_apart(key, mountpoint)
    whole(ref, newest=False)
    wanted: dict[str, Any] = {"read_only": read_only, "allow_other": allow_other, "require_peer": require_peer}
    if timeout is not None:
        wanted["timeout_s"] = timeout
    addresses = list(peer or [])
    for option in ",".join(mount_options or []).split(","):
        _apply(option, wanted, addresses)

    async def verb(session: Session) -> None:
        await session.doubt(addresses)
        session.private = bool(wanted.pop("private", private))
        made = await session.call(
            "mount",
            key=ref.key.hex(),
            dialect=ref.dialect,
            version=await version_of(session, ref, peers=addresses, timeout=timeout),
            mountpoint=str(place),
            peers=addresses,
            private=session.private,
            options=wanted,
        )
        if foreground:
            await _stay(session, made)
        else:
            session.say(made, [])

    check_mountpoint(place)
    run(Common(state, as_json, start=not no_start), verb)


def unmount(
    mountpoint: Annotated[str, typer.Argument(metavar="MOUNTPOINT", show_default=False)],
    force: Annotated[
        bool, typer.Option("--force", envvar="DDRIVE_FORCE", help="Unmount even when files are open.")
    ] = False,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Unmount; says who uses the mount when it is busy."""

    async def verb(session: Session) -> None:
        place = str(absolute(mountpoint))
        os.chdir("/")  # who asks from inside would be one of those who use it
        done = await session.call("unmount", mountpoint=place, force=force)
        session.say(done, [])
        tell_left(done)

    run(Common(state, as_json, start=not no_start), verb)


def tell_left(ended: dict[str, Any]) -> None:
    """Say what mounts could not store before they ended."""
    for left in ended.get("left", []):  # an engine that still runs after an update may not tell
        report.note(
            f"{counted(left['changes'], 'change')} ({format_size(left['bytes'])}) of drive {left['key'][:8]} "
            "could not be stored "
            "in it yet and wait in the state directory: the next mount of the drive stores them; "
            "the mount's log says what was in the way"
        )


def told_apart(first: str, second: str) -> tuple[KeyRef, Path]:
    """Return drive and mountpoint out of two arguments in either order.

    Raises: InvalidKey when neither is a key.
    """
    with suppress(InvalidKey):
        return parse_key(first), absolute(second)
    with suppress(InvalidKey):
        return parse_key(second), absolute(first)
    return parse_key(second if os.path.isdir(first) else first), absolute(second)


def absolute(text: str) -> Path:
    """Return the place with symbolic links resolved. Of a mount only its root is asked, which answers by itself."""
    return Path(os.path.realpath(text))


def check_mountpoint(place: Path) -> None:
    """Make sure that something can be mounted at `place`. A dead mount of ours passes: the engine heals it.

    Raises: NotFound, UnusablePlace.
    """
    try:
        status = place.lstat()
    except FileNotFoundError:
        raise NotFound(f"the mountpoint does not exist ({place}): make it with mkdir -p") from None
    except OSError as error:
        if error.errno in DEAD_MOUNT:
            return
        raise
    if not stat.S_ISDIR(status.st_mode):
        raise UnusablePlace(f"the mountpoint is not a directory ({place}): choose an empty directory")


def _apply(option: str, wanted: dict[str, Any], peers: list[str]) -> None:
    """Take one option of `-o` into account."""
    name, _, value = option.partition("=")
    try:
        match name:
            case "ro":
                wanted["read_only"] = True
            case "allow_other" | "require_peer" | "nonempty" | "private":
                wanted[name] = True
            case "timeout":
                wanted["timeout_s"] = parse_duration(value)
            case "peer":
                peers.append(parse_address(value))
            case _ if name in IGNORED_OPTIONS or name.startswith("x-"):
                pass
            case _:
                raise ValueError(f"unknown mount option {option!r}")
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="-o") from None


async def _stay(session: Session, made: dict[str, Any]) -> None:
    """Return when the mount has ended by itself; end it on SIGINT and SIGTERM."""
    place = made["mountpoint"]
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        session.say(made, [])
        while any(mount["mountpoint"] == place for mount in (await session.call("status"))["mounts"]):
            with trio.move_on_after(POLL_S) as pause:
                await anext(signals)
            if not pause.cancelled_caught:
                tell_left(await session.call("unmount", mountpoint=place, force=False))
                return
