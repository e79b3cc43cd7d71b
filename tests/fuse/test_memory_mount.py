"""What a kernel and its processes see of a mount, whatever the drive does: served from memory, mounted for real."""

import errno
import os
import select
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from ddrive.errors import MountFailed
from mountd.inodes import MAX_INODES
from mountd.mountinfo import mounted_at
from mountd.session import MountOptions, serve_mount
from tests.support.memory_mount import MemoryMount, memory_mount, until

DATA = bytes(range(256)) * 3000
SLOW = ("drive.write('/held', b'h' * 300_000)", "drive.write('/slow', b's' * 300_000)", "drive.withheld.add('/slow')")
RELEASE_S = 1.0  # an interrupted caller has to be free after that
SLACK_S = 2.0  # for starting, ending and scheduling processes on a loaded machine; far less than any timeout here


def code_of(call: Callable[[], object]) -> int | None:
    """Return the errno of a call that has to fail."""
    try:
        call()
    except OSError as error:
        return error.errno
    pytest.fail("the call succeeded")


def waits(mount: MemoryMount, child: subprocess.Popen[str], path: str = "/slow") -> None:
    """Return when a read of the child has reached the drive."""
    until(lambda: mount.reads(path) > 0 or child.poll() is not None)
    assert child.poll() is None, child.communicate()


def test_a_tree_is_shown_as_it_is(tmp_path: Path) -> None:
    with memory_mount(
        tmp_path,
        "drive.write('/a.txt', b'hello', mode=0o100755, mtime_ms=1234567890123, colour=b'red')",
        "drive.write('/d/e/big', bytes(range(256)) * 3000)",
        "drive.write('/empty', b'')",
        "drive.write('/\\u00fc \\U0001f600.txt', b'x')",
        "drive.symlink('/relative', 'd/e/big')",
        "drive.symlink('/absolute', '/d/e/big')",
        "drive.symlink('/dangling', 'nowhere')",
        "drive.mkdir('/nothing')",
    ) as mount:
        expected = ["a.txt", "absolute", "d", "dangling", "empty", "nothing", "relative", "\u00fc \U0001f600.txt"]
        assert sorted(os.listdir(mount.path)) == sorted(expected)
        file = os.lstat(mount.path / "a.txt")
        assert (file.st_mode, file.st_size, file.st_mtime_ns) == (0o100755, 5, 1234567890123 * 10**6)
        assert (file.st_uid, file.st_gid, file.st_nlink, file.st_blksize) == (os.getuid(), os.getgid(), 1, 65536)
        assert os.lstat(mount.path / "nothing").st_mode == 0o40755
        assert os.lstat(mount.path / "nothing").st_nlink == 2
        assert (mount.path / "d/e/big").read_bytes() == DATA
        assert (mount.path / "relative").read_bytes() == DATA
        assert (mount.path / "absolute").read_bytes() == DATA
        assert os.readlink(mount.path / "relative") == "d/e/big"
        assert os.readlink(mount.path / "dangling") == "nowhere"
        assert os.lstat(mount.path / "relative").st_size == len("d/e/big")
        assert (mount.path / "empty").read_bytes() == b""
        assert os.listdir(mount.path / "nothing") == []
        assert os.getxattr(mount.path / "a.txt", "user.colour") == b"red"
        assert os.getxattr(mount.path / "a.txt", "user.ddrive.blocks") == b"1"
        assert (os.listxattr(mount.path), os.listxattr(mount.path / "a.txt")) == ([], ["user.colour"])
        assert code_of(lambda: os.getxattr(mount.path / "a.txt", "user.none")) == errno.ENODATA
        assert code_of(lambda: os.getxattr(mount.path / "a.txt", "security.selinux")) == errno.EOPNOTSUPP
        assert code_of(lambda: os.stat(mount.path / "absent")) == errno.ENOENT
        assert code_of(lambda: os.stat(bytes(mount.path) + b"/\xff")) == errno.EILSEQ
        assert code_of(lambda: os.stat(mount.path / ("n" * 256))) == errno.ENAMETOOLONG
        assert os.statvfs(mount.path).f_blocks == os.statvfs(tmp_path).f_blocks


def test_a_large_directory_is_listed_with_one_question_to_the_drive(tmp_path: Path) -> None:
    fill = "[drive.write(f'/d/{number:05}', b'x') for number in range(3000)]"
    with memory_mount(tmp_path, fill, "drive.calls.clear()") as mount:
        listed = subprocess.run(["ls", "-la", mount.path / "d"], capture_output=True, check=True).stdout.splitlines()
        assert len(listed) == 3003
        assert listed[1].endswith(b" .")
        assert sorted(os.listdir(mount.path / "d")) == [f"{number:05}" for number in range(3000)]
        assert (mount.path / "d/02999").stat().st_size == 1
        mount.do("assert drive.calls.count('list /d') == 1, drive.calls")
        mount.do("assert len(drive.calls) < 10, drive.calls")


