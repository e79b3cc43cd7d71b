"""The trie against a dictionary: any changes, in any batches, seen at any version. Keys of equal hashes included."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ddrive.dialect import HYPERCORE
from ddrive.trie import Delete, Put, Trie, TrieNode, open_trie
from ddrive.trie.path import COMPONENT_DIGITS, is_check_point
from tests.trie.feeds import new_feed

Model = dict[tuple[bool, str], bytes]

PARTS = st.sampled_from(["a", "b", "c", "idgcmnmna", "mpomeiehc"])
KEYS = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
PUTS = st.builds(Put, KEYS, st.binary(max_size=2), st.integers(0, 2), st.sampled_from([False, False, True]))
DELETES = st.builds(Delete, KEYS, st.sampled_from([False, False, True]))
BATCHES = st.lists(st.lists(PUTS | PUTS | DELETES, min_size=1, max_size=6), min_size=1, max_size=8)


async def written(batches: list[list[Put | Delete]]) -> tuple[Trie, dict[int, Model]]:
    """Return a trie with these batches, and what a dictionary holds at each version."""
    trie = await open_trie(new_feed(), HYPERCORE)
    model: Model = {}
    versions = {1: model}
    for batch in batches:
        model = dict(model)
        done = await trie.batch(batch)
        for change, result in zip(batch, done, strict=True):
            place = change.hidden, change.key
            if isinstance(change, Put):
                assert result is not None
                model[place] = change.value or b""
            else:
                assert (result.value if result else None) == model.pop(place, None)
        versions[trie.version] = model
    return trie, versions


def shown(nodes: list[TrieNode]) -> Model:
    found = {(node.hidden, node.key): node.value or b"" for node in nodes}
    assert len(found) == len(nodes)
    return found


def place(node: TrieNode) -> list[int | str]:
    """Return the sort key of the iteration order: the end of a path first, components of equal hashes by their text."""
    found: list[int | str] = []
    for index in range(node.length):
        found.append((node.digit(index) + 1) % 5)
        if is_check_point(index):
            found.append(node.parts[(index - 1) // COMPONENT_DIGITS])
    return found


@settings(max_examples=40, deadline=None)
@given(BATCHES)
async def test_every_version_lists_and_gets_like_a_dictionary(batches: list[list[Put | Delete]]) -> None:
    trie, versions = await written(batches)
    for version, model in versions.items():
        past = trie.checkout(version)
        for hidden in (False, True):
            expected = {place: value for place, value in model.items() if place[0] is hidden}
            assert shown(await past.list(hidden=hidden)) == expected
        for (hidden, key), value in model.items():
            node = await past.get(key, hidden=hidden)
            assert node is not None
            assert node.value == value
        assert await past.get("a/b/c/missing") is None


@settings(max_examples=40, deadline=None)
@given(BATCHES, KEYS)
@example([[Put("a", b""), Put("a/idgcmnmna/a", b""), Put("a/mpomeiehc", b"")]], "a")
async def test_prefixes_and_orders(batches: list[list[Put | Delete]], prefix: str) -> None:
    trie, versions = await written(batches)
    model = versions[trie.version]
    keys = {key for hidden, key in model if not hidden}
    below = {key for key in keys if key == prefix or key.startswith(prefix + "/")}
    nodes = await trie.list(prefix)
    assert {node.key for node in nodes} == below
    assert [place(node) for node in nodes] == sorted(place(node) for node in nodes)
    assert {node.key async for node in trie.iterate(prefix, gt=True)} == below - {prefix}
    assert {node.key async for node in trie.iterate(prefix, reverse=True)} == below
    children = {key.removeprefix(prefix).split("/")[1] if key != prefix else "" for key in below}
    direct = [node.key.removeprefix(prefix) async for node in trie.iterate(prefix, recursive=False)]
    assert sorted(key.split("/")[1] if key else "" for key in direct) == sorted(children)
    newest = await trie.newest(prefix)
    assert (newest.seq if newest else 0) == max((node.seq for node in nodes), default=0)


@settings(max_examples=40, deadline=None)
@given(BATCHES, st.data())
async def test_diff_tells_what_two_versions_hold(batches: list[list[Put | Delete]], data: st.DataObject) -> None:
    trie, versions = await written(batches)
    left = data.draw(st.sampled_from(sorted(versions)))
    right = data.draw(st.sampled_from(sorted(versions)))
    changes = [change async for change in trie.checkout(left).diff(right)]
    assert len({change.key for change in changes}) == len(changes)
    then = {node.key: node for node in await trie.checkout(right).list()}
    now = {node.key: node for node in await trie.checkout(left).list()}
    expected = {
        key: (now[key].seq if key in now else None, then[key].seq if key in then else None)
        for key in {**then, **now}
        if key not in now or key not in then or now[key].seq != then[key].seq
    }
    assert {c.key: (c.left and c.left.seq, c.right and c.right.seq) for c in changes} == expected
    added = [c.key async for c in trie.checkout(left).diff(right, skip_removed=True)]
    assert set(added) == {key for key, (seq, _) in expected.items() if seq is not None}
    removed = [c.key async for c in trie.checkout(left).diff(right, skip_added=True)]
    assert set(removed) == {key for key, (_, seq) in expected.items() if seq is not None}


@settings(max_examples=30, deadline=None)
@given(BATCHES)
async def test_a_batch_gives_the_blocks_of_single_changes(batches: list[list[Put | Delete]]) -> None:
    together, _ = await written(batches)
    single, _ = await written([[change] for batch in batches for change in batch])
    assert [n.seq async for n in together.history()] == [n.seq async for n in single.history()]
    assert together.version == single.version
    for seq in range(1, together.version):
        assert together.feed.get_held(seq) == single.feed.get_held(seq)
