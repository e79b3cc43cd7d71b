"""Store directories that other programs use."""

import os
from pathlib import Path

import pytest

from ddrive.crypto import KeyPair, discovery_key
from ddrive.dialect import DWEB
from ddrive.errors import StorageLocked
from ddrive.store.copying import copy_feed, find_store
from ddrive.store.derive import feed_folder


def test_a_feed_that_is_written_without_a_lock_while_it_is_copied_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = KeyPair.from_seed(bytes(32))
    folder = tmp_path / "store" / feed_folder(discovery_key(pair.public_key, DWEB.discovery_ns))
    folder.mkdir(parents=True)
    for name in ("tree", "signatures", "bitfield", "data"):
        (folder / name).write_bytes(b"1")
    (folder / "key").write_bytes(pair.public_key)
    [feed] = find_store(tmp_path / "store").feeds
    plain = os.fsync

    def fsync(descriptor: int) -> None:
        plain(descriptor)
        with (folder / "data").open("ab") as data:
            data.write(b"2")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        with pytest.raises(StorageLocked, match="changes while it is copied"):
            copy_feed(feed, tmp_path / "busy")
    assert not (tmp_path / "busy" / "key").exists()
    copy_feed(feed, tmp_path / "quiet")
    assert (tmp_path / "quiet" / "data").read_bytes() == (folder / "data").read_bytes()