def test_every_change_is_refused_as_read_only(tmp_path: Path) -> None:
    with memory_mount(tmp_path, "drive.write('/a', b'x')", "drive.mkdir('/d')", read_only=False) as mount:
        a, b = mount.path / "a", mount.path / "b"
        for call in (
            lambda: a.open("r+b"),
            lambda: a.open("wb"),
            lambda: b.open("wb"),
            lambda: b.mkdir(),
            lambda: a.unlink(),
            lambda: (mount.path / "d").rmdir(),
            lambda: a.rename(b),
            lambda: b.symlink_to(a),
            lambda: a.chmod(0o600),
            lambda: os.utime(a),
            lambda: os.truncate(a, 0),
            lambda: os.setxattr(a, "user.x", b""),
            lambda: os.removexattr(a, "user.x"),
            lambda: os.mkfifo(b),
        ):
            assert code_of(call) == errno.EROFS
        assert a.read_bytes() == b"x"


@pytest.mark.parametrize(
    ("raised", "number"),
    [
        ("RuntimeError('a fault')", errno.EIO),
        ("ExceptionGroup('several', [ValueError()])", errno.EIO),
        ("AssertionError()", errno.EIO),
        ("errors.CorruptStorage('bad')", errno.EIO),
        ("OSError(28, 'full')", errno.EIO),
        ("errors.NoPeers('nobody')", errno.EHOSTUNREACH),
    ],
)
def test_whatever_a_handler_raises_the_mount_lives_on(tmp_path: Path, raised: str, number: int) -> None:
    with memory_mount(tmp_path, "drive.write('/good', b'x')", "drive.write('/bad', b'x')") as mount:
        with (mount.path / "bad").open("rb", buffering=0) as file:
            for path in ("/bad", "/", "/other"):
                mount.do(f"fault(drive, {path!r}, {raised})")
            assert code_of(lambda: file.read()) == number
            assert code_of(lambda: (mount.path / "other").stat()) == number
            assert code_of(lambda: os.listdir(mount.path)) == number
        mount.do("drive.faults.clear()")
        assert sorted(os.listdir(mount.path)) == ["bad", "good"]
        assert (mount.path / "bad").read_bytes() == b"x"


def test_the_root_answers_before_the_drive_does_and_fills_in_by_itself(tmp_path: Path) -> None:
    with memory_mount(tmp_path, "drive.write('/a', b'x')", delayed=True, timeout_s=2) as mount:
        assert stat.S_ISDIR(mount.path.stat().st_mode)
        assert os.statvfs(mount.path).f_blocks > 0
        assert code_of(lambda: os.listdir(mount.path)) == errno.EHOSTUNREACH
        mount.do("ready.set()")
        assert os.listdir(mount.path) == ["a"]


def test_what_no_peer_has_fails_within_the_timeout_and_is_never_absent(tmp_path: Path) -> None:
    with memory_mount(tmp_path, *SLOW, "drive.missing.add('/unknown')", timeout_s=2) as mount:
        assert code_of((mount.path / "unknown").stat) == errno.ETIMEDOUT
        assert len(os.listdir(mount.path)) == 2
        with (mount.path / "slow").open("rb", buffering=0) as file:
            started = time.monotonic()
            assert code_of(lambda: file.read(10)) == errno.ETIMEDOUT
            assert time.monotonic() - started < 2 + SLACK_S  # once, not once more for the kernel's second try
            mount.do("drive.metadata.peer_count = 0")
            time.sleep(1)
            assert code_of(lambda: file.read(10)) == errno.EHOSTUNREACH
            mount.do("drive.arrive()")
            assert file.readall() == b"s" * 300_000
    assert "Traceback" not in mount.log


READ_SLOW = "open(mnt + '/slow', 'rb', buffering=0).read(300000)"
CAUGHT = "signal.signal(signal.SIGINT, lambda *_: sys.exit(42))\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP], ids=lambda n: n.name)
def test_a_waiting_reader_can_be_ended_by_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    with memory_mount(tmp_path, *SLOW) as mount:
        child = mount.child("signal.signal(signal.SIGINT, signal.SIG_DFL)\n" + READ_SLOW)
        waits(mount, child)
        ended = signalled(child, number)
        assert child.returncode == -number
        assert ended < RELEASE_S + SLACK_S
        until(lambda: mount.ask("all(reader.closed for reader in drive.readers)"))
        assert mount.is_alive()


