"""Tries mounted in tries: the recorded steps of the npm packages, and what they get wrong or leave open."""

import re
from hashlib import sha256
from typing import Any

import pytest

from ddrive.dialect import DIALECTS, DWEB, Dialect
from ddrive.ids import PublicKey
from ddrive.store.derive import derive_seed
from ddrive.trie import MountTrie, Trie, open_mount_trie, open_trie
from tests.support.vectors import vector
from tests.trie.feeds import hex_blocks, new_feed

SUBTYPE = "mountable-hypertrie"  # what the npm wrapper gives when it is used by itself
DATA = {name: vector(f"mount-{name}.json") for name in DIALECTS}


class World:
    """Feeds by name, opened as tries by key; counts how often each is opened."""

    def __init__(self, dialect: Dialect, seeds: dict[str, bytes]) -> None:
        self.dialect = dialect
        self.feeds = {name: new_feed(seed=seed) for name, seed in seeds.items()}
        self.opened: list[bytes] = []

    async def open_mounted(self, key: PublicKey) -> Trie:
        self.opened.append(key)
        [feed] = [feed for feed in self.feeds.values() if feed.key == key]
        return await open_trie(feed, self.dialect)

    async def open(self, name: str) -> MountTrie:
        return await open_mount_trie(self.feeds[name], self.dialect, self.open_mounted, subtype=SUBTYPE)


def world(*names: str) -> World:
    return World(DWEB, {name: name.encode() * 32 for name in names})


@pytest.fixture(params=sorted(DIALECTS))
async def replayed(request: pytest.FixtureRequest) -> Any:
    """The recorded world before its last step, whose blocks are compared while it is built."""
    data = DATA[request.param]
    dialect = DIALECTS[request.param]
    master = sha256(b"vector:mount-master").digest()
    made = World(dialect, {name: derive_seed(master, name.encode(), dialect) for name in data["headers"]})
    tries = {name: await made.open(name) for name in made.feeds}
    for name, entry in data["headers"].items():
        assert (tries[name].key.hex(), hex_blocks(made.feeds[name])) == (entry["key"], [entry["header"]])
    for step in data["steps"][:-1]:
        await replay(made, tries, step)
    return data, made, tries


async def replay(made: World, tries: dict[str, MountTrie], step: dict[str, Any]) -> None:
    before = {name: feed.length for name, feed in made.feeds.items()}
    match = re.match(r"(\w)\.(\w+)\((.*)\)", step["step"])
    assert match is not None
    name, verb, arguments = match.groups()
    texts = re.findall(r"'([^']*)'", arguments)
    if verb == "put":
        await tries[name].put(texts[0], texts[1].encode())
    elif verb == "mount":
        target = re.search(r"(\w)\.key", arguments)
        version = re.search(r"version: (\d+)", arguments)
        assert target is not None
        await tries[name].mount(
            texts[0],
            made.feeds[target.group(1)].key,
            version=int(version.group(1)) if version else None,
            value=texts[1].encode() if len(texts) > 1 else b"",
        )
    elif verb == "del":
        await tries[name].delete(texts[0])
    else:
        await tries[name].unmount(texts[0])
    for trie, feed in made.feeds.items():
        assert hex_blocks(feed, before[trie]) == step["appended"].get(trie, []), step


async def test_recorded_gets(replayed: Any) -> None:
    data, _, tries = replayed
    for case in data["gets"]:
        entry = await tries["A"].get(case["key"])
        expected = case["node"]
        if expected is None:
            assert entry.node is None
        else:
            node = entry.node
            shown = (node.seq, node.key, node.value.hex(), node.flags, node.hidden)
            assert shown == tuple(expected[name] for name in ("seq", "key", "value", "flags", "hidden"))
        assert entry.inner == case["innerPath"]
        assert case["trieKey"] in (None, entry.trie.key.hex())
        assert (case["trieKey"] is None) == entry.trie.trie.fixed


async def test_recorded_iterations(replayed: Any) -> None:
    data, _, tries = replayed
    for case in data["iterations"]:
        opts = case["opts"]
        walk = tries["A"].iterate(
            case["prefix"],
            recursive=opts.get("recursive", True),
            enter_mounts=opts.get("recursive", False) and not opts.get("noMounts", False),
            gt=opts.get("gt", False),
        )
        shown = [[found.node.key, found.node.seq, found.node.flags] async for found in walk]
        assert shown == case["nodes"], case


async def test_recorded_mounts_and_unmount(replayed: Any) -> None:
    data, made, tries = replayed
    listed = {"/" + path: mount for path, mount, _ in await tries["A"].mounts(recursive=True)}
    assert {case["path"] for case in data["mounts"]} == set(listed)
    for case in data["mounts"]:
        pinned = listed[case["path"]].version is not None
        assert case["key"] == (None if pinned else listed[case["path"]].key.hex())
    await replay(made, tries, data["steps"][-1])
    after = [[entry.node.key, entry.node.seq, entry.node.flags] async for entry in tries["A"].iterate()]
    assert after == data["afterUnmount"]
