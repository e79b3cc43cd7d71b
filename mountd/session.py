"""A mount from beginning to end: mount, open the drive meanwhile, serve, and leave when told or when unmounted."""

import logging
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from ddrive.errors import MountFailed
from mountd.awake import Awake
from mountd.beneath import put_beneath
from mountd.callers import ProcessTable
from mountd.editing import Editor
from mountd.face import DriveFace
from mountd.follower import Follower
from mountd.fuse import SessionCache, mount_options, mounted, serve_fuse, tune
from mountd.inodes import Inode, to_bytes
from mountd.mountinfo import mounted_at
from mountd.operations import Operations
from mountd.unmounting import detach_dead
from mountd.vfs import Vfs
from mountd.waits import Limits

log = logging.getLogger(__name__)

READY_LIMIT_S = 10.0  # for the first stat of the mountpoint; it needs no peer
LEAVE_LIMIT_S = 1.0  # for answering what is still waiting when the mount ends


@dataclass(frozen=True, slots=True, kw_only=True)
class MountOptions:
    """What to mount, and how. `version` None follows the newest; `state` is the directory whose disk `df` shows."""

    state: str
    key: str
    mountpoint: str
    version: int | None = None
    read_only: bool = True
    allow_other: bool = False
    timeout_s: float = 30.0


async def serve_mount(
    options: MountOptions, opener: Callable[[Vfs, Editor], Awaitable[DriveFace]], ready: Callable[[], None]
) -> None:
    """Mount, call `ready` once a stat is answered, serve until the mount ends or a signal comes, unmount.

    `opener` returns the drive, as late as it likes.
    Raises: MountFailed with the reason and the next step.
    """
    mountpoint = _real(options.mountpoint)
    callers = ProcessTable(sees_all=os.geteuid() == 0 or not options.allow_other)
    vfs = Vfs(
        fixed=options.version is not None,
        mountpoint=mountpoint,
        state=options.state,
        limits=Limits(read_timeout_s=options.timeout_s),
        callers=callers,
    )
    kernel = SessionCache()

    def crowded(inode: Inode) -> None:
        if inode.parent is not None:
            kernel.drop_entry(inode.parent.number, to_bytes(inode.name))

    vfs.inodes.on_crowded = crowded
    editor = Editor(vfs, kernel)
    writable = not options.read_only and not vfs.fixed
    operations = Operations(vfs, editor, uid=os.getuid(), gid=os.getgid(), writable=writable)
    flags = mount_options(
        name=f"ddrive:{options.key[:8]}",
        read_only=not writable,
        allow_other=options.allow_other,
    )
    is_dead = await detach_dead(mountpoint, keeps_last=True)
    beneath = put_beneath(mountpoint, flags) if is_dead else None
    if beneath is None:
        await detach_dead(mountpoint)  # as late as that goes: who looks meanwhile sees the directory below
        _check(mountpoint)
    with mounted(operations, mountpoint, flags, beneath) as descriptor:
        callers.set_mount(descriptor)
        follower = Follower(vfs, kernel)
        answered = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_serve, operations.awake, nursery.cancel_scope)
            nursery.start_soon(_leave_on_signal, vfs, nursery.cancel_scope)
            nursery.start_soon(vfs.waits.watch)
            nursery.start_soon(follower.run, lambda: opener(vfs, editor))
            answered = await _answers(mountpoint)
            if answered:
                tune(mountpoint)  # not before: the first exchange with the kernel sets the limits
                ready()
                log.info("mounted: drive=%s mountpoint=%s", options.key[:8], mountpoint)
                await trio.sleep_forever()
            nursery.cancel_scope.cancel()
        with trio.move_on_after(LEAVE_LIMIT_S, shield=True):
            await vfs.aclose()
    if not answered:
        raise MountFailed(f"{mountpoint} was mounted but does not answer: see the log of the mount")


async def _serve(awake: Awake, ends: trio.CancelScope) -> None:
    await serve_fuse(awake)
    log.info("the mount has ended")
    ends.cancel()


async def _leave_on_signal(vfs: Vfs, ends: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("leaving: signal=%d", number)
            break
    with trio.move_on_after(LEAVE_LIMIT_S):
        await vfs.aclose()
    ends.cancel()


async def _answers(mountpoint: str) -> bool:
    """Tell whether a stat of the mountpoint is answered. Another process asks: we would wait for ourselves."""
    with trio.move_on_after(READY_LIMIT_S):
        done = await trio.run_process(["stat", "--", mountpoint], capture_stdout=True, capture_stderr=True, check=False)
        if done.returncode == 0:
            return True
        log.error("mountpoint does not answer: why=%s", done.stderr.decode(errors="replace").strip())
    return False


def _real(mountpoint: str) -> str:
    """Return the mountpoint without symbolic links."""
    return os.path.realpath(mountpoint)


def _check(place: str) -> None:
    """Raise MountFailed when nothing can be mounted at `place`."""
    if mounted_at(place) is not None:
        raise MountFailed(f"{place} has a file system mounted already: unmount that first")
    if not os.path.isdir(place):
        raise MountFailed(f"{place} is not a directory: create it first")
