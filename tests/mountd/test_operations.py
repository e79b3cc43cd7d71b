"""No handler lets an exception out that pyfuse3 does not know; an errno says what went wrong."""

import errno
import inspect
from types import SimpleNamespace
from typing import Any

import pyfuse3
import pytest
import trio

from ddrive import errors
from ddrive.drive.stat import DIRECTORY_MODE, Stat
from mountd.editing import Editor
from mountd.inodes import InodeTable
from mountd.operations import CHANGING, Operations
from mountd.vfs import Vfs

CONTEXT = SimpleNamespace(pid=1, uid=0, gid=0)
CALLS: dict[str, tuple[Any, ...]] = {
    "lookup": (1, b"name", CONTEXT),
    "getattr": (1, CONTEXT),
    "readlink": (1, CONTEXT),
    "opendir": (1, CONTEXT),
    "readdir": (1, 0, None),
    "releasedir": (1,),
    "open": (1, 0, CONTEXT),
    "read": (1, 0, 10),
    "statfs": (CONTEXT,),
    "getxattr": (1, b"user.name", CONTEXT),
    "listxattr": (1, CONTEXT),
}
CHANGES: dict[str, tuple[Any, ...]] = {
    "create": (1, b"name", 0o644, 0, CONTEXT),
    "mknod": (1, b"name", 0o100644, 0, CONTEXT),
    "mkdir": (1, b"name", 0o755, CONTEXT),
    "symlink": (1, b"name", b"target", CONTEXT),
    "unlink": (1, b"name", CONTEXT),
    "rmdir": (1, b"name", CONTEXT),
    "rename": (1, b"name", 1, b"other", 0, CONTEXT),
    "setattr": (1, pyfuse3.EntryAttributes(), pyfuse3.SetattrFields(), None, CONTEXT),
    "setxattr": (1, b"user.name", b"", CONTEXT),
    "removexattr": (1, b"user.name", CONTEXT),
    "write": (1, 0, b"x"),
    "flush": (1,),
    "fsync": (1, False),
    "fsyncdir": (1, False),
    "release": (1,),
}


