"""Without a peer: what was read stays readable, what was not is an honest error in bounded time."""

import errno
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.interop.conftest import MakeStore
from tests.support import npm, tree
from tests.support.program import Program

AWAY = (errno.EHOSTUNREACH, errno.ETIMEDOUT)
both = pytest.mark.parametrize("dialect", npm.DIALECTS)


@both
def test_what_was_read_survives_peer_and_engine(
    dialect: str, npm_store: MakeStore, ddrive: Program, mountpoint: Path
) -> None:
    store, key = npm_store(dialect)
    wanted = tree.expected(tree.nested_steps())
    with npm.serving(dialect, store, key) as peer:
        ddrive.mount(key, mountpoint, "--peer", peer.address, "--timeout", "2s")
        (mountpoint / "overwritten").read_bytes()
        names = sorted(path for path in os.listdir(mountpoint))
    assert ddrive.run("stop").code == 0
    ddrive.mount(key, mountpoint, "--timeout", "2s")
    assert sorted(os.listdir(mountpoint)) == names
    assert (mountpoint / "overwritten").read_bytes() == tree.content("/overwritten", "second", 50_000)
    with pytest.raises(OSError, match=r"big\.bin|Errno") as caught:
        (mountpoint / "big.bin").read_bytes()
    assert caught.value.errno in AWAY
    assert (mountpoint / "big.bin").stat().st_size == wanted["/big.bin"]["size"]


@both
def test_what_is_not_known_is_never_called_absent(
    dialect: str, npm_store: MakeStore, ddrive: Program, mountpoint: Path
) -> None:
    store, key = npm_store(dialect)
    with npm.serving(dialect, store, key) as peer:
        ddrive.mount(key, mountpoint, "--peer", peer.address, "--timeout", "2s")
        os.lstat(mountpoint)
    for path in ("many/file-299.txt", "deep/level1/level2", "no-such-thing"):
        with pytest.raises(OSError, match=path) as caught:
            os.lstat(mountpoint / path)
        assert caught.value.errno in AWAY


def test_a_drive_never_seen_mounts_and_fills_in_later(npm_store: MakeStore, ddrive: Program, mountpoint: Path) -> None:
    store, key = npm_store("dweb")
    ddrive.mount(f"dweb://{key}/", mountpoint, "--timeout", "1s")
    assert mountpoint.is_dir()
    with pytest.raises(OSError, match="Errno") as caught:
        os.listdir(mountpoint)
    assert caught.value.errno in AWAY
    with npm.serving("dweb", store, key) as peer:
        assert ddrive.run("peer", "add", peer.address).code == 0
        ddrive.run("ls", key)  # returns once the drive's first block has arrived
        assert len(os.listdir(mountpoint / "many")) == 300


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_waiting_reader_is_released(
    ending: signal.Signals, npm_store: MakeStore, ddrive: Program, mountpoint: Path
) -> None:
    store, key = npm_store("dweb")
    with npm.serving("dweb", store, key) as peer:
        ddrive.mount(key, mountpoint, "--peer", peer.address, "--timeout", "60s")
        assert (mountpoint / "big.bin").stat().st_size == 5 * tree.MIB
        peer.pause()
        reader = subprocess.Popen(["cat", mountpoint / "big.bin"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with pytest.raises(subprocess.TimeoutExpired):
            reader.wait(1.5)
        reader.send_signal(ending)
        assert reader.wait(10) != 0
        assert ddrive.run("unmount", mountpoint).code == 0


def test_a_reader_gets_an_error_when_its_time_is_up(npm_store: MakeStore, ddrive: Program, mountpoint: Path) -> None:
    store, key = npm_store("dweb")
    with npm.serving("dweb", store, key) as peer:
        ddrive.mount(key, mountpoint, "--peer", peer.address, "--timeout", "1s")
        assert (mountpoint / "big.bin").stat().st_size == 5 * tree.MIB
        peer.pause()
        done = subprocess.run(["cat", mountpoint / "big.bin"], capture_output=True, timeout=60)
        assert done.returncode == 1
        assert done.stdout == b""
