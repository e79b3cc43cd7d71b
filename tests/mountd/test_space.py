"""What may be dropped of others' drives: nothing before all pins have followed their paths. Files are real."""

import json
import shutil

import pytest
import trio

from ddrive.dialect import DWEB
from ddrive.drive.drive import open_drive
from ddrive.feed import Feed
from ddrive.store.store import OwnedStore, open_store
from mountd import space_following
from mountd.space import Space
from mountd.space_pins import Pin


@pytest.fixture
async def pinned(tmp_path):
    """Return the state directory of somebody who holds another's drive, of which `/kept` is pinned as it once was."""
    async with open_store(tmp_path / "author") as store:
        drive = await open_drive(store, create=True)
        await drive.write_file("/kept", b"old" * 100)
        version, content = drive.version, await drive.content()
        pin = Pin(drive.key, "/kept", version, {content.key: [(0, 1)]})
        for number in range(3 * space_following.ENTRIES_PER_TURN):
            await drive.write_file(f"/other-{number}", b"other" * 100)
        await drive.write_file("/kept", b"new" * 100)
        folders = [store.folder(feed.key) for feed in (drive.metadata, content)]
    state = tmp_path / "reader"
    for folder in folders:
        shutil.copytree(folder, state / DWEB.name / folder.relative_to(tmp_path / "author"))
        (state / DWEB.name / folder.relative_to(tmp_path / "author") / "name").unlink(missing_ok=True)
    (state / "pins.json").write_text(json.dumps([pin.to_json()]))
    return state, pin


def space_of(state, store: OwnedStore) -> Space:
    """Return what keeps the bytes within a cache of none."""
    return Space(state, {DWEB.name: store}, lambda: (), cache_size=0, min_free=0)


async def content_of(store: OwnedStore, pin: Pin) -> Feed:
    """Return the feed with the content of the pinned file."""
    return await store.open_feed(key=next(iter(pin.blocks)))


class Dropped:
    """Tells when two blocks of a feed are left."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.done = trio.Event()
        feed.subscribe(self)

    def cleared(self, start: int, end: int) -> None:
        if self.feed.held(0, self.feed.length) <= 2:
            self.done.set()

    def stored(self, start: int, end: int) -> None: ...


async def test_pins_follow_what_is_held_a_few_entries_at_a_time(pinned, monkeypatch):
    state, pin = pinned
    turns, done = 0, False
    sizes = []
    came = space_following.Following.came

    def noted(self, feed, start, end):
        sizes.append((end - start, turns))
        came(self, feed, start, end)

    monkeypatch.setattr(space_following.Following, "came", noted)

    async def other_task():
        nonlocal turns
        while not done:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with open_store(state / DWEB.name) as store, trio.open_nursery() as nursery:
        space = space_of(state, store)
        await store.open_feed(key=pin.key)
        nursery.start_soon(other_task)
        await space.following.catch_up()
        done = True
        content = await content_of(store, pin)
        assert space.pins.runs(content.key) == [(0, 1), (content.length - 1, content.length)]
    assert sum(size for size, _ in sizes) > 3 * space_following.ENTRIES_PER_TURN
    assert max(size for size, _ in sizes) <= space_following.ENTRIES_PER_TURN
    assert sizes[-1][1] > sizes[0][1], "the other task had its turn"


async def test_nothing_is_dropped_before_pins_have_followed(pinned):
    state, pin = pinned
    async with open_store(state / DWEB.name) as store, trio.open_nursery() as nursery:
        space = space_of(state, store)
        await store.open_feed(key=pin.key)
        content = await content_of(store, pin)
        space.count(space._open[store.discovery_key(content.key)], 0, content.length, 1)
        space.enforce()
        assert content.held(0, content.length) == content.length
        dropped = Dropped(content)
        nursery.start_soon(space.run)
        with trio.fail_after(30):
            await dropped.done.wait()
        assert content.has(0)
        assert content.has(content.length - 1)
        nursery.cancel_scope.cancel()
