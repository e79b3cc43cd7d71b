"""Tries mounted in tries: the recorded steps of the npm packages, and what they get wrong or leave open."""

import re
from hashlib import sha256
from typing import Any

import pytest
import trio

from ddrive.dialect import DIALECTS, DWEB, Dialect
from ddrive.errors import CrossesMount, InvalidKey, InvalidPath, NotFound, NotWritable, TooManyLinks
from ddrive.ids import PublicKey
from ddrive.store.derive import derive_seed
from ddrive.trie import MOUNT_FLAG, InvalidNode, MountPoint, MountTrie, Trie, TrieNode, open_mount_trie, open_trie
from ddrive.trie.mountpoint import decode_mount, encode_mount
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


# -- beyond the recordings


async def tree() -> tuple[World, MountTrie]:
    """A with a mount of B at `m/b`, B with a mount of C at `c`, some entries in each."""
    made = world("A", "B", "C")
    a, b, c = [await made.open(name) for name in "ABC"]
    await a.put("m/own", b"a")
    await b.put("x", b"b")
    await c.put("y", b"c")
    await a.mount("m/b", made.feeds["B"].key, value=b"stat")
    await b.mount("c", made.feeds["C"].key)
    return made, a


async def keys(walk: Any) -> list[str]:
    return sorted([entry.node.key async for entry in walk])


async def test_entries_are_shown_with_their_owner() -> None:
    made, a = await tree()
    entry = await a.get("/m/b/c/y")
    assert entry.node is not None
    assert (entry.node.key, entry.node.value, entry.inner) == ("m/b/c/y", b"c", "y")
    assert entry.trie.key == made.feeds["C"].key
    assert entry.mount == MountPoint("c", made.feeds["C"].key)
    place = await a.owner("m/b/c")
    assert (place.base, place.inner, place.trie.key) == ("m/b/c", "", made.feeds["C"].key)
    place = await a.place("m/b/c")
    assert (place.base, place.inner, place.trie.key) == ("m/b", "c", made.feeds["B"].key)
    assert (await a.get("m/b")).node.value == b"stat"  # type: ignore[union-attr]
    assert (await a.get("m/b/nothing")).node is None
    assert (await a.get("")).node is None


async def test_each_trie_is_opened_once() -> None:
    made, a = await tree()
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(a.get, "m/b/c/y")
    await a.snapshot().get("m/b/c/y")
    assert sorted(made.opened) == sorted(made.feeds[name].key for name in "BC")


async def test_changes_land_in_the_trie_that_owns_the_path() -> None:
    made, a = await tree()
    lengths = {name: feed.length for name, feed in made.feeds.items()}
    await a.put("m/b/c/new", b"1")
    assert (await a.delete("m/b/x")) is not None
    assert {name: feed.length - lengths[name] for name, feed in made.feeds.items()} == {"A": 0, "B": 1, "C": 1}
    assert await keys(a.iterate(enter_mounts=True)) == ["m/b", "m/b/c", "m/b/c/new", "m/b/c/y", "m/own"]


async def test_entries_that_were_there_before_a_mount_are_covered_by_it() -> None:
    made = world("A", "B")
    a, b = [await made.open(name) for name in "AB"]
    await a.put("m/old", b"covered")
    await b.put("new", b"")
    await a.mount("m", made.feeds["B"].key)
    await a.put("m/old", b"in B")
    assert (await a.get("m/old")).node.value == b"in B"  # type: ignore[union-attr]
    assert await keys(a.iterate("m")) == ["m/new", "m/old"]
    await a.unmount("m")
    assert (await a.get("m/old")).node.value == b"covered"  # type: ignore[union-attr]


async def test_the_outer_of_two_mounts_in_one_trie_counts() -> None:
    made = world("A", "B", "C")
    a, b = [await made.open(name) for name in "AB"]
    await b.put("deep/x", b"b")
    await a.mount("m/deep", made.feeds["C"].key)
    await a.mount("m", made.feeds["B"].key)
    assert (await a.get("m/deep/x")).trie.key == made.feeds["B"].key


async def test_a_record_without_its_visible_entry_is_no_mount() -> None:
    made, a = await tree()
    await a.trie.delete("m/b")
    assert (await a.get("m/b/x")).node is None
    assert (await a.owner("m/b/x")).trie.key == made.feeds["A"].key
    assert await a.mounts(recursive=True) == []


async def test_deleting_or_replacing_a_mount_point_removes_its_record() -> None:
    made, a = await tree()
    await a.delete("m/b")
    assert await a.trie.list("mounts", hidden=True) == []
    await a.mount("m/b", made.feeds["B"].key)
    await a.put("m/b", b"changed", flags=MOUNT_FLAG)
    assert (await a.get("m/b/x")).node is not None
    await a.put("m/b", b"a file now")
    assert await a.trie.list("mounts", hidden=True) == []
    assert (await a.get("m/b/x")).node is None


async def test_a_pinned_mount_shows_its_version_and_cannot_be_changed() -> None:
    made = world("A", "B")
    a, b = [await made.open(name) for name in "AB"]
    await b.put("x", b"old")
    await a.mount("pin", made.feeds["B"].key, version=b.version)
    await b.put("x", b"new")
    assert (await a.get("pin/x")).node.value == b"old"  # type: ignore[union-attr]
    with pytest.raises(NotWritable):
        await a.put("pin/x", b"")


async def test_a_mounted_trie_is_shown_at_its_newest() -> None:
    made, a = await tree()
    past = a.snapshot()
    b = await made.open("B")
    await b.put("later", b"")
    assert (await a.get("m/b/later")).node is not None
    assert (await past.get("m/b/later")).node is not None


