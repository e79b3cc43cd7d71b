"""Many readers, several drives, several peers at once."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from tests.interop.conftest import MakeStore
from tests.support import npm, tree
from tests.support.program import Program


def test_two_drives_of_two_dialects_are_mounted_at_once(
    npm_store: MakeStore, ddrive: Program, mountpoint: Path
) -> None:
    places = {dialect: mountpoint.with_name(f"mnt-{dialect}") for dialect in npm.DIALECTS}
    peers = {}
    try:
        for dialect, place in places.items():
            store, key = npm_store(dialect)
            peers[dialect] = npm.NpmPeer(dialect, store, key)
            ddrive.mount(key, place, "--peer", peers[dialect].address)
        mounts = ddrive.ask("status")["mounts"]
        assert {mount["mountpoint"] for mount in mounts} == set(map(str, places.values()))
        assert len({mount["pid"] for mount in mounts}) == 2
        for place in places.values():
            assert tree.differences(tree.observe(place), tree.expected(tree.nested_steps())) == []
    finally:
        for peer in peers.values():
            peer.end()


@pytest.mark.parametrize("dialect", npm.DIALECTS)
def test_thirty_two_readers_at_once_all_get_the_bytes(
    dialect: str, npm_store: MakeStore, ddrive: Program, mountpoint: Path
) -> None:
    store, key = npm_store(dialect)
    names = ["big.bin", "odd-chunks.bin", "overwritten", "exactly-64k"] * 7 + ["one", "empty-first", "old", "secret"]
    wanted = tree.expected(tree.nested_steps())
    with npm.serving(dialect, store, key) as peer:
        ddrive.mount(key, mountpoint, "--peer", peer.address)
        readers = [subprocess.Popen(["cat", mountpoint / name], stdout=subprocess.PIPE) for name in names]
        for name, reader in zip(names, readers, strict=True):
            out, _ = reader.communicate(timeout=60)
            assert reader.returncode == 0
            assert hashlib.sha256(out).hexdigest() == wanted[f"/{name}"]["sha256"]
        fetched = peer.content_blocks()
        assert len(fetched) == len(set(fetched)), "a block was fetched twice"


@pytest.mark.parametrize("dialect", npm.DIALECTS)
def test_three_peers_share_the_work(dialect: str, npm_store: MakeStore, ddrive: Program, mountpoint: Path) -> None:
    peers = []
    try:
        for _ in range(3):
            store, key = npm_store(dialect)
            peers.append(npm.NpmPeer(dialect, store, key))
        addresses = [word for peer in peers for word in ("--peer", peer.address)]
        ddrive.mount(key, mountpoint, *addresses)
        assert (mountpoint / "big.bin").read_bytes() == tree.content("/big.bin", "", 5 * tree.MIB)
        shares = [peer.content_blocks() for peer in peers]
        together = [block for share in shares for block in share]
        assert sum(bool(share) for share in shares) > 1, "only one peer was asked"
        assert len(set(together)) == 80
        # a peer that this machine keeps waiting for most of a second is overtaken: what it owed comes twice
        assert len(together) <= 88, "blocks were fetched more than once"
    finally:
        for peer in peers:
            peer.end()


def test_another_peer_takes_over_when_one_vanishes(npm_store: MakeStore, ddrive: Program, mountpoint: Path) -> None:
    store, key = npm_store("dweb")
    second, _ = npm_store("dweb")
    first_peer = npm.NpmPeer("dweb", store, key)
    second_peer = npm.NpmPeer("dweb", second, key)
    try:
        ddrive.mount(key, mountpoint, "--peer", first_peer.address, "--peer", second_peer.address)
        assert (mountpoint / "one").stat().st_size == 1
        first_peer.pause()
        assert (mountpoint / "big.bin").read_bytes() == tree.content("/big.bin", "", 5 * tree.MIB)
        first_peer.end()
        assert (mountpoint / "odd-chunks.bin").read_bytes() == tree.content("/odd-chunks.bin", "", 300_001)
    finally:
        first_peer.end()
        second_peer.end()
