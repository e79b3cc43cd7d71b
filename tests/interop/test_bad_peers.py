"""A peer that lies, stalls or vanishes never makes a wrong byte; an honest one beside it still serves."""

import errno
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.interop.conftest import MakeStore
from tests.support import npm, tree
from tests.support.liar import FAULTS
from tests.support.program import Program

ROOT = Path(__file__).resolve().parent.parent.parent
NAME, SIZE = "odd-chunks.bin", 300_001


@contextmanager
def lying(store: Path, dialect: str, content_key: str, fault: str) -> Iterator[str]:
    """Serve a store directory with one fault; give its address."""
    command = [sys.executable, "-m", "tests.support.liar", str(store), dialect, content_key, fault]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert process.stdout is not None
        with process.stdout:
            yield f"127.0.0.1:{json.loads(process.stdout.readline())['port']}"
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("fault", FAULTS)
def test_an_honest_peer_still_serves(fault: str, npm_store: MakeStore, ddrive: Program, mountpoint: Path) -> None:
    store, key = npm_store("dweb")
    liars_store, _ = npm_store("dweb")
    with npm.serving("dweb", store, key) as honest, lying(liars_store, "dweb", honest.content_key, fault) as liar:
        ddrive.mount(key, mountpoint, "--peer", liar)
        engine = ddrive.pid
        assert (mountpoint / NAME).stat().st_size == SIZE, "the liar is honest about names"
        assert ddrive.run("peer", "add", honest.address).code == 0
        assert (mountpoint / NAME).read_bytes() == tree.content(f"/{NAME}", "", SIZE)
        assert ddrive.pid == engine


@pytest.mark.parametrize("fault", FAULTS)
def test_alone_it_gets_an_error_never_wrong_bytes(
    fault: str, npm_store: MakeStore, ddrive: Program, mountpoint: Path
) -> None:
    store, key = npm_store("hypercore")
    with npm.serving("hypercore", store, key) as honest:
        content_key = honest.content_key
    with lying(store, "hypercore", content_key, fault) as liar:
        ddrive.mount(key, mountpoint, "--peer", liar, "--timeout", "3s")
        assert (mountpoint / NAME).stat().st_size == SIZE
        with pytest.raises(OSError, match="Errno") as caught:
            (mountpoint / NAME).read_bytes()
        assert caught.value.errno in (errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.EIO)
        assert ddrive.ask("status")["mounts"][0]["state"] == "ok"