class Raising:
    """A Vfs or Editor of which every method raises."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        if inspect.iscoroutinefunction(getattr(Vfs, name, None) or getattr(Editor, name)):

            async def fail(*_: Any) -> None:
                raise self._error

        else:

            def fail(*_: Any) -> None:  # type: ignore[misc]
                raise self._error

        return fail


def operations(error: BaseException) -> Operations:
    return handlers(Raising(error), Raising(error))


def handlers(vfs: Any, editor: Any = None) -> Operations:
    return Operations(vfs, editor, uid=0, gid=0, writable=True)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    ("error", "number"),
    [
        (errors.NotFound("x"), errno.ENOENT),
        (errors.NoPeers("x"), errno.EHOSTUNREACH),
        (OSError(errno.EINTR, "x"), errno.EINTR),
        (OSError(errno.ENOSPC, "x"), errno.EIO),
    ],
    ids=["NotFound", "NoPeers", "interrupted", "disk full"],
)
async def test_errors_become_their_errno(
    name: str, error: Exception, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await getattr(operations(error), name)(*CALLS[name])
    assert caught.value.errno == number
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("name", CALLS | CHANGES)
@pytest.mark.parametrize("error", [KeyError("x"), ExceptionGroup("x", [OSError()]), AssertionError()], ids=repr)
async def test_faults_of_ours_become_eio_with_a_traceback(
    name: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await getattr(operations(error), name)(*(CALLS | CHANGES)[name])
    assert caught.value.errno == errno.EIO
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [error]


@pytest.mark.parametrize("name", CALLS | CHANGES)
async def test_cancellation_passes_through(name: str) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as cancelled:
            with pytest.raises(trio.Cancelled):
                await getattr(operations(cancelled), name)(*(CALLS | CHANGES)[name])
            raise
    assert scope.cancelled_caught


async def test_forget_never_raises(caplog: pytest.LogCaptureFixture) -> None:
    await operations(KeyError("x")).forget([(1, 1)])
    assert "operation=forget" in caplog.text


@pytest.mark.parametrize("name", CHANGES)
async def test_a_full_disk_is_told_to_who_writes(name: str) -> None:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await getattr(operations(OSError(errno.ENOSPC, "x")), name)(*CHANGES[name])
    assert caught.value.errno == (errno.ENOSPC if name in CHANGING else errno.EIO)


@pytest.mark.parametrize(("writable", "number"), [(True, errno.EPERM), (False, errno.EROFS)])
async def test_hard_links_are_refused(writable: bool, number: int) -> None:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await Operations(None, None, uid=0, gid=0, writable=writable).link(1, 1, b"name", CONTEXT)  # type: ignore[arg-type]
    assert caught.value.errno == number


async def test_attributes_of_other_kinds_are_not_supported_so_that_ls_asks_once() -> None:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await operations(KeyError()).getxattr(1, b"security.capability", CONTEXT)  # type: ignore[arg-type]
    assert caught.value.errno == errno.EOPNOTSUPP


async def test_a_name_that_is_not_text_is_an_illegal_name() -> None:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await operations(KeyError()).lookup(1, b"\xff", CONTEXT)  # type: ignore[arg-type]
    assert caught.value.errno == errno.EILSEQ


def test_every_handler_is_tried_here() -> None:
    own = {name for name in vars(Operations) if not name.startswith("_") and callable(getattr(Operations, name))}
    assert own == set(CALLS) | set(CHANGES) | {"forget", "access", "link"}


async def test_a_directory_whose_attributes_were_forgotten_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    table = InodeTable(max_stats=1)
    about = Stat(DIRECTORY_MODE)
    outer = table.bind(table.root, "outer", about)
    inner = table.bind(outer, "inner", about)
    entry = table.bind(inner, "entry", about)
    assert (inner.stat, outer.stat) == (None, None)

    class Listed:
        async def readdir(self, fh: int, start: int, emit: Any) -> None:
            for name, inode in ((b".", inner), (b"..", outer), (b"entry", entry)):
                emit(name, inode, 0.0, 1)

        def target_of(self, stat: Stat) -> str:
            return stat.linkname or ""

    shown: list[tuple[bytes, int, int]] = []
    monkeypatch.setattr(
        pyfuse3, "readdir_reply", lambda token, name, about, _: shown.append((name, about.st_ino, about.st_mode))
    )
    await handlers(Listed()).readdir(1, 0, None)  # type: ignore[arg-type]
    assert shown == [
        (b".", inner.number, DIRECTORY_MODE),
        (b"..", outer.number, DIRECTORY_MODE),
        (b"entry", entry.number, DIRECTORY_MODE),
    ]


async def test_impossible_sizes_and_targets_fail_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    table = InodeTable()
    entry = table.bind(table.root, "huge", Stat(0o100644, size=2**64 - 1))

    class Listed:
        async def readdir(self, fh: int, start: int, emit: Any) -> None:
            emit(b"huge", entry, 0.0, 1)

        async def readlink(self, inode: int, caller: int) -> str:
            return targets.pop()

    targets = ["a" * 4096, "a" * 4095, "a\0b"]
    shown: list[int] = []
    monkeypatch.setattr(pyfuse3, "readdir_reply", lambda token, name, about, _: shown.append(about.st_size))
    await handlers(Listed()).readdir(1, 0, None)  # type: ignore[arg-type]
    assert shown == [2**63 - 1], "the others in that directory are listed"
    with pytest.raises(pyfuse3.FUSEError) as error:
        await handlers(Listed()).readlink(1, CONTEXT)  # type: ignore[arg-type]
    assert error.value.errno == errno.EIO
    assert len(await handlers(Listed()).readlink(1, CONTEXT)) == 4095  # type: ignore[arg-type]
    with pytest.raises(pyfuse3.FUSEError) as error:  # the kernel would refuse the answer
        await handlers(Listed()).readlink(1, CONTEXT)  # type: ignore[arg-type]
    assert error.value.errno == errno.ENAMETOOLONG