@pytest.mark.parametrize(
    "read",
    [
        READ_SLOW,
        "file = os.open(mnt + '/slow', os.O_RDONLY)\nos.pread(file, 10, 200000)",
        "[os.pread(os.open(mnt + '/slow', os.O_RDONLY), 10, 0) for _ in range(2)]",
    ],
    ids=["sequential", "random", "again"],
)
def test_a_handler_for_the_interrupt_runs_soon(tmp_path: Path, read: str) -> None:
    with memory_mount(tmp_path, *SLOW) as mount:
        child = mount.child(CAUGHT + read)
        waits(mount, child)
        assert signalled(child, signal.SIGINT) < RELEASE_S + SLACK_S
        assert child.returncode == 42


def test_a_reader_that_inherited_the_open_file_is_released_too(tmp_path: Path) -> None:
    inherit = (
        "file = os.open(mnt + '/slow', os.O_RDONLY)\nreader = os.fork()\n"
        "if not reader: os.read(file, 10)\n"
        "print(reader, flush=True)\nsys.exit(os.waitstatus_to_exitcode(os.waitpid(reader, 0)[1]))"
    )
    with memory_mount(tmp_path, *SLOW) as mount:
        child = mount.child(CAUGHT + inherit)
        waits(mount, child)
        assert child.stdout is not None
        reader = int(child.stdout.readline())
        started = time.monotonic()
        os.kill(reader, signal.SIGINT)
        child.communicate(timeout=15)
        assert time.monotonic() - started < RELEASE_S + SLACK_S
        assert child.returncode == 42


def signalled(child: subprocess.Popen[str], number: signal.Signals) -> float:
    """Send a signal and return after how many seconds the process has ended."""
    started = time.monotonic()
    child.send_signal(number)
    child.communicate(timeout=15)
    return time.monotonic() - started


@pytest.mark.parametrize(
    "call", ["os.stat(mnt + '/unknown')", "os.listdir(mnt + '/unread')", "open(mnt + '/unopened')"]
)
def test_other_waiting_calls_can_be_ended_too(tmp_path: Path, call: str) -> None:
    with memory_mount(
        tmp_path,
        "drive.mkdir('/unread')",
        "drive.write('/unopened', b'x')",
    ) as mount:
        (mount.path / "unopened").stat()
        (mount.path / "unread").stat()
        mount.do("drive.missing |= {'/unknown', '/unread', '/unopened'}", "drive.calls.clear()")
        for number in (signal.SIGINT, signal.SIGKILL):
            child = mount.child(f"signal.signal(signal.SIGINT, signal.SIG_DFL)\n{call}")
            until(lambda: bool(mount.ask("drive.calls")))
            assert signalled(child, number) < RELEASE_S + SLACK_S
            mount.do("drive.calls.clear()")
        assert mount.is_alive()


ASKING = """
def ask(name):
    for number in range(10 ** 9):
        os.path.exists(f"{mnt}/{os.getpid()}-{name}-{number}")
        if number == 100:
            print(flush=True)
for name in range(4):
    threading.Thread(target=ask, args=(name,)).start()
"""


def test_callers_that_die_while_they_ask_do_not_stop_the_server(tmp_path: Path) -> None:
    with memory_mount(tmp_path) as mount:
        assert mount.process.stdin is not None
        assert mount.process.stdout is not None
        for _ in range(30):  # each fifth of them did
            child = mount.child(ASKING)
            assert child.stdout is not None
            child.stdout.readline()
            child.kill()
            child.communicate()
            mount.process.stdin.write("?True\n")
            mount.process.stdin.flush()
            answered, _, _ = select.select([mount.process.stdout], [], [], RELEASE_S + SLACK_S)
            assert answered, "it waits for the next who asks"
            mount.expect("True")


def test_a_blocked_or_ignored_signal_does_not_end_a_read(tmp_path: Path) -> None:
    with memory_mount(tmp_path, *SLOW) as mount:
        child = mount.child(
            "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
            f"print(len({READ_SLOW}))\nos._exit(0)"
        )
        waits(mount, child)
        child.send_signal(signal.SIGINT)
        child.send_signal(signal.SIGTERM)
        time.sleep(1.5)
        mount.do("drive.arrive()")
        assert child.communicate(timeout=15)[0] == "300000\n"


def test_everything_else_is_quick_while_many_readers_wait(tmp_path: Path) -> None:
    fill = "[drive.write(f'/slow{number}', b's' * 300_000) for number in range(40)]"
    withhold = "drive.withheld |= {f'/slow{number}' for number in range(40)}"
    with memory_mount(tmp_path, fill, withhold, "drive.write('/held', b'h' * 300_000)") as mount:
        code = "[threading.Thread(target=lambda n=n: open(f'{mnt}/slow{n}', 'rb').read()).start() for n in range(40)]"
        child = mount.child(code)
        until(lambda: mount.ask("sum(call.startswith('read /slow') for call in drive.calls) >= 12"))
        started = time.monotonic()
        assert len(os.listdir(mount.path)) == 41
        assert (mount.path / "slow0").stat().st_size == 300_000
        assert (mount.path / "held").read_bytes() == b"h" * 300_000
        assert time.monotonic() - started < SLACK_S
        mount.do("drive.arrive()")
        child.communicate(timeout=15)
        assert child.returncode == 0