async def test_circles_end() -> None:
    made = world("A", "B")
    a, b = [await made.open(name) for name in "AB"]
    await a.put("file", b"")
    await a.mount("b", made.feeds["B"].key)
    await a.mount("self", made.feeds["A"].key)
    await a.mount("past", made.feeds["A"].key, version=2)
    await b.mount("a", made.feeds["A"].key)
    assert await keys(a.iterate(enter_mounts=True)) == ["b", "b/a", "file", "past", "self"]
    assert sorted(path for path, _, _ in await a.mounts(recursive=True)) == ["b", "b/a", "past", "self"]
    assert (await a.get("b/a/b/a/file")).node.key == "b/a/b/a/file"  # type: ignore[union-attr]
    assert (await a.get("self/" * 40 + "file")).node is not None
    with pytest.raises(TooManyLinks):
        await a.get("self/" * 70 + "file")
    assert await keys(a.iterate("b/a", enter_mounts=True)) == ["b/a/b", "b/a/b/a", "b/a/file", "b/a/past", "b/a/self"]


async def test_diff_names_mounts_and_stays_in_one_trie() -> None:
    made, a = await tree()
    before = a.snapshot()
    await a.unmount("m/b")
    await a.mount("n", made.feeds["C"].key)
    await a.put("m/own", b"2")
    changes = {change.key: change async for change in a.diff(before)}
    assert {key: change.kind for key, change in changes.items()} == {"m/b": "unmount", "n": "mount", "m/own": "put"}
    assert changes["m/b"].mount == MountPoint("m/b", made.feeds["B"].key)
    assert changes["n"].mount == MountPoint("n", made.feeds["C"].key)
    assert ("mount", "n") in [(change.kind, change.key) async for change in a.diff()]
    with pytest.raises(CrossesMount):
        [change async for change in a.diff(before, "m/b")]


async def test_diff_below_a_mount_compares_the_mounted_trie() -> None:
    made = world("A", "B")
    a, b = [await made.open(name) for name in "AB"]
    await b.put("x", b"1")
    await a.mount("p", made.feeds["B"].key, version=b.version)
    before = a.snapshot()
    await b.put("y", b"2")
    await a.mount("p", made.feeds["B"].key, version=b.version)
    assert [(c.kind, c.key) async for c in a.diff(before, "p")] == [("put", "p/y")]


async def test_rename_takes_mounts_along() -> None:
    made, a = await tree()
    assert await a.rename("m", "moved/to") == 2
    assert await keys(a.iterate(enter_mounts=True)) == [
        "moved/to/b",
        "moved/to/b/c",
        "moved/to/b/c/y",
        "moved/to/b/x",
        "moved/to/own",
    ]
    assert [(path, mount.path) for path, mount, _ in await a.mounts()] == [("moved/to/b", "moved/to/b")]
    assert (await a.get("moved/to/b/x")).trie.key == made.feeds["B"].key
    assert await a.rename("moved/to/b", "b") == 1
    assert (await a.get("b/c/y")).node is not None
    assert await a.rename("b/x", "b/z") == 1
    with pytest.raises(CrossesMount):
        await a.rename("b/z", "z")
    with pytest.raises(InvalidPath):
        await a.rename("moved", "moved/again")


async def test_mounts_are_refused_for_bad_keys_and_paths() -> None:
    made, a = await tree()
    with pytest.raises(InvalidKey):
        await a.mount("k", PublicKey(b"short"))
    with pytest.raises(InvalidPath):
        await a.mount("/", made.feeds["B"].key)
    with pytest.raises(NotFound):
        await a.unmount("m/own")
    with pytest.raises(NotFound):
        await a.unmount("m")


async def test_a_mount_made_while_a_put_waits_is_respected() -> None:
    made = world("A", "B")
    a, other = await made.open("A"), await made.open("A")
    feed = made.feeds["A"]
    inner = feed.appender
    mounted = False

    async def late(blocks: Any, expected_length: int | None, atomic: bool) -> Any:
        nonlocal mounted
        if not mounted:
            mounted = True
            await other.mount("m", made.feeds["B"].key)
        return await inner(blocks, expected_length, atomic)

    feed.appender = late
    await a.put("m/x", b"1")
    assert await keys((await made.open("B")).iterate()) == ["x"]
    assert await keys(a.iterate()) == ["m"]


async def test_conditions_reach_the_owner() -> None:
    _, a = await tree()
    seen: list[Any] = []

    def note(old: TrieNode | None, new: TrieNode | None) -> bool:
        seen.append((old and old.key, new and new.key))
        return False

    assert await a.put("m/b/x", b"", condition=note) is None
    assert await a.delete("m/b/x", condition=note) is None
    assert seen == [("x", "x"), ("x", None)]


@pytest.mark.parametrize("value", [b"", b"\xff", b"\x0a\x01k\x12\x01p"])
async def test_a_broken_mount_record_is_reported(value: bytes) -> None:
    _, a = await tree()
    await a.trie.put("mounts/m/b", value, flags=MOUNT_FLAG, hidden=True)
    with pytest.raises(InvalidNode, match="mount record"):
        await a.get("m/b/x")


def test_a_record_holds_key_and_version() -> None:
    for version in (None, 1, 1 << 40):
        mount = MountPoint("a/b", PublicKey(b"k" * 32), version)
        node = TrieNode(1, mount.record_key, encode_mount(mount), MOUNT_FLAG, True)
        assert decode_mount(node) == mount
