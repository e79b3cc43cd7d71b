"""A drive of ours whose filling up was interrupted: content and entries are guarded when it is opened again."""

from pathlib import Path

import pytest
import trio

from ddrive.dialect import DWEB
from ddrive.drive import open_drive
from ddrive.errors import Behind
from ddrive.store.store import open_store
from mountd.keys_guard import Guard

FILES = 200


async def test_entries_are_looked_through_a_few_at_a_time_before_anything_is_appended(tmp_path: Path) -> None:
    async with open_store(tmp_path, DWEB) as store:
        drive = await open_drive(store, name="ours", create=True)
        key, content = drive.metadata.key, (await drive.content()).key
        for number in range(FILES):
            await drive.write_file(f"/{number}", b"x")
        await drive.close()
        store.must_reach(key, FILES + 2, durable=True)  # one more was signed, which is elsewhere
        folder = store.folder(content)
    for path in folder.iterdir():
        if path.name not in ("key", "name"):
            path.unlink()
    async with open_store(tmp_path, DWEB) as store, trio.open_nursery() as nursery:
        guard = Guard([store])
        await guard.settled()  # nothing is open
        assert (await store.open_feed(key=key)).behind
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        nursery.start_soon(count)
        nursery.start_soon(guard.run)
        with trio.fail_after(20):
            await guard.settled()
        assert turns >= 3
        feed = await store.open_feed(key=content)
        assert (feed.length, feed.behind) == (0, True)
        with pytest.raises(Behind, match=f"{FILES} blocks of it were signed"):
            await feed.append([b"too early"])
        nursery.cancel_scope.cancel()