def test_an_author_changes_things(tmp_path: Path) -> None:
    with memory_mount(tmp_path, "drive.write('/a', b'old' * 50000)", "drive.write('/d/e/f', b'x')") as mount:
        a = mount.path / "a"
        assert code_of((mount.path / "new").stat) == errno.ENOENT
        with a.open("rb") as file, (mount.path / "d/e/f").open("rb") as removed:
            assert file.read(30) == b"old" * 10
            assert (mount.path / "d").is_dir()
            inside = os.open(mount.path / "d", os.O_PATH)
            mount.do("drive.write('/a', b'newer' * 50000)", "drive.write('/new', b'n')", "drive.write('/d/g', b'g')")
            mount.do("drive.remove('/d/e/f')")
            until(lambda: a.stat().st_size == 250_000)
            until(lambda: (mount.path / "new").exists())
            until(lambda: not (mount.path / "d/e").exists())
            assert a.read_bytes() == b"newer" * 50000
            assert sorted(os.listdir(mount.path)) == ["a", "d", "new"]
            assert os.listdir(mount.path / "d") == ["g"]
            assert file.read() == (b"old" * 50000)[30:]
            assert os.fstat(file.fileno()).st_size == 150_000
            assert removed.read() == b"x"
            assert not os.readlink(f"/proc/self/fd/{inside}").endswith("(deleted)")
            os.close(inside)


def test_unmounting_by_hand_ends_the_server_also_while_readers_wait(tmp_path: Path) -> None:
    with memory_mount(tmp_path, *SLOW) as mount:
        child = mount.child(READ_SLOW)
        waits(mount, child)
        assert subprocess.run(["umount", mount.path], capture_output=True).returncode != 0
        subprocess.run(["umount", "-f", mount.path], capture_output=True)
        subprocess.run(["umount", "-l", mount.path], capture_output=True)
        child.communicate(timeout=15)
        assert mount.process.wait(timeout=15) == 0
        assert mounted_at(str(mount.path)) is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_server_that_is_told_to_leaves_at_once_and_frees_who_waits(tmp_path: Path, number: signal.Signals) -> None:
    with memory_mount(tmp_path, *SLOW) as mount:
        child = mount.child(READ_SLOW)
        waits(mount, child)
        mount.process.send_signal(number)
        assert mount.process.wait(timeout=10) == 0
        child.communicate(timeout=10)
        assert child.returncode == 1
        assert mounted_at(str(mount.path)) is None


def test_the_mount_is_shown_for_what_it_is(tmp_path: Path) -> None:
    with memory_mount(tmp_path) as mount:
        entry = mounted_at(str(mount.path))
        assert entry is not None
        assert (entry.kind, entry.source) == ("fuse.ddrive", "ddrive:00010203")
        line = next(line for line in Path("/proc/mounts").read_text().splitlines() if str(mount.path) in line)
        flags = set(line.split()[3].split(","))
        assert {"ro", "nosuid", "nodev", "default_permissions"} <= flags


@pytest.mark.parametrize("place", ["file", "absent", "mounted"])
def test_a_place_that_cannot_be_a_mountpoint_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with memory_mount(tmp_path) as mount:
        target = mount.path if place == "mounted" else tmp_path / place
        options = MountOptions(state=str(tmp_path), key="00" * 32, mountpoint=str(target))
        with pytest.raises(MountFailed, match=str(target)):
            trio.run(serve_mount, options, None, None)
        assert mount.is_alive()


def test_without_the_device_the_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mountd.device.DEVICE", str(tmp_path / "fuse"))
    options = MountOptions(state=str(tmp_path), key="00" * 32, mountpoint=str(tmp_path))
    with pytest.raises(MountFailed, match="load the fuse module or install fuse3"):
        trio.run(serve_mount, options, None, None)


def test_a_huge_tree_does_not_stay_in_memory(tmp_path: Path) -> None:
    fill = "[drive.write(f'/{n % 20}/{n}', b'%d' % n) for n in range(40_000)]"
    with memory_mount(tmp_path, fill) as mount:
        with (mount.path / "0" / "0").open() as opened:
            number = os.fstat(opened.fileno()).st_ino
            found = [path for path in mount.path.rglob("*") if path.name.isdecimal()]
            assert len(found) == 40_020
            until(lambda: mount.ask("len(served[0].inodes)") < MAX_INODES + 1000)
            assert opened.read() == "0"
            assert os.stat(mount.path / "0" / "0").st_ino == number
        assert all((mount.path / str(n % 20) / str(n)).read_text() == str(n) for n in range(0, 40_000, 997))
