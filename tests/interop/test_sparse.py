"""Only what a command touches crosses the network: counted by the npm peer that serves it."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.interop.conftest import MakeStore
from tests.support import npm, tree
from tests.support.program import Program

both = pytest.mark.parametrize("dialect", npm.DIALECTS)
KEEP_ALIVE_BYTES = 16  # a silent connection sends one byte now and then


def drop_page_cache(path: Path) -> None:
    """Make the kernel forget the content of one file, so that the next read asks the mount."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


@both
def test_a_listing_fetches_no_content(dialect: str, npm_store: MakeStore, ddrive: Program, mountpoint: Path) -> None:
    store, key = npm_store(dialect)
    with npm.serving(dialect, store, key) as peer:
        ddrive.mount(key, mountpoint, "--peer", peer.address)
        listing = subprocess.run(["ls", "-laR", mountpoint], capture_output=True, check=True)
        assert listing.stdout.count(b"file-") == 300
        assert peer.content_blocks() == []


@both
def test_a_small_read_fetches_little_and_only_once(
    dialect: str, npm_store: MakeStore, ddrive: Program, mountpoint: Path
) -> None:
    store, key = npm_store(dialect)
    wanted = tree.content("/big.bin", "", 5 * tree.MIB)
    middle = 2 * tree.MIB + 20_000
    with npm.serving(dialect, store, key) as peer:
        ddrive.mount(key, mountpoint, "--peer", peer.address)
        with (mountpoint / "big.bin").open("rb", buffering=0) as opened:
            assert os.pread(opened.fileno(), 4096, middle) == wanted[middle : middle + 4096]
        time.sleep(1)  # whatever an overeager reader would still fetch after close
        fetched = peer.content_blocks()
        assert len(fetched) == len(set(fetched))
        assert 1 <= len(fetched) <= 2, "the block that holds the bytes, and 64 KiB more at most"

        before = peer.sent_bytes()
        drop_page_cache(mountpoint / "big.bin")
        with (mountpoint / "big.bin").open("rb", buffering=0) as opened:
            assert os.pread(opened.fileno(), 4096, middle) == wanted[middle : middle + 4096]
        assert peer.content_blocks() == fetched
        assert peer.sent_bytes() - before <= KEEP_ALIVE_BYTES


@both
def test_a_read_file_is_read_again_from_here(
    dialect: str, npm_store: MakeStore, ddrive: Program, mountpoint: Path
) -> None:
    store, key = npm_store(dialect)
    with npm.serving(dialect, store, key) as peer:
        ddrive.mount(key, mountpoint, "--peer", peer.address)
        wanted = tree.content("/big.bin", "", 5 * tree.MIB)
        assert (mountpoint / "big.bin").read_bytes() == wanted
        fetched = peer.content_blocks()
        assert len(fetched) == len(set(fetched)) == 80
        before = peer.sent_bytes()
        drop_page_cache(mountpoint / "big.bin")
        assert (mountpoint / "big.bin").read_bytes() == wanted
        assert peer.sent_bytes() - before <= KEEP_ALIVE_BYTES


def test_statistics_agree_with_what_the_peer_counted(npm_store: MakeStore, ddrive: Program, mountpoint: Path) -> None:
    store, key = npm_store("dweb")
    with npm.serving("dweb", store, key) as peer:
        ddrive.mount(key, mountpoint, "--peer", peer.address)
        (mountpoint / "big.bin").read_bytes()
        uploads = peer.stats()["uploads"].values()
        stats = ddrive.ask("stats", key)
        assert stats["downloaded"]["blocks"] == sum(feed["blocks"] for feed in uploads)
        assert stats["downloaded"]["bytes"] >= 5 * tree.MIB
        assert stats["verify_failures"] == 0
